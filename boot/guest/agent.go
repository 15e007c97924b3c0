//go:build linux

package guest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/seatrial/seatrial/boot"
	"golang.org/x/sys/unix"
)

// maxCommands is how many commands may run at a time; more is a host in error.
const maxCommands = 64

// lingerTime is how long output is awaited from processes that a command left
// behind holding its standard output.
const lingerTime = time.Second

// ServeAgent runs the commands that come in on line, as package boot describes,
// until line ends or ctx does. A program whose name starts with "@" is one of
// the agent's own: the machine's root may hold no shell at all (see [Builtins]).
//
// A damaged frame is answered by an Error with ID 0: nobody knows what it
// asked for, and the host must not wait for its answer. Reading goes on with
// the next line.
func ServeAgent(ctx context.Context, line io.ReadWriter) error {
	ctx, cancel := context.WithCancel(ctx)
	a := &agent{out: line, running: map[uint64]context.CancelFunc{}}
	defer a.commands.Wait()
	defer cancel()
	a.reply(boot.Reply{Hello: Build()})
	in := bufio.NewReaderSize(line, boot.MaxFrame+16) // the sum and the blank come on top
	for {
		text, err := in.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			for errors.Is(err, bufio.ErrBufferFull) {
				_, err = in.ReadSlice('\n')
			}
			a.reply(boot.Reply{Error: "agent: frame too long"})
			text = nil
		}
		if text = bytes.TrimSpace(text); len(text) > 0 {
			a.handle(ctx, text)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

type agent struct {
	mu  sync.Mutex // one frame at a time
	out io.Writer

	commands sync.WaitGroup
	state    sync.Mutex
	running  map[uint64]context.CancelFunc
	mark     string // of @mark; this and the next are the reader's alone
	random   generator
}

// reply sends one frame. A line that is broken is noticed by the reader.
func (a *agent) reply(r boot.Reply) {
	frame, err := boot.AppendFrame(nil, r)
	if err != nil {
		frame, _ = boot.AppendFrame(nil, boot.Reply{ID: r.ID, Error: err.Error()})
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	_, _ = a.out.Write(frame)
}

func (a *agent) handle(ctx context.Context, text []byte) {
	var r boot.Request
	if err := boot.ParseFrame(text, &r); err != nil {
		a.reply(boot.Reply{Error: err.Error()})
		return
	}
	a.state.Lock()
	cancel, known := a.running[r.ID]
	n := len(a.running)
	a.state.Unlock()
	switch {
	case r.Cancel:
		if known {
			cancel()
		}
		// Unknown: it has ended, and its last reply is on the way.
	case len(r.Argv) == 0:
		a.reply(boot.Reply{ID: r.ID, Hello: Build()})
	case known:
		a.reply(boot.Reply{ID: r.ID, Error: fmt.Sprintf("agent: command %d is still running", r.ID)})
	case n >= maxCommands:
		a.reply(boot.Reply{ID: r.ID, Error: fmt.Sprintf("agent: %d commands are running, no more can", n)})
	case slices.Contains([]string{CmdMark, CmdReseed, CmdWake}, r.Argv[0]):
		a.reply(a.atOnce(r)) // before anything that was asked after it
	default:
		a.launch(ctx, r)
	}
}

// atOnce runs a command of the agent's own, and says all in one frame.
func (a *agent) atOnce(r boot.Request) boot.Reply {
	var out bytes.Buffer
	code := 0
	if err := a.builtin(&out, r.Argv); err != nil {
		code = 1
		return boot.Reply{ID: r.ID, Stream: 2, Data: []byte(err.Error() + "\n"), Exit: &code}
	}
	return boot.Reply{ID: r.ID, Stream: 1, Data: out.Bytes(), Exit: &code}
}

// launch runs the request beside the reader.
func (a *agent) launch(ctx context.Context, r boot.Request) {
	ctx, cancel := context.WithCancel(ctx)
	a.state.Lock()
	a.running[r.ID] = cancel
	a.state.Unlock()
	a.commands.Add(1)
	go func() {
		defer a.commands.Done()
		defer cancel()
		last := a.execute(ctx, r)
		// Before the reply: the host may use the ID again once it has it.
		a.state.Lock()
		delete(a.running, r.ID)
		a.state.Unlock()
		a.reply(last)
	}()
}

// stream sends what is written to it in frames.
type stream struct {
	a  *agent
	id uint64
	n  int
}

func (s stream) Write(b []byte) (int, error) {
	for chunk := range chunks(b, boot.MaxChunk) {
		s.a.reply(boot.Reply{ID: s.id, Stream: s.n, Data: chunk})
	}
	return len(b), nil
}

func chunks(b []byte, size int) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(b) > 0 {
			n := min(len(b), size)
			if !yield(b[:n]) {
				return
			}
			b = b[n:]
		}
	}
}

// execute runs one command to its end and returns its last reply.
func (a *agent) execute(ctx context.Context, r boot.Request) boot.Reply {
	stdout, stderr := stream{a, r.ID, 1}, stream{a, r.ID, 2}
	if r.Argv[0] != "" && r.Argv[0][0] == '@' {
		code := 0
		if err := a.builtin(stdout, r.Argv); err != nil {
			fmt.Fprintln(stderr, err)
			code = 1
		}
		return boot.Reply{ID: r.ID, Exit: &code}
	}
	cmd := exec.CommandContext(ctx, r.Argv[0], r.Argv[1:]...)
	cmd.Env = append(os.Environ(), r.Env...)
	cmd.Dir = r.Dir
	if cmd.Dir == "" {
		cmd.Dir = "/"
	}
	cmd.Stdin = bytes.NewReader(r.Stdin)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) } // its children too
	cmd.WaitDelay = lingerTime
	if err := cmd.Start(); err != nil {
		if ctx.Err() != nil { // cancelled on the way: to the host it was killed
			code := 128 + int(unix.SIGKILL)
			return boot.Reply{ID: r.ID, Exit: &code, Signal: unix.SignalName(unix.SIGKILL)}
		}
		return boot.Reply{ID: r.ID, Error: err.Error()}
	}
	err := cmd.Wait()
	if cmd.ProcessState == nil {
		return boot.Reply{ID: r.ID, Error: err.Error()}
	}
	reply := boot.Reply{ID: r.ID}
	code := cmd.ProcessState.ExitCode()
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		code = 128 + int(ws.Signal())
		reply.Signal = unix.SignalName(ws.Signal())
	}
	reply.Exit = &code
	return reply
}

// openRaw opens a terminal as a clean line for bytes.
func openRaw(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	// Not Fd, which makes the file a blocking one: then the reader sleeps in
	// read(2), and a machine with one processor runs the command only when Go
	// notices that, up to 10 ms later.
	var rawErr error
	conn, err := f.SyscallConn()
	if err == nil {
		err = conn.Control(func(fd uintptr) { rawErr = makeRaw(int(fd)) })
	}
	if err := errors.Join(err, rawErr); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", name, err), f.Close())
	}
	return f, nil
}

func makeRaw(fd int) error {
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return fmt.Errorf("is not a terminal: %w", err)
	}
	t.Iflag, t.Oflag, t.Lflag = 0, 0, 0
	t.Cflag = unix.CS8 | unix.CREAD | unix.CLOCAL | unix.B115200
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	return unix.IoctlSetTermios(fd, unix.TCSETS, t)
}

// startAgent starts the agent if the command line asks for it, and keeps it.
func (m *machine) startAgent() error {
	tty, ok := m.words.last(boot.AgentWord)
	if !ok {
		return nil
	}
	argv := []string{filepath.Join(m.root, boot.InitPath), "agent", tty}
	p, err := m.reaper.Start(argv, m.env, "/", os.Stdin, os.Stdout, os.Stderr)
	if err != nil {
		return err
	}
	m.supervise(func() {
		for wait := 100 * time.Millisecond; ; wait = min(2*wait, maxBackOff) {
			if p != nil {
				select {
				case <-p.Done():
					m.speak.Say("init: agent on %s: %v; it is started again", tty, p.Exit())
				case <-m.ctx.Done():
					return
				}
			}
			if m.pause(wait) {
				return
			}
			if p, err = m.reaper.Start(argv, m.env, "/", os.Stdin, os.Stdout, os.Stderr); err != nil {
				m.speak.Say("init: agent on %s: %v", tty, err)
			}
		}
	})
	return nil
}

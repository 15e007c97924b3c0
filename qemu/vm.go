package qemu

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/term"
)

// VM is a QEMU process with everything attached.
type VM struct {
	command  *Command
	grace    time.Duration
	cmd      *exec.Cmd
	qmp      *QMP
	serial   *os.File // our ends of the terminals
	agent    *os.File
	config   Config
	ports    []*port         // of networks of machines
	disks    []*volatile     // in order
	tpm      *tpm            // nil: none
	channels []*net.UnixConn // in order
	record   *os.File
	stderr   *tail
	done     chan struct{}
	close    sync.Once
	closed   error

	mu        sync.Mutex
	requested bool // we asked for the end
	cut       bool // by PowerCut
	ended     *os.ProcessState
}

// StartError is why QEMU could not be started.
type StartError struct {
	Command string // to paste into a shell
	Stderr  string // what QEMU said, its end
	Err     error
}

// Error gives QEMU's own words first: they usually name the reason.
func (e *StartError) Error() string {
	if e.Stderr != "" {
		// The first line is the reason; what an abort adds is in the field.
		reason, _, _ := strings.Cut(strings.TrimSpace(e.Stderr), "\n")
		return fmt.Sprintf("QEMU does not start: %s (%v)", reason, e.Err)
	}
	return fmt.Sprintf("QEMU does not start: %v", e.Err)
}

// Unwrap gives the underlying error.
func (e *StartError) Unwrap() error { return e.Err }

// startPatience bounds the time from exec to the monitor's greeting. It takes
// 50 ms on an idle host; a loaded one gets a minute before it counts as broken.
const startPatience = time.Minute

// Start runs QEMU, paused, with its lines attached. The caller must drain
// Serial (a line nobody reads stops the guest) and must Close the VM.
//
// QEMU dies with this process, whatever ends it, and does not hear the
// terminal's Ctrl-C: whoever owns the VM decides when it ends.
func Start(ctx context.Context, c Config) (*VM, error) {
	command, err := c.Command()
	if err != nil {
		return nil, err
	}
	v := &VM{command: command, config: c, grace: cmp.Or(c.Grace, killGrace), done: make(chan struct{}), stderr: &tail{}}
	if err := v.launch(ctx, c); err != nil {
		if v.cmd != nil && v.cmd.Process != nil {
			err = &StartError{Command: command.String(), Err: err, Stderr: v.stderrAfterEnd(v.Close())}
		} else {
			err = errors.Join(&StartError{Command: command.String(), Err: err}, v.Close())
		}
		return nil, err
	}
	return v, nil
}

func (v *VM) stderrAfterEnd(closeErr error) string {
	text := v.stderr.String()
	if closeErr != nil {
		text += closeErr.Error()
	}
	return text
}

func (v *VM) launch(ctx context.Context, c Config) error {
	var slaves []*os.File
	defer func() {
		for _, s := range slaves {
			s.Close() // QEMU has its own by now, or never will
		}
	}()
	open := func() (*os.File, string, error) {
		master, slave, err := OpenTerminal()
		if err != nil {
			return nil, "", err
		}
		slaves = append(slaves, slave)
		if _, err := term.MakeRaw(int(slave.Fd())); err != nil {
			return master, "", fmt.Errorf("raw mode on %s: %w", slave.Name(), err)
		}
		return master, slave.Name(), nil
	}
	var serialPath, agentPath string
	var err error
	if v.serial, serialPath, err = open(); err != nil {
		return err
	}
	if c.Agent {
		if v.agent, agentPath, err = open(); err != nil {
			return err
		}
	}
	ours, theirs, err := socketPair("monitor")
	if err != nil {
		return err
	}
	inherited := []*os.File{theirs}
	defer func() {
		for _, f := range inherited {
			f.Close() // again, if QEMU has its own by now
		}
	}()
	if err := errors.Join(v.openEvidence(c.Dir), c.Boot.makeVars(c.Arch)); err != nil {
		ours.Close()
		return err
	}
	var record io.Writer
	if v.record != nil {
		record = v.record
	}
	v.qmp = newQMP(ours, record)
	for _, open := range []func(Config) ([]*os.File, error){v.openDisks, v.plugNetworks, v.startTPM, v.openChannels} { // as Config.Command lists them
		far, err := open(c)
		inherited = append(inherited, far...)
		if err != nil {
			return err
		}
	}
	v.cmd = exec.Command(c.Binary, v.command.argv(3, serialPath, agentPath)...)
	v.cmd.ExtraFiles = inherited // from descriptor 3 on
	v.cmd.Stderr = v.stderr
	if c.Dir != "" {
		v.cmd.Env = append(os.Environ(), "TMPDIR="+c.Dir) // for the overlays of disks
	}
	if err := v.spawn(); err != nil {
		return err
	}
	for _, f := range inherited {
		f.Close() // so that monitor and cables end when QEMU does
	}
	return v.greet(ctx)
}

// filePair returns both ends of a stream as files.
func filePair(name string) (near, far *os.File, err error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("%s socket: %w", name, err)
	}
	return os.NewFile(uintptr(fds[0]), name), os.NewFile(uintptr(fds[1]), name), nil
}

// socketPair returns a connection and the file for the far side.
func socketPair(name string) (*net.UnixConn, *os.File, error) {
	near, far, err := filePair(name)
	if err != nil {
		return nil, nil, err
	}
	conn, err := net.FileConn(near)
	if err := errors.Join(err, near.Close()); err != nil {
		far.Close()
		return nil, nil, fmt.Errorf("%s socket: %w", name, err)
	}
	return conn.(*net.UnixConn), far, nil
}

func (v *VM) openEvidence(dir string) error {
	if dir == "" {
		return nil
	}
	f, err := os.Create(filepath.Join(dir, "qemu.stderr"))
	if err != nil {
		return err
	}
	v.stderr.file = f
	v.record, err = os.Create(filepath.Join(dir, "qmp.jsonl"))
	return err
}

// spawn starts QEMU.
func (v *VM) spawn() error {
	err := startChild(v.cmd, func(error) { // it only repeats the state, which Exit puts into words
		v.mu.Lock()
		v.ended = v.cmd.ProcessState
		v.mu.Unlock()
		close(v.done)
	})
	if err != nil {
		close(v.done)
	}
	return err
}

// startChild starts a program that dies with this process, in a process group
// of its own, from a goroutine that stays on one operating-system thread and
// waits there for the end, of which it tells. The lock is not decoration:
// PR_SET_PDEATHSIG fires when the *thread* that forked ends (prctl(2)), and Go
// ends threads as it likes.
func startChild(cmd *exec.Cmd, ended func(error)) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			ended(cmd.Wait())
		}
	}()
	return <-started
}

// greet leaves the monitor's negotiation mode.
func (v *VM) greet(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startPatience, fmt.Errorf("no greeting from the monitor in %v", startPatience))
	defer cancel()
	err := v.qmp.Do(ctx, "qmp_capabilities", nil, nil)
	if errors.Is(err, ErrMonitorGone) {
		select {
		case <-v.done:
			return errors.New(v.Exit().String())
		case <-ctx.Done():
		}
	}
	return err
}

// Resume lets the paused machine run.
func (v *VM) Resume(ctx context.Context) error { return v.qmp.Do(ctx, "cont", nil, nil) }

// Serial is the guest's first UART. A read after QEMU's end gives what was
// left on the line, then io.EOF.
func (v *VM) Serial() io.ReadWriter { return line{v.serial} }

// AgentLine is the guest's second UART; nil without Config.Agent.
func (v *VM) AgentLine() io.ReadWriter {
	if v.agent == nil {
		return nil
	}
	return line{v.agent}
}

// line is a pseudo-terminal's master, whose far side's end shows as EIO. The
// file is not embedded: io.Copy would find its WriteTo and miss our Read.
type line struct{ f *os.File }

func (l line) Write(p []byte) (int, error) { return l.f.Write(p) }

func (l line) Read(p []byte) (int, error) {
	n, err := l.f.Read(p)
	if errors.Is(err, syscall.EIO) || errors.Is(err, os.ErrClosed) {
		err = io.EOF
	}
	return n, err
}

// QMP is the machine's monitor.
func (v *VM) QMP() *QMP { return v.qmp }

// PID is QEMU's process id.
func (v *VM) PID() int { return v.cmd.Process.Pid }

// Done is closed when QEMU is gone.
func (v *VM) Done() <-chan struct{} { return v.done }

// killGrace is the time between the rungs of Quit's ladder, if Config.Grace
// says nothing else. An idle QEMU obeys in milliseconds; one that writes out a
// disk on a loaded host may need a second.
const killGrace = 3 * time.Second

// Quit ends QEMU: by the monitor, then SIGTERM, then SIGKILL. It returns when
// QEMU is gone; ctx only shortens the ladder.
func (v *VM) Quit(ctx context.Context) error {
	v.mu.Lock()
	v.requested = v.requested || !v.isDone()
	v.mu.Unlock()
	rungs := []func(){
		func() {
			quitCtx, cancel := context.WithTimeout(ctx, v.grace)
			defer cancel()
			// A monitor that does not answer is what the next rung is for.
			_ = v.qmp.Do(quitCtx, "quit", nil, nil)
		},
		func() { v.signal(syscall.SIGTERM) },
	}
	for _, rung := range rungs {
		if v.isDone() || ctx.Err() != nil {
			break
		}
		rung()
		select {
		case <-v.done:
			return nil
		case <-time.After(v.grace):
		case <-ctx.Done():
		}
	}
	if !v.isDone() {
		v.signal(syscall.SIGKILL)
	}
	<-v.done
	return nil
}

// signal sends a signal; a process that is gone already needs none.
func (v *VM) signal(s os.Signal) { _ = v.cmd.Process.Signal(s) }

func (v *VM) isDone() bool {
	select {
	case <-v.done:
		return true
	default:
		return false
	}
}

// Close ends QEMU if it runs and frees everything. It may be called again.
func (v *VM) Close() error {
	v.close.Do(func() {
		var errs []error
		if v.cmd != nil && v.cmd.Process != nil {
			ctx, cancel := context.WithTimeout(context.Background(), v.grace)
			defer cancel()
			errs = append(errs, v.Quit(ctx))
		}
		if v.qmp != nil {
			errs = append(errs, v.qmp.Disconnect())
		}
		errs = append(errs, v.unplugNetworks(), v.closeDisks(), v.closeTPM(), v.closeChannels())
		for _, f := range []*os.File{v.serial, v.agent, v.record, v.stderr.file} {
			if f != nil {
				errs = append(errs, f.Close())
			}
		}
		v.closed = errors.Join(errs...)
	})
	return v.closed
}

// tail keeps the end of what QEMU says, and writes all of it to a file.
type tail struct {
	mu   sync.Mutex
	text []byte
	file *os.File
}

const tailSize = 4 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	if over := len(t.text) - tailSize; over > 0 {
		t.text = append([]byte(nil), t.text[over:]...)
	}
	if t.file != nil {
		return t.file.Write(p)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.text)
}

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"reflect"
	"runtime"
	"sync"
	"syscall"

	"github.com/charmbracelet/x/ansi"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/seatrial/seatrial/harness"
	"github.com/seatrial/seatrial/qemu"
)

// errEscape is why a wait ends when the escape key was pressed.
var errEscape = errors.New("the escape key was pressed")

// supervise runs this same command line in a second process and waits for it.
// A terminal in raw mode is useless to the shell, and a process cannot promise
// to tidy up after its own panic or SIGKILL; this one holds the terminal's
// state, does nothing that could fail, and gives the terminal back whatever
// became of the other.
func supervise(ctx context.Context) error {
	fd := int(os.Stdin.Fd())
	saved, err := term.GetState(fd)
	if err != nil {
		return fmt.Errorf("terminal: %w", err)
	}
	worker := exec.Command("/proc/self/exe", append([]string{"--attended"}, os.Args[1:]...)...)
	worker.Stdin, worker.Stdout, worker.Stderr = os.Stdin, os.Stdout, os.Stderr
	worker.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	// The signal comes when the thread that forked ends (prctl(2)): keep it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := worker.Start(); err != nil {
		return fmt.Errorf("starting the process that runs the machine: %w", err)
	}
	var forward sync.WaitGroup
	ended := make(chan struct{})
	forward.Go(func() {
		select {
		case <-ctx.Done():
			_ = worker.Process.Signal(syscall.SIGTERM) // it may just have ended
		case <-ended:
		}
	})
	err = worker.Wait()
	close(ended)
	forward.Wait()
	left, stateErr := term.GetState(fd)
	untidy := stateErr != nil || !reflect.DeepEqual(saved, left)
	if untidy {
		stateErr = giveBack(fd, saved, os.Stdout)
	}
	return errors.Join(workerStatus(err, untidy), stateErr)
}

// workerStatus passes the worker's exit status on. One that was killed, or that
// left the terminal as it was using it (a panic does), did not report itself.
func workerStatus(err error, untidy bool) error {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &exit) && exit.ExitCode() > 0 && !untidy:
		return exitError{exit.ExitCode()}
	}
	return fmt.Errorf("the process that ran the machine died: %w; the machine has ended with it", err)
}

// resetModes undoes what the output of a machine may have switched on in the
// terminal's emulator. The order matters: margins move the cursor home, so its
// place is kept around them.
func resetModes() string {
	return ansi.ResetStyle + ansi.ResetMode(
		ansi.ModeCursorKeys, ansi.ModeMouseX10, ansi.ModeMouseNormal, ansi.ModeMouseButtonEvent, ansi.ModeMouseAnyEvent,
		ansi.ModeMouseExtSgr, ansi.ModeFocusEvent, ansi.ModeBracketedPaste, ansi.ModeAltScreen, ansi.ModeInsertReplace,
	) + ansi.ShowCursor + ansi.SetMode(ansi.ModeAutoWrap) + ansi.KeypadNumericMode +
		"\x0f\x1b(B" + // the ASCII character set
		ansi.SaveCursor + "\x1b[r" + ansi.RestoreCursor
}

// giveBack restores a terminal. What was typed for the machine and not read is
// thrown away: the shell would take it for commands.
func giveBack(fd int, saved *term.State, out *os.File) error {
	errs := []error{unix.IoctlSetInt(fd, unix.TCFLSH, unix.TCIFLUSH), term.Restore(fd, saved)}
	if isTerminal(out) && os.Getenv("TERM") != "dumb" {
		_, err := io.WriteString(out, resetModes())
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil && !errors.Is(err, syscall.EIO) { // EIO: the terminal has gone
		return fmt.Errorf("giving the terminal back: %w", err)
	}
	return nil
}

// typedAhead is how many reads of the keyboard may wait for a machine that
// does not look at its line.
const typedAhead = 64

// terminal lends standard input to a machine.
type terminal struct {
	in, out *os.File
	saved   *term.State // nil: in is no terminal
	escape  byte        // 0: none

	stop   [2]*os.File // a pipe; closing its far end ends the reading
	typed  chan []byte
	stopit chan struct{}
	work   sync.WaitGroup
}

// openTerminal puts in into raw mode if it is a terminal.
func openTerminal(in, out *os.File, escape byte) (*terminal, error) {
	c := &terminal{in: in, out: out, escape: escape, typed: make(chan []byte, typedAhead), stopit: make(chan struct{})}
	var err error
	if c.stop[0], c.stop[1], err = os.Pipe(); err != nil {
		return nil, err
	}
	if isTerminal(in) {
		if c.saved, err = term.MakeRaw(int(in.Fd())); err != nil {
			return nil, errors.Join(fmt.Errorf("raw mode on the terminal: %w", err), c.stop[0].Close(), c.stop[1].Close())
		}
	}
	return c, nil
}

// tellPorts says where on this host the machine's published ports are reached.
func (c *terminal) tellPorts(ctx context.Context, m *harness.Machine, cards []qemu.NIC) error {
	for i, card := range cards {
		for _, port := range card.Forwards {
			address, err := m.Forwarded(ctx, i, port)
			if err != nil {
				return err
			}
			c.note("port %d of the machine is %s on this host", port, address)
		}
	}
	return nil
}

// note says something beside the console. Raw mode wants the carriage return.
func (c *terminal) note(format string, args ...any) {
	end := "\n"
	if c.saved != nil {
		end = "\r\n"
	}
	fmt.Fprintf(os.Stderr, "seatrial: "+format+end, args...)
}

// greet says how to get out.
func (c *terminal) greet(machine string) {
	if c.saved == nil || c.escape == 0 {
		return
	}
	c.note("this is the console of %s; Ctrl-%c ends the machine", machine, c.escape+'@')
}

// start passes what is typed on, and calls escaped when the escape key was
// pressed. Reading and sending are apart, so that the escape key works on a
// machine that takes no input.
func (c *terminal) start(send func(string) error, escaped func()) {
	c.work.Go(func() { c.read(escaped) })
	c.work.Go(func() {
		for b := range c.typed {
			if send(string(b)) != nil {
				return // the machine has ended; read finds out by itself
			}
		}
	})
}

// read takes what is typed until the input or the console ends.
func (c *terminal) read(escaped func()) {
	defer close(c.typed)
	buf := make([]byte, 4096)
	for c.ready() {
		n, err := c.in.Read(buf)
		b := bytes.Clone(buf[:n])
		at := -1
		if c.saved != nil && c.escape != 0 {
			at = bytes.IndexByte(b, c.escape)
		}
		if at >= 0 {
			b = b[:at]
		}
		if len(b) > 0 && !c.pass(b) {
			return
		}
		if at >= 0 {
			escaped()
			return
		}
		if err != nil {
			return // the end of the input is not the end of the machine
		}
	}
}

// ready waits until there is something to read; false: the console ends.
func (c *terminal) ready() bool {
	fds := []unix.PollFd{{Fd: int32(c.in.Fd()), Events: unix.POLLIN}, {Fd: int32(c.stop[0].Fd()), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(fds, -1)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		return err == nil && fds[1].Revents == 0
	}
}

// pass hands bytes to the sender. A keyboard's are dropped when the machine
// has not taken any for long; a pipe's are kept, its writer waits.
func (c *terminal) pass(b []byte) bool {
	if c.saved != nil {
		select {
		case c.typed <- b:
		default:
		}
		return true
	}
	select {
	case c.typed <- b:
		return true
	case <-c.stopit:
		return false
	}
}

// close ends the reading and gives the terminal back. The machine must have
// been closed before: sending to it would not end otherwise.
func (c *terminal) close() error {
	close(c.stopit)
	errs := []error{c.stop[1].Close()}
	c.work.Wait()
	errs = append(errs, c.stop[0].Close())
	if c.saved != nil {
		errs = append(errs, giveBack(int(c.in.Fd()), c.saved, c.out))
	}
	return errors.Join(errs...)
}

package main

import (
	"bytes"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/term"

	"github.com/seatrial/seatrial/qemu"
)

// window is a terminal with the tool running in it.
type window struct {
	t             *testing.T
	master, slave *os.File
	before        *term.State
	cmd           *exec.Cmd
	ended         chan error

	mu   sync.Mutex
	text bytes.Buffer
	work sync.WaitGroup
}

// open runs the tool with a terminal of its own, as a shell would.
func (s *shop) open(args ...string) *window {
	s.t.Helper()
	w := &window{t: s.t, cmd: s.command(args...), ended: make(chan error, 1)}
	var err error
	if w.master, w.slave, err = qemu.OpenTerminal(); err != nil {
		s.t.Fatal(err)
	}
	if w.before, err = term.GetState(int(w.slave.Fd())); err != nil {
		s.t.Fatal(err)
	}
	w.cmd.Stdin, w.cmd.Stdout, w.cmd.Stderr = w.slave, w.slave, w.slave
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := w.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	w.work.Go(func() {
		buf := make([]byte, 4096)
		for {
			n, err := w.master.Read(buf)
			w.mu.Lock()
			w.text.Write(buf[:n])
			w.mu.Unlock()
			if err != nil {
				return
			}
		}
	})
	go func() { w.ended <- w.cmd.Wait() }()
	s.t.Cleanup(w.close)
	return w
}

func (w *window) close() {
	_ = w.cmd.Process.Kill() // it has ended, if all went well
	w.slave.Close()
	w.master.Close()
	w.work.Wait()
}

func (w *window) shown() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

func (w *window) awaitText(text string) {
	w.t.Helper()
	await(w.t, text, func() bool { return strings.Contains(w.shown(), text) })
}

func (w *window) enter(text string) {
	w.t.Helper()
	if _, err := io.WriteString(w.master, text); err != nil {
		w.t.Fatal(err)
	}
}

// worker and machine are the processes below the tool's.
func (w *window) processes() (worker, machine int) {
	w.t.Helper()
	await(w.t, "the machine's process", func() bool {
		for _, worker = range children(w.t, w.cmd.Process.Pid) {
			for _, machine = range children(w.t, worker) {
				return true
			}
		}
		return false
	})
	return worker, machine
}

// asFound checks that the terminal is as it was before.
func (w *window) asFound() {
	w.t.Helper()
	after, err := term.GetState(int(w.slave.Fd()))
	if err != nil {
		w.t.Fatal(err)
	}
	if !reflect.DeepEqual(w.before, after) {
		w.t.Error("the terminal is not as it was")
	}
}

// However a machine's end comes about, the terminal is as it was found, QEMU
// is gone, and the status and the last words say what happened.
func TestRunGivesTheTerminalBack(t *testing.T) {
	// What is caught here has its default in the programs that are started: under
	// nohup they would ignore it, as they must, and the test wait for their end.
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	for name, c := range map[string]struct {
		end    func(w *window, worker, machine int)
		status int
		says   string
	}{
		"power off":     {func(w *window, _, _ int) { w.enter("q") }, 0, ""},
		"escape":        {func(w *window, _, _ int) { w.enter("ab\x1dcd") }, 0, "ended with the escape key"},
		"reset":         {func(w *window, _, _ int) { w.enter("r") }, 1, "guest: the machine reset"},
		"SIGTERM":       {func(w *window, _, _ int) { w.kill(w.cmd.Process.Pid, syscall.SIGTERM) }, 3, "interrupted"},
		"SIGHUP":        {func(w *window, _, _ int) { w.kill(w.cmd.Process.Pid, syscall.SIGHUP) }, 3, "interrupted"},
		"QEMU killed":   {func(w *window, _, machine int) { w.kill(machine, syscall.SIGKILL) }, 3, "infra: QEMU was killed by SIGKILL from outside"},
		"worker killed": {func(w *window, worker, _ int) { w.kill(worker, syscall.SIGKILL) }, 3, "the process that ran the machine died: signal: killed"},
		// The Go runtime answers SIGQUIT as it does a panic in any goroutine: it
		// prints the stacks and exits, and no deferred call runs.
		"panic":             {func(w *window, worker, _ int) { w.kill(worker, syscall.SIGQUIT) }, 3, "the process that ran the machine died: exit status 2"},
		"supervisor killed": {func(w *window, _, _ int) { w.kill(w.cmd.Process.Pid, syscall.SIGKILL) }, -1, "interrupted"},
	} {
		t.Run(name, func(t *testing.T) {
			s := machines(t, guestText)
			w := s.open("run", "guest.yml", "--mem", "64")
			w.awaitText("guest: type")
			if !strings.Contains(w.shown(), "Ctrl-] ends the machine") {
				t.Errorf("how to get out is not said: %q", w.shown())
			}
			raw, err := term.GetState(int(w.slave.Fd()))
			if err != nil || reflect.DeepEqual(w.before, raw) {
				t.Fatalf("the terminal is not raw (%v): the test could not see that it is given back", err)
			}
			w.enter("x\x03y") // Ctrl-C is the machine's
			w.awaitText("x\x03y")
			worker, machine := w.processes()
			c.end(w, worker, machine)
			<-w.ended
			gone(t, worker)
			gone(t, machine)
			if got := w.cmd.ProcessState.ExitCode(); got != c.status {
				t.Errorf("status %d, want %d\n%s", got, c.status, w.shown())
			}
			w.awaitText(c.says)
			w.asFound()
			reset := strings.LastIndex(w.shown(), resetModes())
			if reset < 0 {
				t.Fatalf("the emulator's modes are not reset: %q", w.shown())
			}
			if c.says != "" && !strings.Contains(w.shown()[reset:], c.says) {
				t.Errorf("%q is said before the terminal is given back: %q", c.says, w.shown())
			}
			kept, err := filepath.Glob(filepath.Join(s.cache, "seatrial", "run", "runs", "*", "serial.log"))
			if err != nil || (len(kept) > 0) != (c.status != 0) {
				t.Errorf("evidence with status %d: %q, %v", c.status, kept, err)
			}
		})
	}
}

func (w *window) kill(pid int, s syscall.Signal) {
	w.t.Helper()
	if err := syscall.Kill(pid, s); err != nil {
		w.t.Fatal(err)
	}
}

// Without a terminal bytes pass as they are, and there is no escape key.
func TestRunThroughPipes(t *testing.T) {
	s := machines(t, guestText)
	c := s.command("run", "guest.yml", "--mem", "64", "--append", "one two", "--cpus", "2")
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out safeBuffer
	c.Stdout = &out
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	await(t, "the guest", func() bool { return strings.HasSuffix(out.String(), "type\r\n") })
	if _, err := io.WriteString(in, "a\x1dbq"); err != nil {
		t.Fatal(err)
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil {
		t.Error(err)
	}
	if out.String() != guestText+"a\x1db" {
		t.Errorf("standard output holds %q", out.String())
	}
	if got := left(t, filepath.Join(s.cache, "seatrial")); slices.Contains(got, "/run") {
		t.Errorf("a machine that did well left %q", got)
	}
}

// A published port has an address on this host, which is said, and without the
// flag the machine has no card.
func TestRunPublishes(t *testing.T) {
	for _, published := range []bool{false, true} {
		s := machines(t, guestText)
		args := []string{"run", "guest.yml", "--mem", "64"}
		if published {
			args = append(args, "--publish", "80,8080")
		}
		w := s.open(args...)
		w.awaitText("guest: type")
		said := regexp.MustCompile(`seatrial: port (\d+) of the machine is (127\.0\.0\.1:\d+) on this host\r\n`).FindAllStringSubmatch(w.shown(), -1)
		if !published {
			if len(said) > 0 {
				t.Errorf("%q", said)
			}
		} else if len(said) != 2 || said[0][1] != "80" || said[1][1] != "8080" {
			t.Errorf("%q", w.shown())
		}
		for _, port := range said {
			conn, err := net.Dial("tcp", port[2]) // QEMU answers, whatever the guest does
			if err != nil {
				t.Error(err)
				continue
			}
			conn.Close()
		}
		w.enter("q")
		if err := <-w.ended; err != nil {
			t.Errorf("%v: %s", err, w.shown())
		}
	}
}

// The end of the input, here before the machine's first byte, is not the end
// of the machine.
func TestRunWithoutInput(t *testing.T) {
	s := machines(t, guestText)
	c := s.command("run", "guest.yml", "--mem", "64", "--agent", "off")
	var out, stderr safeBuffer
	c.Stdout, c.Stderr = &out, &stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	await(t, "the guest", func() bool { return out.String() == guestText })
	machine := children(t, c.Process.Pid)
	if len(machine) != 1 {
		t.Fatalf("processes of the tool: %v", machine)
	}
	if err := c.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait() // its status is looked at
	gone(t, machine[0])
	if got := c.ProcessState.ExitCode(); got != 3 || !strings.Contains(stderr.String(), "interrupted") {
		t.Errorf("status %d: %s", got, stderr.String())
	}
}

// When the reader of the output goes away the tool ends, as programs do, and
// the machine with it.
func TestRunIntoClosedPipe(t *testing.T) {
	s := machines(t, guestText)
	c := s.command("run", "guest.yml", "--mem", "64")
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, len(guestText))); err != nil {
		t.Fatal(err)
	}
	machine := children(t, c.Process.Pid)
	if err := out.Close(); err != nil || len(machine) != 1 {
		t.Fatalf("%v, processes of the tool: %v", err, machine)
	}
	if _, err := io.WriteString(in, "x"); err != nil { // its echo finds no reader
		t.Fatal(err)
	}
	if err := c.Wait(); err == nil || !strings.Contains(err.Error(), "broken pipe") {
		t.Error(err)
	}
	gone(t, machine[0])
}

// A verdict's evidence is enough to boot the machine again.
func TestRepro(t *testing.T) {
	s := machines(t, guestText)
	w := s.open("run", "guest.yml", "--mem", "65", "--append", "again")
	w.awaitText("guest: type")
	w.enter("r")
	<-w.ended
	kept, err := filepath.Glob(filepath.Join(s.cache, "seatrial", "run", "runs", "*"))
	if err != nil || len(kept) != 1 {
		t.Fatalf("evidence: %q, %v\n%s", kept, err, w.shown())
	}
	w.awaitText("evidence: " + kept[0])
	again := s.open("repro", kept[0])
	again.awaitText("guest: type")
	_, machine := again.processes()
	argv, err := os.ReadFile("/proc/" + strconv.Itoa(machine) + "/cmdline")
	if err != nil || !strings.Contains(string(argv), "-m\x0065M\x00") && !strings.Contains(string(argv), "-m\x0065\x00") || !strings.Contains(string(argv), "console=ttyS0 again") {
		t.Errorf("another machine: %q, %v", argv, err)
	}
	again.enter("q")
	if err := <-again.ended; err != nil {
		t.Errorf("%v\n%s", err, again.shown())
	}
}

// safeBuffer may be read while a process writes to it.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

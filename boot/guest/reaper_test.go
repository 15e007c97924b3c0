//go:build linux

package guest

import (
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// reapOnSignal reaps as PID 1 does: on SIGCHLD and at no other time.
func reapOnSignal(t *testing.T, r *Reaper) (reaped func() int) {
	t.Helper()
	children, done, ended := make(chan os.Signal, 1), make(chan struct{}), make(chan struct{})
	signal.Notify(children, unix.SIGCHLD)
	n := 0
	go func() {
		defer close(ended)
		for {
			select {
			case <-children:
				n += r.Reap()
			case <-done:
				return
			}
		}
	}()
	stopped := false
	stop := func() int {
		if !stopped {
			stopped = true
			signal.Stop(children)
			close(done)
			<-ended
		}
		return n
	}
	t.Cleanup(func() { stop() })
	return stop
}

func startShell(t *testing.T, r *Reaper, script string) *Process {
	t.Helper()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	p, err := r.Start([]string{"/bin/sh", "-c", script}, os.Environ(), "/", null, os.Stdout, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func ended(t *testing.T, p *Process) Exit {
	t.Helper()
	select {
	case <-p.Done():
		return p.Exit()
	case <-time.After(30 * time.Second):
		t.Fatalf("process %d was never reaped", p.Pid)
		return Exit{}
	}
}

// adopting makes this process inherit orphans, as PID 1 does.
func adopting(t *testing.T) {
	t.Helper()
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) })
}

func TestReaperKeepsStatuses(t *testing.T) {
	var r Reaper
	reapOnSignal(t, &r)
	for _, tt := range []struct {
		script, want string
		code         int
	}{
		{"exit 0", "exit status 0", 0}, {"exit 3", "exit status 3", 3}, {"kill -KILL $$", "signal: killed", 137},
	} {
		e := ended(t, startShell(t, &r, tt.script))
		if e.String() != tt.want || e.Code() != tt.code || e.OK() != (tt.code == 0) {
			t.Errorf("%s: %v, code %d, ok %v", tt.script, e, e.Code(), e.OK())
		}
	}
	// A session of its own: no key pressed on a console can signal it.
	if e := ended(t, startShell(t, &r, `read pid comm state ppid pgrp session rest </proc/$$/stat; test $session = $$`)); !e.OK() {
		t.Errorf("it shares a session: %v", e)
	}
	if _, err := r.Start([]string{"/nonesuch"}, nil, "/"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if _, err := r.Start(nil, nil, "/"); err == nil {
		t.Error("no program must be an error")
	}
}

// A thousand orphans that die together are all reaped, although their signals
// merge, and the statuses of PID 1's own children are not lost among them.
func TestReapThousandOrphans(t *testing.T) {
	const orphans = 1000
	adopting(t)
	var r Reaper
	reaped := reapOnSignal(t, &r)
	parent := startShell(t, &r, `i=0; while [ $i -lt `+strconv.Itoa(orphans)+` ]; do sleep 600 & i=$((i+1)); done; exit 7`)
	own := startShell(t, &r, `read x <`+gate(t)+`; exit 9`)
	if e := ended(t, parent); e.Code() != 7 {
		t.Fatalf("parent: %v", e)
	}
	if n := len(childrenOf(t, os.Getpid())); n != orphans+1 {
		t.Fatalf("%d children, want %d", n, orphans+1)
	}
	// They are the process group of their parent, which has gone.
	if err := unix.Kill(-parent.Pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(own.Pid, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if e := ended(t, own); e.String() != "signal: terminated" {
		t.Errorf("own child: %v", e)
	}
	deadline := time.Now().Add(30 * time.Second)
	for len(childrenOf(t, os.Getpid())) > 0 && time.Now().Before(deadline) {
		time.Sleep(5 * time.Millisecond) // nobody tells when the last has gone
	}
	if left := childrenOf(t, os.Getpid()); len(left) > 0 {
		t.Errorf("%d children are left: %v", len(left), left)
	}
	if n := reaped(); n != orphans+2 {
		t.Errorf("reaped %d, want %d", n, orphans+2)
	}
}

// gate is a FIFO that nobody writes to yet.
func gate(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "gate")
	if err := unix.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// childrenOf lists the children of a process, zombies included.
func childrenOf(t *testing.T, pid int) []string {
	t.Helper()
	var all []string
	tasks, err := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*/children")
	if err != nil || len(tasks) == 0 {
		t.Fatalf("no list of children: %v", err)
	}
	for _, name := range tasks {
		text, _ := os.ReadFile(name) // a thread may have ended
		all = append(all, strings.Fields(string(text))...)
	}
	return all
}

func TestReaperAdopts(t *testing.T) {
	adopting(t)
	var r Reaper
	reapOnSignal(t, &r)
	fifo, pidFile := gate(t), filepath.Join(t.TempDir(), "pid")
	hold, err := os.OpenFile(fifo, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer hold.Close()
	ended(t, startShell(t, &r, `(read x <`+fifo+`; exit 5) & echo $! >`+pidFile))
	text, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	p, err := r.Adopt(pid)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := r.Adopt(pid); again != p || err != nil {
		t.Errorf("adopted twice: %v, %v", again, err)
	}
	if _, err := hold.WriteString("go\n"); err != nil {
		t.Fatal(err)
	}
	if e := ended(t, p); e.Code() != 5 {
		t.Errorf("got %v", e)
	}
	if _, err := r.Adopt(pid); err == nil {
		t.Error("a process that has gone must be an error")
	}
	if err := r.Signal(&recorder{}, p, unix.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("a signal to a process that was reaped: %v", err)
	}
}

// TestShield starts this test as a child that sends itself every signal that
// must not end PID 1: shielded it lives, without the shield it does not.
func TestShield(t *testing.T) {
	switch os.Args[len(os.Args)-1] {
	case "shielded":
		shield()
		signalAll(t)
		return
	case "bare":
		signalAll(t)
		return
	}
	if out, err := exec.Command(os.Args[0], "-test.run=^TestShield$", "shielded").CombinedOutput(); err != nil {
		t.Errorf("shielded: %v\n%s", err, out)
	}
	if err := exec.Command(os.Args[0], "-test.run=^TestShield$", "bare").Run(); err == nil {
		t.Error("without the shield nothing happened: the test shows nothing")
	}
}

func signalAll(t *testing.T) {
	t.Helper()
	for sig := unix.Signal(1); sig < 65; sig++ {
		switch sig {
		case unix.SIGKILL, unix.SIGSTOP, 32, 33, 34: // nobody can, and those of C libraries, which the kernel keeps from PID 1
		case unix.SIGUSR1, unix.SIGUSR2, unix.SIGTERM, unix.SIGINT, unix.SIGCHLD: // those mean something
		default:
			if err := unix.Kill(os.Getpid(), sig); err != nil {
				t.Fatal(err)
			}
		}
	}
}

//go:build linux

package guest

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"syscall"
)

// Exit is how a process ended.
type Exit struct{ status syscall.WaitStatus }

// Code is the exit status, or 128 plus the number of the signal that killed it.
func (e Exit) Code() int {
	if e.status.Signaled() {
		return 128 + int(e.status.Signal())
	}
	return e.status.ExitStatus()
}

// OK reports exit status 0.
func (e Exit) OK() bool { return e.Code() == 0 }

// String says "exit status 3" or "signal: killed".
func (e Exit) String() string {
	if e.status.Signaled() {
		return "signal: " + e.status.Signal().String()
	}
	return fmt.Sprintf("exit status %d", e.status.ExitStatus())
}

// Process is a child of PID 1.
type Process struct {
	Pid  int
	done chan struct{}
	exit Exit
}

// Done is closed when the process has ended and was waited for.
func (p *Process) Done() <-chan struct{} { return p.done }

// Exit is how it ended. It may be called once Done is closed.
func (p *Process) Exit() Exit { return p.exit }

// Reaper owns wait4(2) for the whole process. PID 1 inherits every orphan, so
// it must wait for any child, and that would steal the exit statuses that
// os/exec waits for. Nothing in PID 1 uses os/exec; children are started here.
type Reaper struct {
	mu       sync.Mutex // held from before fork until the child is in the map
	children map[int]*Process
}

// Start starts a program in a session of its own, so that no key pressed on a
// console can signal it. files become its descriptors 0, 1, 2, ...
func (r *Reaper) Start(argv, env []string, dir string, files ...*os.File) (*Process, error) {
	if len(argv) == 0 {
		return nil, errors.New("no program given")
	}
	fds := make([]uintptr, len(files))
	for i, f := range files {
		fds[i] = f.Fd()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	pid, err := syscall.ForkExec(argv[0], argv, &syscall.ProcAttr{
		Dir: dir, Env: env, Files: fds, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	runtime.KeepAlive(files) // Fd does not keep a file from being closed by its finalizer
	if err != nil {
		return nil, fmt.Errorf("%s: %w", argv[0], err)
	}
	p := &Process{Pid: pid, done: make(chan struct{})}
	if r.children == nil {
		r.children = map[int]*Process{}
	}
	r.children[pid] = p
	return p, nil
}

// Adopt makes a process that PID 1 has inherited one whose end can be awaited.
// Its status is kept from here on; one that ended before has no status to ask for.
func (r *Reaper) Adopt(pid int) (*Process, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.children[pid]; p != nil {
		return p, nil
	}
	p := &Process{Pid: pid, done: make(chan struct{})}
	var ws syscall.WaitStatus
	got, err := syscall.Wait4(pid, &ws, syscall.WNOHANG, nil)
	switch {
	case err != nil:
		return nil, fmt.Errorf("process %d is no child: %w", pid, err)
	case got == pid:
		p.exit = Exit{ws}
		close(p.done)
	default:
		if r.children == nil {
			r.children = map[int]*Process{}
		}
		r.children[pid] = p
	}
	return p, nil
}

// Signal sends sig to p unless p has already been waited for: its number may
// belong to another process by then.
func (r *Reaper) Signal(sys System, p *Process, sig syscall.Signal) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.children[p.Pid] != p {
		return os.ErrProcessDone
	}
	return sys.Kill(p.Pid, sig)
}

// Reap waits for every child that has ended, without blocking, and returns
// their number. Call it on every SIGCHLD; signals merge, so it loops.
func (r *Reaper) Reap() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	for n := 0; ; {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, syscall.WNOHANG, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || pid <= 0 { // ECHILD: no children at all
			return n
		}
		n++
		if p := r.children[pid]; p != nil {
			delete(r.children, pid)
			p.exit = Exit{ws}
			close(p.done)
		}
	}
}

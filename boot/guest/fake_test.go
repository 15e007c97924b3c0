//go:build linux

package guest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seatrial/seatrial/boot"
	"golang.org/x/sys/unix"
)

// recorder is a System that writes down what it is asked for.
type recorder struct {
	mu    sync.Mutex
	calls []string
	fail  map[string]error // by the start of a call
	prune string           // removed from the start of paths
	full  []string         // file systems without room
	stuck chan struct{}    // holds up what waits for a disk, until it is closed
}

func (r *recorder) note(format string, args ...any) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	call := strings.ReplaceAll(fmt.Sprintf(format, args...), r.prune, "")
	r.calls = append(r.calls, call)
	for prefix, err := range r.fail {
		if strings.HasPrefix(call, prefix) {
			return err
		}
	}
	return nil
}

func (r *recorder) taken() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.calls...)
}

func (r *recorder) Mount(source, target, fstype string, flags uintptr, data string) error {
	return r.note("mount %s %s %s %#x %s", source, target, fstype, flags, data)
}
func (r *recorder) Unmount(target string, flags int) error {
	if r.stuck != nil {
		<-r.stuck
	}
	return r.note("umount %s", target)
}
func (r *recorder) Chroot(dir string) error { return r.note("chroot %s", dir) }
func (r *recorder) Kill(pid int, sig unix.Signal) error {
	if pid > 1 { // a child of the test
		_ = unix.Kill(pid, sig)
		return r.note("kill child %s", unix.SignalName(sig))
	}
	return r.note("kill %d %s", pid, unix.SignalName(sig))
}
func (r *recorder) SetHostname(name string) error { return r.note("hostname %s", name) }
func (r *recorder) SetLimit(resource int, soft, hard uint64) error {
	return r.note("limit %d %d %d", resource, soft, hard)
}
func (r *recorder) InsertModule(file, params string) error {
	return r.note("insert %s %s", filepath.Base(file), params)
}
func (r *recorder) MakeNode(name string, mode, major, minor uint32) error {
	return r.note("mknod %s %#o %d %d", name, mode, major, minor)
}
func (r *recorder) SetClock(seconds int64) error { return r.note("clock %d", seconds) }
func (r *recorder) LinkUp(name string) error     { return r.note("up %s", name) }
func (r *recorder) Room(dir string) (bytes, files uint64, err error) {
	for _, full := range r.full {
		if strings.HasPrefix(strings.TrimPrefix(dir, r.prune), full) {
			return 0, 1 << 20, nil
		}
	}
	return 1 << 20, 1 << 20, nil
}
func (r *recorder) Sync() {
	_ = r.note("sync")
	if r.stuck != nil {
		<-r.stuck
	}
}
func (r *recorder) Reboot(cmd int) error  { return r.note("reboot %#x", cmd) }
func (r *recorder) Uptime() time.Duration { return 5 * time.Second }

// syncBuffer is a bytes.Buffer for several writers.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// testMachine is a machine whose root is a directory.
type testMachine struct {
	*machine
	sys           *recorder
	console, kmsg *syncBuffer
}

func newTestMachine(t *testing.T) *testMachine {
	t.Helper()
	root := t.TempDir()
	sys := &recorder{fail: map[string]error{}, prune: root}
	tm := &testMachine{sys: sys, console: &syncBuffer{}, kmsg: &syncBuffer{}}
	m := &machine{
		sys: sys, root: root, reaper: &Reaper{}, env: []string{"PATH=" + os.Getenv("PATH")}, facts: map[string]string{},
		modulesDir: "/lib/modules/test",
		patience: patience{
			socket: 5 * time.Second, services: 5 * time.Second, late: time.Minute, phases: time.Second, script: 5 * time.Second, farewell: 5 * time.Second, stop: 2 * time.Second,
			daemon: 2 * time.Second, others: 20 * time.Millisecond, sync: time.Second, poll: 5 * time.Millisecond,
		},
	}
	m.speak = NewSpeaker("init", tm.console, tm.kmsg, sys.Uptime)
	m.ctx, m.cancel = context.WithCancel(context.Background())
	m.services = &services{m: m}
	tm.machine = m
	tm.file(t, "/dev/null", "", 0o666)
	stop := tm.reap()
	t.Cleanup(func() { m.cancel(); m.helpers.Wait(); tm.killAll(); stop() })
	return tm
}

// killAll ends the children that a test has left, and waits for them.
func (tm *testMachine) killAll() {
	tm.reaper.mu.Lock()
	var left []*Process
	for _, p := range tm.reaper.children {
		left = append(left, p)
	}
	tm.reaper.mu.Unlock()
	for _, p := range left {
		_ = tm.reaper.Signal(Linux{}, p, unix.SIGKILL) // it may have ended
		select {
		case <-p.Done():
		case <-time.After(10 * time.Second):
			panic(fmt.Sprintf("process %d was never reaped: do two reapers run?", p.Pid))
		}
	}
}

// reap does what PID 1's main loop does on SIGCHLD.
func (tm *testMachine) reap() (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-done:
				return
			case <-time.After(2 * time.Millisecond):
				tm.reaper.Reap()
			}
		}
	}()
	return func() { close(done); <-ended }
}

func (tm *testMachine) file(t *testing.T, name, text string, mode os.FileMode) {
	t.Helper()
	writeFile(t, filepath.Join(tm.root, name), text, mode)
}

func writeFile(t *testing.T, name, text string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

// events parses what was written to kmsg.
func (tm *testMachine) events(t *testing.T) *boot.Trace {
	t.Helper()
	var tr boot.Trace
	for line := range strings.Lines(tm.kmsg.String()) {
		if !strings.HasPrefix(line, kmsgPriority) {
			t.Errorf("record without priority: %q", line)
		}
		e, found, err := boot.ParseEvent([]byte(line))
		if err != nil || !found {
			t.Fatalf("%q: found %v, %v", line, found, err)
		}
		tr.Add(e)
	}
	if n := tr.Missed(); n != 0 {
		t.Errorf("%d numbers are missing", n)
	}
	return &tr
}

func contains(t *testing.T, text, want string) {
	t.Helper()
	if !strings.Contains(text, want) {
		t.Errorf("missing %q in:\n%s", want, text)
	}
}

func lacks(t *testing.T, text, unwanted string) {
	t.Helper()
	if strings.Contains(text, unwanted) {
		t.Errorf("unwanted %q in:\n%s", unwanted, text)
	}
}

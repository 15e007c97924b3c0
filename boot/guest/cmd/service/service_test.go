//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/seatrial/seatrial/boot"
	"github.com/seatrial/seatrial/boot/guest"
	"github.com/seatrial/seatrial/boot/guest/task"
	"golang.org/x/sys/unix"
)

func TestParse(t *testing.T) {
	plain := options{namespace: boot.Namespace, socket: boot.ContainerdSocket, path: boot.ServicesDir}
	with := func(change func(*options)) options { o := plain; change(&o); return o }
	for _, tt := range []struct {
		argv string
		verb string
		o    options
		args string
		err  string
	}{
		{argv: "service start web", verb: "start", o: plain, args: "web"},
		{argv: "service -q restart web", verb: "restart", o: with(func(o *options) { o.quiet = true }), args: "web"},
		{argv: "service -v -containerd-namespace other stop --sock /s --path /p web", verb: "stop", args: "web",
			o: with(func(o *options) { o.verbose, o.namespace, o.socket, o.path = true, "other", "/s", "/p" })},
		{argv: "service system-init --containerd /c --sock /s", verb: "system-init", o: with(func(o *options) { o.socket = "/s" })},
		{argv: "service system --adopt", verb: "system", o: with(func(o *options) { o.adopt = true })},
		{argv: "service attach /b 7", verb: "attach", o: plain, args: "/b 7"},
		{argv: "/etc/init.d/020-containerd", verb: "system-init", o: plain},
		{argv: "/etc/init.d/010-onboot", verb: "done", o: plain},
		{argv: "service", err: "no command"},
		{argv: "service lunch", err: `unknown command "lunch"`},
		{argv: "service -q -v stop web", err: "exclude each other"},
		{argv: "service start", err: "1 arguments are needed"},
		{argv: "service start a b", err: `unexpected argument "b"`},
		{argv: "service system-init a", err: `unexpected argument "a"`},
		{argv: "service start --adopt a", err: "usage"},
		{argv: "service --nonesuch", err: "usage"},
	} {
		verb, o, args, err := parse(strings.Fields(tt.argv), io.Discard)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: %v", tt.argv, err)
			}
			continue
		}
		if err != nil || verb != tt.verb || strings.Join(args, " ") != tt.args {
			t.Errorf("%s: %q %v %v", tt.argv, verb, args, err)
		}
		if o != tt.o {
			t.Errorf("%s: %+v", tt.argv, o)
		}
	}
}

func TestUsageIsExitStatusTwo(t *testing.T) {
	if got := run([]string{"service", "--nonesuch"}); got != 2 {
		t.Errorf("a bad flag: %d", got)
	}
	for _, argv := range []string{"service lunch", "service", "service -q -v stop web", "/etc/init.d/010-onboot"} {
		if got := run(strings.Fields(argv)); got != 1 {
			t.Errorf("%s: %d", argv, got)
		}
	}
}

func TestRestartPolicy(t *testing.T) {
	for _, tt := range []struct {
		annotation      string
		want            restartPolicy
		err             bool
		good, bad, lost bool
	}{
		{"", restartNo, false, false, false, false},
		{`"org.seatrial.restart":"no"`, restartNo, false, false, false, false},
		{`"org.seatrial.restart":"on-failure"`, restartOnFailure, false, false, true, true},
		{`"org.seatrial.restart":"always"`, restartAlways, false, true, true, true},
		{`"org.seatrial.restart":"sometimes"`, restartNo, true, false, false, false},
	} {
		dir := t.TempDir()
		config := `{"root":{"path":"rootfs"},"process":{},"annotations":{` + tt.annotation + `}}`
		if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o644); err != nil {
			t.Fatal(err)
		}
		p, err := restartPolicyOf(dir)
		if p != tt.want || (err != nil) != tt.err {
			t.Errorf("%s: %q, %v", tt.annotation, p, err)
		}
		if p.wants(0) != tt.good || p.wants(3) != tt.bad || p.wants(unknownStatus) != tt.lost {
			t.Errorf("%s: %v %v %v", tt.annotation, p.wants(0), p.wants(3), p.wants(unknownStatus))
		}
	}
	if p, err := restartPolicyOf("/nowhere"); p != restartNo || err != nil {
		t.Errorf("no bundle: %q, %v", p, err)
	}
}

// Interfaces that cannot be are refused before anything is made.
func TestInterfacesThatCannotBe(t *testing.T) {
	for _, tt := range []struct {
		i    boot.RuntimeInterface
		want string
	}{
		{boot.RuntimeInterface{Name: "eth7", Add: "veth"}, "interface eth7: a veth needs a peer"},
		{boot.RuntimeInterface{Add: "dummy"}, "interface : it has no name"},
	} {
		var said strings.Builder
		err := attachInterfaces([]boot.RuntimeInterface{tt.i, {Name: "never"}}, os.Getpid(), &said)
		if err == nil || err.Error() != tt.want || said.Len() > 0 {
			t.Errorf("%+v: %v, said %q", tt.i, err, said.String())
		}
	}
	if err := attachInterfaces(nil, os.Getpid(), io.Discard); err != nil {
		t.Error(err)
	}
}

func testService(t *testing.T, name string) service {
	t.Helper()
	return service{Bundle: guest.Bundle{Name: name}, restart: restartNo, state: t.TempDir()}
}

func TestLocked(t *testing.T) {
	s := testService(t, "web")
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	inside, leave, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() { done <- s.locked(ctx, func() error { close(inside); <-leave; return nil }) }()
	<-inside
	short, stop := context.WithTimeout(ctx, 100*time.Millisecond)
	defer stop()
	if err := s.locked(short, func() error { t.Error("two at a time"); return nil }); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	other := testService(t, "other")
	if err := other.locked(ctx, func() error { return nil }); err != nil {
		t.Errorf("another service: %v", err)
	}
	close(leave)
	if err := s.locked(ctx, func() error { return nil }); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestWatchTellsOnce(t *testing.T) {
	var console, kmsg bytes.Buffer
	tool := &tool{speak: guest.NewSpeaker("service", &console, &kmsg, func() time.Duration { return 0 })}
	ctx, cancel := context.WithCancel(context.Background())
	s := testService(t, "web")
	w := newWatch(ctx, tool, []service{s})
	w.started(s, 7)
	w.started(s, 7)
	w.ended(s, 7, 3)
	w.ended(s, 7, 3)
	w.started(s, 7) // the event may come after the end was seen
	if err := writeState(s.file("ending"), "8"); err != nil {
		t.Fatal(err)
	}
	w.started(s, 8)
	w.ended(s, 8, 143)
	w.lost(s, w.pid(s.id())) // nothing ran
	w.started(s, 9)
	w.lost(s, 8) // the one before it
	w.lost(s, w.pid(s.id()))
	w.asked.Store(uint32(11), true) // by this process, without a mark
	w.started(s, 11)
	w.ended(s, 11, 137)
	s.restart = restartAlways
	cancel()
	w.started(s, 10)
	w.ended(s, 10, 0) // the machine is to stop: it is not started again
	w.restarts.Wait()
	want := []string{
		"service web: running, pid 7", "service web: exit status 3",
		"service web: running, pid 8", "service web: stopped on request, exit status 143 (SIGTERM)",
		"service web: running, pid 9", "service web: lost: its task is gone",
		"service web: running, pid 11", "service web: stopped on request, exit status 137 (SIGKILL)",
		"service web: running, pid 10", "service web: exit status 0",
	}
	if d := cmp.Diff(want, strings.Split(strings.TrimSpace(console.String()), "\n")); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

// The end of a task that never ran is no end of the service, an end that comes
// late is not that of the next task, and the tool after this one knows them.
func TestWatchTellsTheRightEnd(t *testing.T) {
	var console, kmsg bytes.Buffer
	tool := &tool{speak: guest.NewSpeaker("service", &console, &kmsg, func() time.Duration { return 0 })}
	s := testService(t, "web")
	w := newWatch(t.Context(), tool, []service{s})
	w.take(task.Event{ID: s.id(), Pid: 6, Ended: true, Status: 137}) // made, never started
	w.take(task.Event{ID: s.id(), Pid: 7})
	w.take(task.Event{ID: s.id(), Pid: 8})
	w.take(task.Event{ID: s.id(), Pid: 7, Ended: true, Status: 1})
	if got := w.pid(s.id()); got != 8 {
		t.Errorf("the running task is %d", got)
	}
	w.take(task.Event{ID: s.id(), Pid: 8, Ended: true, Status: 255})
	w.take(task.Event{ID: task.ID{Name: "other"}, Pid: 9})
	newWatch(t.Context(), tool, []service{s}).ended(s, 8, 255) // seen by the next tool
	want := []string{"service web: running, pid 7", "service web: running, pid 8", "service web: exit status 1", "service web: exit status 255"}
	// An end that is not heard of is told when the container goes, if it was asked for.
	for _, mark := range []string{"", "9", "8 1", "10 137", "10 143"} {
		if err := writeState(s.file("ending"), mark); err != nil {
			t.Fatal(err)
		}
		w.take(task.Event{ID: s.id(), Pid: 10})
		w.take(task.Event{ID: s.id(), Removed: true})
	}
	want = append(want, "service web: running, pid 10", "service web: stopped on request, exit status 137 (SIGKILL)")
	if d := cmp.Diff(want, strings.Split(strings.TrimSpace(console.String()), "\n")); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

func TestExitText(t *testing.T) {
	for code, want := range map[uint32][2]string{
		0: {"exit status 0", "0"}, 137: {"exit status 137 (SIGKILL)", "signal: killed"}, 160: {"exit status 160", "160"},
		255: {"exit status 255", "255"}, unknownStatus: {"lost: its task is gone", "unknown"},
	} {
		if got := [2]string{exitText(code), statusOf(code)}; got != want {
			t.Errorf("%d: %q", code, got)
		}
	}
}

// The shim opens each log for writing. Of a FIFO that waits until it has a
// reader; with O_NONBLOCK it fails with ENXIO instead, which shows here what
// would have to wait.
func opens(file string) error {
	fd, err := unix.Open(file, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// listen is a logging daemon that has not begun to read.
func listen(t *testing.T, socket string) *net.UnixConn {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// takeLog is what a daemon does with one datagram.
func takeLog(t *testing.T, conn *net.UnixConn) (source string, log *os.File) {
	t.Helper()
	name, rights := make([]byte, 100), make([]byte, 100)
	n, rn, _, _, err := conn.ReadMsgUnix(name, rights)
	if err != nil {
		t.Fatal(err)
	}
	messages, err := unix.ParseSocketControlMessage(rights[:rn])
	if err != nil || len(messages) != 1 {
		t.Fatalf("%d messages, %v", len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		t.Fatalf("%v, %v", fds, err)
	}
	log = os.NewFile(uintptr(fds[0]), string(name[:n]))
	t.Cleanup(func() { log.Close() })
	return string(name[:n]), log
}

// A logging daemon has the FIFOs before the shim opens them, and the shim never
// waits, whenever the daemon comes to read.
func TestLogsOfDaemon(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "run", "socket")
	if err := os.Mkdir(filepath.Dir(socket), 0o755); err != nil {
		t.Fatal(err)
	}
	daemon := listen(t, socket)
	for range 2 { // a start and a restart
		logs, problems := makeLogs("web", socket, filepath.Join(dir, "log"))
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		if want := (task.Streams{Stdout: filepath.Join(dir, "run/web.out.log"), Stderr: filepath.Join(dir, "run/web.log")}); logs.Streams != want {
			t.Errorf("%+v", logs.Streams)
		}
		for _, file := range []string{logs.Stdout, logs.Stderr} {
			if err := opens(file); err != nil {
				t.Errorf("the shim would wait: %v", err)
			}
		}
		shim, err := os.OpenFile(logs.Stdout, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		logs.release()
		if _, err := shim.WriteString("said\n"); err != nil {
			t.Error(err)
		}
		shim.Close()
		for _, want := range []struct{ source, text string }{{"web.out", "said\n"}, {"web", ""}} {
			source, log := takeLog(t, daemon)
			text, err := io.ReadAll(log)
			if err != nil || source != want.source || string(text) != want.text {
				t.Errorf("%s: %q, %v", source, text, err)
			}
			log.Close()
		}
		if err := opens(logs.Stdout); !errors.Is(err, unix.ENXIO) { // this test can fail
			t.Errorf("nobody reads, and got %v", err)
		}
	}
}

// What the daemon does not take goes to files, and no service waits for it.
func TestLogsOfDeafDaemon(t *testing.T) {
	for name, daemon := range map[string]func(t *testing.T, socket string){
		"dead": func(t *testing.T, socket string) { listen(t, socket).Close() },
		"none": func(*testing.T, string) {},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			socket := filepath.Join(dir, "socket")
			daemon(t, socket)
			logs, problems := makeLogs("web", socket, filepath.Join(dir, "log"))
			defer logs.release()
			if _, err := os.Lstat(socket); (err == nil) != (len(problems) == 2) {
				t.Errorf("%v", problems)
			}
			for _, file := range []string{logs.Stdout, logs.Stderr} {
				info, err := os.Stat(file)
				if err != nil || !info.Mode().IsRegular() || filepath.Dir(file) != filepath.Join(dir, "log") {
					t.Errorf("%s: %v", file, err)
				}
			}
			if left, _ := filepath.Glob(filepath.Join(dir, "*.log")); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
	nowhere := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(nowhere, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	logs, problems := makeLogs("web", filepath.Join(nowhere, "socket"), filepath.Join(nowhere, "log"))
	if len(problems) != 2 || logs.Stdout != os.DevNull || logs.Stderr != os.DevNull {
		t.Errorf("%+v, %v", logs, problems)
	}
}

//go:build linux

package guest

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seatrial/seatrial/boot"
)

// settings is an HTTP/2 SETTINGS frame without settings: what a gRPC server
// says first.
var settings = []byte{0, 0, 0, 4, 0, 0, 0, 0, 0}

// answering listens on containerd's socket in place of containerd, from when
// the function returned is called on.
func (tm *testMachine) answering(t *testing.T) (listen func()) {
	t.Helper()
	name := filepath.Join(tm.root, boot.ContainerdSocket)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	return func() {
		once.Do(func() {
			l, err := net.Listen("unix", name)
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { l.Close() })
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					_, _ = c.Write(settings)
					c.Close()
				}
			}()
		})
	}
}

// containerdScript puts a shell script in the place of containerd.
func (tm *testMachine) containerdScript(t *testing.T, script string) {
	t.Helper()
	tm.file(t, boot.ContainerdPath, "#!/bin/sh\n"+script+"\n", 0o755)
}

// serviceTool puts a shell script in the place of the service tool. It waits
// to be told to go, and reports.
func (tm *testMachine) serviceTool(t *testing.T, report, then string) {
	t.Helper()
	tm.file(t, "/containers/services/web/config.json", "{}", 0o644)
	tm.file(t, boot.ServicePath, "#!/bin/sh\nread go || exit 0\necho \"$@\" >>"+tm.root+"/calls\necho '"+report+"' >&3\nexec 3>&-\n"+then+"\n", 0o755)
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("never came: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (tm *testMachine) says(t *testing.T, text string) {
	t.Helper()
	eventually(t, text+" in:\n"+tm.console.String(), func() bool { return strings.Contains(tm.console.String(), text) })
}

func TestContainerdThatDiesBeforeItsSocket(t *testing.T) {
	tm := newTestMachine(t)
	tm.containerdScript(t, "echo >>"+tm.root+"/starts; echo first line >&2; echo no room >&2; exit 4")
	tm.serviceTool(t, `{"started":["web"]}`, "exec sleep 600")
	tm.file(t, boot.ContainerdSocket, "", 0o600) // of an earlier life
	began := time.Now()
	err := tm.bringUpContainerd()
	if err == nil || !strings.Contains(err.Error(), "ended before its socket answered: exit status 4; its last line: no room") {
		t.Fatalf("got %v", err)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("noticed after %v", took)
	}
	e, ok := tm.events(t).Unit("containerd")
	if !ok || e.State != boot.Failed || e.Facts[boot.FactStatus] != "4" {
		t.Errorf("event %+v", e)
	}
	if got := tm.services.summary(); got != "no services" { // before anybody has looked
		t.Errorf("%q", got)
	}
	if err := tm.bringUpServices(); err == nil || !strings.Contains(err.Error(), "1 services not started") {
		t.Errorf("services: %v", err)
	}
	if got := tm.services.summary(); got != "0 services started, 1 failed" {
		t.Errorf("%q", got)
	}
	starts, _ := os.ReadFile(filepath.Join(tm.root, "starts"))
	if n := len(starts); n != containerdTries {
		t.Errorf("%d starts, want %d", n, containerdTries)
	}
	if _, err := os.Lstat(tm.root + boot.ContainerdSocket); !os.IsNotExist(err) {
		t.Errorf("the old socket: %v", err)
	}
	lacks(t, tm.console.String(), "containerd: started again")
}

func TestContainerdThatComesUpLateGetsItsServices(t *testing.T) {
	tm := newTestMachine(t)
	tm.containerdScript(t, "test -e "+tm.root+"/well || exit 4; touch "+tm.root+"/up; exec sleep 600")
	tm.serviceTool(t, `{"started":["web"]}`, "exec sleep 600")
	listen := tm.answering(t)
	if err := tm.bringUpContainerd(); err == nil {
		t.Fatal("it must have failed")
	}
	if err := tm.bringUpServices(); err == nil {
		t.Fatal("without containerd there can be no services")
	}
	lacks(t, tm.console.String(), "late")
	tm.file(t, "/well", "", 0o644)
	eventually(t, "another start", func() bool { _, err := os.Stat(filepath.Join(tm.root, "up")); return err == nil })
	listen() // not before: a socket that is there is removed by each start
	tm.says(t, "init: 1 service started, 0 failed, late")
}

func TestContainerdIsStartedAgain(t *testing.T) {
	tm := newTestMachine(t)
	tm.file(t, boot.RuntimeConfig, "stderr=\"/var/log/containerd.log\"\n", 0o644)
	tm.containerdScript(t, "echo >>"+tm.root+"/starts; echo last words >&2; exec sleep 600")
	listen := tm.answering(t)
	go func() {
		eventually(t, "start", func() bool { _, err := os.Stat(filepath.Join(tm.root, "starts")); return err == nil })
		listen()
	}()
	if err := tm.bringUpContainerd(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "last words", func() bool { return len(tm.containerd.life().tail.lines(1)) > 0 })
	if err := tm.reaper.Signal(tm.sys, tm.containerd.life().proc, 9); err != nil {
		t.Fatal(err)
	}
	tm.says(t, "containerd: ended: signal: killed; its last line: last words; it is started again")
	contains(t, tm.console.String(), "containerd: | last words") // it went to a file
	eventually(t, "second start", func() bool {
		starts, _ := os.ReadFile(filepath.Join(tm.root, "starts"))
		return len(starts) == 2
	})
}

func TestContainerdThatRefusesItsOptions(t *testing.T) {
	tm := newTestMachine(t)
	tm.file(t, boot.RuntimeConfig, "cliopts=\"--bad 'x y'\"\n", 0o644)
	tm.containerdScript(t, "echo \"$#\" >>"+tm.root+"/starts; test $# = 0 || { echo unknown flag >&2; exit 1; }; exec sleep 600")
	listen := tm.answering(t)
	go func() {
		eventually(t, "start", func() bool { s, _ := os.ReadFile(filepath.Join(tm.root, "starts")); return string(s) == "3\n0\n" })
		listen()
	}()
	if err := tm.bringUpContainerd(); err != nil {
		t.Fatal(err)
	}
	contains(t, tm.console.String(), `line 1, column 1: cliopts: containerd does not run with "--bad 'x y'": ended before its socket answered: exit status 1; its last line: unknown flag; containerd is started without options`)
}

func TestContainerdThatNeverAnswers(t *testing.T) {
	tm := newTestMachine(t)
	tm.patience.socket, tm.patience.late = 300*time.Millisecond, 50*time.Millisecond
	tm.containerdScript(t, "exec sleep 600")
	err := tm.bringUpContainerd()
	if err == nil || !strings.Contains(err.Error(), "no answer on "+boot.ContainerdSocket) {
		t.Fatalf("got %v", err)
	}
	contains(t, tm.console.String(), "yet after 50ms")
}

// One that needs longer than the boot waits is given more time at each start,
// and comes up.
func TestContainerdThatIsSlow(t *testing.T) {
	tm := newTestMachine(t)
	tm.patience.socket, tm.patience.late = 200*time.Millisecond, 100*time.Millisecond
	tm.containerdScript(t, "sleep 0.3; touch "+tm.root+"/up; exec sleep 600")
	tm.serviceTool(t, `{"started":["web"]}`, "exec sleep 600")
	listen := tm.answering(t)
	if err := tm.bringUpContainerd(); !errors.Is(err, errSaid) || !strings.HasPrefix(err.Error(), "no answer on ") {
		t.Fatalf("got %v", err)
	}
	if err := tm.bringUpServices(); err == nil {
		t.Fatal("without containerd there can be no services")
	}
	eventually(t, "a life that lasts", func() bool { _, err := os.Stat(filepath.Join(tm.root, "up")); return err == nil })
	listen()
	tm.says(t, "init: 1 service started, 0 failed, late")
	contains(t, tm.console.String(), "for 200ms; it is started again")
	contains(t, tm.console.String(), "yet after 100ms; it has 400ms in all")
}

func TestServicesReport(t *testing.T) {
	for _, tt := range []struct{ report, want, summary string }{
		{`{"started":["a","b"]}`, "", "2 services started, 0 failed"},
		{`{"started":["a"],"failed":{"b":"no room"}}`, "b: no room", "1 services started, 1 failed"},
		{`{"err":"cannot connect"}`, "cannot connect", "0 services started, 1 failed"},
		{`nonsense`, "ended without a report", "0 services started, 1 failed"},
	} {
		t.Run(tt.report, func(t *testing.T) { // one reaper at a time: each would take the other's children
			tm := newTestMachine(t)
			tm.serviceTool(t, tt.report, "exec sleep 600")
			tm.containerd = &containerd{m: tm.machine, first: make(chan struct{})}
			close(tm.containerd.first)
			tm.services.start(false)
			err := tm.bringUpServices()
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v", err)
			}
			if got := tm.services.summary(); got != tt.summary {
				t.Errorf("%q, want %q", got, tt.summary)
			}
		})
	}
}

func TestServiceToolIsStartedAgain(t *testing.T) {
	tm := newTestMachine(t)
	tm.serviceTool(t, `{"started":["web"]}`, "exit 3")
	tm.containerd = &containerd{m: tm.machine, first: make(chan struct{})}
	close(tm.containerd.first)
	tm.services.start(false)
	if err := tm.bringUpServices(); err != nil {
		t.Fatal(err)
	}
	tm.says(t, "/usr/bin/service system: exit status 3; it is started again")
	eventually(t, "adoption", func() bool {
		calls, _ := os.ReadFile(filepath.Join(tm.root, "calls"))
		return strings.HasPrefix(string(calls), "system\nsystem --adopt\n")
	})
}

// A step that fails is said by name, and what comes after it is done all the same.
func TestStepsThatFail(t *testing.T) {
	tm := newTestMachine(t)
	done := ""
	ends := func(name string, err error) step {
		return step{name, func() error { done += name + " "; return err }}
	}
	tm.run(phase{boot.System, []step{ends("first", nil), ends("second", errors.New("broken\nin two")), ends("third", said("known")), ends("fourth", nil)}})
	tm.run(phase{boot.Onboot, []step{ends("fifth", nil)}})
	if done != "first second third fourth fifth " {
		t.Errorf("done: %s", done)
	}
	if got := tm.console.String(); got != "init: second: broken; in two\n" {
		t.Errorf("said %q", got)
	}
	for at, want := range map[boot.Milestone]string{boot.System: "failed second: broken; in two; known", boot.Onboot: "done "} {
		if e, ok := tm.events(t).Milestone(at); !ok || string(e.State)+" "+e.Detail != want {
			t.Errorf("%s: %+v", at, e)
		}
	}
}

// runcScript puts a shell script in the place of runc.
func (tm *testMachine) runcScript(t *testing.T, script string) {
	t.Helper()
	tm.file(t, boot.RuncPath, "#!/bin/sh\n"+script+"\n", 0o755)
}

func TestOnboot(t *testing.T) {
	tm := newTestMachine(t)
	for _, name := range []string{"000-good", "001-bad", "002-killed", "003-broken", "004-last"} {
		tm.file(t, "/containers/onboot/"+name+"/config.json", "{}", 0o644)
	}
	tm.file(t, "/containers/onboot/000-good/runtime.json", `{"cgroups":["named"]}`, 0o644) // and nothing is mounted to make it in
	tm.file(t, "/containers/onboot/003-broken/runtime.json", "{", 0o644)
	if err := tm.runBundles(tm.ctx, boot.Shutdown, "shutdown", boot.OnshutdownDir, 0); err != nil || tm.console.String() != "" {
		t.Errorf("no directory: %v, %q", err, tm.console.String())
	}
	// The arguments: --log FILE --log-format json run --bundle DIR NAME.
	tm.runcScript(t, `case "$8" in
		*bad) echo 'error text' >&2; printf 'out of %s' "$8"; exit 3;;
		*killed) exit 137;;
		*last) echo '{"level":"error","msg":"exec: no such file"}' >"$2"; exit 1;;
		*) echo "out of $8";;
	esac`)
	err := tm.runBundles(tm.ctx, boot.Onboot, "onboot", boot.OnbootDir, 0)
	if err == nil {
		t.Fatal("three failed")
	}
	text := tm.console.String()
	for _, want := range []string{
		"onboot: Using cgroup v2\n", "onboot 000-good: from " + tm.root + "/containers/onboot/000-good\n", "onboot 000-good: cgroup error: ", "\nout of 000-good\n", "\nout of 001-bad\nerror text\n",
		"onboot 001-bad: exit status 3\n", "onboot 002-killed: signal: killed\n", "onboot 003-broken: ",
		"onboot 004-last: runc: exec: no such file\n",
	} {
		contains(t, text, want)
	}
	lacks(t, text, "000-good: exit")
	lacks(t, text, "001-bad: cgroup error")
	lacks(t, text, "out of 003-broken")
	for file, want := range map[string]string{"onboot.001-bad.out.log": "out of 001-bad", "onboot.001-bad.log": "error text\n"} {
		if got, _ := os.ReadFile(filepath.Join(tm.root, "/run/log/onboot", file)); string(got) != want {
			t.Errorf("%s: %q", file, got)
		}
	}
	e, _ := tm.events(t).Unit("002-killed")
	if e.State != boot.Failed || e.Facts[boot.FactStatus] != "signal: killed" {
		t.Errorf("event %+v", e)
	}
}

func TestRuncWords(t *testing.T) {
	for _, tt := range []struct {
		words string
		obey  bool
	}{
		{runcDebugWord + " " + runcConsoleWord, true},
		{runcDebugWord + "0 x" + runcConsoleWord + " linuxkit.runc_debug linuxkit.runc_console=0", false},
	} {
		t.Run(tt.words, func(t *testing.T) { // one reaper at a time: each would take the other's children
			tm := newTestMachine(t)
			tm.words = strings.Fields(tt.words)
			tm.file(t, "/containers/onboot/000-a/config.json", "{}", 0o644)
			tm.runcScript(t, `echo "$@" >`+tm.root+`/args`)
			if err := tm.runBundles(tm.ctx, boot.Onboot, "onboot", boot.OnbootDir, 0); err != nil {
				t.Fatal(err)
			}
			if got := strings.Contains(readAll(t, tm.root+"/args"), " --debug run "); got != tt.obey {
				t.Errorf("--debug: %v", got)
			}
			if got := strings.Contains(tm.console.String(), "onboot 000-a: waiting for completion"); got != tt.obey {
				t.Errorf("said: %v", got)
			}
			_, err := os.Stat(filepath.Join(tm.root, "/run/log/onboot/onboot.000-a.out.log"))
			if direct := os.IsNotExist(err); direct != tt.obey {
				t.Errorf("to the console alone: %v", direct)
			}
		})
	}
}

func TestShutdownContainerThatHangsIsEnded(t *testing.T) {
	tm := newTestMachine(t)
	tm.patience.late = 30 * time.Millisecond
	tm.file(t, "/containers/onshutdown/000-hangs/config.json", "{}", 0o644)
	tm.file(t, "/containers/onshutdown/001-next/config.json", "{}", 0o644)
	tm.runcScript(t, `case "$8" in *hangs) echo before; exec sleep 600;; *) echo next ran;; esac`)
	err := tm.runBundles(tm.ctx, boot.Shutdown, "shutdown", boot.OnshutdownDir, 200*time.Millisecond)
	if err == nil || !strings.Contains(err.Error(), "000-hangs: stopped: it had 200ms") {
		t.Errorf("got %v", err)
	}
	text := tm.console.String()
	for _, want := range []string{"shutdown 000-hangs: still running after", "\nbefore\n", "\nnext ran\n"} {
		contains(t, text, want)
	}
}

// What a container says is seen though /run is full, or it is said that it may not be.
func TestContainersWithoutRoom(t *testing.T) {
	for _, tt := range []struct {
		full         []string
		logs, root   string // of the machine
		said, unsaid string
	}{
		{nil, "/run/log", "", "", "full"},
		{[]string{"/run"}, "/tmp/log", "--root ROOT/tmp/runc ", "shutdown 000-a: /run is full: its logs and runc's state are in /tmp\n", "cut off"},
		{[]string{"/run", "/tmp"}, "/run/log", "", "shutdown 000-a: /run and /tmp are full: what it says may be lost\n", "state are in"},
		{[]string{"/run/log"}, "/run/log", "", "shutdown 000-a: what it says may be cut off: no space is left for logs in ROOT/run/log/shutdown\n", "is full"},
	} {
		t.Run(strings.Join(tt.full, " "), func(t *testing.T) {
			tm := newTestMachine(t)
			tm.sys.full = tt.full
			tm.file(t, "/containers/onshutdown/000-a/config.json", "{}", 0o644)
			tm.runcScript(t, `echo "$@" >`+tm.root+`/args; echo words`)
			if err := tm.runBundles(tm.ctx, boot.Shutdown, "shutdown", boot.OnshutdownDir, 0); err != nil {
				t.Fatal(err)
			}
			at := func(text string) string { return strings.ReplaceAll(text, "ROOT", tm.root) }
			contains(t, tm.console.String(), "\nwords\n")
			contains(t, tm.console.String(), at(tt.said))
			lacks(t, tm.console.String(), tt.unsaid)
			contains(t, readAll(t, tm.root+"/args"), " --log-format json "+at(tt.root)+"run ")
			if got := readAll(t, tm.root+tt.logs+"/shutdown/shutdown.000-a.out.log"); got != "words\n" {
				t.Errorf("log: %q", got)
			}
		})
	}
}

func TestScripts(t *testing.T) {
	tm := newTestMachine(t)
	tm.patience.late, tm.patience.script = 20*time.Millisecond, 300*time.Millisecond
	log := tm.root + "/log"
	for _, name := range []string{"001-early", "007-mid", "015-between", "030-late"} {
		tm.file(t, initDir+"/"+name, "#!/bin/sh\necho "+name+" >>"+log+"\n", 0o755)
	}
	tm.file(t, initDir+"/000-issue", "#!/bin/sh\necho superseded >>"+log+"\n", 0o755)
	tm.file(t, initDir+"/040-fails", "#!/bin/sh\nexit 3\n", 0o755)
	tm.file(t, initDir+"/050-hangs", "#!/bin/sh\nexec sleep 600\n", 0o755)
	tm.file(t, initDir+"/060-no-program", "text", 0o644)
	tm.file(t, initDir+"/070-directory/x", "", 0o644)
	tm.file(t, "/usr/bin/other", "#!/bin/sh\necho by a link >>"+log+"\n", 0o755)
	if err := os.Symlink(filepath.Join(tm.root, "/usr/bin/other"), filepath.Join(tm.root, initDir, "080-link")); err != nil {
		t.Fatal(err)
	}
	tm.file(t, boot.ServicePath, "#!/bin/sh\necho the tool >>"+log+"\n", 0o755)
	for _, name := range []string{"010-onboot", "090-other-name"} {
		if err := os.Symlink(boot.ServicePath, filepath.Join(tm.root, initDir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, part := range [][2]string{{"", volumesEntry}, {volumesEntry, onbootEntry}, {onbootEntry, containerdEntry}, {containerdEntry, ""}} {
		if err := tm.runScripts(initDir, part[0], part[1]); err != nil {
			t.Fatal(err)
		}
		tm.file(t, "/log", readAll(t, log)+"--\n", 0o644)
	}
	if got, want := readAll(t, log), "001-early\n--\n007-mid\n--\n015-between\n--\n030-late\nby a link\n--\n"; got != want {
		t.Errorf("ran %q, want %q", got, want)
	}
	for _, want := range []string{"040-fails: exit status 3", "050-hangs: still running after 0s\n", "050-hangs: still running after 300ms, and left to itself", "060-no-program: "} {
		contains(t, tm.console.String(), want)
	}
	lacks(t, tm.console.String(), "030-late")
	lacks(t, tm.console.String(), "directory")
	if err := tm.runScripts("/etc/nowhere", "", ""); err != nil {
		t.Error(err)
	}
}

func readAll(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestVolumes(t *testing.T) {
	tm := newTestMachine(t)
	for _, d := range []string{"rw/lower", "rw/merged", "rw/tmp", "ro/lower", "ro/merged", "bad/lower"} {
		if err := os.MkdirAll(filepath.Join(tm.root, "/containers/volumes", d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	err := tm.mountVolumes()
	if err == nil || !strings.Contains(err.Error(), "volume bad: no directory merged in it") {
		t.Errorf("got %v", err)
	}
	v := "/containers/volumes/"
	calls := strings.Join(tm.sys.taken(), "\n")
	contains(t, calls, "mount tmpfs "+v+"rw/tmp tmpfs 0x0")
	contains(t, calls, "mount overlay "+v+"rw/merged overlay 0x0 lowerdir="+v+"rw/lower,upperdir="+v+"rw/tmp/upper,workdir="+v+"rw/tmp/work")
	contains(t, calls, "mount "+v+"ro/lower "+v+"ro/merged")
	lacks(t, calls, "overlay "+v+"ro")
	contains(t, tm.console.String(), "init: Volume rw is read-write\n")
	contains(t, tm.console.String(), "init: Volume ro is read-only\n")
}

// What devtmpfs has stays as it is; what it lacks is made as LinuxKit's init does.
func TestMakeNodes(t *testing.T) {
	tm := newTestMachine(t) // has /dev/null
	if err := tm.makeNodes(); err != nil {
		t.Fatal(err)
	}
	want := "mknod /dev/console 020600 5 1; mknod /dev/tty1 020620 4 1; mknod /dev/tty 020666 5 0; mknod /dev/kmsg 020660 1 11"
	if got := strings.Join(tm.sys.taken(), "; "); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestCgroups(t *testing.T) {
	const table = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpuset\t0\t1\t1\nmemory\t0\t1\t0\npids\t0\t1\t1\n"
	for _, tt := range []struct {
		words kernelWords
		want  []string
	}{
		{nil, []string{"/sys/fs/cgroup cgroup2"}},
		{kernelWords{"linuxkit.unified_cgroup_hierarchy=01"}, []string{"/sys/fs/cgroup cgroup2"}},
		{kernelWords{cgroupV1Word}, []string{"/sys/fs/cgroup tmpfs", "/sys/fs/cgroup/cpuset cgroup", "/sys/fs/cgroup/pids cgroup", "/sys/fs/cgroup/systemd cgroup"}},
	} {
		tm := newTestMachine(t)
		tm.words = tt.words
		tm.file(t, "/proc/cgroups", table, 0o444)
		if err := tm.mountCgroups(); err != nil {
			t.Fatal(err)
		}
		calls := tm.sys.taken()
		if len(calls) != len(tt.want) {
			t.Fatalf("%v: %v", tt.words, calls)
		}
		for i, want := range tt.want {
			if f := strings.Fields(calls[i]); f[2]+" "+f[3] != want {
				t.Errorf("%v: %q, want %q", tt.words, calls[i], want)
			}
		}
	}
}

func TestMakeCgroupsAndNamespaces(t *testing.T) {
	root := t.TempDir()
	for _, h := range []string{"cpuset", "pids"} {
		writeFile(t, filepath.Join(root, cgroupDir, h, "tasks"), "", 0o644)
	}
	b := Bundle{Runtime: boot.Runtime{Cgroups: []string{"a/b", "../../out"}, BindNS: boot.RuntimeNamespaces{Net: "/run/netns/x", Uts: "/run/uts"}}}
	if err := b.MakeCgroups(root); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"cpuset/a/b", "pids/a/b", "pids/out"} {
		if _, err := os.Stat(filepath.Join(root, cgroupDir, d)); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(filepath.Join(root, "out")); err == nil {
		t.Error("a name led out of its hierarchy")
	}
	writeFile(t, filepath.Join(root, cgroupDir, "cgroup.controllers"), "", 0o444)
	two := Bundle{Runtime: boot.Runtime{Cgroups: []string{"second"}}}
	if err := two.MakeCgroups(root); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, cgroupDir, "second")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(root, cgroupDir, "pids/second")); err == nil {
		t.Error("under version 2 there is one hierarchy")
	}
	sys := &recorder{prune: root}
	if err := b.BindNamespaces(sys, root, 42); err != nil {
		t.Fatal(err)
	}
	want := "mount /proc/42/ns/net /run/netns/x  0x1000  mount /proc/42/ns/uts /run/uts  0x1000 "
	if got := strings.Join(sys.taken(), " "); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	all := Bundle{Runtime: boot.Runtime{BindNS: boot.RuntimeNamespaces{
		Uts: "/n/7", User: "/n/6", Pid: "/n/5", Net: "/n/4", Mnt: "/n/3", Ipc: "/n/2", Cgroup: "/n/1"}}}
	var order []string
	for _, ns := range all.bound() {
		order = append(order, ns.kind+" "+ns.path)
	}
	if got, want := strings.Join(order, ", "), "cgroup /n/1, ipc /n/2, mnt /n/3, net /n/4, pid /n/5, user /n/6, uts /n/7"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestHostname(t *testing.T) {
	for _, tt := range []struct{ file, kernel, mac, want string }{
		{"box\n", "given", "", "hostname box"},
		{"\n", "given\n", "aa:bb:cc:dd:ee:ff", ""},
		{"", "(none)\n", "aa:bb:cc:dd:ee:ff\n", "hostname linuxkit-aabbccddeeff"},
		{"", "", "", "hostname linuxkit"},
	} {
		tm := newTestMachine(t)
		tm.file(t, "/etc/hostname", tt.file, 0o644)
		tm.file(t, "/proc/sys/kernel/hostname", tt.kernel, 0o644)
		if tt.mac != "" {
			tm.file(t, "/sys/class/net/eth0/address", tt.mac, 0o644)
		}
		if err := nameMachine(tm.sys, tm.root); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(tm.sys.taken(), ";"); got != tt.want {
			t.Errorf("%+v: %q", tt, got)
		}
	}
}

func TestClock(t *testing.T) {
	for _, tt := range []struct{ hctosys, epoch, want string }{
		{"1\n", "1700000000\n", ""},
		{"0\n", "1700000000\n", "clock 1700000000"},
		{"0\n", "6\n", "clock 6"},
		{"0\n", "5\n", ""}, // the test's machine is up for 5 s
		{"0\n", "-3600\n", ""},
	} {
		tm := newTestMachine(t)
		tm.file(t, "/sys/class/rtc/rtc0/hctosys", tt.hctosys, 0o444)
		tm.file(t, "/sys/class/rtc/rtc0/since_epoch", tt.epoch, 0o444)
		if err := tm.setClock(); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(tm.sys.taken(), ";"); got != tt.want {
			t.Errorf("%+v: %q", tt, got)
		}
	}
	if tm := newTestMachine(t); tm.setClock() != nil {
		t.Error("a machine without a clock has nothing to set")
	}
}

// The banner goes to each console once, whatever stands behind its comma, and
// makes no file where the machine has no such terminal.
func TestGreet(t *testing.T) {
	tm := newTestMachine(t)
	tm.file(t, "/dev/ttyS0", "", 0o600)
	tm.file(t, "/dev/tty0", "", 0o600)
	tm.file(t, "/dev/ttyS1", "", 0o600)
	greet(tm.root, strings.Fields("quiet console=tty0 console=ttyS0,115200n8 console=ttyS0 console=ttyAMA0 console= xconsole=ttyS1"))
	for name, want := range map[string]int{"ttyS0": 1, "tty0": 1, "ttyS1": 0} {
		if got := strings.Count(readAll(t, tm.root+"/dev/"+name), "Welcome to LinuxKit"); got != want {
			t.Errorf("%s has the banner %d times, want %d", name, got, want)
		}
	}
	if _, err := os.Lstat(tm.root + "/dev/ttyAMA0"); err == nil {
		t.Error("a terminal was made up")
	}
}

func FuzzKernelWords(f *testing.F) {
	f.Add("console=ttyS0,115200 console=tty0 console= seatrial.agent=ttyS1")
	f.Fuzz(func(t *testing.T, line string) {
		words := kernelWords(strings.Fields(line))
		seen := map[string]bool{}
		for _, c := range words.consoles() {
			if c == "" || seen[c] || strings.ContainsAny(c, ", ") || !strings.Contains(line, "console="+c) {
				t.Errorf("%q: console %q", line, c)
			}
			seen[c] = true
		}
		if v, ok := words.last(boot.AgentWord); ok && !words.has(boot.AgentWord+v) {
			t.Errorf("%q: %q is not in it", line, v)
		}
	})
}

func TestResolvConf(t *testing.T) {
	tm := newTestMachine(t)
	if err := resolvConf(tm.root); err != nil {
		t.Error(err) // there is none
	}
	if err := os.MkdirAll(filepath.Join(tm.root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/run/resolvconf/resolv.conf", filepath.Join(tm.root, "etc/resolv.conf")); err != nil {
		t.Fatal(err)
	}
	if err := resolvConf(tm.root); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, filepath.Join(tm.root, "run/resolvconf/resolv.conf")); got != "" {
		t.Errorf("got %q", got)
	}
	if info, err := os.Stat(filepath.Join(tm.root, "run/resolvconf")); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	own := newTestMachine(t)
	own.file(t, "/etc/resolv.conf", "nameserver 10.0.0.1\n", 0o644)
	if err := resolvConf(own.root); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, own.root+"/etc/resolv.conf"); got != "nameserver 10.0.0.1\n" {
		t.Errorf("a file of its own became %q", got)
	}
}

// A kernel with a static usermode helper starts init under the helpers' names.
func TestHelperNames(t *testing.T) {
	for _, tt := range []struct {
		argv string
		want int
	}{{"/sbin/mdev -s", 0}, {"/sbin/usermode-helper", 0}, {"/sbin/modprobe -q nonesuch-at-all", 1}, {"/sbin/reboot surplus", 1}, {"/sbin/other", 1}} {
		if got := Main(strings.Fields(tt.argv)); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.argv, got, tt.want)
		}
	}
}

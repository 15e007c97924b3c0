package console

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seatrial/seatrial/boot"
)

func record(t *testing.T, e boot.Event) string {
	t.Helper()
	b, err := e.AppendText([]byte("[    2.500000] "))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// titles are the faults that a rule makes of each transcript.
func TestFaults(t *testing.T) {
	start := "[    0.000000] Linux version 6.1.0-cloud\r\n"
	for name, c := range map[string]struct {
		text     string
		rule     string
		title    string
		severity Severity
	}{
		"no initramfs": {start + "[    1.1] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)\r\n[    1.2] Call Trace:\r\n",
			RuleNoRoot, "no root file system: the kernel was given neither an initramfs nor root= (unknown-block(0,0))", Fatal},
		"init exits": {start + "[    1.1] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000300\n",
			RuleInitDied, "init died: PID 1 exited with status 3", Fatal},
		"init killed": {start + "[    1.1] Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b\n",
			RuleInitDied, "init died: PID 1 was killed by signal 11", Fatal},
		"panic":     {start + "[    1.1] Kernel panic - not syncing: sysrq triggered crash\n", RulePanic, "kernel panic: sysrq triggered crash", Fatal},
		"oops":      {start + "[    1.1] BUG: unable to handle page fault for address: 0000\n[    1.2] ---[ end trace 0 ]---\n", "oops", "kernel oops: unable to handle page fault for address: 0000", Fatal},
		"oom":       {start + "[    1.1] Out of memory: Killed process 7 (containerd) total-vm:1kB\n", "oom", "out of memory: the kernel killed containerd", Fatal},
		"reset":     {start + start, RuleReset, "machine reset: the kernel started again", Fatal},
		"clean":     {start + "[    1.1] Run /init as init process\nlevel=info msg=\"no panic, nothing fatal\"\n", "", "", 0},
		"a service": {start + "Linux version 6.1 is what we run\n", "", "", 0},
	} {
		l, err := Replay(strings.NewReader(c.text), Options{})
		if err != nil {
			t.Fatal(err)
		}
		f, ok := Cause(l.Faults(Note))
		if ok != (c.rule != "") || f.Rule != c.rule || f.Title != c.title || f.Severity != c.severity {
			t.Errorf("%s: %+v", name, f)
		}
	}
}

func TestFaultsOfEvents(t *testing.T) {
	for name, c := range map[string]struct {
		e     boot.Event
		rule  string
		title string
	}{
		"console last":  {boot.Event{At: boot.Init, State: boot.Done, Facts: map[string]string{boot.FactConsole: "ttyS0"}}, "", ""},
		"console order": {boot.Event{At: boot.Init, State: boot.Done, Facts: map[string]string{boot.FactConsole: "tty0"}}, RuleConsoleOrder, "console order: /dev/console is tty0, not ttyS0"},
		"service runs":  {boot.Event{At: boot.Services, Unit: "web", State: boot.Running}, "", ""},
		"service dies":  {boot.Event{At: boot.Services, Unit: "web", State: boot.Failed, Facts: map[string]string{boot.FactStatus: "3"}}, RuleUnit, "service web failed: exit status 3"},
		"containerd":    {boot.Event{At: boot.Containerd, State: boot.Failed, Detail: "it exits"}, RuleMilestone, "containerd failed: it exits"},
		"bad config":    {boot.Event{At: boot.Containerd, Unit: "containerd", State: boot.Warned, Detail: "stderr: not absolute"}, RuleWarned, "stderr: not absolute"},
	} {
		c.e.Speaker, c.e.Seq = "init", 1
		l, err := Replay(strings.NewReader(record(t, c.e)+"\n"), Options{Console: "ttyS0"})
		if err != nil {
			t.Fatal(err)
		}
		f, ok := Cause(l.Faults(Note))
		if ok != (c.rule != "") || f.Rule != c.rule || !strings.HasPrefix(f.Title, c.title) {
			t.Errorf("%s: %+v", name, f)
		}
	}
}

// However the bytes are cut, and whatever colours they have, the log is the same.
func TestChunksAndColours(t *testing.T) {
	text := "[    0.0] Linux version 6.1\r\n" + record(t, boot.Event{Speaker: "init", Seq: 1, At: boot.Init, State: boot.Done}) +
		"\r\n\rThe system goes down\r\n[    1.0] Kernel panic - not syncing: x\r\n[    1.1] trace\r\nlast"
	whole, err := Replay(strings.NewReader(text), Options{})
	if err != nil {
		t.Fatal(err)
	}
	coloured := strings.ReplaceAll(text, "panic", "\x1b[31mpanic\x1b[0m")
	for size := 1; size < 9; size++ {
		l := NewLog(Options{})
		for rest := coloured; rest != ""; {
			n := min(size, len(rest))
			if _, err := l.Write([]byte(rest[:n])); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		l.Close()
		if d := cmp.Diff(texts(whole), texts(l)); d != "" {
			t.Errorf("chunks of %d: %s", size, d)
		}
		if len(l.Faults(Note)) != 1 || len(l.Marks()) != 2 {
			t.Errorf("chunks of %d: %d faults, %d marks", size, len(l.Faults(Note)), len(l.Marks()))
		}
	}
	if got := texts(whole)[2]; got != "The system goes down" {
		t.Errorf("a leading CR must go: %q", got)
	}
}

func texts(l *Log) []string {
	var out []string
	for _, line := range l.Lines() {
		out = append(out, line.Text)
	}
	return out
}

func TestLostAndDamagedEvents(t *testing.T) {
	a := record(t, boot.Event{Speaker: "init", Seq: 1, At: boot.Init, State: boot.Done})
	b := record(t, boot.Event{Speaker: "init", Seq: 4, At: boot.Mounts, State: boot.Done})
	l, err := Replay(strings.NewReader(a+"\n"+b+"\n"+a[:len(a)-9]+"\n"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	f := l.Faults(Warning)
	if len(f) != 2 || f[0].Title != "2 events of init were lost" || f[1].Rule != RuleDamaged {
		t.Errorf("%+v", f)
	}
	if _, ok := l.Milestone(boot.Mounts); !ok {
		t.Error("mounts was reached")
	}
	if _, ok := l.Milestone(boot.Ready); ok {
		t.Error("ready was not reached")
	}
}

func TestOpenFaultAndExpect(t *testing.T) {
	l := NewLog(Options{})
	write := func(s string) {
		t.Helper()
		if _, err := l.Write([]byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	changed := l.Changed()
	write("[ 1.0] Kernel panic - not syncing: x\n[ 1.1] more\n")
	select {
	case <-changed:
	default:
		t.Error("a change was not announced")
	}
	if f := l.Faults(Fatal)[0]; !f.Open || len(f.Lines) != 2 || f.Expected {
		t.Errorf("%+v", f)
	}
	l.Expect(RulePanic)
	write("[ 1.2] ---[ end Kernel panic - not syncing: x ]---\n[ 1.3] unrelated\n")
	f := l.Faults(Fatal)[0]
	if f.Open || len(f.Lines) != 3 || !f.Expected {
		t.Errorf("%+v", f)
	}
	write("host:~# ")
	if !strings.HasSuffix(l.Text(4), "unrelated\nhost:~# ") {
		t.Errorf("unfinished line: %q", l.Text(4))
	}
}

func TestProgressIsNotNoise(t *testing.T) {
	var now time.Duration
	l := NewLog(Options{Clock: func() time.Duration { return now }})
	for i, s := range []string{"tick 1\n", "tick 2\n", "tick 33\n"} {
		now = time.Duration(i) * time.Second
		if _, err := l.Write([]byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	if l.Progress() != 0 {
		t.Errorf("repetition counted as progress at %v", l.Progress())
	}
	now = 9 * time.Second
	if _, err := l.Write([]byte("tock\n")); err != nil {
		t.Fatal(err)
	}
	if l.Progress() != now {
		t.Errorf("a new line is progress, got %v", l.Progress())
	}
}

func FuzzWrite(f *testing.F) {
	f.Add([]byte("\x1b[31mseatrial[1] init 1 {} 0\r\n\x00\xffKernel panic - not syncing: "), 3)
	f.Fuzz(func(t *testing.T, b []byte, cut int) {
		one, two := NewLog(Options{}), NewLog(Options{})
		cut = min(max(cut, 0), len(b))
		one.Write(b)
		two.Write(b[:cut])
		two.Write(b[cut:])
		one.Close()
		two.Close()
		if d := cmp.Diff(texts(one), texts(two)); d != "" {
			t.Error(d)
		}
	})
}

func BenchmarkWrite(b *testing.B) {
	text := []byte(strings.Repeat("[    1.234567] virtio_blk virtio1: [vda] 2048 512-byte logical blocks\r\n", 1000))
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		NewLog(Options{}).Write(text)
	}
}

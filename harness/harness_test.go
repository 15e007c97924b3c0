package harness

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seatrial/seatrial/boot"
	"github.com/seatrial/seatrial/harness/console"
	"github.com/seatrial/seatrial/images"
	"github.com/seatrial/seatrial/qemu"
	"github.com/seatrial/seatrial/reports"
)

// guest is a multiboot image that prints text on COM1 and then stands still or
// resets: a real machine that says what a test wants in milliseconds.
func guest(t *testing.T, text string, reset bool) *images.Image {
	t.Helper()
	const base, code, size = 0x100000, 0x20, 128
	u32 := binary.LittleEndian.AppendUint32
	var b []byte
	for _, v := range []uint32{0x1badb002, 0x10000, -(0x1badb002 + 0x10000) & 0xffffffff, base, base, 0, 0, base + code} {
		b = u32(b, v)
	}
	b = u32(append(b, 0xbe), base+size)         // mov esi, text
	b = u32(append(b, 0xb9), uint32(len(text))) // mov ecx, its length
	if len(text) > 0 {
		b = append(b,
			0x66, 0xba, 0xfd, 0x03, // again: mov dx, 0x3fd (line status)
			0xec, 0xa8, 0x20, 0x74, 0xfb, // in al, dx; test al, 0x20; jz: transmitter busy
			0x66, 0xba, 0xf8, 0x03, 0xac, 0xee, // mov dx, 0x3f8; lodsb; out dx, al
			0xe2, 0xef) // loop again
	}
	if reset {
		b = append(b, 0xb0, 0xfe, 0xe6, 0x64) // keyboard controller, reset
	}
	b = append(b, 0xf4, 0xeb, 0xfd) // hlt for ever
	b = append(append(b, make([]byte, size-len(b))...), text...)
	path := filepath.Join(t.TempDir(), "kernel")
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return &images.Image{Name: "guest", Arch: "amd64", Digest: "sha256:0", KernelPath: path, Cmdline: "console=ttyS0"}
}

func host(t *testing.T) Host {
	t.Helper()
	if _, _, err := qemu.Find("amd64"); err != nil {
		t.Skip("needs QEMU: ", err)
	}
	h, err := Survey(t.Context(), "amd64", "", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	h.Accel.Name, h.Accel.CPU, h.Scale = "tcg", "max", 1
	return h
}

func up(t *testing.T, h Host, im *images.Image, p Patience) *Machine {
	t.Helper()
	m, err := Boot(t.Context(), h, Plan{Name: "m", Image: im, NoInitrd: true, MemoryMiB: 64, Dir: t.TempDir(), Patience: p})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// events are the records of a boot up to the given milestone.
func events(t *testing.T, to boot.Milestone, tty string) string {
	t.Helper()
	text, err := recordsTo(to, tty)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func recordsTo(to boot.Milestone, tty string) (string, error) {
	var b []byte
	var seq uint64
	for _, at := range boot.Milestones()[1:] {
		seq++
		e := boot.Event{Speaker: "init", Seq: seq, At: at, State: boot.Done}
		if at == boot.Init {
			e.Facts = map[string]string{boot.FactConsole: tty}
		}
		var err error
		if b, err = e.AppendText(b); err != nil {
			return "", err
		}
		b = append(b, '\r', '\n')
		if at == to {
			break
		}
	}
	return string(b), nil
}

func TestReady(t *testing.T) {
	m := up(t, host(t), guest(t, events(t, boot.Ready, "ttyS0"), false), Patience{})
	if err := m.Await(t.Context(), boot.Ready); err != nil {
		t.Fatal(err)
	}
	if m.Verdict() != nil || !m.Alive() {
		t.Errorf("verdict on a good machine: %v", m.Verdict())
	}
	pid := m.PID()
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, 0); err == nil {
		t.Error("QEMU is still there")
	}
	for _, name := range []string{fileSerial, fileStamped, fileCommand, fileBoot, fileStderr, fileQMP} {
		if _, err := os.Stat(filepath.Join(m.Dir(), name)); err != nil {
			t.Error(err)
		}
	}
	if r := m.Report(); r.Reached != boot.Ready || r.Class != "" || len(r.Marks) == 0 || len(r.Console) == 0 {
		t.Errorf("report: %+v", r)
	}
}

// Every end that is not the awaited one has a class and a title of its own,
// and comes when it happens.
func TestVerdicts(t *testing.T) {
	h := host(t)
	quick := Patience{Quiet: time.Second}
	start := "[    0.0] Linux version 6.1\r\n"
	for name, c := range map[string]struct {
		text     string
		reset    bool
		patience Patience
		class    reports.Class
		title    string
	}{
		"panic": {start + "[    1.0] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)\r\n", true, Patience{},
			reports.Guest, "no root file system"},
		"init exits": {start + "[    1.0] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100\r\n", true, Patience{},
			reports.Guest, "init died: PID 1 exited with status 1"},
		"reset":         {start, true, Patience{}, reports.Guest, "the machine reset"},
		"silence":       {"", false, quick, reports.Stalled, "not one byte came on ttyS0"},
		"stuck":         {start + events(t, boot.Mounts, "ttyS0"), false, quick, reports.Stalled, "no progress for 1s after mounts"},
		"console order": {events(t, boot.Ready, "tty0"), false, Patience{}, reports.Guest, "console order: /dev/console is tty0"},
	} {
		t.Run(name, func(t *testing.T) {
			m := up(t, h, guest(t, c.text, c.reset), c.patience)
			err := m.Await(t.Context(), boot.Services)
			if name == "console order" && err == nil {
				err = m.Await(t.Context(), boot.Off) // ready came as soon as the fault did
			}
			var f *Failure
			if !errors.As(err, &f) || f.Class != c.class || !strings.Contains(f.Title, c.title) {
				t.Fatalf("got %v", err)
			}
			if first, _, _ := strings.Cut(f.Error(), "\n"); first != string(f.Class)+": "+f.Title {
				t.Errorf("the first line must name the cause: %q", first)
			}
		})
	}
}

func TestKilledFromOutside(t *testing.T) {
	m := up(t, host(t), guest(t, "[    0.0] Linux version 6.1\r\n", false), Patience{})
	if err := syscall.Kill(m.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	err := m.Await(t.Context(), boot.Ready)
	var f *Failure
	if !errors.As(err, &f) || f.Class != reports.Infra || !strings.Contains(f.Title, "SIGKILL") {
		t.Errorf("got %v", err)
	}
}

func TestExpectedFaultIsNoVerdict(t *testing.T) {
	text := "[    0.0] Linux version 6.1\r\n[    1.0] Kernel panic - not syncing: x\r\n"
	m := up(t, host(t), guest(t, text, true), Patience{})
	f, err := m.AwaitFault(t.Context(), console.RulePanic)
	if err != nil || f.Title != "kernel panic: x" {
		t.Fatalf("%+v, %v", f, err)
	}
	if err := m.AwaitEnd(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestBootRefuses(t *testing.T) {
	h := host(t)
	var f *Failure
	if _, err := Boot(t.Context(), h, Plan{Name: "m", Dir: t.TempDir()}); !errors.As(err, &f) || f.Class != reports.Misuse {
		t.Errorf("no image: %v", err)
	}
	im := guest(t, "", false)
	im.Arch = "arm64"
	if _, err := Boot(t.Context(), h, Plan{Name: "m", Image: im, Dir: t.TempDir()}); !errors.As(err, &f) || !strings.Contains(f.Title, "arm64") {
		t.Errorf("wrong architecture: %v", err)
	}
}

// A machine that is attended needs no agent, has no deadline and succeeds only
// by powering itself off; its bytes are passed on until the listener fails.
func TestAttend(t *testing.T) {
	h := host(t)
	refuses := &refusing{}
	m, err := Boot(t.Context(), h, Plan{
		Name: "m", Image: guest(t, "[    0.0] Linux version 6.1\r\n[    1.0] x\r\n", true), NoInitrd: true, NoAgent: true,
		MemoryMiB: 64, Dir: t.TempDir(), Echo: refuses, Patience: Patience{Quiet: time.Nanosecond},
	})
	if err != nil {
		t.Fatal(err)
	}
	var f *Failure
	if _, err := m.Exec(t.Context(), "true"); !errors.As(err, &f) || f.Class != reports.Misuse {
		t.Errorf("exec without an agent: %v", err)
	}
	if err := m.Attend(t.Context()); !errors.As(err, &f) || f.Class != reports.Guest || !strings.Contains(f.Title, "the machine reset") {
		t.Errorf("got %v", err)
	}
	if n := len(m.Console().Lines()); n != 2 {
		t.Errorf("%d lines in the log: a listener that fails must not harm it", n)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	if refuses.asked != 1 {
		t.Errorf("the listener was given %d writes, want none after the one that it refused", refuses.asked)
	}
}

// refusing is a listener that takes nothing.
type refusing struct{ asked int }

func (r *refusing) Write([]byte) (int, error) {
	r.asked++
	return 0, errors.New("gone")
}

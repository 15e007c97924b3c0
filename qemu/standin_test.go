package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seatrial/seatrial/qemu/qemutest"
)

func TestMain(m *testing.M) {
	ok := func(m *qemutest.Machine) {
		fmt.Fprint(m.Serial, "OK\n")
		m.End(ReasonReset)
	}
	late := func(m *qemutest.Machine) {
		time.Sleep(time.Second) // what the machine takes: far more than the start of a process on a busy host
		ok(m)
	}
	kvm := func(m *qemutest.Machine) bool { return m.Has("-accel", "kvm") }
	qemutest.Main(m, qemutest.Plays{
		"kvm-fast": {Guest: func(m *qemutest.Machine) {
			if kvm(m) {
				ok(m)
			} else {
				late(m)
			}
		}},
		"kvm-silent": {Guest: func(m *qemutest.Machine) {
			if !kvm(m) {
				ok(m)
			}
		}},
		"kvm-aborts": {Guest: ok, Fail: func(m *qemutest.Machine) string {
			if kvm(m) {
				return "error: failed to set MSR 0x10a"
			}
			return ""
		}},
		"counter": {Guest: func(m *qemutest.Machine) {
			digit, b := byte('0'), make([]byte, 1)
			if m.Loaded {
				digit = m.Memory()[0]
			}
			for {
				if _, err := m.Serial.Read(b); err != nil {
					return
				}
				digit++
				m.SetMemory([]byte{digit})
				if _, err := m.Serial.Write([]byte{digit}); err != nil {
					return
				}
			}
		}},
	})
}

func TestChooseAccelerator(t *testing.T) {
	trial := func(name string, took time.Duration) Accel {
		return Accel{Name: name, CPU: name + "-model", Took: took}
	}
	for name, c := range map[string]struct {
		kvm  time.Duration
		err  error
		want string
		why  string
	}{
		"faster": {99 * time.Millisecond, nil, "kvm", "took 99ms under KVM and 100ms emulated"},
		"equal":  {100 * time.Millisecond, nil, "tcg", "KVM works, but the trial guest took 100ms under it and 100ms emulated"},
		"slower": {time.Second, nil, "tcg", "KVM works, but"},
		"broken": {time.Millisecond, errors.New("it hangs"), "tcg", "/dev/x is there, but the trial guest does not run under it: it hangs"},
	} {
		a := choose(trial("tcg", 100*time.Millisecond), trial("kvm", c.kvm), c.err, "/dev/x")
		if a.Name != c.want || a.CPU != c.want+"-model" || !strings.Contains(a.Why, c.why) {
			t.Errorf("%s: %+v", name, a)
		}
	}
}

// KVM is used if the trial guest ran under it, with the CPU model that will be
// used, and faster; for every other case the answer names the reason.
func TestProbeJudgesKVM(t *testing.T) {
	device := filepath.Join(t.TempDir(), "kvm")
	if err := os.WriteFile(device, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for play, want := range map[string]struct{ name, why string }{
		"kvm-fast":   {"kvm", "under KVM and"},
		"kvm-silent": {"tcg", "no end in"},
		"kvm-aborts": {"tcg", "failed to set MSR 0x10a"},
	} {
		t.Run(play, func(t *testing.T) {
			a, err := Probe(t.Context(), ProbeOptions{Binary: qemutest.Binary(t, play), Arch: runtime.GOARCH, Dir: t.TempDir(), Device: device, Limit: 2 * time.Second})
			if err != nil {
				t.Fatal(err)
			}
			if a.Name != want.name || !strings.Contains(a.Why, want.why) || a.CPU != DefaultCPU(runtime.GOARCH, want.name) || a.Took <= 0 {
				t.Errorf("%+v", a)
			}
		})
	}
	other := map[string]string{"amd64": "arm64", "arm64": "amd64"}[runtime.GOARCH]
	a, err := Probe(t.Context(), ProbeOptions{Binary: qemutest.Binary(t, "kvm-fast"), Arch: other, Dir: t.TempDir(), Device: device})
	if err != nil || a.Name != "tcg" || !strings.Contains(a.Why, "is emulated") {
		t.Errorf("a foreign architecture: %+v, %v", a, err)
	}
}

// An accelerator that is forced is used or an error, never another.
func TestForcedAccelerator(t *testing.T) {
	device := filepath.Join(t.TempDir(), "kvm")
	if err := os.WriteFile(device, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ play, accel, why, fails string }{
		{"kvm-fast", "kvm", "it was forced; the trial guest took", ""},
		{"kvm-fast", "tcg", "it was forced, and KVM was not tried", ""},
		{"kvm-silent", "kvm", "", "KVM was forced, but the trial guest does not run under it: no end in"},
		{"kvm-aborts", "kvm", "", "failed to set MSR 0x10a"},
	} {
		a, err := Probe(t.Context(), ProbeOptions{Binary: qemutest.Binary(t, c.play), Arch: runtime.GOARCH, Accel: c.accel, Dir: t.TempDir(), Device: device, Limit: 2 * time.Second})
		if c.fails == "" && (err != nil || a.Name != c.accel || !strings.Contains(a.Why, c.why)) {
			t.Errorf("%s, %s forced: %+v, %v", c.play, c.accel, a, err)
		}
		if c.fails != "" && (err == nil || a.Name != "" || !strings.Contains(err.Error(), c.fails)) {
			t.Errorf("%s, %s forced: %+v, %v", c.play, c.accel, a, err)
		}
	}
	other := map[string]string{"amd64": "arm64", "arm64": "amd64"}[runtime.GOARCH]
	for problem, q := range map[string][2]string{"": {"kvm", runtime.GOARCH}, "can only be emulated": {"kvm", other}, "unknown accelerator": {"hvf", runtime.GOARCH}} {
		if got := ProblemOfAccel(q[0], q[1]); !strings.Contains(got, problem) || problem == "" && got != "" {
			t.Errorf("%v: %q", q, got)
		}
	}
	id, err := os.ReadFile(bootID)
	if key := (ProbeOptions{}).Key(); err != nil || !strings.Contains(key, strings.TrimSpace(string(id))) || key != (ProbeOptions{}).Key() {
		t.Errorf("key %q does not hold for this boot, and all of it (%v)", key, err)
	}
	if (ProbeOptions{Accel: "tcg"}).Key() == (ProbeOptions{}).Key() {
		t.Error("what was forced is taken for what was found out")
	}
}

// What tests show with the stand-in is worth as much as it is like QEMU.
func TestStandInIsLikeQEMU(t *testing.T) {
	genuine := counting(t, "amd64")
	standIn := genuine
	standIn.Binary = qemutest.Binary(t, "counter")
	var said [][]string
	for _, c := range []Config{genuine, standIn} {
		dir := t.TempDir()
		c.RAM.File, c.Dir = filepath.Join(dir, "ram"), dir
		state := saved(t, c, true)
		next := c
		next.Incoming, next.RAM.Private, next.Dir = true, true, t.TempDir()
		v := start(t, next)
		if err := v.Load(t.Context(), bytes.NewReader(state), true); err != nil {
			t.Fatal(err)
		}
		if err := v.Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := count(t, v); got != "3" {
			t.Errorf("%s: the digit is %s", c.Binary, got)
		}
		if err := v.Quit(t.Context()); err != nil {
			t.Fatal(err)
		}
		if e := v.Exit(); e.Status != 0 || e.Reason != ReasonQuit {
			t.Errorf("%s: %+v", c.Binary, e)
		}
		var events []string
		for _, e := range v.QMP().past() {
			events = append(events, fmt.Sprint(e.Event, e.Data["status"]))
		}
		said = append(said, events)
	}
	if !slices.Equal(said[0], said[1]) {
		t.Errorf("QEMU says %q, the stand-in %q", said[0], said[1])
	}
}

// A machine that does not obey is made to, one rung after another.
func TestQuitLadder(t *testing.T) {
	for name, script := range map[string]string{"heeds SIGTERM": "exec sleep 100", "heeds nothing": "trap '' TERM; exec sleep 100"} {
		t.Run(name, func(t *testing.T) {
			c := config(t)
			c.Binary, c.Grace = fake(t, script), 50*time.Millisecond
			v := &VM{grace: c.Grace, done: make(chan struct{}), stderr: &tail{}}
			v.command = &Command{Binary: c.Binary}
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			if err := v.launch(ctx, c); err == nil {
				t.Fatal("a QEMU that says nothing has started")
			}
			began := time.Now()
			if err := v.Close(); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); took > 2*time.Second {
				t.Errorf("took %v", took)
			}
			if !v.isDone() {
				t.Error("it is still there")
			}
		})
	}
}

func TestFindRefusesOldQEMU(t *testing.T) {
	for version, good := range map[string]bool{"6.2.0": false, "7.1.99": false, "7.2.0": true, "7.10.0": true, "10.0.2": true} {
		dir := t.TempDir()
		script := "#!/bin/sh\necho QEMU emulator version " + version
		if err := os.WriteFile(filepath.Join(dir, "qemu-system-x86_64"), []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
		t.Setenv("PATH", dir)
		_, got, err := Find("amd64")
		if good && (err != nil || got != version) || !good && (err == nil || !strings.Contains(err.Error(), version+", which is too old: 7.2.0")) {
			t.Errorf("%s: %q, %v", version, got, err)
		}
	}
}

// A QEMU that does not answer is not waited for, nor is one that left a process
// behind; what that one said counts.
func TestQEMUIsAskedForAWhile(t *testing.T) {
	for script, want := range map[string]string{
		"exec sleep 20":              "help: no end in 300ms",
		"sleep 20; true":             "help: no end in 300ms", // the child keeps the pipe
		"sleep 20 & echo all I know": "",
		"exit 7":                     "exit status 7",
	} {
		began := time.Now()
		out, err := ask(t.Context(), 300*time.Millisecond, fake(t, script), "help")
		if want == "" && (err != nil || string(out) != "all I know\n") {
			t.Errorf("%s: %q, %v", script, out, err)
		}
		if want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v", script, err)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("%s: took %v", script, took)
		}
	}
}

// What a QEMU does not have is known before it is started.
func TestDevices(t *testing.T) {
	binary := fake(t, `[ "$*" = "-device help" ] || exit 1
cat <<.
Storage devices:
name "virtio-blk-pci", bus PCI, alias "virtio-blk"

Misc devices:
name "vmgenid"
name "pvpanic", bus ISA, desc "a \"name\""
.`)
	devices, err := Devices(t.Context(), binary)
	if want := []string{"pvpanic", "virtio-blk", "virtio-blk-pci", "vmgenid"}; err != nil || !slices.Equal(devices, want) {
		t.Errorf("%q, %v", devices, err)
	}
	c := config(t)
	c.Disks, c.Extra = []Disk{{Path: c.Kernel}}, []string{"-device", "driver=pvpanic,ioport=1", "-device", "virtio-blk,drive=x", "-device", "nvme", "-device", "nvme"}
	command, err := c.Command()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := command.Missing(devices), []string{"virtio-rng-pci", "nvme"}; !slices.Equal(got, want) {
		t.Errorf("missing: %q, want %q", got, want)
	}
	if _, err := Devices(t.Context(), fake(t, "exit 1")); err == nil {
		t.Error("a QEMU that fails has devices")
	}
	genuine := counting(t, "amd64")
	if devices, err = Devices(t.Context(), genuine.Binary); err != nil {
		t.Fatal(err)
	}
	if command, err = genuine.Command(); err != nil || len(command.Missing(devices)) > 0 {
		t.Errorf("missing: %q, %v", command.Missing(devices), err)
	}
}

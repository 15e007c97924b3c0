package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func config(t *testing.T) Config {
	t.Helper()
	dir := t.TempDir()
	kernel := filepath.Join(dir, "ker,nel")
	if err := os.WriteFile(kernel, probeAMD64, 0o644); err != nil {
		t.Fatal(err)
	}
	return Config{Binary: "/usr/bin/qemu", Arch: "amd64", Kernel: kernel, Dir: dir, Cmdline: "console=ttyS0 a='b c'"}
}

// has reports whether args hold the words next to each other.
func has(args []string, words ...string) bool {
	for i := range args {
		if i+len(words) <= len(args) && slices.Equal(args[i:i+len(words)], words) {
			return true
		}
	}
	return false
}

func TestCommand(t *testing.T) {
	c := config(t)
	c.Disks = []Disk{{Path: c.Kernel, Serial: "state", Snapshot: true}}
	cmd, err := c.Command()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range [][]string{
		{"-accel", "tcg"}, {"-machine", "q35,memory-backend=ram"}, {"-object", "memory-backend-ram,id=ram,size=1024M"}, {"-m", "1024"}, {"-S"}, {"-no-reboot"}, {"-append", c.Cmdline},
		{"-device", "virtio-blk-pci,drive=disk0,serial=state"},
		{"-drive", "if=none,id=disk0,file=" + escape(c.Kernel) + ",format=raw,snapshot=on"},
	} {
		if !has(cmd.Args, want...) {
			t.Errorf("%q is missing in %q", want, cmd.Args)
		}
	}
	if has(cmd.Args, "-serial", "chardev:agent") || slices.Contains(cmd.Args, "-initrd") {
		t.Errorf("an agent line or an initramfs that nobody asked for: %q", cmd.Args)
	}
	c.Agent, c.Arch = true, "arm64"
	if cmd, err = c.Command(); err != nil {
		t.Fatal(err)
	}
	if !has(cmd.Args, "-device", "pci-serial,chardev=agent") || !has(cmd.Args, "-cpu", "cortex-a57") {
		t.Errorf("arm64: %q", cmd.Args)
	}
}

// On arm64 the first card is ttyS0: the order of the cards is what the guest's
// names of them depend on.
func TestSerialLinesOfArm64(t *testing.T) {
	kernel := filepath.Join(t.TempDir(), "kernel")
	if err := os.WriteFile(kernel, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for serial, want := range map[Serial][]string{
		SerialBoard: {"chardev:serial", "pci-serial,chardev=agent"},
		SerialCard:  {"pci-serial,chardev=serial", "pci-serial,chardev=agent"},
		SerialSpare: {"chardev:serial", "pci-serial,chardev=spare", "pci-serial,chardev=agent"},
	} {
		for _, agent := range []bool{true, false} {
			c, err := Config{Binary: "qemu", Arch: "arm64", Kernel: kernel, Agent: agent, Serial: serial}.Command()
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, a := range c.Args {
				if strings.HasPrefix(a, "pci-serial,") || strings.HasPrefix(a, "chardev:") {
					got = append(got, a)
				}
			}
			if !agent {
				got = append(got, "pci-serial,chardev=agent")
			}
			if !slices.Equal(got, want) {
				t.Errorf("serial %d, agent %v: %q, want %q", serial, agent, got, want)
			}
		}
	}
}

func TestCommandListsEveryProblem(t *testing.T) {
	_, err := Config{Arch: "pdp11", MemoryMiB: 8, Kernel: "/nowhere/kernel", Cmdline: "a\nb", Disks: []Disk{{Path: "/nowhere/disk", Format: "vhd"}}}.Command()
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"pdp11", "8 MiB", "/nowhere/kernel", "line break", "/nowhere/disk", "vhd", "binary"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not mentioned in:\n%v", want, err)
		}
	}
}

// The pasteable line must give a shell the very words QEMU gets.
func TestCommandString(t *testing.T) {
	c := config(t)
	c.Agent, c.NICs = true, []NIC{{Network: &Network{}}}
	cmd, err := c.Command()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("sh", "-c", "printf '%s\\n' "+cmd.String()).Output()
	if err != nil {
		t.Fatal(err)
	}
	words := strings.Split(strings.TrimSpace(string(out)), "\n")
	if !has(words, "-append", c.Cmdline) || !has(words, "-chardev", "stdio,id=serial,signal=off") {
		t.Errorf("words: %q", words)
	}
	if strings.Contains(string(out), "@") || slices.Contains(words, "-S") {
		t.Errorf("not for people: %q", words)
	}
}

// fake is a QEMU that is a shell script.
func fake(t *testing.T, script string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "qemu")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestStartSaysWhatQEMUSaid(t *testing.T) {
	c := config(t)
	c.Binary = fake(t, "echo 'unknown CPU model' >&2; exit 1")
	_, err := Start(t.Context(), c)
	var start *StartError
	if !errors.As(err, &start) || !strings.Contains(err.Error(), "unknown CPU model") {
		t.Errorf("got %v", err)
	}
	c.Binary = filepath.Join(t.TempDir(), "absent")
	if _, err := Start(t.Context(), c); !errors.As(err, &start) || !strings.Contains(err.Error(), "absent") {
		t.Errorf("got %v", err)
	}
}

func TestStartDoesNotWaitForAMuteQEMU(t *testing.T) {
	c := config(t)
	c.Binary, c.Grace = fake(t, "exec sleep 100"), 50*time.Millisecond
	ctx, cancel := context.WithTimeoutCause(t.Context(), 200*time.Millisecond, errors.New("enough"))
	defer cancel()
	if _, err := Start(ctx, c); err == nil || !strings.Contains(err.Error(), "enough") {
		t.Errorf("got %v", err)
	}
}

func TestQMPUnderEvents(t *testing.T) {
	near, file, err := socketPair("monitor")
	if err != nil {
		t.Fatal(err)
	}
	far, err := net.FileConn(file)
	if err := errors.Join(err, file.Close()); err != nil {
		t.Fatal(err)
	}
	q := newQMP(near, nil)
	go serveQMP(far)
	big := strings.Repeat("x", 100<<10)
	for i := range 20 {
		var got struct{ Echo string }
		want := fmt.Sprint(i, big)
		if err := q.Do(t.Context(), "echo", map[string]any{"text": want}, &got); err != nil {
			t.Fatal(err)
		}
		if got.Echo != want {
			t.Fatalf("reply %d is damaged", i)
		}
	}
	if n := len(q.past()); n != 60 {
		t.Errorf("%d events, want 60", n)
	}
	if err := q.Do(t.Context(), "fail", nil, nil); err == nil || !strings.Contains(err.Error(), "no such thing") {
		t.Errorf("got %v", err)
	}
	far.Close()
	if err := q.Do(t.Context(), "echo", nil, nil); !errors.Is(err, ErrMonitorGone) {
		t.Errorf("got %v", err)
	}
	if err := q.Disconnect(); err != nil {
		t.Error(err)
	}
}

// serveQMP answers with three events around every reply.
func serveQMP(conn net.Conn) {
	in := bufio.NewScanner(conn)
	in.Buffer(nil, 1<<20)
	out := json.NewEncoder(conn)
	for in.Scan() {
		var r struct {
			ID        uint64
			Execute   string
			Arguments struct{ Text string }
		}
		if json.Unmarshal(in.Bytes(), &r) != nil {
			return
		}
		event := map[string]any{"event": "NOISE", "data": map[string]any{"text": strings.Repeat("y", 3000)}}
		if r.Execute == "fail" {
			out.Encode(map[string]any{"id": r.ID, "error": map[string]any{"class": "GenericError", "desc": "no such thing"}})
			continue
		}
		out.Encode(event)
		out.Encode(event)
		out.Encode(map[string]any{"id": r.ID, "return": map[string]any{"echo": r.Arguments.Text}})
		out.Encode(event)
	}
}

// real gives QEMU itself; these tests are about what it does.
func real(t *testing.T) string {
	t.Helper()
	binary, _, err := Find("amd64")
	if err != nil {
		t.Skip("needs QEMU: ", err)
	}
	return binary
}

func TestRealMachine(t *testing.T) {
	c := config(t)
	c.Binary, c.Agent = real(t), true
	v, err := Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	if err := v.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	text, err := bufio.NewReader(v.Serial()).ReadString('\n')
	if err != nil || !strings.HasSuffix(text, "OK\n") {
		t.Errorf("serial line: %q, %v", text, err)
	}
	<-v.Done()
	if e := v.Exit(); e.Reason != ReasonReset || !e.ByGuest() || e.Requested {
		t.Errorf("exit: %+v", e)
	}
}

func TestKilledFromOutside(t *testing.T) {
	c := config(t)
	c.Binary = real(t)
	v, err := Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	if err := syscall.Kill(v.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-v.Done()
	if e := v.Exit(); e.Signal != "SIGKILL" || e.ByGuest() || !strings.Contains(e.String(), "from outside") {
		t.Errorf("exit: %+v", e)
	}
}

// Neither a QEMU nor its TPM may outlive their parent, even one that is killed
// with SIGKILL.
func TestDiesWithItsParent(t *testing.T) {
	binary := real(t)
	parent := exec.Command(os.Args[0], "-test.run=^TestParentToBeKilled$")
	parent.Env = append(os.Environ(), "SEATRIAL_TEST_QEMU="+binary, "TMPDIR="+t.TempDir()) // what it leaves goes with ours
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	var qemu, tpm int
	in := bufio.NewScanner(out)
	for in.Scan() {
		if _, err := fmt.Sscanf(in.Text(), "children %d %d", &qemu, &tpm); err == nil {
			break
		}
	}
	if qemu == 0 || tpm == 0 {
		t.Fatal("the parent started no QEMU or no TPM")
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := parent.Wait(); err == nil {
		t.Error("the parent was not killed")
	}
	for _, pid := range []int{qemu, tpm} {
		for deadline := time.Now().Add(10 * time.Second); syscall.Kill(pid, 0) == nil && !zombie(pid); {
			if time.Now().After(deadline) {
				t.Fatalf("process %d of QEMU %d and TPM %d survives its parent", pid, qemu, tpm)
			}
			time.Sleep(10 * time.Millisecond) // nobody tells when a process that is not ours is gone
		}
	}
}

func zombie(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(b), ") Z ")
}

// TestParentToBeKilled is the parent of TestDiesWithItsParent.
func TestParentToBeKilled(t *testing.T) {
	binary := os.Getenv("SEATRIAL_TEST_QEMU")
	if binary == "" {
		return
	}
	c := config(t)
	c.Binary, c.TPM = binary, t.TempDir()
	v, err := Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("children %d %d\n", v.PID(), v.tpm.cmd.Process.Pid)
	<-v.Done() // paused: only the kill ends it
}

func TestProbe(t *testing.T) {
	binary := real(t)
	none, err := Probe(t.Context(), ProbeOptions{Binary: binary, Arch: "amd64", Dir: t.TempDir(), Device: "/nowhere/kvm"})
	if err != nil {
		t.Fatal(err)
	}
	if none.Name != "tcg" || !strings.Contains(none.Why, "/nowhere/kvm") || none.Took <= 0 {
		t.Errorf("without a device: %+v", none)
	}
	mute := fake(t, "exec sleep 100")
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if a, err := Probe(ctx, ProbeOptions{Binary: mute, Arch: "amd64", Dir: t.TempDir()}); err == nil {
		t.Errorf("a mute QEMU was accepted: %+v", a)
	}
}

// KVM that is there and does not work must not be used, nor cost more than its limit.
func TestProbeDistrustsKVM(t *testing.T) {
	binary := real(t)
	for name, script := range map[string]string{
		"hangs":  "exec sleep 100",
		"aborts": "kill -ABRT $$",
	} {
		wrapper := fake(t, "case \"$*\" in *'-accel kvm'*) "+script+";; esac\nexec "+binary+" \"$@\"")
		device := filepath.Join(t.TempDir(), "kvm")
		if err := os.WriteFile(device, nil, 0o666); err != nil {
			t.Fatal(err)
		}
		a, err := Probe(t.Context(), ProbeOptions{Binary: wrapper, Arch: "amd64", Dir: t.TempDir(), Device: device, Limit: 300 * time.Millisecond})
		if err != nil || a.Name != "tcg" || !strings.Contains(a.Why, "does not run under it") {
			t.Errorf("KVM that %s: %+v, %v", name, a, err)
		}
	}
}

package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/digitalocean/go-qemu/qmp"
)

// QEMU takes every fault that a configuration can hold, and every button works.
func TestFaults(t *testing.T) {
	c := counting(t, "amd64")
	for i, e := range []*DiskError{nil, {}, {Write: true, After: 3, Once: true, Errno: syscall.ENOSPC}} {
		path := filepath.Join(t.TempDir(), "di,sk")
		if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		c.Disks = append(c.Disks, Disk{Path: path, Error: e, BytesPerSecond: i << 20, Snapshot: i == 0})
	}
	c.NICs, c.RTC = []NIC{{}}, "2038-01-19T03:14:07"
	v := start(t, c)
	if err := v.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := count(t, v); got != "1" {
		t.Errorf("the digit is %s", got)
	}
	for name, err := range map[string]error{
		"power button": v.PowerButton(t.Context()),
		"Ctrl-Alt-Del": v.CtrlAltDel(t.Context()),
		"link down":    v.Link(t.Context(), 0, false),
		"link up":      v.Link(t.Context(), 0, true),
	} {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := v.Link(t.Context(), 1, false); err == nil {
		t.Error("a card that does not exist has a cable")
	}
	if err := v.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-v.Done()
	if e := v.Exit(); e.Reason != ReasonButton || e.ByGuest() {
		t.Errorf("%+v", e)
	}
	if err := v.Reset(t.Context()); err != nil { // it was what ended the machine
		t.Error(err)
	}
}

// A guest that has no table of interrupts does not survive one.
func TestNMI(t *testing.T) {
	v := start(t, counting(t, "amd64"))
	if err := v.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := count(t, v); got != "1" {
		t.Errorf("the digit is %s", got)
	}
	if err := v.NMI(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-v.Done()
	if e := v.Exit(); e.Reason != ReasonReset {
		t.Errorf("%+v", e)
	}
	if err := v.Reset(t.Context()); err == nil {
		t.Error("the button of a machine that is gone was pressed")
	}
}

func TestFaultArguments(t *testing.T) {
	c := config(t)
	c.Disks = []Disk{{Path: c.Kernel, Error: &DiskError{Write: true, After: 2}}}
	cmd, err := c.Command()
	if err != nil {
		t.Fatal(err)
	}
	args := strings.Join(cmd.Args, " ")
	for _, want := range []string{
		"file.driver=blkdebug,file.image.filename=" + escape(c.Kernel), "file.set-state.0.event=write_aio,file.set-state.0.state=1,file.set-state.0.new_state=2",
		"file.set-state.1.new_state=3", "file.inject-error.0.iotype=write", "file.inject-error.0.state=3,file.inject-error.0.errno=5,file.inject-error.0.once=off", "werror=report",
		zeroless,
	} {
		if !strings.Contains(args, want) {
			t.Errorf("%q is missing in %s", want, args)
		}
	}
	if strings.Contains(args, "-rtc") || strings.Contains(args, "throttling") {
		t.Errorf("what nobody asked for: %s", args)
	}
	c.Disks[0].Error.Write = false
	if cmd, err = c.Command(); err != nil || strings.Contains(strings.Join(cmd.Args, " "), zeroless) {
		t.Errorf("a disk whose reads fail cannot be zeroed: %v, %v", cmd, err)
	}
	for want, change := range map[string]func(){
		"disk 0: an error after 1001": func() { c.Disks[0].Error = &DiskError{After: 1001} },
		"disk 0: -1 bytes a second":   func() { c.Disks[0].Error, c.Disks[0].BytesPerSecond = nil, -1 },
		`"tomorrow"`:                  func() { c.Disks[0].BytesPerSecond, c.RTC = 0, "tomorrow" },
	} {
		change()
		if _, err := c.Command(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
		c.RTC = ""
	}
}

// A disk is pulled and grows while the machine runs. The guest here has no
// driver, so it never lets go of a removable one.
func TestPullAndResize(t *testing.T) {
	c := counting(t, "amd64")
	c.Disks = []Disk{{Path: blank(t, 1<<20)}, {Path: blank(t, 1<<20), Removable: true}, {Path: blank(t, 1<<20), ReadOnly: true}}
	v := start(t, c)
	if err := v.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := v.Resize(t.Context(), 0, 2<<20); err != nil {
		t.Error(err)
	}
	for want, err := range map[string]error{
		"disk 0 has 2097152 bytes; it can get more": v.Resize(t.Context(), 0, 1<<20),
		"a multiple of 512, not 2097153":            v.Resize(t.Context(), 0, 2<<20+1),
		"disk 2 is volatile or read-only":           v.Resize(t.Context(), 2, 2<<20),
		"there is no disk 3; there are 3":           v.Resize(t.Context(), 3, 2<<20),
		"there is no disk -1":                       v.Pull(t.Context(), -1),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	if info, err := os.Stat(c.Disks[0].Path); err != nil || info.Size() != 2<<20 {
		t.Errorf("%v, %v", info, err)
	}
	if err := v.Pull(t.Context(), 0); err != nil {
		t.Error(err)
	}
	if err := v.Pull(t.Context(), 0); err == nil {
		t.Error("a disk was pulled twice")
	}
	if err := v.Resize(t.Context(), 0, 4<<20); err == nil || !strings.Contains(err.Error(), "was pulled") {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), 100*time.Millisecond, errors.New("not soon"))
	defer cancel()
	if err := v.Pull(ctx, 1); err == nil || !strings.Contains(err.Error(), "the guest does not let go of it: not soon") {
		t.Error(err)
	}
	if got := count(t, v); got != "1" {
		t.Errorf("the digit is %s", got)
	}
}

func TestLeaveMemory(t *testing.T) {
	c := counting(t, "amd64")
	v := start(t, c)
	if err := v.LeaveMemory(t.Context(), 64); err == nil || !strings.Contains(err.Error(), "set Balloon") {
		t.Error(err)
	}
	c.Balloon = true
	v = start(t, c)
	for _, mib := range []int{0, c.memory() + 1} {
		if err := v.LeaveMemory(t.Context(), mib); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("cannot be left with %d", mib)) {
			t.Errorf("%d: %v", mib, err)
		}
	}
	for _, mib := range []int{32, c.memory()} {
		if err := v.LeaveMemory(t.Context(), mib); err != nil {
			t.Errorf("%d: %v", mib, err)
		}
	}
}

func TestVsockIsMissed(t *testing.T) {
	for want, c := range map[string]struct {
		cid    uint32
		device string
	}{
		"":                             {3, os.DevNull},
		"no vsock on this host: open ": {3, "/nonesuch"},
		"context id 2 is not a guest":  {2, os.DevNull},
	} {
		var said strings.Builder
		Config{Vsock: c.cid}.checkVsock(c.device, func(format string, args ...any) { said.WriteString(fmt.Errorf(format, args...).Error()) })
		if got := said.String(); (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("%+v: %q, want %q", c, got, want)
		}
	}
}

// QEMU's word that the host has no room for a disk names the disk's file; other
// errors of disks do not.
func TestStoppedByFullHost(t *testing.T) {
	for _, c := range []struct {
		device, action string
		full           bool
		want           string
	}{
		{"disk0", "stop", true, "/first"},
		{"disk1", "stop", true, "a temporary overlay of /second, in " + os.TempDir()},
		{"other", "stop", true, "drive other"},
		{"disk0", "report", true, ""}, // the guest was told
		{"disk0", "stop", false, ""},
	} {
		v := &VM{config: Config{Disks: []Disk{{Path: "/first"}, {Path: "/second", Snapshot: true}}}, qmp: &QMP{}}
		v.qmp.events = []qmp.Event{{Event: "RESUME"}, {Event: "BLOCK_IO_ERROR", Data: map[string]any{"device": c.device, "action": c.action, "nospace": c.full}}}
		if got := v.StoppedByFullHost(); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
}

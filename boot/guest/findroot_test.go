//go:build linux

package guest

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestParseRoot(t *testing.T) {
	for line, want := range map[string]rootWords{
		"root=/dev/vda": {device: "/dev/vda", flags: unix.MS_RDONLY},
		"root=/dev/vda rw rootfstype=squashfs,ext4 rootflags=a": {device: "/dev/vda", fstype: "squashfs,ext4", options: "a"},
		"root=/dev/sr0 root=/dev/vdb rw ro":                     {device: "/dev/vdb", flags: unix.MS_RDONLY},
	} {
		if got, err := parseRoot(strings.Fields(line)); err != nil || got != want {
			t.Errorf("%s: %+v, %v", line, got, err)
		}
	}
	for line, want := range map[string]string{"quiet": "no root=", "root=LABEL=x": "only names of devices", "root=": "no root="} {
		if _, err := parseRoot(strings.Fields(line)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", line, err)
		}
	}
}

func TestOnlyLoader(t *testing.T) {
	dir := t.TempDir()
	if !onlyLoader(dir) {
		t.Error("there is no init in it")
	}
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "sbin"), 0o755), os.Symlink("nowhere", filepath.Join(dir, "sbin/init"))); err != nil {
		t.Fatal(err)
	}
	if onlyLoader(dir) {
		t.Error("an init that leads nowhere is an init: its absence is told later")
	}
}

func TestAwaitDevice(t *testing.T) {
	name := filepath.Join(t.TempDir(), "vda")
	err := awaitDevice(name, 30*time.Millisecond)
	if err == nil || !strings.Contains(err.Error(), "no such device after 30ms") {
		t.Errorf("got %v", err)
	}
	done := make(chan error)
	go func() { done <- awaitDevice(name, time.Minute) }()
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got := disks(filepath.Dir(name)); got != "/dev/vda" {
		t.Errorf("disks %q", got)
	}
	if got := disks(name); got != "none" {
		t.Errorf("disks %q", got)
	}
}

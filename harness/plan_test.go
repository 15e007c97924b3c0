package harness

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seatrial/seatrial/images"
	"github.com/seatrial/seatrial/qemu"
	"github.com/seatrial/seatrial/reports"
)

// The harness must listen where the image speaks, and the agent must have a
// line on which nobody else does.
func TestTerminals(t *testing.T) {
	for _, c := range []struct {
		arch, cmdline, console, agent string
		serial                        qemu.Serial
	}{
		{"amd64", "console=tty0 console=ttyS0", "ttyS0", "ttyS1", qemu.SerialBoard},
		{"amd64", "console=ttyAMA0", "ttyS0", "ttyS1", qemu.SerialBoard},
		{"arm64", "console=tty0 console=ttyAMA0", "ttyAMA0", "ttyS0", qemu.SerialBoard},
		{"arm64", "", "ttyAMA0", "ttyS0", qemu.SerialBoard},
		{"arm64", "console=tty0 console=ttyS0,115200", "ttyS0", "ttyS1", qemu.SerialCard},
		{"arm64", "console=ttyS0 console=tty0", "ttyS0", "ttyS1", qemu.SerialCard},
		{"arm64", "console=tty0 console=ttyS0 console=ttyAMA0", "ttyAMA0", "ttyS1", qemu.SerialSpare},
		{"arm64", "quiet -- console=ttyS0", "ttyAMA0", "ttyS0", qemu.SerialBoard},
	} {
		p := Plan{Image: &images.Image{Cmdline: c.cmdline}}
		console, agent, serial := p.terminals(c.arch)
		if console != c.console || agent != c.agent || serial != c.serial {
			t.Errorf("%s %q: console %s, agent %s, %v", c.arch, c.cmdline, console, agent, serial)
		}
		if line := p.cmdline(c.arch); !strings.Contains(line, "agent="+c.agent) {
			t.Errorf("%s %q: the command line does not name the agent's line %s: %s", c.arch, c.cmdline, c.agent, line)
		}
		if got := strings.Contains(p.cmdline(c.arch), "no_timer_check"); got != (c.arch == "amd64") {
			t.Errorf("%s: no_timer_check %v", c.arch, got)
		}
		if p.NoAgent = true; strings.Contains(p.cmdline(c.arch), "agent=") {
			t.Errorf("an agent without a line: %s", p.cmdline(c.arch))
		}
	}
	// A plan's own command line counts, not the image's.
	p := Plan{Image: &images.Image{Cmdline: "console=ttyAMA0"}, Cmdline: "console=ttyS0"}
	if console, _, _ := p.terminals("arm64"); console != "ttyS0" {
		t.Errorf("the harness listens on %s", console)
	}
}

// A device that the host's QEMU does not have is named before the machine starts.
func TestBootNamesAMissingDevice(t *testing.T) {
	h, im := standIn(t, "linux")
	h.Devices = []string{"vmgenid"}
	stand := h.Binary
	h.Binary = filepath.Join(t.TempDir(), "qemu")
	script := "#!/bin/sh\ncat <<.\nname \"virtio-rng-pci\", bus PCI\nname \"vmgenid\"\n.\n"
	if err := os.WriteFile(h.Binary, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	p := Plan{Name: "m", Image: im, MemoryMiB: 64, Dir: t.TempDir(), Balloon: true}
	_, err := Boot(t.Context(), h, p)
	var f *Failure
	if !errors.As(err, &f) || f.Class != reports.Infra || !strings.Contains(f.Title, "has no device virtio-balloon-pci; ") {
		t.Errorf("%v", err)
	}
	if n := boots(t, h); n != 0 {
		t.Error("it was started")
	}
	p.Balloon = false // what the survey did not know of, and is there now, is no hindrance
	h.Devices, p.Extra = []string{"virtio-rng-pci"}, nil
	if err := h.provides(t.Context(), &qemu.Command{Args: []string{"-device", "vmgenid", ""}}); err != nil {
		t.Error(err)
	}
	h.Binary, h.Devices = stand, []string{"virtio-rng-pci", "vmgenid"}
	m, err := Boot(t.Context(), h, p)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
}

func TestPlanOfUEFIVariables(t *testing.T) {
	h, im := standIn(t, "linux")
	p := Plan{Name: "m", Image: im, Vars: "v"}
	if c, err := p.config(h); err != nil || c.Boot != (qemu.Boot{UEFI: true, Vars: "v"}) {
		t.Errorf("%+v, %v", c.Boot, err)
	}
	p.Media = &images.Media{Image: im, UEFI: true, CD: "cd"}
	if c, err := p.config(h); err != nil || c.Boot != (qemu.Boot{UEFI: true, Vars: "v", CD: "cd"}) {
		t.Errorf("%+v, %v", c.Boot, err)
	}
	p.Media.UEFI = false
	if _, err := p.config(h); err == nil || !strings.Contains(err.Error(), "boots without UEFI") {
		t.Error(err)
	}
}

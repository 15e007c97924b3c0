package harness

import (
	"strings"
	"testing"

	"github.com/seatrial/seatrial/images"
	"github.com/seatrial/seatrial/qemu"
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

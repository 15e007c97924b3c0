package harness

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"slices"
	"time"

	"github.com/seatrial/seatrial/boot"
	"github.com/seatrial/seatrial/harness/console"
	"github.com/seatrial/seatrial/images"
	"github.com/seatrial/seatrial/qemu"
)

// Plan is everything that decides how a machine is booted. It is a value: it
// can be printed, compared and kept as evidence.
type Plan struct {
	Name      string         // of the machine, unique in a run; names its evidence folder
	Image     *images.Image  // what is booted
	Cmdline   string         // kernel command line instead of the image's; empty: the image's
	NoInitrd  bool           // boot the kernel alone
	Hold      boot.Milestone // PID 1 waits before the work for it, one of boot.Holdable, until Machine.Release; empty: it does not
	Media     *images.Media  // boot from it instead of handing kernel and initramfs to QEMU; nil: do that
	CPUs      int            // 0: 1
	MemoryMiB int            // 0: 1024
	Disks     []qemu.Disk    // none by default
	NICs      []qemu.NIC     // none by default; a card without a MAC gets one of its machine's own
	CDs       []string       // ISO images in drives, /dev/sr0 and on, after a CD that is booted from; "": an empty drive. See Machine.ChangeCD
	Channels  []string       // names of virtio-serial ports; see Machine.Channel
	Balloon   bool           // for Machine.LeaveMemory
	TPM       string         // folder of the state of a TPM 2.0, made if missing; empty: no TPM
	Vars      string         // file of UEFI's variables, made if missing: the machine boots by UEFI and keeps them there
	Vsock     uint32         // context id for vsock, 3 or more and nobody else's on this host; 0: no vsock
	RTC       string         // what the hardware clock shows at the start, UTC: "2038-01-19T03:14:07"; empty: the host's time
	Extra     []string       // further QEMU arguments
	Patience  Patience       // zero fields get their defaults
	Expect    []string       // names of fault rules that the spec wants to see; they do not fail a wait
	Rules     []console.Rule // nil: console.Rules()
	Dir       string         // evidence folder, made if missing
	NoAgent   bool           // no line to the agent inside: nothing can be executed
	Echo      io.Writer      // gets every byte of the serial line as it comes; nil: nobody. One that blocks holds the guest up, one that fails gets no more
	Notify    func(Progress) // called for every event; nil: nobody is told. Must not block
}

// defaultMemory is what a machine has if its plan says nothing, in MiB.
const defaultMemory = 1024

// Progress is one step of a machine, for a display.
type Progress struct {
	Machine string         `json:"machine"`
	At      boot.Milestone `json:"at"`
	State   boot.State     `json:"state"`
	Unit    string         `json:"unit,omitempty"`
	Detail  string         `json:"detail,omitempty"`
}

// Patience is how long to wait. Quiet is what normally ends a hopeless wait:
// a machine that makes progress may take long, one that makes none is stuck.
type Patience struct {
	Boot  time.Duration // until Ready in all; 0: 4 minutes
	Quiet time.Duration // without progress; 0: 60 seconds
	Exec  time.Duration // for one command inside; 0: 60 seconds
	Stop  time.Duration // for a clean shutdown; 0: 60 seconds
}

// scaled fills in defaults and multiplies by the host's scale.
func (p Patience) scaled(by float64) Patience {
	set := func(d, def time.Duration) time.Duration {
		if d == 0 {
			d = def
		}
		return time.Duration(float64(d) * max(by, 1))
	}
	return Patience{
		Boot:  set(p.Boot, 4*time.Minute),
		Quiet: set(p.Quiet, time.Minute),
		Exec:  set(p.Exec, time.Minute),
		Stop:  set(p.Stop, time.Minute),
	}
}

// terminals are the names of the line the harness listens on and of the
// agent's, and what carries them.
//
// The harness listens where the image speaks. On arm64 that is ttyAMA0, unless
// the command line names only ttyS0, as one that was written for amd64 does:
// then the machine gets a serial card, which is ttyS0, and the image works as
// it is. (The kernel finds the card later than the board's own line, and then
// prints all it has said before.) A ttyS0 that is a console beside ttyAMA0 must
// not be the agent's line.
func (p Plan) terminals(arch string) (console, agent string, serial qemu.Serial) {
	console = images.SerialLine(arch)
	if arch != "arm64" {
		return console, "ttyS1", qemu.SerialBoard
	}
	consoles := images.ParseCmdline(p.line()).Consoles()
	switch card := slices.Contains(consoles, "ttyS0"); {
	case card && !slices.Contains(consoles, console):
		return "ttyS0", "ttyS1", qemu.SerialCard
	case card:
		return console, "ttyS1", qemu.SerialSpare
	}
	return console, "ttyS0", qemu.SerialBoard
}

// goal is how far a machine of the plan comes by itself.
func (p Plan) goal() boot.Milestone {
	if p.Hold != "" {
		return p.Hold
	}
	return boot.Ready
}

// unholdable says why the plan's hold cannot be; empty: it can, or there is none.
func (p Plan) unholdable() string {
	switch {
	case p.Hold == "":
	case !slices.Contains(boot.Holdable(), p.Hold):
		return fmt.Sprintf("a machine cannot be held before %q; it can before %v", p.Hold, boot.Holdable())
	case p.NoAgent:
		return "without an agent inside nobody could let a held machine go on"
	}
	return ""
}

// line is the command line before the harness adds to it.
func (p Plan) line() string {
	if p.Cmdline != "" {
		return p.Cmdline
	}
	return p.Image.Cmdline
}

// cmdline is the image's own command line with what the harness cannot do
// without. Consoles are never touched: their order is a thing under test.
// panic=-1 makes a panic reset the machine at once, which -no-reboot turns
// into an end of QEMU instead of a machine that hangs
// (Documentation/admin-guide/kernel-parameters.txt, panic=). no_timer_check is
// for hosts that are short of processors: the kernel gives the timer of an
// IO-APIC a few hundredths of a second to tick, which an emulator that does not
// get to run in them fails, and panics ("IO-APIC + timer doesn't work!"). Under
// KVM it sets the word itself (kernel, arch/x86/kernel/kvm.c). noreplace-smp
// leaves the lock prefixes in the code of a machine of one CPU, which is then what
// all others run: to take out thousands, each with a change of page tables, costs
// a fifth of a second and more under emulation, where they themselves cost nothing.
func (p Plan) cmdline(arch string) string {
	words := []string{"panic=-1", boot.DevKmsgWord}
	if arch == "amd64" {
		words = append(words, "no_timer_check", "noreplace-smp")
	}
	if !p.NoAgent {
		_, agent, _ := p.terminals(arch)
		words = append(words, boot.AgentWord+agent)
	}
	if p.Hold != "" {
		words = append(words, boot.HoldWord+string(p.Hold))
	}
	return images.ParseCmdline(p.line()).With(words...).String()
}

// kernel is the file that QEMU is to start. An unpacked kernel's initramfs is laid
// 160 KiB below the end of memory (QEMU's hw/i386/x86.c, acpi_data_size), whatever
// the firmware has put there by then; only a packed kernel's goes below that. The
// log of a TPM brings ACPI's tables down to where they would be overwritten, and
// then the machine has no ACPI at all. What Extra brings there is not known, and
// UEFI starts EFI programs only, which the packed kernel is.
func (p Plan) kernel(memoryMiB int) string {
	if p.TPM != "" || p.Vars != "" || len(p.Extra) > 0 {
		return p.Image.KernelPath
	}
	return p.Image.KernelFor(memoryMiB)
}

// config turns the plan into QEMU's configuration on this host.
func (p Plan) config(h Host) (qemu.Config, error) {
	if p.Image == nil {
		return qemu.Config{}, fmt.Errorf("machine %s: no image to boot", p.Name)
	}
	if p.Image.Arch != h.Arch {
		return qemu.Config{}, fmt.Errorf("machine %s: image %s is for %s, the host was surveyed for %s",
			p.Name, p.Image.Name, p.Image.Arch, h.Arch)
	}
	if why := p.unholdable(); why != "" {
		return qemu.Config{}, fmt.Errorf("machine %s: %s", p.Name, why)
	}
	_, _, serial := p.terminals(h.Arch)
	memory := cmp.Or(p.MemoryMiB, defaultMemory)
	c := qemu.Config{
		Name: p.Name, Serial: serial, Binary: h.Binary, Arch: h.Arch, Accel: h.Accel.Name, CPU: h.Accel.CPU,
		CPUs: max(p.CPUs, 1), MemoryMiB: memory,
		Kernel: p.kernel(memory), Initrd: p.Image.InitrdPath, Cmdline: p.cmdline(h.Arch),
		Disks: p.Disks, NICs: p.nics(), CDs: p.CDs, Channels: p.Channels, Balloon: p.Balloon, TPM: p.TPM, Vsock: p.Vsock, RTC: p.RTC, Agent: !p.NoAgent, Dir: p.Dir, Extra: p.Extra,
	}
	if p.NoInitrd {
		c.Initrd = ""
	}
	if p.Vars != "" {
		c.Boot = qemu.Boot{UEFI: true, Vars: p.Vars}
	}
	if p.Media != nil {
		if p.Vars != "" && !p.Media.UEFI {
			return qemu.Config{}, fmt.Errorf("machine %s: UEFI variables are to be kept, but the medium %s boots without UEFI", p.Name, p.Media.Format)
		}
		if p.Media.Image.Digest != p.Image.Digest {
			return qemu.Config{}, fmt.Errorf("machine %s: the medium %s is of another image", p.Name, p.Media.Format)
		}
		p.insert(&c)
	}
	return c, nil
}

// KernelCmdline is what a kernel of the plan is told on a machine of arch. A
// medium with a boot loader must be made with it: nothing can be added later.
func (p Plan) KernelCmdline(arch string) string { return p.cmdline(arch) }

// insert puts the plan's medium into a configuration. What the machine writes
// on it is forgotten.
func (p Plan) insert(c *qemu.Config) {
	m := p.Media
	line := images.ParseCmdline(c.Cmdline).With(m.Words...).String()
	c.Kernel, c.Initrd, c.Cmdline = m.Kernel, m.Initrd, ""
	if m.Kernel != "" {
		c.Cmdline = line
	}
	c.Boot = qemu.Boot{UEFI: m.UEFI, Vars: p.Vars, CD: m.CD, TFTP: m.TFTP, Bootfile: m.Bootfile}
	if m.Disk != "" {
		c.Disks = append([]qemu.Disk{{Path: m.Disk, Format: m.DiskFormat, Serial: "medium", Snapshot: true}}, c.Disks...)
	}
}

// nics are the plan's network cards, with the addresses that it leaves open.
func (p Plan) nics() []qemu.NIC {
	nics := slices.Clone(p.NICs)
	for i := range nics {
		if nics[i].MAC == "" {
			nics[i].MAC = p.mac(i)
		}
	}
	return nics
}

// alone are network cards that are on no network with other machines.
func alone(nics []qemu.NIC) []qemu.NIC {
	nics = slices.Clone(nics)
	for i := range nics {
		if nics[i].Network != nil {
			nics[i].Network = &qemu.Network{}
		}
	}
	return nics
}

// mac is an address made from the machine's name, so that a boot that is
// repeated has the same: locally administered, with the prefix that QEMU uses.
func (p Plan) mac(nic int) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", p.Name, nic))
	return net.HardwareAddr{0x52, 0x54, 0, sum[0], sum[1], sum[2]}.String()
}

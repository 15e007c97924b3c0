package qemu

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// Config is everything that decides QEMU's command line.
type Config struct {
	Name      string        // of the machine, shown by QEMU; may be empty
	Binary    string        // path of qemu-system-*
	Arch      string        // of the guest: "amd64" or "arm64"
	Accel     string        // "tcg" or "kvm"; empty: "tcg"
	CPU       string        // CPU model; empty: DefaultCPU
	CPUs      int           // 0: 1
	MemoryMiB int           // 0: 1024; at least 64
	Kernel    string        // path of the kernel; empty: the firmware boots from Boot or the first disk
	Initrd    string        // path of the initramfs; empty: none
	Cmdline   string        // kernel command line
	Boot      Boot          // firmware, CD and network to boot from
	Disks     []Disk        // virtio block devices, in order
	NICs      []NIC         // virtio network cards, in order
	CDs       []string      // ISO images in drives /dev/sr0 and on; "": an empty drive. See VM.ChangeCD
	Channels  []string      // names of virtio-serial ports; see VM.Channel
	Balloon   bool          // a balloon, by which VM.LeaveMemory takes memory away and gives it back
	TPM       string        // folder of the state of a TPM 2.0, made if missing; empty: no TPM
	Vsock     uint32        // context id for vsock, 3 or more and nobody else's on this host; 0: no vsock
	RTC       string        // what the hardware clock shows at the start, UTC: "2038-01-19T03:14:07"; empty: the host's time
	Agent     bool          // a second UART, for the agent
	Serial    Serial        // of arm64: what the serial line is
	RAM       RAM           // where the guest's memory lies; zero: nowhere in particular
	Incoming  bool          // do not start, wait for the state of a saved machine: see VM.Load
	Dir       string        // for qemu.stderr and qmp.jsonl; empty: they are not kept
	Extra     []string      // further arguments, passed as they are
	Grace     time.Duration // for QEMU to obey, before the next rung of VM.Quit's ladder; 0: 3 s
}

// Serial says what carries the serial line of an arm64 machine. The virt board
// has one UART; every other serial line is a PCI card. On amd64 it has no
// meaning: that board has both UARTs.
type Serial int

// The serial lines of arm64, by the names that Linux gives them.
const (
	SerialBoard Serial = iota // the board's UART, ttyAMA0; the agent's is ttyS0
	SerialCard                // a card, ttyS0; the agent's is ttyS1
	SerialSpare               // the board's UART, ttyAMA0; ttyS0 leads nowhere, the agent's is ttyS1
)

// Disk is a virtio block device.
type Disk struct {
	Path           string // of the file
	Format         string // "raw" or "qcow2"; empty: "raw". Never probed: a guest could forge a header
	Serial         string // shown in the guest as /sys/block/*/serial; may be empty
	ReadOnly       bool
	Error          *DiskError // a fault; nil: none
	BytesPerSecond int        // at most, reads and writes together; 0: as fast as it is
	Removable      bool       // in a slot of its own, so that the guest notices when VM.Pull takes it away
	Volatile       bool       // has a cache of what was not flushed, which VM.PowerCut loses; raw disks only
	Snapshot       bool       // writes go to a temporary overlay, unlinked as soon as QEMU has opened it
}

// Source is the disk's file as it stands in a command line.
func (d Disk) Source() string { return "file=" + escape(d.Path) }

// RAM is a file that holds the guest's memory. The machine that fills it maps
// it as it is; machines that continue from it map it privately, so that each
// sees the same memory and none another's writes.
type RAM struct {
	File    string // made if it is not there; empty: anonymous memory
	Private bool   // copy on write: the file is only read
}

func (r RAM) object(mib int) string {
	size := strconv.Itoa(mib) + "M"
	if r.File == "" {
		return "memory-backend-ram,id=ram,size=" + size
	}
	share := "on"
	if r.Private {
		share = "off"
	}
	return "memory-backend-file,id=ram,size=" + size + ",share=" + share + ",mem-path=" + escape(r.File)
}

// DefaultCPU is the CPU model when none is given: under KVM the host's own. An
// emulated processor pays for what it can do. For amd64 it is the smallest
// that has x86-64-v2 (the psABI's level that distributions build for); "max"
// adds five-level page tables and wide registers to save, and boots more
// slowly ("seatrial bench boot" measures it). For arm64 "max" costs three
// times the time of a cortex-a57, for its pointer authentication.
func DefaultCPU(arch, accel string) string {
	switch {
	case accel == "kvm":
		return "host"
	case arch == "arm64":
		return "cortex-a57"
	}
	return "qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt"
}

// Command is a QEMU command line whose descriptors and terminals are not known
// yet.
type Command struct {
	Binary string
	Args   []string

	inherits []inherited // descriptors of networks and disks, in order
}

// inherited is a descriptor that QEMU gets from its parent.
type inherited struct {
	placeholder string // of its number
	option      string // that it stands in
	byHand      string // what stands in for the option where there is no such parent
}

// Placeholders for what is only known once the machine is started.
const (
	phMonitor = "@monitor@" // descriptor number of the monitor's socket
	phSerial  = "@serial@"  // path of the serial line's terminal
	phAgent   = "@agent@"   // path of the agent line's terminal
)

// Command makes the command line. It looks at nothing but the configuration
// and whether the files it names can be read; the error lists every problem.
func (c Config) Command() (*Command, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	accel, cpu := c.Accel, c.CPU
	if accel == "" {
		accel = "tcg"
	}
	if cpu == "" {
		cpu = DefaultCPU(c.Arch, accel)
	}
	args := []string{
		"-name", "guest=" + escape(nonEmpty(c.Name, "seatrial")),
		"-nodefaults", "-no-user-config", "-display", "none",
		// QEMU parses bytes that a guest made: it may not start programs, gain
		// rights or use system calls that it does not need.
		"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
		// The memory has the same name whatever it lies in, so that a saved
		// machine finds it again.
		"-object", c.RAM.object(c.memory()),
		"-machine", machine(c.Arch) + ",memory-backend=ram", "-accel", accel, "-cpu", cpu,
		"-smp", strconv.Itoa(max(c.CPUs, 1)), "-m", strconv.Itoa(c.memory()),
		// A reset ends the machine: a panic loop must not run for ever.
		"-no-reboot",
		// Without a source of entropy early crypto in the guest waits.
		"-device", "virtio-rng-pci",
		"-S",
	}
	if c.Arch == "amd64" {
		// Tells the guest's kernel that it is a copy, as soon as it runs.
		args = append(args, "-device", "vmgenid,guid=auto")
	}
	if c.Incoming {
		args = append(args, "-incoming", "defer")
	}
	args = append(args,
		"-chardev", "socket,id=monitor,fd="+phMonitor, "-mon", "chardev=monitor,mode=control")
	args = append(args, c.lines()...)
	boot, err := c.Boot.args(c.Arch)
	if err != nil {
		return nil, err
	}
	args = append(args, boot...)
	if c.Kernel != "" {
		args = append(args, "-kernel", c.Kernel)
	}
	if c.Initrd != "" {
		args = append(args, "-initrd", c.Initrd)
	}
	if c.Cmdline != "" {
		args = append(args, "-append", c.Cmdline)
	}
	var inherits []inherited
	for i, d := range c.Disks {
		args = append(args, d.args(i)...)
		if d.Volatile {
			inherits = append(inherits, d.inherit(i))
		}
	}
	args = append(args, c.cdArgs()...)
	for i, n := range c.NICs {
		args = append(args, n.args(i)...)
		if n.Network != nil {
			inherits = append(inherits, n.inherit(i))
		}
	}
	if c.Balloon {
		args = append(args, "-device", "virtio-balloon-pci")
	}
	if c.TPM != "" {
		args = append(args, tpmArgs(c.Arch)...)
		inherits = append(inherits, tpmChannel)
	}
	channels, far := c.channelArgs()
	args, inherits = append(args, channels...), append(inherits, far...)
	if c.Vsock != 0 {
		args = append(args, "-device", fmt.Sprintf("vhost-vsock-pci,guest-cid=%d", c.Vsock))
	}
	if c.RTC != "" {
		args = append(args, "-rtc", "base="+c.RTC)
	}
	return &Command{Binary: c.Binary, Args: append(args, c.Extra...), inherits: inherits}, nil
}

// lines are the serial lines. Linux numbers cards in the order of their slots.
func (c Config) lines() []string {
	args := []string{"-chardev", "serial,id=serial,path=" + phSerial}
	card := func(chardev string) []string { return []string{"-device", "pci-serial,chardev=" + chardev} }
	switch {
	case c.Arch == "arm64" && c.Serial == SerialCard:
		args = append(args, card("serial")...)
	case c.Arch == "arm64" && c.Serial == SerialSpare:
		args = append(args, "-serial", "chardev:serial", "-chardev", "null,id=spare")
		args = append(args, card("spare")...)
	default:
		args = append(args, "-serial", "chardev:serial")
	}
	if !c.Agent {
		return args
	}
	args = append(args, "-chardev", "serial,id=agent,path="+phAgent)
	if c.Arch == "arm64" {
		return append(args, card("agent")...)
	}
	return append(args, "-serial", "chardev:agent")
}

func machine(arch string) string {
	if arch == "arm64" {
		return "virt"
	}
	return "q35"
}

func (d Disk) args(i int) []string {
	drive := fmt.Sprintf("if=none,id=%s,%s,format=%s", diskID(i), d.file(i), nonEmpty(d.Format, "raw")) + d.throttle()
	if d.ReadOnly {
		drive += ",readonly=on"
	}
	if d.Snapshot {
		drive += ",snapshot=on"
	}
	args := []string{"-drive", drive}
	device := fmt.Sprintf("virtio-blk-pci,drive=%s", diskID(i))
	if d.Removable {
		// What is on the board's own bus cannot be taken away.
		args = append(args, "-device", fmt.Sprintf("pcie-root-port,id=slot%d,chassis=%d", i, i+1))
		device += fmt.Sprintf(",bus=slot%d,id=%s", i, removableID(i))
	}
	if d.Error != nil {
		device += countless
		if d.Error.Write {
			device += zeroless
		}
	}
	if d.Serial != "" {
		device += ",serial=" + escape(d.Serial)
	}
	return append(args, "-device", device)
}

func diskID(i int) string { return "disk" + strconv.Itoa(i) }

func removableID(i int) string { return "removable" + strconv.Itoa(i) }

// escape doubles commas, which separate QEMU's option fields.
func escape(s string) string { return strings.ReplaceAll(s, ",", ",,") }

func nonEmpty(s, def string) string {
	if s == "" {
		return def
	}
	return s
}

func (c Config) memory() int {
	if c.MemoryMiB == 0 {
		return 1024
	}
	return c.MemoryMiB
}

// check lists every problem of the configuration.
func (c Config) check() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("qemu: "+format, args...)) }
	if c.Binary == "" {
		bad("no QEMU binary given; find one with qemu.Find")
	}
	if c.Arch != "amd64" && c.Arch != "arm64" {
		bad("unknown architecture %q; known are amd64 and arm64", c.Arch)
	}
	if c.memory() < 64 {
		bad("%d MiB of memory; a Linux guest needs 64 or more", c.MemoryMiB)
	}
	if strings.ContainsAny(c.Cmdline, "\n\x00") {
		bad("the kernel command line holds a line break")
	}
	readable := func(what, path string) {
		if err := readableFile(path); err != nil {
			bad("%s: %w", what, err)
		}
	}
	if c.Kernel != "" {
		readable("kernel", c.Kernel)
	}
	c.checkBoot(bad)
	c.checkTPM(bad)
	c.checkCDs(bad)
	c.checkChannels(bad)
	c.checkVsock(vhostVsock, bad)
	if c.Initrd != "" {
		readable("initramfs", c.Initrd)
	}
	for i, d := range c.Disks {
		readable(fmt.Sprintf("disk %d", i), d.Path)
		if d.Format != "" && d.Format != "raw" && d.Format != "qcow2" {
			bad("disk %d: unknown format %q; known are raw and qcow2", i, d.Format)
		}
	}
	for i, d := range c.Disks {
		if d.Error != nil && d.Error.problem() != "" {
			bad("disk %d: %s", i, d.Error.problem())
		}
		if problem := d.problemOfVolatile(); problem != "" {
			bad("disk %d: %s", i, problem)
		}
		if d.BytesPerSecond < 0 {
			bad("disk %d: %d bytes a second", i, d.BytesPerSecond)
		}
	}
	if _, err := time.Parse("2006-01-02T15:04:05", c.RTC); c.RTC != "" && err != nil {
		bad("hardware clock %q; write a time as 2038-01-19T03:14:07", c.RTC)
	}
	for i, n := range c.NICs {
		if problem := n.problem(); problem != "" {
			bad("network card %d: %s", i, problem)
		}
	}
	return errors.Join(errs...)
}

// vhostVsock is the host's end of vsock.
const vhostVsock = "/dev/vhost-vsock"

func (c Config) checkVsock(device string, bad func(format string, args ...any)) {
	if c.Vsock == 0 {
		return
	}
	if c.Vsock < 3 || c.Vsock == 1<<32-1 { // VMADDR_CID_HYPERVISOR to _HOST, and _ANY (include/uapi/linux/vm_sockets.h)
		bad("vsock context id %d is not a guest's; give 3 or more", c.Vsock)
	}
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		bad("no vsock on this host: %w; it needs the kernel's module vhost_vsock, and the right to write to the device", err)
	}
}

// argv fills in what was not known before: paths, and the numbers of the
// descriptors, of which the first is the monitor's.
func (c Command) argv(firstFD int, serial, agent string) []string {
	known := []string{phMonitor, strconv.Itoa(firstFD), phSerial, serial, phAgent, agent}
	for i, h := range c.inherits {
		known = append(known, h.placeholder, strconv.Itoa(firstFD+1+i))
	}
	fill := strings.NewReplacer(known...)
	out := make([]string, len(c.Args))
	for i, a := range c.Args {
		out[i] = fill.Replace(a)
	}
	return out
}

// String is a line to paste into a shell: the same machine, not paused, with
// its serial line on the terminal and neither monitor nor agent. Its cards on
// networks of machines and its channels lead nowhere, its volatile disks lose
// nothing, and it has no TPM.
func (c Command) String() string {
	words := []string{quote(c.Binary)}
	var pairs []string
	for _, h := range c.inherits {
		pairs = append(pairs, h.option, h.byHand)
	}
	byHand := strings.NewReplacer(pairs...)
	for i := 0; i < len(c.Args); i++ {
		next := ""
		if i+1 < len(c.Args) {
			next = c.Args[i+1]
		}
		switch {
		case c.Args[i] == "-S":
		case strings.Contains(next, phMonitor), next == "chardev=monitor,mode=control":
			i++
		case strings.Contains(next, phSerial):
			words, i = append(words, "-chardev", "stdio,id=serial,signal=off"), i+1
		case c.Args[i] == "-tpmdev", next == tpmChannel.option, strings.HasSuffix(next, ",tpmdev=tpm"):
			i++ // nobody plays it
		case strings.Contains(next, phAgent):
			words, i = append(words, "-chardev", "null,id=agent"), i+1
		default:
			words = append(words, quote(byHand.Replace(c.Args[i])))
		}
	}
	return strings.Join(words, " ")
}

// quote makes one shell word of s.
func quote(s string) string {
	safe := func(r rune) bool {
		return strings.ContainsRune("-_=./,:@%+", r) || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !safe(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

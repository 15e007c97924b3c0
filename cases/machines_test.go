package cases

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/seatrial/seatrial/harness"
	"github.com/seatrial/seatrial/harness/suite"
	"github.com/seatrial/seatrial/images"
	"github.com/seatrial/seatrial/qemu"
	"github.com/seatrial/seatrial/reports"
)

// withTools puts busybox into the machine's root: its programs are run by name.
func withTools(s *images.Spec) { s.Init = append(s.Init, "seatrial/busybox") }

// on gives a machine a card on the network.
func on(lan *qemu.Network) suite.Tweak {
	return func(p *harness.Plan) { p.NICs = append(p.NICs, qemu.NIC{Network: lan}) }
}

// address gives the machine's first card an address of 10.1.0.0/24.
func address(ctx SpecContext, vm *harness.Machine, host int) {
	GinkgoHelper()
	run(ctx, vm, "ip", "addr", "add", fmt.Sprintf("10.1.0.%d/24", host), "dev", "eth0")
	run(ctx, vm, "ip", "link", "set", "eth0", "up")
}

// fetch asks the service of a host of 10.1.0.0/24 for its page, and returns the
// answer; empty: there was none within two seconds.
func fetch(ctx SpecContext, from *harness.Machine, host int) string {
	GinkgoHelper()
	r, err := from.ExecInput(ctx, "GET / HTTP/1.0\r\n\r\n", "nc", "-w", "2", fmt.Sprintf("10.1.0.%d", host), "80")
	Expect(err).NotTo(HaveOccurred())
	Expect(r.Signal).To(BeEmpty(), r.String())
	return r.Stdout
}

// ping asks a host of 10.1.0.0/24 so often, five times a second, and returns
// how many answers came, and the shortest time one took.
func ping(ctx SpecContext, vm *harness.Machine, count, host int) (answers int, shortest time.Duration) {
	GinkgoHelper()
	r, err := vm.Exec(ctx, "ping", "-i", "0.2", "-W", "2", "-c", strconv.Itoa(count), fmt.Sprintf("10.1.0.%d", host))
	Expect(err).NotTo(HaveOccurred())
	m := regexp.MustCompile(`(\d+) packets received`).FindStringSubmatch(r.Stdout)
	Expect(m).NotTo(BeNil(), r.String())
	answers, err = strconv.Atoi(m[1])
	Expect(err).NotTo(HaveOccurred())
	if m := regexp.MustCompile(`min/avg/max = ([\d.]+)/`).FindStringSubmatch(r.Stdout); m != nil {
		ms, err := strconv.ParseFloat(m[1], 64)
		Expect(err).NotTo(HaveOccurred())
		shortest = time.Duration(ms * float64(time.Millisecond))
	}
	return answers, shortest
}

// volatile attaches a disk that loses in a power cut what was not flushed.
func volatile(path string) suite.Tweak {
	return func(p *harness.Plan) { p.Disks = append(p.Disks, qemu.Disk{Path: path, Volatile: true}) }
}

// sector returns the first byte of a sector of 4 KiB of a disk's file.
func sector(path string, n int64) string {
	GinkgoHelper()
	f, err := os.Open(path)
	Expect(err).NotTo(HaveOccurred())
	defer f.Close()
	b := make([]byte, 1)
	_, err = f.ReadAt(b, n*4096)
	Expect(err).NotTo(HaveOccurred())
	return string(b)
}

// QEMU lays the initramfs of a kernel that it enters directly where the firmware's
// tables may be: see "How a kernel is entered" in docs/machines.md.
var _ = Describe("a machine with many disks", Label("devices"), func() {
	It("finds each of them, and the tables of its firmware", func(ctx SpecContext) {
		var disks []string
		for range 8 {
			disks = append(disks, blankDisk())
		}
		vm := trial.Fork(ctx, build(ctx, "small.yml", withTools), withDisks(disks...))
		Expect(run(ctx, vm, "@ls", "/sys/block")).To(ContainSubstring("vdh\n"))
		refused(ctx, vm, "@stat", "/dev/vdi")
		table := []string{"@stat", "/sys/firmware/acpi/tables/FACP"}
		if trial.Arch() == "amd64" {
			run(ctx, vm, table...)
		} else {
			refused(ctx, vm, table...) // that board's kernel is given a device tree
		}
		off(ctx, vm)
	}, SpecTimeout(5*time.Minute))
})

var _ = Describe("a disk, while the machine runs,", Label("devices"), func() {
	It("is pulled: its requests fail, and one that is removable is gone", func(ctx SpecContext) {
		vm := trial.Fork(ctx, build(ctx, "small.yml", withTools), withDisks(blankDisk()), func(p *harness.Plan) {
			p.Disks = append(p.Disks, qemu.Disk{Path: blankDisk(), Removable: true}, qemu.Disk{Path: blankDisk()})
		})
		read := func(disk string) []string {
			return []string{"dd", "if=/dev/" + disk, "of=/dev/null", "bs=4096", "count=1", "iflag=direct"}
		}
		for _, disk := range []string{"vda", "vdb", "vdc"} {
			run(ctx, vm, read(disk)...)
		}
		Expect(vm.Pull(ctx, 0)).To(Succeed())
		Expect(refused(ctx, vm, read("vda")...)).To(ContainSubstring("Input/output error"))
		Eventually(ctx, vm).Should(suite.Print(`I/O error, dev vda, sector 0`))
		Expect(run(ctx, vm, "@ls", "/sys/block")).To(ContainSubstring("vda\n")) // it only fails

		// Linux finds what is in a slot after what is on the board.
		Expect(vm.Pull(ctx, 1)).To(Succeed())
		Eventually(ctx, func() string { return run(ctx, vm, "@ls", "/sys/block") }).WithTimeout(time.Minute).ShouldNot(ContainSubstring("vdc"))
		Expect(refused(ctx, vm, read("vdc")...)).To(ContainSubstring("No such file"))

		run(ctx, vm, read("vdb")...) // it was left alone
		Expect(vm.Pull(ctx, 3)).To(MatchError(ContainSubstring("there is no disk 3")))
	}, SpecTimeout(5*time.Minute))

	It("grows, and does not shrink", func(ctx SpecContext) {
		path := blankDisk() // of 64 MiB
		vm := trial.Fork(ctx, build(ctx, "small.yml", withTools), withDisks(path))
		sectors := func() string { return run(ctx, vm, "@cat", "/sys/block/vda/size") }
		Expect(sectors()).To(Equal("131072\n"))
		Expect(vm.Resize(ctx, 0, 96<<20)).To(Succeed())
		Eventually(ctx, sectors).Should(Equal("196608\n"))
		Eventually(ctx, vm).Should(suite.Print(`\[vda\] new size: 196608 512-byte logical blocks`))
		Expect(vm.Resize(ctx, 0, 32<<20)).To(MatchError(ContainSubstring("it can get more")))
		Expect(sectors()).To(Equal("196608\n"))
		info, err := os.Stat(path)
		Expect(err).NotTo(HaveOccurred())
		Expect(info.Size()).To(BeEquivalentTo(64 << 20)) // a fork has a copy
	}, SpecTimeout(5*time.Minute))
})

var _ = Describe("a disk that is worse than others", Label("devices"), func() {
	const direct = "oflag=direct"
	write := func(disk string, blocks int) []string {
		return []string{"dd", "if=/dev/zero", "of=/dev/" + disk, "bs=64k", "count=" + strconv.Itoa(blocks), direct}
	}

	It("takes the time it takes", func(ctx SpecContext) {
		vm := trial.Fork(ctx, build(ctx, "small.yml", withTools), withDisks(blankDisk()), func(p *harness.Plan) {
			p.Disks = append(p.Disks, qemu.Disk{Path: blankDisk(), BytesPerSecond: 256 << 10})
		})
		took := func(argv []string) time.Duration {
			r, err := vm.Exec(ctx, argv...)
			Expect(err).NotTo(HaveOccurred())
			Expect(r.Exit).To(BeZero(), r.String())
			return r.Took
		}
		// A throttle lets a tenth of a second's worth through at once.
		slow := took(write("vdb", 16)) // 1 MiB, at a quarter of it a second
		Expect(slow).To(BeNumerically(">", 3*time.Second))
		Expect(took(write("vda", 16))).To(BeNumerically("<", slow/2))
	}, SpecTimeout(5*time.Minute))

	It("fails at the read that it is told to, once, and is sound before and after", func(ctx SpecContext) {
		const good = 30
		image := build(ctx, "small.yml", withTools, func(s *images.Spec) { s.Kernel.Cmdline += " edd=off" })
		vm := trial.BootReady(ctx, image, withDisk(&qemu.DiskError{After: good, Once: true}))
		read := []string{"dd", "if=/dev/vda", "of=/dev/null", "bs=4k", "count=1", "iflag=direct"}
		// The kernel has looked for partitions already, and counts its requests.
		seen, err := strconv.Atoi(strings.Fields(run(ctx, vm, "@cat", "/sys/block/vda/stat"))[0])
		Expect(err).NotTo(HaveOccurred())
		Expect(seen).To(And(BeNumerically(">", 0), BeNumerically("<", good)))
		for range good - seen {
			run(ctx, vm, read...)
		}
		Expect(vm).NotTo(suite.Print(`error, dev vda`))
		Expect(refused(ctx, vm, read...)).To(ContainSubstring("error"))
		Eventually(ctx, vm).Should(suite.Print(`I/O error, dev vda, sector 0 op 0x0:\(READ\)`))
		run(ctx, vm, read...)
		run(ctx, vm, write("vda", 1)...)
		Expect(count(vm, `I/O error, dev vda`)).To(Equal(1))
	}, SpecTimeout(5*time.Minute))

	It("is full, and can still be read", func(ctx SpecContext) {
		vm := trial.BootReady(ctx, build(ctx, "small.yml", withTools), withDisk(&qemu.DiskError{Write: true, After: 2, Errno: syscall.ENOSPC}))
		run(ctx, vm, write("vda", 2)...)
		Expect(refused(ctx, vm, write("vda", 1)...)).To(ContainSubstring("error"))
		Eventually(ctx, vm).Should(suite.Print(`error, dev vda, sector 0 op 0x1:\(WRITE\)`))
		Expect(refused(ctx, vm, write("vda", 1)...)).To(ContainSubstring("error"))
		run(ctx, vm, "dd", "if=/dev/vda", "of=/dev/null", "bs=64k", "count=2", "iflag=direct")
	}, SpecTimeout(5*time.Minute))
})

var _ = Describe("a power cut", Label("devices"), func() {
	It("leaves what was flushed, and of what only reached the disk's cache as much as it is told to", func(ctx SpecContext) {
		im := build(ctx, "small.yml", withTools)
		for lost, want := range map[float64]string{1: "\x00", 0: "b"} {
			disk := blankDisk()
			vm := trial.BootReady(ctx, im, volatile(disk))
			for name, text := range map[string]string{"/run/a": "a", "/run/b": "b"} {
				run(ctx, vm, "@append", name, strings.Repeat(text, 4096))
			}
			run(ctx, vm, "dd", "if=/run/a", "of=/dev/vda", "bs=4096", "count=1", "conv=fsync")
			run(ctx, vm, "dd", "if=/run/b", "of=/dev/vda", "bs=4096", "count=1", "seek=9", "oflag=direct") // to the disk, unflushed
			Expect(sector(disk, 9)).To(Equal("b"))
			loss, err := vm.PowerCut(lost, 1)
			Expect(err).NotTo(HaveOccurred())
			Expect(loss).To(Equal(qemu.Loss{Unflushed: 1, Lost: int(lost)}))
			_, err = vm.AwaitLine(ctx, never)
			Expect(err).To(suite.BeVerdict(reports.Infra, `^the power was cut$`))
			Expect(sector(disk, 0)).To(Equal("a"))
			Expect(sector(disk, 9)).To(Equal(want))
		}
	}, SpecTimeout(5*time.Minute))

	It("spares the files that were synced, and none that was only written", func(ctx SpecContext) {
		disk, im := blankDisk(), build(ctx, "disk.yml", withTools)
		vm := trial.BootReady(ctx, im, volatile(disk))
		run(ctx, vm, "@append", "/run/text", "text")
		run(ctx, vm, "dd", "if=/run/text", "of=/var/lib/state/synced", "conv=fsync")
		run(ctx, vm, "dd", "if=/run/text", "of=/var/lib/state/written")
		Expect(run(ctx, vm, "@cat", "/var/lib/state/written")).To(Equal("text"))
		_, err := vm.PowerCut(1, 1)
		Expect(err).NotTo(HaveOccurred())
		Expect(vm.Close()).To(Succeed())

		vm = trial.BootReady(ctx, im, withDisks(disk))
		Expect(vm).To(suite.Print(`EXT4-fs \(vda\): recovery complete`))
		Expect(run(ctx, vm, "@cat", "/var/lib/state/synced")).To(Equal("text"))
		Expect(run(ctx, vm, "@ls", "/var/lib/state")).NotTo(ContainSubstring("written"))

		// A machine whose disks would lose nothing has no power to cut.
		_, err = vm.PowerCut(1, 1)
		Expect(err).To(MatchError(ContainSubstring("disk 0 would lose nothing")))
		Expect(vm.Alive()).To(BeTrue())
	}, SpecTimeout(5*time.Minute))
})

var _ = Describe("machines on one network", Label("devices"), func() {
	It("see each other, not across a partition, and again when it is healed", func(ctx SpecContext) {
		lan, im := &qemu.Network{}, build(ctx, "small.yml", withTools)
		var vms []*harness.Machine
		for i := range 3 {
			vms = append(vms, trial.Fork(ctx, im, on(lan)))
			Expect(vms[i].Report().Fork.How).To(Equal("ram"))
			address(ctx, vms[i], i+1)
		}
		a, b, c := vms[0], vms[1], vms[2]
		stranger := trial.Fork(ctx, im, on(&qemu.Network{}))
		address(ctx, stranger, 4)
		Expect(fetch(ctx, a, 2)).To(HaveSuffix("seatrial web\n"))
		Expect(fetch(ctx, b, 1)).To(HaveSuffix("seatrial web\n"))
		Expect(fetch(ctx, a, 4)).To(BeEmpty()) // it is on another network
		Expect(fetch(ctx, stranger, 1)).To(BeEmpty())

		Expect(lan.Partition([]string{a.Name()}, []string{b.Name(), c.Name()})).To(Succeed())
		Expect(fetch(ctx, a, 2)).To(BeEmpty())
		Expect(fetch(ctx, b, 1)).To(BeEmpty())
		Expect(fetch(ctx, b, 3)).To(HaveSuffix("seatrial web\n"))
		Expect(lan.Partition([]string{stranger.Name()})).NotTo(Succeed())

		lan.Heal()
		Expect(fetch(ctx, a, 2)).To(HaveSuffix("seatrial web\n"))
		Expect(fetch(ctx, b, 1)).To(HaveSuffix("seatrial web\n"))
	}, SpecTimeout(10*time.Minute))

	It("notice loss and delay, and that they are over", func(ctx SpecContext) {
		lan, im := &qemu.Network{}, build(ctx, "small.yml", withTools)
		a, b := trial.Fork(ctx, im, on(lan)), trial.Fork(ctx, im, on(lan))
		address(ctx, a, 1)
		address(ctx, b, 2)
		answers, shortest := ping(ctx, a, 5, 2)
		Expect(answers).To(Equal(5))
		Expect(shortest).To(BeNumerically("<", 300*time.Millisecond))

		Expect(lan.Delay(150 * time.Millisecond)).To(Succeed()) // each way
		answers, shortest = ping(ctx, a, 5, 2)
		Expect(answers).To(Equal(5))
		Expect(shortest).To(BeNumerically(">=", 300*time.Millisecond))
		Expect(lan.Delay(0)).To(Succeed())

		Expect(lan.Lose(0.5, 1)).To(Succeed())
		answers, _ = ping(ctx, a, 40, 2)
		Expect(answers).To(And(BeNumerically(">", 0), BeNumerically("<", 30))) // a quarter comes back
		Expect(lan.Lose(1, 1)).To(Succeed())
		answers, _ = ping(ctx, a, 2, 2)
		Expect(answers).To(BeZero())

		Expect(lan.Lose(0, 0)).To(Succeed())
		answers, shortest = ping(ctx, a, 5, 2)
		Expect(answers).To(Equal(5))
		Expect(shortest).To(BeNumerically("<", 300*time.Millisecond))
	}, SpecTimeout(10*time.Minute))
})

// resets is how often the machine's TPM was reset in its life, as it says itself:
// TPM2_ReadClock (TPM 2.0 library, part 3, 29.1) answers with a header of ten
// bytes, two times of eight, and then this.
func resets(ctx SpecContext, vm *harness.Machine) int {
	GinkgoHelper()
	out := run(ctx, vm, "sh", "-c", `exec 3<>/dev/tpm0; printf '\200\001\000\000\000\012\000\000\001\201' >&3; dd bs=64 count=1 <&3 | od -An -v -tx1`)
	bytes := strings.Fields(out)
	Expect(len(bytes)).To(BeNumerically(">=", 30), out)
	Expect(bytes[6:10]).To(HaveEach("00"), out) // it succeeded
	n, err := strconv.ParseInt(strings.Join(bytes[26:30], ""), 16, 32)
	Expect(err).NotTo(HaveOccurred())
	return int(n)
}

// What only some hosts have, and "seatrial doctor --install" brings, is labelled
// as the media are.
var _ = Describe("a machine's UEFI variables", Label("devices"), func() {
	It("outlive it in the file that its plan names, and no other machine has them", func(ctx SpecContext) {
		im, vars := build(ctx, "small.yml", withTools), filepath.Join(GinkgoT().TempDir(), "vars")
		const name = "/sys/firmware/efi/efivars/Trial-0b4c4a7e-4a0b-4d7c-8a52-1c57a1a0a001"
		start := func(vars string) *harness.Machine {
			return trial.BootReady(ctx, im, func(p *harness.Plan) { p.Vars = vars })
		}
		vm := start(vars)
		refused(ctx, vm, "@stat", name)
		// Four bytes of attributes: to be kept, for the boot and at run time.
		run(ctx, vm, "sh", "-c", `printf '\007\000\000\000kept' >`+name)
		off(ctx, vm)
		vm = start(vars)
		Expect(run(ctx, vm, "@cat", name)).To(Equal("\x07\x00\x00\x00kept"))
		off(ctx, vm)
		refused(ctx, start(vars+"2"), "@stat", name)
	}, SpecTimeout(8*time.Minute))
})

var _ = Describe("a machine's memory", Label("devices"), func() {
	It("is taken away, and given back", func(ctx SpecContext) {
		im := build(ctx, "small.yml")
		vm := trial.Fork(ctx, im, func(p *harness.Plan) { p.Balloon = true })
		available := func() int {
			m := regexp.MustCompile(`MemAvailable: +(\d+) kB`).FindStringSubmatch(run(ctx, vm, "@cat", "/proc/meminfo"))
			Expect(m).NotTo(BeNil())
			kib, err := strconv.Atoi(m[1])
			Expect(err).NotTo(HaveOccurred())
			return kib >> 10
		}
		all := available()
		Expect(all).To(BeNumerically(">", 600)) // of 1024 MiB
		Expect(vm.LeaveMemory(ctx, 512)).To(Succeed())
		Eventually(ctx, available).WithTimeout(time.Minute).Should(BeNumerically("<", all-450))
		left := available()
		Expect(vm.LeaveMemory(ctx, 1024)).To(Succeed())
		// Not what it was at first: that has been 51 MiB more than later, with the balloon empty.
		Eventually(ctx, available).WithTimeout(time.Minute).Should(BeNumerically(">", left+350))
		Expect(vm.LeaveMemory(ctx, 1025)).To(MatchError(ContainSubstring("1024 MiB of memory")))
		Expect(vm).To(suite.BeFaultFree())

		without := trial.Fork(ctx, im)
		Expect(without.LeaveMemory(ctx, 512)).To(MatchError(ContainSubstring("no balloon")))
	}, SpecTimeout(5*time.Minute))
})

var _ = Describe("a machine's TPM", Label("devices"), func() {
	It("is there if it was given one, and keeps what it holds", func(ctx SpecContext) {
		state := filepath.Join(GinkgoT().TempDir(), "tpm")
		im := build(ctx, "small.yml", withTools)
		version := []string{"cat", "/sys/class/tpm/tpm0/tpm_version_major"}
		vm := trial.Fork(ctx, im, func(p *harness.Plan) { p.TPM = state })
		Expect(vm.Report().Fork.Why).To(ContainSubstring("a TPM is one machine's alone"))
		Expect(run(ctx, vm, version...)).To(Equal("2\n"))
		Expect(run(ctx, vm, "@stat", "/dev/tpm0")).To(ContainSubstring("char"))
		before := resets(ctx, vm)
		off(ctx, vm)
		vm = trial.Fork(ctx, im, func(p *harness.Plan) { p.TPM = state })
		Expect(resets(ctx, vm)).To(BeNumerically(">", before))
		off(ctx, vm)

		without := trial.Fork(ctx, im)
		refused(ctx, without, version...)
		refused(ctx, without, "@stat", "/dev/tpm0")
	}, SpecTimeout(5*time.Minute))
})

// cd is the file of a CD that begins with a text.
func cd(text string) string {
	GinkgoHelper()
	path := filepath.Join(GinkgoT().TempDir(), "cd.iso")
	content := append([]byte(text+"\n"), make([]byte, 64<<10)...)
	Expect(os.WriteFile(path, content[:64<<10], 0o600)).To(Succeed())
	return path
}

var _ = Describe("a machine's CD drives", Label("devices"), func() {
	It("have in them what the plan says, what is put in later, or nothing", func(ctx SpecContext) {
		image := build(ctx, "small.yml", withTools)
		vm := trial.Fork(ctx, image, func(p *harness.Plan) { p.CDs = []string{cd("first"), ""} })
		read := func(drive string) string { return run(ctx, vm, "head", "-n", "1", "/dev/"+drive) }
		Expect(read("sr0")).To(Equal("first\n"))
		Expect(refused(ctx, vm, "dd", "if=/dev/zero", "of=/dev/sr0", "bs=2k", "count=1")).To(ContainSubstring("Read-only file system"))
		Expect(refused(ctx, vm, "head", "/dev/sr1")).To(ContainSubstring("No medium found"))
		Expect(vm.ChangeCD(ctx, 1, cd("second"))).To(Succeed())
		Eventually(ctx, func() string { return read("sr1") }).Should(Equal("second\n"))
		Expect(vm.ChangeCD(ctx, 0, "")).To(Succeed())
		Expect(refused(ctx, vm, "head", "/dev/sr0")).To(ContainSubstring("No medium found"))
		Expect(read("sr1")).To(Equal("second\n"))
		Expect(vm.ChangeCD(ctx, 2, cd("third"))).To(MatchError(ContainSubstring("there is no CD drive 2")))
		Expect(vm.ChangeCD(ctx, 0, "/nowhere")).To(MatchError(os.ErrNotExist))

		Expect(refused(ctx, trial.Fork(ctx, image), "@stat", "/dev/sr0")).To(ContainSubstring("no such file"))
	}, SpecTimeout(5*time.Minute))
})

var _ = Describe("a machine's channels", Label("devices"), func() {
	It("carry what either end says, each its own", func(ctx SpecContext) {
		image := build(ctx, "small.yml", withTools)
		vm := trial.Fork(ctx, image, func(p *harness.Plan) { p.Channels = []string{"org.seatrial.one", "org.seatrial.other"} })
		port := func(name string) string {
			file := run(ctx, vm, "sh", "-c", "grep -lx "+name+" /sys/class/virtio-ports/*/name")
			return "/dev/" + filepath.Base(filepath.Dir(file))
		}
		one, err := vm.Channel("org.seatrial.one")
		Expect(err).NotTo(HaveOccurred())
		other, err := vm.Channel("org.seatrial.other")
		Expect(err).NotTo(HaveOccurred())

		_, err = one.Write([]byte("to the guest\n")) // nobody listens yet
		Expect(err).NotTo(HaveOccurred())
		Expect(run(ctx, vm, "head", "-n", "1", port("org.seatrial.one"))).To(Equal("to the guest\n"))
		run(ctx, vm, "sh", "-c", "echo to the host > "+port("org.seatrial.one"))
		line, err := bufio.NewReader(one).ReadString('\n')
		Expect(err).NotTo(HaveOccurred())
		Expect(line).To(Equal("to the host\n"))

		run(ctx, vm, "sh", "-c", "echo here > "+port("org.seatrial.other"))
		line, err = bufio.NewReader(other).ReadString('\n')
		Expect(err).NotTo(HaveOccurred())
		Expect(line).To(Equal("here\n"))

		_, err = vm.Channel("org.seatrial.third")
		Expect(err).To(MatchError(ContainSubstring(`there is no channel "org.seatrial.third"`)))
		Expect(refused(ctx, trial.Fork(ctx, image), "sh", "-c", "ls /dev/vport*")).To(ContainSubstring("No such file"))
		Expect(vm.Close()).To(Succeed())
		_, err = one.Read(make([]byte, 1))
		Expect(err).To(HaveOccurred())
	}, SpecTimeout(5*time.Minute))
})

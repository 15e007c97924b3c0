package cases

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/seatrial/seatrial/boot"
	"github.com/seatrial/seatrial/harness"
	"github.com/seatrial/seatrial/harness/suite"
	"github.com/seatrial/seatrial/qemu"
	"github.com/seatrial/seatrial/reports"
)

// guestTime is what the machine's clock shows.
func guestTime(ctx SpecContext, vm *harness.Machine) time.Time {
	nanos, err := strconv.ParseInt(strings.TrimSpace(run(ctx, vm, "@clock")), 10, 64)
	Expect(err).NotTo(HaveOccurred())
	return time.Unix(0, nanos).UTC()
}

// setClock steps the machine's clock.
func setClock(ctx SpecContext, vm *harness.Machine, to time.Time) {
	run(ctx, vm, "@clock", strconv.FormatInt(to.UnixNano(), 10))
}

// withDisk gives a machine an empty disk of 16 MiB with the fault.
func withDisk(fault *qemu.DiskError) suite.Tweak {
	return func(p *harness.Plan) {
		path := filepath.Join(GinkgoT().TempDir(), "disk")
		Expect(os.WriteFile(path, make([]byte, 16<<20), 0o600)).To(Succeed())
		p.Disks = append(p.Disks, qemu.Disk{Path: path, Error: fault})
	}
}

var _ = Describe("a machine to which something is done", func() {
	It("is a copy with a time, random numbers, an address and a name of its own", func(ctx SpecContext) {
		uuids := map[string]bool{}
		macs := map[string]bool{}
		for range 3 {
			vm := trial.Fork(ctx, build(ctx, "setup.yml"), withNIC)
			Expect(guestTime(ctx, vm)).To(BeTemporally("~", time.Now(), time.Minute))
			uuids[run(ctx, vm, "@cat", "/proc/sys/kernel/random/uuid")] = true
			mac := strings.TrimSpace(run(ctx, vm, "@cat", "/sys/class/net/eth0/address"))
			Expect(vm.Report().Fork.MACs).To(Equal([]string{mac}))
			macs[mac] = true
			Expect(run(ctx, vm, "@cat", "/proc/sys/kernel/hostname")).To(Equal("linuxkit-" + strings.ReplaceAll(mac, ":", "") + "\n"))
			Expect(vm.Report().Fork.How).To(Equal("ram"))
		}
		Expect(uuids).To(HaveLen(3))
		Expect(macs).To(HaveLen(3))

		// A name that was given is nobody's to change.
		named := trial.Fork(ctx, build(ctx, "setup.yml"), withNIC, func(p *harness.Plan) { p.Cmdline = p.Image.Cmdline + " hostname=given" })
		Expect(run(ctx, named, "@cat", "/proc/sys/kernel/hostname")).To(Equal("given\n"))
	}, SpecTimeout(10*time.Minute))

	It("ends when the reset button is pressed, and not before", func(ctx SpecContext) {
		vm := trial.Fork(ctx, build(ctx, "small.yml"))
		Expect(vm.Alive()).To(BeTrue())
		Expect(vm.Reset(ctx)).To(Succeed())
		_, err := vm.AwaitLine(ctx, never)
		Expect(err).To(suite.BeVerdict(reports.Infra, `^the reset button was pressed$`))
	}, SpecTimeout(5*time.Minute))

	if trial.Arch() == "amd64" {
		It("says that it does not know the reason of an NMI, and panics if it was told to", func(ctx SpecContext) {
			vm := trial.Fork(ctx, build(ctx, "small.yml"))
			Expect(vm.NMI(ctx)).To(Succeed())
			Eventually(ctx, vm).Should(suite.Print(`NMI received for unknown reason`))
			Expect(vm.Alive()).To(BeTrue())
			run(ctx, vm, "@append", "/proc/sys/kernel/unknown_nmi_panic", "1")
			Expect(vm.NMI(ctx)).To(Succeed())
			Expect(vm.Await(ctx, boot.Off)).To(suite.BeVerdict(reports.Guest, `^kernel panic: NMI`))
		}, SpecTimeout(5*time.Minute))
	} else {
		It("is not sent an NMI by a board that has none, which is said", func(ctx SpecContext) {
			vm := trial.Fork(ctx, build(ctx, "small.yml"))
			Expect(vm.NMI(ctx)).To(MatchError(ContainSubstring("NMI")))
			Expect(vm.Alive()).To(BeTrue())
		}, SpecTimeout(5*time.Minute))
	}

	It("notices a cable that is pulled and put back", func(ctx SpecContext) {
		vm := trial.Fork(ctx, build(ctx, "setup.yml"), withNIC)
		carrier := func() string { return run(ctx, vm, "@cat", "/sys/class/net/eth0/carrier") }
		Expect(carrier()).To(Equal("1\n"))
		Expect(vm.Link(ctx, 0, false)).To(Succeed())
		Eventually(ctx, carrier).Should(Equal("0\n"))
		Expect(vm.Link(ctx, 0, true)).To(Succeed())
		Eventually(ctx, carrier).Should(Equal("1\n"))
		Expect(vm.Link(ctx, 1, false)).NotTo(Succeed()) // it has no second card
	}, SpecTimeout(5*time.Minute))

	It("lives through steps of its clock, and past the end of 32 bits", func(ctx SpecContext) {
		vm := trial.Fork(ctx, build(ctx, "small.yml"))
		for _, to := range []time.Time{time.Unix(1<<31-1, 0), time.Unix(60, 0), time.Now()} {
			setClock(ctx, vm, to)
			Expect(guestTime(ctx, vm)).To(BeTemporally("~", to, time.Minute))
			Expect(run(ctx, vm, "ctr", "-n", "services.linuxkit", "task", "ls")).To(MatchRegexp(`(?m)^web\s+\d+\s+RUNNING`))
		}
		Expect(vm.Alive()).To(BeTrue())
	}, SpecTimeout(5*time.Minute))

	It("says which disk fails when it writes, and nothing of one that does not", Label("devices"), func(ctx SpecContext) {
		idle := build(ctx, "small.yml", withoutServices)
		vm := trial.BootReady(ctx, idle, withDisk(&qemu.DiskError{Write: true}))
		run(ctx, vm, "@cat", "/sys/block/vda/size")
		Expect(vm).NotTo(suite.Print(`I/O error, dev vda`))
		_, err := vm.Exec(ctx, "@append", "/dev/vda", "text") // whether it hears of the error depends on when it is written back
		Expect(err).NotTo(HaveOccurred())
		run(ctx, vm, "@append", "/proc/sysrq-trigger", "s")
		Eventually(ctx, vm).Should(suite.Print(`I/O error, dev vda, sector 0 op 0x1:\(WRITE\)`))

		sound := trial.BootReady(ctx, idle, withDisk(nil))
		run(ctx, sound, "@append", "/dev/vda", "text")
		run(ctx, sound, "@append", "/proc/sysrq-trigger", "s")
		Eventually(ctx, sound).Should(suite.Print(`Emergency Sync complete`))
		Expect(sound).NotTo(suite.Print(`I/O error`))
	}, SpecTimeout(10*time.Minute))

	It("comes up in the years 1970 and 2038", func(ctx SpecContext) {
		for _, at := range []string{"1970-01-01T00:00:00", "2038-01-19T03:14:00"} {
			vm := trial.BootReady(ctx, build(ctx, "small.yml", withoutServices), func(p *harness.Plan) { p.RTC = at })
			Expect(guestTime(ctx, vm).Format(time.RFC3339)).To(HavePrefix(at[:10]))
			Expect(vm).To(suite.BeFaultFree())
		}
	}, SpecTimeout(10*time.Minute))
})

// withNIC gives a machine a network in which it finds a router.
func withNIC(p *harness.Plan) { p.NICs = append(p.NICs, qemu.NIC{Open: true}) }

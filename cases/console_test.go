package cases

import (
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/seatrial/seatrial/boot"
	"github.com/seatrial/seatrial/harness"
	"github.com/seatrial/seatrial/harness/suite"
	"github.com/seatrial/seatrial/images"
	"github.com/seatrial/seatrial/reports"
)

// What init, onboot containers and containerd write goes to /dev/console, and
// /dev/console is the last console= that registers.
var _ = Describe("the serial console", func() {
	// A command line that was written for amd64 works on arm64 as it is: the
	// machine has the line it asks for. So small.yml speaks on ttyS0 everywhere.
	serial, absent := images.SerialLine(trial.Arch()), "ttyAMA0"
	if trial.Arch() == "arm64" {
		absent = "ttyAMA1"
	}
	wrong := "cryptomgr.notests init_on_alloc=0 norandmaps console=" + serial + " console=tty0"

	It("shows init, onboot containers and containerd when "+serial+" is last", func(ctx SpecContext) {
		vm := trial.Fork(ctx, trial.Default(ctx))
		Expect(vm).To(suite.Print(`^init: PID 1, build .*, console ` + serial + `\b`))
		Expect(vm).To(suite.Print(`^onboot: hello from the first container`))
		Expect(vm).To(suite.Print(`starting containerd`))
		Expect(vm).To(suite.Print(`serving\.\.\. address=/run/containerd/containerd\.sock\.ttrpc`))
		Expect(vm).To(suite.Print(`serving\.\.\. address=/run/containerd/containerd\.sock\s*$`))
		// containerd speaks through PID 1 and not to a terminal: its lines have the form of a log, not colours and columns.
		Expect(vm).To(suite.Print(`time="\S+" level=info msg="containerd successfully booted in `))
		Expect(vm).NotTo(suite.Print(`INFO *\[.*containerd`))
		Expect(vm).To(suite.Print(`^init: ready`))
		Expect(vm).To(suite.BeFaultFree())
	}, SpecTimeout(5*time.Minute))

	It("shows them with one single console", func(ctx SpecContext) {
		vm := trial.Fork(ctx, build(ctx, "small.yml"))
		Expect(run(ctx, vm, "@cat", "/proc/cmdline")).NotTo(ContainSubstring("tty0"))
		Expect(vm).To(suite.Print(`^init: PID 1, build .*, console ttyS0\b`))
		Expect(vm).To(suite.Print(`containerd successfully booted`))
	}, SpecTimeout(5*time.Minute))

	It("is silent after the kernel when "+serial+" is not last, and the verdict names the console order", func(ctx SpecContext) {
		vm := trial.Boot(ctx, trial.Default(ctx), func(p *harness.Plan) { p.Cmdline = wrong })
		Expect(vm.Await(ctx, boot.Ready)).To(suite.BeVerdict(reports.Guest, `^console order: /dev/console is tty0, not `+serial+`.*put console=`+serial+` last`))
	}, SpecTimeout(5*time.Minute))

	It("shows the kernel and not one byte of init or containerd when the order is wrong", func(ctx SpecContext) {
		vm := trial.Boot(ctx, trial.Default(ctx), func(p *harness.Plan) {
			p.Cmdline = wrong
			p.Expect = []string{"console-order"} // or no wait would go on
		})
		Eventually(ctx, vm).Should(suite.Reach(boot.Ready))
		Expect(vm).To(suite.Print(`Linux version`))
		Expect(vm).To(suite.Print(`Welcome to LinuxKit`)) // the banner proves nothing: every console has it
		Expect(vm).NotTo(suite.Print(`^init: `))
		Expect(vm).NotTo(suite.Print(`onboot: hello`))
		Expect(vm).NotTo(suite.Print(`successfully booted`))
		Expect(vm.PowerOff(ctx)).To(Succeed())
		Expect(vm).To(suite.Print(`reboot: Power down`)) // the kernel again
		Expect(vm).NotTo(suite.Print(`^init: `))
	}, SpecTimeout(5*time.Minute))

	It("falls back to "+serial+" when the last console does not exist", func(ctx SpecContext) {
		vm := trial.Boot(ctx, build(ctx, "small.yml"), func(p *harness.Plan) {
			p.Cmdline = "cryptomgr.notests init_on_alloc=0 norandmaps console=" + serial + " console=" + absent
		})
		Expect(vm.Await(ctx, boot.Onboot)).To(Succeed()) // all that is asked comes before
		Expect(vm).To(suite.Print(`^init: PID 1, build .*, console ` + serial + `\b`))
		Expect(vm).NotTo(suite.Print(`console order`))
	}, SpecTimeout(5*time.Minute))
})

var _ = Describe("PID 1", func() {
	It("is the shipped init, and neither systemd nor busybox is there", func(ctx SpecContext) {
		vm := trial.Fork(ctx, trial.Default(ctx))
		Expect(run(ctx, vm, "@cat", "/proc/1/cmdline")).To(MatchRegexp(`^(/sbin)?/init\x00`)) // /init is a link to it
		Expect(run(ctx, vm, "@cat", "/proc/1/status")).To(HavePrefix("Name:\tinit\n"))
		e, ok := vm.Console().Milestone(boot.Init)
		Expect(ok).To(BeTrue())
		Expect(e.Facts).To(HaveKeyWithValue(boot.FactBuild, Not(BeEmpty())))
		Expect(run(ctx, vm, "@stat", "/sbin/init")).To(HaveSuffix(" file\n"))
		for _, absent := range []string{"/lib/systemd", "/usr/lib/systemd", "/bin/busybox", "/etc/inittab"} {
			Expect(refused(ctx, vm, "@stat", absent)).To(ContainSubstring("no such file"))
		}
	}, SpecTimeout(5*time.Minute))

	It("needs no disk at all", func(ctx SpecContext) {
		vm := trial.Fork(ctx, trial.Default(ctx))
		Expect(run(ctx, vm, "@ls", "/sys/block")).NotTo(MatchRegexp(`(?m)^(vd|sd|sr|nvme)`))
		Expect(run(ctx, vm, "@cat", "/proc/mounts")).To(MatchRegexp(`(?m)^\S+ / (rootfs|tmpfs|ramfs) ro`))
		Expect(refused(ctx, vm, "@append", "/etc/hostname", "x")).To(ContainSubstring("read-only file system"))
	}, SpecTimeout(5*time.Minute))

	It("powers off cleanly, with the onshutdown containers first", func(ctx SpecContext) {
		vm := trial.Fork(ctx, build(ctx, "services.yml"))
		Expect(vm).NotTo(suite.Print(`the onshutdown container ran`))
		Expect(vm.PowerOff(ctx)).To(Succeed())
		Expect(vm).To(suite.Print(`^the onshutdown container ran`))
		Expect(vm).To(suite.Print(`reboot: Power down`))
	}, SpecTimeout(5*time.Minute))

	It("runs the onshutdown containers and shows what they say when /run is full, which it says", func(ctx SpecContext) {
		vm := trial.Fork(ctx, build(ctx, "services.yml"))
		Expect(refused(ctx, vm, "/containers/services/family/rootfs/bin/busybox", "dd", "if=/dev/zero", "of=/run/filling", "bs=4096")).To(ContainSubstring("No space left on device"))
		_, _ = vm.Exec(ctx, "poweroff") // the agent may end before it has answered
		awaitLine(ctx, vm, `reboot: Power down`)
		inOrder(vm, "shutdown 000-farewell: from", "shutdown 000-farewell: /run is full: ", "the onshutdown container ran", "service family: ")
		Expect(vm).NotTo(suite.Print(`^shutdown 000-farewell: (exit|runc)`))
		Expect(vm).NotTo(suite.Print(`may be (lost|cut off)`))
	}, SpecTimeout(5*time.Minute))
})

// Package cases holds the specs of the image that ships: every promise a
// machine made of it must keep.
package cases

import (
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/seatrial/seatrial/boot"
	"github.com/seatrial/seatrial/harness"
	"github.com/seatrial/seatrial/harness/suite"
	"github.com/seatrial/seatrial/reports"
)

var trial = suite.New("seatrial")

func TestCases(t *testing.T) { trial.Run(t) }

var _ = Describe("the image that ships", Ordered, func() {
	var vm *harness.Machine

	BeforeAll(func(ctx SpecContext) {
		vm = trial.BootReady(ctx, trial.Default(ctx))
	}, NodeTimeout(5*time.Minute))

	It("prints init's and containerd's text on the serial line", func() {
		Expect(vm).To(suite.Print(`^init: ready`))
		Expect(vm).To(suite.Print(`containerd successfully booted`))
		Expect(vm).NotTo(suite.Print(`level=debug`))
		Expect(vm).To(suite.BeFaultFree())
	})

	It("has the shipped init as PID 1", func(ctx SpecContext) {
		r, err := vm.Exec(ctx, "@cat", "/proc/1/cmdline")
		Expect(err).NotTo(HaveOccurred())
		Expect(r.Stdout).To(HavePrefix("/sbin/init"))
		gone, err := vm.Exec(ctx, "@cat", "/lib/systemd/systemd")
		Expect(err).NotTo(HaveOccurred())
		Expect(gone.Exit).NotTo(BeZero())
	}, SpecTimeout(time.Minute))

	It("runs every service in services.linuxkit and none elsewhere", func(ctx SpecContext) {
		r, err := vm.Exec(ctx, "ctr", "-n", "services.linuxkit", "task", "ls")
		Expect(err).NotTo(HaveOccurred())
		Expect(r.Stdout).To(MatchRegexp(`(?m)^web\s+\d+\s+RUNNING`), r.String())
		Expect(r.Stdout).To(MatchRegexp(`(?m)^getty\s+\d+\s+RUNNING`), r.String())
		other, err := vm.Exec(ctx, "ctr", "-n", "default", "container", "ls", "-q")
		Expect(err).NotTo(HaveOccurred())
		Expect(other.Stdout).To(BeEmpty())
	}, SpecTimeout(2*time.Minute))

	It("powers off cleanly", func(ctx SpecContext) {
		Expect(vm.PowerOff(ctx)).To(Succeed())
	}, SpecTimeout(2*time.Minute))
})

var _ = Describe("a machine that cannot come up", func() {
	It("without an initramfs names the missing root", func(ctx SpecContext) {
		vm := trial.Boot(ctx, trial.Default(ctx), func(p *harness.Plan) { p.NoInitrd = true })
		Expect(vm.Await(ctx, boot.Ready)).To(suite.BeVerdict(reports.Guest, "no root file system"))
	}, SpecTimeout(3*time.Minute))

	It("with ttyS0 not last names the console order", func(ctx SpecContext) {
		vm := trial.Boot(ctx, trial.Default(ctx), func(p *harness.Plan) { p.Cmdline = "console=ttyS0 console=tty0" })
		Expect(vm.Await(ctx, boot.Ready)).To(suite.BeVerdict(reports.Guest, "console order: /dev/console is tty0"))
		Expect(vm).NotTo(suite.Print(`^init: `))
	}, SpecTimeout(3*time.Minute))
})

package cases

import (
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/seatrial/seatrial/boot"
	"github.com/seatrial/seatrial/harness"
	"github.com/seatrial/seatrial/harness/suite"
	"github.com/seatrial/seatrial/images"
	"github.com/seatrial/seatrial/reports"
)

// A machine that is broken on purpose ends with the verdict that names the
// cause. None of these is a timeout: that would be of class stalled.
var _ = Describe("the verdict", func() {
	It("names the missing root when the kernel is given no initramfs", func(ctx SpecContext) {
		vm := trial.Boot(ctx, trial.Default(ctx), func(p *harness.Plan) { p.NoInitrd = true })
		Expect(vm.Await(ctx, boot.Ready)).To(suite.BeVerdict(reports.Guest, `^no root file system: the kernel was given neither an initramfs nor root=`))
	}, SpecTimeout(5*time.Minute))

	It("names an init that exits", func(ctx SpecContext) {
		vm := trial.Boot(ctx, build(ctx, "small.yml", withScript("/init", "exit 1")))
		Expect(vm.Await(ctx, boot.Ready)).To(suite.BeVerdict(reports.Guest, `^init died: PID 1 exited with status 1$`))
	}, SpecTimeout(5*time.Minute))

	It("names an init that is not there", func(ctx SpecContext) {
		vm := trial.Boot(ctx, build(ctx, "small.yml", func(s *images.Spec) { s.Init, s.Services = nil, nil }))
		Expect(vm.Await(ctx, boot.Ready)).To(suite.BeVerdict(reports.Guest, `^no root file system: the kernel was given neither`))
	}, SpecTimeout(5*time.Minute))

	It("names a containerd that exits at once", func(ctx SpecContext) {
		vm := held(ctx)
		standIn(ctx, vm, boot.ContainerdPath, "echo no room for me >&2; exit 4")
		Expect(vm.Release(ctx)).To(Succeed())
		Expect(vm.Await(ctx, boot.Ready)).To(suite.BeVerdict(reports.Guest, `^containerd failed: ended before its socket answered: exit status 4; its last line: no room for me`))
	}, SpecTimeout(5*time.Minute))

	It("names a service that crashes", func(ctx SpecContext) {
		vm := trial.Fork(ctx, build(ctx, "small.yml"))
		Expect(vm.Alive()).To(BeTrue())
		_, err := vm.Exec(ctx, "ctr", "-n", "services.linuxkit", "task", "kill", "--signal", "KILL", "web")
		if err == nil { // what became of it may be told before the command has ended
			_, err = vm.AwaitLine(ctx, never)
		}
		Expect(err).To(suite.BeVerdict(reports.Guest, `^service web failed: exit status 137 \(SIGKILL\)$`))
	}, SpecTimeout(5*time.Minute))

	It("names an onboot container that fails, with its status", func(ctx SpecContext) {
		vm := trial.Boot(ctx, build(ctx, "small.yml", withContainer(onboot, "fails", "exit 5")))
		Expect(vm.Await(ctx, boot.Ready)).To(suite.BeVerdict(reports.Guest, `^onboot 000-fails failed: exit status 5`))
	}, SpecTimeout(5*time.Minute))

	It("names a kernel panic", func(ctx SpecContext) {
		vm := trial.Fork(ctx, build(ctx, "small.yml"))
		// The last write ends the machine that would answer it.
		_, err := vm.Exec(ctx, "@append", "/proc/sysrq-trigger", "c")
		Expect(err).To(suite.BeVerdict(reports.Guest, `^kernel (panic|oops): .*sysrq|^kernel oops: kernel NULL pointer`))
	}, SpecTimeout(5*time.Minute))

	It("names a machine that resets itself", func(ctx SpecContext) {
		vm := trial.Fork(ctx, build(ctx, "services.yml"))
		_, err := vm.Exec(ctx, "reboot", "-f")
		Expect(err).To(suite.BeVerdict(reports.Guest, `^the machine reset \(a reboot, or a panic\) before command reboot -f$`))
		Expect(vm).NotTo(suite.Print(`stopping the machine|the onshutdown container ran`)) // -f asks nobody
	}, SpecTimeout(5*time.Minute))

	It("names a QEMU that was killed from outside", func(ctx SpecContext) {
		vm := trial.Fork(ctx, build(ctx, "small.yml"))
		Expect(syscall.Kill(vm.PID(), syscall.SIGKILL)).To(Succeed())
		_, err := vm.AwaitLine(ctx, never)
		Expect(err).To(suite.BeVerdict(reports.Infra, `^QEMU was killed by SIGKILL from outside$`))
	}, SpecTimeout(5*time.Minute))

	It("names too little memory for the initramfs", func(ctx SpecContext) {
		little := map[string]int{"amd64": 128, "arm64": 192}[trial.Arch()] // with less QEMU itself refuses, on arm64
		vm := trial.Boot(ctx, trial.Default(ctx), func(p *harness.Plan) { p.MemoryMiB = little })
		Expect(vm.Await(ctx, boot.Ready)).To(suite.BeVerdict(reports.Guest, `out of memory: .*give the machine more memory`))
	}, SpecTimeout(5*time.Minute))
})

package cases

import (
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/seatrial/seatrial/boot"
	"github.com/seatrial/seatrial/harness"
	"github.com/seatrial/seatrial/harness/suite"
)

var _ = Describe("the service tool", Label("devices"), Ordered, func() {
	var vm *harness.Machine
	tasks := func(ctx SpecContext) string { return run(ctx, vm, "ctr", "-n", "services.linuxkit", "task", "ls") }
	runs := func(name string) string { return `(?m)^` + name + `\s+\d+\s+RUNNING` }
	end := func(ctx SpecContext, sig string) {
		GinkgoHelper()
		run(ctx, vm, "@kill", sig, pidOf(ctx, vm, boot.ServicePath))
	}

	BeforeAll(func(ctx SpecContext) {
		vm = trial.Boot(ctx, build(ctx, "tool.yml"), failing)
		Expect(vm.Await(ctx, boot.Ready)).To(Succeed())
	}, NodeTimeout(5*time.Minute))

	It("tells a start that fails once, with its reason", func(ctx SpecContext) {
		Expect(vm).To(suite.Print(`^service unwired: .*eth9: Link not found`))
		awaitLine(ctx, vm, `^service ends: exit status 255\b`)
		Expect(vm).NotTo(suite.Print(`^service unwired: (exit|running)`))
		Expect(vm).NotTo(suite.Print(`^service ends: lost`))
	}, SpecTimeout(2*time.Minute))

	It("tries again to start what fails, less and less often", func(ctx SpecContext) {
		awaitLine(ctx, vm, `^service mover: .*dummy0: Link not found; tried again in 3\.2s`)
		for _, pause := range []string{"200ms", "400ms", "800ms", `1\.6s`} {
			Expect(count(vm, `^service mover: .*; tried again in `+pause+`\b`)).To(Equal(1), pause)
		}
		Expect(count(vm, `^service mover: exit status`)).To(Equal(1))
		run(ctx, vm, "service", "stop", "mover")
	}, SpecTimeout(3*time.Minute))

	It("starts a service again whose namespace is bound to a name", func(ctx SpecContext) {
		for range 2 {
			Expect(run(ctx, vm, "@cat", "/proc/self/mounts")).To(ContainSubstring("nsfs /run/netns/binder "))
			run(ctx, vm, "service", "restart", "binder")
		}
		Expect(tasks(ctx)).To(MatchRegexp(runs("binder")))
		run(ctx, vm, "service", "stop", "binder")
		Expect(run(ctx, vm, "@cat", "/proc/self/mounts")).NotTo(ContainSubstring("/run/netns/binder "))
	}, SpecTimeout(3*time.Minute))

	It("is for PID 1 alone", func(ctx SpecContext) {
		Expect(refused(ctx, vm, "service", "system")).To(ContainSubstring("system is for PID 1 to run"))
	}, SpecTimeout(time.Minute))

	It("does not forget what it looks after when it is killed", func(ctx SpecContext) {
		end(ctx, "KILL")
		awaitLine(ctx, vm, `^init: /usr/bin/service system: signal: killed; it is started again`)
		Eventually(ctx, func() string { return run(ctx, vm, "@ps") }).Should(ContainSubstring(boot.ServicePath))
		run(ctx, vm, "ctr", "-n", "services.linuxkit", "task", "kill", "-s", "KILL", "ever")
		awaitLine(ctx, vm, `^service ever: exit status 137 \(SIGKILL\); started again in 100ms`)
		Eventually(ctx, tasks).Should(MatchRegexp(runs("ever")))
		Expect(count(vm, `^service ends: exit status 255`)).To(Equal(1))

		end(ctx, "STOP") // so that it does not see this
		run(ctx, vm, "ctr", "-n", "services.linuxkit", "task", "rm", "-f", "ever")
		end(ctx, "KILL")
		Eventually(ctx, tasks, "30s").Should(MatchRegexp(runs("ever")))
	}, SpecTimeout(3*time.Minute))

	It("starts again what it stopped when it was told to end and the machine was not", func(ctx SpecContext) {
		end(ctx, "TERM")
		awaitLine(ctx, vm, `^service ever: stopped on request`)
		Eventually(ctx, tasks, "30s").Should(MatchRegexp(runs("ever")))
		Expect(tasks(ctx)).NotTo(MatchRegexp(runs("binder"))) // it was stopped before, by name
		Expect(vm.PowerOff(ctx)).To(Succeed())
	}, SpecTimeout(3*time.Minute))
})

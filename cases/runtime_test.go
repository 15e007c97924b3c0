package cases

import (
	"slices"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/seatrial/seatrial/harness/suite"
	"github.com/seatrial/seatrial/images"
)

// withRunc puts runc in the place of crun.
func withRunc(s *images.Spec) {
	if i := slices.Index(s.Init, "seatrial/crun"); i >= 0 {
		s.Init[i] = "seatrial/runc"
	}
}

var _ = Describe("the OCI runtime", func() {
	It("is crun in the image that ships, under runc's name", func(ctx SpecContext) {
		vm := trial.Fork(ctx, trial.Default(ctx))
		Expect(run(ctx, vm, "runc", "--version")).To(HavePrefix("crun version"))
	}, SpecTimeout(5*time.Minute))

	It("may be runc: containers of every kind run the same", func(ctx SpecContext) {
		vm := trial.BootReady(ctx, build(ctx, "services.yml", withRunc))
		Expect(run(ctx, vm, "runc", "--version")).To(HavePrefix("runc version"))
		Expect(vm).To(suite.Print(`^first onboot container`))
		Expect(run(ctx, vm, "ctr", "-n", "services.linuxkit", "task", "ls")).To(MatchRegexp(`(?m)^family\s+\d+\s+RUNNING`))
		Expect(vm.PowerOff(ctx)).To(Succeed())
		Expect(vm).To(suite.Print(`^the onshutdown container ran`))
	}, SpecTimeout(5*time.Minute))
})

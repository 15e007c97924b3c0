package cases

import (
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/seatrial/seatrial/harness"
	"github.com/seatrial/seatrial/harness/suite"
	"github.com/seatrial/seatrial/images"
)

// withContainerdDisk puts containerd's folder on a state disk, and adds a
// service in a namespace of its own.
func withContainerdDisk(s *images.Spec) {
	s.Onboot = append(s.Onboot,
		images.Container{Name: "format", Image: "seatrial/format", Settings: images.Settings{Command: []string{"/usr/bin/format", "-label", "state"}}},
		images.Container{Name: "mount", Image: "seatrial/mount", Settings: images.Settings{Command: []string{"/usr/bin/mountie", "-label", "state", "/var/lib/containerd"}}})
	guest := "guest"
	s.Services = append(s.Services, images.Container{Name: "elsewhere", Image: "seatrial/busybox", Settings: images.Settings{
		Command: []string{"/bin/sleep", "86402"}, Runtime: &images.Runtime{Namespace: &guest},
	}})
}

var _ = Describe("services whose containerd keeps its folder on a disk", Label("devices"), func() {
	It("come up after a reset as they did at first: nothing stale is left, and what is not theirs stays", func(ctx SpecContext) {
		disk, image := blankDisk(), build(ctx, "small.yml", withContainerdDisk)
		list := func(vm *harness.Machine, ns string) []string {
			return strings.Fields(run(ctx, vm, "ctr", "-n", ns, "container", "ls", "-q"))
		}
		folders := func(vm *harness.Machine, ns string) []string {
			return strings.Fields(run(ctx, vm, "@ls", "/var/lib/containerd/io.containerd.runtime.v2.task/"+ns))
		}

		vm := trial.BootReady(ctx, image, withDisks(disk))
		Expect(vm).NotTo(suite.Print(`stale`))
		for _, ns := range []string{"guest", "strange"} {
			run(ctx, vm, "ctr", "-n", ns, "container", "create", "--config", "/containers/services/web/config.json", "alien")
		}
		Expect(list(vm, "guest")).To(ConsistOf("elsewhere", "alien"))
		Expect(vm.Reset(ctx)).To(Succeed())
		Expect(vm.Close()).To(Succeed())

		vm = trial.BootReady(ctx, image, withDisks(disk))
		Expect(vm).To(suite.Print(recovered)) // it was a reset
		Expect(vm).To(suite.Print(`^format: /dev/vda holds ext4 labelled "state" already`))
		for _, name := range []string{"web", "elsewhere"} {
			Expect(count(vm, `^service: Cleaning up stale service: "`+name+`"`)).To(Equal(1), name)
			Expect(count(vm, `^service `+name+`: running, pid \d+\b`)).To(Equal(1), name)
		}
		Expect(vm).NotTo(suite.Print(`stale service: "alien"`))
		Expect(list(vm, "services.linuxkit")).To(ConsistOf("web"))
		Expect(list(vm, "guest")).To(ConsistOf("elsewhere", "alien"))
		Expect(list(vm, "strange")).To(ConsistOf("alien"))
		Expect(folders(vm, "services.linuxkit")).To(ConsistOf("web/"))
		Expect(folders(vm, "guest")).To(ConsistOf("elsewhere/"))
		Expect(run(ctx, vm, "ctr", "-n", "guest", "task", "ls")).To(MatchRegexp(`(?m)^elsewhere\s+\d+\s+RUNNING`))
		run(ctx, vm, "service", "restart", "elsewhere")
		Expect(vm).To(suite.BeFaultFree())

		// An end in order lets go of the disk, though containerd and its shims have it open.
		Expect(vm).NotTo(suite.Print(unmounted))
		Expect(vm.PowerOff(ctx)).To(Succeed())
		Expect(vm).To(suite.Print(unmounted))
	}, SpecTimeout(5*time.Minute))
})

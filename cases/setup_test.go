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

// withNetwork gives a machine a network of its own in which QEMU hands out the
// address 10.0.2.15. It is not restricted: QEMU would name no router then.
func withNetwork(p *harness.Plan) {
	p.Extra = append(p.Extra, "-nic", "user,model=virtio-net-pci")
}

var _ = Describe("a machine that is set up while it boots", func() {
	It("has the kernel parameters of /etc/sysctl.d, the last file's above the first's, and an address", func(ctx SpecContext) {
		vm := trial.BootReady(ctx, build(ctx, "setup.yml"), withNetwork)
		Expect(run(ctx, vm, "@cat", "/proc/sys/kernel/panic_on_oops")).To(Equal("1\n"))
		Expect(run(ctx, vm, "@cat", "/proc/sys/vm/swappiness")).To(Equal("44\n"))
		mac := strings.TrimSpace(run(ctx, vm, "@cat", "/sys/class/net/eth0/address"))
		Expect(run(ctx, vm, "@cat", "/proc/sys/kernel/hostname")).To(Equal("linuxkit-" + strings.ReplaceAll(mac, ":", "") + "\n")) // the image names none
		Expect(vm).To(suite.Print(`^dhcp: eth0 has 10\.0\.2\.15/`))
		Expect(run(ctx, vm, "@cat", "/proc/net/fib_trie")).To(ContainSubstring("10.0.2.15"))
		Expect(run(ctx, vm, "@cat", "/proc/net/route")).To(MatchRegexp(`(?m)^eth0\t00000000\t0202000A`)) // default through 10.0.2.2
		Expect(run(ctx, vm, "@cat", "/etc/resolv.conf")).To(ContainSubstring("nameserver 10.0.2.3"))
		Expect(vm).To(suite.BeFaultFree())
	}, SpecTimeout(5*time.Minute))

	It("says which parameter and which interface it does not have", func(ctx SpecContext) {
		vm := trial.Boot(ctx, build(ctx, "setup.yml", func(s *images.Spec) {
			wrong := "kernel.no_such_thing=1\nvm.swappiness=55\n"
			s.Files[1].Contents = &wrong
		}), expecting)
		ready(ctx, vm)
		Expect(vm).To(suite.Print(`no_such_thing`))
		Expect(vm).To(suite.Print(`^onboot 000-sysctl: exit status 1`))
		Expect(run(ctx, vm, "@cat", "/proc/sys/vm/swappiness")).To(Equal("55\n")) // the others are set all the same
		Expect(run(ctx, vm, "@cat", "/proc/sys/kernel/hostname")).To(Equal("linuxkit\n"))
		Expect(vm).To(suite.Print(`^dhcp: there is no network interface eth0; there are: lo`))
		Expect(vm).To(suite.Print(`^onboot 001-dhcp: exit status 1`))
		Expect(run(ctx, vm, "@cat", "/proc/net/fib_trie")).NotTo(ContainSubstring("10.0.2.15"))
	}, SpecTimeout(5*time.Minute))
})

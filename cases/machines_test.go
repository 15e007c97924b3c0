package cases

import (
	"fmt"
	"regexp"
	"strconv"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/seatrial/seatrial/harness"
	"github.com/seatrial/seatrial/harness/suite"
	"github.com/seatrial/seatrial/images"
	"github.com/seatrial/seatrial/qemu"
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

var _ = Describe("machines on one network", func() {
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

package cases

import (
	"regexp"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/seatrial/seatrial/boot"
	"github.com/seatrial/seatrial/harness"
	"github.com/seatrial/seatrial/harness/suite"
)

var _ = Describe("services", func() {
	It("are containers in services.linuxkit, and other namespaces are empty", func(ctx SpecContext) {
		vm := trial.Fork(ctx, build(ctx, "services.yml"))
		Expect(strings.Fields(run(ctx, vm, "ctr", "-n", "services.linuxkit", "container", "ls", "-q"))).To(ConsistOf("brief", "family"))
		Expect(run(ctx, vm, "ctr", "-n", "services.linuxkit", "container", "ls")).To(MatchRegexp(`(?m)^family\s+-\s+io\.containerd\.runc\.v2\s*$`))
		Expect(run(ctx, vm, "ctr", "-n", "default", "container", "ls", "-q")).To(BeEmpty())
		Expect(strings.Fields(run(ctx, vm, "ctr", "namespace", "ls", "-q"))).To(ConsistOf("services.linuxkit"))
	}, SpecTimeout(5*time.Minute))

	It("show RUNNING with a live process, and STOPPED once they have ended", func(ctx SpecContext) {
		vm := trial.Fork(ctx, build(ctx, "services.yml"))
		Eventually(ctx, vm).Should(suite.Print(`^service brief: exit status 0`))
		tasks := run(ctx, vm, "ctr", "-n", "services.linuxkit", "task", "ls")
		Expect(tasks).To(MatchRegexp(`(?m)^brief\s+\d+\s+STOPPED\s*$`))
		running := regexp.MustCompile(`(?m)^family\s+(\d+)\s+RUNNING\s*$`).FindStringSubmatch(tasks)
		Expect(running).NotTo(BeNil(), tasks)
		Expect(run(ctx, vm, "@cat", "/proc/"+running[1]+"/cmdline")).To(Equal("sleep\x0086401\x00"))
		stopped := regexp.MustCompile(`(?m)^brief\s+(\d+)`).FindStringSubmatch(tasks)
		Expect(refused(ctx, vm, "@cat", "/proc/"+stopped[1]+"/cmdline")).To(ContainSubstring("no such file"))
	}, SpecTimeout(5*time.Minute))

	It("have every process listed by task ps, and no other", func(ctx SpecContext) {
		vm := trial.Fork(ctx, build(ctx, "services.yml"))
		listed := regexp.MustCompile(`(?m)^(\d+)\s`).FindAllStringSubmatch(run(ctx, vm, "ctr", "-n", "services.linuxkit", "task", "ps", "family"), -1)
		var got []string
		for _, l := range listed {
			got = append(got, l[1])
		}
		var want []string
		for line := range strings.Lines(run(ctx, vm, "@ps")) {
			if strings.Contains(line, "sleep 8640") {
				want = append(want, strings.Fields(line)[0])
			}
		}
		Expect(want).To(HaveLen(2))
		Expect(got).To(ConsistOf(want))
	}, SpecTimeout(5*time.Minute))

	It("take a shell over the serial line with tasks exec", func(ctx SpecContext) {
		vm := trial.Fork(ctx, trial.Default(ctx))
		prompt := regexp.MustCompile(`\(ns: getty\) seatrial:\S*# $`)
		say(ctx, vm, "", prompt)
		Expect(say(ctx, vm, "ls /www", prompt)).To(ContainSubstring("No such file"))
		inside := regexp.MustCompile(`(?m)^\S*:?/ ?# $`)
		say(ctx, vm, "ctr -n services.linuxkit tasks exec --tty --exec-id sh web /bin/ash -l", inside)
		Expect(say(ctx, vm, "ls /www", inside)).To(ContainSubstring("index.html"))
		Expect(say(ctx, vm, "tty; echo $((6*7))", inside)).To(And(ContainSubstring("/dev/pts/"), ContainSubstring("\n42\n")))
		Expect(run(ctx, vm, "ctr", "-n", "services.linuxkit", "task", "ps", "web")).To(ContainSubstring(`sh`))
		say(ctx, vm, "exit 7", prompt)
		Expect(say(ctx, vm, "echo status=$?", prompt)).To(ContainSubstring("status=7"))
	}, SpecTimeout(5*time.Minute))

	It("give a shell whose programs Ctrl-C interrupts", func(ctx SpecContext) {
		vm := trial.Fork(ctx, trial.Default(ctx))
		prompt := regexp.MustCompile(`\(ns: getty\) seatrial:\S*# $`)
		say(ctx, vm, "", prompt)
		Expect(vm.Type("sleep 1357\n")).To(Succeed())
		sleeping := func() string { return run(ctx, vm, "@ps") }
		Eventually(ctx, sleeping).Should(ContainSubstring("sleep 1357"))
		Expect(say(ctx, vm, "\x03", prompt)).NotTo(BeEmpty())
		Eventually(ctx, sleeping).ShouldNot(ContainSubstring("sleep 1357"))
		Expect(vm).NotTo(suite.Print(`^service getty: exit`))
	}, SpecTimeout(5*time.Minute))

	It("that fail are named with their exit status, and the others run", func(ctx SpecContext) {
		image := build(ctx, "small.yml", withContainer(services, "crash", "exit 3"))
		vm := trial.Boot(ctx, image, func(p *harness.Plan) { p.Expect = []string{"unit-failed"} })
		Eventually(ctx, vm).Should(suite.Print(`^service crash: exit status 3`))
		Eventually(ctx, vm).Should(suite.Reach(boot.Ready))
		Expect(run(ctx, vm, "ctr", "-n", "services.linuxkit", "task", "ls")).To(And(
			MatchRegexp(`(?m)^crash\s+\d+\s+STOPPED`), MatchRegexp(`(?m)^web\s+\d+\s+RUNNING`)))
		Expect(vm).NotTo(suite.Print(`^service web: exit`))
	}, SpecTimeout(5*time.Minute))
})

var _ = Describe("OCI bundles", func() {
	It("are under /containers, onboot and onshutdown numbered in order", func(ctx SpecContext) {
		vm := trial.Fork(ctx, build(ctx, "services.yml"))
		Expect(run(ctx, vm, "@ls", "/containers")).To(Equal("onboot/\nonshutdown/\nservices/\n"))
		Expect(run(ctx, vm, "@ls", "/containers/onboot")).To(Equal("000-first/\n001-second/\n"))
		Expect(run(ctx, vm, "@ls", "/containers/onshutdown")).To(Equal("000-farewell/\n"))
		Expect(run(ctx, vm, "@ls", "/containers/services")).To(Equal("brief/\nfamily/\n"))
		Expect(run(ctx, vm, "@cat", "/containers/services/family/config.json")).To(And(
			ContainSubstring(`"ociVersion"`), ContainSubstring(`exec sleep 86401`)))
		// Both onboot containers are of one image, which is stored once.
		Expect(run(ctx, vm, "@ls", "/containers/onboot/000-first/lower")).To(ContainSubstring("bin/"))
		Expect(refused(ctx, vm, "@ls", "/containers/onboot/001-second/lower")).To(ContainSubstring("no such file"))
		Expect(refused(ctx, vm, "@ls", "/containers/services/first")).To(ContainSubstring("no such file"))
	}, SpecTimeout(5*time.Minute))

	It("of onboot run one after another, before containerd", func(ctx SpecContext) {
		vm := trial.Fork(ctx, build(ctx, "services.yml"))
		var order []string
		for _, l := range vm.Console().Lines() {
			for _, text := range []string{"first onboot container", "second onboot container", "starting containerd"} {
				if strings.HasPrefix(l.Text, text) || text == "starting containerd" && strings.Contains(l.Text, text) {
					order = append(order, text)
				}
			}
		}
		Expect(order).To(Equal([]string{"first onboot container", "second onboot container", "starting containerd"}))
	}, SpecTimeout(5*time.Minute))
})

// say types a line on the serial console and returns what came after it, up to
// what is awaited.
func say(ctx SpecContext, vm *harness.Machine, line string, until *regexp.Regexp) string {
	GinkgoHelper()
	text, err := vm.Say(ctx, line, until)
	Expect(err).NotTo(HaveOccurred())
	return text
}

package cases

import (
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/seatrial/seatrial/boot"
	"github.com/seatrial/seatrial/harness"
	"github.com/seatrial/seatrial/harness/suite"
)

// withOptions puts content into /etc/containerd/runtime-config.toml.
func withOptions(content string) change { return withFile(boot.RuntimeConfig, content) }

// argv is containerd's command line, word by word.
func argv(ctx SpecContext, vm *harness.Machine) []string {
	GinkgoHelper()
	for line := range strings.Lines(run(ctx, vm, "@ps")) {
		if f := strings.Fields(line); len(f) > 3 && f[3] == boot.ContainerdPath {
			words := run(ctx, vm, "@cat", "/proc/"+f[0]+"/cmdline")
			return strings.Split(strings.TrimSuffix(words, "\x00"), "\x00")
		}
	}
	Fail("no containerd runs")
	return nil
}

// busybox is in the service's container, and on the way to its root.
const busybox = "/containers/services/web/rootfs/bin/busybox"

// held gives a machine that waits before it starts containerd.
func held(ctx SpecContext, tweaks ...suite.Tweak) *harness.Machine {
	GinkgoHelper()
	hold := func(p *harness.Plan) { p.Hold = boot.Containerd }
	return trial.Fork(ctx, build(ctx, "small.yml"), append(tweaks, hold)...)
}

// write puts a file into a machine whose root is read-only, as it was before
// PID 1 made it so.
func write(ctx SpecContext, vm *harness.Machine, path, content string) {
	GinkgoHelper()
	run(ctx, vm, busybox, "mount", "-o", "remount,bind,rw", "/")
	run(ctx, vm, "@append", path, content)
	run(ctx, vm, busybox, "mount", "-o", "remount,bind,ro", "/")
}

// standIn puts a shell script in the place of a program of a held machine.
func standIn(ctx SpecContext, vm *harness.Machine, program, script string) {
	GinkgoHelper()
	const file = "/run/stand-in"
	run(ctx, vm, "@append", file, "#!"+busybox+" sh\n"+script+"\n")
	run(ctx, vm, busybox, "chmod", "755", file)
	run(ctx, vm, busybox, "mount", "--bind", file, program)
}

// goesOn lets a held machine go on to a milestone.
func goesOn(ctx SpecContext, vm *harness.Machine, to boot.Milestone) {
	GinkgoHelper()
	Expect(vm.Release(ctx)).To(Succeed())
	Expect(vm.Await(ctx, to)).To(Succeed())
}

// upWith gives a machine that is up and found content in its options file when
// it came to start containerd: a copy of one that was held just before.
func upWith(ctx SpecContext, content string) *harness.Machine {
	GinkgoHelper()
	return with(ctx, content, boot.Ready)
}

// startedWith is upWith for what is only about containerd: its services are not
// waited for.
func startedWith(ctx SpecContext, content string) *harness.Machine {
	GinkgoHelper()
	return with(ctx, content, boot.Containerd)
}

func with(ctx SpecContext, content string, to boot.Milestone) *harness.Machine {
	GinkgoHelper()
	vm := held(ctx)
	write(ctx, vm, boot.RuntimeConfig, content)
	goesOn(ctx, vm, to)
	return vm
}

// serves asserts that the machine is up with its service.
func serves(ctx SpecContext, vm *harness.Machine) {
	GinkgoHelper()
	Expect(run(ctx, vm, "ctr", "-n", "services.linuxkit", "task", "ls")).To(MatchRegexp(`(?m)^web\s+\d+\s+RUNNING`))
}

// optionProblem is the line on the console that tells of a mistake in the file.
const optionProblem = `^containerd: /etc/containerd/runtime-config\.toml: `

var _ = Describe("containerd's runtime-config.toml", func() {
	It("may be missing: no options, everything on the console", func(ctx SpecContext) {
		vm := trial.Fork(ctx, build(ctx, "small.yml"))
		Expect(refused(ctx, vm, "@stat", boot.RuntimeConfig)).To(ContainSubstring("no such file"))
		Expect(argv(ctx, vm)).To(Equal([]string{boot.ContainerdPath}))
		Expect(vm).To(suite.Print(`containerd successfully booted`))
		Expect(vm).NotTo(suite.Print(`level=debug`))
		Expect(vm).NotTo(suite.Print(optionProblem))
		serves(ctx, vm)
	}, SpecTimeout(5*time.Minute))

	DescribeTable("without a setting is the same as none",
		func(ctx SpecContext, content string) {
			vm := startedWith(ctx, content)
			Expect(run(ctx, vm, "@cat", boot.RuntimeConfig)).To(Equal(content))
			Expect(argv(ctx, vm)).To(Equal([]string{boot.ContainerdPath}))
			Eventually(ctx, vm).Should(suite.Print(`containerd successfully booted`))
			Expect(vm).NotTo(suite.Print(optionProblem))
			Expect(vm).To(suite.BeFaultFree())
		},
		Entry("empty", "", SpecTimeout(5*time.Minute)),
		Entry("only comments", "# cliopts=\"--log-level debug\"\n\n", SpecTimeout(5*time.Minute)),
		Entry("blank values", "cliopts=\"\"\nstderr=\"\"\nstdout=\" \"\n", SpecTimeout(5*time.Minute)),
	)

	DescribeTable("hands cliopts to containerd",
		func(ctx SpecContext, content string) {
			vm := startedWith(ctx, content)
			Expect(argv(ctx, vm)).To(Equal([]string{boot.ContainerdPath, "--log-level", "debug"}))
			Expect(vm).To(suite.Print(`level=debug`))
			Expect(vm).NotTo(suite.Print(optionProblem))
		},
		Entry("as a key", `cliopts="--log-level debug"`, SpecTimeout(5*time.Minute)),
		Entry("split on all white space", "cliopts=\"\"\"\t--log-level\n\n  debug \"\"\"\n", SpecTimeout(5*time.Minute)),
		Entry("in the short form, as the whole file", "--log-level debug\n", SpecTimeout(5*time.Minute)),
	)

	It("is read from the image at a boot", func(ctx SpecContext) {
		vm := trial.BootReady(ctx, build(ctx, "small.yml", withOptions("cliopts=\"--log-level debug\"\nstderr=\"/var/log/containerd.log\"\n")))
		Expect(argv(ctx, vm)).To(Equal([]string{boot.ContainerdPath, "--log-level", "debug"}))
		Expect(run(ctx, vm, "@cat", "/var/log/containerd.log")).To(ContainSubstring("level=debug"))
		Expect(vm).NotTo(suite.Print(`containerd successfully booted`))
		Expect(vm).To(suite.BeFaultFree())
		serves(ctx, vm)
	}, SpecTimeout(5*time.Minute))

	It("knows no quoting: quotes reach containerd, which refuses, is named and runs without", func(ctx SpecContext) {
		vm := upWith(ctx, `cliopts="--log-level debug --arg 'abcd def'"`)
		Expect(vm).To(suite.Print(optionProblem + `.*cliopts: containerd does not run with "--log-level debug --arg 'abcd def'"`))
		Expect(argv(ctx, vm)).To(Equal([]string{boot.ContainerdPath}))
		serves(ctx, vm)
	}, SpecTimeout(5*time.Minute))

	It("arrives as three words, quotes kept", func(ctx SpecContext) {
		vm := held(ctx, func(p *harness.Plan) { p.Expect = []string{"unit-failed", "milestone-failed"} })
		write(ctx, vm, boot.RuntimeConfig, `cliopts="--arg 'abcd def'"`)
		// A containerd that shows its words stands in for the real one.
		standIn(ctx, vm, boot.ContainerdPath, `for word in "$@"; do echo "word <$word>" >&2; done; exit 1`)
		goesOn(ctx, vm, boot.Ready)
		var words []string
		for _, l := range vm.Console().Lines() {
			if word, ok := strings.CutPrefix(l.Text, "word "); ok {
				words = append(words, word)
			}
		}
		Expect(words).To(Equal([]string{"<--arg>", "<'abcd>", "<def'>"}))
	}, SpecTimeout(5*time.Minute))

	It("sends both streams to one file, made with its folder, and loses nothing", func(ctx SpecContext) {
		const log = "/var/log/made/containerd.log"
		vm := upWith(ctx, "stderr=\""+log+"\"\nstdout=\""+log+"\"\n")
		text := run(ctx, vm, "@cat", log)
		Expect(text).To(And(ContainSubstring("starting containerd"), ContainSubstring("containerd successfully booted")))
		Expect(run(ctx, vm, "@stat", log)).To(HavePrefix("0644 "))
		Expect(vm).NotTo(suite.Print(`containerd successfully booted`))
	}, SpecTimeout(5*time.Minute))

	It("appends to a file that exists", func(ctx SpecContext) {
		const log = "/var/log/containerd.out.log"
		vm := held(ctx)
		run(ctx, vm, "@append", log, "was here before\n")
		write(ctx, vm, boot.RuntimeConfig, "stderr=\""+log+"\"\nstdout=\"stderr\"\n")
		goesOn(ctx, vm, boot.Ready)
		text := run(ctx, vm, "@cat", log)
		Expect(text).To(HavePrefix("was here before\n"))
		Expect(text).To(ContainSubstring("containerd successfully booted"))
		Expect(vm).NotTo(suite.Print(`containerd successfully booted`))
	}, SpecTimeout(5*time.Minute))

	It("may cross the streams", func(ctx SpecContext) {
		vm := startedWith(ctx, "stderr=\"stdout\"\nstdout=\"stderr\"\n")
		Eventually(ctx, vm).Should(suite.Print(`containerd successfully booted`))
		Expect(vm).NotTo(suite.Print(optionProblem))
		Expect(vm).To(suite.BeFaultFree())
	}, SpecTimeout(5*time.Minute))

	DescribeTable("with a mistake costs one clear line, and never the services",
		func(ctx SpecContext, content string, problems ...string) {
			vm := upWith(ctx, content)
			for _, p := range problems {
				Expect(vm).To(suite.Print(optionProblem + p))
			}
			Expect(vm).NotTo(suite.BeFaultFree()) // every one is a warning of the report
			Expect(vm).To(suite.Print(`containerd successfully booted`))
			Expect(argv(ctx, vm)).To(Equal([]string{boot.ContainerdPath}))
			serves(ctx, vm)
		},
		Entry("relative path and unknown word", "stderr=\"relative.log\"\nstdout=\"STDOUT\"\n",
			`line 1, column 1: stderr: "relative\.log" is not an absolute path; containerd's stderr is on the console`,
			`line 2, column 1: stdout: "STDOUT" is none of stderr, stdout and an absolute path`, SpecTimeout(5*time.Minute)),
		Entry("wrong types", "cliopts=[\"--log-level\",\"debug\"]\nstderr=1\nstdout=true\n",
			`line 1, column 1: cliopts: must be a string, not an array`,
			`line 2, column 1: stderr: must be a string, not an integer`,
			`line 3, column 1: stdout: must be a string, not a boolean`, SpecTimeout(5*time.Minute)),
		Entry("broken TOML", "stdout=\"stderr\"\ncliopts=\"--log-level debug\n", `line 2, column \d+: not TOML: `, SpecTimeout(5*time.Minute)),
		Entry("a path that cannot be opened", "stderr=\"/proc/nowhere/log\"\nstdout=\"/var\"\n",
			`line 1, column 1: stderr: .*/proc/nowhere.*; containerd's stderr is on the console`, `line 2, column 1: stdout: .*is a directory`, SpecTimeout(5*time.Minute)),
		Entry("an option containerd refuses", `cliopts="--no-such-option"`,
			`line 1, column 1: cliopts: containerd does not run with "--no-such-option": .*; containerd is started without options`, SpecTimeout(5*time.Minute)),
	)
})

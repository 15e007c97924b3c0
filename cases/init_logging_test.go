package cases

import (
	"os"
	"os/exec"
	"path/filepath"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/seatrial/seatrial/boot"
	"github.com/seatrial/seatrial/harness/suite"
	"github.com/seatrial/seatrial/images"
)

var _ = Describe("a logging daemon", func() {
	It("is given what containers say, and the console shows onboot containers all the same", func(ctx SpecContext) {
		program := filepath.Join(GinkgoT().TempDir(), "logd")
		compile := exec.CommandContext(ctx, "go", "build", "-o", program, "./logd")
		compile.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+trial.Arch())
		out, err := compile.CombinedOutput()
		Expect(err).NotTo(HaveOccurred(), string(out))

		const taken = "/run/taken.txt"
		image := build(ctx, "small.yml",
			withContainer(onboot, "early", "echo said early; echo shouted early >&2"),
			withContainer(services, "talker", "echo said; echo shouted >&2; exec sleep 86400"),
			withScript("/etc/init.d/002-logging", "logd "+boot.LoggingSocket+" "+taken+" &\nwhile [ ! -S "+boot.LoggingSocket+" ]; do sleep 0.1; done"),
			func(s *images.Spec) {
				s.Files = append(s.Files, images.File{Path: "/usr/bin/logd", Source: program, Mode: "0755"})
			})
		vm := trial.BootReady(ctx, image)
		text := func() string { return run(ctx, vm, "@cat", taken) }
		Eventually(ctx, text).Should(And(
			ContainSubstring("onboot.000-early.out: said early\n"), ContainSubstring("onboot.000-early: shouted early\n"),
			ContainSubstring("talker.out: said\n"), ContainSubstring("talker: shouted\n")))
		Expect(vm).To(suite.Print(`^said early`))
		Expect(vm).NotTo(suite.Print(`^said$`)) // services never speak on the console
		Expect(refused(ctx, vm, "@stat", "/var/log/talker.out.log")).To(ContainSubstring("no such file"))
		// A service that is started again is heard again.
		run(ctx, vm, "service", "restart", "talker")
		Eventually(ctx, text).Should(MatchRegexp(`(?s)talker\.out: said\n.*talker\.out: said\n`))
		// A daemon that has died leaves its socket behind, and costs no service its output.
		run(ctx, vm, "@kill", "KILL", pidOf(ctx, vm, "logd"))
		r, err := vm.Exec(ctx, "service", "restart", "talker")
		Expect(err).NotTo(HaveOccurred())
		Expect(r.Exit).To(BeZero(), r.String())
		Expect(r.Stderr).To(MatchRegexp(`(?m)^service talker: logging daemon at .*: connection refused; it goes to /var/log$`))
		Eventually(ctx, func() string { return run(ctx, vm, "@cat", "/var/log/talker.out.log") }).Should(Equal("said\n"))
	}, SpecTimeout(5*time.Minute))
})

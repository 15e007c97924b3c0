// Package cases holds the specs of the image that ships: every promise a
// machine made of it must keep. Each file is a topic; the YAML files beside
// them are the images they boot.
//
// Every assertion stands beside its negative: what must be there is shown to
// be absent where it must be, so that a spec that always passes is noticed.
//
// Patterns of what init and the service tool say end with \b, not with $: the
// terminal writes a line's text and its end apart, and between them the kernel
// may print a record, such as the event of the same news.
package cases

import (
	"regexp"
	"testing"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/seatrial/seatrial/harness"
	"github.com/seatrial/seatrial/harness/suite"
	"github.com/seatrial/seatrial/images"
)

var trial = suite.New("seatrial")

func TestCases(t *testing.T) { trial.Run(t) }

// never matches no line: waiting for it ends with the machine's verdict.
var never = regexp.MustCompile(`\A\z.`)

// change alters a specification before it is built.
type change func(*images.Spec)

// build builds the image of a YAML file of this folder with changes.
func build(ctx SpecContext, yaml string, changes ...change) *images.Image {
	GinkgoHelper()
	spec, err := images.LoadSpec(ctx, yaml)
	Expect(err).NotTo(HaveOccurred())
	for _, c := range changes {
		c(spec)
	}
	return trial.Build(ctx, spec)
}

// withFile adds a file of mode 0644.
func withFile(path, contents string) change {
	return func(s *images.Spec) {
		s.Files = append(s.Files, images.File{Path: path, Contents: &contents, Mode: "0644"})
	}
}

// withoutServices leaves init alone in the image.
func withoutServices(s *images.Spec) { s.Init, s.Services = []string{"seatrial/init"}, nil }

// withScript puts a shell script in the place of a program, and the shell it
// needs into the root.
func withScript(path, script string) change {
	text := "#!/bin/sh\n" + script + "\n"
	return func(s *images.Spec) {
		s.Init = append(s.Init, "seatrial/busybox")
		s.Files = append(s.Files, images.File{Path: path, Contents: &text, Mode: "0755"})
	}
}

// withContainer adds a container of busybox that runs a shell script to one of
// the specification's lists.
func withContainer(list func(*images.Spec) *[]images.Container, name, script string) change {
	return func(s *images.Spec) {
		to := list(s)
		*to = append(*to, images.Container{
			Name: name, Image: "seatrial/busybox",
			Settings: images.Settings{Command: []string{"/bin/sh", "-c", script}},
		})
	}
}

func onboot(s *images.Spec) *[]images.Container   { return &s.Onboot }
func services(s *images.Spec) *[]images.Container { return &s.Services }

// run runs a command in the machine, which must end well, and returns its
// standard output.
func run(ctx SpecContext, vm *harness.Machine, argv ...string) string {
	GinkgoHelper()
	r, err := vm.Exec(ctx, argv...)
	Expect(err).NotTo(HaveOccurred())
	Expect(r.Exit).To(BeZero(), r.String())
	return r.Stdout
}

// refused runs a command in the machine, which must not end well, and returns
// what it said about it.
func refused(ctx SpecContext, vm *harness.Machine, argv ...string) string {
	GinkgoHelper()
	r, err := vm.Exec(ctx, argv...)
	Expect(err).NotTo(HaveOccurred())
	Expect(r.Exit).NotTo(BeZero(), r.String())
	return r.Stdout + r.Stderr
}

// awaitLine waits for a line of the console, of the past or to come.
func awaitLine(ctx SpecContext, vm *harness.Machine, pattern string) {
	GinkgoHelper()
	_, err := vm.AwaitLine(ctx, regexp.MustCompile(pattern))
	Expect(err).NotTo(HaveOccurred())
}

package suite

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"

	"github.com/seatrial/seatrial"
	"github.com/seatrial/seatrial/harness"
	"github.com/seatrial/seatrial/images"
	"github.com/seatrial/seatrial/images/component"
	"github.com/seatrial/seatrial/reports"
)

// Suite is a set of specs about machines, run together and reported together.
type Suite struct {
	title string
	run   *string // folder of this run
	cache *string // folder of the component images, built images and downloads
	dir   *string // working folder of the specs
	arch  *string // of the machines
	accel *string // that is forced; empty: the better one
	owned *bool   // another process holds the lock of the run's folder
	began time.Time

	world     world              // set before the first spec
	templates *harness.Templates // likewise
	planned   int                // specs that are to run; known to the first process

	admitting sync.Mutex   // one machine is let in at a time, see admit
	rooms     atomic.Int32 // that machines have

	mu    sync.Mutex
	open  []*tracked // machines that are not closed yet
	count int        // machines made by this process, for their names
}

// world is what the first process finds out for all.
type world struct {
	Run       string
	Cache     string
	Host      harness.Host
	Admission harness.Admission
	Inputs    []reports.Input
	Began     time.Time
}

// New makes a suite and registers what must happen before the first and after
// the last spec. Call it once, in a package-level variable of the test package.
//
// The flags -seatrial.run (default: a new folder below out/runs of the module)
// and -seatrial.cache (default: the user's cache folder) say where files go;
// -seatrial.dir is for a test binary that is not run in its package's folder;
// -seatrial.arch (default: that of this host) is the machines' architecture;
// -seatrial.accel, tcg or kvm, is their accelerator, where no trial is to choose.
// With -seatrial.owned every process ends when the lock of the run's folder,
// which whoever started the suite holds, is let go.
func New(title string) *Suite {
	s := &Suite{
		title: title,
		run:   flag.String("seatrial.run", "", "folder for the reports and evidence of this run"),
		cache: flag.String("seatrial.cache", "", "folder for component images, built images and downloads"),
		dir:   flag.String("seatrial.dir", "", "folder that paths in specs are relative to (default: the package's)"),
		arch:  flag.String("seatrial.arch", runtime.GOARCH, "architecture of the machines: amd64 or arm64"),
		accel: flag.String("seatrial.accel", "", "accelerator of the machines: tcg or kvm (default: a trial guest finds out)"),
		owned: flag.Bool("seatrial.owned", false, "end when the lock of the run's folder is let go"),
		began: time.Now(),
	}
	ginkgo.ReportBeforeSuite(func(r ginkgo.Report) { s.planned = r.PreRunStats.SpecsThatWillRun })
	ginkgo.SynchronizedBeforeSuite(s.prepare, s.receive)
	ginkgo.BeforeEach(s.beginSpec)
	ginkgo.ReportAfterEach(s.endSpec)
	ginkgo.ReportAfterSuite("reports", s.report)
	return s
}

// Run runs the suite's specs; call it from the one Test function.
func (s *Suite) Run(t *testing.T) {
	gomega.RegisterFailHandler(ginkgo.Fail)
	gomega.SetDefaultEventuallyPollingInterval(50 * time.Millisecond)
	// Failures carry a console tail; gomega's default cuts them short.
	gomegaFormatLimit()
	if *s.owned {
		if err := endWithOwner(*s.run); err != nil {
			t.Fatal(err)
		}
	}
	if *s.dir != "" {
		t.Chdir(*s.dir)
	}
	ginkgo.RunSpecs(t, s.title)
}

// prepare runs in the first process only: component images, host, folders.
func (s *Suite) prepare(ctx ginkgo.SpecContext) []byte {
	w := world{Run: *s.run, Cache: *s.cache, Began: s.began}
	var err error
	if w.Cache == "" {
		w.Cache, err = DefaultCache()
		gomega.Expect(err).NotTo(gomega.HaveOccurred())
	}
	if w.Run == "" {
		w.Run, err = newRunFolder()
		gomega.Expect(err).NotTo(gomega.HaveOccurred())
	}
	gomega.Expect(os.MkdirAll(w.Run, 0o755)).To(gomega.Succeed())
	s.world = w // tell needs the folder
	s.tell(harness.Note{Planned: s.planned})
	w.Host, err = harness.Survey(ctx, s.Arch(), *s.accel, w.Cache)
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
	w.Inputs, err = s.buildComponents(ctx, w.Cache, s.Arch())
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
	w.Admission, err = harness.HostAdmission(filepath.Join(w.Cache, "room"))
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
	b, err := json.Marshal(w)
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
	return b
}

// receive runs in every process, with what prepare found out.
func (s *Suite) receive(b []byte) {
	gomega.Expect(json.Unmarshal(b, &s.world)).To(gomega.Succeed())
	s.templates = harness.OpenTemplates(harness.TemplateOptions{Dir: filepath.Join(s.world.Cache, "templates")})
}

// buildComponents makes the component images that are not up to date and
// returns what they were made of.
func (s *Suite) buildComponents(ctx context.Context, cache, arch string) ([]reports.Input, error) {
	store, err := images.OpenStore(filepath.Join(cache, "store"))
	if err != nil {
		return nil, err
	}
	built, err := component.Build(ctx, component.Options{
		Arch: arch, Store: store, Cache: cache, Source: seatrial.Source,
		Progress: func(name, step string) { s.tell(harness.Note{Step: name + ": " + step}) },
	})
	if err != nil {
		return nil, err
	}
	var inputs []reports.Input
	for _, b := range built {
		for _, in := range b.Inputs {
			inputs = append(inputs, reports.Input(in))
		}
	}
	return inputs, nil
}

// DefaultCache is the folder that keeps component images, built images and
// downloads between runs: "seatrial" in the user's cache folder.
func DefaultCache() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no cache folder (give one with -seatrial.cache): %w", err)
	}
	return filepath.Join(dir, "seatrial"), nil
}

// newRunFolder makes out/runs/TIME-PID below the module's root.
func newRunFolder() (string, error) {
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(root, "out", "runs", fmt.Sprintf("%s-%d", time.Now().UTC().Format("20060102T150405"), os.Getpid()))
	return dir, os.MkdirAll(dir, 0o755)
}

func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("not inside a Go module: give the run's folder with -seatrial.run")
		}
		dir = up
	}
}

// Arch is the architecture of the suite's machines, "amd64" or "arm64". It is
// known when the specs are defined, in the functions given to Describe: a spec
// that one architecture cannot have is not defined for it, so that none is
// planned that could only be skipped.
func (s *Suite) Arch() string { return *s.arch }

// Cache is the folder the suite keeps its images in.
func (s *Suite) Cache() string { return s.world.Cache }

// Default is the image that ships: images/default.yml.
func (s *Suite) Default(ctx ginkgo.SpecContext) *images.Image {
	return s.Build(ctx, s.DefaultSpec())
}

// DefaultSpec is the specification of the image that ships, for a spec that
// wants to change something about it.
func (s *Suite) DefaultSpec() *images.Spec {
	spec, err := images.ParseSpec("default.yml", images.DefaultFor(s.Arch()))
	gomega.ExpectWithOffset(1, err).NotTo(gomega.HaveOccurred())
	return spec
}

// Load builds the image that a YAML file describes. The path is relative to
// the test package's folder.
func (s *Suite) Load(ctx ginkgo.SpecContext, path string) *images.Image {
	spec, err := images.LoadSpec(ctx, path)
	gomega.ExpectWithOffset(1, err).NotTo(gomega.HaveOccurred())
	return s.Build(ctx, spec)
}

// Build builds the image of a specification, or finds it built already. Its
// kernel is unpacked for the machine, if it can be.
func (s *Suite) Build(ctx ginkgo.SpecContext, spec *images.Spec) *images.Image {
	b := s.builder()
	im, err := b.Build(ctx, spec)
	if err == nil {
		err = b.Unpack(ctx, im)
	}
	gomega.ExpectWithOffset(1, err).NotTo(gomega.HaveOccurred())
	return im
}

// Media makes a medium of an image, or finds it made already. Its kernel is
// told what a plan of the image with the tweaks tells it.
func (s *Suite) Media(ctx ginkgo.SpecContext, im *images.Image, format images.Format, tweaks ...Tweak) *images.Media {
	plan := harness.Plan{Image: im}
	for _, t := range tweaks {
		t(&plan)
	}
	m, err := s.builder().Media(ctx, im, format, plan.KernelCmdline(s.Arch()))
	gomega.ExpectWithOffset(1, err).NotTo(gomega.HaveOccurred())
	return m
}

func (s *Suite) builder() *images.Builder {
	store, err := images.OpenStore(filepath.Join(s.world.Cache, "store"))
	gomega.ExpectWithOffset(2, err).NotTo(gomega.HaveOccurred())
	return &images.Builder{Source: images.Resolve(store), Arch: s.Arch(), Dir: filepath.Join(s.world.Cache, "images")}
}

// slug turns a spec's text into a file name.
func slug(text string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(text) {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '.':
			b.WriteRune(r)
		case b.Len() > 0 && !strings.HasSuffix(b.String(), "-"):
			b.WriteByte('-')
		}
		if b.Len() >= 48 {
			break
		}
	}
	return strings.Trim(b.String(), "-")
}

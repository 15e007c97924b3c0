package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/seatrial/seatrial/reports"
)

// qualifyFlags are what the user says about the run.
type qualifyFlags struct {
	out     string
	procs   int
	focus   string
	labels  string
	install bool
	asJSON  bool
}

func qualifyCommand(o *options) *cobra.Command {
	f := &qualifyFlags{}
	cmd := &cobra.Command{
		Use:   "qualify [package folder]",
		Short: "Run a whole suite of specs and prove every one of them",
		Long: `Installs what is missing (elsewhere than on Debian and Ubuntu: says exactly what),
builds the component images and the image that ships, and runs a suite of Ginkgo
specs, as many at a time as there are CPUs; with --arch, on machines of the other
architecture, which this host emulates. Without a folder the suite is ./cases
of a seatrial checkout; a suite of your own is a Go package that uses
harness/suite.

Report and evidence go to OUT/runs/TIME-PID. OUT/latest leads there as soon as
the report is whole, and to nothing while a run goes on. The exit status is 0 only
if at least one spec ran, every planned one was reported, and all passed; a spec
that skips itself is not proved. Ctrl-C ends the machines and reports what ran,
with status 3; a second one ends it at once.`,
		Example: `  seatrial qualify
  seatrial qualify --focus 'powers off' --procs 1
  seatrial qualify --arch arm64 --label-filter '!media'
  seatrial qualify ./mytests --label-filter '!slow' --out /tmp/trial`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: folders,
		RunE: func(cmd *cobra.Command, args []string) error {
			pkg := "cases"
			if len(args) > 0 {
				pkg = args[0]
			}
			suite, err := findSuite(pkg)
			if err != nil {
				return err
			}
			if f.install {
				if err := o.equip(cmd.Context()); err != nil {
					return err
				}
			}
			return o.qualify(cmd.Context(), suite, f)
		},
	}
	outFlags(cmd, &f.out)
	flags := cmd.Flags()
	flags.IntVar(&f.procs, "procs", runtime.NumCPU(), "specs to run at a time")
	flags.StringVar(&f.focus, "focus", "", "run only specs whose text matches this regular expression")
	flags.StringVar(&f.labels, "label-filter", "", "run only specs whose labels match, in Ginkgo's words")
	flags.BoolVar(&f.install, "install", true, "install what is missing")
	flags.BoolVar(&f.asJSON, "json", false, "print the run as JSON instead of the summary")
	return cmd
}

// findSuite is the absolute folder of a suite's package.
func findSuite(pkg string) (string, error) {
	dir, err := filepath.Abs(pkg)
	if err != nil {
		return "", err
	}
	tests, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err == nil && len(tests) > 0 {
		return dir, nil
	}
	if info, statErr := os.Stat(dir); statErr != nil || !info.IsDir() {
		err = fmt.Errorf("%s: %w", dir, fs.ErrNotExist)
	}
	return "", misuse{errors.Join(fmt.Errorf("no suite in %s; run this in a checkout of seatrial, or name the folder of a Go package with specs. An image alone is proved by: seatrial test image.yml", dir), err)}
}

// equip installs what is missing, or says what to install.
func (o *options) equip(ctx context.Context) error {
	all := needs(o.arch)
	missing := find(all)
	if len(missing) == 0 {
		return nil
	}
	missing, err := installMissing(ctx, all, missing)
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		return sayMissing(all, missing, false)
	}
	return nil
}

// qualify runs the suite in a new run folder. Whatever happens once the folder
// is there, it ends with a report.
func (o *options) qualify(ctx context.Context, suite string, f *qualifyFlags) error {
	if f.procs < 1 {
		return misusef("--procs %d: give 1 or more", f.procs)
	}
	cache, err := o.cacheDir()
	if err != nil {
		return err
	}
	folder, err := newRun(f.out)
	if err != nil {
		return err
	}
	began := time.Now()
	d := newDisplay(os.Stderr)
	d.say("run folder: %s", folder.Dir)
	w := &watch{d: d, path: filepath.Join(folder.Dir, progressFile)}
	failure := o.qualifyIn(ctx, folder.Dir, cache, suite, f, w)
	d.close()
	run, err := concluded(folder.Dir, began, failure, w)
	if err == nil {
		err = reports.WriteAll(folder.Dir, run)
	}
	if err != nil {
		return errors.Join(remedy(err, "--out"), failure, folder.release())
	}
	if err := folder.publish(); err != nil {
		return err
	}
	status := concludeRun(run, f.asJSON)
	fmt.Fprintf(os.Stderr, "report: %s\n", filepath.Join(f.out, "latest", reports.FileHTML))
	if ctx.Err() != nil {
		return exitError{exitInfra}
	}
	return status
}

// qualifyIn prepares everything and runs the suite. Everything temporary, of
// the compilers too, lies below the run's folder: what SIGKILL leaves is there.
func (o *options) qualifyIn(ctx context.Context, dir, cache, suite string, f *qualifyFlags, w *watch) (err error) {
	temp := filepath.Join(dir, "tmp")
	if err := os.Mkdir(temp, 0o755); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(temp)) }()
	if err := os.Setenv("TMPDIR", temp); err != nil {
		return err
	}
	if _, err := o.components(ctx, allComponents(), w.d); err != nil {
		return err
	}
	spec, err := loadSpec(ctx, o.arch, nil)
	if err != nil {
		return err
	}
	if _, err := o.assemble(ctx, spec, w.d); err != nil {
		return err
	}
	binary, ginkgo := filepath.Join(temp, "suite.test"), filepath.Join(temp, "ginkgo")
	w.d.set("suite", "compiling")
	// Both are linked anew each time, a second or two of one CPU.
	programs, compiling := errgroup.WithContext(ctx)
	for _, argv := range [][]string{
		{"go", "build", "-o", ginkgo, "github.com/onsi/ginkgo/v2/ginkgo"},
		{"go", "test", "-c", "-o", binary, "."},
	} {
		programs.Go(func() error { return compile(compiling, suite, argv) })
	}
	if err := programs.Wait(); err != nil {
		return err
	}
	w.d.drop("suite")
	argv := []string{ginkgo, "run", "--no-color", "--procs=" + strconv.Itoa(f.procs)}
	if f.focus != "" {
		argv = append(argv, "--focus="+f.focus)
	}
	if f.labels != "" {
		argv = append(argv, "--label-filter="+f.labels)
	}
	argv = append(argv, binary, "--", "-seatrial.run="+dir, "-seatrial.cache="+cache, "-seatrial.dir="+suite, "-seatrial.arch="+o.arch, "-seatrial.accel="+o.accel, "-seatrial.owned")
	return runSuite(ctx, argv, filepath.Join(dir, ginkgoLog), w)
}

// compile runs the go tool; what it says is part of the error.
func compile(ctx context.Context, dir string, argv []string) error {
	c := exec.CommandContext(ctx, argv[0], argv[1:]...)
	c.Dir = dir
	// An interrupt lets the go tool remove what it had begun.
	c.Cancel = func() error { return c.Process.Signal(os.Interrupt) }
	c.WaitDelay = interruptGrace
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%v in %s: %w\n%s", argv, dir, err, out)
	}
	return nil
}

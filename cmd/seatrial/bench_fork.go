package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/seatrial/seatrial/harness"
	"github.com/seatrial/seatrial/images"
)

// Sizes of the fork group.
const (
	forksPerRun = 20 // with the usual 5 runs: 100 forks
	forksAlive  = 64
	specWorkers = 2
)

// forkGroup measures forks of the image that ships.
func forkGroup() group {
	return group{
		name: "fork",
		about: "forks of the image that ships, on both architectures: from the request to the first answered command, beside QEMU started by hand with the same " +
			"arguments (the floor) and beside a cold boot; isolated specs, each a fork that runs ctr task ls, on two workers; memory of 64 forks alive at once",
		measure: func(ctx context.Context, b *bench) (figures []figure, err error) {
			for _, arch := range archs() {
				f, err := newForks(ctx, b, arch)
				if err != nil {
					return nil, err
				}
				some, err := f.answers(ctx)
				if err != nil {
					return nil, err
				}
				figures = append(figures, some...)
				if arch != "amd64" {
					continue
				}
				specs, err := f.specs(ctx)
				if err != nil {
					return nil, err
				}
				alive, err := f.alive(ctx)
				if err != nil {
					return nil, err
				}
				figures = append(figures, specs, alive)
			}
			return figures, nil
		},
	}
}

// forks makes forks to be measured.
type forks struct {
	b         *bench
	h         harness.Host
	im        *images.Image
	templates *harness.Templates
	dir       string // of the templates

	mu    sync.Mutex
	count int
}

func newForks(ctx context.Context, b *bench, arch string) (*forks, error) {
	o := *b.o
	o.arch = arch
	im, err := o.image(ctx, nil, b.d)
	if err != nil {
		return nil, err
	}
	h, err := o.host(ctx)
	if err != nil {
		return nil, err
	}
	cache, err := o.cacheDir()
	if err != nil {
		return nil, err
	}
	f := &forks{b: b, h: h, im: im, dir: filepath.Join(cache, "templates")}
	f.templates = harness.OpenTemplates(harness.TemplateOptions{Dir: f.dir, Rung: harness.RungRAM})
	return f, nil
}

// plan is of another machine each time; its evidence goes with the bench's.
func (f *forks) plan() harness.Plan {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.count++
	name := fmt.Sprintf("fork-%s-%d", f.h.Arch, f.count)
	return harness.Plan{Name: name, Image: f.im, Dir: filepath.Join(f.b.dir, name)}
}

// with makes a fork for as long as use takes.
func (f *forks) with(ctx context.Context, use func(*harness.Machine) error) error {
	p := f.plan()
	m, err := f.templates.Fork(ctx, f.h, p)
	if err != nil {
		return errors.Join(err, os.RemoveAll(p.Dir))
	}
	err = use(m)
	return errors.Join(err, m.Close(), os.RemoveAll(p.Dir))
}

// run runs a command that must end well.
func run(ctx context.Context, m *harness.Machine, argv ...string) error {
	r, err := m.Exec(ctx, argv...)
	if err == nil && r.Exit != 0 {
		err = errors.New(r.String())
	}
	return err
}

// answers measures forks and the floor by turns, so that both see the same
// host, and cold boots.
func (f *forks) answers(ctx context.Context) ([]figure, error) {
	arch := f.h.Arch
	var hand floor
	err := f.with(ctx, func(m *harness.Machine) (err error) { // makes the template
		hand, err = floorOf(m.PID(), filepath.Join(f.dir, m.Report().Fork.Template, "state"))
		return err
	})
	if err != nil {
		return nil, err
	}
	var ours, theirs, cold []float64
	for i := range forksPerRun * f.b.runs {
		f.b.d.set("bench fork", fmt.Sprintf("%s fork %d of %d", arch, i+1, forksPerRun*f.b.runs))
		began := time.Now()
		err := f.with(ctx, func(m *harness.Machine) error {
			err := run(ctx, m, "@clock")
			ours = append(ours, time.Since(began).Seconds())
			return err
		})
		if err != nil {
			return nil, err
		}
		took, err := hand.answer(ctx)
		if err != nil {
			return nil, fmt.Errorf("QEMU by hand: %w", err)
		}
		theirs = append(theirs, took.Seconds())
	}
	for i := range f.b.runs {
		f.b.d.set("bench fork", fmt.Sprintf("%s cold boot %d of %d", arch, i+1, f.b.runs))
		t, err := timeBoot(ctx, f.h, f.plan())
		if err != nil {
			return nil, err
		}
		cold = append(cold, t.ready.Seconds())
	}
	p50 := median(ours)
	return []figure{
		{Name: "fork.first_answer_ratio." + arch, Value: p50 / median(theirs), Target: "<= 1.25"},
		{Name: "fork.first_answer_p50_s." + arch, Value: p50, Unit: "s"},
		{Name: "fork.first_answer_p99_s." + arch, Value: quantile(ours, 0.99), Unit: "s"},
		{Name: "fork.floor_p50_s." + arch, Value: median(theirs), Unit: "s"},
		{Name: "fork.floor_p99_s." + arch, Value: quantile(theirs, 0.99), Unit: "s"},
		{Name: "fork.vs_cold." + arch, Value: median(cold) / p50, Target: ">= 25"},
	}, nil
}

// quantile is the smallest value that at least the share q of all reach not
// beyond.
func quantile(values []float64, q float64) float64 {
	v := slices.Sorted(slices.Values(values))
	return v[max(int(math.Ceil(q*float64(len(v))))-1, 0)]
}

// specs counts isolated specs per minute.
func (f *forks) specs(ctx context.Context) (figure, error) {
	n := forksPerRun * f.b.runs
	jobs := make(chan int, n)
	for i := range n {
		jobs <- i
	}
	close(jobs)
	var work sync.WaitGroup
	failed := make([]error, specWorkers)
	began := time.Now()
	for w := range specWorkers {
		work.Go(func() {
			for i := range jobs {
				f.b.d.set("bench fork", fmt.Sprintf("spec %d of %d", i+1, n))
				if err := f.with(ctx, f.spec(ctx)); err != nil {
					failed[w] = err
					return
				}
			}
		})
	}
	work.Wait()
	took := time.Since(began)
	return figure{Name: "fork.specs_per_minute", Value: float64(n) / took.Minutes(), Unit: "1/min", Target: ">= 60"}, errors.Join(failed...)
}

// spec asks containerd inside the machine for its tasks.
func (f *forks) spec(ctx context.Context) func(*harness.Machine) error {
	return func(m *harness.Machine) error {
		r, err := m.Exec(ctx, "ctr", "-n", "services.linuxkit", "task", "ls")
		if err == nil && !strings.Contains(r.Stdout, "RUNNING") {
			err = errors.New(r.String())
		}
		return err
	}
}

// alive keeps many forks at once, all of which must answer, and takes the
// proportional memory of each: shared pages count for a share.
func (f *forks) alive(ctx context.Context) (pss figure, err error) {
	var all []*harness.Machine
	defer func() {
		for _, m := range all {
			err = errors.Join(err, m.Close(), os.RemoveAll(m.Dir()))
		}
	}()
	for i := range forksAlive {
		f.b.d.set("bench fork", fmt.Sprintf("%d of %d alive at once", i+1, forksAlive))
		m, err := f.templates.Fork(ctx, f.h, f.plan())
		if err != nil {
			return figure{}, err
		}
		all = append(all, m)
	}
	sum := 0.0
	for _, m := range all {
		if err := run(ctx, m, "@clock"); err != nil {
			return figure{}, err
		}
	}
	for _, m := range all {
		mb, err := pssOf(m.PID())
		if err != nil {
			return figure{}, err
		}
		sum += mb
	}
	return figure{Name: "fork.pss_mb", Value: sum / forksAlive, Unit: "MB"}, nil
}

// pssOf reads a process's proportional set size in megabytes (proc(5)).
func pssOf(pid int) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "Pss:" {
			kib, err := strconv.ParseFloat(fields[1], 64)
			return kib * 1024 / 1e6, err
		}
	}
	return 0, fmt.Errorf("no Pss in /proc/%d/smaps_rollup", pid)
}

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/seatrial/seatrial/boot"
	"github.com/seatrial/seatrial/harness"
	"github.com/seatrial/seatrial/reports"
)

// Sizes of the soak group; with the usual 5 runs 1000 forks and 50 cold boots.
const (
	soakForksPerRun = 200
	soakBootsPerRun = 10
)

// soakGroup looks for what goes wrong once in a thousand times.
func soakGroup() group {
	return group{
		name: "soak",
		about: "with 5 runs 1000 forks and 50 cold boots in a row, each of which must end as it was made to: alive, panicked, reset, QEMU killed, no root; " +
			"verdicts that were others, and processes, descriptors and files that were left",
		measure: func(ctx context.Context, b *bench) ([]figure, error) {
			f, err := newForks(ctx, b, "amd64")
			if err != nil {
				return nil, err
			}
			if err := f.with(ctx, forkFates[0].check(ctx)); err != nil { // makes the template
				return nil, err
			}
			before, err := f.belongings()
			if err != nil {
				return nil, err
			}
			wrong := 0
			note := func(n int, fate fate, err error) {
				if err != nil && ctx.Err() == nil {
					wrong++
					fmt.Fprintf(os.Stderr, "soak: machine %d, %s: %v\n", n, fate.name, err)
				}
			}
			forks, boots := soakForksPerRun*b.runs, soakBootsPerRun*b.runs
			for i := range forks {
				b.d.set("bench soak", fmt.Sprintf("fork %d of %d", i+1, forks))
				fate := forkFates[i%len(forkFates)]
				note(i, fate, f.with(ctx, fate.check(ctx)))
				if err := ctx.Err(); err != nil {
					return nil, err
				}
			}
			for i := range boots {
				b.d.set("bench soak", fmt.Sprintf("boot %d of %d", i+1, boots))
				fate := bootFates[i%len(bootFates)]
				note(i, fate, f.boot(ctx, fate))
				if err := ctx.Err(); err != nil {
					return nil, err
				}
			}
			after, err := f.belongings()
			if err != nil {
				return nil, err
			}
			leaks := 0
			for what, n := range after {
				if n > before[what] {
					fmt.Fprintf(os.Stderr, "soak: %d %s before, %d after\n", before[what], what, n)
					leaks += n - before[what]
				}
			}
			return []figure{
				{Name: "soak.wrong_verdicts", Value: float64(wrong), Target: "0"},
				{Name: "soak.leaks", Value: float64(leaks), Target: "0"},
			}, nil
		},
	}
}

// fate is what is done to a machine, and the verdict it must lead to.
type fate struct {
	name  string
	plan  func(*harness.Plan)                           // nil: nothing
	do    func(context.Context, *harness.Machine) error // nil: nothing
	class reports.Class                                 // empty: nothing may be held against the machine
	title string                                        // a part of the verdict's
}

// sysrq gives the kernel a command that it may not survive to answer.
func sysrq(key string) func(context.Context, *harness.Machine) error {
	return func(ctx context.Context, m *harness.Machine) error {
		var died *harness.Failure
		if _, err := m.Exec(ctx, "@append", "/proc/sysrq-trigger", key); err != nil && !errors.As(err, &died) {
			return err
		}
		return nil
	}
}

var forkFates = []fate{
	{name: "left alone"},
	{name: "made to panic", do: sysrq("c"), class: reports.Guest, title: "kernel panic: sysrq triggered crash"},
	{name: "made to reset", do: sysrq("b"), class: reports.Guest, title: "the machine reset"},
	{name: "killed", do: func(_ context.Context, m *harness.Machine) error { return syscall.Kill(m.PID(), syscall.SIGKILL) },
		class: reports.Infra, title: "SIGKILL"},
}

var bootFates = []fate{
	{name: "booted and powered off", do: func(ctx context.Context, m *harness.Machine) error {
		return errors.Join(m.Await(ctx, boot.Ready), m.PowerOff(ctx))
	}},
	{name: "without an initramfs", plan: func(p *harness.Plan) { p.NoInitrd = true }, class: reports.Guest, title: "no root file system"},
}

// check does to a machine what is to be done, and compares the verdict.
func (f fate) check(ctx context.Context) func(*harness.Machine) error {
	return func(m *harness.Machine) error {
		if f.do != nil {
			if err := f.do(ctx, m); err != nil {
				return err
			}
		}
		if f.class == "" {
			if v := m.Verdict(); v != nil {
				return v
			}
			return nil
		}
		err := m.Await(ctx, boot.Off)
		var v *harness.Failure
		if !errors.As(err, &v) || v.Class != f.class || !strings.Contains(v.Title, f.title) {
			return fmt.Errorf("the verdict should be %s: %s, and is: %w", f.class, f.title, err)
		}
		return nil
	}
}

// boot boots a machine and sees it to its fate.
func (f *forks) boot(ctx context.Context, fate fate) error {
	p := f.plan()
	if fate.plan != nil {
		fate.plan(&p)
	}
	m, err := harness.Boot(ctx, f.h, p)
	if err != nil {
		return errors.Join(err, os.RemoveAll(p.Dir))
	}
	err = fate.check(ctx)(m)
	return errors.Join(err, m.Close(), os.RemoveAll(p.Dir))
}

// belongings counts what a machine could leave behind.
func (f *forks) belongings() (map[string]int, error) {
	out := map[string]int{}
	for what, pattern := range map[string]string{
		"descriptors":    "/proc/self/fd/*",
		"files":          filepath.Join(f.b.dir, "*"),
		"template files": filepath.Join(f.dir, "*"),
	} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return nil, err
		}
		out[what] = len(found)
	}
	tasks, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		return nil, err
	}
	for _, path := range tasks {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // the thread has just ended, and had none
		}
		for _, pid := range strings.Fields(string(b)) {
			if _, err := strconv.Atoi(pid); err == nil {
				out["processes"]++
			}
		}
	}
	return out, nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/seatrial/seatrial/boot"
	"github.com/seatrial/seatrial/harness"
	"github.com/seatrial/seatrial/images"
)

// initYAML is the image that the group init boots: two services and nothing
// else that takes time. Onboot containers are left out, because the floor has
// no equivalent of running them.
const initYAML = `
kernel:
  image: seatrial/kernel
  cmdline: "console=ttyS0 printk.devkmsg=on"
init:
  - seatrial/init
  - seatrial/crun
  - seatrial/containerd
services:
  - name: getty
    image: seatrial/getty
  - name: web
    image: seatrial/web
`

// floorPackage is the program that the shipped init is measured against.
const floorPackage = "github.com/seatrial/seatrial/boot/guest/cmd/floor"

// initGroup measures the shipped init beside the least that brings the same
// services up.
func initGroup() group {
	return group{
		name:    "init",
		about:   "the shipped init, 1 CPU and 1024 MiB: from the kernel's \"Run /init\" to all services running, as a multiple of what a program takes that does nothing else; from the request to the end of QEMU; size and memory of PID 1",
		measure: measureInit,
	}
}

func measureInit(ctx context.Context, b *bench) ([]figure, error) {
	h, err := b.o.host(ctx)
	if err != nil {
		return nil, err
	}
	ours, floor, err := initImages(ctx, b)
	if err != nil {
		return nil, err
	}
	var ratio, off, rss, size []float64
	for i := range b.runs {
		b.d.set("bench init", fmt.Sprintf("pair %d of %d", i+1, b.runs))
		f, err := timeInit(ctx, h, plainPlan(b, floor, fmt.Sprintf("floor-%d", i+1)), boot.Ready)
		if err != nil {
			return nil, err
		}
		o, err := timeInit(ctx, h, plainPlan(b, ours, fmt.Sprintf("init-%d", i+1)), boot.Services)
		if err != nil {
			return nil, err
		}
		// Beside each other in time: what slows the host down slows both.
		ratio = append(ratio, o.up.Seconds()/f.up.Seconds())
		off, rss, size = append(off, o.off.Seconds()), append(rss, o.rss), append(size, o.size)
	}
	return []figure{
		{Name: "init.services_up_ratio", Value: median(ratio), Unit: "x", Target: "<= 1.3"},
		{Name: "init.poweroff_s", Value: median(off), Unit: "s", Target: "<= 1.9"},
		{Name: "init.binary_mb", Value: median(size), Unit: "MB", Target: "<= 4"},
		{Name: "init.rss_mb", Value: median(rss), Unit: "MB", Target: "<= 12"},
	}, nil
}

func plainPlan(b *bench, im *images.Image, name string) harness.Plan {
	return harness.Plan{Name: name, Image: im, Dir: filepath.Join(b.dir, name)}
}

// initImages builds the two images; they differ in /init and /sbin/init alone.
func initImages(ctx context.Context, b *bench) (ours, floor *images.Image, err error) {
	yaml := filepath.Join(b.dir, "init.yml")
	if err := os.WriteFile(yaml, []byte(initYAML), 0o644); err != nil {
		return nil, nil, err
	}
	if ours, err = b.o.image(ctx, []string{yaml}, b.d); err != nil {
		return nil, nil, err
	}
	program := filepath.Join(b.dir, "floor")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, floorPackage)
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+b.o.arch)
	if out, err := build.CombinedOutput(); err != nil {
		return nil, nil, fmt.Errorf("building the floor (run this in the module): %w\n%s", err, out)
	}
	text := initYAML + "files:\n"
	for _, path := range []string{"/init", boot.InitPath} {
		text += fmt.Sprintf("  - path: %s\n    source: %s\n    mode: \"0755\"\n", path, program)
	}
	yaml = filepath.Join(b.dir, "floor.yml")
	if err := os.WriteFile(yaml, []byte(text), 0o644); err != nil {
		return nil, nil, err
	}
	floor, err = b.o.image(ctx, []string{yaml}, b.d)
	return ours, floor, err
}

// initTimes are those of one boot: from the kernel's start of /init on.
type initTimes struct {
	up   time.Duration // to the milestone
	off  time.Duration // of a power-off; only of a machine with an agent
	rss  float64       // MB of PID 1
	size float64       // MB of its program
}

var (
	runInit = regexp.MustCompile(`^\[ *(\d+\.\d+)\] Run /init as init process`)
	vmRSS   = regexp.MustCompile(`(?m)^VmRSS:\s+(\d+) kB`)
)

// timeInit boots a machine to the milestone. All times are the guest's own.
func timeInit(ctx context.Context, h harness.Host, p harness.Plan, at boot.Milestone) (t initTimes, err error) {
	m, err := harness.Boot(ctx, h, p)
	if err != nil {
		return t, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	if err := m.Await(ctx, at); err != nil {
		return t, err
	}
	e, _ := m.Console().Milestone(at)
	if t.up, err = sinceInit(m, e.Up); err != nil || at == boot.Ready {
		return t, err
	}
	if err := m.Await(ctx, boot.Ready); err != nil {
		return t, err
	}
	status, err := m.Exec(ctx, "@cat", "/proc/1/status")
	if err != nil {
		return t, err
	}
	program, err := m.Exec(ctx, "@stat", boot.InitPath)
	if err != nil {
		return t, err
	}
	kB, size := vmRSS.FindStringSubmatch(status.Stdout), strings.Fields(program.Stdout)
	if kB == nil || len(size) < 4 {
		return t, fmt.Errorf("no memory or size of PID 1 in:\n%s\n%s", status, program)
	}
	n, err := strconv.ParseFloat(kB[1], 64)
	if err != nil {
		return t, err
	}
	bytes, err := strconv.ParseFloat(size[3], 64)
	if err != nil {
		return t, err
	}
	t.rss, t.size = n*1024/1e6, bytes/1e6
	asked := time.Now()
	err = m.PowerOff(ctx)
	t.off = time.Since(asked)
	return t, err
}

// sinceInit is the time between the kernel's line and a moment by its clock.
func sinceInit(m *harness.Machine, up time.Duration) (time.Duration, error) {
	for _, l := range m.Console().Lines() {
		if found := runInit.FindStringSubmatch(l.Text); found != nil {
			s, err := strconv.ParseFloat(found[1], 64)
			return up - time.Duration(s*float64(time.Second)), err
		}
	}
	return 0, errors.New(`the kernel never said "Run /init": is its log level too low?`)
}

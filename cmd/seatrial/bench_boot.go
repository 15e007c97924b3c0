package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/seatrial/seatrial/boot"
	"github.com/seatrial/seatrial/harness"
)

// referenceYAML has what the image had on which LinuxKit's own chain was timed:
// 12.7 s at best from the start of QEMU to its service, on a machine of the kind
// that the figures in docs/benchmarks.md come from.
const referenceYAML = `
kernel:
  image: seatrial/kernel
  cmdline: "console=ttyS0 cryptomgr.notests init_on_alloc=0 norandmaps"
init:
  - seatrial/init
  - seatrial/crun
  - seatrial/containerd
onboot:
  - name: hello
    image: seatrial/busybox
    command: ["/bin/echo", "hello"]
services:
  - name: web
    image: seatrial/web
`

// bootGroup measures a cold boot of the image that ships.
func bootGroup() group {
	return group{
		name: "boot",
		about: "cold boot of the image that ships, 1 CPU and 1024 MiB: from the start of QEMU to the kernel's \"Run /init\" and to ready, and from the request to power off to the end of QEMU; " +
			"the time to ready beside that with the CPU model \"max\", and to \"Run /init\" beside that with the loader packed with the kernel; the same with 2 CPUs; and of an image with one onboot container and one service, for which LinuxKit's own chain takes 12.7 s",
		measure: measureBoot,
	}
}

func measureBoot(ctx context.Context, b *bench) ([]figure, error) {
	im, err := b.o.image(ctx, nil, b.d)
	if err != nil {
		return nil, err
	}
	yaml := filepath.Join(b.dir, "reference.yml")
	if err := os.WriteFile(yaml, []byte(referenceYAML), 0o644); err != nil {
		return nil, err
	}
	reference, err := b.o.image(ctx, []string{yaml}, b.d)
	if err != nil {
		return nil, err
	}
	h, err := b.o.host(ctx)
	if err != nil {
		return nil, err
	}
	spec, err := loadSpec(ctx, b.o.arch, nil)
	if err != nil {
		return nil, err
	}
	packed, err := b.o.imageOf(ctx, spec, b.d) // its kernel is not unpacked
	if err != nil {
		return nil, err
	}
	most := h
	most.Accel.CPU = "max"
	kinds := []struct {
		name string
		host harness.Host
		plan harness.Plan
	}{
		{"default", h, harness.Plan{Image: im}},
		{"max", most, harness.Plan{Image: im}},
		{"two", h, harness.Plan{Image: im, CPUs: 2}},
		{"packed", h, harness.Plan{Image: packed}},
		{"reference", h, harness.Plan{Image: reference}},
	}
	ready, init := map[string][]float64{}, map[string][]float64{}
	var off []float64
	for i := range b.runs {
		b.d.set("bench boot", fmt.Sprintf("round %d of %d", i+1, b.runs))
		for j := range kinds { // in turns, so that a host that slows down does so to all, and none is always the first
			k := kinds[(i+j)%len(kinds)]
			k.plan.Name = fmt.Sprintf("boot-%s-%d", k.name, i+1)
			k.plan.Dir = filepath.Join(b.dir, k.plan.Name)
			t, err := timeBoot(ctx, k.host, k.plan)
			if err != nil {
				return nil, err
			}
			ready[k.name], init[k.name] = append(ready[k.name], t.ready.Seconds()), append(init[k.name], t.init.Seconds())
			if k.name == "default" {
				off = append(off, t.off.Seconds())
			}
		}
	}
	return []figure{
		{Name: "boot.init_s", Value: median(init["default"]), Unit: "s"},
		{Name: "boot.ready_s", Value: median(ready["default"]), Unit: "s"},
		{Name: "boot.ready_2cpus_s", Value: median(ready["two"]), Unit: "s"},
		{Name: "boot.reference_s", Value: median(ready["reference"]), Unit: "s", Target: "<= 6.35"},
		{Name: "boot.poweroff_s", Value: median(off), Unit: "s"},
		{Name: "boot.init_to_packed", Value: median(init["default"]) / median(init["packed"]), Unit: "ratio"},
		{Name: "boot.ready_to_cpu_max", Value: median(ready["default"]) / median(ready["max"]), Unit: "ratio"},
	}, nil
}

// bootTimes are those of one boot.
type bootTimes struct{ init, ready, off time.Duration }

// timeBoot boots a machine and powers it off.
func timeBoot(ctx context.Context, h harness.Host, p harness.Plan) (t bootTimes, err error) {
	start := time.Now()
	m, err := harness.Boot(ctx, h, p)
	if err != nil {
		return t, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	if err := m.Await(ctx, boot.Ready); err != nil {
		return t, err
	}
	asked := time.Now()
	if err := m.PowerOff(ctx); err != nil {
		return t, err
	}
	t.off = time.Since(asked)
	// The console counts from the moment the paused QEMU was resumed.
	paused := m.Report().Began.Sub(start)
	for _, mark := range m.Console().Marks() {
		if mark.At == boot.Ready && mark.Unit == "" {
			t.ready = paused + mark.Time
		}
	}
	for _, l := range m.Console().Lines() {
		if strings.Contains(l.Text, "Run /init as init process") {
			t.init = paused + l.At
			return t, nil
		}
	}
	return t, errors.New(`the kernel never said "Run /init": is its log level too low?`)
}

package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/seatrial/seatrial/boot"
	"github.com/seatrial/seatrial/harness"
)

// bootGroup measures a cold boot of the image that ships.
func bootGroup() group {
	return group{
		name:  "boot",
		about: "cold boot of the image that ships, 1 CPU and 1024 MiB: from the start of QEMU to the kernel's \"Run /init\" and to ready, and from the request to power off to the end of QEMU; and the time to ready beside that with the CPU model \"max\"",
		measure: func(ctx context.Context, b *bench) ([]figure, error) {
			im, err := b.o.image(ctx, nil, b.d)
			if err != nil {
				return nil, err
			}
			h, err := b.o.host(ctx)
			if err != nil {
				return nil, err
			}
			var init, ready, off, most []float64
			for i := range b.runs {
				b.d.set("bench boot", fmt.Sprintf("boot %d of %d", i+1, b.runs))
				name := fmt.Sprintf("boot-%d", i+1)
				t, err := timeBoot(ctx, h, harness.Plan{Name: name, Image: im, Dir: filepath.Join(b.dir, name)})
				if err != nil {
					return nil, err
				}
				init, ready, off = append(init, t.init.Seconds()), append(ready, t.ready.Seconds()), append(off, t.off.Seconds())
				// In turns, so that a host that slows down does so to both.
				max := h
				max.Accel.CPU = "max"
				if t, err = timeBoot(ctx, max, harness.Plan{Name: name, Image: im, Dir: filepath.Join(b.dir, name+"-max")}); err != nil {
					return nil, err
				}
				most = append(most, t.ready.Seconds())
			}
			return []figure{
				{Name: "boot.init_s", Value: median(init), Unit: "s"},
				{Name: "boot.ready_s", Value: median(ready), Unit: "s"},
				{Name: "boot.poweroff_s", Value: median(off), Unit: "s"},
				{Name: "boot.ready_to_cpu_max", Value: median(ready) / median(most), Unit: "ratio"},
			}, nil
		},
	}
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

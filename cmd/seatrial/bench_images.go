package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/seatrial/seatrial/images"
)

// imagesGroup measures the builder on made-up roots of several sizes.
func imagesGroup() group {
	return group{
		name: "images",
		about: "kernel+initrd of a made-up root of 200 MB whose blobs are in the local layout: built for the first time (a process of its own), " +
			"with one file changed and with nothing changed; and how time and peak memory grow with roots of 10, 100 and 1000 MB",
		measure: func(ctx context.Context, b *bench) ([]figure, error) {
			again, err := b.rebuilds(ctx, 200)
			if err != nil {
				return nil, err
			}
			grown, err := b.growth(ctx, []int{10, 100, 1000})
			return append(again, grown...), err
		},
	}
}

const imagesCommand = "seatrial bench images"

// rebuilds measures builds of a root with everything at hand.
func (b *bench) rebuilds(ctx context.Context, megabytes int) ([]figure, error) {
	kitchen, err := b.kitchen(ctx, megabytes)
	if err != nil {
		return nil, err
	}
	var first, one, none []float64
	for i := range b.runs {
		took, _, err := kitchen.child(ctx)
		if err != nil {
			return nil, err
		}
		first = append(first, took.Seconds())
		if took, err = kitchen.build(ctx, fmt.Sprintf("changed %d", i)); err != nil {
			return nil, err
		}
		one = append(one, took.Seconds())
		if took, err = kitchen.build(ctx, fmt.Sprintf("changed %d", i)); err != nil {
			return nil, err
		}
		none = append(none, float64(took.Microseconds())/1000)
	}
	return []figure{
		{"images.first_build_s", median(first), "s", "<= 2.9", imagesCommand},
		{"images.one_file_s", median(one), "s", "<= 1", imagesCommand},
		{"images.rebuild_nochange_ms", median(none), "ms", "<= 100", imagesCommand},
	}, nil
}

// growth measures first builds of roots of several sizes. The slope of time is
// taken between the smallest and the largest.
func (b *bench) growth(ctx context.Context, sizes []int) ([]figure, error) {
	var figures []figure
	var times []float64
	worst := 0.0
	for _, size := range sizes {
		kitchen, err := b.kitchen(ctx, size)
		if err != nil {
			return nil, err
		}
		took, peak, err := kitchen.child(ctx)
		if err == nil {
			err = os.RemoveAll(kitchen.dir)
		}
		if err != nil {
			return nil, err
		}
		times = append(times, took.Seconds())
		worst = max(worst, peak)
		figures = append(figures,
			figure{fmt.Sprintf("images.build_%dmb_s", size), took.Seconds(), "s", "", imagesCommand},
			figure{fmt.Sprintf("images.peak_%dmb_mb", size), peak, "MB", "", imagesCommand})
	}
	last := len(sizes) - 1
	slope := (times[last] - times[0]) / float64(sizes[last]-sizes[0]) * 100
	return append(figures,
		figure{"images.build_s_per_100mb", slope, "s", "", imagesCommand},
		figure{"images.peak_mb", worst, "MB", "<= 212", imagesCommand}), nil
}

// kitchen is a cache with component images and the YAML that uses them.
type kitchen struct{ dir, yaml, arch string }

// kitchen makes one with a root of a size.
func (b *bench) kitchen(ctx context.Context, megabytes int) (*kitchen, error) {
	k := &kitchen{arch: b.o.arch, dir: filepath.Join(b.dir, fmt.Sprintf("root-%d", megabytes))}
	store, err := images.OpenStore(filepath.Join(k.dir, "store"))
	if err != nil {
		return nil, err
	}
	kernel, err := madeUp(b.o.arch, map[string]int{"kernel": 10 << 20}, 0)
	if err != nil {
		return nil, err
	}
	root, err := madeUp(b.o.arch, nil, megabytes)
	if err != nil {
		return nil, err
	}
	k.yaml = filepath.Join(k.dir, "bench.yml")
	text := "kernel: {image: \"bench/kernel:1\", tar: none}\ninit: [\"bench/root:1\"]\nfiles: [{path: /etc/one, source: one, mode: \"0644\"}]\n"
	return k, errors.Join(store.Put(ctx, "bench/kernel:1", kernel), store.Put(ctx, "bench/root:1", root),
		os.WriteFile(k.yaml, []byte(text), 0o644), os.WriteFile(filepath.Join(k.dir, "one"), []byte("first"), 0o644))
}

// child builds in a process of its own with no image in its cache, and tells
// how long that took and what memory it had at most, in MB.
func (k *kitchen) child(ctx context.Context) (time.Duration, float64, error) {
	self, err := os.Executable()
	if err != nil {
		return 0, 0, err
	}
	if err := errors.Join(os.RemoveAll(filepath.Join(k.dir, "images")), os.RemoveAll(filepath.Join(k.dir, "out"))); err != nil {
		return 0, 0, err
	}
	cmd := exec.CommandContext(ctx, self, "build", k.yaml, "--cache", k.dir, "--arch", k.arch, "-o", filepath.Join(k.dir, "out"))
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, 0, err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	// What the system tells of an ended process includes the memory of the one
	// that started it, so the mark is read while it runs: it only ever rises.
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	peak := 0.0
	for {
		select {
		case err := <-done:
			took := time.Since(start)
			if err != nil {
				return 0, 0, fmt.Errorf("%w: %s", err, said.String())
			}
			return took, peak, nil
		case <-tick.C:
			peak = max(peak, highWater(cmd.Process.Pid))
		}
	}
}

// highWater is the most memory a process has had, in MB; 0 if it is gone.
func highWater(pid int) float64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	var kb float64
	if _, err := fmt.Sscan(rest, &kb); err != nil {
		return 0
	}
	return kb / 1024
}

// build builds in this process, with the one file changed to contents.
func (k *kitchen) build(ctx context.Context, contents string) (time.Duration, error) {
	if err := os.WriteFile(filepath.Join(k.dir, "one"), []byte(contents), 0o644); err != nil {
		return 0, err
	}
	start := time.Now()
	store, err := images.OpenStore(filepath.Join(k.dir, "store"))
	if err != nil {
		return 0, err
	}
	spec, err := images.LoadSpec(ctx, k.yaml)
	if err != nil {
		return 0, err
	}
	b := &images.Builder{Source: images.Resolve(store), Arch: k.arch, Dir: filepath.Join(k.dir, "images")}
	_, err = b.Build(ctx, spec)
	return time.Since(start), err
}

// madeUp is an image of named files, and of as many files of 64 KiB as make up
// a size. Half of each is noise, so that it packs about as programs do; the
// noise is the same every time.
func madeUp(arch string, named map[string]int, megabytes int) (v1.Image, error) {
	const size = 64 << 10
	img, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{OS: "linux", Architecture: arch, RootFS: v1.RootFS{Type: "layers"}})
	if err != nil {
		return nil, err
	}
	write := func(w *tar.Writer) error {
		noise := rand.NewChaCha8([32]byte{1})
		add := func(name string, n int) error {
			if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(n)}); err != nil {
				return err
			}
			data := make([]byte, n)
			_, _ = noise.Read(data[:n/2]) // never fails
			_, err := w.Write(data)
			return err
		}
		for name, n := range named {
			if err := add(name, n); err != nil {
				return err
			}
		}
		for i := range megabytes << 20 / size {
			if err := add(fmt.Sprintf("usr/lib/%02d/%05d", i%64, i), size); err != nil {
				return err
			}
		}
		return w.Close()
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		r, w := io.Pipe()
		go func() { w.CloseWithError(write(tar.NewWriter(w))) }() // ends with the reader
		return r, nil
	}, tarball.WithCompressionLevel(gzip.BestSpeed)) // it is packed three times: for digest, size and contents
	if err != nil {
		return nil, err
	}
	return mutate.AppendLayers(img, layer)
}

package main

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/zstd"

	"github.com/seatrial/seatrial/harness"
	"github.com/seatrial/seatrial/images"
)

// mediaGroup measures what the form of the root costs the guest.
func mediaGroup() group {
	return group{
		name: "media",
		about: "cold boot of the image that ships with its initramfs uncompressed (the default), packed with gzip and with zstd, and with a squashfs root: " +
			"from the start of QEMU to \"Run /init\" and to ready",
		measure: func(ctx context.Context, b *bench) ([]figure, error) {
			im, err := b.o.image(ctx, nil, b.d)
			if err != nil {
				return nil, err
			}
			h, err := b.o.host(ctx)
			if err != nil {
				return nil, err
			}
			forms, err := b.forms(ctx, im)
			if err != nil {
				return nil, err
			}
			init, ready := map[string][]float64{}, map[string][]float64{}
			for i := range b.runs {
				for _, f := range forms { // in turns, so that a host that slows down does so to all
					b.d.set("bench media", fmt.Sprintf("%s, boot %d of %d", f.name, i+1, b.runs))
					plan := f.plan
					plan.Name = fmt.Sprintf("media-%s-%d", f.name, i+1)
					plan.Dir = filepath.Join(b.dir, plan.Name)
					t, err := timeBoot(ctx, h, plan)
					if err != nil {
						return nil, err
					}
					init[f.name], ready[f.name] = append(init[f.name], t.init.Seconds()), append(ready[f.name], t.ready.Seconds())
				}
			}
			var figures []figure
			for _, f := range forms {
				figures = append(figures,
					figure{Name: "media.init_" + f.name + "_s", Value: median(init[f.name]), Unit: "s"},
					figure{Name: "media.ready_" + f.name + "_s", Value: median(ready[f.name]), Unit: "s"})
			}
			return figures, nil
		},
	}
}

// form is a way to hand over the root.
type form struct {
	name string
	plan harness.Plan
}

func (b *bench) forms(ctx context.Context, im *images.Image) ([]form, error) {
	forms := []form{{"raw", harness.Plan{Image: im}}}
	for _, p := range []struct {
		name string
		pack func(io.Writer) (io.WriteCloser, error)
	}{
		{"gzip", func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriterLevel(w, gzip.DefaultCompression) }},
		{"zstd", func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) }},
	} {
		packed := *im
		packed.InitrdPath = filepath.Join(b.dir, "initrd."+p.name)
		if err := packFile(im.InitrdPath, packed.InitrdPath, p.pack); err != nil {
			return nil, err
		}
		forms = append(forms, form{p.name, harness.Plan{Image: &packed}})
	}
	made, err := b.o.media(ctx, im, []images.Format{images.KernelSquashfs}, b.d)
	if err != nil {
		return nil, err
	}
	return append(forms, form{"squashfs", harness.Plan{Image: im, Media: made[0]}}), nil
}

func packFile(from, to string, pack func(io.Writer) (io.WriteCloser, error)) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	z, err := pack(out)
	if err != nil {
		return err
	}
	_, err = io.Copy(z, in)
	return errors.Join(err, z.Close())
}

package main

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/seatrial/seatrial/harness"
	"github.com/seatrial/seatrial/images"
)

// mediaGroup measures what the form of the root costs the guest.
func mediaGroup() group {
	return group{
		name: "media",
		about: "cold boot of the image that ships, for each architecture, with its initramfs uncompressed (none, the default), packed with gzip and with zstd, and with a squashfs root: " +
			"from the start of QEMU to \"Run /init\" (with a squashfs that of the small initramfs before it) and to ready",
		measure: func(ctx context.Context, b *bench) ([]figure, error) {
			var figures []figure
			for _, arch := range archs() {
				found, err := b.forms(ctx, arch)
				if err != nil {
					return nil, fmt.Errorf("%s: %w", arch, err)
				}
				figures = append(figures, found...)
			}
			return figures, nil
		},
	}
}

// rootForm is a way to hand over the root.
type rootForm struct {
	name   string
	format images.Format
}

func rootForms() []rootForm {
	return []rootForm{{"none", images.KernelInitrd}, {"gzip", images.KernelGzip}, {"zstd", images.KernelZstd}, {"squashfs", images.KernelSquashfs}}
}

// forms measures all forms on one architecture.
func (b *bench) forms(ctx context.Context, arch string) ([]figure, error) {
	o := *b.o
	o.arch = arch
	h, err := o.host(ctx)
	if err != nil {
		return nil, err
	}
	im, err := o.image(ctx, nil, b.d)
	if err != nil {
		return nil, err
	}
	forms := rootForms()
	var list []images.Format
	for _, f := range forms {
		list = append(list, f.format)
	}
	made, err := o.media(ctx, im, list, "", b.d)
	if err != nil {
		return nil, err
	}
	init, ready := map[string][]float64{}, map[string][]float64{}
	for i := range b.runs {
		for j, f := range forms { // in turns, so that a host that slows down does so to all
			b.d.set("bench media", fmt.Sprintf("%s, %s, boot %d of %d", arch, f.name, i+1, b.runs))
			name := fmt.Sprintf("media-%s-%s-%d", arch, f.name, i+1)
			t, err := timeBoot(ctx, h, harness.Plan{Name: name, Image: im, Media: made[j], Dir: filepath.Join(b.dir, name)})
			if err != nil {
				return nil, fmt.Errorf("%s: %w", f.name, err)
			}
			init[f.name], ready[f.name] = append(init[f.name], t.init.Seconds()), append(ready[f.name], t.ready.Seconds())
		}
	}
	b.d.drop("bench media")
	var figures []figure
	for _, f := range forms {
		figures = append(figures,
			figure{Name: fmt.Sprintf("media.init_s.%s.%s", arch, f.name), Value: median(init[f.name]), Unit: "s"},
			figure{Name: fmt.Sprintf("media.ready_s.%s.%s", arch, f.name), Value: median(ready[f.name]), Unit: "s"})
	}
	return figures, nil
}

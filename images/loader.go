package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
)

// LoaderName is the component that UEFI media take their boot loader from:
// media are made for either architecture on any host, and two hosts with other
// packages installed make the same.
const LoaderName = "efi"

// What is in it, by path.
const (
	DiskLoader = "boot/systemd-boot.efi" // for disks and CDs
	NetLoader  = "boot/grubnet.efi"      // for network boot
)

// NeedsLoader reports whether media of the format hold a boot loader of the
// component [LoaderName], which must be in the store to make one.
func (f Format) NeedsLoader(arch string) bool {
	row, err := f.row()
	return err == nil && slices.Contains(row.loader, arch)
}

// loader finds the component with the boot loaders.
func (b *Builder) loader(ctx context.Context, arch string) (*component, error) {
	if b.Source == nil {
		return nil, errors.New("it has a boot loader in it, and the builder has no source of images")
	}
	return b.component(ctx, Own+LoaderName, arch)
}

// bootLoader writes a boot loader into the medium's folder.
func (m *mastering) bootLoader(from, to string) (err error) {
	spool, err := newSpool(m.dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, spool.file.Close()) }()
	f, err := flatten(m.ctx, m.loader.image, spool)
	if err != nil {
		return fmt.Errorf("image %s: %w", m.loader.ref, err)
	}
	e := f.tree.resolve(from)
	if e == nil || !e.is(typeFile) {
		return fmt.Errorf("image %s has no file %s", m.loader.ref, from)
	}
	_, err = create(m.ctx, m.path(to), func(w io.Writer) error {
		_, err := io.Copy(w, io.NewSectionReader(e.data, 0, e.size))
		return err
	})
	return err
}

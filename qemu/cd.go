package qemu

import (
	"context"
	"fmt"
	"os"
	"strconv"
)

func cdID(i int) string { return "cdrom" + strconv.Itoa(i) }

// CDSource is the n-th CD's file as it stands in a command line.
func CDSource(path string) string { return "file=" + escape(path) }

// cdArgs make a SCSI controller with a drive for each CD. Neither board has
// another that takes so many: amd64's own is for six disks, arm64 has none.
func (c Config) cdArgs() []string {
	if len(c.CDs) == 0 {
		return nil
	}
	args := []string{"-device", "virtio-scsi-pci,id=cds"}
	for i, path := range c.CDs {
		device := fmt.Sprintf("scsi-cd,bus=cds.0,scsi-id=%d,id=%s", i, cdID(i))
		if path != "" {
			args = append(args, "-drive", fmt.Sprintf("if=none,id=cd%d,media=cdrom,readonly=on,format=raw,%s", i, CDSource(path)))
			device += fmt.Sprintf(",drive=cd%d", i)
		}
		args = append(args, "-device", device)
	}
	return args
}

// maxCDs is how many targets QEMU's virtio-scsi has (VIRTIO_SCSI_MAX_TARGET,
// hw/scsi/virtio-scsi.c) and more than anybody needs.
const maxCDs = 255

func (c Config) checkCDs(bad func(format string, args ...any)) {
	if len(c.CDs) > maxCDs {
		bad("%d CDs; a machine can have %d", len(c.CDs), maxCDs)
	}
	for i, path := range c.CDs {
		if path == "" {
			continue
		}
		if err := readableFile(path); err != nil {
			bad("CD %d: %w", i, err)
		}
	}
}

// readableFile says why a file cannot be read; nil: it can.
func readableFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return f.Close()
}

// ChangeCD puts another CD into the n-th drive (from 0) of the running machine,
// or only takes out what is in it, with an empty path. It does so by force, as
// with a paper clip: a guest that has locked the drive is not asked.
func (v *VM) ChangeCD(ctx context.Context, n int, path string) error {
	if n < 0 || n >= len(v.config.CDs) {
		return fmt.Errorf("qemu: there is no CD drive %d; there are %d, from 0", n, len(v.config.CDs))
	}
	if path == "" {
		return v.qmp.Do(ctx, "eject", map[string]any{"id": cdID(n), "force": true}, nil)
	}
	if err := readableFile(path); err != nil {
		return fmt.Errorf("qemu: CD %d: %w", n, err)
	}
	return v.qmp.Do(ctx, "blockdev-change-medium", map[string]any{
		"id": cdID(n), "filename": path, "format": "raw", "read-only-mode": "read-only", "force": true,
	}, nil)
}

package images

import (
	"errors"
	"strconv"
)

const isoFile = "boot.iso"

// xorriso makes an ISO 9660 image of a folder. Its own record of times and
// owners is set, not taken from the folder: that one's files may be links to
// files that are older or newer from build to build.
func (m *mastering) xorriso(folder string, options ...string) error {
	args := []string{"-as", "mkisofs", "-quiet", "-r", "-V", volumeLabel,
		"--set_all_file_dates", "=" + strconv.Itoa(mtime), "--modification-date=2017041816300000"}
	args = append(args, options...)
	m.media.CD = isoFile
	return m.run("", "xorriso", append(args, "-o", isoFile, folder)...)
}

// isoBIOS is a CD with isolinux, which also boots when it is put on a disk.
func (m *mastering) isoBIOS() error {
	if err := errors.Join(m.text("isolinux.cfg", m.syslinuxConfig()), m.packedInitrd("initrd.img")); err != nil {
		return err
	}
	if err := m.staged("cd", []fatFile{
		{isolinuxBin, "isolinux/isolinux.bin"}, {ldlinux, "isolinux/ldlinux.c32"}, {m.path("isolinux.cfg"), "isolinux/isolinux.cfg"},
		{m.image.KernelPath, "kernel"}, {m.path("initrd.img"), "initrd.img"},
	}); err != nil {
		return err
	}
	m.add(isoFile, ".iso")
	return m.xorriso("cd", "-b", "isolinux/isolinux.bin", "-c", "isolinux/boot.cat", "-no-emul-boot",
		"-boot-load-size", "4", "-boot-info-table", "-isohybrid-mbr", isolinuxHybrid)
}

// isoEFI is a CD whose boot catalogue names an EFI system partition.
func (m *mastering) isoEFI() error {
	if err := m.esp("esp.img"); err != nil {
		return err
	}
	if err := m.staged("cd", []fatFile{{m.path("esp.img"), "esp.img"}}); err != nil {
		return err
	}
	m.media.UEFI = true
	m.add(isoFile, "-efi.iso")
	return m.xorriso("cd", "-e", "esp.img", "-no-emul-boot")
}

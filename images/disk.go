package images

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

const mib = 1 << 20

// id is a UUID that depends on the image and what it is for, so that two
// different disks in one machine do not share it. The version says that it is
// made of a digest of the maker's choice (RFC 9562, UUIDv8).
func (m *mastering) id(what string) string {
	h := sha256.Sum256([]byte(m.image.Digest + " " + what))
	h[6], h[8] = h[6]&0x0f|0x80, h[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", h[0:4], h[4:6], h[6:8], h[8:10], h[10:16])
}

// volumeLabel is what all file systems of media are called.
const volumeLabel = "SEATRIAL"

// fatFile is a file for a FAT file system: where it is on the host, and its
// path there.
type fatFile struct{ from, to string }

// fat makes a FAT32 file system with files in it. mkfs.fat's --invariant and
// mtools' regard for SOURCE_DATE_EPOCH keep clocks out of it.
func (m *mastering) fat(name string, dirs []string, files []fatFile) error {
	size, err := fatSize(files)
	if err != nil {
		return err
	}
	serial := m.id("fat " + name)[:8]
	if err := m.run("", "mkfs.fat", "-F", "32", "-i", serial, "--invariant", "-n", volumeLabel, "-C", name, fmt.Sprint(size/1024)); err != nil {
		return err
	}
	if len(dirs) > 0 {
		args := []string{"-i", name}
		for _, d := range dirs {
			args = append(args, "::/"+d)
		}
		if err := m.run("", "mmd", args...); err != nil {
			return err
		}
	}
	for _, f := range files {
		if err := m.run("", "mcopy", "-i", name, f.from, "::/"+f.to); err != nil {
			return err
		}
	}
	return nil
}

// fatSize is room for the files: FAT tables and the slack of clusters take
// less than a hundredth, and FAT32 begins at about 33 MiB.
func fatSize(files []fatFile) (int64, error) {
	size := int64(40 * mib)
	for _, f := range files {
		info, err := os.Stat(f.from)
		if err != nil {
			return 0, err
		}
		size += info.Size() + info.Size()/100
	}
	return (size + mib - 1) / mib * mib, nil
}

// esp makes an EFI system partition: systemd-boot under the name the firmware
// looks for, and one entry for the kernel, which is its own EFI program.
func (m *mastering) esp(name string) error {
	as := "BOOTX64.EFI"
	if m.image.Arch == "arm64" {
		as = "BOOTAA64.EFI"
	}
	if err := errors.Join(m.bootLoader(DiskLoader, "loader.efi"), m.packedInitrd("initrd.img")); err != nil {
		return err
	}
	entry := fmt.Sprintf("title seatrial\nlinux /kernel\ninitrd /initrd.img\noptions %s\n", m.cmdline)
	if err := errors.Join(m.text("loader.conf", "timeout 0\nconsole-mode keep\n"), m.text("entry.conf", entry)); err != nil {
		return err
	}
	return m.fat(name, []string{"EFI", "EFI/BOOT", "loader", "loader/entries"}, []fatFile{
		{m.path("loader.efi"), "EFI/BOOT/" + as},
		{m.path("loader.conf"), "loader/loader.conf"},
		{m.path("entry.conf"), "loader/entries/seatrial.conf"},
		{m.image.KernelPath, "kernel"},
		{m.path("initrd.img"), "initrd.img"},
	})
}

// syslinuxConfig is the configuration of isolinux and syslinux. Without a
// prompt nothing is said: the console belongs to the machine.
func (m *mastering) syslinuxConfig() string {
	return fmt.Sprintf("DEFAULT linux\nLABEL linux\n  LINUX /kernel\n  INITRD /initrd.img\n  APPEND %s\n", m.cmdline)
}

// Where the one partition of a disk begins, and what GPT needs behind it.
const (
	firstByte = 1 * mib
	tailBytes = 1 * mib
	sector    = 512
)

// partitioned makes a disk of a table and one partition.
func (m *mastering) partitioned(name, partition, table string) (err error) {
	info, err := os.Stat(m.path(partition))
	if err != nil {
		return err
	}
	disk, err := os.Create(m.path(name))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, disk.Close()) }()
	if err := disk.Truncate(firstByte + info.Size() + tailBytes); err != nil {
		return err
	}
	if err := m.run(fmt.Sprintf(table, firstByte/sector, info.Size()/sector), "sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", name); err != nil {
		return err
	}
	in, err := os.Open(m.path(partition))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	_, err = io.Copy(io.NewOffsetWriter(disk, firstByte), cancelled(m.ctx, in))
	return err
}

const rawDisk = "disk.img"

func (m *mastering) diskEFI() error {
	if err := m.esp("esp.img"); err != nil {
		return err
	}
	// C12A7328-... is the type of an EFI system partition (UEFI, table 5.7).
	table := "label: gpt\nlabel-id: " + m.id("disk") + "\nstart=%d, size=%d, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name=ESP, uuid=" + m.id("partition") + "\n"
	m.media.UEFI = true
	return m.partitioned(rawDisk, "esp.img", table)
}

func (m *mastering) diskBIOS() error {
	if err := errors.Join(m.text("syslinux.cfg", m.syslinuxConfig()), m.packedInitrd("initrd.img")); err != nil {
		return err
	}
	if err := m.fat("boot.img", nil, []fatFile{
		{m.path("syslinux.cfg"), "syslinux.cfg"}, {m.image.KernelPath, "kernel"}, {m.path("initrd.img"), "initrd.img"},
	}); err != nil {
		return err
	}
	if err := m.run("", "syslinux", "--install", "boot.img"); err != nil {
		return err
	}
	// Type c is FAT32 with LBA; the boot code looks for the bootable partition.
	table := "label: dos\nlabel-id: 0x" + m.id("disk")[:8] + "\nstart=%d, size=%d, type=c, bootable\n"
	if err := m.partitioned(rawDisk, "boot.img", table); err != nil {
		return err
	}
	return m.bootCode(rawDisk)
}

// bootCode puts syslinux's boot code before the partition table.
func (m *mastering) bootCode(disk string) (err error) {
	code, err := os.ReadFile(syslinuxMBR)
	if err != nil {
		return err
	}
	if len(code) > 440 { // what the table leaves
		return fmt.Errorf("%s has %d bytes, 440 is the room", syslinuxMBR, len(code))
	}
	f, err := os.OpenFile(m.path(disk), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = f.WriteAt(code, 0)
	return err
}

func (m *mastering) rawBIOS() error { return errors.Join(m.diskBIOS(), m.raw("-bios.img")) }
func (m *mastering) rawEFI() error  { return errors.Join(m.diskEFI(), m.raw("-efi.img")) }

func (m *mastering) raw(suffix string) error {
	m.media.Disk, m.media.DiskFormat = rawDisk, "raw"
	m.add(rawDisk, suffix)
	return nil
}

func (m *mastering) qcowBIOS() error { return m.qcow(m.diskBIOS, ".qcow2") }
func (m *mastering) qcowEFI() error  { return m.qcow(m.diskEFI, "-efi.qcow2") }

func (m *mastering) qcow(disk func() error, suffix string) error {
	if err := disk(); err != nil {
		return err
	}
	const name = "disk.qcow2"
	m.media.Disk, m.media.DiskFormat = name, "qcow2"
	m.add(name, suffix)
	return m.run("", "qemu-img", "convert", "-f", "raw", "-O", "qcow2", rawDisk, name)
}

// staged makes a folder whose files all have the image's time, for tools that
// record it.
func (m *mastering) staged(dir string, files []fatFile) error {
	for _, f := range files {
		to := filepath.Join(dir, f.to)
		if err := os.MkdirAll(m.path(filepath.Dir(to)), 0o755); err != nil {
			return err
		}
		if err := m.copyFile(f.from, to); err != nil {
			return err
		}
	}
	return nil
}

package images

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Tool is a program, or a file with an absolute path, of the host that some
// formats of media need.
type Tool struct {
	Name    string
	Package string // of Debian and Ubuntu
	For     string
}

// Files of Debian's packages that become part of a medium.
const (
	isolinuxBin    = "/usr/lib/ISOLINUX/isolinux.bin"
	isolinuxHybrid = "/usr/lib/ISOLINUX/isohdpfx.bin"
	ldlinux        = "/usr/lib/syslinux/modules/bios/ldlinux.c32"
	syslinuxMBR    = "/usr/lib/syslinux/mbr/mbr.bin"
)

// Tools are all tools for media.
func Tools() []Tool {
	return []Tool{
		{"sqfstar", "squashfs-tools", "kernel+squashfs"},
		{"xorriso", "xorriso", "ISO images"},
		{isolinuxBin, "isolinux", "ISO images for BIOS"},
		{isolinuxHybrid, "isolinux", "ISO images for BIOS"},
		{ldlinux, "syslinux-common", "ISO images for BIOS"},
		{"mkfs.fat", "dosfstools", "disks, and ISO images for UEFI"},
		{"mcopy", "mtools", "disks, and ISO images for UEFI"},
		{"mmd", "mtools", "disks and ISO images for UEFI"},
		{"sfdisk", "fdisk", "disks"},
		{"syslinux", "syslinux", "disks for BIOS"},
		{syslinuxMBR, "syslinux-common", "disks for BIOS"},
		{"qemu-img", "qemu-utils", "qcow2 disks"},
	}
}

// Find is the path of a tool; empty if it is not there. The folders of the
// administrator's programs are searched too: they are not in every user's PATH.
func (t Tool) Find() string {
	if filepath.IsAbs(t.Name) {
		if info, err := os.Stat(t.Name); err != nil || !info.Mode().IsRegular() {
			return ""
		}
		return t.Name
	}
	if path, err := exec.LookPath(t.Name); err == nil {
		return path
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, t.Name)); err == nil {
			return path
		}
	}
	return ""
}

// findTools says which of the named tools are missing, all at once.
func findTools(names []string) error {
	var missing []error
	for _, t := range Tools() {
		for _, name := range names {
			if name == t.Name && t.Find() == "" {
				missing = append(missing, fmt.Errorf("%s is missing: apt-get install %s", t.Name, t.Package))
			}
		}
	}
	return errors.Join(missing...)
}

// toolEnv is the whole environment of a tool: nothing of the user's reaches it
// that could change what it writes. The time is that of every file in an image
// (reproducible-builds.org/specs/source-date-epoch).
func toolEnv() []string {
	return []string{
		"PATH=/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin",
		"LC_ALL=C", "TZ=UTC", "HOME=/nonexistent", "MTOOLSRC=/dev/null", "MTOOLS_SKIP_CHECK=1",
		"SOURCE_DATE_EPOCH=" + strconv.Itoa(mtime),
	}
}

// run runs a tool in the medium's folder with a text as its input.
func (m *mastering) run(input, name string, args ...string) error {
	cmd := m.command(name, args...)
	cmd.Stdin = strings.NewReader(input)
	return finish(m.ctx, cmd, cmd.Run)
}

// command prepares a tool that dies with us, however we do.
func (m *mastering) command(name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(m.ctx, Tool{Name: name}.Find(), args...)
	cmd.Dir, cmd.Env = m.dir, toolEnv()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// finish calls what runs a command and explains its failure with its own words.
func finish(ctx context.Context, cmd *exec.Cmd, run func() error) error {
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	err := run()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err == nil {
		return nil
	}
	text := strings.TrimSpace(lastBytes(said.String(), 2000))
	if strings.Contains(strings.ToLower(text), syscall.ENOSPC.Error()) { // of a tool words are all there is
		err = fmt.Errorf("%w: %w", err, syscall.ENOSPC)
	}
	return fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, text)
}

func lastBytes(s string, n int) string { return s[max(0, len(s)-n):] }

package qemu

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// Boot is what a machine boots from when it is not handed a kernel: a CD, the
// first of its disks, or the network. The zero value with a kernel is QEMU's
// own boot; without one the firmware looks for the first disk.
type Boot struct {
	UEFI     bool   // firmware is UEFI, else BIOS; arm64 has no BIOS
	Vars     string // file of UEFI's variables, made from the firmware's own if it is not there; empty: what is set is forgotten
	CD       string // path of an ISO 9660 image
	TFTP     string // folder that QEMU's own server gives out; the guest reaches nothing else
	Bootfile string // name in it that the network card asks for first
}

// fromFirmware reports whether the firmware, not QEMU, loads the kernel.
func (c Config) fromFirmware() bool { return c.Kernel == "" }

// args are the boot devices. A boot index of 0 puts a device before all disks,
// which have none.
func (b Boot) args(arch string) ([]string, error) {
	var args []string
	if b.UEFI {
		code, vars, err := Firmware(arch)
		if err != nil {
			return nil, err
		}
		kept := "snapshot=on,file=" + escape(vars)
		if b.Vars != "" {
			kept = "file=" + escape(b.Vars)
		}
		args = append(args, "-drive", "if=pflash,unit=0,format=raw,readonly=on,file="+escape(code), "-drive", "if=pflash,unit=1,format=raw,"+kept)
	}
	if b.CD != "" {
		args = append(args, "-drive", "if=none,id=cd,media=cdrom,readonly=on,format=raw,file="+escape(b.CD))
		if arch == "arm64" { // the virt board has no ATA controller
			args = append(args, "-device", "virtio-scsi-pci", "-device", "scsi-cd,drive=cd,bootindex=0")
		} else {
			args = append(args, "-device", "ide-cd,drive=cd,bootindex=0")
		}
	}
	if b.TFTP != "" {
		args = append(args, "-netdev", fmt.Sprintf("user,id=boot,restrict=on,tftp=%s,bootfile=%s", escape(b.TFTP), escape(b.Bootfile)),
			"-device", "virtio-net-pci,netdev=boot,bootindex=0")
	}
	return args, nil
}

// makeVars makes the file of UEFI's variables, unless it is there. It must be
// of the size that the firmware's own has: it is a chip on the board.
func (b Boot) makeVars(arch string) error {
	if b.Vars == "" {
		return nil
	}
	_, vars, err := Firmware(arch)
	if err != nil {
		return err
	}
	empty, err := os.ReadFile(vars)
	if err != nil {
		return fmt.Errorf("UEFI variables: %w", err)
	}
	info, err := os.Stat(b.Vars)
	if err == nil && info.Size() != int64(len(empty)) {
		return fmt.Errorf("UEFI variables: %s has %d bytes; those of %s have %d", b.Vars, info.Size(), vars, len(empty))
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = os.WriteFile(b.Vars, empty, 0o600)
	}
	return err
}

// check lists what is wrong with how the machine boots.
func (c Config) checkBoot(bad func(format string, args ...any)) {
	if c.fromFirmware() {
		if c.Boot.CD == "" && c.Boot.TFTP == "" && len(c.Disks) == 0 {
			bad("nothing to boot from: no kernel, CD, disk or network")
		}
		if c.Initrd != "" || c.Cmdline != "" {
			bad("an initramfs or command line without a kernel: a boot loader brings its own")
		}
		if c.Arch == "arm64" && !c.Boot.UEFI {
			bad("arm64 has no BIOS: boot with UEFI, or give a kernel")
		}
	}
	if c.Boot.Vars != "" && !c.Boot.UEFI {
		bad("UEFI variables are kept in %s, but the machine has no UEFI", c.Boot.Vars)
	}
	if c.Boot.CD != "" {
		if _, err := os.Stat(c.Boot.CD); err != nil {
			bad("CD: %w", err)
		}
	}
	if b := c.Boot; b.TFTP != "" {
		if info, err := os.Stat(b.TFTP); err != nil {
			bad("TFTP folder: %w", err)
		} else if !info.IsDir() || b.Bootfile == "" {
			bad("network boot needs a folder and the name of a file in it, not %q and %q", b.TFTP, b.Bootfile)
		}
	}
}

// firmwares are where distributions put UEFI for QEMU: code and an empty store
// of variables.
var firmwares = map[string][][2]string{
	"amd64": {
		{"/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"},
		{"/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"},
		{"/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"},
	},
	"arm64": {
		{"/usr/share/AAVMF/AAVMF_CODE.fd", "/usr/share/AAVMF/AAVMF_VARS.fd"},
		{"/usr/share/edk2/aarch64/QEMU_EFI-pflash.raw", "/usr/share/edk2/aarch64/vars-template-pflash.raw"},
	},
}

// FirmwarePackage is the Debian package with UEFI firmware for an architecture.
func FirmwarePackage(arch string) string {
	if arch == "arm64" {
		return "qemu-efi-aarch64"
	}
	return "ovmf"
}

// Firmware finds UEFI for an architecture on this host.
func Firmware(arch string) (code, vars string, err error) {
	var tried []string
	for _, f := range firmwares[arch] {
		_, errCode := os.Stat(f[0])
		_, errVars := os.Stat(f[1])
		if errCode == nil && errVars == nil {
			return f[0], f[1], nil
		}
		tried = append(tried, f[0])
	}
	return "", "", fmt.Errorf("qemu: no UEFI firmware for %s; install %s (looked for %s)", arch, FirmwarePackage(arch), strings.Join(tried, ", "))
}

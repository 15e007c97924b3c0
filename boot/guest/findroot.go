//go:build linux

package guest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/seatrial/seatrial/boot"
	"golang.org/x/sys/unix"
)

// An initramfs that holds /init and no /sbin/init is only the way to the root:
// kernels of distributions have the drivers of disks and file systems as
// modules and cannot mount it themselves. What follows is done before PID 1
// proper begins, which is the /sbin/init of the root that is found.

// rootWait is how long a disk may take to appear after its driver was loaded.
// Disks of a virtual machine are there at once; a busy host needs a moment.
const rootWait = 10 * time.Second

// rootWords is what the kernel command line says about the root, in the
// kernel's own words (Documentation/admin-guide/kernel-parameters.txt).
type rootWords struct {
	device  string // root=
	fstype  string // rootfstype=; empty: each that the kernel knows
	options string // rootflags=
	flags   uintptr
}

func parseRoot(w kernelWords) (rootWords, error) {
	var r rootWords
	r.device, _ = w.last("root=")
	r.fstype, _ = w.last("rootfstype=")
	r.options, _ = w.last("rootflags=")
	r.flags = unix.MS_RDONLY
	for _, word := range w {
		switch word {
		case "rw":
			r.flags = 0
		case "ro":
			r.flags = unix.MS_RDONLY
		}
	}
	if r.device == "" {
		return r, errors.New("this initramfs has no " + boot.InitPath + ", and the kernel command line no root=: one of them must say where the root is")
	}
	if !strings.HasPrefix(r.device, "/dev/") {
		return r, fmt.Errorf("root=%s: only names of devices such as /dev/vda are known here", r.device)
	}
	return r, nil
}

// onlyLoader reports whether the root at dir is an initramfs without an init
// of its own.
func onlyLoader(dir string) bool {
	_, err := os.Lstat(filepath.Join(dir, boot.InitPath))
	return errors.Is(err, os.ErrNotExist)
}

// enterRoot finds the root, makes it the process's root, and starts its init.
// It returns only with the reason why not.
func enterRoot(sys System) error {
	if err := mountAll(sys, "/", speechMounts); err != nil {
		return err
	}
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	r, err := parseRoot(strings.Fields(string(line)))
	if err != nil {
		return err
	}
	failed := loadRootDrivers(sys, r)
	if err := awaitDevice(r.device, rootWait); err != nil {
		return errors.Join(err, failed)
	}
	if err := mountRoot(sys, r); err != nil {
		return err
	}
	return switchRoot(sys)
}

// loadRootDrivers loads the drivers of all devices, and the file system. A
// kernel that has them built in needs no modules. Its error is of interest only
// if the root is not found then: other devices have drivers too.
func loadRootDrivers(sys System, r rootWords) error {
	dir, err := ModulesDir()
	if err != nil {
		return nil // no modules in this initramfs: everything is built in
	}
	modules, err := ReadModules(dir)
	if err != nil {
		return err
	}
	failed := modules.Coldplug(sys, "/sys")
	for _, fs := range strings.Split(r.fstype, ",") {
		if _, known := modules.Find(fs); fs != "" && known {
			failed = errors.Join(failed, modules.Modprobe(sys, fs, ""))
		}
	}
	return failed
}

// awaitDevice waits until a device is there. The kernel has no event for it
// that would not need a socket and a parser for messages; asking is cheap.
func awaitDevice(name string, wait time.Duration) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(wait)
	for {
		if _, err := os.Stat(name); err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-deadline:
			return fmt.Errorf("root=%s: there is no such device after %s; there are: %s", name, wait, disks("/sys/class/block"))
		}
	}
}

// disks lists the block devices, for whoever wrote a wrong root=.
func disks(dir string) string {
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) == 0 {
		return "none"
	}
	var names []string
	for _, e := range entries {
		names = append(names, "/dev/"+e.Name())
	}
	return strings.Join(names, " ")
}

// mountRoot mounts the root at moveDir with the first file system that fits.
func mountRoot(sys System, r rootWords) error {
	if err := os.MkdirAll(moveDir, 0o755); err != nil {
		return err
	}
	kinds := strings.Split(r.fstype, ",")
	if r.fstype == "" {
		kinds = []string{"squashfs", "ext4", "iso9660"}
	}
	var failed []error
	for _, kind := range kinds {
		err := sys.Mount(r.device, moveDir, kind, r.flags, r.options)
		if err == nil {
			return nil
		}
		failed = append(failed, fmt.Errorf("mount root=%s as %s: %w", r.device, kind, err))
	}
	return errors.Join(failed...)
}

// switchRoot leaves the initramfs for what is mounted at moveDir: it takes
// down what was mounted to get here, frees the memory of the files, and lays
// the new root over the old one, which cannot be unmounted.
func switchRoot(sys System) error {
	for i := len(speechMounts) - 1; i >= 0; i-- {
		if err := sys.Unmount(speechMounts[i].target, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", speechMounts[i].target, err)
		}
	}
	for _, gone := range []string{"/init", "/lib"} {
		if err := os.RemoveAll(gone); err != nil {
			return err
		}
	}
	if err := os.Chdir(moveDir); err != nil {
		return err
	}
	if err := sys.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move %s to /: %w", moveDir, err)
	}
	if err := sys.Chroot("."); err != nil {
		return fmt.Errorf("chroot to the root: %w", err)
	}
	return fmt.Errorf("exec %s of the root: %w", boot.InitPath, unix.Exec(boot.InitPath, []string{boot.InitPath}, os.Environ()))
}

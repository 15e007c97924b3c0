//go:build linux

package guest

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Magic numbers of statfs(2), linux/magic.h.
const (
	ramfsMagic = 0x858458f6
	tmpfsMagic = 0x01021994
)

// moveDir is where the bound root stands for the moment between two calls.
const moveDir = "/mnt"

// InRootfs reports whether the root is the one the kernel unpacked an
// initramfs into, and as an error that the initramfs is not all there.
func InRootfs() (bool, error) {
	var st unix.Statfs_t
	if err := unix.Statfs("/", &st); err != nil {
		return false, fmt.Errorf("statfs /: %w", err)
	}
	kind := uint32(st.Type)
	if kind != ramfsMagic && kind != tmpfsMagic {
		return false, nil
	}
	return true, checkComplete(&st)
}

// minFree is less than any image leaves that fits: the kernel stops unpacking
// at the last page and says so in one line that is easily missed.
const minFree = 64 << 10

// checkComplete reports an initramfs that was cut off for want of memory. The
// kernel gives its file system half of the memory and boots what fitted in,
// which would then fail in ways that point anywhere but here.
func checkComplete(st *unix.Statfs_t) error {
	size, free := st.Blocks*uint64(st.Bsize), st.Bavail*uint64(st.Bsize)
	if size == 0 || free >= minFree { // a ramfs has no size
		return nil
	}
	return fmt.Errorf("the initramfs was cut off: its file system of %d MiB, half of the free memory, is full; give the machine more memory", size>>20)
}

// LeaveRootfs makes the tree of the initramfs the root of a mount of its own.
//
// pivot_root(2) refuses only a root whose mount has no parent, which is true
// of the kernel's first mount and of no other. A bind of the same tree, moved
// onto "/", has one. LinuxKit's init copies every file to a fresh tmpfs
// instead: that costs seconds under emulation, memory for the largest file
// twice, and a limit of half the memory on what may be copied.
//
// The root then has no free space to speak of and needs none: it is made
// read-only, and what must be written has file systems of its own.
func LeaveRootfs(sys System) error {
	if err := os.MkdirAll(moveDir, 0o755); err != nil {
		return fmt.Errorf("%w: the initramfs was probably cut off, give the machine more memory", err)
	}
	if err := sys.Mount("/", moveDir, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind / on %s: %w", moveDir, err)
	}
	if err := os.Chdir(moveDir); err != nil {
		return err
	}
	if err := sys.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move %s to /: %w", moveDir, err)
	}
	if err := sys.Chroot("."); err != nil {
		return fmt.Errorf("chroot to the moved root: %w", err)
	}
	return nil
}

//go:build linux

package guest

import (
	"errors"
	"fmt"
	"math"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// System is what PID 1 does to the machine it runs on and must not do to the
// machine a test runs on.
type System interface {
	// Mount and Unmount are mount(2) and umount2(2).
	Mount(source, target, fstype string, flags uintptr, data string) error
	Unmount(target string, flags int) error
	// Chroot makes dir the root and the working directory.
	Chroot(dir string) error
	// Kill is kill(2), with its meanings of negative process ids.
	Kill(pid int, sig unix.Signal) error
	SetHostname(name string) error
	SetLimit(resource int, soft, hard uint64) error
	// InsertModule loads the uncompressed module in file. A module that is
	// already there is no error.
	InsertModule(file, params string) error
	// MakeNode is mknod(2).
	MakeNode(name string, mode, major, minor uint32) error
	// SetClock sets the wall clock to seconds since 1970.
	SetClock(seconds int64) error
	// LinkUp switches a network interface on.
	LinkUp(name string) error
	// Room is what the file system that holds dir can still take.
	Room(dir string) (bytes, files uint64, err error)
	Sync()
	// Reboot is reboot(2) with one of the LINUX_REBOOT_CMD constants.
	Reboot(cmd int) error
	// Uptime is the time since the kernel started, sleep included.
	Uptime() time.Duration
}

// Linux is the real machine.
type Linux struct{}

var _ System = Linux{}

// Mount implements [System].
func (Linux) Mount(source, target, fstype string, flags uintptr, data string) error {
	return unix.Mount(source, target, fstype, flags, data)
}

// Unmount implements [System].
func (Linux) Unmount(target string, flags int) error { return unix.Unmount(target, flags) }

// Chroot implements [System].
func (Linux) Chroot(dir string) error {
	if err := unix.Chroot(dir); err != nil {
		return err
	}
	return unix.Chdir("/")
}

// Kill implements [System].
func (Linux) Kill(pid int, sig unix.Signal) error { return unix.Kill(pid, sig) }

// SetHostname implements [System].
func (Linux) SetHostname(name string) error { return unix.Sethostname([]byte(name)) }

// SetLimit implements [System].
func (Linux) SetLimit(resource int, soft, hard uint64) error {
	return unix.Setrlimit(resource, &unix.Rlimit{Cur: soft, Max: hard})
}

// InsertModule implements [System].
func (Linux) InsertModule(file, params string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	switch err := unix.FinitModule(int(f.Fd()), params, 0); {
	case errors.Is(err, unix.EEXIST):
		return nil
	case errors.Is(err, unix.ENOEXEC):
		return fmt.Errorf("%s: not an uncompressed module for this kernel", file)
	case err != nil:
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}

// MakeNode implements [System].
func (Linux) MakeNode(name string, mode, major, minor uint32) error {
	return unix.Mknod(name, mode, int(unix.Mkdev(major, minor)))
}

// SetClock implements [System].
func (Linux) SetClock(seconds int64) error {
	return unix.Settimeofday(&unix.Timeval{Sec: seconds})
}

// LinkUp implements [System].
func (Linux) LinkUp(name string) error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(s, unix.SIOCGIFFLAGS, ifr); err != nil {
		return err
	}
	ifr.SetUint16(ifr.Uint16() | unix.IFF_UP)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, ifr)
}

// Room implements [System].
func (Linux) Room(dir string) (bytes, files uint64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, 0, err
	}
	bytes, files = st.Bavail*uint64(st.Bsize), st.Ffree
	if st.Blocks == 0 { // no limit
		bytes = math.MaxUint64
	}
	if st.Files == 0 {
		files = math.MaxUint64
	}
	return bytes, files, nil
}

// Sync implements [System].
func (Linux) Sync() { unix.Sync() }

// Reboot implements [System].
func (Linux) Reboot(cmd int) error { return unix.Reboot(cmd) }

// Uptime implements [System].
func (Linux) Uptime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0 // only a kernel before 2.6.39 refuses
	}
	return time.Duration(ts.Nano())
}

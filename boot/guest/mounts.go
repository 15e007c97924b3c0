//go:build linux

package guest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/seatrial/seatrial/boot"
	"golang.org/x/sys/unix"
)

// mount is a row of the mount table.
type mount struct {
	target   string
	fstype   string
	flags    uintptr
	data     string
	required bool // false: many kernels lack it, and nothing of ours needs it
}

const (
	nodev  = unix.MS_NODEV
	nosuid = unix.MS_NOSUID
	noexec = unix.MS_NOEXEC
	relat  = unix.MS_RELATIME
	noDevs = nodev | nosuid | noexec
)

// speechMounts are needed before PID 1 can say anything: /dev holds the
// console and kmsg, /proc names the console, /sys has the devices.
var speechMounts = []mount{
	{"/proc", "proc", noDevs | relat, "", true},
	{"/dev", "devtmpfs", nosuid | noexec | relat, "size=10m,nr_inodes=248418,mode=755", true},
	{"/sys", "sysfs", noDevs | relat, "", true},
}

// earlyMounts are LinuxKit's, sizes and modes included. The tmpfs sizes are
// limits, not reservations. /var is where containerd keeps what containers
// write, hence its half of the memory. What the kernel has as a module is mounted
// when that is loaded (mountRest).
var earlyMounts = []mount{
	{"/run", "tmpfs", noDevs&^noexec | relat, "size=10%,mode=755", true},
	{"/tmp", "tmpfs", noDevs&^noexec | relat, "size=10%,mode=1777", true},
	{"/var", "tmpfs", nodev | nosuid | relat, "size=50%,mode=755", true},
	{"/dev/mqueue", "mqueue", noDevs, "", false},
	{"/dev/shm", "tmpfs", noDevs, "mode=1777", true},
	{"/dev/pts", "devpts", nosuid | noexec, "gid=5,mode=620,ptmxmode=666", true},
	{"/sys/kernel/security", "securityfs", noDevs | relat, "", false},
	{"/sys/kernel/debug", "debugfs", noDevs | relat, "", false},
	{"/sys/kernel/config", "configfs", noDevs | relat, "", false},
	{"/sys/fs/fuse/connections", "fusectl", noDevs | relat, "", false},
	{"/sys/fs/selinux", "selinuxfs", noexec | nosuid, "", false},
	{"/sys/fs/pstore", "pstore", noDevs | relat, "", false},
	{"/sys/fs/bpf", "bpf", nodev, "", false},
	{"/sys/firmware/efi/efivars", "efivarfs", noDevs | relat, "", false},
	{"/proc/sys/fs/binfmt_misc", "binfmt_misc", noDevs | relat, "", false},
}

// varDirs are made in the fresh /var.
var varDirs = []struct {
	name string
	mode os.FileMode
}{
	{"cache", 0o755}, {"empty", 0o555}, {"lib", 0o755}, {"local", 0o755}, {"lock", 0o755},
	{"log", 0o755}, {"opt", 0o755}, {"spool", 0o755}, {"tmp", 0o777 | os.ModeSticky},
}

// devLinks are the names in /dev that devtmpfs leaves to user space.
var devLinks = [][2]string{
	{"/proc/self/fd", "fd"}, {"/proc/self/fd/0", "stdin"}, {"/proc/self/fd/1", "stdout"},
	{"/proc/self/fd/2", "stderr"}, {"/proc/kcore", "kcore"},
}

// mountAll makes the mounts of a table. A mount that is not required and not
// to be had is skipped without a word.
func mountAll(sys System, root string, table []mount) error {
	var problems []error
	for _, m := range table {
		target := filepath.Join(root, m.target)
		err := os.MkdirAll(target, 0o755)
		if err == nil {
			err = sys.Mount(m.fstype, target, m.fstype, m.flags, m.data)
		}
		if err != nil && m.required {
			problems = append(problems, fmt.Errorf("mount %s on %s: %w", m.fstype, m.target, err))
		}
	}
	return errors.Join(problems...)
}

// helperLink is where /sbin/modprobe leads in the image. It is made when the mounts
// are there. Before, the kernel finds no helper: while it initializes itself it
// asks for half a dozen modules that it does not need, and to start this program
// as often takes half a second under emulation.
const helperLink = "/run/modprobe"

// populate makes the directories of /var, and the links of /dev and /run.
func populate(root string) error {
	var problems []error
	for _, d := range varDirs {
		name := filepath.Join(root, "/var", d.name)
		err := os.MkdirAll(name, d.mode.Perm())
		if err == nil {
			err = os.Chmod(name, d.mode) // past the umask
		}
		if err != nil {
			problems = append(problems, err)
			break // the others would say the same
		}
	}
	links := [][2]string{{"/run", filepath.Join(root, "/var/run")}, {boot.InitPath, filepath.Join(root, helperLink)}}
	for _, l := range devLinks {
		links = append(links, [2]string{l[0], filepath.Join(root, "/dev", l[1])})
	}
	for _, l := range links {
		if err := os.Symlink(l[0], l[1]); err != nil && !errors.Is(err, os.ErrExist) {
			problems = append(problems, err)
		}
	}
	return errors.Join(problems...)
}

// mountRest mounts those of earlyMounts that are modules, where there is a place
// for them: efivarfs has none without EFI.
func (m *machine) mountRest() error {
	if m.index == nil {
		return nil // said by the step before
	}
	for _, row := range earlyMounts {
		name := "fs-" + row.fstype
		if modules, _ := m.index.Find(name); len(modules) == 0 || os.MkdirAll(filepath.Join(m.root, row.target), 0o755) != nil {
			continue
		}
		if err := m.index.Modprobe(m.sys, name, ""); err != nil {
			m.warn(boot.Event{At: boot.Modules, Detail: err.Error()}, "init: %v", err)
			continue
		}
		if err := mountAll(m.sys, m.root, []mount{row}); err != nil {
			return err
		}
	}
	return nil
}

// mountFlags translates the words of fstab(5) and mount(8). What is not a flag
// is data for the file system.
func mountFlags(options []string) (flags, propagation uintptr, data string) {
	var rest []string
	for _, o := range options {
		if f, ok := setFlags[o]; ok {
			flags |= f
		} else if f, ok := clearFlags[o]; ok {
			flags &^= f
		} else if f, ok := propagationFlags[o]; ok {
			propagation |= f
		} else if o != "defaults" {
			rest = append(rest, o)
		}
	}
	return flags, propagation, strings.Join(rest, ",")
}

var (
	setFlags = map[string]uintptr{
		"ro": unix.MS_RDONLY, "nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV, "noexec": unix.MS_NOEXEC,
		"sync": unix.MS_SYNCHRONOUS, "dirsync": unix.MS_DIRSYNC, "remount": unix.MS_REMOUNT, "mand": unix.MS_MANDLOCK,
		"noatime": unix.MS_NOATIME, "nodiratime": unix.MS_NODIRATIME, "relatime": unix.MS_RELATIME,
		"strictatime": unix.MS_STRICTATIME, "silent": unix.MS_SILENT,
		"bind": unix.MS_BIND, "rbind": unix.MS_BIND | unix.MS_REC, "move": unix.MS_MOVE,
	}
	clearFlags = map[string]uintptr{
		"rw": unix.MS_RDONLY, "suid": unix.MS_NOSUID, "dev": unix.MS_NODEV, "exec": unix.MS_NOEXEC,
		"async": unix.MS_SYNCHRONOUS, "atime": unix.MS_NOATIME, "diratime": unix.MS_NODIRATIME,
		"norelatime": unix.MS_RELATIME, "nostrictatime": unix.MS_STRICTATIME, "loud": unix.MS_SILENT, "nomand": unix.MS_MANDLOCK,
	}
	propagationFlags = map[string]uintptr{
		"shared": unix.MS_SHARED, "rshared": unix.MS_SHARED | unix.MS_REC,
		"slave": unix.MS_SLAVE, "rslave": unix.MS_SLAVE | unix.MS_REC,
		"private": unix.MS_PRIVATE, "rprivate": unix.MS_PRIVATE | unix.MS_REC,
		"unbindable": unix.MS_UNBINDABLE, "runbindable": unix.MS_UNBINDABLE | unix.MS_REC,
	}
)

// makeNodes makes the device nodes that LinuxKit's init makes, where
// devtmpfs has not.
func (m *machine) makeNodes() error {
	for _, n := range deviceNodes {
		name := filepath.Join(m.root, "/dev", n.name)
		if _, err := os.Lstat(name); err == nil {
			continue
		}
		if err := m.sys.MakeNode(name, unix.S_IFCHR|n.mode, n.major, n.minor); err != nil {
			return fmt.Errorf("/dev/%s: %w", n.name, err)
		}
	}
	return nil
}

var deviceNodes = []struct {
	name         string
	mode         uint32
	major, minor uint32
}{
	{"console", 0o600, 5, 1}, {"tty1", 0o620, 4, 1}, {"tty", 0o666, 5, 0}, {"null", 0o666, 1, 3}, {"kmsg", 0o660, 1, 11},
}

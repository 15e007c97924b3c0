//go:build linux

package guest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// nameMachine gives the machine its name, if it has none or /etc/hostname says
// another: the kernel may have been given one on its command line.
func nameMachine(sys System, root string) error {
	name := hostname(root)
	if name == "" {
		return nil
	}
	return sys.SetHostname(name)
}

// hostname decides the machine's name: /etc/hostname; else none if the kernel
// has one; else linuxkit- and the address of the first network card; else
// linuxkit.
func hostname(root string) string {
	if src, err := os.ReadFile(filepath.Join(root, "/etc/hostname")); err == nil {
		if name := strings.TrimSpace(string(src)); name != "" {
			return name
		}
	}
	if src, err := os.ReadFile(filepath.Join(root, "/proc/sys/kernel/hostname")); err == nil {
		if name := strings.TrimSpace(string(src)); name != "" && name != "(none)" {
			return ""
		}
	}
	if src, err := os.ReadFile(filepath.Join(root, "/sys/class/net/eth0/address")); err == nil {
		if mac := strings.TrimSpace(string(src)); mac != "" {
			return nameAfter(mac)
		}
	}
	return "linuxkit"
}

// nameAfter is LinuxKit's name for a machine whose first network card has an
// address.
func nameAfter(mac string) string { return "linuxkit-" + strings.ReplaceAll(mac, ":", "") }

// openFiles is the limit of LinuxKit, and fs.nr_open's default.
const openFiles = 1 << 20

func setLimits(sys System) error {
	var problems []error
	if err := sys.SetLimit(unix.RLIMIT_NOFILE, openFiles, openFiles); err != nil {
		problems = append(problems, fmt.Errorf("limit of open files: %w", err))
	}
	if err := sys.SetLimit(unix.RLIMIT_NPROC, unix.RLIM_INFINITY, unix.RLIM_INFINITY); err != nil {
		problems = append(problems, fmt.Errorf("limit of processes: %w", err))
	}
	return errors.Join(problems...)
}

// resolvConf makes an empty file where /etc/resolv.conf points, if it is a link:
// the root is read-only and programs take a dangling link for an error.
func resolvConf(root string) error {
	link := filepath.Join(root, "/etc/resolv.conf")
	target, err := os.Readlink(link)
	if err != nil {
		return nil // absent or a file of its own
	}
	if !filepath.IsAbs(target) {
		target = filepath.Join("/etc", target)
	}
	target = filepath.Join(root, target)
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(target, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

// activeConsole is the terminal behind /dev/console: the entry of
// /proc/consoles with flag C (Documentation/filesystems/proc.rst, 1.4).
func activeConsole(root string) string {
	src, err := os.ReadFile(filepath.Join(root, "/proc/consoles"))
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(src)) {
		name, rest, _ := strings.Cut(line, " ")
		_, flags, _ := strings.Cut(rest, "(")
		flags, _, _ = strings.Cut(flags, ")")
		if strings.Contains(flags, "C") {
			return name
		}
	}
	return ""
}

// greet writes the banner to every console named on the command line. It
// proves that those terminals work, and nothing about where /dev/console leads.
func greet(root string, words kernelWords) {
	for _, name := range words.consoles() {
		// O_NONBLOCK: a terminal without a carrier must not hold up the boot.
		f, err := os.OpenFile(filepath.Join(root, "/dev", name), os.O_WRONLY|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
		if err != nil {
			continue // named but absent, as the kernel allows
		}
		_, _ = f.WriteString("\r\nWelcome to LinuxKit, brought up by seatrial's init.\r\n\r\n")
		_ = f.Close()
	}
}

// setClock sets the system clock from the hardware clock, unless the kernel
// has done it (CONFIG_RTC_HCTOSYS). The hardware clock runs in UTC.
func (m *machine) setClock() error {
	names, err := filepath.Glob(filepath.Join(m.root, "/sys/class/rtc/rtc*"))
	if err != nil || len(names) == 0 {
		return err // a machine without one
	}
	for _, name := range names {
		if done, _ := os.ReadFile(filepath.Join(name, "hctosys")); strings.TrimSpace(string(done)) == "1" {
			return nil
		}
	}
	text, err := os.ReadFile(filepath.Join(names[0], "since_epoch"))
	if err != nil {
		return err
	}
	seconds, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return err
	}
	// A time before its own start the kernel refuses (timekeeping_validate_timespec
	// and do_settimeofday64, kernel/time/timekeeping.c). That is no clock at all,
	// and its own, which begins in 1970, is no worse.
	if up := m.sys.Uptime(); seconds <= int64(up/time.Second) {
		m.speak.Say("init: the hardware clock stands at %d s after 1970, and the machine is up for %d s: the clock is left as it is", seconds, int64(up/time.Second))
		return nil
	}
	if err := m.sys.SetClock(seconds); err != nil {
		return err
	}
	m.speak.Say("init: clock set from %s", filepath.Base(names[0]))
	return nil
}

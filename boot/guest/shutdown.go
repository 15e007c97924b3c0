//go:build linux

package guest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/seatrial/seatrial/boot"
	"golang.org/x/sys/unix"
)

// down stops the machine. It returns only if the kernel refuses.
func (m *machine) down(reason string, up <-chan struct{}) error {
	m.speak.Say("init: %s: stopping the machine", reason)
	m.speak.Event(boot.Event{At: boot.Shutdown, State: boot.Done, Facts: map[string]string{boot.FactReason: reason}})
	m.cancel()
	freeRunning(2)
	if !m.within(m.patience.phases, func() { <-up; m.helpers.Wait() }) {
		m.speak.Say("init: not all that was under way has stopped within %v", m.patience.phases)
	}
	if err := m.runScripts("/etc/shutdown.d", "", onshutdownEntry); err != nil {
		m.speak.Say("init: shutdown.d: %v", err)
	}
	if err := m.runBundles(context.Background(), boot.Shutdown, "shutdown", boot.OnshutdownDir, m.patience.farewell); err != nil && !errors.Is(err, errSaid) {
		m.speak.Say("init: %v", err)
	}
	if err := m.runScripts("/etc/shutdown.d", onshutdownEntry, ""); err != nil {
		m.speak.Say("init: shutdown.d: %v", err)
	}
	m.services.stop()
	m.stopContainerd()
	m.endAll()
	if !m.within(m.patience.sync, m.sys.Sync) {
		m.speak.Say("init: disks did not take all data within %v", m.patience.sync)
	}
	if !m.within(m.patience.sync, m.unmountAll) {
		m.speak.Say("init: not all file systems were unmounted within %v", m.patience.sync)
	}
	m.speak.Event(boot.Event{At: boot.Off, State: boot.Done, Facts: map[string]string{boot.FactReason: reason}})
	// The last lines must leave the UART before the machine does.
	m.within(time.Second, func() { _ = unix.IoctlSetInt(2, unix.TCSBRK, 1) })
	if err := m.sys.Reboot(rebootCommand(reason)); err != nil {
		return fmt.Errorf("%s: %w", reason, err)
	}
	return fmt.Errorf("%s: the kernel returned", reason)
}

func rebootCommand(reason string) int {
	switch reason {
	case "halt":
		return unix.LINUX_REBOOT_CMD_HALT
	case "poweroff":
		return unix.LINUX_REBOOT_CMD_POWER_OFF
	}
	return unix.LINUX_REBOOT_CMD_RESTART
}

func (m *machine) stopContainerd() {
	if m.containerd == nil {
		return
	}
	r := m.containerd.life()
	if r == nil || m.reaper.Signal(m.sys, r.proc, unix.SIGTERM) != nil {
		return
	}
	p := r.proc
	t := time.NewTimer(m.patience.daemon)
	defer t.Stop()
	select {
	case <-p.Done():
	case <-t.C:
		m.speak.Say("init: containerd did not end within %v", m.patience.daemon)
	}
}

// endAll ends every process but PID 1: SIGTERM, and SIGKILL to what is left.
func (m *machine) endAll() {
	if len(m.processes()) == 0 {
		return
	}
	_ = m.sys.Kill(-1, unix.SIGTERM) // fails only when none is left
	if left := m.awaitNone(true); len(left) > 0 {
		m.speak.Say("init: not ended within %v of SIGTERM, and killed: %s", m.patience.others, strings.Join(left, ", "))
	}
	_ = m.sys.Kill(-1, unix.SIGKILL)
	if left := m.awaitNone(false); len(left) > 0 {
		m.speak.Say("init: still there after SIGKILL: %s", strings.Join(left, ", "))
	}
}

// awaitNone waits until no process is left, or with heeding none that SIGTERM
// could end, at most for the patience with others.
func (m *machine) awaitNone(heeding bool) (left []string) {
	deadline := time.Now().Add(m.patience.others)
	for {
		left = left[:0]
		for _, p := range m.processes() {
			if !heeding || HeedsTerm(filepath.Join(m.root, "/proc"), p.pid) {
				left = append(left, fmt.Sprintf("%s (%d)", p.comm, p.pid))
			}
		}
		if len(left) == 0 || time.Now().After(deadline) {
			return left
		}
		time.Sleep(m.patience.poll) // the end of another's child sends no signal
	}
}

type process struct {
	pid, ppid int
	comm      string
	argv      []string
	thread    bool // of the kernel
	zombie    bool
}

// processes lists what runs in user space, PID 1 and zombies left out. Those
// cannot be told by an empty argv alone: a process may empty its own.
func (m *machine) processes() []process {
	var out []process
	for _, p := range readProcesses(filepath.Join(m.root, "/proc")) {
		if p.pid != 1 && !p.thread && !p.zombie {
			out = append(out, p)
		}
	}
	return out
}

// kernelThread is PF_KTHREAD of include/linux/sched.h.
const kernelThread = 0x00200000

// readProcesses lists all processes in proc. Kernel threads and zombies have
// no argv.
func readProcesses(proc string) []process {
	entries, _ := os.ReadDir(proc)
	var out []process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile(filepath.Join(proc, e.Name(), "stat"))
		if err != nil {
			continue // it has ended
		}
		p := process{pid: pid}
		// comm may hold anything, blanks and brackets included.
		text := string(stat)
		open, end := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
		if open < 0 || end < open {
			continue
		}
		p.comm = text[open+1 : end]
		// From here: state, ppid, pgrp, session, tty, tpgid, flags (proc(5)).
		if f := strings.Fields(text[end+1:]); len(f) > 6 {
			p.ppid, _ = strconv.Atoi(f[1])
			flags, _ := strconv.ParseUint(f[6], 10, 64)
			p.zombie, p.thread = f[0] == "Z" || f[0] == "X", flags&kernelThread != 0
		}
		cmdline, _ := os.ReadFile(filepath.Join(proc, e.Name(), "cmdline"))
		if s := strings.TrimRight(string(cmdline), "\x00"); s != "" {
			p.argv = strings.Split(s, "\x00")
		}
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b process) int { return a.pid - b.pid })
	return out
}

// HeedsTerm reports whether SIGTERM can end or be noticed by a process: one
// that ignores it, or is the first of its PID namespace and has no handler,
// never sees it, and waiting for it to go is time lost. proc is where procfs
// is mounted.
func HeedsTerm(proc string, pid int) bool {
	src, err := os.ReadFile(filepath.Join(proc, strconv.Itoa(pid), "status"))
	if err != nil {
		return false // it has gone
	}
	var caught, ignored uint64
	first := false
	for line := range strings.Lines(string(src)) {
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch key {
		case "SigCgt":
			caught, _ = strconv.ParseUint(value, 16, 64)
		case "SigIgn":
			ignored, _ = strconv.ParseUint(value, 16, 64)
		case "NSpid":
			f := strings.Fields(value)
			first = len(f) > 0 && f[len(f)-1] == "1"
		}
	}
	const term = 1 << (unix.SIGTERM - 1)
	return caught&term != 0 || ignored&term == 0 && !first
}

// unmountAll takes mounts away, the newest first, so that children go before
// their parents, and again as long as that frees others (a loop device's file
// system before the one that holds its file). A file system with a disk behind
// it that will not go is made read-only, which saves it as well; the root never
// goes.
func (m *machine) unmountAll() {
	var stuck []mounted
	var why []error
	for before := -1; before != len(stuck); {
		before = len(stuck)
		stuck, why = nil, nil
		for _, mt := range slices.Backward(m.mounted()) {
			if keepMounted(mt.target) {
				continue
			}
			if err := m.sys.Unmount(mt.target, 0); err != nil {
				stuck, why = append(stuck, mt), append(why, err)
			}
		}
	}
	for i, mt := range stuck {
		if !mt.disk {
			continue
		}
		if ro := m.sys.Mount("", mt.target, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); ro != nil {
			m.speak.Say("init: unmount %s: %v; read-only: %v", mt.target, why[i], ro)
		}
	}
	for _, mt := range m.mounted() {
		if mt.target == "/" && mt.disk {
			_ = m.sys.Mount("", m.root+"/", "", unix.MS_REMOUNT|unix.MS_RDONLY, "") // squashfs and ISO are so already
		}
	}
}

// keepMounted is what PID 1 needs to its end.
func keepMounted(target string) bool {
	for _, p := range []string{"/proc", "/sys", "/dev"} {
		if target == p || strings.HasPrefix(target, p+"/") {
			return true
		}
	}
	return target == "/"
}

type mounted struct {
	target string
	disk   bool // a block device is behind it
}

// mounted reads /proc/self/mountinfo (proc(5)), oldest mount first.
func (m *machine) mounted() []mounted {
	src, err := os.ReadFile(filepath.Join(m.root, "/proc/self/mountinfo"))
	if err != nil {
		m.speak.Say("init: file systems stay mounted: %v", err)
		return nil
	}
	var out []mounted
	for line := range strings.Lines(string(src)) {
		f := strings.Fields(line)
		if len(f) < 5 {
			continue
		}
		out = append(out, mounted{target: unescape(f[4]), disk: !strings.HasPrefix(f[2], "0:")})
	}
	return out
}

// unescape undoes the kernel's \040 for blanks and the like.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

//go:build linux

package guest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/seatrial/seatrial/boot"
	"golang.org/x/sys/unix"
)

const testMounts = `21 1 8:1 / / ro,relatime shared:1 - ext4 /dev/sda1 rw
22 21 0:20 / /proc rw - proc proc rw
23 21 0:21 / /run rw - tmpfs tmpfs rw
24 21 0:22 / /var rw - tmpfs tmpfs rw
25 24 8:17 / /var/lib/my\040disk rw - ext4 /dev/sdb1 rw
26 25 0:30 / /var/lib/my\040disk/deep rw - tmpfs tmpfs rw
`

func TestDown(t *testing.T) {
	for _, tt := range []struct {
		reason string
		cmd    int
	}{
		{"poweroff", unix.LINUX_REBOOT_CMD_POWER_OFF}, {"reboot", unix.LINUX_REBOOT_CMD_RESTART}, {"halt", unix.LINUX_REBOOT_CMD_HALT},
	} {
		t.Run(tt.reason, func(t *testing.T) {
			tm := newTestMachine(t)
			tm.file(t, "/proc/self/mountinfo", testMounts, 0o444)
			tm.file(t, "/proc/7/stat", "7 (a (b) c) S 1 7 7 0 -1 0 0", 0o444)
			tm.file(t, "/proc/7/status", "SigIgn:\t0000000000004000\nSigCgt:\t0000000000000000\nNSpid:\t7\n", 0o444)
			tm.sys.fail["umount /var/lib/my disk"] = unix.EBUSY
			up := make(chan struct{})
			close(up)
			if err := tm.down(tt.reason, up); err == nil || !strings.Contains(err.Error(), "the kernel returned") {
				t.Errorf("got %v", err)
			}
			round := []string{"umount /var/lib/my disk/deep", "umount /var/lib/my disk", "umount /var", "umount /run"}
			want := []string{"kill -1 SIGTERM", "kill -1 SIGKILL", "sync"}
			want = append(append(want, round...), round...) // until no round frees more
			want = append(want,
				fmt.Sprintf("mount  /var/lib/my disk  %#x ", unix.MS_REMOUNT|unix.MS_RDONLY),
				fmt.Sprintf("mount  /  %#x ", unix.MS_REMOUNT|unix.MS_RDONLY),
				fmt.Sprintf("reboot %#x", tt.cmd))
			got := tm.sys.taken()
			for i := range got {
				if got[i] == "mount  "+tm.root+"/  " {
					got[i] = "mount  /  "
				}
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
			contains(t, tm.console.String(), "init: "+tt.reason+": stopping the machine")
			lacks(t, tm.console.String(), " within 1s\n") // no disk was waited for to its limit
			contains(t, tm.console.String(), "still there after SIGKILL: a (b) c (7)")
			tr := tm.events(t)
			for _, at := range []boot.Milestone{boot.Shutdown, boot.Off} {
				if e, ok := tr.Milestone(at); !ok || e.Facts[boot.FactReason] != tt.reason {
					t.Errorf("%s: %+v", at, e)
				}
			}
		})
	}
}

// A disk that takes no more data holds up the end for as long as it may, and no
// longer.
func TestDownWithAStuckDisk(t *testing.T) {
	tm := newTestMachine(t)
	tm.patience.sync = 50 * time.Millisecond
	tm.file(t, "/proc/self/mountinfo", testMounts, 0o444)
	tm.sys.stuck = make(chan struct{})
	up := make(chan struct{})
	close(up)
	if err := tm.down("poweroff", up); err == nil {
		t.Error("the recorder does not power off")
	}
	calls := strings.Join(tm.sys.taken(), "; ")
	contains(t, calls, fmt.Sprintf("reboot %#x", unix.LINUX_REBOOT_CMD_POWER_OFF))
	lacks(t, calls, "umount")
	contains(t, tm.console.String(), "init: disks did not take all data within 50ms\n")
	contains(t, tm.console.String(), "init: not all file systems were unmounted within 50ms\n")
	close(tm.sys.stuck)
	eventually(t, "the unmounts that were under way", func() bool { return strings.Contains(strings.Join(tm.sys.taken(), ";"), "umount /run") })
}

func TestReadProcesses(t *testing.T) {
	proc := t.TempDir()
	for pid, text := range map[string]string{
		"1": "1 (init) S 0 1 1 0 -1 4194560 0", "2": "2 (kthreadd) S 0 0 0 0 -1 2129984 0",
		"30": "30 (gone) Z 1 30 30 0 -1 4194560 0", "31": "31 (own title) S 1 31 31 0 -1 4194560 0", "32": "32 damaged",
	} {
		writeFile(t, filepath.Join(proc, pid, "stat"), text, 0o444)
	}
	m := newTestMachine(t)
	if err := os.Rename(proc, filepath.Join(m.root, "proc")); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range m.processes() {
		got = append(got, fmt.Sprintf("%d %s", p.pid, p.comm))
	}
	if d := cmp.Diff([]string{"31 own title"}, got); d != "" {
		t.Errorf("a process may empty its argv (-want +got)\n%s", d)
	}
}

func event(kind, code uint16, value uint32) []byte {
	b := make([]byte, inputEventSize)
	binary.NativeEndian.PutUint16(b[16:], kind)
	binary.NativeEndian.PutUint16(b[18:], code)
	binary.NativeEndian.PutUint32(b[20:], value)
	return b
}

func TestPowerButton(t *testing.T) {
	tm := newTestMachine(t)
	tm.file(t, "/sys/class/input/event0/device/capabilities/key", "402000000 3803078f800d001 feffffdfffefffff fffffffffffffffe\n", 0o444)
	tm.file(t, "/sys/class/input/event1/device/capabilities/key", "10000000000000 0\n", 0o444) // bit 116
	button := filepath.Join(tm.root, "/dev/input/event1")
	if err := os.MkdirAll(filepath.Dir(button), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(button, 0o600); err != nil {
		t.Fatal(err)
	}
	hold, err := os.OpenFile(button, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer hold.Close()
	// The first has the key as well, as keyboards do, but no device node: an error, and no more.
	if err := tm.watchPowerButton(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	tm.file(t, "/sys/class/input/event0/device/capabilities/key", "ffff\n", 0o444)
	if err := tm.watchPowerButton(); err != nil {
		t.Fatal(err)
	}
	for _, e := range [][]byte{event(evKey, 30, 1), event(2, keyPower, 1), event(evKey, keyPower, 0)} {
		if _, err := hold.Write(e); err != nil {
			t.Fatal(err)
		}
	}
	lacks(t, tm.console.String(), "power button")
	if _, err := hold.Write(event(evKey, keyPower, 1)); err != nil {
		t.Fatal(err)
	}
	tm.says(t, "init: power button")
	eventually(t, "signal", func() bool { return strings.Contains(strings.Join(tm.sys.taken(), ";"), "kill 1 SIGUSR2") })
}

// A logging daemon gets a name and a descriptor it can read to the end.
func TestSendLog(t *testing.T) {
	dir := t.TempDir()
	socket, log := filepath.Join(dir, "s"), filepath.Join(dir, "log")
	if _, err := OpenLog(log); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no log: %v", err)
	}
	writeFile(t, log, "one\ntwo\n", 0o644)
	from, err := OpenLog(log)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	if err := SendLog(socket, "onboot.000-a", from); err == nil {
		t.Error("no daemon must be an error")
	}
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(s)
	if err := unix.Bind(s, &unix.SockaddrUnix{Name: socket}); err != nil {
		t.Fatal(err)
	}
	if err := SendLog(socket, "onboot.000-a", from); err != nil {
		t.Fatal(err)
	}
	name, oob := make([]byte, 64), make([]byte, 64)
	n, oobn, _, _, err := unix.Recvmsg(s, name, oob, 0)
	if err != nil {
		t.Fatal(err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(messages) != 1 {
		t.Fatalf("%v, %v", messages, err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		t.Fatalf("%v, %v", fds, err)
	}
	f := os.NewFile(uintptr(fds[0]), "received")
	defer f.Close()
	text := make([]byte, 64)
	k, _ := f.Read(text)
	if string(name[:n]) != "onboot.000-a" || string(text[:k]) != "one\ntwo\n" {
		t.Errorf("got %q, %q", name[:n], text[:k])
	}
}

// A daemon that takes nothing does not hold up the boot.
func TestSendLogToDeafDaemon(t *testing.T) {
	dir := t.TempDir()
	socket, log := filepath.Join(dir, "s"), filepath.Join(dir, "log")
	writeFile(t, log, "x", 0o644)
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(s)
	if err := unix.Bind(s, &unix.SockaddrUnix{Name: socket}); err != nil {
		t.Fatal(err)
	}
	from, err := OpenLog(log)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	began := time.Now()
	for range 2000 { // until its queue is full
		if err = SendLog(socket, "a", from); err != nil {
			break
		}
	}
	if err == nil || time.Since(began) > 3*answerTime+5*time.Second {
		t.Errorf("%v after %v", err, time.Since(began))
	}
}

func TestTail(t *testing.T) {
	var to strings.Builder
	tl := newTail(&to)
	text := strings.Repeat("filling\n", 1000) + "\n  last but one \nlast\n\n"
	tl.copy(strings.NewReader(text))
	if to.String() != text {
		t.Error("not all was passed on")
	}
	if d := cmp.Diff([]string{"last but one", "last"}, tl.lines(2)); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if n := len(tl.end); n > tailSize {
		t.Errorf("%d bytes are kept", n)
	}
	if got := newTail(&to).lines(3); len(got) != 0 {
		t.Errorf("got %q", got)
	}
}

//go:build linux

package guest

import (
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The commands that the agent answers itself.
const (
	CmdCat    = "@cat"    // @cat PATH...: the files' content
	CmdPs     = "@ps"     // @ps: a line "PID PPID COMM ARGV..." per process; kernel threads and zombies have no ARGV
	CmdStat   = "@stat"   // @stat PATH: "MODE UID GID SIZE TYPE", mode in octal with its special bits; links are not followed
	CmdLs     = "@ls"     // @ls PATH: a name per line, sorted, "/" after directories
	CmdKill   = "@kill"   // @kill SIGNAL PID...: signal by name ("TERM", "SIGTERM") or number
	CmdAppend = "@append" // @append PATH TEXT: adds TEXT to a file, made 0644 if it is not there
	CmdReseed = "@reseed" // @reseed HEX: gives the kernel's random generator fresh entropy, 32 bytes at least, and makes it use it
	CmdMark   = "@mark"   // @mark WORD: keeps a word in the agent's memory, where only this machine and its copies have it, and makes ready for @wake
	CmdWake   = "@wake"   // @wake HEX NANOSECONDS: @reseed and @clock in one, and says the word of @mark: a round trip costs more than they do
	CmdMAC    = "@mac"    // @mac OLD NEW: gives the network interface with address OLD the address NEW, and the machine the host name of it, if it had that of the old
	CmdClock  = "@clock"  // @clock [NANOSECONDS]: sets the clock to a time since 1970 if one is given; says what it is
)

// Builtins lists the usage of the agent's own commands.
func Builtins() []string {
	return []string{
		CmdCat + " PATH...", CmdPs, CmdStat + " PATH", CmdLs + " PATH", CmdKill + " SIGNAL PID...", CmdAppend + " PATH TEXT",
		CmdReseed + " HEX", CmdMark + " WORD", CmdWake + " HEX NANOSECONDS", CmdMAC + " OLD NEW", CmdClock + " [NANOSECONDS]",
	}
}

func (a *agent) builtin(out io.Writer, argv []string) error {
	args := argv[1:]
	switch name := argv[0]; {
	case name == CmdCat && len(args) > 0:
		return cat(out, args)
	case name == CmdPs && len(args) == 0:
		return ps(out)
	case name == CmdStat && len(args) == 1:
		return stat(out, args[0])
	case name == CmdLs && len(args) == 1:
		return ls(out, args[0])
	case name == CmdKill && len(args) > 1:
		return kill(args[0], args[1:])
	case name == CmdAppend && len(args) == 2:
		return appendTo(args[0], args[1])
	case name == CmdReseed && len(args) == 1:
		return a.random.reseed(args[0])
	case name == CmdMark && len(args) == 1:
		a.mark = args[0]
		return a.random.open()
	case name == CmdWake && len(args) == 2:
		if err := a.random.reseed(args[0]); err != nil {
			return err
		}
		if err := setClock(args[1]); err != nil {
			return err
		}
		_, err := io.WriteString(out, a.mark)
		return err
	case name == CmdMAC && len(args) == 2:
		return setMAC(args[0], args[1])
	case name == CmdClock && len(args) <= 1:
		return clock(out, args)
	}
	return fmt.Errorf("agent: %q is none of: %s", strings.Join(argv, " "), strings.Join(Builtins(), "; "))
}

func cat(out io.Writer, names []string) error {
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		_, err = io.Copy(out, f)
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

func ps(out io.Writer) error {
	var b strings.Builder
	for _, p := range readProcesses("/proc") {
		fmt.Fprintf(&b, "%d %d %s %s\n", p.pid, p.ppid, strings.ReplaceAll(p.comm, " ", "_"), strings.Join(p.argv, " "))
	}
	_, err := io.WriteString(out, b.String())
	return err
}

func stat(out io.Writer, name string) error {
	info, err := os.Lstat(name)
	if err != nil {
		return err
	}
	st := info.Sys().(*syscall.Stat_t)
	_, err = fmt.Fprintf(out, "%04o %d %d %d %s\n", st.Mode&0o7777, st.Uid, st.Gid, st.Size, fileType(st.Mode))
	return err
}

func fileType(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		return "file"
	case unix.S_IFDIR:
		return "directory"
	case unix.S_IFLNK:
		return "link"
	case unix.S_IFCHR:
		return "char"
	case unix.S_IFBLK:
		return "block"
	case unix.S_IFIFO:
		return "fifo"
	}
	return "socket"
}

func ls(out io.Writer, name string) error {
	entries, err := os.ReadDir(name)
	if err != nil {
		return err
	}
	var b strings.Builder
	for _, e := range entries {
		b.WriteString(e.Name())
		if e.IsDir() {
			b.WriteByte('/')
		}
		b.WriteByte('\n')
	}
	_, err = io.WriteString(out, b.String())
	return err
}

func kill(name string, pids []string) error {
	sig := unix.SignalNum("SIG" + strings.TrimPrefix(strings.ToUpper(name), "SIG"))
	if n, err := strconv.Atoi(name); err == nil {
		sig = unix.Signal(n)
	} else if sig == 0 {
		return fmt.Errorf("agent: no signal %q", name)
	}
	for _, p := range pids {
		pid, err := strconv.Atoi(p)
		if err != nil || pid <= 0 {
			return fmt.Errorf("agent: %q is no process id", p)
		}
		if err := unix.Kill(pid, sig); err != nil {
			return fmt.Errorf("kill %d: %w", pid, err)
		}
	}
	return nil
}

func appendTo(name, text string) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	if _, err := f.WriteString(text); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// minEntropy is what the kernel's generator needs to be reseeded, in bytes
// (POOL_READY_BITS, drivers/char/random.c).
const minEntropy = 32

// generator is the kernel's random generator. It stays open, and with room for
// its request, because a fork that asks for either has to translate code that
// has never run in it: ten milliseconds before its first answer.
type generator struct {
	device *os.File
	pool   struct { // struct rand_pool_info (linux/random.h) with room for a fixed amount
		bits, size int32
		buf        [512]byte
	}
}

func (g *generator) open() (err error) {
	if g.device == nil {
		g.device, err = os.OpenFile("/dev/urandom", os.O_WRONLY, 0)
	}
	return err
}

// reseed makes a machine that is the copy of another one draw other random
// numbers: the entropy is credited, and the generator told to use it now
// instead of when its next reseeding is due, a minute later.
func (g *generator) reseed(text string) error {
	n := hex.DecodedLen(len(text))
	if n < minEntropy || n > len(g.pool.buf) {
		return fmt.Errorf("agent: %s got %d bytes, wants %d to %d", CmdReseed, n, minEntropy, len(g.pool.buf))
	}
	if _, err := hex.Decode(g.pool.buf[:], []byte(text)); err != nil {
		return fmt.Errorf("agent: %s wants hexadecimal digits: %w", CmdReseed, err)
	}
	g.pool.bits, g.pool.size = int32(8*n), int32(n)
	if err := g.open(); err != nil {
		return err
	}
	fd := g.device.Fd()
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, unix.RNDADDENTROPY, uintptr(unsafe.Pointer(&g.pool))); errno != 0 {
		return fmt.Errorf("agent: adding entropy: %w", errno)
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, unix.RNDRESEEDCRNG, 0); errno != 0 {
		return fmt.Errorf("agent: reseeding: %w", errno)
	}
	return nil
}

// clock sets the machine's clock, if it is told a time, and says what it shows.
func clock(out io.Writer, args []string) error {
	if len(args) == 1 {
		if err := setClock(args[0]); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintln(out, time.Now().UnixNano())
	return err
}

func setClock(text string) error {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return fmt.Errorf("agent: %q is no time in nanoseconds since 1970", text)
	}
	ts := unix.NsecToTimespec(n)
	if err := unix.ClockSettime(unix.CLOCK_REALTIME, &ts); err != nil {
		return fmt.Errorf("agent: setting the clock: %w", err)
	}
	return nil
}

// setMAC renames a network card that is another machine's copy.
func setMAC(from, to string) error {
	was, err := net.ParseMAC(from)
	if err != nil {
		return err
	}
	mac, err := net.ParseMAC(to)
	if err != nil || len(mac) != 6 {
		return fmt.Errorf("agent: %q is no address of a network card", to)
	}
	interfaces, err := net.Interfaces()
	if err != nil {
		return err
	}
	for _, i := range interfaces {
		if i.HardwareAddr.String() != was.String() {
			continue
		}
		// struct ifreq with a struct sockaddr in it (netdevice(7)).
		var request struct {
			name   [unix.IFNAMSIZ]byte
			family uint16
			data   [22]byte
		}
		copy(request.name[:], i.Name)
		request.family = unix.ARPHRD_ETHER
		copy(request.data[:], mac)
		s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(s)
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(s), unix.SIOCSIFHWADDR, uintptr(unsafe.Pointer(&request))); errno != 0 {
			return fmt.Errorf("agent: address of %s: %w", i.Name, errno)
		}
		return rename(was.String(), mac.String())
	}
	return fmt.Errorf("agent: no network interface has the address %s", was)
}

// rename gives the machine the name of its network card's new address, if its
// name was made from the old one. Services in a namespace of their own for the
// name (UTS) keep what they were started with.
func rename(from, to string) error {
	name, err := os.Hostname()
	if err != nil || name != nameAfter(from) {
		return err
	}
	return unix.Sethostname([]byte(nameAfter(to)))
}

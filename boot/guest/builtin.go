//go:build linux

package guest

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"

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
)

// Builtins lists the usage of the agent's own commands.
func Builtins() []string {
	return []string{
		CmdCat + " PATH...", CmdPs, CmdStat + " PATH", CmdLs + " PATH", CmdKill + " SIGNAL PID...", CmdAppend + " PATH TEXT",
	}
}

func builtin(out io.Writer, argv []string) error {
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

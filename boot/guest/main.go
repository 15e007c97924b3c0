//go:build linux

package guest

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/seatrial/seatrial/boot"
	"golang.org/x/sys/unix"
)

// Main is the program behind /init, /sbin/init and their other names. args is
// the command line with the name it was called by. It returns the exit status.
func Main(args []string) int {
	name := "init"
	if len(args) > 0 {
		name = filepath.Base(args[0])
		args = args[1:]
	}
	var err error
	switch {
	case name == "modprobe":
		err = modprobe(args)
	case name == "usermode-helper" || name == "mdev":
		// LinuxKit's kernels start every helper through /sbin/usermode-helper,
		// with the helper's own name: then one of the other cases is taken.
		// Devices are devtmpfs's, so mdev has nothing to do.
	case name == "poweroff" || name == "reboot" || name == "halt":
		err = askToStop(Linux{}, name, args)
	case len(args) > 0 && args[0] == "agent":
		err = agentMain(args[1:])
	case os.Getpid() == 1:
		err = pid1()
	default:
		err = errors.New("this is the machine's PID 1; other uses: init agent TTY, modprobe, poweroff, reboot, halt")
	}
	if errors.Is(err, errQuiet) {
		return 1
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		return 1
	}
	return 0
}

// pid1 returns only with the reason why the machine cannot go on.
func pid1() error {
	m := newMachine()
	defer func() {
		if v := recover(); v != nil {
			m.die(fmt.Errorf("bug in PID 1: %v", v))
		}
	}()
	in, err := InRootfs()
	switch {
	case err != nil || !in || os.Args[0] == boot.InitPath:
	case onlyLoader("/"):
		err = enterRoot(m.sys)
	default:
		if err = LeaveRootfs(m.sys); err == nil {
			err = handOver()
		}
	}
	if err != nil {
		m.die(err)
	}
	if m.modulesDir, err = ModulesDir(); err != nil {
		m.speak.Say("init: %v", err)
	}
	m.die(m.serve())
	return nil
}

// handOver starts /sbin/init if that is another program than this one. An
// image may bring its own.
func handOver() error {
	self, err := os.Stat("/init")
	if err != nil {
		return nil // started under another name: nothing to compare
	}
	next, err := os.Stat(boot.InitPath)
	if err != nil {
		return fmt.Errorf("%w: the image has no %s, or the initramfs was cut off (give the machine more memory)", err, boot.InitPath)
	}
	if os.SameFile(self, next) {
		return nil
	}
	return fmt.Errorf("exec %s: %w", boot.InitPath, unix.Exec(boot.InitPath, []string{boot.InitPath}, os.Environ()))
}

// errQuiet is a failure that must not be said.
var errQuiet = errors.New("quiet")

// modprobe is modprobe(8) as far as the kernel and boot scripts use it.
func modprobe(args []string) error {
	fs := flag.NewFlagSet("modprobe", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	quiet := fs.Bool("q", false, "")
	all := fs.Bool("a", false, "")
	_ = fs.Bool("b", false, "") // blacklists: there are none
	if err := fs.Parse(splitFlags(args)); err != nil {
		return fmt.Errorf("%w (known: -q, -a, -b)", err)
	}
	names := fs.Args()
	if len(names) == 0 {
		return errors.New("no module named")
	}
	params := ""
	if !*all {
		params, names = strings.Join(names[1:], " "), names[:1]
	}
	dir, err := ModulesDir()
	if err != nil {
		return err
	}
	index, err := ReadModules(dir)
	if err != nil {
		return err
	}
	var problems []error
	for _, n := range names {
		problems = append(problems, index.Modprobe(Linux{}, n, params))
	}
	if err = errors.Join(problems...); err != nil && *quiet {
		return errQuiet
	}
	return err
}

// splitFlags turns -abq into -a -b -q.
func splitFlags(args []string) []string {
	var out []string
	for i, a := range args {
		if a == "--" || !strings.HasPrefix(a, "-") {
			return append(out, args[i:]...)
		}
		if strings.HasPrefix(a, "--") {
			out = append(out, a)
			continue
		}
		for _, c := range a[1:] {
			out = append(out, "-"+string(c))
		}
	}
	return out
}

// askToStop is poweroff, reboot and halt: a signal to PID 1, or with -f the
// kernel's own call, which stops nothing and saves nothing but what sync does.
func askToStop(sys System, verb string, args []string) error {
	fs := flag.NewFlagSet(verb, flag.ContinueOnError)
	force := fs.Bool("f", false, "at once, without stopping containers and unmounting")
	if err := fs.Parse(args); err != nil {
		return errQuiet // the flag package has said it
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	if *force {
		sys.Sync()
		return sys.Reboot(rebootCommand(verb))
	}
	for sig, reason := range requests {
		if reason == verb && sig != os.Signal(unix.SIGINT) {
			return sys.Kill(1, sig.(unix.Signal))
		}
	}
	return fmt.Errorf("no signal for %s", verb)
}

// agentMain is "init agent TTY".
func agentMain(args []string) error {
	if len(args) != 1 {
		return errors.New("agent: name the terminal, for example ttyS1")
	}
	line, err := openRaw(filepath.Join("/dev", args[0]))
	if err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	defer line.Close()
	return ServeAgent(context.Background(), line)
}

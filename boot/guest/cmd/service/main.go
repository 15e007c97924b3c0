//go:build linux

// Command service looks after the machine's services: the OCI bundles in
// /containers/services, run by containerd in the namespace services.linuxkit.
//
//	service system         bring all of them up and watch them; PID 1 runs this
//	service start NAME     start one that is not there
//	service stop NAME      SIGTERM, then after ten seconds SIGKILL, and remove it
//	service restart NAME   stop and start; works for one that has ended as well
//	service system-init    start all that are not there, and end; see [system-init]
//	service attach DIR PID give a created container its network interfaces
//
// The flags are those of LinuxKit's tool of the same name.
//
// It is a program of its own because what speaks with containerd is far larger
// than PID 1, and because PID 1 must not share its fate.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/seatrial/seatrial/boot"
	"github.com/seatrial/seatrial/boot/guest"
	"github.com/seatrial/seatrial/boot/guest/task"
	"golang.org/x/sys/unix"
)

const usage = `usage: service [-q | -v] [-containerd-namespace NS] COMMAND
commands:
  start|stop|restart [--sock SOCKET] [--path DIR] NAME
  system-init [--sock SOCKET] [--path DIR] [--containerd PROGRAM]
  system [--adopt]   (for PID 1)
  attach DIR PID     (for PID 1)
`

func main() { os.Exit(run(os.Args)) }

// options are what the flags say.
type options struct {
	quiet, verbose bool
	adopt          bool
	namespace      string // of services whose bundles name no other
	socket         string // of containerd
	path           string // of the bundles
}

// errUsage is a command line that cannot be obeyed; it has been said why.
var errUsage = errors.New("usage")

func run(argv []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	verb, o, args, err := parse(argv, os.Stderr)
	if errors.Is(err, errUsage) {
		return 2
	}
	if err == nil {
		err = do(ctx, verb, o, args)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "service: %v\n", err)
		return 1
	}
	return 0
}

// parse reads the command line: global flags, a verb, its flags and arguments.
// Called without arguments the verb is in the program's name, as LinuxKit's
// entries in /etc/init.d have it.
func parse(argv []string, complain io.Writer) (verb string, o options, args []string, err error) {
	o = options{namespace: boot.Namespace, socket: boot.ContainerdSocket, path: boot.ServicesDir}
	global := flag.NewFlagSet("service", flag.ContinueOnError)
	global.SetOutput(complain)
	global.Usage = func() { fmt.Fprint(complain, usage) }
	global.BoolVar(&o.quiet, "q", false, "")
	global.BoolVar(&o.verbose, "v", false, "")
	global.StringVar(&o.namespace, "containerd-namespace", o.namespace, "")
	if err := global.Parse(argv[1:]); err != nil {
		return "", o, nil, errUsage
	}
	if o.quiet && o.verbose {
		return "", o, nil, errors.New("-q and -v exclude each other")
	}
	if global.NArg() == 0 {
		if verb = verbOf(filepath.Base(argv[0])); verb == "" {
			return "", o, nil, fmt.Errorf("no command\n%s", usage)
		}
		return verb, o, nil, nil
	}
	verb = global.Arg(0)
	fs := flag.NewFlagSet("service "+verb, flag.ContinueOnError)
	fs.SetOutput(complain)
	fs.Usage = global.Usage
	fs.StringVar(&o.socket, "sock", o.socket, "")
	fs.StringVar(&o.path, "path", o.path, "")
	switch verb {
	case "system-init":
		_ = fs.String("containerd", boot.ContainerdPath, "") // PID 1 starts it
	case "system":
		fs.BoolVar(&o.adopt, "adopt", false, "")
	case "start", "stop", "restart", "attach":
	default:
		return "", o, nil, fmt.Errorf("unknown command %q\n%s", verb, usage)
	}
	if err := fs.Parse(global.Args()[1:]); err != nil {
		return "", o, nil, errUsage
	}
	wanted := map[string]int{"start": 1, "stop": 1, "restart": 1, "attach": 2}[verb]
	switch n := fs.NArg(); {
	case n > wanted:
		return "", o, nil, fmt.Errorf("unexpected argument %q\n%s", fs.Arg(wanted), usage)
	case n < wanted:
		return "", o, nil, fmt.Errorf("%s: %d arguments are needed\n%s", verb, wanted, usage)
	}
	return verb, o, fs.Args(), nil
}

// verbOf is the verb in a program's name, by LinuxKit's rules; empty if none.
func verbOf(name string) string {
	for _, n := range [][2]string{{"volumes", "done"}, {"onboot", "done"}, {"onshutdown", "done"}, {"containerd", "system-init"}} {
		if strings.Contains(name, n[0]) {
			return n[1]
		}
	}
	return ""
}

func do(ctx context.Context, verb string, o options, args []string) error {
	if verb == "done" {
		return errors.New("PID 1 does this itself: nothing to do")
	}
	kmsg, err := guest.OpenKmsg()
	if err != nil {
		return err
	}
	defer kmsg.Close()
	sys := guest.Linux{}
	t := &tool{options: o, sys: sys, speak: guest.NewSpeaker("service", os.Stderr, kmsg, sys.Uptime)}
	switch verb {
	case "system":
		return t.system(ctx)
	case "attach":
		return attachByPid(args[0], args[1])
	}
	if err := guest.Answers(o.socket); err != nil {
		return fmt.Errorf("containerd does not answer on %s: %w", o.socket, err)
	}
	if err := t.connect(); err != nil {
		return err
	}
	defer t.client.Close()
	if verb == "system-init" {
		return t.startMissing(ctx)
	}
	s, err := t.readService(args[0])
	if err != nil {
		return err
	}
	return t.control(ctx, verb, s)
}

func attachByPid(dir, pid string) error {
	n, err := strconv.Atoi(pid)
	if err != nil || n <= 0 {
		return fmt.Errorf("attach: %q is no process id", pid)
	}
	b, err := guest.ReadBundle(dir)
	if err != nil {
		return err
	}
	return attachInterfaces(b.Runtime.Interfaces, n, os.Stderr)
}

// control carries out one of the verbs on one service.
func (t *tool) control(ctx context.Context, verb string, s service) error {
	return s.locked(ctx, func() error {
		if verb != "start" {
			t.tell("Stopping service: %q", s.Name)
			if err := t.remove(ctx, s); err != nil {
				return fmt.Errorf("%s: %w", s.Name, err)
			}
		}
		if verb == "stop" { // only now: one that could not be stopped is still looked after
			return writeState(s.file("stop"), "")
		}
		if verb != "stop" {
			t.tell("Starting service: %q", s.Name)
			if _, err := t.start(ctx, s); err != nil {
				return fmt.Errorf("%s: %w", s.Name, err)
			}
		}
		return nil
	})
}

// tell says what is being done, unless -q was given.
func (t *tool) tell(format string, args ...any) {
	if !t.quiet {
		fmt.Printf(format+"\n", args...)
	}
}

// debug says what is being done in detail, if -v was given.
func (t *tool) debug(format string, args ...any) {
	if t.verbose {
		fmt.Printf(format+"\n", args...)
	}
}

func (t *tool) connect() error {
	c, err := task.Dial(t.socket)
	if err != nil {
		return fmt.Errorf("containerd: %w", err)
	}
	t.client = c
	return nil
}

// service makes a bundle a service of this tool.
func (t *tool) service(b guest.Bundle) service {
	if b.Runtime.Namespace == "" {
		b.Runtime.Namespace = t.namespace
	}
	return service{Bundle: b, restart: restartNo, state: stateDir}
}

// readService finds the bundle of a service by name.
func (t *tool) readService(name string) (service, error) {
	if name != filepath.Base(name) || name == "." || name == ".." {
		return service{}, fmt.Errorf("%q is no name of a service", name)
	}
	dir := filepath.Join(t.path, name)
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return service{}, fmt.Errorf("no service %q in %s", name, t.path)
	}
	b, err := guest.ReadBundle(dir)
	return t.service(b), err
}

//go:build linux

// Command service looks after the machine's services: the OCI bundles in
// /containers/services, run by containerd in the namespace services.linuxkit.
//
//	service system         bring all of them up and watch them; PID 1 runs this
//	service start NAME     start one that is not there
//	service stop NAME      SIGTERM, then after ten seconds SIGKILL, and remove it
//	service restart NAME   stop and start; works for one that has ended as well
//
// It is a program of its own because containerd's client is far larger than
// PID 1, and because PID 1 must not share its fate.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"

	"github.com/containerd/containerd/v2/client"
	"github.com/seatrial/seatrial/boot"
	"github.com/seatrial/seatrial/boot/guest"
	"golang.org/x/sys/unix"
)

const usage = `usage:
  service system [--adopt]
  service start|stop|restart NAME
`

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	if len(args) == 0 {
		fmt.Fprint(os.Stderr, usage)
		return 1
	}
	verb := args[0]
	fs := flag.NewFlagSet("service "+verb, flag.ContinueOnError)
	fs.Usage = func() { fmt.Fprint(os.Stderr, usage) }
	adopt := fs.Bool("adopt", false, "leave services that are there as they are")
	if err := fs.Parse(args[1:]); err != nil {
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	err := do(ctx, verb, *adopt, fs.Args())
	if err != nil {
		fmt.Fprintf(os.Stderr, "service: %v\n", err)
		return 1
	}
	return 0
}

func do(ctx context.Context, verb string, adopt bool, names []string) error {
	one := verb == "start" || verb == "stop" || verb == "restart"
	switch {
	case !one && verb != "system":
		return fmt.Errorf("unknown command %q\n%s", verb, usage)
	case one && len(names) != 1:
		return fmt.Errorf("%s: name one service\n%s", verb, usage)
	case !one && len(names) > 0:
		return fmt.Errorf("unexpected argument %q\n%s", names[0], usage)
	}
	kmsg, err := guest.OpenKmsg()
	if err != nil {
		return err
	}
	defer kmsg.Close()
	sys := guest.Linux{}
	t := &tool{sys: sys, speak: guest.NewSpeaker("service", os.Stderr, kmsg, sys.Uptime)}
	if verb == "system" {
		return t.system(ctx, adopt)
	}
	if err := t.connect(); err != nil {
		return err
	}
	defer t.client.Close()
	s, err := readService(names[0])
	if err != nil {
		return err
	}
	return t.control(ctx, verb, s)
}

// control carries out one of the verbs on one service.
func (t *tool) control(ctx context.Context, verb string, s service) error {
	if verb != "start" {
		fmt.Printf("Stopping service: %q\n", s.Name)
		if err := t.remove(ctx, s); err != nil {
			return fmt.Errorf("%s: %w", s.Name, err)
		}
	}
	if verb != "stop" {
		fmt.Printf("Starting service: %q\n", s.Name)
		if _, err := t.start(ctx, s); err != nil {
			return fmt.Errorf("%s: %w", s.Name, err)
		}
	}
	return nil
}

func (t *tool) connect() error {
	c, err := client.New(boot.ContainerdSocket)
	if err != nil {
		return fmt.Errorf("containerd: %w", err)
	}
	t.client = c
	return nil
}

// readService finds the bundle of a service by name.
func readService(name string) (service, error) {
	if name != filepath.Base(name) || name == "." || name == ".." {
		return service{}, fmt.Errorf("%q is no name of a service", name)
	}
	dir := filepath.Join(boot.ServicesDir, name)
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return service{}, fmt.Errorf("no service %q in %s", name, boot.ServicesDir)
	}
	b, err := guest.ReadBundle(dir)
	return service{b}, err
}

//go:build linux

// Command floor is what the shipped init is measured against, and nothing to
// boot a machine with: the least that brings containerd and the services up.
// It mounts what containerd needs, starts it directly, and creates all tasks
// through its API at once. It supervises nothing, says nothing, reaps nothing.
//
// Installed as /init it ends with one event, Ready, for the harness.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/seatrial/seatrial/boot"
	"github.com/seatrial/seatrial/boot/guest"
	"github.com/seatrial/seatrial/boot/guest/task"
)

func main() {
	if os.Getpid() != 1 {
		os.Exit(1) // it mounts what a machine needs, which is for a machine only
	}
	sys := guest.Linux{}
	err := bringUp(sys)
	e := boot.Event{At: boot.Ready, State: boot.Done}
	if err != nil {
		e.State, e.Detail = boot.Failed, err.Error()
	}
	kmsg, err := guest.OpenKmsg()
	if err != nil {
		fmt.Fprintln(os.Stderr, "floor:", err)
		os.Exit(1)
	}
	guest.NewSpeaker("floor", os.Stderr, kmsg, sys.Uptime).Event(e)
	select {}
}

func bringUp(sys guest.System) error {
	if err := guest.LeaveRootfs(sys); err != nil {
		return err
	}
	for _, m := range [][2]string{
		{"/proc", "proc"}, {"/sys", "sysfs"}, {"/sys/fs/cgroup", "cgroup2"}, {"/dev", "devtmpfs"},
		{"/run", "tmpfs"}, {"/tmp", "tmpfs"}, {"/var", "tmpfs"},
	} {
		if err := sys.Mount(m[1], m[0], m[1], 0, ""); err != nil {
			return fmt.Errorf("%s: %w", m[0], err)
		}
	}
	for _, d := range []string{"/dev/pts", "/dev/shm", "/dev/mqueue", "/var/log", "/var/lib"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	dir, err := guest.ModulesDir()
	if err != nil {
		return err
	}
	modules, err := guest.ReadModules(dir)
	if err != nil {
		return err
	}
	if err := modules.Modprobe(sys, "overlay", ""); err != nil {
		return err
	}
	if err := os.Setenv("PATH", "/usr/bin:/usr/sbin:/bin:/sbin"); err != nil {
		return err
	}
	stdio := &os.ProcAttr{Files: []*os.File{nil, os.Stdout, os.Stderr}}
	if _, err := os.StartProcess(boot.ContainerdPath, []string{boot.ContainerdPath}, stdio); err != nil {
		return err
	}
	for guest.Answers(boot.ContainerdSocket) != nil {
		time.Sleep(5 * time.Millisecond) // it tells nobody; a floor may look often
	}
	return startAll(sys)
}

// startAll creates every task at once.
func startAll(sys guest.System) error {
	c, err := task.Dial(boot.ContainerdSocket)
	if err != nil {
		return err
	}
	bundles, problems := guest.ReadBundles(boot.ServicesDir)
	var wg sync.WaitGroup
	for i, b := range bundles {
		wg.Go(func() {
			if err := start(c, sys, b); err != nil {
				problems[i] = errors.Join(problems[i], fmt.Errorf("%s: %w", b.Name, err))
			}
		})
	}
	wg.Wait()
	return errors.Join(problems...)
}

func start(c *task.Client, sys guest.System, b guest.Bundle) error {
	if err := b.Prepare(sys); err != nil {
		return err
	}
	spec, err := guest.ReadSpec(b.Dir)
	if err != nil {
		return err
	}
	ctx, id := context.Background(), task.ID{Namespace: boot.Namespace, Name: b.Name}
	if err := c.Create(ctx, id, spec.Text); err != nil {
		return err
	}
	if _, err := c.CreateTask(ctx, id, task.Streams{}); err != nil {
		return err
	}
	return c.Start(ctx, id)
}

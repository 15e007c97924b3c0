//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/seatrial/seatrial/boot"
	"github.com/seatrial/seatrial/boot/guest"
)

// runtime is the containerd plugin that runs services.
const runtime = "io.containerd.runc.v2"

// The longest that one service may take. They are generous: an emulated
// machine on a busy host needs ten seconds for what takes one here.
const (
	startTime = 2 * time.Minute
	graceTime = 10 * time.Second // between SIGTERM and SIGKILL
	killTime  = 30 * time.Second // for SIGKILL to be carried out
)

// markDir holds a file for every service that is being stopped on request, so
// that whoever watches it does not take that for a failure.
const markDir = "/run/service"

// service is a bundle that containerd runs.
type service struct{ guest.Bundle }

// in returns ctx for the service's namespace.
func (s service) in(ctx context.Context) context.Context {
	return namespaces.WithNamespace(ctx, s.namespace())
}

func (s service) namespace() string {
	if s.Runtime.Namespace != "" {
		return s.Runtime.Namespace
	}
	return boot.Namespace
}

func (s service) mark() string { return filepath.Join(markDir, s.Name+".stop") }

// tool does the work of all verbs.
type tool struct {
	client *client.Client
	sys    guest.System
	speak  *guest.Speaker
}

// start makes the container and its task and runs it. Nothing is left of a
// start that failed.
func (t *tool) start(ctx context.Context, s service) (pid uint32, err error) {
	ctx, cancel := context.WithTimeout(s.in(ctx), startTime)
	defer cancel()
	spec, err := readSpec(s.Dir)
	if err != nil {
		return 0, err
	}
	// Before the mounts, which would pile up over those of the one that runs.
	if _, err := t.client.ContainerService().Get(ctx, s.Name); err == nil {
		return 0, fmt.Errorf("is there already; use service restart %s", s.Name)
	} else if !errdefs.IsNotFound(err) {
		return 0, fmt.Errorf("containerd: %w", err)
	}
	if err := os.Remove(s.mark()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return 0, err
	}
	if err := s.Prepare(t.sys); err != nil {
		return 0, fmt.Errorf("preparing the file system: %w", err)
	}
	pid, err = t.launch(ctx, s, spec)
	if err != nil {
		return 0, errors.Join(err, s.Release(t.sys))
	}
	return pid, nil
}

func (t *tool) launch(ctx context.Context, s service, spec *specs.Spec) (pid uint32, err error) {
	c, err := t.client.NewContainer(ctx, s.Name, client.WithSpec(spec), client.WithRuntime(runtime, nil))
	if err != nil {
		return 0, fmt.Errorf("creating the container: %w", err)
	}
	clean := context.WithoutCancel(ctx)
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Delete(clean))
		}
	}()
	task, err := c.NewTask(ctx, logs(s.Name))
	if err != nil {
		return 0, fmt.Errorf("creating the task: %w", err)
	}
	if err := task.Start(ctx); err != nil {
		_, gone := task.Delete(clean, client.WithProcessKill)
		return 0, errors.Join(fmt.Errorf("starting the task: %w", err), gone)
	}
	return task.Pid(), nil
}

// readSpec reads a bundle's config.json. The shim has a working directory of
// its own, so the root must be absolute.
func readSpec(dir string) (*specs.Spec, error) {
	name := filepath.Join(dir, "config.json")
	src, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	var spec specs.Spec
	if err := json.Unmarshal(src, &spec); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if spec.Root == nil || spec.Process == nil {
		return nil, fmt.Errorf("%s: no root or no process in it", name)
	}
	if !filepath.IsAbs(spec.Root.Path) {
		spec.Root.Path = filepath.Join(dir, spec.Root.Path)
	}
	return &spec, nil
}

// logFiles is a task's standard input and output: none and two fresh files.
// The shim appends to plain files that exist (its file:// scheme would put both
// streams into one).
type logFiles struct{ config cio.Config }

func (l logFiles) Config() cio.Config { return l.config }
func (logFiles) Cancel()              {}
func (logFiles) Wait()                {}
func (logFiles) Close() error         { return nil }

func logs(name string) cio.Creator {
	return func(string) (cio.IO, error) {
		if err := os.MkdirAll(boot.LogDir, 0o755); err != nil {
			return nil, err
		}
		config := cio.Config{
			Stdout: filepath.Join(boot.LogDir, name+".out.log"),
			Stderr: filepath.Join(boot.LogDir, name+".log"),
		}
		for _, file := range []string{config.Stdout, config.Stderr} {
			f, err := os.Create(file)
			if err != nil {
				return nil, err
			}
			if err := f.Close(); err != nil {
				return nil, err
			}
		}
		return logFiles{config}, nil
	}
}

// remove stops a service and takes away its task, container and mounts. One
// that has ended, or was never there, is no error.
func (t *tool) remove(ctx context.Context, s service) error {
	ctx, cancel := context.WithTimeout(s.in(ctx), startTime)
	defer cancel()
	c, err := t.client.LoadContainer(ctx, s.Name)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("containerd: %w", err)
	}
	task, err := c.Task(ctx, nil)
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("containerd: %w", err)
	}
	if err == nil {
		if err := t.halt(ctx, s, task); err != nil {
			return err
		}
		if _, err := task.Delete(ctx); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("removing the task: %w", err)
		}
	}
	if err := c.Delete(ctx); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("removing the container: %w", err)
	}
	return s.Release(t.sys)
}

// halt ends a task's process: SIGTERM, and SIGKILL when its grace is over or
// when it could not see SIGTERM anyway.
func (t *tool) halt(ctx context.Context, s service, task client.Task) error {
	status, err := task.Status(ctx)
	if err != nil {
		return fmt.Errorf("containerd: %w", err)
	}
	if status.Status == client.Stopped {
		return nil
	}
	if err := os.MkdirAll(markDir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(s.mark(), nil, 0o644); err != nil {
		return err
	}
	ended, err := task.Wait(ctx) // before the signal, or its end could be missed
	if err != nil {
		return fmt.Errorf("containerd: %w", err)
	}
	if guest.HeedsTerm("/proc", int(task.Pid())) {
		if err := task.Kill(ctx, syscall.SIGTERM); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("SIGTERM: %w", err)
		}
		if waitFor(ctx, ended, graceTime) {
			return nil
		}
	}
	if err := task.Kill(ctx, syscall.SIGKILL, client.WithKillAll); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("SIGKILL: %w", err)
	}
	if !waitFor(ctx, ended, killTime) {
		return fmt.Errorf("still there %v after SIGKILL", killTime)
	}
	return nil
}

func waitFor(ctx context.Context, ended <-chan client.ExitStatus, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ended:
		return true
	case <-t.C:
	case <-ctx.Done():
	}
	return false
}

//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/seatrial/seatrial/boot"
	"github.com/seatrial/seatrial/boot/guest"
	"golang.org/x/sys/unix"
)

// runtime is the containerd plugin that runs services.
const runtime = "io.containerd.runc.v2"

// The longest that one service may take. They are generous: an emulated
// machine on a busy host needs ten seconds for what takes one here.
const (
	startTime = 2 * time.Minute
	graceTime = 10 * time.Second // between SIGTERM and SIGKILL
	killTime  = 30 * time.Second // for SIGKILL to be carried out
	lockPoll  = 20 * time.Millisecond
)

// stateDir holds what the tool's processes must know of each other: NAME.lock,
// held by whoever starts or stops a service; NAME.stop, there while a service
// is to stay stopped; NAME.ending, with the pid of the task that was stopped
// on request, so that whoever watches does not take its end for a failure.
const stateDir = "/run/service"

// service is a bundle that containerd runs.
type service struct {
	guest.Bundle
	restart restartPolicy
	state   string // directory of its state files
}

// restartPolicy says what is done when a service ends that was not to end.
type restartPolicy string

// The policies; none is that of LinuxKit.
const (
	restartNo        restartPolicy = "no"
	restartOnFailure restartPolicy = "on-failure" // when its exit status is not 0
	restartAlways    restartPolicy = "always"
)

// restartAnnotation is where a container's config.json names its policy.
const restartAnnotation = "org.seatrial.restart"

// restartPolicyOf reads the policy of a bundle. A bundle that cannot be read
// has none; its start will say why.
func restartPolicyOf(dir string) (restartPolicy, error) {
	spec, err := readSpec(dir)
	if err != nil {
		return restartNo, nil
	}
	text, ok := spec.Annotations[restartAnnotation]
	switch p := restartPolicy(text); {
	case !ok, p == restartNo:
		return restartNo, nil
	case p == restartOnFailure, p == restartAlways:
		return p, nil
	}
	return restartNo, fmt.Errorf("annotation %s: %q is none of %s, %s and %s; it is not restarted",
		restartAnnotation, text, restartNo, restartOnFailure, restartAlways)
}

// wants reports whether a service that ended with this status is started again.
func (p restartPolicy) wants(code uint32) bool {
	return p == restartAlways || p == restartOnFailure && code != 0
}

// in returns ctx for the service's namespace.
func (s service) in(ctx context.Context) context.Context {
	return namespaces.WithNamespace(ctx, s.Runtime.Namespace)
}

func (s service) file(kind string) string { return filepath.Join(s.state, s.Name+"."+kind) }

// stopped reports whether the service is to stay as it is: stopped on request.
func (s service) stopped() bool {
	_, err := os.Stat(s.file("stop"))
	return err == nil
}

// endedOnRequest reports whether the task with this pid was to end.
func (s service) endedOnRequest(pid uint32) bool {
	text, err := os.ReadFile(s.file("ending"))
	return err == nil && string(text) == strconv.Itoa(int(pid))
}

// locked calls f while no other process of this tool starts or stops the service.
func (s service) locked(ctx context.Context, f func() error) error {
	if err := os.MkdirAll(s.state, 0o755); err != nil {
		return err
	}
	lock, err := os.OpenFile(s.file("lock"), os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close()
	for {
		err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f()
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("%s: %w", lock.Name(), err)
		}
		select {
		case <-time.After(lockPoll):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// tool does the work of all verbs.
type tool struct {
	options
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
	if err := os.Remove(s.file("stop")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return 0, err
	}
	t.debug("%s: preparing the file system", s.Name)
	if err := s.Prepare(t.sys); err != nil {
		return 0, fmt.Errorf("preparing the file system: %w", err)
	}
	if err := s.MakeCgroups(""); err != nil {
		t.speak.Say("service %s: cgroup error: %v", s.Name, err)
	}
	pid, err = t.launch(ctx, s, spec)
	if err != nil {
		return 0, errors.Join(err, s.Release(t.sys))
	}
	return pid, nil
}

func (t *tool) launch(ctx context.Context, s service, spec *specs.Spec) (pid uint32, err error) {
	t.debug("%s: creating the container", s.Name)
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
	logs, problems := makeLogs(s.Name, boot.LoggingSocket, boot.LogDir)
	for _, err := range problems {
		t.speak.Say("service %s: %s", s.Name, strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	defer logs.release()
	t.debug("%s: creating the task", s.Name)
	task, err := c.NewTask(ctx, func(string) (cio.IO, error) { return *logs, nil })
	if err != nil {
		return 0, fmt.Errorf("creating the task: %w", err)
	}
	defer func() {
		if err != nil {
			_, gone := task.Delete(clean, client.WithProcessKill)
			err = errors.Join(err, gone)
		}
	}()
	if err := attachInterfaces(s.Runtime.Interfaces, int(task.Pid()), os.Stderr); err != nil {
		return 0, err
	}
	if err := s.BindNamespaces(t.sys, "", int(task.Pid())); err != nil {
		return 0, err
	}
	t.debug("%s: starting the task", s.Name)
	if err := task.Start(ctx); err != nil {
		return 0, fmt.Errorf("starting the task: %w", err)
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

// logFiles are where a task's standard output and error go: plain files, which
// the shim appends to (its file:// scheme would put both streams into one), or
// with a logging daemon FIFOs that the daemon reads.
type logFiles struct {
	stdout, stderr string
	held           []*os.File // both ends of each FIFO: see toDaemon
}

// Config, Cancel, Wait and Close make logFiles a [cio.IO]: the shim does all
// the copying.
func (l logFiles) Config() cio.Config { return cio.Config{Stdout: l.stdout, Stderr: l.stderr} }
func (logFiles) Cancel()              {}
func (logFiles) Wait()                {}
func (logFiles) Close() error         { return nil }

// makeLogs makes fresh ones: FIFOs beside the logging daemon's socket, if that
// is there, or files in dir. What the daemon does not take goes to a file, and
// a file that cannot be made is replaced by /dev/null: neither a deaf daemon nor
// a full disk may keep a service from running.
func makeLogs(name, socket, dir string) (l *logFiles, problems []error) {
	_, err := os.Stat(socket)
	daemon := err == nil
	l = &logFiles{}
	for _, log := range []struct {
		file   *string
		source string
	}{{&l.stdout, name + ".out"}, {&l.stderr, name}} {
		if daemon {
			held, err := toDaemon(socket, log.source)
			if err == nil {
				*log.file, l.held = held.Name(), append(l.held, held)
				continue
			}
			problems = append(problems, fmt.Errorf("%w; it goes to %s", err, dir))
		}
		*log.file = filepath.Join(dir, log.source+".log")
		if err := freshFile(*log.file); err != nil {
			problems = append(problems, fmt.Errorf("its output is lost: %w", err))
			*log.file = os.DevNull
		}
	}
	return l, problems
}

func freshFile(file string) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	return f.Close()
}

// toDaemon makes a FIFO and gives its reading end to the logging daemon. What it
// returns has both ends open, and must be kept until the shim has opened its
// own: without a writer the daemon would find the end of the log at once, and
// without a reader the shim would wait for one, and give up after 30 seconds.
//
// A FIFO of an earlier start is not used again: its reader may be gone.
func toDaemon(socket, source string) (held *os.File, err error) {
	file := filepath.Join(filepath.Dir(socket), source+".log")
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if err := unix.Mkfifo(file, 0o600); err != nil {
		return nil, fmt.Errorf("log %s: %w", file, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(file))
		}
	}()
	if held, err = os.OpenFile(file, os.O_RDWR, 0); err != nil { // waits for nobody (fifo(7))
		return nil, err
	}
	log, err := guest.OpenLog(file)
	if err == nil {
		err = errors.Join(guest.SendLog(socket, source, log), log.Close())
	}
	if err != nil {
		return nil, errors.Join(err, held.Close())
	}
	return held, nil
}

// release lets go the FIFOs, once the shim has them.
func (l *logFiles) release() {
	for _, f := range l.held {
		f.Close()
	}
}

// remove stops a service and takes away its task, container and mounts. One
// that has ended, or was never there, is no error. With stay it is then to
// stay stopped until somebody starts it.
func (t *tool) remove(ctx context.Context, s service, stay bool) error {
	ctx, cancel := context.WithTimeout(s.in(ctx), startTime)
	defer cancel()
	if stay {
		if err := writeState(s.file("stop"), ""); err != nil {
			return err
		}
	}
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
		if err := t.halt(ctx, s, task, throughRuntime); err != nil {
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

func writeState(file, text string) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, []byte(text), 0o644)
}

// kill sends a signal to a task.
type kill func(ctx context.Context, task client.Task, sig syscall.Signal) error

// throughRuntime has the OCI runtime do it, which reaches every process of the
// container with SIGKILL.
func throughRuntime(ctx context.Context, task client.Task, sig syscall.Signal) error {
	var options []client.KillOpts
	if sig == syscall.SIGKILL {
		options = append(options, client.WithKillAll)
	}
	err := task.Kill(ctx, sig, options...)
	if errdefs.IsNotFound(err) {
		return nil // it has ended
	}
	return err
}

// directly signals the first process only, and saves the start of a runtime
// for each service. Its shim has not reaped it yet, so the number is its own.
func directly(_ context.Context, task client.Task, sig syscall.Signal) error {
	err := unix.Kill(int(task.Pid()), sig)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

// halt ends a task's process: SIGTERM, and SIGKILL when its grace is over or
// when it could not see SIGTERM anyway.
func (t *tool) halt(ctx context.Context, s service, task client.Task, send kill) error {
	status, err := task.Status(ctx)
	if err != nil {
		return fmt.Errorf("containerd: %w", err)
	}
	if status.Status == client.Stopped {
		return nil
	}
	if err := writeState(s.file("ending"), strconv.Itoa(int(task.Pid()))); err != nil {
		return err
	}
	ended, err := task.Wait(ctx) // before the signal, or its end could be missed
	if err != nil {
		return fmt.Errorf("containerd: %w", err)
	}
	if guest.HeedsTerm("/proc", int(task.Pid())) {
		if err := send(ctx, task, syscall.SIGTERM); err != nil {
			return fmt.Errorf("SIGTERM: %w", err)
		}
		if waitFor(ctx, ended, graceTime) {
			return nil
		}
	}
	if err := send(ctx, task, syscall.SIGKILL); err != nil {
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

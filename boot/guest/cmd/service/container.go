//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/seatrial/seatrial/boot"
	"github.com/seatrial/seatrial/boot/guest"
	"github.com/seatrial/seatrial/boot/guest/task"
	"golang.org/x/sys/unix"
)

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
// on request, so that whoever watches does not take its end for a failure, and
// its exit status once it is known, should the end itself not be heard of;
// NAME.told, with the pid of the last task whose end was told, for the tool that
// watches after this one.
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
	spec, err := guest.ReadSpec(dir)
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

// id is the service's for containerd.
func (s service) id() task.ID { return task.ID{Namespace: s.Runtime.Namespace, Name: s.Name} }

func (s service) file(kind string) string { return filepath.Join(s.state, s.Name+"."+kind) }

// stopped reports whether the service is to stay as it is: stopped on request.
func (s service) stopped() bool {
	_, err := os.Stat(s.file("stop"))
	return err == nil
}

// endedOnRequest reports whether the task with this pid was to end.
func (s service) endedOnRequest(pid uint32) bool { return pid != 0 && s.noted("ending") == pid }

// noted is the pid in a state file, 0 if there is none.
func (s service) noted(kind string) uint32 {
	text, err := os.ReadFile(s.file(kind))
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(text), " ")
	pid, err := strconv.ParseUint(first, 10, 32)
	if err != nil {
		return 0
	}
	return uint32(pid)
}

// endedWith is the exit status of the task with this pid, if it was stopped on
// request and that is known.
func (s service) endedWith(pid uint32) (status uint32, ok bool) {
	text, err := os.ReadFile(s.file("ending"))
	if err != nil {
		return 0, false
	}
	n, err := fmt.Sscanf(string(text), fmt.Sprintf("%d %%d", pid), &status)
	return status, err == nil && n == 1
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
	client *task.Client
	sys    guest.System
	speak  *guest.Speaker
	lost   atomic.Bool // containerd went away and did not come back in time
}

// start makes the container and its task and runs it. Nothing is left of a
// start that failed.
func (t *tool) start(ctx context.Context, s service) (pid uint32, err error) {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	spec, err := guest.ReadSpec(s.Dir)
	if err != nil {
		return 0, err
	}
	// The container is made before the mounts, which would otherwise pile up
	// over those of one that is there already.
	t.debug("%s: creating the container", s.Name)
	if err := t.client.Create(ctx, s.id(), spec.Text); errdefs.IsAlreadyExists(err) {
		return 0, fmt.Errorf("is there already; use service restart %s", s.Name)
	} else if err != nil {
		return 0, fmt.Errorf("creating the container: %w", err)
	}
	clean := context.WithoutCancel(ctx)
	defer func() {
		if err != nil {
			err = errors.Join(err, t.client.Delete(clean, s.id()))
		}
	}()
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
	pid, err = t.launch(ctx, s)
	if err != nil {
		return 0, errors.Join(err, t.release(s))
	}
	return pid, nil
}

// launch makes and starts the task of a container. Nothing is left of one that
// failed.
func (t *tool) launch(ctx context.Context, s service) (pid uint32, err error) {
	logs, problems := makeLogs(s.Name, boot.LoggingSocket, boot.LogDir)
	for _, err := range problems {
		t.speak.Say("service %s: %s", s.Name, strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	defer logs.release()
	t.debug("%s: creating the task", s.Name)
	pid, err = t.client.CreateTask(ctx, s.id(), logs.Streams)
	if err != nil {
		return 0, fmt.Errorf("creating the task: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.client.RemoveTask(context.WithoutCancel(ctx), s.id()))
		}
	}()
	if err := attachInterfaces(s.Runtime.Interfaces, int(pid), os.Stderr); err != nil {
		return 0, err
	}
	if err := s.BindNamespaces(t.sys, "", int(pid)); err != nil {
		return 0, err
	}
	t.debug("%s: starting the task", s.Name)
	if err := t.client.Start(ctx, s.id()); err != nil {
		return 0, fmt.Errorf("starting the task: %w", err)
	}
	return pid, nil
}

// logFiles are where a task's standard output and error go: plain files, which
// the shim appends to (its file:// scheme would put both streams into one), or
// with a logging daemon FIFOs that the daemon reads.
type logFiles struct {
	task.Streams
	held []*os.File // both ends of each FIFO: see toDaemon
}

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
	}{{&l.Stdout, name + ".out"}, {&l.Stderr, name}} {
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
// that has ended, or was never there, is no error.
func (t *tool) remove(ctx context.Context, s service) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	state, err := t.client.State(ctx, s.id())
	switch {
	case err == nil:
		if err := t.halt(ctx, s, state, t.throughRuntime); err != nil {
			return err
		}
		status, err := t.client.DeleteTask(ctx, s.id())
		if err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("removing the task: %w", err)
		}
		if err == nil && s.endedOnRequest(state.Pid) { // a full /run has been told of by halt
			_ = writeState(s.file("ending"), fmt.Sprintf("%d %d", state.Pid, status))
		}
	case !errdefs.IsNotFound(err):
		return fmt.Errorf("containerd: %w", err)
	}
	err = t.client.Delete(ctx, s.id())
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("removing the container: %w", err)
	}
	return t.release(s)
}

// release takes away what a service without a task still has of mounts.
func (t *tool) release(s service) error {
	return errors.Join(s.UnbindNamespaces(t.sys, ""), s.Release(t.sys))
}

func writeState(file, text string) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, []byte(text), 0o644)
}

// kill sends a signal to the task of a service; one that has ended is no error.
type kill func(ctx context.Context, s service, pid uint32, sig syscall.Signal) error

// throughRuntime has the OCI runtime do it, which reaches every process of the
// container with SIGKILL.
func (t *tool) throughRuntime(ctx context.Context, s service, _ uint32, sig syscall.Signal) error {
	err := t.client.Kill(ctx, s.id(), sig, sig == syscall.SIGKILL)
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}

// directly signals the first process only, and saves the start of a runtime
// for each service. Its shim has not reaped it yet, so the number is its own.
func directly(_ context.Context, _ service, pid uint32, sig syscall.Signal) error {
	err := unix.Kill(int(pid), sig)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

// halt ends a task's process: SIGTERM, and SIGKILL when its grace is over or
// when it could not see SIGTERM anyway.
func (t *tool) halt(ctx context.Context, s service, now task.State, send kill) error {
	if now.Stopped {
		return nil
	}
	// A full /run costs the mark that its end is wanted, and not the end.
	if err := writeState(s.file("ending"), strconv.Itoa(int(now.Pid))); err != nil {
		t.speak.Say("service %s: not noted that its end is wanted: %v", s.Name, err)
	}
	if guest.HeedsTerm("/proc", int(now.Pid)) {
		if err := send(ctx, s, now.Pid, syscall.SIGTERM); err != nil {
			return fmt.Errorf("SIGTERM: %w", err)
		}
		// Only the end of its grace is a reason to kill it.
		if err := t.ends(ctx, s, graceTime); !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
	}
	if err := send(ctx, s, now.Pid, syscall.SIGKILL); err != nil {
		return fmt.Errorf("SIGKILL: %w", err)
	}
	if err := t.ends(ctx, s, killTime); err != nil {
		return fmt.Errorf("after SIGKILL: %w", err)
	}
	return nil
}

// ends waits for the end of a task, but no longer than d. It may be called after
// the end: containerd keeps the status of a task until that is deleted.
func (t *tool) ends(ctx context.Context, s service, d time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	_, err := t.client.Wait(ctx, s.id())
	switch {
	case err == nil, errdefs.IsNotFound(err):
		return nil
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("still there after %v: %w", d, err)
	}
	return fmt.Errorf("waiting for its end: %w", err)
}

//go:build linux

package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	apievents "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/events"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
	"github.com/seatrial/seatrial/boot"
	"golang.org/x/sys/unix"
)

// watch tells when services start and end, and starts again what is to be
// started again. It hears that from containerd's event stream, and looks for
// itself whenever that stream is new: nothing is heard while containerd is
// being restarted.
type watch struct {
	ctx      context.Context // ends when the machine is to stop
	t        *tool
	services map[string]service
	restarts sync.WaitGroup // under way; all end with ctx

	mu    sync.Mutex
	alive map[string]uint32    // key -> pid of the running task
	since map[string]time.Time // key -> when it was told to run
	over  map[string]uint32    // key -> pid of the last task whose end was told
	wait  map[string]time.Duration
}

func newWatch(ctx context.Context, t *tool, services []service) *watch {
	w := &watch{ctx: ctx, t: t, services: map[string]service{}, alive: map[string]uint32{},
		since: map[string]time.Time{}, over: map[string]uint32{}, wait: map[string]time.Duration{}}
	for _, s := range services {
		w.services[key(s.Runtime.Namespace, s.Name)] = s
	}
	return w
}

// settleTime is how long after subscribing the state is looked at again:
// containerd takes a subscription before it serves it, and says nothing when
// it does.
const settleTime = time.Second

// The pause before a service is started again grows from minBackOff to
// maxBackOff; one that ran for steadyTime begins anew.
const (
	minBackOff = 100 * time.Millisecond
	maxBackOff = 10 * time.Second
	steadyTime = time.Minute
)

// sleep waits for d and reports whether ctx is still good then.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// follow listens until the machine is to stop.
func (w *watch) follow() {
	for wait := minBackOff; ; wait = min(2*wait, maxBackOff) {
		if w.listen() {
			wait = minBackOff
		}
		if !sleep(w.ctx, wait) {
			return
		}
	}
}

// listen follows one subscription to its end and reports whether it was good
// for anything.
func (w *watch) listen() (heard bool) {
	ctx, cancel := context.WithCancel(w.ctx)
	defer cancel()
	stream, errs := w.t.client.Subscribe(ctx, `topic=="/tasks/start"`, `topic=="/tasks/exit"`)
	look := time.NewTimer(settleTime)
	defer look.Stop()
	for {
		select {
		case e := <-stream:
			heard = true
			w.take(e)
		case <-look.C:
			heard = true
			w.look(ctx)
		case <-errs:
			return heard
		case <-ctx.Done():
			return heard
		}
	}
}

func (w *watch) take(e *events.Envelope) {
	v, err := typeurl.UnmarshalAny(e.Event)
	if err != nil {
		w.t.speak.Say("service: event %s: %v", e.Topic, err)
		return
	}
	switch v := v.(type) {
	case *apievents.TaskStart:
		if s, ok := w.services[key(e.Namespace, v.ContainerID)]; ok {
			w.started(s, v.Pid)
		}
	case *apievents.TaskExit:
		// Other IDs are processes that were brought in with exec.
		if s, ok := w.services[key(e.Namespace, v.ContainerID)]; ok && v.ID == v.ContainerID {
			w.ended(s, v.Pid, v.ExitStatus)
		}
	}
}

// look asks containerd how every service is.
func (w *watch) look(ctx context.Context) {
	for _, s := range w.services {
		pid, status, err := w.t.status(ctx, s)
		switch {
		case errdefs.IsNotFound(err):
			w.lost(s)
		case err != nil:
			return // containerd has gone again
		case status.Status == client.Running:
			w.started(s, pid)
		case status.Status == client.Stopped:
			w.ended(s, pid, status.ExitStatus)
		}
	}
}

// status asks containerd for a service's task.
func (t *tool) status(ctx context.Context, s service) (pid uint32, status client.Status, err error) {
	ctx = s.in(ctx)
	c, err := t.client.LoadContainer(ctx, s.Name)
	if err != nil {
		return 0, status, err
	}
	task, err := c.Task(ctx, nil)
	if err != nil {
		return 0, status, err
	}
	status, err = task.Status(ctx)
	return task.Pid(), status, err
}

// started tells that a task runs, once.
func (w *watch) started(s service, pid uint32) {
	w.mu.Lock()
	k := key(s.Runtime.Namespace, s.Name)
	known := w.alive[k] == pid || w.over[k] == pid
	if !known {
		w.alive[k], w.since[k] = pid, time.Now()
	}
	w.mu.Unlock()
	if known {
		return
	}
	w.t.speak.Say("service %s: running, pid %d", s.Name, pid)
	w.t.speak.Event(boot.Event{At: boot.Services, State: boot.Running, Unit: s.Name})
}

// lost tells of a task that ran and is not there any more, as after the death
// of its shim while containerd was away.
func (w *watch) lost(s service) {
	w.mu.Lock()
	pid := w.alive[key(s.Runtime.Namespace, s.Name)]
	w.mu.Unlock()
	if pid != 0 && !s.stopped() {
		w.ended(s, pid, unknownStatus)
	}
}

// unknownStatus stands for the exit status of a task that is lost; it is
// containerd's own number for it (client.UnknownExitStatus).
const unknownStatus = client.UnknownExitStatus

// ended tells that a task has ended, once, and starts it again if its policy
// wants that.
func (w *watch) ended(s service, pid, code uint32) {
	w.mu.Lock()
	k := key(s.Runtime.Namespace, s.Name)
	known := w.over[k] == pid
	if !known {
		w.over[k] = pid
		delete(w.alive, k)
	}
	wait := max(w.wait[k], minBackOff)
	if ran, ok := w.since[k]; ok && time.Since(ran) > steadyTime {
		wait = minBackOff
	}
	again := !known && s.restart.wants(code) && !s.endedOnRequest(pid) && w.ctx.Err() == nil
	if again {
		w.wait[k] = min(2*wait, maxBackOff)
		w.restarts.Add(1)
	}
	w.mu.Unlock()
	if known {
		return
	}
	w.tellEnd(s, pid, code, again, wait)
	if again {
		go func() { defer w.restarts.Done(); w.again(s, wait) }()
	}
}

func (w *watch) tellEnd(s service, pid, code uint32, again bool, wait time.Duration) {
	e := boot.Event{At: boot.Services, State: boot.Exited, Unit: s.Name, Facts: map[string]string{boot.FactStatus: statusOf(code)}}
	text := exitText(code)
	switch {
	case s.endedOnRequest(pid):
		text = "stopped on request, " + text
		e.Detail = text
	case again:
		text = fmt.Sprintf("%s; started again in %v (restart %s)", text, wait, s.restart)
		e.State, e.Detail = boot.Warned, fmt.Sprintf("service %s: %s", s.Name, text)
	case code != 0:
		e.State, e.Detail = boot.Failed, text
	}
	w.t.speak.Say("service %s: %s", s.Name, text)
	w.t.speak.Event(e)
}

// again starts a service again after wait, and tries until it runs, somebody
// stops it, or the machine is to stop.
func (w *watch) again(s service, wait time.Duration) {
	for sleep(w.ctx, wait) {
		err := s.locked(w.ctx, func() error { return w.renew(s) })
		if err == nil || w.ctx.Err() != nil {
			return
		}
		wait = min(2*wait, maxBackOff)
		w.t.warn(s, fmt.Sprintf("%v; tried again in %v", err, wait))
	}
}

// renew takes away what is left of a service and starts it, unless that was
// done or forbidden in the meantime.
func (w *watch) renew(s service) error {
	if s.stopped() {
		return nil
	}
	_, status, err := w.t.status(w.ctx, s)
	if err == nil && status.Status == client.Running {
		return nil
	}
	if err := w.t.remove(w.ctx, s, false); err != nil {
		return err
	}
	pid, err := w.t.start(w.ctx, s)
	if err == nil {
		w.started(s, pid)
	}
	return err
}

// killedBy is the signal that a status of 128+n tells of, 0 for none.
func killedBy(code uint32) unix.Signal {
	if code > 128 && code <= 128+64 {
		return unix.Signal(code - 128)
	}
	return 0
}

func exitText(code uint32) string {
	if code == unknownStatus {
		return "lost: its task is gone"
	}
	if sig := killedBy(code); sig != 0 {
		return fmt.Sprintf("exit status %d (%s)", code, unix.SignalName(sig))
	}
	return fmt.Sprintf("exit status %d", code)
}

// statusOf is the fact of an exit status, as PID 1 writes it for its children.
func statusOf(code uint32) string {
	if code == unknownStatus {
		return "unknown"
	}
	if sig := killedBy(code); sig != 0 {
		return "signal: " + sig.String()
	}
	return fmt.Sprint(code)
}

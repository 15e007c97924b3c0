//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/seatrial/seatrial/boot"
	"github.com/seatrial/seatrial/boot/guest/task"
	"golang.org/x/sys/unix"
)

// watch tells when services start and end, and starts again what is to be
// started again. It hears that from containerd's event stream, and looks for
// itself whenever that stream is new: nothing is heard while containerd is
// being restarted.
type watch struct {
	ctx      context.Context // ends when the machine is to stop
	t        *tool
	services map[task.ID]service
	restarts sync.WaitGroup // under way; all end with ctx

	mu    sync.Mutex
	alive map[task.ID]uint32    // pid of the running task
	since map[task.ID]time.Time // when it was told to run
	over  map[task.ID]uint32    // pid of the last task whose end was told
	wait  map[task.ID]time.Duration
}

func newWatch(ctx context.Context, t *tool, services []service) *watch {
	w := &watch{ctx: ctx, t: t, services: map[task.ID]service{}, alive: map[task.ID]uint32{},
		since: map[task.ID]time.Time{}, over: map[task.ID]uint32{}, wait: map[task.ID]time.Duration{}}
	for _, s := range services {
		w.services[s.id()] = s
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
func (w *watch) listen() (good bool) {
	ctx, cancel := context.WithCancel(w.ctx)
	var looking sync.WaitGroup
	looking.Go(func() {
		if sleep(ctx, settleTime) {
			w.look(ctx)
		}
	})
	began := time.Now()
	err := w.t.client.Follow(ctx, w.take)
	cancel()
	looking.Wait()
	gone := w.ctx.Err() != nil || errdefs.IsUnavailable(err) || errors.Is(err, io.EOF) // PID 1 says that
	if !gone {
		w.t.speak.Say("service: listening to containerd: %v", err)
	}
	return time.Since(began) > settleTime
}

func (w *watch) take(e task.Event) {
	s, ok := w.services[e.ID]
	switch {
	case !ok:
	case e.Ended:
		w.ended(s, e.Pid, e.Status)
	default:
		w.started(s, e.Pid)
	}
}

// look asks containerd how every service is.
func (w *watch) look(ctx context.Context) {
	for id, s := range w.services {
		before := w.pid(id)
		state, err := w.t.client.State(ctx, id)
		switch {
		case errdefs.IsNotFound(err):
			w.lost(s, before)
		case err != nil:
			return // containerd has gone again
		case state.Running:
			w.started(s, state.Pid)
		case state.Stopped:
			w.ended(s, state.Pid, state.Status)
		}
	}
}

// pid is that of a service's running task as far as is known, 0 for none.
func (w *watch) pid(id task.ID) uint32 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.alive[id]
}

// started tells that a task runs, once.
func (w *watch) started(s service, pid uint32) {
	w.mu.Lock()
	k := s.id()
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
// of its shim while containerd was away. It is named by its pid: the next one
// may have been started while containerd was asked for it.
func (w *watch) lost(s service, pid uint32) {
	if pid != 0 && w.pid(s.id()) == pid && !s.stopped() {
		w.ended(s, pid, task.UnknownStatus)
	}
}

// ended tells that a task has ended, once, and starts it again if its policy
// wants that.
func (w *watch) ended(s service, pid, code uint32) {
	w.mu.Lock()
	k := s.id()
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
	if state, err := w.t.client.State(w.ctx, s.id()); err == nil && state.Running {
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
	if code == task.UnknownStatus {
		return "lost: its task is gone"
	}
	if sig := killedBy(code); sig != 0 {
		return fmt.Sprintf("exit status %d (%s)", code, unix.SignalName(sig))
	}
	return fmt.Sprintf("exit status %d", code)
}

// statusOf is the fact of an exit status, as PID 1 writes it for its children.
func statusOf(code uint32) string {
	if code == task.UnknownStatus {
		return "unknown"
	}
	if sig := killedBy(code); sig != 0 {
		return "signal: " + sig.String()
	}
	return fmt.Sprint(code)
}

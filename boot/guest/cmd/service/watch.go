//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
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
	asked    sync.Map       // pids of tasks that this process ends itself

	mu   sync.Mutex
	seen map[task.ID]*sight
}

// sight is what was seen of a service.
type sight struct {
	alive   uint32          // pid of the running task, 0: none
	since   time.Time       // when it was told to run
	begun   map[uint32]bool // pids of tasks that were told to run and not yet to have ended
	over    uint32          // pid of the last task whose end was told
	code    uint32          // its exit status
	wait    time.Duration
	looping bool // it is being started again, by watch.again
}

func newWatch(ctx context.Context, t *tool, services []service) *watch {
	w := &watch{ctx: ctx, t: t, services: map[task.ID]service{}, seen: map[task.ID]*sight{}}
	for _, s := range services {
		w.services[s.id()] = s
		w.seen[s.id()] = &sight{begun: map[uint32]bool{}, over: s.noted("told")}
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

// take hears one event. The end of a task that was made and never started is
// part of a start that failed, which is told by whoever tried it.
func (w *watch) take(e task.Event) {
	s, ok := w.services[e.ID]
	switch {
	case !ok:
	case e.Removed:
		w.removed(s)
	case !e.Ended:
		w.started(s, e.Pid)
	case w.has(e.ID, e.Pid):
		w.ended(s, e.Pid, e.Status)
	}
}

func (w *watch) has(id task.ID, pid uint32) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seen[id].begun[pid]
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
	return w.seen[id].alive
}

// started tells that a task runs, once.
func (w *watch) started(s service, pid uint32) {
	w.mu.Lock()
	seen := w.seen[s.id()]
	known := seen.alive == pid || seen.over == pid
	if !known {
		seen.alive, seen.since = pid, time.Now()
		seen.begun[pid] = true
	}
	w.mu.Unlock()
	if known {
		return
	}
	w.t.speak.Say("service %s: running, pid %d", s.Name, pid)
	w.t.speak.Event(boot.Event{At: boot.Services, State: boot.Running, Unit: s.Name})
}

// removed tells the end of a task that was stopped on request, if it was not
// heard of: whoever stopped it has left its status before its container went.
func (w *watch) removed(s service) {
	pid := w.pid(s.id())
	if code, ok := s.endedWith(pid); ok {
		w.ended(s, pid, code)
	}
}

// lost tells of a task that ran and is not there any more, as after the death
// of its shim while containerd was away. It is named by its pid: the next one
// may have been started while containerd was asked for it.
func (w *watch) lost(s service, pid uint32) {
	if pid != 0 && w.pid(s.id()) == pid && !s.stopped() {
		w.ended(s, pid, unknownStatus)
	}
}

// unknownStatus stands for the exit status of a task that is lost. It is none
// that a process can have.
const unknownStatus uint32 = math.MaxUint32

// ended tells that a task has ended, once, and starts it again if its policy
// wants that.
func (w *watch) ended(s service, pid, code uint32) {
	w.mu.Lock()
	seen := w.seen[s.id()]
	if seen.over == pid {
		w.mu.Unlock()
		return
	}
	seen.over, seen.code = pid, code
	delete(seen.begun, pid)
	if seen.alive == pid { // else the next one runs already
		seen.alive = 0
	}
	if !seen.since.IsZero() && time.Since(seen.since) > steadyTime {
		seen.wait = 0
	}
	seen.wait = max(seen.wait, minBackOff)
	again, wait := w.wants(s, pid, code), seen.wait
	begin := again && !seen.looping // a loop that is under way finds it ended
	if begin {
		seen.looping = true
		seen.wait = min(2*wait, maxBackOff)
		w.restarts.Add(1)
	}
	w.mu.Unlock()
	if err := writeState(s.file("told"), strconv.Itoa(int(pid))); err != nil {
		w.t.speak.Say("service %s: its end may be told again: %v", s.Name, err)
	}
	w.tellEnd(s, pid, code, again, wait)
	if begin {
		go func() { defer w.restarts.Done(); w.again(s, wait) }()
	}
}

// wants reports whether a service whose task has ended is to be started again.
func (w *watch) wants(s service, pid, code uint32) bool {
	return s.restart.wants(code) && !w.endedOnRequest(s, pid) && w.ctx.Err() == nil
}

// endedOnRequest is also true for what this process ends itself: the mark in a
// file is for its others, and cannot be made in a full /run.
func (w *watch) endedOnRequest(s service, pid uint32) bool {
	_, own := w.asked.Load(pid)
	return own || s.endedOnRequest(pid)
}

func (w *watch) tellEnd(s service, pid, code uint32, again bool, wait time.Duration) {
	e := boot.Event{At: boot.Services, State: boot.Exited, Unit: s.Name, Facts: map[string]string{boot.FactStatus: statusOf(code)}}
	text := exitText(code)
	switch {
	case w.endedOnRequest(s, pid):
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
// stops it, or the machine is to stop. There is one such loop for a service at a
// time.
func (w *watch) again(s service, wait time.Duration) {
	for sleep(w.ctx, wait) {
		var pid uint32
		err := s.locked(w.ctx, func() (err error) { pid, err = w.renew(s); return err })
		if w.ctx.Err() != nil {
			return
		}
		wait = min(2*wait, maxBackOff)
		if err != nil {
			w.t.warn(s, fmt.Sprintf("%v; tried again in %v", err, wait))
			continue
		}
		if !w.stays(s, pid) {
			continue
		}
		return
	}
}

// stays ends the loop of a service that was started as pid, unless that has
// ended already and the loop must go on: it was not for [watch.ended] to begin
// another.
func (w *watch) stays(s service, pid uint32) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	seen := w.seen[s.id()]
	if pid != 0 && seen.over == pid && w.wants(s, pid, seen.code) {
		return false
	}
	seen.looping = false
	return true
}

// renew takes away what is left of a service and starts it, unless that was
// done or forbidden in the meantime: then pid is 0.
func (w *watch) renew(s service) (pid uint32, err error) {
	if s.stopped() {
		return 0, nil
	}
	if state, err := w.t.client.State(w.ctx, s.id()); err == nil && state.Running {
		return 0, nil
	}
	if err := w.t.remove(w.ctx, s); err != nil {
		return 0, err
	}
	if pid, err = w.t.start(w.ctx, s); err == nil {
		w.started(s, pid)
	}
	return pid, err
}

// killedBy is the signal that a status of 128+n tells of, 0 for none.
func killedBy(code uint32) unix.Signal {
	if sig := unix.Signal(code - 128); code > 128 && code <= 128+64 && unix.SignalName(sig) != "" {
		return sig
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

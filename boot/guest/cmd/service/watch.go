//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
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

// watch tells when services start and end. It hears that from containerd's
// event stream, and looks for itself whenever that stream is new: nothing is
// heard while containerd is being restarted.
type watch struct {
	t        *tool
	services map[string]service

	mu    sync.Mutex
	alive map[string]uint32 // key -> pid of the running task
	over  map[string]uint32 // key -> pid of the last task whose end was told
}

func newWatch(t *tool, services []service) *watch {
	w := &watch{t: t, services: map[string]service{}, alive: map[string]uint32{}, over: map[string]uint32{}}
	for _, s := range services {
		w.services[key(s.namespace(), s.Name)] = s
	}
	return w
}

// settleTime is how long after subscribing the state is looked at again:
// containerd takes a subscription before it serves it, and says nothing when
// it does.
const settleTime = time.Second

// follow listens until ctx ends.
func (w *watch) follow(ctx context.Context) {
	for wait := 100 * time.Millisecond; ctx.Err() == nil; wait = min(2*wait, 5*time.Second) {
		if w.listen(ctx) {
			wait = 100 * time.Millisecond
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
		}
	}
}

// listen follows one subscription to its end and reports whether it was good
// for anything.
func (w *watch) listen(ctx context.Context) (heard bool) {
	ctx, cancel := context.WithCancel(ctx)
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
		c, err := w.t.client.LoadContainer(s.in(ctx), s.Name)
		if err != nil {
			continue // not there; told by whoever could not start it
		}
		task, err := c.Task(s.in(ctx), nil)
		if errdefs.IsNotFound(err) {
			continue
		}
		if err != nil {
			return // containerd has gone again
		}
		status, err := task.Status(s.in(ctx))
		switch {
		case err != nil:
			return
		case status.Status == client.Running:
			w.started(s, task.Pid())
		case status.Status == client.Stopped:
			w.ended(s, task.Pid(), status.ExitStatus)
		}
	}
}

// started tells that a task runs, once.
func (w *watch) started(s service, pid uint32) {
	w.mu.Lock()
	k := key(s.namespace(), s.Name)
	known := w.alive[k] == pid || w.over[k] == pid
	if !known {
		w.alive[k] = pid
	}
	w.mu.Unlock()
	if known {
		return
	}
	w.t.speak.Say("service %s: running, pid %d", s.Name, pid)
	w.t.speak.Event(boot.Event{At: boot.Services, State: boot.Running, Unit: s.Name})
}

// ended tells that a task has ended, once.
func (w *watch) ended(s service, pid, code uint32) {
	w.mu.Lock()
	k := key(s.namespace(), s.Name)
	known := w.over[k] == pid
	if !known {
		w.over[k] = pid
		delete(w.alive, k)
	}
	w.mu.Unlock()
	if known {
		return
	}
	e := boot.Event{At: boot.Services, State: boot.Exited, Unit: s.Name}
	text := exitText(code)
	e.Facts = map[string]string{boot.FactStatus: statusOf(code)}
	_, err := os.Stat(s.mark())
	switch {
	case err == nil:
		text = "stopped on request, " + text
		e.Detail = text
	case !errors.Is(err, os.ErrNotExist):
		w.t.speak.Say("service %s: %v", s.Name, err)
		fallthrough
	case code != 0:
		e.State, e.Detail = boot.Failed, text
	}
	w.t.speak.Say("service %s: %s", s.Name, text)
	w.t.speak.Event(e)
}

// killedBy is the signal that a status of 128+n tells of, 0 for none.
func killedBy(code uint32) unix.Signal {
	if code > 128 && code <= 128+64 {
		return unix.Signal(code - 128)
	}
	return 0
}

func exitText(code uint32) string {
	if sig := killedBy(code); sig != 0 {
		return fmt.Sprintf("exit status %d (%s)", code, unix.SignalName(sig))
	}
	return fmt.Sprintf("exit status %d", code)
}

// statusOf is the fact of an exit status, as PID 1 writes it for its children.
func statusOf(code uint32) string {
	if sig := killedBy(code); sig != 0 {
		return "signal: " + sig.String()
	}
	return fmt.Sprint(code)
}

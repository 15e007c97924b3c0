//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/seatrial/seatrial/boot"
	"github.com/seatrial/seatrial/boot/guest"
	"github.com/seatrial/seatrial/boot/guest/task"
	"golang.org/x/sys/unix"
)

// startsAtOnce is how many services are started side by side. Each start has a
// shim and runc of its own, tens of megabytes for the moment, so a machine
// with many services and little memory must not start all at once.
const startsAtOnce = 4

// A service is started anew so often because containerd has gone away, which
// may take so long to come back.
const (
	startTries = 3
	returnTime = time.Minute
)

// system brings the services up, reports to PID 1, watches them, and stops
// them when ctx ends.
func (t *tool) system(ctx context.Context) error {
	if _, err := unix.FcntlInt(guest.ReportFd, unix.F_GETFD, 0); err != nil || os.Getppid() != 1 {
		return errors.New("system is for PID 1 to run: a second one would start and stop what the first looks after")
	}
	services, problems := t.readServices()
	// Everything that does not need containerd is done by now. A byte says that
	// it answers, the end of the input that it never will.
	if n, err := os.Stdin.Read(make([]byte, 1)); n == 0 {
		if err == io.EOF {
			return nil
		}
		return fmt.Errorf("waiting for PID 1: %w", err)
	}
	report := os.NewFile(guest.ReportFd, "report")
	defer report.Close()
	// One that follows another may find containerd away as well.
	for t.adopt && guest.Answers(t.socket) != nil {
		if !sleep(ctx, lockPoll) {
			return nil
		}
	}
	if err := t.connect(); err != nil {
		return tell(report, guest.ServicesReport{Err: err.Error()})
	}
	defer t.client.Close()
	w := newWatch(ctx, t, services)
	var watching sync.WaitGroup
	watching.Go(w.follow)
	if !t.adopt {
		t.cleanAll(ctx, services)
	}
	r := t.startAll(ctx, services, problems, w)
	err := tell(report, r)
	if ctx.Err() != nil {
		err = nil // PID 1 does not listen any more
	}
	report.Close()
	<-ctx.Done()
	watching.Wait()
	w.restarts.Wait()
	t.haltAll(services, w)
	return err
}

func tell(report io.Writer, r guest.ServicesReport) error {
	if err := json.NewEncoder(report).Encode(r); err != nil {
		return fmt.Errorf("reporting to PID 1: %w", err)
	}
	return nil
}

func (t *tool) readServices() ([]service, []error) {
	bundles, problems := guest.ReadBundles(t.path)
	services := make([]service, len(bundles))
	for i, b := range bundles {
		services[i] = t.service(b)
		var err error
		if services[i].restart, err = restartPolicyOf(b.Dir); err != nil {
			t.warn(services[i], err.Error())
		}
	}
	return services, problems
}

// warn says what is wrong with a service and was worked around.
func (t *tool) warn(s service, text string) {
	text = fmt.Sprintf("service %s: %s", s.Name, text)
	t.speak.Say("%s", text)
	t.speak.Event(boot.Event{At: boot.Services, State: boot.Warned, Unit: s.Name, Detail: text})
}

// startAll starts the services in the order of their names, several at once.
func (t *tool) startAll(ctx context.Context, services []service, problems []error, w *watch) guest.ServicesReport {
	var r guest.ServicesReport
	if len(services) == 0 && len(problems) > 0 {
		r.Err = errors.Join(problems...).Error()
		t.speak.Say("service: %s", r.Err)
		return r
	}
	r.Failed = map[string]string{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	slots := make(chan struct{}, startsAtOnce)
	for i, s := range services {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			err := problems[i]
			if err == nil {
				err = s.locked(ctx, func() error { return t.startOne(ctx, s, w) })
			}
			if ctx.Err() != nil {
				return // the machine is to stop: nothing has failed
			}
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				r.Started = append(r.Started, s.Name)
				return
			}
			r.Failed[s.Name] = err.Error()
			t.speak.Say("service %s: %v", s.Name, err)
			t.speak.Event(boot.Event{At: boot.Services, State: boot.Failed, Unit: s.Name, Detail: err.Error()})
		})
	}
	wg.Wait()
	slices.Sort(r.Started)
	return r
}

// startOne starts a service, if it is not one to leave as it is.
func (t *tool) startOne(ctx context.Context, s service, w *watch) error {
	if t.adopt {
		leave, err := t.adopted(ctx, s, w)
		if err != nil || leave {
			return err
		}
	}
	pid, err := t.start(ctx, s)
	// It is not the service's fault when containerd goes away under its start.
	for tries := 1; errdefs.IsUnavailable(err) && tries < startTries && t.answers(ctx); tries++ {
		// What was made before is in containerd's records.
		if left := t.clean(ctx, s.id()); left != nil && !errdefs.IsNotFound(left) {
			return errors.Join(err, left)
		}
		pid, err = t.start(ctx, s)
	}
	if err != nil {
		return err
	}
	w.started(s, pid)
	return nil
}

// answers waits until containerd answers again, which PID 1 sees to, and reports
// whether it did within returnTime. Once it has not, nobody waits for it again:
// each service would wait for itself.
func (t *tool) answers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, returnTime)
	defer cancel()
	for !t.lost.Load() {
		if _, err := t.client.List(ctx, t.namespace); err == nil {
			return true
		}
		if !sleep(ctx, lockPoll) {
			t.lost.Store(true)
		}
	}
	return false
}

// adopted decides about a service that an earlier tool looked after, which may
// have ended at any moment. What is to be left is told of by the watch; what is
// to be started again is taken away here.
func (t *tool) adopted(ctx context.Context, s service, w *watch) (leave bool, err error) {
	there, err := t.client.Exists(ctx, s.id())
	if err != nil || s.stopped() {
		return true, err
	}
	if !there {
		return false, nil
	}
	state, err := t.client.State(ctx, s.id())
	switch {
	case errdefs.IsNotFound(err) && !s.restart.wants(unknownStatus):
		w.tellEnd(s, 0, unknownStatus, false, 0)
		return true, nil
	case errdefs.IsNotFound(err): // between its end and its start
	case err != nil:
		return true, err
	case !state.Stopped || !s.endedOnRequest(state.Pid):
		return true, nil
		// The rest was stopped by a tool that was told to end, and the machine was not.
	}
	return false, t.remove(ctx, s)
}

// startMissing is "service system-init": it starts what is not there, as far
// as it was not stopped on request.
func (t *tool) startMissing(ctx context.Context) error {
	services, problems := t.readServices()
	var failed []error
	for i, s := range services {
		err := problems[i]
		if err == nil {
			err = s.locked(ctx, func() error {
				there, err := t.client.Exists(ctx, s.id())
				if err != nil || there || s.stopped() {
					return err
				}
				_, err = t.start(ctx, s)
				return err
			})
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", s.Name, err))
		}
	}
	return errors.Join(failed...)
}

// cleanAll removes what a persistent /var/lib/containerd still has of an
// earlier boot: everything in the namespace of services, and in the namespaces
// that bundles name, the containers named like them.
func (t *tool) cleanAll(ctx context.Context, services []service) {
	spaces := []string{t.namespace}
	for _, s := range services {
		if !slices.Contains(spaces, s.Runtime.Namespace) {
			spaces = append(spaces, s.Runtime.Namespace)
		}
	}
	for _, ns := range spaces {
		found, err := t.client.List(ctx, ns)
		if errdefs.IsUnavailable(err) && t.answers(ctx) {
			found, err = t.client.List(ctx, ns)
		}
		if err != nil {
			t.speak.Say("service: namespace %s: %v", ns, err)
			continue
		}
		for _, name := range found {
			id := task.ID{Namespace: ns, Name: name}
			ours := slices.ContainsFunc(services, func(s service) bool { return s.id() == id })
			if ns != t.namespace && !ours {
				continue
			}
			t.speak.Say("service: Cleaning up stale service: %q", name)
			if err := t.clean(ctx, id); err != nil {
				t.speak.Say("service %s: removing what an earlier boot left: %v", name, err)
			}
		}
	}
}

func (t *tool) clean(ctx context.Context, id task.ID) error {
	if err := t.client.RemoveTask(ctx, id); err != nil {
		return err
	}
	return t.client.Delete(ctx, id)
}

// haltAll stops every service at once. Their containers stay: the machine is
// going down, and the next boot removes them.
func (t *tool) haltAll(services []service, w *watch) {
	ctx, cancel := context.WithTimeout(context.Background(), graceTime+killTime)
	defer cancel()
	var wg sync.WaitGroup
	for _, s := range services {
		wg.Go(func() {
			state, err := t.client.State(ctx, s.id())
			if err != nil {
				return // never started, or containerd has gone: PID 1 ends the rest
			}
			w.asked.Store(state.Pid, true)
			if err := t.halt(ctx, s, state, directly); err != nil { // PID 1 ends what it leaves
				t.speak.Say("service %s: %v", s.Name, err)
				return
			}
			if state, err := t.client.State(ctx, s.id()); err == nil && state.Stopped {
				w.ended(s, state.Pid, state.Status)
			}
		})
	}
	wg.Wait()
}

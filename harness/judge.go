package harness

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/seatrial/seatrial/boot"
	"github.com/seatrial/seatrial/harness/console"
	"github.com/seatrial/seatrial/reports"
)

// settle is how long a fatal fault may still grow before it is judged: an oops
// prints its registers and its trace after its headline. A machine that ends
// sooner is judged sooner.
const settle = 2 * time.Second

// await waits until done says so, or until there is no hope left. It looks
// again whenever the console changes and when patience could have ended.
func (m *Machine) await(ctx context.Context, wanted string, total time.Duration, done func() bool) error {
	var held *Failure
	err := m.awaitOr(ctx, wanted, total, func() bool {
		if done() {
			return true
		}
		held = m.heldUp(wanted)
		return held != nil
	}, nil)
	if err == nil && held != nil {
		return held
	}
	return err
}

// awaitOr also looks again when the channel, which may be nil, is closed.
func (m *Machine) awaitOr(ctx context.Context, wanted string, total time.Duration, done func() bool, closed <-chan struct{}) error {
	start := time.Now()
	for {
		changed := m.log.Changed()
		if done() {
			return nil
		}
		if f := m.judgeNow(wanted); f != nil {
			return f
		}
		wait, f := m.patienceLeft(start, total, wanted)
		if f != nil {
			return f
		}
		timer := time.NewTimer(wait)
		select {
		case <-changed:
		case <-closed: // done is true from now on
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			if done() {
				return nil
			}
			return m.interrupted(ctx, wanted)
		}
		timer.Stop()
	}
}

// Hope returns nil as long as what is wanted may still come, and the verdict
// once it cannot. It does not block; matchers ask it while they poll.
func (m *Machine) Hope(wanted string) *Failure {
	if f := m.judgeNow(wanted); f != nil {
		return f
	}
	if f := m.heldUp(wanted); f != nil {
		return f
	}
	_, f := m.patienceLeft(m.resumed, m.patience.Boot, wanted)
	return f
}

// judgeNow decides from what is known now: a fatal fault, or an end that
// nobody asked for. Nil means there is nothing to hold against the machine.
func (m *Machine) judgeNow(wanted string) *Failure {
	m.mu.Lock()
	kept, asked := m.verdict, m.asked
	m.mu.Unlock()
	if kept != nil {
		f := *kept
		f.Wanted = wanted
		return &f
	}
	if f := m.proven(wanted); f != nil {
		return f
	}
	if fault, ok := m.cause(); ok {
		if fault.Open && !m.log.Closed() && time.Since(m.began)-fault.At < settle {
			return nil // its rest is still coming
		}
		return m.judged(classOf(fault.Blame), fault.Title, wanted, &fault)
	}
	if file := m.vm.StoppedByFullHost(); file != "" && !asked {
		return m.judged(reports.Infra, "the host's disk is full, and QEMU has stopped the machine: no room to write "+file+"; free some space there", wanted, nil)
	}
	if !m.log.Closed() || asked {
		return nil
	}
	class, title := m.endedAs(wanted)
	return m.judged(class, title, wanted, nil)
}

// cause is the fault to blame, if a fatal one was seen that the spec does not expect.
func (m *Machine) cause() (console.Fault, bool) {
	var fatal []console.Fault
	for _, f := range m.log.Faults(console.Fatal) {
		if !f.Expected {
			fatal = append(fatal, f)
		}
	}
	return console.Cause(fatal)
}

// endedAs names the reason of an end that no fault explains.
func (m *Machine) endedAs(wanted string) (reports.Class, string) {
	exit := m.vm.Exit()
	if exit.ByGuest() {
		return reports.Guest, fmt.Sprintf("%s before %s", exit, wanted)
	}
	return reports.Infra, exit.String()
}

// patienceLeft says how long the machine may go on without anything changing.
func (m *Machine) patienceLeft(start time.Time, total time.Duration, wanted string) (time.Duration, *Failure) {
	now := time.Now()
	progress := m.began.Add(m.log.Progress())
	if progress.Before(start) {
		progress = start
	}
	quiet := m.patience.Quiet - now.Sub(progress)
	rest := total - now.Sub(start)
	switch {
	case quiet <= 0:
		return 0, m.judged(reports.Stalled, m.silence(), wanted, nil)
	case rest <= 0:
		title := fmt.Sprintf("still printing, but not at %s after %v", wanted, total.Round(time.Second))
		return 0, m.judged(reports.Stalled, title, wanted, nil)
	}
	// A fault that is still open is judged when settle has passed.
	return min(quiet, rest, settle), nil
}

// silence puts into words what a stalled machine last did.
func (m *Machine) silence() string {
	quiet := m.patience.Quiet.Round(time.Second)
	lines := m.log.Lines()
	if len(lines) == 0 {
		return fmt.Sprintf("not one byte came on %s in %v", m.terminal(), quiet)
	}
	text := ""
	for _, l := range slices.Backward(lines) {
		// An event is for programs; what a person looks for is the last text.
		if _, event, _ := boot.ParseEvent([]byte(l.Text)); !event && strings.TrimSpace(l.Text) != "" {
			text = l.Text
			break
		}
	}
	last := m.log.Last()
	if last == "" {
		last = "the start"
	}
	return fmt.Sprintf("no progress for %v after %s; the last line was: %s", quiet, last, text)
}

func (m *Machine) interrupted(ctx context.Context, wanted string) error {
	err := context.Cause(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		return m.judged(reports.Stalled, "the time given to the wait ended", wanted, nil)
	}
	return m.failure(reports.Infra, "interrupted", wanted, err)
}

// judged keeps the first verdict about the machine: whatever is awaited of it
// later fails for the same cause.
func (m *Machine) judged(class reports.Class, title, wanted string, fault *console.Fault) *Failure {
	f := m.failure(class, title, wanted, nil)
	f.Fault = fault
	if class == reports.Stalled {
		return f // a stall is about one wait; the machine may yet move
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.verdict == nil {
		m.verdict = f
	}
	return f
}

func (m *Machine) failure(class reports.Class, title, wanted string, err error) *Failure {
	return &Failure{
		Class: class, Title: title, Wanted: wanted, Err: err,
		Reached: m.log.Last(), Tail: m.log.Tail(tailLines),
		Command: m.command, Dir: m.plan.Dir, Machine: m.plan.Name,
	}
}

func classOf(b console.Blame) reports.Class {
	if b == "" {
		return reports.Guest
	}
	return reports.Class(b)
}

// Verdict is the verdict about the machine so far; nil if there is nothing to
// hold against it.
func (m *Machine) Verdict() *Failure { return m.judgeNow(string(boot.Ready)) }

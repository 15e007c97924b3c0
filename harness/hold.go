package harness

import (
	"context"
	"fmt"
	"slices"

	"github.com/seatrial/seatrial/boot"
	"github.com/seatrial/seatrial/harness/console"
	"github.com/seatrial/seatrial/reports"
)

// awaitUp waits until the machine has come as far as it does by itself: it is
// up, or it is held.
func (m *Machine) awaitUp(ctx context.Context) error {
	if m.plan.Hold == "" {
		return m.Await(ctx, boot.Ready)
	}
	return m.await(ctx, "a hold before "+string(m.plan.Hold), m.patience.Boot, m.held)
}

// held reports whether PID 1 waits where the plan says.
func (m *Machine) held() bool {
	m.mu.Lock()
	released := m.released
	m.mu.Unlock()
	return m.plan.Hold != "" && !released && slices.ContainsFunc(m.log.Marks(), func(mark console.Mark) bool {
		return mark.State == boot.Held && mark.At == m.plan.Hold
	})
}

// Release lets a machine go on that is held where its plan says; it waits until
// the machine has come there. What was changed inside before, PID 1 finds as if
// the image had it. One that is not to be held, or was released, is misuse.
func (m *Machine) Release(ctx context.Context) error {
	const wanted = "to go on"
	if m.plan.Hold == "" {
		return m.failure(reports.Misuse, "the machine is not held: its plan names no Hold", wanted, nil)
	}
	m.mu.Lock()
	released := m.released
	m.mu.Unlock()
	if released {
		return m.failure(reports.Misuse, "the machine was released before", wanted, nil)
	}
	if err := m.awaitUp(ctx); err != nil {
		return err
	}
	r, err := m.Exec(ctx, "@append", boot.HoldPath, "\n")
	if err != nil {
		return err
	}
	if r.Exit != 0 {
		return m.failure(reports.Guest, "PID 1 cannot be let go on: "+r.Stderr, wanted, nil)
	}
	m.mu.Lock()
	m.released = true
	m.mu.Unlock()
	return nil
}

// heldUp is the verdict about a wait for something that cannot come as long as
// the machine is held.
func (m *Machine) heldUp(wanted string) *Failure {
	if !m.held() {
		return nil
	}
	return m.failure(reports.Misuse, fmt.Sprintf("the machine is held before %s, and nobody has released it", m.plan.Hold), wanted, nil)
}

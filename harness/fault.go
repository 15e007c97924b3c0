package harness

import (
	"context"
	"fmt"

	"github.com/seatrial/seatrial/qemu"
)

// Faults on demand: what may befall a machine from outside. Those that are part
// of its making are in Plan: Disks that fail or are slow, and RTC.

// Reset presses the reset button, which ends the machine: it may not start
// again behind the back of the spec.
func (m *Machine) Reset(ctx context.Context) error { return m.fault("reset", m.vm.Reset(ctx)) }

// PowerButton presses the power button; a guest may heed it or not.
func (m *Machine) PowerButton(ctx context.Context) error {
	return m.fault("power button", m.vm.PowerButton(ctx))
}

// NMI sends every processor a non-maskable interrupt.
func (m *Machine) NMI(ctx context.Context) error { return m.fault("NMI", m.vm.NMI(ctx)) }

// CtrlAltDel presses these keys together; an arm64 machine has no keyboard.
func (m *Machine) CtrlAltDel(ctx context.Context) error {
	return m.fault("Ctrl-Alt-Del", m.vm.CtrlAltDel(ctx))
}

// Link pulls the cable of the n-th network card (from 0), or puts it back.
func (m *Machine) Link(ctx context.Context, nic int, up bool) error {
	return m.fault("cable", m.vm.Link(ctx, nic, up))
}

// ChangeCD puts another CD into the plan's n-th drive (from 0), or only takes out
// what is in it, with an empty path.
func (m *Machine) ChangeCD(ctx context.Context, n int, path string) error {
	return m.fault("CD", m.vm.ChangeCD(ctx, n, path))
}

// LeaveMemory leaves the guest so much of its memory, in MiB: what is missing is
// taken by a balloon, which the plan must have. The plan's MemoryMiB gives all
// of it back. The guest obeys as fast as it can find free pages.
func (m *Machine) LeaveMemory(ctx context.Context, mib int) error {
	return m.fault("memory pressure", m.vm.LeaveMemory(ctx, mib))
}

// Pull takes the n-th disk of the plan (from 0) away from the running machine.
// Its requests fail from then on; a removable one also vanishes from the guest,
// which must let go of it.
func (m *Machine) Pull(ctx context.Context, disk int) error {
	ctx, cancel := context.WithTimeoutCause(ctx, m.patience.Exec, fmt.Errorf("not within %v", m.patience.Exec))
	defer cancel()
	return m.fault("pulling a disk", m.vm.Pull(ctx, m.disk(disk)))
}

// Resize makes the n-th disk of the plan (from 0) bigger while the machine runs:
// size is in bytes. Of a fork's disk only its own copy grows.
func (m *Machine) Resize(ctx context.Context, disk int, size int64) error {
	return m.fault("resizing a disk", m.vm.Resize(ctx, m.disk(disk), size))
}

// disk is QEMU's number of the plan's n-th disk: a medium that is a disk comes
// before them.
func (m *Machine) disk(n int) int {
	if n >= 0 && m.plan.Media != nil && m.plan.Media.Disk != "" {
		return n + 1
	}
	return n
}

// PowerCut ends the machine as if its power failed. Each of its disks, which must
// be volatile or read-only, loses a part, from 0 to 1, of what the guest had
// written and not flushed; which writes is decided by the seed. The disks' files
// are then what a machine of another plan finds when the power comes back.
func (m *Machine) PowerCut(part float64, seed uint64) (qemu.Loss, error) {
	loss, err := m.vm.PowerCut(part, seed)
	return loss, m.fault("power cut", err)
}

func (m *Machine) fault(what string, err error) error {
	if err != nil {
		return fmt.Errorf("machine %s: %s: %w", m.plan.Name, what, err)
	}
	return nil
}

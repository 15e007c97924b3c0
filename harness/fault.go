package harness

import (
	"context"
	"fmt"
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

func (m *Machine) fault(what string, err error) error {
	if err != nil {
		return fmt.Errorf("machine %s: %s: %w", m.plan.Name, what, err)
	}
	return nil
}

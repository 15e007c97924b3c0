package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
)

// stateName is what QEMU calls the descriptor over which a machine's state
// travels. A socket passed over the monitor works with every version: "file:"
// came with QEMU 8.2, "exec:" is refused by the sandbox, a plain file behind
// "fd:" was deprecated in 9.1, and 7.2 sends to no descriptor that it inherited.
const stateName = "state"

// ErrNotSaveable is what Save ends with when this machine, or this QEMU, can
// not be saved in the way that was asked for; the machine itself is paused,
// and unharmed.
var ErrNotSaveable = errors.New("qemu: the machine cannot be saved")

// Save pauses the machine and writes its state to w. With withoutRAM the
// memory stays out of it: it must lie in Config.RAM, which from then on holds
// it (the capability x-ignore-shared, since QEMU 4.0). Without, all memory
// that was ever used is in the state.
//
// What the guest had sent before the pause can still be read from its lines.
func (v *VM) Save(ctx context.Context, w io.Writer, withoutRAM bool) error {
	if err := v.qmp.Do(ctx, "stop", nil, nil); err != nil {
		return err
	}
	if err := v.prepareState(ctx, withoutRAM); err != nil {
		return fmt.Errorf("%w: %w", ErrNotSaveable, err)
	}
	err := v.moveState(ctx, "migrate", func(conn *net.UnixConn) error {
		_, err := io.Copy(w, conn) // until QEMU closes its end
		return err
	})
	var refused *CommandError
	if errors.As(err, &refused) {
		return fmt.Errorf("%w: %w", ErrNotSaveable, err)
	}
	return err
}

// Load gives a machine that was started with Config.Incoming the state that
// Save wrote, and leaves it paused. A state that does not fit ends QEMU; the
// error then holds what it said.
func (v *VM) Load(ctx context.Context, r io.Reader, withoutRAM bool) error {
	if err := v.prepareState(ctx, withoutRAM); err != nil {
		return err
	}
	return v.moveState(ctx, "migrate-incoming", func(conn *net.UnixConn) error {
		_, err := io.Copy(conn, r)
		return errors.Join(err, conn.CloseWrite()) // a state cut short must be seen as such
	})
}

// moveState runs a command that moves the machine's state over a socket, and
// carry at the other end of it.
func (v *VM) moveState(ctx context.Context, command string, carry func(*net.UnixConn) error) error {
	conn, far, err := socketPair(stateName)
	if err != nil {
		return err
	}
	defer conn.Close()
	err = v.qmp.PassFile(ctx, stateName, far)
	if err := errors.Join(err, far.Close()); err != nil {
		return err
	}
	carried := make(chan error, 1)
	go func() { carried <- carry(conn) }()
	if err = v.qmp.Do(ctx, command, map[string]any{"uri": "fd:" + stateName}, nil); err == nil {
		err = v.awaitState(ctx)
	}
	if err != nil {
		conn.Close() // ends carry, whose error is only the echo of this one
		<-carried
		return err
	}
	if err := <-carried; err != nil {
		return fmt.Errorf("qemu: the machine's state: %w", err)
	}
	return nil
}

// prepareState sets how state travels. The bandwidth limit of a live migration
// (128 MiB/s by default) would only slow down a machine that stands still.
func (v *VM) prepareState(ctx context.Context, withoutRAM bool) error {
	type capability struct {
		Name string `json:"capability"`
		On   bool   `json:"state"`
	}
	caps := []capability{{"events", true}}
	if withoutRAM {
		caps = append(caps, capability{"x-ignore-shared", true})
	}
	err := v.qmp.Do(ctx, "migrate-set-capabilities", map[string]any{"capabilities": caps}, nil)
	if err != nil {
		return err
	}
	return v.qmp.Do(ctx, "migrate-set-parameters", map[string]any{"max-bandwidth": int64(1) << 40}, nil)
}

// awaitState waits until QEMU says that the state has gone or come.
func (v *VM) awaitState(ctx context.Context) error {
	for n := 0; ; n++ {
		e, ok := v.qmp.event(ctx, n)
		if !ok {
			return v.noMoreEvents(ctx)
		}
		if e.Event != "MIGRATION" {
			continue
		}
		switch status, _ := e.Data["status"].(string); status {
		case "completed":
			return nil
		case "failed", "cancelled":
			return v.stateError(ctx, status)
		}
	}
}

func (v *VM) noMoreEvents(ctx context.Context) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	select {
	case <-v.done: // the monitor ends with QEMU
		return fmt.Errorf("qemu: moving the machine's state: %s", v.Exit())
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// stateError finds out the reason, which a MIGRATION event does not carry. A
// machine that cannot load its state says it on its standard error and ends.
func (v *VM) stateError(ctx context.Context, status string) error {
	var info struct {
		Desc string `json:"error-desc"`
	}
	err := v.qmp.Do(ctx, "query-migrate", nil, &info)
	if errors.Is(err, ErrMonitorGone) {
		return v.noMoreEvents(ctx)
	}
	if err == nil && info.Desc != "" {
		err = errors.New(info.Desc)
	}
	return errors.Join(fmt.Errorf("qemu: moving the machine's state %s", status), err)
}

//go:build linux

package guest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/seatrial/seatrial/boot"
	"golang.org/x/sys/unix"
)

// hold waits, if the kernel command line asks for it, before the work for a
// milestone begins. A host that forks machines boots one up to here and decides
// for each copy how it goes on. A hold that cannot be is said and left out: the
// machine is worth more than the wait.
func (m *machine) hold(at boot.Milestone) {
	word, ok := m.words.last(boot.HoldWord)
	if !ok {
		return
	}
	if at == boot.Mounts && !slices.Contains(boot.Holdable(), boot.Milestone(word)) {
		m.warn(boot.Event{At: boot.Init, Detail: "no hold before " + word},
			"init: %s%s: a machine can be held before %v", boot.HoldWord, word, boot.Holdable())
	}
	if boot.Milestone(word) != at || !slices.Contains(boot.Holdable(), at) {
		return
	}
	if err := m.wait(at); err != nil && m.ctx.Err() == nil {
		m.warn(boot.Event{At: at, Detail: "not held: " + err.Error()}, "init: not held before %s: %v", at, err)
	}
}

// wait returns when something is written to the FIFO, or the machine is to stop.
func (m *machine) wait(at boot.Milestone) error {
	path := filepath.Join(m.root, boot.HoldPath)
	if err := unix.Mkfifo(path, 0o600); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	defer os.Remove(path)
	// For writing as well: a FIFO without a writer is at its end.
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	defer context.AfterFunc(m.ctx, func() { f.Close() })()
	m.speak.Say("init: held before %s; write to %s to let it go on", at, boot.HoldPath)
	m.speak.Event(boot.Event{At: at, State: boot.Held})
	_, err = f.Read(make([]byte, 1))
	return err
}

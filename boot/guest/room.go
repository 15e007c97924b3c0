//go:build linux

package guest

import (
	"os"
	"path/filepath"
)

// What a container needs before it has said anything: runc's state and log, and
// a page or two for each log of its own. File systems with less count as full.
const (
	minRoomBytes = 256 << 10
	minRoomFiles = 16
)

// workspace is where the output of a container, runc's own log and runc's state
// go while it runs.
type workspace struct {
	logs  string // directory
	state string // of runc; empty: where it keeps it anyway, in /run
}

// workspace is in /run, as LinuxKit has it. A full /run would keep runc from
// running anything, and would lose what containers say; /tmp has a limit of its
// own, and no other use that late. Without room in either, what will be missed
// is at least said.
func (m *machine) workspace(unit, kind string) (workspace, error) {
	w := workspace{logs: filepath.Join(m.root, "/run/log", kind)}
	if !m.roomIn("/run") {
		if m.roomIn("/tmp") {
			m.speak.Say("%s: /run is full: its logs and runc's state are in /tmp", unit)
			w = workspace{logs: filepath.Join(m.root, "/tmp/log", kind), state: filepath.Join(m.root, "/tmp/runc")}
		} else {
			m.speak.Say("%s: /run and /tmp are full: what it says may be lost", unit)
		}
	}
	return w, os.MkdirAll(w.logs, 0o755)
}

func (m *machine) roomIn(dir string) bool {
	bytes, files, err := m.sys.Room(filepath.Join(m.root, dir))
	return err != nil || bytes >= minRoomBytes && files >= minRoomFiles // one that cannot be asked is tried
}

// sayIfFull says that what a container wrote to its logs may not all be there:
// it was told of the full disk, and nobody else.
func (m *machine) sayIfFull(unit, logs string) {
	if bytes, _, err := m.sys.Room(logs); err == nil && bytes == 0 {
		m.speak.Say("%s: what it says may be cut off: no space is left for logs in %s", unit, logs)
	}
}

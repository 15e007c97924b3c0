//go:build linux

package guest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/seatrial/seatrial/boot"
)

// Where LinuxKit's images put the entries that this init carries out itself.
// Entries of other images run before or after them as their names say.
const (
	volumesEntry    = "005-volumes"
	onbootEntry     = "010-onboot"
	containerdEntry = "020-containerd"
	onshutdownEntry = "010-onshutdown"
)

// initDir holds what other images want run at boot.
const initDir = "/etc/init.d"

// superseded are the entries that LinuxKit's own images bring and that must
// not be carried out twice.
var superseded = map[string]bool{
	"000-issue": true, volumesEntry: true, onbootEntry: true, containerdEntry: true, onshutdownEntry: true,
}

// runScripts runs the programs in dir whose names sort from (inclusive) and
// below to (empty: no end), one after another, as LinuxKit's init does with
// /etc/init.d and /etc/shutdown.d. One that fails is told and changes nothing;
// one that does not end is left to itself after a while.
func (m *machine) runScripts(dir, from, to string) error {
	entries, err := os.ReadDir(filepath.Join(m.root, dir)) // sorted by name
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := e.Name()
		if name < from || to != "" && name >= to || superseded[name] {
			continue
		}
		path := filepath.Join(m.root, dir, name)
		info, err := os.Stat(path) // links count as what they lead to
		if err == nil && !info.Mode().IsRegular() || m.isServiceTool(path) {
			continue
		}
		if err == nil {
			err = m.runScript(dir+"/"+name, path)
		}
		if err != nil {
			m.warn(boot.Event{At: boot.System, Detail: fmt.Sprintf("%s/%s: %v", dir, name, err)}, "init: %s/%s: %v", dir, name, err)
		}
	}
	return nil
}

// isServiceTool reports a link to the service tool, which upstream calls by
// many names. Everything it would do there PID 1 does itself.
func (m *machine) isServiceTool(path string) bool {
	target, err := os.Readlink(path)
	return err == nil && (target == boot.ServicePath || filepath.Base(target) == filepath.Base(boot.ServicePath))
}

// runScript runs a program that the console knows by name. One that takes long
// is named before it is given up, or the last thing anybody sees of the machine
// would be another program's line.
func (m *machine) runScript(name, path string) error {
	p, err := m.reaper.Start([]string{path}, m.env, "/", os.Stdin, os.Stdout, os.Stderr)
	if err != nil {
		return err
	}
	late, end := time.NewTicker(m.patience.late), time.NewTimer(m.patience.script)
	defer late.Stop()
	defer end.Stop()
	for began := time.Now(); ; {
		select {
		case <-p.Done():
			if !p.Exit().OK() {
				return exitError{p.Exit().String()}
			}
			return nil
		case <-late.C:
			m.speak.Say("init: %s: still running after %v", name, time.Since(began).Round(time.Second))
		case <-end.C:
			return fmt.Errorf("still running after %v, and left to itself", m.patience.script)
		}
	}
}

// mountVolumes mounts what the image has in /containers/volumes: lower, with
// what is written going to a tmpfs, on merged. A volume without tmp is
// read-only.
func (m *machine) mountVolumes() error {
	dir := filepath.Join(m.root, boot.ContainersDir, "volumes")
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var problems []error
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		kind, err := m.mountVolume(filepath.Join(dir, e.Name()))
		if err != nil {
			problems = append(problems, fmt.Errorf("volume %s: %w", e.Name(), err))
			continue
		}
		m.speak.Say("init: Volume %s is %s", e.Name(), kind)
	}
	return errors.Join(problems...)
}

func (m *machine) mountVolume(dir string) (kind string, err error) {
	lower, merged, tmp := filepath.Join(dir, "lower"), filepath.Join(dir, "merged"), filepath.Join(dir, "tmp")
	for _, d := range []string{lower, merged} {
		if _, err := os.Stat(d); err != nil {
			return "", fmt.Errorf("no directory %s in it", filepath.Base(d))
		}
	}
	if _, err := os.Stat(tmp); errors.Is(err, os.ErrNotExist) {
		return "read-only", mountWords(m.sys, lower, merged, "bind", []string{"bind", "ro"})
	}
	if err := m.sys.Mount("tmpfs", tmp, "tmpfs", 0, ""); err != nil {
		return "", err
	}
	upper, work := filepath.Join(tmp, "upper"), filepath.Join(tmp, "work")
	for _, d := range []string{upper, work} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return "", err
		}
	}
	data := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", lower, upper, work)
	return "read-write", m.sys.Mount("overlay", merged, "overlay", 0, data)
}

//go:build linux

package guest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/seatrial/seatrial/boot"
	"golang.org/x/sys/unix"
)

// runBundles runs the containers of dir one after another and waits for each.
// What goes wrong with one is said and does not keep the next from running.
// kind is "onboot" or "shutdown", the words of LinuxKit's messages and logs.
func (m *machine) runBundles(ctx context.Context, at boot.Milestone, kind, dir string) error {
	bundles, unread := ReadBundles(filepath.Join(m.root, dir))
	if len(bundles) == 0 {
		return errors.Join(unread...)
	}
	if _, err := os.Stat(filepath.Join(m.root, boot.RuncPath)); err != nil {
		text := fmt.Sprintf("%d containers not run: no %s in the image; add the runc image to init:", len(bundles), boot.RuncPath)
		m.speak.Say("%s: %s", kind, text)
		return said(text)
	}
	logs := filepath.Join(m.root, "/run/log", kind)
	if err := os.MkdirAll(logs, 0o755); err != nil {
		return err
	}
	// Where LinuxKit's users look. /var may be a disk that has it already.
	_ = os.Symlink(logs, filepath.Join(m.root, boot.LogDir, kind))
	var failed []string
	for i, b := range bundles {
		if ctx.Err() != nil {
			break
		}
		m.speak.Say("%s %s: from %s", kind, b.Name, b.Dir)
		m.speak.Event(boot.Event{At: at, State: boot.Running, Unit: b.Name})
		err := unread[i]
		if err == nil {
			err = m.runBundle(ctx, b, filepath.Join(logs, kind+"."+b.Name))
		}
		if err == nil {
			m.speak.Event(boot.Event{At: at, State: boot.Exited, Unit: b.Name, Facts: map[string]string{boot.FactStatus: "0"}})
			continue
		}
		m.speak.Say("%s %s: %v", kind, b.Name, err)
		failed = append(failed, fmt.Sprintf("%s: %v", b.Name, err))
		m.speak.Event(boot.Event{At: at, State: boot.Failed, Unit: b.Name, Detail: err.Error(), Facts: statusFact(err)})
	}
	if len(failed) > 0 {
		return said(strings.Join(failed, "; "))
	}
	return nil
}

// exitError is a container that ran and ended badly.
type exitError struct{ status string }

func (e exitError) Error() string { return e.status }

func statusFact(err error) map[string]string {
	if e := (exitError{}); errors.As(err, &e) {
		return map[string]string{boot.FactStatus: strings.TrimPrefix(e.status, "exit status ")}
	}
	return nil
}

// runBundle runs one container to its end. Its output goes to files beside
// log and from there to the console when it has ended, so that the lines of
// one container are together.
func (m *machine) runBundle(ctx context.Context, b Bundle, log string) (err error) {
	if err := b.Prepare(m.sys); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Release(m.sys)) }()
	stdin, err := os.Open(filepath.Join(m.root, "/dev/null"))
	if err != nil {
		return err
	}
	defer stdin.Close()
	stdout, err := os.Create(log + ".out.log")
	if err != nil {
		return err
	}
	defer stdout.Close()
	stderr, err := os.Create(log + ".log")
	if err != nil {
		return err
	}
	defer stderr.Close()

	// runc run is create, start, wait and delete in one process.
	own := log + ".runc.log"
	argv := []string{filepath.Join(m.root, boot.RuncPath), "--log", own, "--log-format", "json"}
	if m.words.has("linuxkit.runc_debug=1") {
		argv = append(argv, "--debug")
	}
	argv = append(argv, "run", "--bundle", b.Dir, b.Name)
	p, err := m.reaper.Start(argv, m.env, b.Dir, stdin, stdout, stderr)
	if err != nil {
		return err
	}
	select {
	case <-p.Done():
	case <-ctx.Done():
		// runc hands SIGTERM on; what ignores it is killed with everything else.
		_ = m.reaper.Signal(m.sys, p, unix.SIGTERM)
		return errors.New("stopped: the machine is shutting down")
	}
	m.dump(stdout)
	m.dump(stderr)
	if p.Exit().OK() {
		return nil
	}
	if reason := runcError(own); reason != "" {
		return fmt.Errorf("runc: %s", reason)
	}
	return exitError{containerStatus(p.Exit())}
}

// containerStatus undoes runc's habit of exiting with 128+n when the container
// was killed by signal n.
func containerStatus(e Exit) string {
	if n := e.Code() - 128; !e.status.Signaled() && n > 0 && n <= 64 {
		return "signal: " + unix.Signal(n).String()
	}
	return e.String()
}

// runcError is the last error in runc's own log, empty if it has none: then
// the exit status is the container's.
func runcError(file string) string {
	src, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	last := ""
	for line := range bytes.Lines(src) {
		var entry struct{ Level, Msg string }
		if json.Unmarshal(line, &entry) == nil && (entry.Level == "error" || entry.Level == "fatal") {
			last = entry.Msg
		}
	}
	return last
}

// dump copies a log file from its start to the console.
func (m *machine) dump(f *os.File) {
	if _, err := f.Seek(0, io.SeekStart); err == nil {
		_, err = io.Copy(m.speak.console, f)
		if err == nil {
			return
		}
	}
	m.speak.Say("init: %s cannot be shown", f.Name())
}

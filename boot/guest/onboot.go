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
	"strconv"
	"strings"
	"time"

	"github.com/seatrial/seatrial/boot"
	"golang.org/x/sys/unix"
)

// Words on the kernel command line about runc, LinuxKit's own.
const (
	runcDebugWord   = "linuxkit.runc_debug=1"   // runc logs what it does, and so do we
	runcConsoleWord = "linuxkit.runc_console=1" // containers write to the console at once, not when they have ended
)

// runBundles runs the containers of dir one after another and waits for each.
// What goes wrong with one is said and does not keep the next from running.
// kind is "onboot" or "shutdown", the words of LinuxKit's messages and logs.
// limit is how long each may take, 0 for ever.
func (m *machine) runBundles(ctx context.Context, at boot.Milestone, kind, dir string, limit time.Duration) error {
	bundles, unread := ReadBundles(filepath.Join(m.root, dir))
	if len(bundles) == 0 {
		return errors.Join(unread...)
	}
	if _, err := os.Stat(filepath.Join(m.root, boot.RuncPath)); err != nil {
		text := fmt.Sprintf("%d containers not run: no %s in the image; add the runc image to init:", len(bundles), boot.RuncPath)
		m.speak.Say("%s: %s", kind, text)
		return said(text)
	}
	// Where LinuxKit's users look. /var may be a disk that has it already.
	_ = os.Symlink(filepath.Join("/run/log", kind), filepath.Join(m.root, boot.LogDir, kind))
	m.speak.Say("%s: Using cgroup v%d", kind, m.cgroupVersion())
	var failed []string
	for i, b := range bundles {
		if ctx.Err() != nil {
			break
		}
		m.speak.Say("%s %s: from %s", kind, b.Name, b.Dir)
		m.speak.Event(boot.Event{At: at, State: boot.Running, Unit: b.Name})
		err := unread[i]
		if err == nil {
			err = m.limited(ctx, limit, func(ctx context.Context) error {
				return m.runBundle(ctx, b, kind)
			})
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

// limited calls f with a context that also ends after limit, if that is not 0.
func (m *machine) limited(ctx context.Context, limit time.Duration, f func(context.Context) error) error {
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, limit, fmt.Errorf("it had %v", limit))
		defer cancel()
	}
	return f(ctx)
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

// runBundle runs one container to its end. Its output goes to files and from
// there to the console when it has ended, so that the lines of one container
// are together.
func (m *machine) runBundle(ctx context.Context, b Bundle, kind string) (err error) {
	unit := kind + " " + b.Name
	w, err := m.workspace(unit, kind)
	if err != nil {
		return err
	}
	log := filepath.Join(w.logs, kind+"."+b.Name)
	m.debugRunc("%s: preparing", unit)
	if err := b.Prepare(m.sys); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Release(m.sys)) }()
	if err := b.MakeCgroups(m.root); err != nil {
		m.speak.Say("%s: cgroup error: %v", unit, err)
	}
	files, err := m.openLogs(log)
	if err != nil {
		return err
	}
	r := runcRun{m: m, b: b, unit: unit, own: log + ".runc.log", state: w.state, files: files}
	exit, err := r.run(ctx)
	for _, f := range files[1:] {
		m.deliver(f, filepath.Base(f.Name()))
	}
	for _, f := range files {
		if f != os.Stdout && f != os.Stderr {
			f.Close()
		}
	}
	if files[1] != os.Stdout {
		m.sayIfFull(unit, w.logs)
	}
	m.debugRunc("%s: complete", unit)
	switch {
	case err != nil:
		return err
	case exit.OK():
		return nil
	}
	if reason := runcError(r.own); reason != "" {
		return fmt.Errorf("runc: %s", strings.TrimPrefix(reason, "runc run failed: "))
	}
	return exitError{containerStatus(exit)}
}

// openLogs opens a container's standard input, output and error.
func (m *machine) openLogs(log string) ([]*os.File, error) {
	stdin, err := os.Open(filepath.Join(m.root, "/dev/null"))
	if err != nil {
		return nil, err
	}
	if m.words.has(runcConsoleWord) {
		return []*os.File{stdin, os.Stdout, os.Stderr}, nil
	}
	stdout, err := os.Create(log + ".out.log")
	if err != nil {
		stdin.Close()
		return nil, err
	}
	stderr, err := os.Create(log + ".log")
	if err != nil {
		stdin.Close()
		stdout.Close()
		return nil, err
	}
	return []*os.File{stdin, stdout, stderr}, nil
}

// deliver shows a container's output on the console and gives it to the
// logging daemon, if there is one.
func (m *machine) deliver(f *os.File, file string) {
	if f == os.Stdout || f == os.Stderr {
		return // it is there already
	}
	m.dump(f)
	socket := filepath.Join(m.root, boot.LoggingSocket)
	if _, err := os.Stat(socket); err != nil {
		return
	}
	name := strings.TrimSuffix(file, ".log")
	log, err := OpenLog(f.Name()) // with a position of its own
	if err == nil {
		err = SendLog(socket, name, log)
		log.Close()
	}
	if err != nil {
		m.speak.Say("init: log of %s: %v", name, err)
	}
}

// runcRun is one container under runc.
type runcRun struct {
	m     *machine
	b     Bundle
	unit  string
	own   string // runc's own log
	state string // runc's state, see workspace
	files []*os.File
}

func (r runcRun) argv(args ...string) []string {
	argv := []string{filepath.Join(r.m.root, boot.RuncPath), "--log", r.own, "--log-format", "json"}
	if r.state != "" {
		argv = append(argv, "--root", r.state)
	}
	if r.m.words.has(runcDebugWord) {
		argv = append(argv, "--debug")
	}
	return append(argv, args...)
}

// run runs the container. runc run is create, start, wait and delete in one
// process, which saves much under emulation; a container that is given network
// interfaces or names for its namespaces needs the steps apart.
func (r runcRun) run(ctx context.Context) (Exit, error) {
	if len(r.b.Runtime.Interfaces) == 0 && r.b.Runtime.BindNS == (boot.RuntimeNamespaces{}) {
		r.m.debugRunc("%s: running", r.unit)
		p, err := r.m.reaper.Start(r.argv("run", "--bundle", r.b.Dir, r.b.Name), r.m.env, r.b.Dir, r.files...)
		if err != nil {
			return Exit{}, err
		}
		r.m.debugRunc("%s: waiting for completion", r.unit)
		return r.await(ctx, p)
	}
	r.m.debugRunc("%s: creating", r.unit)
	pidFile := r.own + ".pid"
	if exit, err := r.command(ctx, "create", "--bundle", r.b.Dir, "--pid-file", pidFile, r.b.Name); err != nil || !exit.OK() {
		return exit, err
	}
	defer func() { _, _ = r.command(context.Background(), "delete", "--force", r.b.Name) }() // its files are on a tmpfs
	text, err := os.ReadFile(pidFile)
	if err != nil {
		return Exit{}, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return Exit{}, fmt.Errorf("runc's pid file: %w", err)
	}
	p, err := r.m.reaper.Adopt(pid) // PID 1 has inherited it from runc create
	if err != nil {
		return Exit{}, err
	}
	if err := r.m.attach(ctx, r.b, pid); err != nil {
		return Exit{}, err
	}
	r.m.debugRunc("%s: starting", r.unit)
	if exit, err := r.command(ctx, "start", r.b.Name); err != nil || !exit.OK() {
		return exit, err
	}
	r.m.debugRunc("%s: waiting for completion", r.unit)
	return r.await(ctx, p)
}

// command runs one of runc's short commands to its end.
func (r runcRun) command(ctx context.Context, args ...string) (Exit, error) {
	p, err := r.m.reaper.Start(r.argv(args...), r.m.env, r.b.Dir, r.files...)
	if err != nil {
		return Exit{}, err
	}
	return r.await(ctx, p)
}

// await waits for the end of p, and tells when that takes long. When ctx ends,
// it is sent SIGTERM, which runc hands on, and after a moment SIGKILL.
func (r runcRun) await(ctx context.Context, p *Process) (Exit, error) {
	began, late := time.Now(), r.m.patience.late
	for {
		t := time.NewTimer(late)
		select {
		case <-p.Done():
			t.Stop()
			return p.Exit(), nil
		case <-t.C:
			r.m.speak.Say("%s: still running after %v", r.unit, time.Since(began).Round(time.Second))
			late *= 2
		case <-ctx.Done():
			t.Stop()
			_ = r.m.reaper.Signal(r.m.sys, p, unix.SIGTERM)
			if !r.m.within(r.m.patience.others, func() { <-p.Done() }) {
				_ = r.m.reaper.Signal(r.m.sys, p, unix.SIGKILL)
			}
			return Exit{}, fmt.Errorf("stopped: %w", context.Cause(ctx))
		}
	}
}

// attach gives a created container its interfaces, by the service tool, which
// has the library for that, and its namespaces their names.
func (m *machine) attach(ctx context.Context, b Bundle, pid int) error {
	if len(b.Runtime.Interfaces) > 0 {
		argv := []string{filepath.Join(m.root, boot.ServicePath), "attach", b.Dir, strconv.Itoa(pid)}
		p, err := m.reaper.Start(argv, m.env, "/", os.Stdin, os.Stdout, os.Stderr)
		if err != nil {
			return fmt.Errorf("interfaces: %w", err)
		}
		select {
		case <-p.Done():
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if !p.Exit().OK() {
			return errors.New("interfaces: the service tool said above what it cannot do")
		}
	}
	return b.BindNamespaces(m.sys, m.root, pid)
}

// debugRunc says what is being done with a container, when asked to.
func (m *machine) debugRunc(format string, args ...any) {
	if m.words.has(runcDebugWord) {
		m.speak.Say(format, args...)
	}
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

// dump copies a log file from its start to the console, and ends its last line.
func (m *machine) dump(f *os.File) {
	if _, err := f.Seek(0, io.SeekStart); err == nil {
		var n int64
		n, err = io.Copy(m.speak.console, f)
		last := make([]byte, 1)
		if n > 0 && err == nil {
			if _, err = f.ReadAt(last, n-1); err == nil && last[0] != '\n' {
				_, err = io.WriteString(m.speak.console, "\n")
			}
		}
		if err == nil {
			return
		}
	}
	m.speak.Say("init: %s cannot be shown", f.Name())
}

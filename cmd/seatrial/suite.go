package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/seatrial/seatrial/harness"
	"github.com/seatrial/seatrial/images/component"
	"github.com/seatrial/seatrial/reports"
)

// names of files in a run's folder.
const (
	progressFile = harness.FileProgress
	ginkgoLog    = "ginkgo.log" // all that the ginkgo tool and the suite's processes said
)

// interruptGrace is how long a suite that was interrupted may take to close its
// machines and write its report: Close gives each QEMU seconds, not minutes.
const interruptGrace = 45 * time.Second

func allComponents() []string { return component.Names() }

// runSuite runs the ginkgo tool and shows what the suite notes. The tool and
// its processes are a group of their own, so that Ctrl-C reaches them once and
// through us. An error is one that the suite's own report does not hold.
func runSuite(ctx context.Context, argv []string, log string, w *watch) error {
	out, err := os.Create(log)
	if err != nil {
		return err
	}
	c := exec.Command(argv[0], argv[1:]...)
	c.Stdout, c.Stderr = out, out
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	// The signal comes when the thread that forked ends (prctl(2)): keep it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := c.Start(); err != nil {
		return errors.Join(err, out.Close())
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	err = attendSuite(ctx, c.Process.Pid, ended, w)
	w.look()
	return errors.Join(suiteError(err, log), out.Close())
}

// attendSuite shows progress until the suite's end. When ctx ends the group is
// interrupted; if that does not help, or we are interrupted again, it is killed.
func attendSuite(ctx context.Context, group int, ended <-chan error, w *watch) error {
	tick := time.NewTicker(redraw)
	defer tick.Stop()
	interrupt := ctx.Done()
	var giveUp <-chan time.Time
	again := make(chan os.Signal, 1)
	defer signal.Stop(again)
	kill := func(why string) error {
		_ = syscall.Kill(-group, syscall.SIGKILL) // ESRCH: it has ended just now
		return fmt.Errorf("the suite %s and was killed (%v): %w", why, <-ended, ctx.Err())
	}
	for {
		select {
		case err := <-ended:
			return errors.Join(err, ctx.Err())
		case <-tick.C:
			w.look()
		case <-interrupt:
			interrupt = nil
			signal.Notify(again, os.Interrupt, syscall.SIGTERM)
			w.d.say("interrupted: ending the machines; interrupt again to kill them")
			// ESRCH: it has ended just now, and the next turn finds out.
			_ = syscall.Kill(-group, syscall.SIGINT)
			timer := time.NewTimer(interruptGrace)
			defer timer.Stop()
			giveUp = timer.C
		case <-again:
			return kill("was interrupted twice")
		case <-giveUp:
			return kill(fmt.Sprintf("did not end within %v of the interrupt", interruptGrace))
		}
	}
}

// suiteError adds what the tool said last to a failure of its own.
func suiteError(err error, log string) error {
	if err == nil {
		return nil
	}
	text, readErr := os.ReadFile(log)
	if readErr != nil {
		return errors.Join(err, readErr)
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return fmt.Errorf("the suite ended with an error: %w; %s ends with:\n%s", err, log, strings.Join(lines[max(0, len(lines)-20):], "\n"))
}

// watch shows what the processes of a suite append to the progress file.
type watch struct {
	d    *display
	path string

	read    int64
	rest    []byte // an unfinished last line
	planned int
	over    []harness.Note // specs that have ended
	failed  int
}

// look reads what is new.
func (w *watch) look() {
	f, err := os.Open(w.path)
	if err != nil {
		return // not there yet
	}
	defer f.Close()
	b, err := io.ReadAll(io.NewSectionReader(f, w.read, 1<<62))
	if err != nil {
		w.d.say("progress: %v", err)
	}
	w.read += int64(len(b))
	lines := bytes.Split(append(w.rest, b...), []byte("\n"))
	w.rest = bytes.Clone(lines[len(lines)-1])
	for _, line := range lines[:len(lines)-1] {
		var n harness.Note
		if json.Unmarshal(line, &n) == nil { // a torn line is no reason to stop looking
			w.show(n)
		}
	}
}

func (w *watch) show(n harness.Note) {
	switch {
	case n.Planned > 0:
		w.planned = n.Planned
		w.d.say("%d specs to run", n.Planned)
	case n.Step != "":
		w.d.set("suite", n.Step)
	case n.Machine != nil:
		w.d.set("machine "+n.Machine.Machine, describe(*n.Machine))
	case n.Closed != "":
		w.d.drop("machine " + n.Closed)
	case n.State == harness.CaseBegan:
		w.d.drop("suite")
		w.d.set(n.Case, "runs")
	case n.Case != "":
		w.ended(n)
	}
	if w.planned > 0 {
		w.d.state("%d of %d specs over, %d failed", len(w.over), w.planned, w.failed)
	}
}

func (w *watch) ended(n harness.Note) {
	w.d.drop(n.Case)
	w.over = append(w.over, n)
	o := reports.Outcome(n.State)
	if o == reports.Failed {
		w.failed++
	}
	sayCase(w.d, n.Case, o, n.Took)
}

// concluded is the run as the suite reported it, or, where it could not, as far
// as it is known from its notes. failure is why the suite did not end well; a
// suite that says all is well and ends badly has proved nothing.
func concluded(dir string, began time.Time, failure error, w *watch) (reports.Run, error) {
	run, err := reports.ReadRun(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		run = reports.Run{ID: filepath.Base(dir), Title: "seatrial", Began: began, Planned: w.planned, Boots: map[string]reports.Boot{}}
		for _, n := range w.over {
			c := reports.Case{Path: []string{n.Case}, Outcome: reports.Outcome(n.State), Began: n.Time.Add(-n.Took), Took: n.Took}
			if c.Outcome != reports.Passed {
				c.Class, c.Title = reports.Infra, "the suite died before it could say why"
			}
			run.Cases = append(run.Cases, c)
		}
		run.Failure = "the suite ended without a report"
	case err != nil:
		return run, err
	}
	run.Took = time.Since(began)
	clean := !slices.ContainsFunc(run.Cases, func(c reports.Case) bool { return c.Outcome != reports.Passed })
	if failure != nil && (clean || run.Failure == "") {
		run.Failure = failure.Error()
	}
	return run, nil
}

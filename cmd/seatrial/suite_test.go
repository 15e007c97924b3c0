package main

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seatrial/seatrial/harness"
	"github.com/seatrial/seatrial/reports"
)

// plainDisplay writes to a file that can be read back.
func plainDisplay(t *testing.T) (*display, func() string) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "display"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return newDisplay(f), func() string {
		b, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
}

func appendNotes(t *testing.T, path string, notes ...harness.Note) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, n := range notes {
		if err := json.NewEncoder(f).Encode(n); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWatch(t *testing.T) {
	d, shown := plainDisplay(t)
	w := &watch{d: d, path: filepath.Join(t.TempDir(), "progress")}
	w.look() // nothing there yet
	appendNotes(t, w.path,
		harness.Note{Planned: 2},
		harness.Note{Case: "a", State: harness.CaseBegan},
		harness.Note{Machine: &harness.Progress{Machine: "m", At: "init", State: "done"}},
		harness.Note{Case: "a", State: "passed", Took: time.Second})
	w.look()
	f, err := os.OpenFile(w.path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	half := `{"case":"b\u001b[2J","state":"fai`
	if _, err := f.WriteString(half); err != nil {
		t.Fatal(err)
	}
	w.look()
	if len(w.over) != 1 || w.planned != 2 {
		t.Fatalf("half a line was read: %+v", w.over)
	}
	if _, err := f.WriteString("led\"}\n"); err != nil {
		t.Fatal(err)
	}
	w.look()
	d.close()
	if len(w.over) != 2 || w.failed != 1 {
		t.Errorf("over: %+v, failed %d", w.over, w.failed)
	}
	for _, want := range []string{"2 specs to run\n", "a: runs\n", "machine m: init\n", "passed     1.0s  a\n", "failed     0.0s  b\n"} {
		if !strings.Contains(shown(), want) {
			t.Errorf("not shown: %q\n%s", want, shown())
		}
	}
	if strings.Contains(shown(), "\x1b") {
		t.Errorf("escape sequences where no terminal is: %q", shown())
	}
}

// What a suite leaves is a proof only if it also ended well.
func TestConcluded(t *testing.T) {
	good := reports.Run{ID: "x", Planned: 1, Cases: []reports.Case{{Path: []string{"a"}, Outcome: reports.Passed}}, Boots: map[string]reports.Boot{}}
	bad := good
	bad.Cases = []reports.Case{{Path: []string{"a"}, Outcome: reports.Failed, Class: reports.Guest, Title: "broken"}}
	skipped := good
	skipped.Cases = []reports.Case{{Path: []string{"a"}, Outcome: reports.Skipped}}
	short := good
	short.Planned = 2
	empty := reports.Run{ID: "x"}
	for name, c := range map[string]struct {
		run     *reports.Run // nil: the suite left none
		over    []harness.Note
		failure error
		outcome reports.Outcome
		says    string
		status  int
	}{
		"proved":              {&good, nil, nil, reports.Passed, "", 0},
		"ended badly":         {&good, nil, errors.New("exit status 197"), reports.Failed, "exit status 197", 3},
		"a spec failed":       {&bad, nil, errors.New("exit status 1"), reports.Failed, "broken", 1},
		"a spec was skipped":  {&skipped, nil, nil, reports.Failed, "skipped", 3},
		"a spec is missing":   {&short, nil, nil, reports.Failed, "never reported", 3},
		"no spec":             {&empty, nil, nil, reports.Failed, "no case ran", 3},
		"no report":           {nil, nil, errors.New("killed"), reports.Failed, "killed", 3},
		"no report, no error": {nil, []harness.Note{{Case: "a", State: "passed"}}, nil, reports.Failed, "without a report", 3},
		"no report, failures": {nil, []harness.Note{{Case: "a", State: "failed"}}, errors.New("killed"), reports.Failed, "died before", 3},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if c.run != nil {
				if err := reports.WriteAll(dir, *c.run); err != nil {
					t.Fatal(err)
				}
			}
			run, err := concluded(dir, time.Now(), c.failure, &watch{over: c.over, planned: 1})
			if err != nil {
				t.Fatal(err)
			}
			run.Judge()
			if run.Outcome != c.outcome || !strings.Contains(reports.FirstLine(run), c.says) {
				t.Errorf("%s: %s, want %s: %q", run.Outcome, reports.FirstLine(run), c.outcome, c.says)
			}
			status := 0
			var exit exitError
			if errors.As(runStatus(run), &exit) {
				status = exit.status
			}
			if status != c.status {
				t.Errorf("status %d, want %d", status, c.status)
			}
		})
	}
}

// runScript runs a shell script in the place of the ginkgo tool.
func runScript(t *testing.T, ctx context.Context, script string) error {
	t.Helper()
	d, _ := plainDisplay(t)
	defer d.close()
	dir := t.TempDir()
	return runSuite(ctx, []string{"sh", "-c", script}, filepath.Join(dir, "log"), &watch{d: d, path: filepath.Join(dir, "progress")})
}

func TestRunSuite(t *testing.T) {
	if err := runScript(t, t.Context(), "exit 0"); err != nil {
		t.Error(err)
	}
	err := runScript(t, t.Context(), "echo what went wrong; exit 7")
	if err == nil || !strings.Contains(err.Error(), "exit status 7") || !strings.Contains(err.Error(), "what went wrong") {
		t.Errorf("%v", err)
	}
}

// An interrupt reaches the whole group, and the suite may still end by itself.
func TestRunSuiteInterrupted(t *testing.T) {
	began := filepath.Join(t.TempDir(), "began")
	ended := filepath.Join(t.TempDir(), "ended")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		inner := `trap "echo > '` + ended + `'; exit" INT; echo > '` + began + `'; while :; do sleep 0.01; done`
		done <- runScript(t, ctx, "trap : INT; sh -c '"+strings.ReplaceAll(inner, "'", `'\''`)+"'; exit 0")
	}()
	await(t, "the suite", func() bool { _, err := os.Stat(began); return err == nil })
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(ended); errors.Is(err, fs.ErrNotExist) {
		t.Error("the interrupt did not reach a process of the group")
	}
}

// A suite that does not hear the interrupt is killed by the second one.
func TestRunSuiteInterruptedTwice(t *testing.T) {
	// Or our own signals would end this test, a late one even after it is over.
	signal.Notify(make(chan os.Signal, 1), os.Interrupt)
	began := filepath.Join(t.TempDir(), "began")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- runScript(t, ctx, "trap '' INT; echo > '"+began+"'; while :; do sleep 0.01; done")
	}()
	await(t, "the suite", func() bool { _, err := os.Stat(began); return err == nil })
	cancel()
	var err error
	await(t, "the end of the suite", func() bool {
		if err := syscall.Kill(os.Getpid(), syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		select {
		case err = <-done:
			return true
		default:
			return false
		}
	})
	if err == nil || !strings.Contains(err.Error(), "interrupted twice") {
		t.Errorf("%v", err)
	}
}

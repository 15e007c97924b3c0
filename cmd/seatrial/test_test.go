package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/seatrial/seatrial/reports"
)

// A machine that fails gives status 1, a report in every form that latest leads
// to, and the same answer when the report is made again.
func TestVerdictOfTest(t *testing.T) {
	s := machines(t, "[    0.0] Linux version 6.1\r\n[    1.0] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)\r\n")
	got := s.run("test", "guest.yml")
	first, _, _ := strings.Cut(got.stdout, "\n")
	if got.status != 1 || !strings.HasPrefix(first, "FAILED  guest: no root file system") || strings.Contains(got.stdout, "\x1b") {
		t.Errorf("%+v", got)
	}
	for _, name := range []string{reports.FileJSON, reports.FileJUnit, reports.FileHTML, reports.FileSummary, "machines/guest/serial.log"} {
		if _, err := os.Stat(filepath.Join(s.dir, "out", "latest", name)); err != nil {
			t.Error(err)
		}
	}
	html := filepath.Join(s.dir, "out", "latest", reports.FileHTML)
	if err := os.WriteFile(html, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	again := s.run("report")
	if again.status != 1 || again.stdout != got.stdout {
		t.Errorf("made again: %+v", again)
	}
	if b, err := os.ReadFile(html); err != nil || !strings.Contains(string(b), "no root file system") {
		t.Errorf("the page was not made again: %v", err)
	}
	var run struct{ Outcome string }
	if err := json.Unmarshal([]byte(s.run("report", "--json").stdout), &run); err != nil || run.Outcome != "failed" {
		t.Errorf("%+v, %v", run, err)
	}
}

// A test that ends early leaves no machine: interrupted, it still reports;
// killed, it leaves the unfinished run's folder, which nothing leads to.
func TestTestThatEndsEarly(t *testing.T) {
	for name, c := range map[string]struct {
		signal syscall.Signal
		status int
		latest bool
	}{
		"interrupted": {syscall.SIGINT, 3, true},
		"killed":      {syscall.SIGKILL, -1, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := machines(t, guestText)
			cmd := s.command("test", "guest.yml")
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			var machine []int
			await(t, "the machine", func() bool {
				logs, _ := filepath.Glob(filepath.Join(s.dir, "out", "runs", "*", "machines", "guest", "serial.log"))
				for _, log := range logs {
					if b, err := os.ReadFile(log); err == nil && string(b) == guestText {
						machine = children(t, cmd.Process.Pid)
					}
				}
				return len(machine) == 1
			})
			if err := cmd.Process.Signal(c.signal); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait() // its status is looked at
			gone(t, machine[0])
			if got := cmd.ProcessState.ExitCode(); got != c.status {
				t.Errorf("status %d, want %d", got, c.status)
			}
			_, err := os.Stat(filepath.Join(s.dir, "out", "latest", reports.FileJSON))
			if (err == nil) != c.latest {
				t.Errorf("latest: %v", err)
			}
			if got := names(t, s.dir); !slices.Equal(got, []string{"guest.yml", "out"}) || len(left(t, s.temp)) > 0 {
				t.Errorf("left outside the run's folder: %q, %q", got, left(t, s.temp))
			}
		})
	}
}

package reports

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func TestWriteAll(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "out", "run")
	run := sampleRun()
	for range 2 { // the second time over the first
		if err := WriteAll(dir, run); err != nil {
			t.Fatal(err)
		}
	}
	if d := cmp.Diff([]string{FileJUnit, FileHTML, FileJSON, FileSummary}, names(t, dir)); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	got, err := ReadRun(dir)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(run, got); d != "" {
		t.Errorf("-written +read:\n%s", d)
	}
	if info, err := os.Stat(filepath.Join(dir, FileHTML)); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

func TestWriteAllJudges(t *testing.T) {
	dir := t.TempDir()
	run := sampleRun()
	run.Outcome, run.Failure = Passed, ""
	if err := WriteAll(dir, run); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadRun(dir); err != nil || got.Outcome != Failed {
		t.Errorf("%s, %v: a run with failed cases was written as passed", got.Outcome, err)
	}
}

func TestWriteAllLeavesNothingBehind(t *testing.T) {
	blocked := t.TempDir()
	if err := os.MkdirAll(filepath.Join(blocked, FileSummary, "in-the-way"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := WriteAll(blocked, sampleRun()); err == nil {
		t.Error("no error where a file cannot be put in place")
	}
	if got := names(t, blocked); !slices.Equal(got, []string{FileSummary}) {
		t.Errorf("left behind: %v", got)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := WriteAll(file, sampleRun()); err == nil {
		t.Error("no error where the folder is a file")
	}
	if _, err := ReadRun(t.TempDir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("reading where no run is: %v", err)
	}
}

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

// Latest is the last run that was published: neither one that goes on, nor one
// that was given up, nor the one before it.
func TestLatest(t *testing.T) {
	out := filepath.Join(t.TempDir(), "a", "out")
	latest := filepath.Join(out, "latest")
	r, err := newRun(out)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(latest); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("there is a latest before the run is over: %v", err)
	}
	if err := os.WriteFile(filepath.Join(r.Dir, "x"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := r.publish(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(latest, "x")); err != nil {
		t.Errorf("latest does not lead to the run: %v", err)
	}
	// The next one has the same name: same second, same process.
	if err := os.Rename(r.Dir, filepath.Join(out, "runs", "00000000T000000-1")); err != nil {
		t.Fatal(err)
	}
	next, err := newRun(out)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(latest); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the earlier run is called latest while another goes on: %v", err)
	}
	if err := next.discard(); err != nil {
		t.Fatal(err)
	}
	if got := names(t, filepath.Join(out, "runs")); !slices.Equal(got, []string{"00000000T000000-1"}) {
		t.Errorf("runs: %q", got)
	}
}

func TestDiscardLeavesNothing(t *testing.T) {
	top := t.TempDir()
	r, err := newRun(filepath.Join(top, "a", "out"))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.discard(); err != nil {
		t.Fatal(err)
	}
	if got := names(t, top); len(got) > 0 {
		t.Errorf("left: %q", got)
	}
	own := filepath.Join(top, "own") // made by the user, empty
	if err := os.Mkdir(own, 0o755); err != nil {
		t.Fatal(err)
	}
	if r, err = newRun(own); err != nil {
		t.Fatal(err)
	}
	if err := r.discard(); err != nil {
		t.Fatal(err)
	}
	if got := names(t, top); !slices.Equal(got, []string{"own"}) {
		t.Errorf("the user's own folder was removed: %q", got)
	}
}

// The newest runs stay, and any that somebody still writes to.
func TestPrune(t *testing.T) {
	runs := t.TempDir()
	for i := range 5 {
		if err := os.MkdirAll(filepath.Join(runs, fmt.Sprintf("r%d", i), "machines"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	lock, err := lockFolder(filepath.Join(runs, "r1"))
	if err != nil {
		t.Fatal(err)
	}
	if err := prune(runs, 2); err != nil {
		t.Fatal(err)
	}
	if got := names(t, runs); !slices.Equal(got, []string{"r1", "r3", "r4"}) {
		t.Errorf("left: %q", got)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	if err := prune(runs, 2); err != nil {
		t.Fatal(err)
	}
	if got := names(t, runs); !slices.Equal(got, []string{"r3", "r4"}) {
		t.Errorf("left once it was over: %q", got)
	}
}

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// keptRuns is how many runs stay below a folder: enough to look back over a
// day's work, few enough that consoles and disks do not fill the host.
const keptRuns = 10

// runFolder is the folder of one run, OUT/runs/TIME-PID, locked as long as the
// run lasts. The lock goes with the process, however that ends: whoever finds
// a run's folder unlocked knows that nobody is writing to it any more.
//
// OUT/latest is a link to the last run that came to its end. It is taken away
// when a run begins and set when the run has its reports, so that neither half
// a report nor that of an earlier run is ever taken for the latest.
type runFolder struct {
	out  string // absolute
	Dir  string // absolute
	lock *os.File
	undo func() // removes the folders that were made for it, if they are empty
}

// newRun makes the folder of a new run below out and removes all but the last
// few of those before it.
func newRun(out string) (*runFolder, error) {
	out, err := filepath.Abs(out)
	if err != nil {
		return nil, err
	}
	runs := filepath.Join(out, "runs")
	r := &runFolder{out: out, undo: foldersToMake(runs)}
	if info, err := os.Lstat(r.latest()); err == nil && info.Mode()&fs.ModeSymlink == 0 {
		return nil, misusef("%s is in the way: it is not a link that seatrial made; move it away, or choose another folder with --out", r.latest())
	}
	if err := os.MkdirAll(runs, 0o755); err != nil {
		r.undo()
		return nil, fmt.Errorf("run folder: %w", remedy(err, "--out"))
	}
	r.Dir = filepath.Join(runs, fmt.Sprintf("%s-%d", time.Now().UTC().Format("20060102T150405"), os.Getpid()))
	if err := os.Mkdir(r.Dir, 0o755); err != nil {
		r.undo()
		return nil, fmt.Errorf("run folder: %w", remedy(err, "--out"))
	}
	if r.lock, err = lockFolder(r.Dir); err != nil {
		return nil, errors.Join(fmt.Errorf("locking the run folder: %w", err), os.Remove(r.Dir))
	}
	if err := os.Remove(r.latest()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(fmt.Errorf("run folder: %w", err), r.discard())
	}
	return r, prune(runs, keptRuns)
}

func (r *runFolder) latest() string { return filepath.Join(r.out, "latest") }

// publish makes the run the latest one and unlocks it.
func (r *runFolder) publish() error {
	next := fmt.Sprintf("%s.%d", r.latest(), os.Getpid())
	if err := os.Symlink(filepath.Join("runs", filepath.Base(r.Dir)), next); err != nil {
		return errors.Join(err, r.lock.Close())
	}
	if err := os.Rename(next, r.latest()); err != nil {
		return errors.Join(err, os.Remove(next), r.lock.Close())
	}
	return r.lock.Close()
}

// release unlocks a run that keeps its evidence and is nobody's latest.
func (r *runFolder) release() error { return r.lock.Close() }

// discard removes a run that came to nothing, and the folders that were made
// for it.
func (r *runFolder) discard() error {
	err := errors.Join(os.RemoveAll(r.Dir), r.lock.Close())
	r.undo()
	return err
}

// foldersToMake returns what takes away those of a folder and its parents that
// are not there now, as far as they are empty by then.
func foldersToMake(dir string) (undo func()) {
	var missing []string
	for {
		if _, err := os.Lstat(dir); err == nil {
			break
		}
		missing = append(missing, dir)
		if dir == filepath.Dir(dir) {
			break
		}
		dir = filepath.Dir(dir)
	}
	return func() {
		for _, d := range missing {
			_ = os.Remove(d) // one that holds something, or was never made, is no error
		}
	}
}

// lockFolder locks a folder against everyone who asks; it does not wait.
func lockFolder(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// prune removes all but the newest runs; one that still goes on stays.
func prune(runs string, keep int) error {
	entries, err := os.ReadDir(runs) // sorted by name, so by time
	if err != nil {
		return err
	}
	entries = slices.DeleteFunc(entries, func(e fs.DirEntry) bool { return !e.IsDir() })
	var errs []error
	for _, e := range entries[:max(len(entries)-keep, 0)] {
		dir := filepath.Join(runs, e.Name())
		lock, err := lockFolder(dir)
		if errors.Is(err, syscall.EWOULDBLOCK) || errors.Is(err, fs.ErrNotExist) {
			continue // it goes on, or somebody else has removed it
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("removing old runs: %w", err))
			continue
		}
		errs = append(errs, os.RemoveAll(dir), lock.Close())
	}
	return errors.Join(errs...)
}

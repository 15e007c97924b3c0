package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// errLocked is what tryLock ends with when another holds the lock.
var errLocked = errors.New("locked by another")

// lockFile locks the file, which is made if need be, and returns it open;
// closing it gives the lock back, and so does the end of this process. how is
// unix.LOCK_SH or LOCK_EX.
//
// The kernel has no lock that a context can end, so it is asked again and
// again, at most five times a second.
func lockFile(ctx context.Context, path string, how int) (*os.File, error) {
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, 200*time.Millisecond) {
		f, err := tryLock(path, how)
		if !errors.Is(err, errLocked) {
			return f, err
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, fmt.Errorf("waiting for the lock %s: %w", path, context.Cause(ctx))
		}
	}
}

// tryLock is lockFile, but does not wait.
func tryLock(path string, how int) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB); err != nil {
			f.Close()
			if errors.Is(err, unix.EWOULDBLOCK) {
				return nil, errLocked
			}
			return nil, fmt.Errorf("locking %s: %w", path, err)
		}
		// Whoever held it before may have removed the file: then this is the
		// lock of nothing.
		ours, err := f.Stat()
		if err != nil {
			f.Close()
			return nil, err
		}
		if named, err := os.Stat(path); err == nil && os.SameFile(ours, named) {
			return f, nil
		}
		f.Close()
	}
}

// replaceLock puts a new file, locked exclusively, in the place of the one that
// the caller holds shared, and returns it; nil: another has done so already.
// Those who hold the old file keep a lock that nobody asks for any more.
//
// Nobody can hold the old file exclusively meanwhile, so there are never two who
// hold the lock of the path. Only one at a time replaces: between looking at the
// path and renaming, it must not become another's.
func replaceLock(ctx context.Context, held *os.File, path string) (*os.File, error) {
	turn, err := lockFile(ctx, filepath.Join(filepath.Dir(path), "replacing"), unix.LOCK_EX)
	if err != nil {
		return nil, err
	}
	defer turn.Close()
	ours, err := held.Stat()
	if err != nil {
		return nil, err
	}
	if named, err := os.Stat(path); err != nil || !os.SameFile(ours, named) {
		return nil, nil
	}
	fresh, err := tryLock(path+".fresh", unix.LOCK_EX) // one that is there is of a process that was killed
	if err != nil {
		return nil, err
	}
	if err := os.Rename(fresh.Name(), path); err != nil {
		return nil, errors.Join(err, fresh.Close())
	}
	return fresh, nil
}

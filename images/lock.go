package images

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// LockDir takes the exclusive lock of a folder, which must exist, and waits for
// it until ctx ends. The kernel drops the lock with the process, however
// that dies. Closing the file gives it back.
//
// flock(2) cannot be interrupted by a context, so this asks every 10 ms.
func LockDir(ctx context.Context, dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return nil, errors.Join(fmt.Errorf("images: cannot lock %s: %w", dir, err), f.Close())
		}
		if !still(f, dir) { // renamed or removed: nobody will give this lock up for us
			return nil, errors.Join(fmt.Errorf("images: %s: %w", dir, os.ErrNotExist), f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("images: waiting for another process that has locked %s: %w", dir, ctx.Err()), f.Close())
		case <-tick.C:
		}
	}
}

// tryLockDir is LockDir without waiting; nil if somebody else has the lock.
func tryLockDir(dir string) *os.File {
	f, err := os.Open(dir)
	if err != nil {
		return nil
	}
	if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		f.Close()
		return nil
	}
	return f
}

// still reports whether the name still leads to the locked folder: it may have
// been renamed or removed while we waited.
func still(f *os.File, name string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Lstat(name)
	return err == nil && os.SameFile(a, b)
}

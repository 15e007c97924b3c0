package images

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// seal is how a file in the cache is recognised as the one that was written:
// by what every write to it changes, and if that has changed by its digest.
// The kernel sets the change time (ctime) on every write, truncation, rename
// and link, and no program can set it back; reading a file of a hundred
// megabytes on every start would cost more than building from the cache may.
type seal struct {
	SHA256        string
	Size          int64
	Inode         uint64
	ModifiedNanos int64
	ChangedNanos  int64
}

// sealFile digests a file and notes its state.
func sealFile(name string) (seal, error) {
	before, err := sealOf(name)
	if err != nil {
		return seal{}, err
	}
	before.SHA256, err = digestFile(name)
	return before, err
}

// sealOf is the seal of a file without its digest.
func sealOf(name string) (seal, error) {
	info, err := os.Lstat(name)
	if err != nil {
		return seal{}, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.Mode().IsRegular() {
		return seal{}, fmt.Errorf("%s is not a regular file", name)
	}
	return seal{Size: info.Size(), Inode: st.Ino, ModifiedNanos: st.Mtim.Nano(), ChangedNanos: st.Ctim.Nano()}, nil
}

// checkSeals reports files of a folder that are not what they were. One that
// was only copied or linked since is read and compared.
func checkSeals(dir string, seals map[string]seal) error {
	if len(seals) == 0 {
		return fmt.Errorf("images: %s names no files", dir)
	}
	for name, want := range seals {
		path := filepath.Join(dir, name)
		have, err := sealOf(path)
		if err != nil {
			return err
		}
		if have.SHA256 = want.SHA256; have == want {
			continue
		}
		if have.Size != want.Size {
			return fmt.Errorf("images: %s has %d bytes, not %d", path, have.Size, want.Size)
		}
		if digest, err := digestFile(path); err != nil || digest != want.SHA256 {
			return cmpErr(err, fmt.Errorf("images: %s is damaged: its digest is %s, not %s", path, digest, want.SHA256))
		}
	}
	return nil
}

// lease is something of the cache, and the open folder whose shared lock keeps
// it from being pruned. The lock ends when the file is closed, which the
// garbage collector does when nobody holds the value any more, and with the
// process at the latest.
type lease[T any] struct {
	value *T
	file  *os.File
}

// leaseDir takes the shared lock of a folder in the cache.
func leaseDir(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	// It waits no longer than somebody takes to remove the folder, or to
	// finish it: the exclusive lock is held for nothing else.
	for err = syscall.EINTR; errors.Is(err, syscall.EINTR); {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_SH)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("images: cannot lock %s: %w", dir, err), f.Close())
	}
	if !still(f, dir) {
		return nil, errors.Join(fmt.Errorf("images: %s was removed", dir), f.Close())
	}
	return f, nil
}

// used marks something in the cache as used now.
func used(description string) error {
	now := time.Now()
	err := os.Chtimes(description, now, now)
	if errors.Is(err, os.ErrPermission) || errors.Is(err, syscall.EROFS) {
		return nil // a cache that is shared read-only is not pruned by us
	}
	return err
}

// onceIn returns what has a key in the cache, or makes it: complete in a locked
// folder of its own, then renamed. Makers of the same thing wait for one
// another, also those of other processes; what a killed one left is removed.
func onceIn[T any](ctx context.Context, b *Builder, key string, load func(dir string) (*lease[T], error), make func(ctx context.Context, dir string) error) (*lease[T], error) {
	if err := os.MkdirAll(b.Dir, 0o755); err != nil {
		return nil, err
	}
	final := filepath.Join(b.Dir, key)
	if v, err := load(final); err == nil {
		return v, nil
	}
	if err := b.sweep(); err != nil {
		return nil, err
	}
	work, lock, err := b.workDir(ctx, key)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	if v, err := load(final); err == nil { // made while we waited
		return v, os.RemoveAll(work)
	}
	if err := errors.Join(make(ctx, work), ctx.Err()); err != nil {
		return nil, errors.Join(err, os.RemoveAll(work))
	}
	// Whatever has the name is damaged, or it would have been loaded above.
	if err := os.RemoveAll(final); err != nil {
		return nil, errors.Join(err, os.RemoveAll(work))
	}
	if err := os.Rename(work, final); err != nil {
		return nil, errors.Join(err, os.RemoveAll(work))
	}
	// The lock went with the folder and would bar the lease.
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_SH); err != nil {
		return nil, err
	}
	v, err := load(final)
	if err != nil {
		return nil, err
	}
	limit := b.Limit
	if limit == 0 {
		limit = defaultLimit
	}
	_, err = b.Prune(limit)
	return v, err
}

// defaultLimit is what the cache of images may hold if nobody says otherwise:
// some sixty images of the size of the one that ships.
const defaultLimit = 8 << 30

// Prune removes images, unpacked kernels and media from the cache, those used longest ago first,
// until it holds no more than limit bytes, and returns how many it freed. What
// anybody uses is left, whatever it takes. Every build does this with
// Builder.Limit.
func (b *Builder) Prune(limit int64) (freed int64, err error) {
	type item struct {
		dir  string
		size int64
		last time.Time
	}
	var items []item
	var total int64
	entries, err := os.ReadDir(b.Dir)
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		dir := filepath.Join(b.Dir, e.Name())
		size, last, err := weigh(dir)
		if err != nil {
			return 0, err
		}
		total += size
		if !last.IsZero() {
			items = append(items, item{dir, size, last})
		}
	}
	slices.SortFunc(items, func(a, b item) int { return a.last.Compare(b.last) })
	for _, it := range items {
		if total-freed <= limit {
			break
		}
		removed, err := removeUnused(it.dir)
		if err != nil {
			return freed, err
		}
		if removed {
			freed += it.size
			b.say("%s: removed from the cache, used last on %s", filepath.Base(it.dir)[:12], it.last.Format(time.DateTime))
		}
	}
	return freed, nil
}

// weigh is the size of a folder in the cache and when it was used last; the
// zero time for one that is not finished.
func weigh(dir string) (size int64, last time.Time, err error) {
	err = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, os.ErrNotExist) {
				return nil // removed by another process
			}
			return err
		}
		info, err := d.Info()
		if err != nil || !info.Mode().IsRegular() {
			return nil
		}
		size += info.Size()
		if base := filepath.Base(path); base == imageFile || base == mediaFileName || base == vmlinuxDescription {
			last = info.ModTime()
		}
		return nil
	})
	if len(filepath.Base(dir)) != 64 { // not the hexadecimal key of something finished
		last = time.Time{}
	}
	return size, last, err
}

// removeUnused removes a folder unless somebody has a lease of it.
func removeUnused(dir string) (bool, error) {
	lock := tryLockDir(dir)
	if lock == nil {
		return false, nil
	}
	var err error
	gone := still(lock, dir)
	if gone {
		err = os.RemoveAll(dir)
	}
	return gone, errors.Join(err, lock.Close())
}

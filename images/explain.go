package images

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// explain adds the remedy to an error of the host's file system. The error
// itself names the place, which may be another one than the folder that is
// worked in: the store, the folder for temporary files, a file that is read.
func explain(err error, dir string) error {
	path := ""
	var file *fs.PathError
	var link *os.LinkError
	switch {
	case errors.As(err, &file):
		path = file.Path
	case errors.As(err, &link):
		path = link.New
	}
	if filepath.IsAbs(path) {
		dir = filepath.Dir(path)
	}
	another := "choose another folder"
	if dir == filepath.Clean(os.TempDir()) {
		another = "let TMPDIR name another folder"
	}
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%w: no room in %s%s: free some, or %s; nothing was left behind", err, dir, room(dir), another)
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%w: %s is mounted read-only: mount it to be written, or %s", err, dir, another)
	case errors.Is(err, os.ErrPermission):
		if _, missing := os.Lstat(path); file != nil && file.Op == "open" && missing == nil {
			return fmt.Errorf("%w: the user %d may not use it: change its owner or mode", err, os.Getuid())
		}
		return fmt.Errorf("%w: the user %d may not write in %s: change its owner or mode, or %s", err, os.Getuid(), dir, another)
	}
	return err
}

// room says how much is left where a folder is; empty if that is not to be had.
// A file system may also have no room for a name, with bytes left.
func room(dir string) string {
	var fs syscall.Statfs_t
	switch err := syscall.Statfs(dir, &fs); {
	case err != nil:
		return ""
	case fs.Files > 0 && fs.Ffree == 0:
		return fmt.Sprintf(" for another file (it holds %d, and that is all)", fs.Files)
	}
	return fmt.Sprintf(" (%d MiB are left of %d)", fs.Bavail*uint64(fs.Bsize)/mib, fs.Blocks*uint64(fs.Bsize)/mib)
}

package images

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"github.com/u-root/u-root/pkg/cpio"
)

// Every entry has this time, upstream's: 2017-04-18 16:30:00 UTC.
const mtime = 1492533000

// writeInitramfs writes the tree as a cpio archive in the newc format
// (Documentation/driver-api/early-userspace/buffer-format.rst), sorted, so
// that parents come first: the kernel makes no missing ones, and drops what is
// below them without a word. It is not compressed: unpacking costs an emulated
// machine seconds, reading it costs the host nothing.
//
// A root that is not root's with mode 0755 has an entry too, by the name ".":
// the kernel applies owner and mode to the directory that it unpacks into.
//
// The data of hard links is with the first of their names; the kernel leaves
// it alone when it meets the others, which have none (init/initramfs.c).
func writeInitramfs(w io.Writer, t *tree) error {
	names := map[*inode]uint64{}
	if err := t.walk(func(name string, e *entry) error {
		names[e.inode]++
		if name == cpio.Trailer {
			return fmt.Errorf("a file /%s would end the archive for the kernel: leave it out", name)
		}
		return nil
	}); err != nil {
		return err
	}
	out := bufio.NewWriterSize(w, 1<<20)
	archive := cpio.Newc.Writer(out)
	numbers := map[*inode]uint64{}
	if !t.root.usualRoot() {
		numbers[t.root.inode] = 1
		if err := archive.WriteRecord(record(".", t.root.inode, 1, 1, false)); err != nil {
			return err
		}
	}
	if err := t.walk(func(name string, e *entry) error {
		_, again := numbers[e.inode]
		if !again {
			numbers[e.inode] = uint64(len(numbers) + 1)
		}
		return archive.WriteRecord(record(name, e.inode, numbers[e.inode], names[e.inode], again))
	}); err != nil {
		return err
	}
	if err := cpio.WriteTrailer(archive); err != nil {
		return err
	}
	return out.Flush()
}

// usualRoot reports whether a root has the owner and mode that a tree begins with.
func (n *inode) usualRoot() bool { return n.mode == typeDir|0o755 && n.uid == 0 && n.gid == 0 }

// record is the archive's entry for a name of an inode.
func record(name string, n *inode, number, names uint64, again bool) cpio.Record {
	r := cpio.Record{Info: cpio.Info{
		Name: name, Ino: number, Mode: uint64(n.mode), UID: uint64(n.uid), GID: uint64(n.gid),
		NLink: names, MTime: mtime, Rmajor: uint64(n.major), Rminor: uint64(n.minor),
	}}
	switch {
	case n.is(typeSymlink):
		r.ReaderAt, r.FileSize = strings.NewReader(n.target), uint64(len(n.target))
	case n.is(typeFile) && !again:
		r.ReaderAt, r.FileSize = n.data, uint64(n.size)
	}
	return r
}

// ReadFile returns a file of the image's initramfs, with symbolic links
// followed, and its mode. The error wraps [fs.ErrNotExist] if there is none.
func (im *Image) ReadFile(name string) ([]byte, fs.FileMode, error) {
	t, f, err := im.root()
	if err != nil {
		return nil, 0, fmt.Errorf("images: cannot read the image %s: %w", im.Name, err)
	}
	defer f.Close()
	e := t.resolve(name)
	if e == nil {
		return nil, 0, &fs.PathError{Op: "read", Path: name, Err: fs.ErrNotExist}
	}
	if !e.is(typeFile) {
		return nil, 0, &fs.PathError{Op: "read", Path: name, Err: errors.New("is not a regular file")}
	}
	data := make([]byte, e.size)
	if _, err := e.data.ReadAt(data, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, 0, fmt.Errorf("images: the initramfs %s is damaged: %w", im.InitrdPath, err)
	}
	return data, goMode(e.mode), nil
}

// goMode is a kernel's mode in Go's terms: its permissions and set-id bits.
func goMode(m uint32) fs.FileMode {
	mode := fs.FileMode(m & 0o777)
	for bit, flag := range map[uint32]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if m&bit != 0 {
			mode |= flag
		}
	}
	return mode
}

// readInitramfs reads what writeInitramfs wrote; contents stay in the file.
// An entry whose parent did not come first is an error: the kernel would lose it.
func readInitramfs(f io.ReaderAt) (*tree, error) {
	t, known := newTree(), map[uint64]*inode{}
	return t, cpio.ForEachRecord(cpio.Newc.Reader(f), func(r cpio.Record) error {
		n := &inode{mode: uint32(r.Mode), uid: uint32(r.UID), gid: uint32(r.GID), major: uint32(r.Rmajor), minor: uint32(r.Rminor)}
		if first := known[r.Ino]; first != nil && r.NLink > 1 && !n.is(typeDir) {
			n = first
		}
		switch {
		case n == known[r.Ino]:
		case n.is(typeDir):
			n.children = map[string]*entry{}
		case n.is(typeSymlink):
			target, err := io.ReadAll(io.NewSectionReader(r, 0, int64(r.FileSize)))
			if err != nil {
				return err
			}
			n.target = string(target)
		default:
			n.data, n.size = r.ReaderAt, int64(r.FileSize)
		}
		known[r.Ino] = n
		if dir := t.find(path.Dir(r.Name)); dir == nil {
			return fmt.Errorf("%s comes before its parent", r.Name)
		}
		if r.Name == "." {
			return t.put("", n)
		}
		return t.put(r.Name, n)
	})
}

package images

import (
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
)

// File types and bits as the kernel has them (include/uapi/linux/stat.h); a
// cpio header holds the same.
const (
	typeMask    = 0o170000
	typeFIFO    = 0o010000
	typeChar    = 0o020000
	typeDir     = 0o040000
	typeBlock   = 0o060000
	typeFile    = 0o100000
	typeSymlink = 0o120000
	permMask    = 0o7777
)

// Limits of the kernel (include/uapi/linux/limits.h): an initramfs entry that
// breaks one is skipped at boot without a word, so the build refuses it.
const (
	maxPath      = 4096 - 1
	maxComponent = 255
	maxLinks     = 40 // symbolic links followed in one path
)

// inode is a file of whatever type. Names that are hard links share one.
type inode struct {
	mode         uint32 // type and permission bits
	uid, gid     uint32
	major, minor uint32 // of a device
	target       string // of a symbolic link
	xattrs       attributes
	data         io.ReaderAt
	size         int64
	children     map[string]*entry // of a directory
	implied      bool              // a directory nobody described: something lies below it
}

// entry is a name in a directory.
type entry struct {
	*inode
	layer int // the layer that put it there, for whiteouts
}

func (n *inode) is(kind uint32) bool { return n.mode&typeMask == kind }

func newDir(perm uint32) *inode {
	return &inode{mode: typeDir | perm, children: map[string]*entry{}}
}

// bare is a copy of a directory without its children.
func (n *inode) bare() *inode {
	return &inode{mode: n.mode, uid: n.uid, gid: n.gid, xattrs: n.xattrs, implied: n.implied, children: map[string]*entry{}}
}

func newSymlink(target string) *inode {
	return &inode{mode: typeSymlink | 0o777, target: target}
}

func newFile(perm uint32, contents string) *inode {
	return &inode{mode: typeFile | perm, data: strings.NewReader(contents), size: int64(len(contents))}
}

// tree is a file system in memory. All its names are its own: a path is
// resolved in the tree, where ".." of the root is the root and an absolute
// symbolic link starts at the tree's root. It never touches the host's files.
type tree struct {
	root    *entry
	layer   int
	implied int // directories that were made because something lies below them
	steps   int // taken along paths, see step
}

// maxSteps is how many parts of paths may be looked at in all, which takes up to
// half a minute. The paths of a large system, a million with ten parts, take a
// quarter of it; but one path may have 2000 parts, lead through 40 links with as
// many each, and be met a million times.
const maxSteps = 1 << 27

// step counts n parts of paths, and fails when there were too many.
func (t *tree) step(n int) error {
	if t.steps += n; t.steps > maxSteps {
		return fmt.Errorf("its paths, links and whiteouts lead too far: following them takes more than %d steps", maxSteps)
	}
	return nil
}

// tired is an error if too many steps were taken: what was not found since then
// may be there.
func (t *tree) tired() error { return t.step(0) }

func newTree() *tree { return &tree{root: &entry{inode: newDir(0o755)}} }

// cleanName turns a name from a layer or a spec into a path below the root,
// without a leading slash; the root is "". A name that climbs out is an error.
func cleanName(name string) (string, error) {
	if strings.ContainsRune(name, 0) {
		return "", fmt.Errorf("%q holds a NUL", name)
	}
	depth := 0
	for part := range strings.SplitSeq(name, "/") {
		switch part {
		case "", ".":
			continue
		case "..":
			depth--
		default:
			depth++
		}
		if depth < 0 {
			return "", fmt.Errorf("%q climbs out of the root", name)
		}
		if len(part) > maxComponent {
			return "", fmt.Errorf("%.40q... has a part of %d bytes; the kernel takes %d", name, len(part), maxComponent)
		}
	}
	if name = strings.TrimPrefix(path.Clean("/"+name), "/"); len(name) > maxPath {
		return "", fmt.Errorf("%.40q... has %d bytes; the kernel takes %d", name, len(name), maxPath)
	}
	return name, nil
}

// dir returns the directory at a clean path, with symbolic links followed.
// Missing directories are made with mode 0755, and so is one in the place of
// anything else.
func (t *tree) dir(name string) (*entry, error) {
	at := []*entry{t.root} // the way from the root, for ".."
	todo := strings.Split(name, "/")
	for links := 0; len(todo) > 0; {
		if err := t.step(1); err != nil {
			return nil, err
		}
		part := todo[0]
		todo = todo[1:]
		here := at[len(at)-1]
		switch part {
		case "", ".":
			continue
		case "..":
			at = at[:max(len(at)-1, 1)]
			continue
		}
		next := here.children[part]
		if next != nil && next.is(typeSymlink) {
			if links++; links > maxLinks {
				return nil, fmt.Errorf("%q leads through more than %d symbolic links", name, maxLinks)
			}
			if path.IsAbs(next.target) {
				at = at[:1]
			}
			if todo = append(strings.Split(next.target, "/"), todo...); t.step(len(todo)) != nil { // a copy
				return nil, t.tired()
			}
			continue
		}
		if next == nil || !next.is(typeDir) {
			if t.implied++; t.implied > maxEntries {
				return nil, fmt.Errorf("%.40q... lies in more than %d folders that nothing describes", name, maxEntries)
			}
			next = &entry{inode: newDir(0o755), layer: t.layer}
			next.implied = true
			here.children[part] = next
		}
		if at = append(at, next); len(at) > maxPath/2 {
			return nil, fmt.Errorf("%.40q... is nested too deeply", name)
		}
	}
	return at[len(at)-1], nil
}

// put places an inode at a clean path and replaces what is there. A directory
// over a directory keeps the children and takes the new owner and mode.
func (t *tree) put(name string, n *inode) error {
	if name == "" {
		if !n.is(typeDir) {
			return fmt.Errorf("the root can only be a directory")
		}
		t.root.mode, t.root.uid, t.root.gid, t.root.xattrs = n.mode, n.uid, n.gid, n.xattrs
		return nil
	}
	parent, base := path.Split(name)
	d, err := t.dir(parent)
	if err != nil {
		return err
	}
	if have := d.children[base]; have != nil && have.is(typeDir) && n.is(typeDir) {
		if !n.implied {
			have.mode, have.uid, have.gid, have.xattrs, have.implied = n.mode, n.uid, n.gid, n.xattrs, false
		}
		have.layer = t.layer
		maps.Copy(have.children, n.children)
		return nil
	}
	d.children[base] = &entry{inode: n, layer: t.layer}
	return nil
}

// find returns what is at a path; a symbolic link at its end is returned
// itself, links before it are followed. Nil if there is nothing, or if it was
// given up, see [tree.tired].
func (t *tree) find(name string) *entry {
	here, links := t.root, 0
	at := []*entry{here}
	todo := strings.Split(name, "/")
	for len(todo) > 0 && t.step(1) == nil {
		part := todo[0]
		todo = todo[1:]
		switch {
		case part == "" || part == ".":
			continue
		case part == "..":
			at = at[:max(len(at)-1, 1)]
			continue
		}
		next := at[len(at)-1].children[part]
		last := !slices.ContainsFunc(todo, func(s string) bool { return s != "" && s != "." })
		if next == nil || last {
			return next
		}
		if next.is(typeSymlink) {
			if links++; links > maxLinks {
				return nil
			}
			if path.IsAbs(next.target) {
				at = at[:1]
			}
			if todo = append(strings.Split(next.target, "/"), todo...); t.step(len(todo)) != nil {
				return nil
			}
			continue
		}
		at = append(at, next)
	}
	if t.tired() != nil {
		return nil
	}
	return at[len(at)-1]
}

// resolve is find with a symbolic link at the end followed too.
func (t *tree) resolve(name string) *entry {
	for range maxLinks {
		e := t.find(name)
		if e == nil || !e.is(typeSymlink) {
			return e
		}
		if path.IsAbs(e.target) {
			name = e.target
		} else {
			name = path.Join(path.Dir("/"+name), e.target)
		}
	}
	return nil
}

// inTheWay is what a clean path leads through that is there and no directory;
// empty if there is nothing of the kind.
func (t *tree) inTheWay(name string) string {
	here, end := t.root, 0
	for part := range strings.SplitSeq(name, "/") {
		end += len(part)
		e := here.children[part]
		if e != nil && e.is(typeSymlink) {
			e = t.resolve(name[:end])
		}
		switch {
		case e == nil:
			return ""
		case !e.is(typeDir):
			return name[:end]
		}
		here, end = e, end+len("/")
	}
	return ""
}

// remove takes away what a whiteout in the present layer hides: everything
// below the entry that lower layers put there.
func (t *tree) remove(parent *entry, name string) {
	e := parent.children[name]
	if e == nil {
		return
	}
	if e.is(typeDir) {
		t.clear(e)
	}
	if e.layer < t.layer && len(e.children) == 0 {
		delete(parent.children, name)
	}
}

// childSteps is what a child that is looked at costs, in parts of paths: its
// folder may be large, and is in no processor's cache then.
const childSteps = 8

// clear removes the children that lower layers put into a directory.
func (t *tree) clear(dir *entry) {
	for name := range dir.children {
		if t.step(childSteps) != nil {
			return // whoever asked for it asks tired
		}
		t.remove(dir, name)
	}
}

// over lays another tree over this one: names of it win, directories merge.
// A directory that meets a symbolic link to a directory goes where that leads,
// so that images with and without a merged /usr fit together.
func (t *tree) over(upper *tree) error { return t.overlay("", upper.root) }

func (t *tree) overlay(at string, upper *entry) error {
	for _, name := range slices.Sorted(maps.Keys(upper.children)) {
		child, to := upper.children[name], path.Join(at, name)
		if !child.is(typeDir) {
			if err := t.put(to, child.inode); err != nil {
				return err
			}
			continue
		}
		have := t.resolve(to)
		if err := t.tired(); err != nil {
			return err
		}
		if have == nil || !have.is(typeDir) || !t.find(to).is(typeSymlink) {
			if err := t.put(to, child.bare()); err != nil {
				return err
			}
		}
		if err := t.overlay(to, child); err != nil {
			return err
		}
	}
	return nil
}

// walk calls f for every entry but the root, parents first, in the order of
// names: the order does not depend on how the tree came to be.
func (t *tree) walk(f func(name string, e *entry) error) error {
	var down func(at string, dir *entry) error
	down = func(at string, dir *entry) error {
		for _, name := range slices.Sorted(maps.Keys(dir.children)) {
			e, to := dir.children[name], path.Join(at, name)
			if err := f(to, e); err != nil {
				return err
			}
			if e.is(typeDir) {
				if err := down(to, e); err != nil {
					return err
				}
			}
		}
		return nil
	}
	return down("", t.root)
}

package images

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
)

const hosts = `127.0.0.1	localhost
::1	localhost ip6-localhost ip6-loopback
fe00::0	ip6-localnet
ff00::0	ip6-mcastprefix
ff02::1	ip6-allnodes
ff02::2	ip6-allrouters
`

// settle makes a root of what an image brought: it takes away what belongs to
// the machine that built the image and adds what every root needs.
// The resolver's file is the machine's own, written while it runs; a container
// that wants it binds it.
func settle(t *tree, resolv *inode) error {
	for _, gone := range []string{".dockerenv", "Dockerfile", "dev/console", "dev/pts", "dev/shm", "etc/hostname"} {
		dir, base := path.Split(gone)
		if d := t.resolve(dir); d != nil && d.is(typeDir) {
			delete(d.children, base)
		}
	}
	for _, dir := range []string{"dev", "dev/pts", "dev/shm", "etc", "proc", "sys"} {
		if err := t.need(dir, newDir(0o755)); err != nil {
			return err
		}
	}
	if err := t.need("etc/mtab", newSymlink("/proc/mounts")); err != nil {
		return err
	}
	return errors.Join(t.put("etc/hosts", newFile(0o644, hosts)), t.put("etc/resolv.conf", resolv))
}

// need puts an inode where there is nothing yet.
func (t *tree) need(name string, n *inode) error {
	if t.find(name) != nil {
		return nil
	}
	return t.put(name, n)
}

// settleContainer is settle for a container's root.
func settleContainer(t *tree) error {
	return settle(t, newFile(0o644, "# no resolver configured\n"))
}

// settleMachine is settle for the machine's root. The kernel opens
// /dev/console for PID 1 before anything is mounted: without the node in the
// initramfs init's first words are lost.
func settleMachine(t *tree) error {
	if err := settle(t, newSymlink("/run/resolvconf/resolv.conf")); err != nil {
		return err
	}
	for name, perm := range map[string]uint32{"run": 0o755, "tmp": 0o1777, "var": 0o755, "root": 0o700} {
		if err := t.need(name, newDir(perm)); err != nil {
			return err
		}
	}
	if err := t.put("dev/console", &inode{mode: typeChar | 0o600, major: 5, minor: 1}); err != nil {
		return err
	}
	return t.put("dev/null", &inode{mode: typeChar | 0o666, major: 1, minor: 3})
}

// obstacle tells what a file would take away or cannot lie in, and what to do
// about that: with upstream the kernel skips one of the two without a word. A
// symbolic link may take the place of an empty directory.
func (f File) obstacle(root *tree) (text, hint string) {
	name, err := cleanName(f.Path)
	if err != nil || name == "" {
		return "", "" // told when the spec was read
	}
	if file := root.inTheWay(path.Dir(name)); file != "" {
		return fmt.Sprintf("/%s cannot lie below /%s, which is no directory", name, file), "choose another path, or remove the other one"
	}
	have, leads := root.find(name), root.resolve(name)
	switch {
	case have == nil:
	case f.Directory && have.is(typeSymlink) && leads != nil && leads.is(typeDir) && len(leads.children) > 0:
		return fmt.Sprintf("/%s is a symbolic link to %s already, and a directory would take away the way to what is in there", name, have.target), "remove it, or name what the link leads to"
	case f.Directory && !have.is(typeDir) && !have.is(typeSymlink):
		return fmt.Sprintf("/%s is no directory in the images or earlier files", name), "choose another path"
	case !f.Directory && have.is(typeDir) && (f.Symlink == "" || len(have.children) > 0):
		return fmt.Sprintf("/%s is a directory (entries in it: %d), which this would take away", name, len(have.children)), "name a file in it, or choose another path"
	}
	return "", ""
}

// place puts an item of files into the machine's root. The source was seen
// with a digest when the build began; another one now is an error.
func (f File) place(root *tree, s *spool, digest string, ids map[string]uint32) error {
	name, err := cleanName(f.Path)
	if err != nil {
		return err
	}
	usual := uint32(0o600)
	if f.Directory {
		usual = 0o700
	}
	mode, err := parseMode(f.Mode, usual)
	if err != nil {
		return err
	}
	var n *inode
	switch {
	case f.Directory:
		n = newDir(mode)
	case f.Symlink != "":
		n = newSymlink(f.Symlink)
	case f.Source != "":
		if digest == "" {
			return nil // optional, and not there
		}
		if n, err = fromHost(f.Source, mode, s, digest); err != nil {
			return err
		}
	default:
		n = newFile(mode, str(f.Contents))
	}
	if n.uid, err = f.UID.number(ids); err != nil {
		return err
	}
	if n.gid, err = f.GID.number(ids); err != nil {
		return err
	}
	return root.put(name, n)
}

// fromHost takes a file of the host into the spool.
func fromHost(source string, mode uint32, s *spool, digest string) (_ *inode, err error) {
	f, err := os.Open(source)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() > maxFile {
		return nil, advisedf("make it smaller, or keep it on a disk", "%s has %d bytes; an initramfs holds files of %d at most", source, info.Size(), maxFile)
	}
	n := &inode{mode: typeFile | mode, size: info.Size()}
	if n.data, err = s.add(f, n.size); err != nil {
		return nil, err
	}
	now, err := digestOf(io.NewSectionReader(n.data, 0, n.size))
	if err == nil && now != digest {
		err = advisedf("build again", "%s changed while the image was built", source)
	}
	return n, err
}

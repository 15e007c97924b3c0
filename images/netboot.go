package images

import (
	"archive/tar"
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// netboot is a folder for a TFTP server: kernel, initramfs and what loads them.
// On amd64 that is iPXE, which is in the network card that QEMU emulates; on
// arm64 nothing is, so the firmware loads GRUB first.
func (m *mastering) netboot() error {
	const dir = "tftp"
	if err := os.Mkdir(m.path(dir), 0o755); err != nil {
		return err
	}
	if m.image.Arch == "arm64" {
		return m.netbootGRUB(dir)
	}
	if err := ipxeTakes(m.cmdline); err != nil {
		return err
	}
	// The kernel finds the initramfs by this name where the firmware is UEFI.
	script := fmt.Sprintf("#!ipxe\nkernel kernel initrd=initrd.img %s\ninitrd initrd.img\nboot\n", m.cmdline)
	if err := errors.Join(m.text(dir+"/boot.ipxe", script), m.copyFile(m.image.KernelPath, dir+"/kernel"), m.packedInitrd(dir+"/initrd.img")); err != nil {
		return err
	}
	m.media.TFTP, m.media.Bootfile = dir, "boot.ipxe"
	for _, name := range []string{"boot.ipxe", "kernel", "initrd.img"} {
		m.add(dir+"/"+name, "-netboot/"+name)
	}
	return nil
}

// ipxeTakes refuses words that iPXE would not hand on as they are. It knows
// neither quotes nor escapes: it splits at white space, looks for its own signs
// among the words, and expands settings until none is left, also in what an
// expansion gave (iPXE, core/exec.c, core/settings.c and image/script.c).
func ipxeTakes(words Cmdline) error {
	for i, w := range words {
		does := ""
		switch {
		case strings.Contains(w, "${"):
			does = "take the ${...} in it for a setting of its own"
		case strings.HasPrefix(w, "#"):
			does = "take it and what follows for a comment"
		case w == "&&", w == "||", w == ";":
			does = "take it for the end of the command"
		case i == len(words)-1 && strings.HasSuffix(w, `\`):
			does = "join the next line to it"
		case strings.Join(strings.Fields(w), " ") != w:
			does = "make single blanks of its white space"
		default:
			continue
		}
		return fmt.Errorf("iPXE would %s, and the kernel would not get the word %s: leave that word out, or boot from another medium", does, w)
	}
	return nil
}

// netbootGRUB is netboot for UEFI. Debian's grubnet looks for its configuration
// in grub/, on the server that it came from.
func (m *mastering) netbootGRUB(dir string) error {
	var words []string
	for _, w := range m.cmdline {
		if strings.ContainsAny(w, "\"'\\") {
			return fmt.Errorf("GRUB would hand %s to the kernel with its quotes escaped: leave that word out, or boot from another medium", w)
		}
		words = append(words, "'"+w+"'") // against GRUB's own $, ; and {
	}
	config := fmt.Sprintf("linux /kernel %s\ninitrd /initrd.img\nboot\n", strings.Join(words, " "))
	if err := errors.Join(os.Mkdir(m.path(dir+"/grub"), 0o755), m.text(dir+"/grub/grub.cfg", config), m.bootLoader(NetLoader, dir+"/boot.efi"),
		m.copyFile(m.image.KernelPath, dir+"/kernel"), m.packedInitrd(dir+"/initrd.img")); err != nil {
		return err
	}
	m.media.TFTP, m.media.Bootfile, m.media.UEFI = dir, "boot.efi", true
	for _, name := range []string{"boot.efi", "grub/grub.cfg", "kernel", "initrd.img"} {
		m.add(dir+"/"+name, "-netboot/"+name)
	}
	return nil
}

// tar is the root as an archive, with kernel, command line and microcode in
// boot/ as upstream has them.
func (m *mastering) tar() (err error) {
	root, file, err := m.image.root()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	kernel, err := os.Open(m.image.KernelPath)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, kernel.Close()) }()
	info, err := kernel.Stat()
	if err != nil {
		return err
	}
	if err := errors.Join(
		root.put("boot/kernel", &inode{mode: typeFile | 0o644, data: kernel, size: info.Size()}),
		root.put("boot/cmdline", newFile(0o644, m.cmdline.String())),
	); err != nil {
		return err
	}
	if n := m.image.UcodeSize; n > 0 {
		if err := root.put("boot/ucode.cpio", &inode{mode: typeFile | 0o644, data: io.NewSectionReader(file, 0, n), size: n}); err != nil {
			return err
		}
	}
	m.add("root.tar", ".tar")
	_, err = create(m.ctx, m.path("root.tar"), func(w io.Writer) error { return writeTar(w, root) })
	return err
}

// writeTar writes a tree as a tar archive, sorted. Hard links are links to the
// first of their names.
func writeTar(w io.Writer, t *tree) error {
	out := bufio.NewWriterSize(w, 1<<20)
	archive := tar.NewWriter(out)
	first := map[*inode]string{}
	root, err := tarHeader(".", t.root.inode)
	if err != nil {
		return err
	}
	if err := archive.WriteHeader(root); err != nil {
		return fmt.Errorf("the root: %w", err)
	}
	if err := t.walk(func(name string, e *entry) error {
		h, err := tarHeader(name, e.inode)
		if err != nil {
			return err
		}
		if to, again := first[e.inode]; again && !e.is(typeDir) {
			h.Typeflag, h.Linkname, h.Size, h.PAXRecords = tar.TypeLink, to, 0, nil
		}
		first[e.inode] = name
		if err := archive.WriteHeader(h); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if h.Size > 0 {
			_, err = io.Copy(archive, io.NewSectionReader(e.data, 0, e.size))
		}
		return err
	}); err != nil {
		return err
	}
	return errors.Join(archive.Close(), out.Flush())
}

func tarHeader(name string, n *inode) (*tar.Header, error) {
	h := &tar.Header{
		Name: name, Mode: int64(n.mode & permMask), Uid: int(n.uid), Gid: int(n.gid),
		ModTime: time.Unix(mtime, 0), Devmajor: int64(n.major), Devminor: int64(n.minor), PAXRecords: n.xattrs.pax(),
	}
	switch n.mode & typeMask {
	case typeDir:
		h.Typeflag, h.Name = tar.TypeDir, name+"/"
	case typeSymlink:
		h.Typeflag, h.Linkname = tar.TypeSymlink, n.target
	case typeChar:
		h.Typeflag = tar.TypeChar
	case typeBlock:
		h.Typeflag = tar.TypeBlock
	case typeFIFO:
		h.Typeflag = tar.TypeFifo
	case typeFile:
		h.Typeflag, h.Size = tar.TypeReg, n.size
	default:
		return nil, fmt.Errorf("%s has the unknown mode %o", name, n.mode)
	}
	return h, nil
}

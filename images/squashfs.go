package images

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"strings"
	"syscall"
)

// squashfs is the root as a read-only disk. Kernels of distributions have the
// driver of disk and file system as modules, so a small initramfs goes before
// it: the modules and the init that loads them and goes on at root=.
func (m *mastering) squashfs() (err error) {
	root, file, err := m.image.root()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	const disk, stub = "root.squashfs", "stub.img"
	if err := m.sqfstar(root, disk); err != nil {
		return err
	}
	small, err := loaderRoot(root)
	if err != nil {
		return err
	}
	if _, err := create(m.ctx, m.path(stub), func(w io.Writer) error {
		if _, err := io.Copy(w, io.NewSectionReader(file, 0, m.image.UcodeSize)); err != nil {
			return err
		}
		return writeInitramfs(w, small)
	}); err != nil {
		return err
	}
	if err := m.copyFile(m.image.KernelPath, "kernel"); err != nil {
		return err
	}
	m.media.Kernel, m.media.Initrd, m.media.Disk, m.media.DiskFormat = "kernel", stub, disk, "raw"
	m.media.Words = []string{"root=/dev/vda", "rootfstype=squashfs", "ro"}
	m.media.Cmdline = m.cmdline.With(m.media.Words...).String()
	m.add("kernel", "-kernel")
	m.add(stub, "-squashfs-initrd.img")
	m.add(disk, "-squashfs.img")
	return nil
}

// sqfstar packs a tree that it reads as a tar archive, so that owners and
// devices need no root. The root's own owner and mode are told apart from the
// archive, which the tool does not ask for them: it would take the user's id and
// 0777. It is not compressed: unpacking would cost an emulated
// machine more than reading costs the host.
func (m *mastering) sqfstar(root *tree, name string) error {
	top := root.root
	cmd := m.command("sqfstar", "-noI", "-noD", "-noF", "-noX", "-b", "128K", "-mem", "256M", "-reproducible", "-quiet", "-no-progress",
		"-root-uid", fmt.Sprint(top.uid), "-root-gid", fmt.Sprint(top.gid), "-root-mode", fmt.Sprintf("%o", top.mode&permMask), name)
	if m.owner == "" && !isUs(top) {
		actAs(cmd, top.uid, top.gid)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	return finish(m.ctx, cmd, func() error {
		if err := cmd.Start(); err != nil {
			return err
		}
		// A tool that dies early closes its end: its own words tell why.
		wrote := errors.Join(writeTar(in, root), in.Close())
		if err := cmd.Wait(); err != nil {
			return err
		}
		return wrote
	})
}

// squashOwner is who the root of an image's squashfs would belong to: the user
// that builds, where the host forbids the namespace that [actAs] needs; empty:
// whom the image says. It is found out before the squashfs is made or looked for,
// because these are other bytes, which nobody may get who can have the right ones.
func (b *Builder) squashOwner(im *Image) (owner string, err error) {
	forbidden := tryNamespace()
	if forbidden == nil {
		return "", nil
	}
	root, file, err := im.root()
	if err != nil {
		return "", err
	}
	if err := file.Close(); err != nil || isUs(root.root) {
		return "", err
	}
	b.say("%s: the root of the squashfs may be owned by your user: a user namespace cannot be made: %v", im.Name, forbidden)
	return fmt.Sprintf("%d:%d", os.Getuid(), os.Getgid()), nil
}

// tryNamespace makes a user namespace and lets it go again. What is started in it
// cannot be there, so nothing runs: that this is all that fails shows that the
// kernel would have run it.
func tryNamespace() error {
	cmd := exec.Command("/dev/null/nothing")
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	actAs(cmd, 0, 0)
	if err := cmd.Start(); !errors.Is(err, syscall.ENOTDIR) {
		return err
	}
	return nil
}

// isUs reports whether an entry is owned by who builds.
func isUs(e *entry) bool { return os.Getuid() == int(e.uid) && os.Getgid() == int(e.gid) }

// actAs lets a command see itself as another user, in a user namespace with
// nobody else: the sqfstar of squashfs-tools 4.5 ignores -root-uid and -root-gid
// when it reads an archive, and gives the root to whoever it runs as.
func actAs(cmd *exec.Cmd, uid, gid uint32) {
	cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
	cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: int(uid), HostID: os.Getuid(), Size: 1}}
	cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: int(gid), HostID: os.Getgid(), Size: 1}}
}

// loaderRoot is the root of the small initramfs: /init and the modules. All of
// them: what stands between a kernel and its root cannot be told from names.
func loaderRoot(root *tree) (*tree, error) {
	init := root.resolve("init")
	if init == nil || !init.is(typeFile) {
		return nil, fmt.Errorf("the image has no /init that could find the root: add seatrial/init to init")
	}
	small := newTree()
	if err := errors.Join(
		small.put("init", init.inode),
		small.put("dev/console", &inode{mode: typeChar | 0o600, major: 5, minor: 1}),
		small.put("dev/null", &inode{mode: typeChar | 0o666, major: 1, minor: 3}),
		small.put("proc", newDir(0o755)), small.put("sys", newDir(0o755)), small.put("mnt", newDir(0o755)),
	); err != nil {
		return nil, err
	}
	modules := root.resolve("lib/modules")
	if modules == nil || !modules.is(typeDir) {
		return small, nil // all is built in
	}
	return small, root.walk(func(name string, e *entry) error {
		rest, ok := strings.CutPrefix(strings.TrimPrefix(name, "usr/"), "lib/modules/")
		if !ok || !e.is(typeFile) {
			return nil
		}
		return small.put(path.Join("lib/modules", rest), e.inode)
	})
}

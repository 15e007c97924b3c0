package images

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// assembly is one build: from component images to the files of an image. What
// stands in its way is noted, and the rest is put together all the same, so that
// a build and a lint tell everything at once, and the same.
type assembly struct {
	b      *Builder
	spec   *Spec
	dir    string // locked, empty, ours; of a lint empty
	faults faults

	components map[string]*component // those that are at hand, see use.key
	sources    map[string]string     // file of the host -> digest

	spool  *spool
	ucode  *entry // nil: none
	root   *tree
	trees  map[string]*tree     // image digest -> its files, nil if they cannot be had
	labels map[string]*Settings // image digest -> what its label says, nil if that is wrong
	made   map[string]Settings  // path of a sound container in the spec -> its settings
	shared map[string]string    // image digest -> where the first bundle holds its files
}

func newAssembly(b *Builder, s *Spec) *assembly {
	return &assembly{
		b: b, spec: s, faults: faults{decoder: decoder{file: s.at[""].file, at: s.at}}, root: newTree(),
		components: map[string]*component{}, trees: map[string]*tree{}, labels: map[string]*Settings{}, made: map[string]Settings{}, shared: map[string]string{},
	}
}

// run writes the image into the folder.
func (a *assembly) run(ctx context.Context) error {
	start := time.Now()
	return a.spooled(func() error {
		kernel, err := a.assemble(ctx)
		if err = cmpErr(err, a.faults.err()); err != nil {
			return err
		}
		a.b.say("%s: writing the initramfs", a.spec.Name)
		if err := a.write(ctx, kernel); err != nil {
			return err
		}
		a.b.say("%s: built in %s", a.spec.Name, took(start))
		return nil
	})
}

// judge returns all that is wrong, after something was found to be.
func (a *assembly) judge(ctx context.Context) error {
	return a.spooled(func() error {
		_, err := a.assemble(ctx)
		return cmpErr(err, a.faults.err())
	})
}

// spooled calls f while there is a spool.
func (a *assembly) spooled(f func() error) (err error) {
	if a.spool, err = newSpool(a.dir); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.spool.file.Close()) }()
	return f()
}

// assemble puts the machine's root together and returns its kernel, nil if that
// is not sound.
func (a *assembly) assemble(ctx context.Context) (*entry, error) {
	kernel, err := a.kernel(ctx)
	if err != nil {
		return nil, err
	}
	for _, step := range []func(context.Context) error{a.init, a.volumes, a.bundles, a.files} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return kernel, nil
}

// runOver writes the image that is another one with the spec's files and
// command line. The contents of files are copied once, from initramfs to
// initramfs, and never unpacked.
func (a *assembly) runOver(ctx context.Context, base *Image) error {
	start := time.Now()
	root, initrd, err := base.root()
	if err != nil {
		return err
	}
	defer initrd.Close()
	a.root = root
	if n := base.UcodeSize; n > 0 {
		a.ucode = &entry{inode: &inode{mode: typeFile, data: initrd, size: n}}
	}
	kernel, err := os.Open(base.KernelPath)
	if err != nil {
		return err
	}
	defer kernel.Close()
	info, err := kernel.Stat()
	if err != nil {
		return err
	}
	return a.spooled(func() error {
		if err := cmpErr(a.files(ctx), a.faults.err()); err != nil {
			return err
		}
		if err := a.write(ctx, &entry{inode: &inode{mode: typeFile, data: kernel, size: info.Size()}}); err != nil {
			return err
		}
		a.b.say("%s: files and command line added in %s", a.spec.Name, took(start))
		return nil
	})
}

// flatten returns the files of the image that the value at a path names, nil if
// they are not to be had. The same image is read once, and its fault told once.
func (a *assembly) flatten(ctx context.Context, at, ref string) (*tree, error) {
	c := a.components[ref]
	if c == nil {
		return nil, nil
	}
	if t, done := a.trees[c.digest]; done {
		return t, nil
	}
	a.b.say("%s: unpacking %s", a.spec.Name, ref)
	f, err := flatten(ctx, c.image, a.spool)
	if err != nil {
		a.trees[c.digest] = nil
		return nil, a.faults.note(ctx, at, fmt.Errorf("image %s: %w", ref, err), "name another image, or make this one anew")
	}
	if f.left > 0 {
		a.b.say("%s: %d extended attributes of %s are left out: they belong to the file system that the image was made on", a.spec.Name, f.left, ref)
	}
	a.trees[c.digest] = f.tree
	return f.tree, nil
}

// kernel finds the kernel in its image and unpacks its modules.
func (a *assembly) kernel(ctx context.Context) (*entry, error) {
	k := a.spec.Kernel
	t, err := a.flatten(ctx, "kernel.image", k.Image)
	if t == nil {
		return nil, err
	}
	sound := true
	find := func(key, name, hint string) *entry {
		e := t.resolve(name)
		if e == nil || !e.is(typeFile) {
			a.faults.problem("kernel."+key, fmt.Sprintf("image %s has no file %q", k.Image, name), hint)
			e, sound = nil, false
		}
		return e
	}
	if k.Ucode != "" {
		a.ucode = find("ucode", k.Ucode, "name the archive of microcode with kernel.ucode, or remove it")
	}
	kernel := find("binary", k.binary(), "name the kernel's file with kernel.binary")
	if archive := k.archive(); archive != "" {
		if modules := find("tar", archive, "name the archive of modules with kernel.tar, or write tar: none"); modules != nil {
			f := &flattener{tree: a.root, spool: a.spool}
			if err := f.unpack(cancelled(ctx, io.NewSectionReader(modules.data, 0, modules.size))); err != nil {
				return nil, a.faults.note(ctx, "kernel.tar", fmt.Errorf("%s in image %s: %w", archive, k.Image, err), "make the archive anew, name another one, or write tar: none")
			}
		}
	}
	if !sound {
		return nil, nil
	}
	return kernel, nil
}

// binary is the kernel's file in its image, and archive that of its modules,
// empty if there is none.
func (k Kernel) binary() string {
	if k.Binary != nil {
		return *k.Binary
	}
	return "kernel"
}

func (k Kernel) archive() string {
	switch {
	case k.Tar == nil:
		return "kernel.tar"
	case *k.Tar == "none":
		return ""
	}
	return *k.Tar
}

// init lays the init images over the root, in order.
func (a *assembly) init(ctx context.Context) error {
	for i, ref := range a.spec.Init {
		at := fmt.Sprintf("init[%d]", i)
		t, err := a.flatten(ctx, at, ref)
		if err != nil {
			return err
		}
		if t == nil {
			continue
		}
		if err := a.root.over(t); err != nil {
			if err := a.faults.note(ctx, at, fmt.Errorf("image %s: %w", ref, err), "name another image, or put it elsewhere in the order"); err != nil {
				return err
			}
		}
	}
	return settleMachine(a.root)
}

// bundles adds the bundle of every container.
func (a *assembly) bundles(ctx context.Context) error {
	for _, l := range a.spec.lists() {
		for i, c := range l.items {
			at := fmt.Sprintf("%s[%d]", l.kind, i)
			err := a.bundle(ctx, at, bundlePath(l.kind, i, c.Name), c)
			if err == nil {
				continue
			}
			if err := a.faults.note(ctx, at, fmt.Errorf("%s %q: %w", l.kind, c.Name, err), "name another image, or make this one anew"); err != nil {
				return err
			}
		}
	}
	return nil
}

func (a *assembly) bundle(ctx context.Context, at, dir string, c Container) error {
	img := a.components[c.Image]
	if img == nil {
		return nil
	}
	settings, sound := a.settings(at, c, img)
	t, err := a.flatten(ctx, at+".image", c.Image)
	if t == nil || !sound {
		return err
	}
	a.made[at] = settings
	b, err := newBundle(dir, settings, img.config, a.shared[img.digest], a.spec.names())
	if err != nil {
		return err
	}
	var files *tree
	if a.shared[img.digest] == "" {
		if files, err = containerRoot(t); err != nil {
			return err
		}
		a.shared[img.digest] = b.shared
	}
	return b.place(a.root, files)
}

// containerRoot is the root of a container of an image. It is a copy: the same
// image may be under init too.
func containerRoot(t *tree) (*tree, error) {
	files := newTree()
	return files, errors.Join(files.put("", t.root.inode), files.over(t), settleContainer(files))
}

// files puts the spec's own files over everything.
func (a *assembly) files(ctx context.Context) error {
	for i, f := range a.spec.Files {
		at := fmt.Sprintf("files[%d]", i)
		if text, hint := f.obstacle(a.root); text != "" && (f.Source == "" || a.sources[f.Source] != "") {
			a.faults.problem(at+".path", text, hint)
			continue
		}
		err := ctx.Err()
		if err == nil {
			err = a.file(f)
		}
		if err == nil {
			continue
		}
		if err := a.faults.note(ctx, at, err, "choose another path"); err != nil {
			return err
		}
	}
	return nil
}

func (a *assembly) file(f File) error {
	if f.Metadata != "" {
		text, err := a.spec.Metadata(f.Metadata)
		if err != nil {
			return err
		}
		contents := string(text)
		f.Contents = &contents
	}
	return f.place(a.root, a.spool, a.sources[f.Source], a.spec.ids())
}

// volumes adds what the containers share.
func (a *assembly) volumes(ctx context.Context) error {
	for i, v := range a.spec.Volumes {
		at := fmt.Sprintf("volumes[%d]", i)
		files, err := a.volume(ctx, at+".image", v)
		if err == nil && (files != nil || v.Image == "") {
			err = v.place(a.root, files)
		}
		if err == nil {
			continue
		}
		if err := a.faults.note(ctx, at, fmt.Errorf("volume %q: %w", v.Name, err), "name another image, or make this one anew"); err != nil {
			return err
		}
	}
	return nil
}

// volume is what a volume holds at first; nil for nothing.
func (a *assembly) volume(ctx context.Context, at string, v Volume) (*tree, error) {
	if v.Format != "oci" {
		return a.flatten(ctx, at, v.Image)
	}
	for _, arch := range v.architectures(a.b.Arch) {
		if a.components[use{ref: v.Image, arch: arch}.key(a.b.Arch)] == nil {
			return nil, nil
		}
	}
	return a.layout(ctx, v)
}

// write writes kernel, initramfs, command line and what is known of them.
func (a *assembly) write(ctx context.Context, kernel *entry) error {
	im := &Image{Arch: a.b.Arch, Cmdline: ParseCmdline(a.spec.Kernel.Cmdline).String(), Sources: map[string]string{}, Seals: map[string]seal{}}
	if a.ucode != nil {
		im.UcodeSize = a.ucode.size + padding(a.ucode.size)
	}
	for ref, c := range a.components {
		im.Sources[ref] = c.digest
	}
	for _, l := range []struct {
		from []Container
		to   *[]string
	}{{a.spec.Onboot, &im.Onboot}, {a.spec.Onshutdown, &im.Onshutdown}, {a.spec.Services, &im.Services}} {
		for _, c := range l.from {
			*l.to = append(*l.to, c.Name)
		}
	}
	all, err := a.root.attributes()
	if err != nil {
		return err
	}
	type part struct {
		name  string
		write func(io.Writer) error
	}
	parts := []part{
		{kernelFile, func(w io.Writer) error {
			_, err := io.Copy(w, io.NewSectionReader(kernel.data, 0, kernel.size))
			return err
		}},
		{initrdFile, a.initramfs},
		{cmdlineFile, func(w io.Writer) error { _, err := io.WriteString(w, im.Cmdline); return err }},
	}
	if len(all) > 0 {
		parts = append(parts, part{attributesFile, func(w io.Writer) error { return writeAttributes(w, all) }})
	}
	for _, part := range parts {
		digest, err := create(ctx, filepath.Join(a.dir, part.name), part.write)
		if err != nil {
			return err
		}
		seal, err := sealOf(filepath.Join(a.dir, part.name))
		if err != nil {
			return err
		}
		seal.SHA256 = digest
		im.Seals[part.name] = seal
	}
	im.Digest = wholeDigest(im.Seals)
	description, err := encode(im)
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(a.dir, imageFile), strings.NewReader(string(description)))
}

// initramfs writes the microcode, if any, and the root. The kernel looks for
// microcode in the first archive only, long before it unpacks anything
// (Documentation/x86/microcode.rst); an archive begins at a multiple of four.
func (a *assembly) initramfs(w io.Writer) error {
	if a.ucode != nil {
		if _, err := io.Copy(w, io.NewSectionReader(a.ucode.data, 0, a.ucode.size)); err != nil {
			return err
		}
		if _, err := w.Write(make([]byte, padding(a.ucode.size))); err != nil {
			return err
		}
	}
	return writeInitramfs(w, a.root)
}

func padding(size int64) int64 { return (4 - size%4) % 4 }

// create writes a file and returns the digest of what was written.
func create(ctx context.Context, path string, write func(io.Writer) error) (digest string, err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	sum := sha256.New()
	out := newBackground(f, sum)
	err = write(writerFunc(func(p []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		return out.Write(p)
	}))
	if late := out.close(); err == nil {
		err = late
	}
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("sha256:%x", sum.Sum(nil)), nil
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// background writes to several writers at once while the next piece is being
// made. Of an image most of the time goes to the kernel's side of writing it,
// and the rest, reading and digesting, is done meanwhile.
type background struct {
	pieces chan []byte
	spare  chan []byte // buffers to fill
	done   chan struct{}
	err    error // of a writer, once done is closed
}

// pieceSize is that of the buffer of [writeInitramfs].
const pieceSize = 1 << 20

func newBackground(to ...io.Writer) *background {
	b := &background{pieces: make(chan []byte), spare: make(chan []byte, 2), done: make(chan struct{})}
	for range cap(b.spare) {
		b.spare <- make([]byte, 0, pieceSize)
	}
	go func() {
		defer close(b.done)
		for p := range b.pieces {
			if b.err = writeAll(p, to); b.err != nil {
				return
			}
			b.spare <- p
		}
	}()
	return b
}

// writeAll writes p to all writers at once.
func writeAll(p []byte, to []io.Writer) error {
	var g errgroup.Group
	for _, w := range to {
		g.Go(func() error { _, err := w.Write(p); return err })
	}
	return g.Wait()
}

// Write takes p over and may return before it is written; the error can be that
// of an earlier piece.
func (b *background) Write(p []byte) (n int, err error) {
	for n < len(p) {
		select {
		case buf := <-b.spare:
			piece := append(buf[:0], p[n:min(n+pieceSize, len(p))]...)
			select {
			case b.pieces <- piece:
				n += len(piece)
			case <-b.done:
				return n, b.err
			}
		case <-b.done:
			return n, b.err
		}
	}
	return n, nil
}

// close waits until everything is written and returns the first error.
func (b *background) close() error {
	close(b.pieces)
	<-b.done
	return b.err
}

package images

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seatrial/seatrial/boot"
)

// Lint is [Spec.Lint], and puts the images together as [Builder.Build] does, in
// memory: it finds what a build would refuse, and what cannot work, such as a
// kernel without the modules that a machine under QEMU needs, images of init
// without the programs that start containers, a read-only container with a mount
// that has no place. An image that the source does not have is told in unseen,
// with what was not looked at for that; everything else is judged all the same.
func (b *Builder) Lint(ctx context.Context, s *Spec) (found, unseen []Problem, err error) {
	a := newAssembly(b, s)
	l := &imageLinter{linter: linter{spec: s, arch: b.Arch}, a: a}
	l.text()
	if err = cmpErr(a.resolve(ctx, l.absent), a.readSources(ctx)); err == nil {
		err = a.spooled(func() error { return l.images(ctx) })
	}
	if err != nil {
		return nil, nil, fmt.Errorf("images: cannot lint %s: %w", s.Name, explain(err, os.TempDir()))
	}
	found = append(l.found, a.faults.problems...)
	sortProblems(found)
	sortProblems(l.unseen)
	return found, l.unseen, nil
}

// imageLinter is a linter that has images at hand.
type imageLinter struct {
	linter
	a      *assembly
	unseen []Problem
}

// note tells of something that was not looked at.
func (l *imageLinter) note(at, text, hint string) {
	d := &decoder{at: l.spec.at, file: l.spec.at[""].file}
	d.problem(at, text, hint)
	l.unseen = append(l.unseen, d.problems...)
}

// absent tells that an image could not be looked into.
func (l *imageLinter) absent(u use) {
	missed := "its container was not looked at"
	switch {
	case u.path == "kernel.image":
		missed = "modules were not looked for"
	case strings.HasPrefix(u.path, "init["):
		missed = "what starts containers was judged by the names of images"
	case strings.HasPrefix(u.path, "volumes["):
		missed = "what the volume holds was not looked at"
	}
	get := "seatrial build gets it"
	if own, ok := strings.CutPrefix(u.ref, Own); ok && !slices.Contains([]string{"amd64", "arm64"}, u.arch) {
		get = "nothing makes it: name another image, or leave out the platform"
	} else if ok {
		get = fmt.Sprintf("seatrial components %s --arch %s makes it", own, u.arch)
	}
	l.note(u.path, fmt.Sprintf("%s is not in the local store for %s, so %s", u.ref, u.arch, missed), get)
}

// images applies the rules that look into images.
func (l *imageLinter) images(ctx context.Context) error {
	kernel, err := l.a.assemble(ctx)
	if err != nil {
		return err
	}
	if l.spec.Kernel.archive() == "" {
		l.note("kernel.tar", "names no archive of modules, so modules were not looked for", "make sure that overlay, virtio_pci, virtio_blk and virtio_net are built into the kernel")
	} else if kernel != nil {
		if err := l.modules(l.a.root); err != nil {
			return err
		}
	}
	l.init()
	l.labels()
	l.absentBinds()
	return l.readOnly()
}

// atHand are the files of an image, nil if they are not.
func (l *imageLinter) atHand(ref string) *tree {
	if c := l.a.components[ref]; c != nil {
		return l.a.trees[c.digest]
	}
	return nil
}

// init looks for the programs that init starts, by the paths where it does.
func (l *imageLinter) init() {
	if slices.ContainsFunc(l.spec.Init, func(ref string) bool { return l.atHand(ref) == nil }) {
		l.phases(phasesByName(), l.isCalled)
		return
	}
	has := func(file string) bool {
		e := l.a.root.resolve(file)
		return e != nil && e.is(typeFile)
	}
	if len(l.spec.Init) > 0 && !has("init") {
		l.warn("init", "none of the images holds /init", "add one that does, such as seatrial/init: the kernel starts it as PID 1")
	}
	lacks := "none of the images of init holds "
	l.phases(phases([]string{boot.RuncPath}, lacks+boot.RuncPath, []string{boot.ContainerdPath}, lacks+boot.ContainerdPath), has)
}

// labels applies rules about settings to those that an image's label has.
func (l *imageLinter) labels() {
	for _, list := range l.spec.lists() {
		for i, c := range list.items {
			at := fmt.Sprintf("%s[%d]", list.kind, i)
			warn := func(key, text, hint string) { l.warn(at+".image", ofLabel(c.Image, key, text), hint) }
			if c.Resources == nil {
				l.version1(l.a.made[at].Resources, warn)
			}
			if rest := inert(l.a.made[at]); len(rest) > 0 && c.Capabilities == nil {
				if c.Ambient != nil {
					warn = func(key, text, hint string) { l.warn(at+"."+key, text, hint) }
				}
				warn("ambient", inertText(rest), "add them to capabilities too")
			}
		}
	}
}

// readOnly names mounts of read-only containers that have no place. The runtime
// makes one in an initramfs, which can be written below the containers, and
// fails on any other root.
func (l *imageLinter) readOnly() error {
	for _, list := range l.spec.lists() {
		for i, c := range list.items {
			at := fmt.Sprintf("%s[%d]", list.kind, i)
			if err := l.places(at, c); err != nil {
				return fmt.Errorf("%s%w", placeOf(l.spec.at, at).prefix(), err)
			}
		}
	}
	return nil
}

func (l *imageLinter) places(at string, c Container) error {
	settings := l.a.made[at] // none if it is not at hand, or not sound
	if !isTrue(settings.Readonly) {
		return nil
	}
	mounts, err := ociMounts(settings, l.spec.volumes())
	if err != nil {
		return err
	}
	files, err := containerRoot(l.atHand(c.Image))
	if err != nil {
		return err
	}
	place, mounted := mountedAt(at, c.Settings), map[string]bool{}
	for _, m := range mounts {
		mounted[path.Clean(m.Destination)] = true
	}
	for _, m := range mounts {
		// What lies below another mount is made there, if it can be.
		below := false
		for dir := path.Dir(path.Clean(m.Destination)); dir != "/" && !below; dir = path.Dir(dir) {
			below = mounted[dir]
		}
		if below || files.resolve(m.Destination) != nil {
			continue
		}
		l.warn(place(m.Destination), fmt.Sprintf("%s is not in the image %s, and a read-only container does not start without it where the root is a squashfs", m.Destination, c.Image),
			"choose a place that is there, make one in the image, or remove readonly")
	}
	return nil
}

// mountedAt are the paths of the values in the YAML that mount something, by
// destination; what has none is mounted by the image.
func mountedAt(at string, s Settings) func(destination string) string {
	found := map[string]string{}
	s.eachMount(func(key string, m specs.Mount) { found[m.Destination] = at + "." + key })
	return func(destination string) string { return cmp.Or(found[destination], at+".image") }
}

// modules looks for drivers among those built in and those that can be loaded.
// Debian's modules.builtin lists the former, modules.dep the latter.
func (l *linter) modules(root *tree) error {
	var index bytes.Buffer
	if err := root.walk(func(file string, e *entry) error {
		if ok, err := path.Match("lib/modules/*/modules.*", file); err != nil || !ok || !e.is(typeFile) {
			return err
		}
		_, err := io.Copy(&index, io.NewSectionReader(e.data, 0, e.size))
		return err
	}); err != nil {
		return err
	}
	if index.Len() == 0 {
		l.warn("kernel.tar", "has no module index", "the archive holds no lib/modules/VERSION/modules.dep: modules cannot be loaded")
		return nil
	}
	missing := func(module string) bool {
		spelled := strings.ReplaceAll(regexp.QuoteMeta(module), "_", "[_-]")
		return !regexp.MustCompile(`(?m)(^|/)` + spelled + `\.ko(\.[a-z0-9]+)?(:|$)`).Match(index.Bytes())
	}
	for _, m := range []struct{ name, cost string }{
		{"overlay", "containers that are not readonly cannot be started"},
		{"virtio_pci", "disks and network cards of QEMU are not seen"},
		{"virtio_blk", "disks of QEMU are not seen"},
		{"virtio_net", "network cards of QEMU are not seen"},
	} {
		if missing(m.name) {
			l.warn("kernel.image", fmt.Sprintf("has no module %s, neither built in nor to be loaded", m.name), "choose a kernel that has it: without it "+m.cost)
		}
	}
	return nil
}

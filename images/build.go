package images

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// builderVersion is part of every cache key. Raise it whenever the same spec
// and component images lead to other bytes.
const builderVersion = "4"

// Builder makes images.
type Builder struct {
	Source   Source       // where component images come from
	Arch     string       // amd64 or arm64
	Dir      string       // cache of built images and media, made if need be
	Limit    int64        // bytes the cache may hold; 0: 8 GiB. What is in use stays even beyond it
	Progress func(string) // told what is being done; nil: nobody
}

// component is an image that a spec uses.
type component struct {
	ref    string
	image  v1.Image
	digest string
	config v1.Config
}

// Build makes the image of a spec, or finds it in the cache if nothing it
// depends on has changed: the spec, the files it names, the component images,
// the architecture and the builder. Builds of the same image wait for one
// another, also those of other processes; what a killed one left is removed.
func (b *Builder) Build(ctx context.Context, s *Spec) (*Image, error) {
	im, err := b.build(ctx, s)
	if err != nil {
		gap := " "
		if wrong := (*SpecError)(nil); errors.As(err, &wrong) && len(wrong.Problems) > 1 {
			gap = "\n" // each problem is a line
		}
		return nil, fmt.Errorf("images: cannot build %s for %s:%s%w", s.Name, b.Arch, gap, explain(err, b.Dir))
	}
	im.Name = s.Name // the cache knows contents, not names
	return im, nil
}

func (b *Builder) build(ctx context.Context, s *Spec) (*Image, error) {
	if !slices.Contains([]string{"amd64", "arm64"}, b.Arch) {
		return nil, fmt.Errorf("unknown architecture %q: amd64 and arm64 are known", b.Arch)
	}
	a := newAssembly(b, s)
	if err := errors.Join(a.resolve(ctx, nil), a.readSources(ctx)); err != nil {
		return nil, err
	}
	if len(a.faults.problems) > 0 {
		return nil, a.judge(ctx)
	}
	key, err := cacheKey(s, b.Arch, a.components, a.sources)
	if err != nil {
		return nil, err
	}
	found, err := onceIn(ctx, b, key, loadImage, func(ctx context.Context, dir string) error {
		a.dir = dir
		bare := s.bare()
		if bare == nil {
			return a.run(ctx)
		}
		base, err := b.build(ctx, bare)
		if wrong := (*SpecError)(nil); errors.As(err, &wrong) {
			return cmpErr(a.judge(ctx), err) // with what is wrong with the files
		}
		if err != nil {
			return err
		}
		return a.runOver(ctx, base)
	})
	if err != nil {
		return nil, err
	}
	found.value.lease = found.file
	return found.value, nil
}

// bare is the spec without its files and command line, which change more often
// than all else and cost little to add: what is built of it is kept and is the
// start of every image that differs from it only in them. Nil if the spec has
// neither.
func (s *Spec) bare() *Spec {
	if len(s.Files) == 0 && s.Kernel.Cmdline == "" {
		return nil
	}
	bare := *s
	bare.Files, bare.Kernel.Cmdline = nil, ""
	return &bare
}

func (b *Builder) say(format string, args ...any) {
	if b.Progress != nil {
		b.Progress(fmt.Sprintf(format, args...))
	}
}

// resolve finds every image the spec names, each once. Those that the source
// does not have are told to absent; nil: they are faults.
func (a *assembly) resolve(ctx context.Context, absent func(use)) error {
	tried := map[string]bool{}
	for _, u := range a.spec.references(a.b.Arch) {
		key := u.key(a.b.Arch)
		if tried[key] {
			continue
		}
		tried[key] = true
		c, err := a.b.component(ctx, u.ref, u.arch)
		switch {
		case err == nil:
			a.components[key] = c
		case absent != nil && errors.Is(err, ErrNotFound):
			absent(u)
		default:
			if err := a.faults.note(ctx, u.path, err, ""); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *Builder) component(ctx context.Context, ref, arch string) (*component, error) {
	img, err := b.Source.Image(ctx, ref, arch)
	if err != nil {
		return nil, err
	}
	digest, err := img.Digest()
	if err != nil {
		return nil, advised{fmt.Errorf("image %s: cannot read its manifest: %w", ref, err), getAgain}
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, advised{fmt.Errorf("image %s: cannot read its config: %w", ref, err), getAgain}
	}
	if config.Architecture != arch {
		return nil, advisedf("choose an image for "+arch, "image %s is for %s, not for %s", ref, config.Architecture, arch)
	}
	return &component{ref: ref, image: img, digest: digest.String(), config: config.Config}, nil
}

// use is a place in the spec that names an image.
type use struct{ path, ref, arch string }

// key names the image among the components: its reference, with the
// architecture if that is not the machine's own.
func (u use) key(own string) string {
	if u.arch == own {
		return u.ref
	}
	return u.ref + " for " + u.arch
}

// references are the images the spec uses on a machine of an architecture.
func (s *Spec) references(arch string) []use {
	uses := []use{{"kernel.image", s.Kernel.Image, arch}}
	for i, ref := range s.Init {
		uses = append(uses, use{fmt.Sprintf("init[%d]", i), ref, arch})
	}
	for _, l := range s.lists() {
		for i, c := range l.items {
			uses = append(uses, use{fmt.Sprintf("%s[%d].image", l.kind, i), c.Image, arch})
		}
	}
	for i, v := range s.Volumes {
		if v.Image == "" {
			continue
		}
		archs := []string{arch}
		if v.Format == "oci" {
			archs = v.architectures(arch)
		}
		for _, a := range archs {
			uses = append(uses, use{fmt.Sprintf("volumes[%d].image", i), v.Image, a})
		}
	}
	return uses
}

// list is one of the spec's lists of containers.
type list struct {
	kind  string
	items []Container
}

func (s *Spec) lists() []list {
	return []list{{"onboot", s.Onboot}, {"onshutdown", s.Onshutdown}, {"services", s.Services}}
}

// readSources digests the files of the host that the spec names; "" stands for
// one that is not there.
func (a *assembly) readSources(ctx context.Context) error {
	a.sources = map[string]string{}
	for i, f := range a.spec.Files {
		if f.Source == "" || a.sources[f.Source] != "" {
			continue
		}
		digest, err := digestFile(f.Source)
		a.sources[f.Source] = digest
		if err == nil || missing(err) && f.Optional {
			continue
		}
		err, hint := fmt.Errorf("cannot read the source of %s: %w", f.Path, err), "name a file that you may read"
		if missing(err) {
			err, hint = fmt.Errorf("the source of %s does not exist: %s", f.Path, f.Source), "make it, or add optional: true"
		}
		if err := a.faults.note(ctx, fmt.Sprintf("files[%d].source", i), err, hint); err != nil {
			return err
		}
	}
	return nil
}

// missing reports whether an error means that there is no such file; a path that
// leads through a regular file leads to none either.
func missing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

func digestFile(name string) (_ string, err error) {
	info, err := os.Stat(name) // before opening it: a FIFO would block for ever
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", advisedf("name a single file", "%s is not a regular file", name)
	}
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return digestOf(f)
}

func digestOf(r io.Reader) (string, error) {
	h := sha256.New()
	_, err := io.Copy(h, r)
	return fmt.Sprintf("sha256:%x", h.Sum(nil)), err
}

// cacheKey is a digest of everything that shapes the image.
func cacheKey(s *Spec, arch string, components map[string]*component, sources map[string]string) (string, error) {
	content := *s
	content.Name = ""
	content.Files = slices.Clone(s.Files)
	for i := range content.Files {
		if f := &content.Files[i]; f.Source != "" {
			f.Source = "content " + sources[f.Source] // wherever it lies
		}
	}
	digests := map[string]string{}
	for ref, c := range components {
		digests[ref] = c.digest
	}
	raw, err := json.Marshal(struct {
		Version, Arch string
		Spec          Spec
		Images        map[string]string
	}{builderVersion, arch, content, digests})
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%x", sha256.Sum256(raw)), nil
}

const workPrefix = "tmp-"

// workDir makes the locked folder in which the image with a key is built. The
// lock goes with the process; it is waited for when somebody else builds the
// same image.
func (b *Builder) workDir(ctx context.Context, key string) (string, *os.File, error) {
	dir := filepath.Join(b.Dir, workPrefix+key)
	for {
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return "", nil, err
		}
		lock, err := LockDir(ctx, dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue // swept between the two calls
		}
		if err != nil {
			return "", nil, err
		}
		if !still(lock, dir) { // finished and renamed while we waited
			lock.Close()
			continue
		}
		if err := clearDir(dir); err != nil {
			return "", nil, errors.Join(err, lock.Close())
		}
		return dir, lock, nil
	}
}

// clearDir removes what a killed build of the same image left.
func clearDir(dir string) error {
	old, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range old {
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// sweep removes the folders of builds that were killed: nobody has their lock.
func (b *Builder) sweep() error { return sweepDirs(b.Dir, workPrefix) }

// sweepDirs removes the folders with a prefix that nobody has locked.
func sweepDirs(in, prefix string) error {
	old, err := filepath.Glob(filepath.Join(escapeGlob(in), prefix+"*"))
	if err != nil {
		return err
	}
	for _, dir := range old {
		lock := tryLockDir(dir)
		if lock == nil {
			continue
		}
		if still(lock, dir) {
			err = os.RemoveAll(dir)
		}
		if err = errors.Join(err, lock.Close()); err != nil {
			return err
		}
	}
	return nil
}

// took is a duration for people.
func took(start time.Time) string { return time.Since(start).Round(10 * time.Millisecond).String() }

package component

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/seatrial/seatrial/images"
)

// epoch is the time of every file and image, so that the same input gives the
// same bytes.
var epoch = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

// Kinds of input.
const (
	kindDeb       = images.PartDeb // a Debian package
	kindGo        = images.PartGo  // a Go module; its digest is go.sum's
	kindFile      = "file"         // a package of this repository, with those it imports
	kindRecipe    = "recipe"       // how the component is made: the sources of this package
	kindToolchain = "toolchain"    // the Go toolchain
)

// here is the version of what this repository holds itself.
const here = "(this repository)"

// Input is one thing a component was made of.
type Input struct {
	Component string `json:"component"`
	Kind      string `json:"kind"` // "deb", "go", "file", "recipe" or "toolchain"
	Name      string `json:"name"`
	Version   string `json:"version"`
	Digest    string `json:"digest"`
	Drift     string `json:"drift,omitempty"` // how it differs from the lock file; empty: it does not
}

// Built is a component image in the store.
type Built struct {
	Ref    string   `json:"ref"`
	Digest string   `json:"digest"`
	Key    string   `json:"key"`
	Inputs []Input  `json:"inputs"`
	Unused []string `json:"unused,omitempty"` // what is locked for it and was not used, in words
}

// Drift lists how the component differs from the lock file, in words.
func (b Built) Drift() []string {
	var out []string
	for _, in := range b.Inputs {
		if in.Drift != "" {
			out = append(out, in.Name+": "+in.Drift)
		}
	}
	return append(out, b.Unused...)
}

// Options says what to build and where.
type Options struct {
	Arch     string                       // amd64 or arm64
	Store    *images.Store                // where the images go
	Cache    string                       // folder for packages, sources and what was built
	Source   fs.FS                        // this module's sources: go.mod, go.sum, boot
	Names    []string                     // nil: Names()
	Lock     Lock                         // nil: Locked()
	Locked   bool                         // a difference from the lock is an error
	Progress func(component, step string) // nil: nobody is told
}

// Names are the components, in the order they are built.
func Names() []string {
	var names []string
	for _, r := range recipes() {
		names = append(names, r.name)
	}
	return names
}

// fill sets what was left out.
func (o *Options) fill() (err error) {
	if o.Progress == nil {
		o.Progress = func(string, string) {}
	}
	if o.Lock == nil {
		if o.Lock, err = Locked(); err != nil {
			return err
		}
	}
	return os.MkdirAll(filepath.Join(o.Cache, "components"), 0o755)
}

// Build makes the components that are not in the store with the inputs they
// would have now, and returns all of them. Where an input that is locked is
// not to be had any more, the newest one is used, the progress says so, and
// the difference is noted in the result; with o.Locked it is an error.
func Build(ctx context.Context, o Options) ([]Built, error) {
	if err := o.fill(); err != nil {
		return nil, err
	}
	// Two processes must not bring the same package lists up to date at once.
	alone, err := images.LockDir(ctx, filepath.Join(o.Cache, "components"))
	if err != nil {
		return nil, err
	}
	defer alone.Close()
	if !slices.Contains(arches, o.Arch) {
		return nil, fmt.Errorf("no components for the architecture %q: there are those of %s", o.Arch, strings.Join(arches, " and "))
	}
	// Without a go tool what was compiled before can still be used.
	toolchain, err := goVersion(ctx, o.Source, o.Cache)
	if err != nil && !errors.Is(err, exec.ErrNotFound) {
		return nil, err
	}
	var out []Built
	for _, r := range recipes() {
		if o.Names != nil && !slices.Contains(o.Names, r.name) {
			continue
		}
		b, err := o.one(ctx, r, toolchain)
		if err != nil {
			return nil, fmt.Errorf("component %s for %s: %w", r.name, o.Arch, err)
		}
		out = append(out, b)
	}
	return out, nil
}

// key is a digest over all that decides what a component is: how it is made,
// what is locked for it, the sources it is compiled from, and the compiler.
func (o Options) key(r recipe, toolchain string) (string, error) {
	recipe, err := recipeDigest()
	if err != nil {
		return "", err
	}
	parts := []any{r.name, o.Arch, recipe, o.Lock.of(o.Arch, r.name, "")}
	for _, p := range r.programs {
		digest, err := p.sources(o.Source)
		if err != nil {
			return "", err
		}
		parts = append(parts, toolchain, p.pkg, digest)
	}
	text, err := json.Marshal(parts)
	return fmt.Sprintf("%x", sha256.Sum256(text)), err
}

func (o Options) one(ctx context.Context, r recipe, toolchain string) (Built, error) {
	note := filepath.Join(o.Cache, "components", r.name+"-"+o.Arch+".json")
	used := toolchain
	if toolchain == "" {
		used = toolchainOf(note)
	}
	key, err := o.key(r, used)
	if err != nil {
		return Built{}, err
	}
	ref := "seatrial/" + r.name
	b, kept := o.kept(ctx, note, ref, key)
	if kept {
		return b, o.tell(r.name, b)
	}
	if toolchain == "" && len(r.programs) > 0 {
		return Built{}, errors.New("it must be compiled, as it is not in the store or its sources or its lock changed, and there is no go in PATH: install Go, or add its folder to PATH")
	}
	k := &kitchen{Options: o, ctx: ctx, recipe: r, toolchain: toolchain, apt: newApt(o.Cache, o.Arch), folders: map[string]string{}}
	o.Progress(r.name, "building")
	b = Built{Ref: ref, Key: key}
	if b.Inputs, err = k.inputs(); err != nil {
		return Built{}, err
	}
	if b.Inputs, b.Unused, err = drift(o.Lock.of(o.Arch, r.name, ""), b.Inputs); err != nil {
		return Built{}, err
	}
	if err := o.tell(r.name, b); err != nil {
		return Built{}, err
	}
	files, err := r.make(k)
	if err != nil {
		return Built{}, err
	}
	im, err := assemble(files, r.config, o.Arch)
	if err != nil {
		return Built{}, err
	}
	parts, err := k.parts(b.Inputs)
	if err != nil {
		return Built{}, err
	}
	if im, err = images.WithParts(im, parts); err != nil {
		return Built{}, err
	}
	if err := o.Store.Put(ctx, ref, im); err != nil {
		return Built{}, err
	}
	digest, err := im.Digest()
	if err != nil {
		return Built{}, err
	}
	b.Digest = digest.String()
	text, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return Built{}, err
	}
	if err := os.WriteFile(note+".new", text, 0o644); err != nil {
		return Built{}, err
	}
	o.Progress(r.name, "built")
	return b, os.Rename(note+".new", note)
}

// Differs begins a step that tells how a component differs from the lock file.
const Differs = "differs from the lock file: "

// tell says how a component differs from the lock, or refuses it for that.
func (o Options) tell(name string, b Built) error {
	differs := b.Drift()
	if len(differs) == 0 {
		return nil
	}
	if o.Locked {
		return fmt.Errorf("it cannot be made as the lock file says:\n  %s\nan archive serves the newest version of a package and takes away the others: "+
			"refresh the lock with seatrial components --update-lock, or build without --locked", strings.Join(differs, "\n  "))
	}
	for _, d := range differs {
		o.Progress(name, Differs+d)
	}
	return nil
}

// toolchainOf is what compiled the component that a note tells of.
func toolchainOf(note string) string {
	var b Built
	text, err := os.ReadFile(note)
	if err != nil || json.Unmarshal(text, &b) != nil {
		return ""
	}
	for _, in := range b.Inputs {
		if in.Kind == kindToolchain {
			return in.Version
		}
	}
	return ""
}

// kept finds a component that was made of the same inputs before.
func (o Options) kept(ctx context.Context, note, ref, key string) (Built, bool) {
	var b Built
	text, err := os.ReadFile(note)
	if err != nil || json.Unmarshal(text, &b) != nil || b.Key != key {
		return b, false
	}
	im, err := o.Store.Get(ctx, ref, o.Arch)
	if err != nil {
		return b, false
	}
	digest, err := im.Digest()
	return b, err == nil && digest.String() == b.Digest
}

// UpdateLock finds the newest inputs of every component for both architectures
// and returns the lock that names them. o.Arch, o.Names and o.Lock are not used.
func UpdateLock(ctx context.Context, o Options) (Lock, error) {
	if err := o.fill(); err != nil {
		return nil, err
	}
	// Two processes must not bring the same package lists up to date at once.
	alone, err := images.LockDir(ctx, filepath.Join(o.Cache, "components"))
	if err != nil {
		return nil, err
	}
	defer alone.Close()
	toolchain, err := goVersion(ctx, o.Source, o.Cache)
	if err != nil {
		return nil, err
	}
	fresh := Lock{}
	for _, o.Arch = range arches {
		o.Lock = Lock{} // nothing is locked, so the newest is taken
		a := newApt(o.Cache, o.Arch)
		if err := a.update(ctx); err != nil {
			return nil, err
		}
		for _, r := range recipes() {
			o.Progress(r.name, "resolving for "+o.Arch)
			k := &kitchen{Options: o, ctx: ctx, recipe: r, toolchain: toolchain, apt: a, folders: map[string]string{}}
			inputs, err := k.inputs()
			if err != nil {
				return nil, fmt.Errorf("component %s for %s: %w", r.name, o.Arch, err)
			}
			for _, in := range inputs {
				if in.Kind == kindDeb || in.Kind == kindGo {
					fresh[o.Arch] = append(fresh[o.Arch], in)
				}
			}
		}
		fresh[o.Arch] = sortInputs(fresh[o.Arch])
	}
	return fresh, nil
}

// assemble makes an image of one layer.
func assemble(files []file, config v1.Config, arch string) (v1.Image, error) {
	packed, err := pack(files)
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(packed)), nil
	}, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	im := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	if im, err = mutate.AppendLayers(im, layer); err != nil {
		return nil, err
	}
	cf, err := im.ConfigFile()
	if err != nil {
		return nil, err
	}
	cf = cf.DeepCopy()
	cf.OS, cf.Architecture, cf.Config, cf.Created = "linux", arch, config, v1.Time{Time: epoch}
	return mutate.ConfigFile(im, cf)
}

// kitchen is what a recipe works with.
type kitchen struct {
	Options
	ctx       context.Context // of this one build
	recipe    recipe
	toolchain string
	apt       apt
	debs      []deb             // fetched by inputs
	folders   map[string]string // of the Go modules among the inputs
}

// inputs gets everything the recipe asks for and lists it: the locked versions
// if they are to be had, otherwise the newest.
func (k *kitchen) inputs() ([]Input, error) {
	digest, err := recipeDigest()
	if err != nil {
		return nil, err
	}
	name := k.recipe.name
	out := []Input{{Component: name, Kind: kindRecipe, Name: name, Version: here, Digest: digest}}
	if packages := k.recipe.packages(k.Arch); len(packages) > 0 {
		k.Progress(name, "fetching "+strings.Join(packages, " "))
		if k.debs, err = k.apt.get(k.ctx, k.Lock.of(k.Arch, name, kindDeb), k.recipe.wants, packages...); err != nil {
			return nil, err
		}
		for _, d := range k.debs {
			out = append(out, d.input(name))
		}
	}
	for _, p := range k.recipe.programs {
		found, err := k.modules(p)
		if err != nil {
			return nil, err
		}
		for _, in := range found {
			if !slices.Contains(out, in) {
				out = append(out, in)
			}
		}
	}
	return out, nil
}

// files returns the files of the recipe's packages that want accepts.
func (k *kitchen) files(want func(string) bool) ([]file, error) {
	var out []file
	for _, d := range k.debs {
		files, err := d.files(k.ctx, want)
		if err != nil {
			return nil, err
		}
		out = append(out, files...)
	}
	return out, nil
}

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
	"path/filepath"
	"runtime"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/seatrial/seatrial/images"
)

// recipeVersion is part of every component's key. Raise it when a recipe changes.
const recipeVersion = "2"

// epoch is the time of every file and image, so that the same input gives the
// same bytes.
var epoch = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

// Input is one thing a component was made of.
type Input struct {
	Component string `json:"component"`
	Kind      string `json:"kind"` // "deb", "go" or "file"
	Name      string `json:"name"`
	Version   string `json:"version"`
	Digest    string `json:"digest"`
}

// Built is a component image in the store.
type Built struct {
	Ref    string  `json:"ref"`
	Digest string  `json:"digest"`
	Key    string  `json:"key"`
	Inputs []Input `json:"inputs"`
}

// Options says what to build and where.
type Options struct {
	Arch     string                       // amd64 or arm64
	Store    *images.Store                // where the images go
	Cache    string                       // folder for packages, sources and what was built
	Source   fs.FS                        // this module's sources: go.mod, go.sum, boot
	Names    []string                     // nil: Names()
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

// Build makes the components that are not in the store with the inputs they
// would have now, and returns all of them.
func Build(ctx context.Context, o Options) ([]Built, error) {
	if o.Progress == nil {
		o.Progress = func(string, string) {}
	}
	if err := os.MkdirAll(filepath.Join(o.Cache, "components"), 0o755); err != nil {
		return nil, err
	}
	sources, err := sourceDigest(o.Source)
	if err != nil {
		return nil, err
	}
	var out []Built
	for _, r := range recipes() {
		if o.Names != nil && !slices.Contains(o.Names, r.name) {
			continue
		}
		b, err := o.one(ctx, r, sources)
		if err != nil {
			return nil, fmt.Errorf("component %s for %s: %w", r.name, o.Arch, err)
		}
		out = append(out, b)
	}
	return out, nil
}

func (o Options) one(ctx context.Context, r recipe, sources string) (Built, error) {
	key := fmt.Sprintf("%x", sha256.Sum256([]byte(recipeVersion+r.name+o.Arch+runtime.Version()+r.key(sources))))
	note := filepath.Join(o.Cache, "components", r.name+"-"+o.Arch+".json")
	ref := "seatrial/" + r.name
	if b, ok := o.kept(ctx, note, ref, key); ok {
		return b, nil
	}
	k := &kitchen{Options: o, ctx: ctx, name: r.name, apt: apt{dir: filepath.Join(o.Cache, "apt-"+o.Arch), arch: o.Arch}}
	o.Progress(r.name, "building")
	files, err := r.make(k)
	if err != nil {
		return Built{}, err
	}
	im, err := assemble(files, r.config, o.Arch)
	if err != nil {
		return Built{}, err
	}
	if err := o.Store.Put(ctx, ref, im); err != nil {
		return Built{}, err
	}
	digest, err := im.Digest()
	if err != nil {
		return Built{}, err
	}
	b := Built{Ref: ref, Digest: digest.String(), Key: key, Inputs: k.inputs}
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
	ctx    context.Context // of this one build
	name   string
	apt    apt
	inputs []Input
}

// debs fetches packages and returns the files that want accepts.
func (k *kitchen) debs(want func(string) bool, packages ...string) ([]file, error) {
	k.Progress(k.name, fmt.Sprintf("fetching %v", packages))
	debs, err := k.apt.fetch(k.ctx, packages...)
	if err != nil {
		return nil, err
	}
	var out []file
	for _, d := range debs {
		k.inputs = append(k.inputs, d.input(k.name))
		files, err := d.files(k.ctx, want)
		if err != nil {
			return nil, err
		}
		out = append(out, files...)
	}
	return out, nil
}

// program compiles one of our own programs.
func (k *kitchen) program(pkg string) ([]byte, error) {
	k.Progress(k.name, "compiling "+pkg)
	digest, err := sourceDigest(k.Source)
	if err != nil {
		return nil, err
	}
	k.inputs = append(k.inputs, Input{k.name, "file", pkg, runtime.Version(), digest})
	return goBuild(k.ctx, k.Source, k.Cache, k.Arch, pkg, "osusergo netgo", "-X main.build="+digest[7:19])
}

// containerd compiles one of containerd's programs.
func (k *kitchen) containerd(program string) ([]byte, error) {
	k.Progress(k.name, "compiling "+program)
	version, err := moduleVersion(k.Source, containerdModule)
	if err != nil {
		return nil, err
	}
	sum, err := moduleSum(k.Source, containerdModule, version)
	if err != nil {
		return nil, err
	}
	in := Input{k.name, "go", containerdModule, version, sum}
	if !slices.Contains(k.inputs, in) {
		k.inputs = append(k.inputs, in)
	}
	return goBuild(k.ctx, k.Source, k.Cache, k.Arch, containerdModule+"/cmd/"+program, containerdTags,
		"-X "+containerdModule+"/version.Version="+version)
}

var errNothing = errors.New("the package holds none of the files that are needed")

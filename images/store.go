package images

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// ErrNotFound is the error of [Store.Get] for an image that is not there.
var ErrNotFound = errors.New("not in the local layout")

// refName is the annotation that names an image in an index (OCI image-spec, annotations.md).
const refName = "org.opencontainers.image.ref.name"

// Store is a local OCI image layout with named images, each for any number of
// architectures. Any number of processes may use one at the same time.
type Store struct{ dir string }

// OpenStore opens the layout in a folder, and makes it if there is none.
func OpenStore(dir string) (*Store, error) {
	s := &Store{dir: dir}
	_, err := s.index()
	if errors.Is(err, os.ErrNotExist) {
		if err = s.create(); err != nil {
			return nil, fmt.Errorf("images: cannot make the local layout: %w", explain(err, dir))
		}
		_, err = s.index()
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// create makes the layout's files. The index comes last: with it the layout is
// complete, and is never locked for opening again.
func (s *Store) create() error {
	if err := os.MkdirAll(filepath.Join(s.dir, "blobs", "sha256"), 0o755); err != nil {
		return err
	}
	// Only another process that makes the same layout can have this lock.
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	lock, err := LockDir(ctx, s.dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	if _, err := s.index(); err == nil {
		return nil
	}
	mark := filepath.Join(s.dir, "oci-layout")
	if err := writeFile(mark, strings.NewReader(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
		return err
	}
	return s.writeIndex(&v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{}})
}

// Dir is the folder of the layout.
func (s *Store) Dir() string { return s.dir }

// Put stores an image under a name, such as "seatrial/kernel:latest", in the
// place of the one that had this name and architecture. The image's config
// must say its architecture. A name with a digest must be that of the image:
// the digest of an index says nothing about an image by itself.
func (s *Store) Put(ctx context.Context, ref string, img v1.Image) error {
	err := checkPin(ref, img)
	if err == nil {
		err = s.put(ctx, ref, img)
	}
	if err != nil {
		return fmt.Errorf("images: cannot store %s: %w", ref, explain(err, s.dir))
	}
	return nil
}

// checkPin refuses a name with the digest of something else.
func checkPin(ref string, img v1.Image) error {
	r, err := name.ParseReference(ref)
	if err != nil {
		return err
	}
	pin, ok := r.(name.Digest)
	if !ok {
		return nil
	}
	have, err := img.Digest()
	if err == nil && have.String() != pin.DigestStr() {
		err = fmt.Errorf("the image has the digest %s, its name another: give the name without a digest", have)
	}
	return err
}

// putFetched stores an image that a registry gave for a name. A digest in it
// may be that of an index: the registry's answer was checked against it, and
// the image against the index.
func (s *Store) putFetched(ctx context.Context, ref string, img v1.Image) error {
	if err := s.put(ctx, ref, img); err != nil {
		return fmt.Errorf("images: cannot store %s: %w", ref, explain(err, s.dir))
	}
	return nil
}

func (s *Store) put(ctx context.Context, ref string, img v1.Image) error {
	r, err := name.ParseReference(ref)
	if err != nil {
		return err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return fmt.Errorf("cannot read its config: %w", err)
	}
	if config.Architecture == "" {
		return errors.New("its config names no architecture")
	}
	desc, err := partial.Descriptor(img)
	if err != nil {
		return err
	}
	desc.Platform = &v1.Platform{OS: "linux", Architecture: config.Architecture, Variant: config.Variant}
	desc.Annotations = map[string]string{refName: written(ref, r)}

	lock, err := LockDir(ctx, s.dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := s.sweep(); err != nil {
		return err
	}
	if err := s.writeBlobs(ctx, img, desc.Digest); err != nil {
		return err
	}
	index, err := s.index()
	if err != nil {
		return err
	}
	index.Manifests = slices.DeleteFunc(index.Manifests, func(d v1.Descriptor) bool {
		return sameName(d, r) && d.Platform != nil && d.Platform.Architecture == config.Architecture
	})
	index.Manifests = append(index.Manifests, *desc)
	return s.writeIndex(index)
}

// written is the reference as it was given, with the tag it implies.
func written(ref string, r name.Reference) string {
	if t, ok := r.(name.Tag); ok && !strings.HasSuffix(ref, ":"+t.TagStr()) {
		return ref + ":" + t.TagStr()
	}
	return ref
}

// named reports whether an entry of the index is what a reference names. A
// digest is that of the entry, or of the index that the entry was fetched by:
// then the entry's name has it.
func named(d v1.Descriptor, ref name.Reference) bool {
	if sameName(d, ref) {
		return true
	}
	have, err := name.ParseReference(d.Annotations[refName])
	digest, ok := ref.(name.Digest)
	return err == nil && ok && have.Context() == ref.Context() && d.Digest.String() == digest.DigestStr()
}

// sameName reports whether an entry of the index was stored by a reference.
func sameName(d v1.Descriptor, ref name.Reference) bool {
	have, err := name.ParseReference(d.Annotations[refName])
	return err == nil && have.Name() == ref.Name()
}

func (s *Store) writeBlobs(ctx context.Context, img v1.Image, digest v1.Hash) error {
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	for _, l := range layers {
		h, err := l.Digest()
		if err != nil {
			return fmt.Errorf("a layer has no digest: %w", err)
		}
		size, err := l.Size()
		if err != nil {
			return fmt.Errorf("layer %s: cannot tell its size: %w", h, err)
		}
		if err := s.writeBlob(ctx, h, size, l.Compressed); err != nil {
			return fmt.Errorf("layer %s: %w", h, err)
		}
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return err
	}
	name, err := img.ConfigName()
	if err != nil {
		return err
	}
	manifest, err := img.RawManifest()
	if err != nil {
		return err
	}
	raw := func(b []byte) func() (io.ReadCloser, error) {
		return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }
	}
	if err := s.writeBlob(ctx, name, int64(len(config)), raw(config)); err != nil {
		return fmt.Errorf("config: %w", err)
	}
	return s.writeBlob(ctx, digest, int64(len(manifest)), raw(manifest))
}

// writeBlob copies a blob into the layout unless a sound one is there. The
// library's own writer would take any file of that name for it, also one cut
// short by a crash.
func (s *Store) writeBlob(ctx context.Context, h v1.Hash, size int64, open func() (io.ReadCloser, error)) (err error) {
	if h.Algorithm != "sha256" {
		return fmt.Errorf("digest %s is not a sha256", h)
	}
	path := s.blob(h)
	if f, err := os.Open(path); err == nil {
		got, n, err := v1.SHA256(f)
		f.Close()
		if err == nil && got == h && n == size {
			return nil
		}
	}
	r, err := open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	whole, err := sized(r, size)
	if err != nil {
		return err
	}
	return writeVerified(path, cancelled(ctx, whole), h)
}

func (s *Store) blob(h v1.Hash) string { return filepath.Join(s.dir, "blobs", h.Algorithm, h.Hex) }

// sweep removes the temporary files of writers that were killed; the caller
// has the lock, so there are no others.
func (s *Store) sweep() error {
	for _, pattern := range []string{"tmp-*", filepath.Join("blobs", "sha256", "tmp-*")} {
		old, err := filepath.Glob(filepath.Join(escapeGlob(s.dir), pattern))
		if err != nil {
			return err
		}
		for _, f := range old {
			if err := os.Remove(f); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Store) index() (*v1.IndexManifest, error) {
	raw, err := os.ReadFile(filepath.Join(s.dir, "index.json"))
	if err != nil {
		return nil, fmt.Errorf("images: cannot read the local layout: %w", err)
	}
	var index v1.IndexManifest
	if err := json.Unmarshal(raw, &index); err != nil {
		return nil, fmt.Errorf("images: %s is not an OCI layout: index.json: %w; remove the folder, or choose another", s.dir, err)
	}
	return &index, nil
}

func (s *Store) writeIndex(index *v1.IndexManifest) error {
	raw, err := json.MarshalIndent(index, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(s.dir, "index.json"), bytes.NewReader(raw))
}

// Get returns the image with a name for an architecture (amd64, arm64). The
// error wraps [ErrNotFound] if there is none, and says so if there is one for
// other architectures.
func (s *Store) Get(ctx context.Context, ref, arch string) (v1.Image, error) {
	found, err := s.platforms(ctx, ref)
	if err != nil {
		return nil, fmt.Errorf("images: %s: %w", ref, err)
	}
	if img, ok := found[arch]; ok {
		return img, nil
	}
	if len(found) > 0 {
		return nil, fmt.Errorf("images: %s is there for %s, but %w for %s", ref, archs(found), ErrNotFound, arch)
	}
	return nil, fmt.Errorf("images: %s is %w", ref, ErrNotFound)
}

// platforms returns all images of a name, by architecture; the newest wins.
func (s *Store) platforms(ctx context.Context, ref string) (map[string]v1.Image, error) {
	r, err := name.ParseReference(ref)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	index, err := s.index()
	if err != nil {
		return nil, err
	}
	root, err := layout.ImageIndexFromPath(s.dir)
	if err != nil {
		return nil, err
	}
	found := map[string]v1.Image{}
	for _, d := range index.Manifests {
		if !named(d, r) {
			continue
		}
		if err := used(s.blob(d.Digest)); err != nil {
			return nil, fmt.Errorf("the local layout %s is damaged: %w; remove it and build or fetch again", s.dir, err)
		}
		if err := expand(root, d, found); err != nil {
			return nil, fmt.Errorf("the local layout %s is damaged: %w; remove it and build or fetch again", s.dir, err)
		}
	}
	return found, nil
}

// expand adds the image, or the images of the index, behind a descriptor.
func expand(root v1.ImageIndex, d v1.Descriptor, found map[string]v1.Image) error {
	if !d.MediaType.IsIndex() {
		img, err := root.Image(d.Digest)
		if err != nil {
			return err
		}
		return addImage(img, found)
	}
	index, err := root.ImageIndex(d.Digest)
	if err != nil {
		return err
	}
	return variants(index, found)
}

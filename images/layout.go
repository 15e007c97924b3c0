package images

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// layout is an OCI image layout of a volume's image, for each of its
// architectures.
func (a *assembly) layout(ctx context.Context, v Volume) (*tree, error) {
	t := newTree()
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex}
	for _, arch := range v.architectures(a.b.Arch) {
		img := a.components[use{ref: v.Image, arch: arch}.key(a.b.Arch)].image
		desc, err := partial.Descriptor(img)
		if err != nil {
			return nil, err
		}
		desc.Platform = &v1.Platform{OS: "linux", Architecture: arch}
		desc.Annotations = map[string]string{refName: v.Image}
		index.Manifests = append(index.Manifests, *desc)
		if err := a.blobs(ctx, t, img); err != nil {
			return nil, fmt.Errorf("image %s for %s: %w", v.Image, arch, err)
		}
	}
	text, err := json.Marshal(index)
	return t, errors.Join(err,
		t.put("index.json", newFile(0o644, string(text))),
		t.put("oci-layout", newFile(0o644, `{"imageLayoutVersion":"1.0.0"}`)))
}

// blobs puts manifest, config and layers of an image into a layout.
func (a *assembly) blobs(ctx context.Context, t *tree, img v1.Image) error {
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	for _, l := range layers {
		if err := a.layerBlob(ctx, t, l); err != nil {
			return err
		}
	}
	for _, get := range []func() ([]byte, error){img.RawConfigFile, img.RawManifest} {
		text, err := get()
		if err != nil {
			return err
		}
		if err := t.put(blobPath(fmt.Sprintf("%x", sha256.Sum256(text))), newFile(0o644, string(text))); err != nil {
			return err
		}
	}
	return nil
}

func (a *assembly) layerBlob(ctx context.Context, t *tree, l v1.Layer) (err error) {
	want, err := l.Digest()
	if err != nil {
		return err
	}
	size, err := l.Size()
	if err != nil {
		return err
	}
	r, err := l.Compressed()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	whole, err := sized(r, size)
	if err != nil {
		return fmt.Errorf("layer %s: %w", want, err)
	}
	sum := sha256.New()
	n := &inode{mode: typeFile | 0o644, size: size}
	if n.data, err = a.spool.add(io.TeeReader(cancelled(ctx, whole), sum), size); err != nil {
		return fmt.Errorf("layer %s: %w", want, err)
	}
	if got := fmt.Sprintf("%x", sum.Sum(nil)); got != want.Hex {
		return fmt.Errorf("layer %s is damaged: its digest is sha256:%s", want, got)
	}
	return t.put(blobPath(want.Hex), n)
}

func blobPath(hex string) string { return path.Join("blobs", "sha256", hex) }

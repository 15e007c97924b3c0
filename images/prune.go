package images

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
)

// grace is how long something stays in the store after its last use, whatever
// it takes: a build reads layers for as long as it needs, which is minutes on
// a slow host, and images of the store have no lock of their own.
const grace = time.Hour

// Prune removes what nobody needs: blobs of no image, which are what a newer
// image of the same name leaves behind, and then the images that were used
// longest ago, until the store holds at most limit bytes (0: no limit).
// Nothing that was used within the last hour is removed, and no image that is
// built here (see [Own]): those can be had again only by building them. It
// returns how many bytes were freed.
func (s *Store) Prune(ctx context.Context, limit int64) (freed int64, err error) {
	freed, err = s.prune(ctx, limit, time.Now().Add(-grace))
	if err != nil {
		err = fmt.Errorf("images: cannot prune the store: %w", explain(err, s.dir))
	}
	return freed, err
}

func (s *Store) prune(ctx context.Context, limit int64, before time.Time) (freed int64, err error) {
	lock, err := LockDir(ctx, s.dir)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	for {
		index, err := s.index()
		if err != nil {
			return freed, err
		}
		size, more, err := s.collect(index, before)
		freed += more
		if err != nil || limit == 0 || size <= limit {
			return freed, err
		}
		i := s.oldest(index, before)
		if i < 0 {
			return freed, nil // the rest is in use
		}
		index.Manifests = slices.Delete(index.Manifests, i, i+1)
		if err := errors.Join(ctx.Err(), s.writeIndex(index)); err != nil {
			return freed, err
		}
	}
}

// oldest is the index of the image that was used longest ago and may go; -1 if
// there is none.
func (s *Store) oldest(index *v1.IndexManifest, before time.Time) int {
	found, last := -1, before
	for i, d := range index.Manifests {
		info, err := os.Stat(s.blob(d.Digest))
		if err != nil || ownImage(d) || !info.ModTime().Before(last) {
			continue
		}
		found, last = i, info.ModTime()
	}
	return found
}

// ownImage reports whether an entry of the index is an image that is built here.
func ownImage(d v1.Descriptor) bool {
	ref, err := name.ParseReference(d.Annotations[refName])
	return err == nil && strings.HasPrefix(ref.Context().RepositoryStr(), Own)
}

// collect removes the blobs that no image of the index has and that were not
// written or used since. It returns what is left and what was freed.
func (s *Store) collect(index *v1.IndexManifest, before time.Time) (size, freed int64, err error) {
	needed := map[string]bool{}
	root, err := layout.ImageIndexFromPath(s.dir)
	if err != nil {
		return 0, 0, err
	}
	for _, d := range index.Manifests {
		if err := reach(root, d, needed); err != nil {
			return 0, 0, err
		}
	}
	dir := filepath.Join(s.dir, "blobs", "sha256")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, 0, err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return size, freed, err
		}
		if needed[e.Name()] || !info.ModTime().Before(before) {
			size += info.Size()
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
			return size, freed, err
		}
		freed += info.Size()
	}
	return size, freed, nil
}

// reach notes the blobs behind a descriptor.
func reach(root v1.ImageIndex, d v1.Descriptor, needed map[string]bool) error {
	needed[d.Digest.Hex] = true
	if d.MediaType.IsIndex() {
		inner, err := root.ImageIndex(d.Digest)
		if err != nil {
			return err
		}
		m, err := inner.IndexManifest()
		if err != nil {
			return err
		}
		for _, child := range m.Manifests {
			if err := reach(inner, child, needed); err != nil && !errors.Is(err, os.ErrNotExist) { // platforms that were not fetched
				return err
			}
		}
		return nil
	}
	if !d.MediaType.IsImage() {
		return nil
	}
	img, err := root.Image(d.Digest)
	if err != nil {
		return err
	}
	m, err := img.Manifest()
	if err != nil {
		return err
	}
	for _, b := range append(m.Layers, m.Config) {
		needed[b.Digest.Hex] = true
	}
	return nil
}

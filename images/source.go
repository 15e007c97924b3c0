package images

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// Own is the prefix of the references of our component images. They are built
// here and never asked of a registry, where anybody could claim the name.
const Own = "seatrial/"

// Source gives the image that a reference names, for one architecture.
type Source interface {
	Image(ctx context.Context, ref, arch string) (v1.Image, error)
}

// Resolve returns the source that looks into the store first and then asks the
// registry that the reference names, with the user's own credentials. What a
// registry gave is put into the store: it is fetched once, and the next build
// needs no network. A tag that has moved since is not noticed; use a digest to
// say exactly which image is meant.
func Resolve(store *Store) Source { return ResolveVia(store, nil, nil) }

// ResolveVia is [Resolve] with mirrors, which are asked in their order before
// the registry that they stand for. One that does not answer or has not the
// image is told to say (nil: nobody) and passed over. In the store and in errors
// an image keeps the name that it was asked for by; a digest in it is checked,
// whoever gave the image.
func ResolveVia(store *Store, mirrors []Mirror, say func(string)) Source {
	if say == nil {
		say = func(string) {}
	}
	return resolver{store, mirrors, say}
}

// Local returns the source of what is in the store, which asks nobody else.
func Local(store *Store) Source { return local{store} }

type local struct{ store *Store }

func (l local) Image(ctx context.Context, ref, arch string) (v1.Image, error) {
	return l.store.Get(ctx, ref, arch)
}

// storeLimit is what the store may hold after a fetch.
const storeLimit = 16 << 30

type resolver struct {
	store   *Store
	mirrors []Mirror
	say     func(string)
}

func (r resolver) Image(ctx context.Context, ref, arch string) (v1.Image, error) {
	img, err := r.store.Get(ctx, ref, arch)
	if err == nil || !errors.Is(err, ErrNotFound) {
		return img, err
	}
	if strings.HasPrefix(ref, Own) {
		return nil, advised{err, "build it: seatrial components --arch " + arch}
	}
	if fetchErr := r.fetch(ctx, ref, arch); fetchErr != nil {
		return nil, fmt.Errorf("%w, and cannot be fetched: %w", err, fetchErr)
	}
	if _, err := r.store.Prune(ctx, storeLimit); err != nil {
		return nil, err
	}
	return r.store.Get(ctx, ref, arch)
}

// fetch puts an image of a mirror or of its registry into the store.
func (r resolver) fetch(ctx context.Context, ref, arch string) error {
	parsed, err := name.ParseReference(ref)
	if err != nil {
		return err
	}
	for _, m := range r.mirrors {
		there, err := m.reference(parsed)
		if err == nil && there == nil {
			continue
		}
		if err == nil {
			err = r.fetchFrom(ctx, there, ref, arch)
		}
		if err == nil || ctx.Err() != nil {
			return cmpErr(ctx.Err(), err)
		}
		r.say(fmt.Sprintf("%s: the mirror %s is passed over: %v", ref, m.Host, err))
	}
	return r.fetchFrom(ctx, parsed, ref, arch)
}

// fetchFrom stores by the name ref what a registry has by the name from.
func (r resolver) fetchFrom(ctx context.Context, from name.Reference, ref, arch string) error {
	img, err := remoteImage(ctx, from, arch)
	if err != nil {
		return err
	}
	return r.store.putFetched(ctx, ref, img)
}

// remoteImage asks a registry for an image; its layers are read when they are used.
func remoteImage(ctx context.Context, parsed name.Reference, arch string) (v1.Image, error) {
	patient := remote.DefaultTransport.(*http.Transport).Clone()
	patient.ResponseHeaderTimeout = 30 * time.Second // a registry that accepts and says nothing
	desc, err := remote.Get(parsed, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain), remote.WithTransport(patient))
	if err != nil {
		return nil, advise(err, parsed)
	}
	found := map[string]v1.Image{}
	if desc.MediaType.IsIndex() {
		var index v1.ImageIndex
		if index, err = desc.ImageIndex(); err == nil {
			err = variants(index, found)
		}
	} else {
		var img v1.Image
		if img, err = desc.Image(); err == nil {
			err = addImage(img, found)
		}
	}
	if err != nil {
		return nil, advise(err, parsed)
	}
	img, ok := found[arch]
	if !ok {
		return nil, fmt.Errorf("the registry has %s for %s, not for %s: choose another image or architecture", parsed, archs(found), arch)
	}
	return img, nil
}

// Limits of indexes in indexes: a few short ones that name one another can stand
// for more images than there are anywhere.
const (
	maxNesting = 4
	maxImages  = 1000
)

// leaf is an image that an index names, and the index.
type leaf[T any] struct {
	v1.Descriptor
	in T
}

// leaves are the images for Linux of an index's list and of the indexes in it,
// which enter opens, those for every machine last: see [baselineLast].
func leaves[T any](list []v1.Descriptor, in T, enter func(in T, d v1.Descriptor) (T, []v1.Descriptor, error)) (found []leaf[T], err error) {
	seen := 0
	var walk func(list []v1.Descriptor, in T, depth int) error
	walk = func(list []v1.Descriptor, in T, depth int) error {
		if depth > maxNesting {
			return fmt.Errorf("its indexes are nested more than %d deep", maxNesting)
		}
		for _, d := range list {
			if seen++; seen > maxImages {
				return fmt.Errorf("its indexes name more than %d images", maxImages)
			}
			switch {
			case d.Platform != nil && d.Platform.OS != "linux": // attestations and other systems
			case d.MediaType.IsIndex():
				inner, more, err := enter(in, d)
				if err == nil {
					err = walk(more, inner, depth+1)
				}
				if err != nil {
					return err
				}
			case d.MediaType.IsImage():
				found = append(found, leaf[T]{d, in})
			}
		}
		return nil
	}
	err = walk(list, in, 0)
	return baselineLast(found), err
}

// variants adds the images of a multi-platform index, by architecture. An image
// of an unknown platform costs a request: its config tells the architecture.
func variants(index v1.ImageIndex, found map[string]v1.Image) error {
	m, err := index.IndexManifest()
	if err != nil {
		return err
	}
	all, err := leaves(m.Manifests, index, func(in v1.ImageIndex, d v1.Descriptor) (v1.ImageIndex, []v1.Descriptor, error) {
		inner, err := in.ImageIndex(d.Digest)
		if err != nil {
			return nil, nil, err
		}
		m, err := inner.IndexManifest()
		if err != nil {
			return nil, nil, err
		}
		return inner, m.Manifests, nil
	})
	if err != nil {
		return err
	}
	for _, l := range all {
		img, err := l.in.Image(l.Digest)
		if err == nil && l.Platform != nil {
			found[l.Platform.Architecture] = img
		} else if err == nil {
			err = addImage(img, found)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// addImage adds an image by the architecture that its config names.
func addImage(img v1.Image, found map[string]v1.Image) error {
	config, err := img.ConfigFile()
	if err == nil {
		found[config.Architecture] = img
	}
	return err
}

// baselineLast is the images of indexes with those for every machine of an
// architecture behind those that need a better one, such as linux/amd64/v3: who
// keeps the last of an architecture has what boots everywhere.
func baselineLast[T any](list []leaf[T]) []leaf[T] {
	rank := func(l leaf[T]) int {
		if p := l.Platform; p == nil || p.Variant == "" || p.Architecture == "arm64" && p.Variant == "v8" {
			return 1
		}
		return 0
	}
	slices.SortStableFunc(list, func(a, b leaf[T]) int { return cmp.Compare(rank(a), rank(b)) })
	return list
}

// archs lists the architectures of a set of images.
func archs(found map[string]v1.Image) string {
	if len(found) == 0 {
		return "no architecture of Linux"
	}
	return strings.Join(slices.Sorted(maps.Keys(found)), ", ")
}

// advise says what to do about a registry's refusal.
func advise(err error, ref name.Reference) error {
	var refused *transport.Error
	if !errors.As(err, &refused) {
		return advised{err, "check the network, or put the image into the local layout"}
	}
	switch refused.StatusCode {
	case http.StatusNotFound:
		return advised{err, "check the spelling of the name and tag"}
	case http.StatusUnauthorized, http.StatusForbidden:
		return advised{err, fmt.Sprintf("check the spelling, or log in to %s (docker login, or any tool that writes the same credentials)", ref.Context().RegistryStr())}
	}
	return err
}

package images

import (
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
func Resolve(store *Store) Source { return resolver{store} }

// Local returns the source of what is in the store, which asks nobody else.
func Local(store *Store) Source { return local{store} }

type local struct{ store *Store }

func (l local) Image(ctx context.Context, ref, arch string) (v1.Image, error) {
	return l.store.Get(ctx, ref, arch)
}

// storeLimit is what the store may hold after a fetch.
const storeLimit = 16 << 30

type resolver struct{ store *Store }

func (r resolver) Image(ctx context.Context, ref, arch string) (v1.Image, error) {
	img, err := r.store.Get(ctx, ref, arch)
	if err == nil || !errors.Is(err, ErrNotFound) {
		return img, err
	}
	if strings.HasPrefix(ref, Own) {
		return nil, fmt.Errorf("%w; build it: seatrial components --arch %s", err, arch)
	}
	img, fetchErr := fetch(ctx, ref, arch)
	if fetchErr != nil {
		return nil, fmt.Errorf("%w, and cannot be fetched: %w", err, fetchErr)
	}
	if err := r.store.putFetched(ctx, ref, img); err != nil {
		return nil, err
	}
	if _, err := r.store.Prune(ctx, storeLimit); err != nil {
		return nil, err
	}
	return r.store.Get(ctx, ref, arch)
}

// fetch asks the registry for an image; its layers are read when they are used.
func fetch(ctx context.Context, ref, arch string) (v1.Image, error) {
	parsed, err := name.ParseReference(ref)
	if err != nil {
		return nil, err
	}
	patient := remote.DefaultTransport.(*http.Transport).Clone()
	patient.ResponseHeaderTimeout = 30 * time.Second // a registry that accepts and says nothing
	desc, err := remote.Get(parsed, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain), remote.WithTransport(patient))
	if err != nil {
		return nil, advise(err, parsed)
	}
	found := map[string]v1.Image{}
	if desc.MediaType.IsIndex() {
		found, err = variants(desc)
	} else {
		var img v1.Image
		var config *v1.ConfigFile
		if img, err = desc.Image(); err == nil {
			if config, err = img.ConfigFile(); err == nil {
				found[config.Architecture] = img
			}
		}
	}
	if err != nil {
		return nil, advise(err, parsed)
	}
	img, ok := found[arch]
	if !ok {
		return nil, fmt.Errorf("the registry has %s for %s, not for %s: choose another image or architecture", ref, archs(found), arch)
	}
	return img, nil
}

// variants are the images of a multi-platform index, by architecture.
func variants(desc *remote.Descriptor) (map[string]v1.Image, error) {
	index, err := desc.ImageIndex()
	if err != nil {
		return nil, err
	}
	m, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	found := map[string]v1.Image{}
	for _, d := range m.Manifests {
		if d.Platform == nil || d.Platform.OS != "linux" || !d.MediaType.IsImage() {
			continue // attestations and other systems
		}
		if found[d.Platform.Architecture], err = index.Image(d.Digest); err != nil {
			return nil, err
		}
	}
	return found, nil
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
		return fmt.Errorf("%w; check the network, or put the image into the local layout", err)
	}
	switch refused.StatusCode {
	case http.StatusNotFound:
		return fmt.Errorf("%w; check the spelling of the name and tag", err)
	case http.StatusUnauthorized, http.StatusForbidden:
		return fmt.Errorf("%w; check the spelling, or log in to %s (docker login, or any tool that writes the same credentials)", err, ref.Context().RegistryStr())
	}
	return err
}

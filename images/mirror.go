package images

import (
	"fmt"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
)

// Mirror is a host that has what a registry has, by the same names or below a
// prefix of its own.
type Mirror struct {
	Registry string // as in references, such as docker.io
	Host     string // with the port, if it is not the usual one
	Prefix   string // path before the repository; may be empty
}

// ParseMirror reads REGISTRY=HOST[/PREFIX].
func ParseMirror(text string) (Mirror, error) {
	const form = "write REGISTRY=HOST[/PREFIX], such as docker.io=mirror.example.com/hub"
	registry, place, ok := strings.Cut(text, "=")
	host, prefix, _ := strings.Cut(place, "/")
	m := Mirror{registry, host, strings.Trim(prefix, "/")}
	if !ok || registry == "" || host == "" || strings.HasSuffix(host, ":") {
		return Mirror{}, fmt.Errorf("images: mirror %q: %s", text, form)
	}
	if !strings.ContainsAny(host, ".:") && host != "localhost" {
		return Mirror{}, fmt.Errorf("images: mirror %q: %q is no host to a registry's client: write it with its domain or port, such as %s:5000", text, host, host)
	}
	if _, err := name.NewRegistry(registry, name.StrictValidation); err != nil {
		return Mirror{}, fmt.Errorf("images: mirror %q: %w: %s", text, err, form)
	}
	if _, err := name.NewRepository(strings.TrimSuffix(m.Host+"/"+m.Prefix, "/") + "/x"); err != nil {
		return Mirror{}, fmt.Errorf("images: mirror %q: %w: %s", text, err, form)
	}
	return m, nil
}

// reference is the name that an image has on the mirror; nil if that is none of
// the image's registry.
func (m Mirror) reference(ref name.Reference) (name.Reference, error) {
	registry, err := name.NewRegistry(m.Registry)
	if err != nil || registry.RegistryStr() != ref.Context().RegistryStr() {
		return nil, err
	}
	parts := []string{m.Host}
	if m.Prefix != "" {
		parts = append(parts, m.Prefix)
	}
	repository, err := name.NewRepository(strings.Join(append(parts, ref.Context().RepositoryStr()), "/"))
	if err != nil {
		return nil, err
	}
	if digest, ok := ref.(name.Digest); ok {
		return repository.Digest(digest.DigestStr()), nil
	}
	return repository.Tag(ref.Identifier()), nil
}

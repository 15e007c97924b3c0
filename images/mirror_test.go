package images

import (
	"io"
	"log"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

func TestParseMirror(t *testing.T) {
	for text, want := range map[string]Mirror{
		"docker.io=mirror.example.com":         {"docker.io", "mirror.example.com", ""},
		"docker.io=localhost:5000/hub/library": {"docker.io", "localhost:5000", "hub/library"},
		"10.0.0.1:5000=localhost/":             {"10.0.0.1:5000", "localhost", ""},
	} {
		if got, err := ParseMirror(text); err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for text, want := range map[string]string{
		"docker.io": "write REGISTRY=HOST[/PREFIX]", "=x.org": "write REGISTRY=HOST", "docker.io=": "write REGISTRY=HOST",
		"docker.io=mirror": "such as mirror:5000", "docker.io=https://x.org": "write REGISTRY=HOST", "docker.io=x.org/A B": "write REGISTRY=HOST",
	} {
		if got, err := ParseMirror(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
}

// lone starts a registry with one image for amd64 and returns its host.
func lone(t *testing.T, repository, contents string) string {
	t.Helper()
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	host := strings.TrimPrefix(server.URL, "http://")
	if repository != "" {
		push(t, host+"/"+repository, image(t, "amd64", v1.Config{}, layer{file("a", contents)}))
	}
	return host
}

func push(t *testing.T, to string, what remote.Taggable) {
	t.Helper()
	ref, err := name.ParseReference(to)
	if err != nil {
		t.Fatal(err)
	}
	switch w := what.(type) {
	case v1.Image:
		err = remote.Write(ref, w)
	case v1.ImageIndex:
		err = remote.WriteIndex(ref, w)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Mirrors are asked in order, before the registry; whoever has not the image,
// or is not there, is told of and passed over.
func TestMirrors(t *testing.T) {
	down := httptest.NewServer(nil)
	dead := strings.TrimPrefix(down.URL, "http://")
	down.Close()
	blank, mirror, origin := lone(t, "", ""), lone(t, "deep/hub/app:1", "mirror"), lone(t, "app:1", "origin")
	originals := map[string]string{}
	for name, host := range map[string]string{"mirror": mirror + "/deep/hub", "origin": origin} {
		img, err := Resolve(open(t)).Image(t.Context(), host+"/app:1", "amd64")
		if err != nil {
			t.Fatal(err)
		}
		originals[name] = digest(t, img)
	}
	via := func(host, prefix string) Mirror { return Mirror{origin, host, prefix} }
	for _, c := range []struct {
		name    string
		mirrors []Mirror
		ref     string
		want    string
		passed  []string
	}{
		{"the first that has it", []Mirror{via(dead, ""), via(blank, ""), via(mirror, "deep/hub")}, "/app:1", "mirror", []string{dead, blank}},
		{"nobody but the registry", []Mirror{via(mirror, "")}, "/app:1", "origin", []string{mirror}},
		{"a digest that the mirror has not", []Mirror{via(mirror, "deep/hub")}, "/app@" + originals["origin"], "origin", []string{mirror}},
		{"a digest that it has", []Mirror{via(mirror, "deep/hub")}, "/app@" + originals["mirror"], "mirror", nil},
		{"another registry's", []Mirror{{"docker.io", mirror, "deep/hub"}}, "/app:1", "origin", nil},
	} {
		var passed []string
		s := open(t)
		img, err := ResolveVia(s, c.mirrors, func(line string) {
			_, rest, _ := strings.Cut(line, "the mirror ")
			host, _, _ := strings.Cut(rest, " is passed over: ")
			passed = append(passed, host)
		}).Image(t.Context(), origin+c.ref, "amd64")
		if err != nil || digest(t, img) != originals[c.want] {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if d := cmp.Diff(c.passed, passed); d != "" {
			t.Errorf("%s: %s", c.name, d)
		}
		if _, err := s.Get(t.Context(), origin+c.ref, "amd64"); err != nil {
			t.Errorf("%s: not stored by its own name: %v", c.name, err)
		}
	}
	if _, err := ResolveVia(open(t), []Mirror{via(mirror, "")}, nil).Image(t.Context(), origin+"/none:1", "amd64"); err == nil || !strings.Contains(err.Error(), origin+"/none:1 is not in the local layout") || strings.Contains(err.Error(), mirror) {
		t.Errorf("an image that nobody has: %v", err)
	}
}

// Of several images for one architecture the one for every machine is taken,
// wherever it stands; nested indexes and images without a platform count too.
func TestVariants(t *testing.T) {
	host := lone(t, "", "")
	of := func(arch, contents string) v1.Image { return image(t, arch, v1.Config{}, layer{file("a", contents)}) }
	add := func(arch, variant, contents string) mutate.IndexAddendum {
		return mutate.IndexAddendum{Add: of(arch, contents), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch, Variant: variant}}}
	}
	v3, plain, v8, v9 := add("amd64", "v3", "v3"), add("amd64", "", "plain"), add("arm64", "v8", "v8"), add("arm64", "v9", "v9")
	nested := mutate.IndexAddendum{Add: mutate.AppendManifests(empty.Index, v3, plain, v9, v8)}
	for tag, c := range map[string]struct {
		parts      []mutate.IndexAddendum
		amd64, arm string
	}{
		"first":   {[]mutate.IndexAddendum{plain, v3, v8, v9}, "plain", "v8"},
		"last":    {[]mutate.IndexAddendum{v3, plain, v9, v8}, "plain", "v8"},
		"only":    {[]mutate.IndexAddendum{v3, v9}, "v3", "v9"},
		"nested":  {[]mutate.IndexAddendum{nested}, "plain", "v8"},
		"unnamed": {[]mutate.IndexAddendum{{Add: of("amd64", "unnamed")}, v8}, "unnamed", "v8"},
	} {
		push(t, host+"/x:"+tag, mutate.AppendManifests(empty.Index, c.parts...))
		for arch, want := range map[string]string{"amd64": c.amd64, "arm64": c.arm} {
			img, err := Resolve(open(t)).Image(t.Context(), host+"/x:"+tag, arch)
			if err != nil {
				t.Errorf("%s for %s: %v", tag, arch, err)
			} else if digest(t, img) != digest(t, of(arch, want)) {
				t.Errorf("%s for %s is not %s", tag, arch, want)
			}
		}
	}
}

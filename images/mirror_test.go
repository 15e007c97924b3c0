package images

import (
	"io"
	"log"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
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

// Indexes lie in one another: four deep and no more, and not so many that a few
// short ones stand for a million images. What every machine runs comes last,
// whichever of them lists it.
func TestLeaves(t *testing.T) {
	at := func(kind types.MediaType, hex, arch, variant string) v1.Descriptor {
		return v1.Descriptor{MediaType: kind, Digest: v1.Hash{Algorithm: "sha256", Hex: hex}, Platform: &v1.Platform{OS: "linux", Architecture: arch, Variant: variant}}
	}
	nested := func(hex string) v1.Descriptor {
		return v1.Descriptor{MediaType: types.OCIImageIndex, Digest: v1.Hash{Hex: hex}}
	}
	other := at(types.OCIManifestSchema1, "w", "amd64", "")
	other.Platform.OS = "windows"
	plain := at(types.OCIManifestSchema1, "plain", "amd64", "")
	for name, c := range map[string]struct {
		indexes map[string][]v1.Descriptor
		want    string
		err     string
	}{
		"across":      {map[string][]v1.Descriptor{"": {nested("a"), nested("b"), other}, "a": {plain}, "b": {at(types.OCIManifestSchema1, "v3", "amd64", "v3")}}, "v3@b plain@a", ""},
		"four":        {map[string][]v1.Descriptor{"": {nested("1")}, "1": {nested("2")}, "2": {nested("3")}, "3": {nested("4")}, "4": {plain}}, "plain@4", ""},
		"five":        {map[string][]v1.Descriptor{"": {nested("1")}, "1": {nested("2")}, "2": {nested("3")}, "3": {nested("4")}, "4": {nested("5")}, "5": {plain}}, "", "nested more than 4 deep"},
		"loop":        {map[string][]v1.Descriptor{"": {nested("1")}, "1": {nested("")}}, "", "nested more than 4 deep"},
		"many":        {map[string][]v1.Descriptor{"": slices.Repeat([]v1.Descriptor{nested("1")}, 100), "1": slices.Repeat([]v1.Descriptor{plain}, 100)}, "", "name more than 1000 images"},
		"none inside": {map[string][]v1.Descriptor{"": {nested("1")}, "1": nil}, "", ""},
	} {
		all, err := leaves(c.indexes[""], "", func(_ string, d v1.Descriptor) (string, []v1.Descriptor, error) {
			return d.Digest.Hex, c.indexes[d.Digest.Hex], nil
		})
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: got %v, want %q", name, err, c.err)
		}
		var got []string
		for _, l := range all {
			got = append(got, l.Digest.Hex+"@"+l.in)
		}
		if err == nil && strings.Join(got, " ") != c.want {
			t.Errorf("%s: got %v, want %s", name, got, c.want)
		}
	}
}

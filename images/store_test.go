package images

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

func open(t testing.TB) *Store {
	t.Helper()
	s, err := OpenStore(filepath.Join(t.TempDir(), "oci"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func digest(t testing.TB, img v1.Image) string {
	t.Helper()
	h, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return h.String()
}

func put(t testing.TB, s *Store, ref string, img v1.Image) {
	t.Helper()
	if err := s.Put(t.Context(), ref, img); err != nil {
		t.Fatal(err)
	}
}

func TestStore(t *testing.T) {
	s := open(t)
	ctx := t.Context()
	first := packedImage(t, "amd64", layer{file("a", "1")})
	second := packedImage(t, "amd64", layer{file("a", "2")})
	arm := packedImage(t, "arm64", layer{file("a", "3")})
	put(t, s, "seatrial/x", first)
	put(t, s, "seatrial/y:1", first)
	put(t, s, "seatrial/x:latest", second)
	put(t, s, "seatrial/x", arm)
	for _, c := range []struct {
		ref, arch string
		want      v1.Image
	}{
		{"seatrial/x", "amd64", second}, {"seatrial/x:latest", "arm64", arm}, {"seatrial/y:1", "amd64", first},
		{"seatrial/y@" + digest(t, first), "amd64", first},
	} {
		got, err := s.Get(ctx, c.ref, c.arch)
		if err != nil {
			t.Fatalf("%s %s: %v", c.ref, c.arch, err)
		}
		if digest(t, got) != digest(t, c.want) {
			t.Errorf("%s for %s is another image", c.ref, c.arch)
		}
		if err := validate.Image(got); err != nil {
			t.Errorf("%s: %v", c.ref, err)
		}
	}
	for ref, want := range map[string]string{
		"seatrial/none":                     "not in the local layout",
		"seatrial/y":                        "not in the local layout",
		"seatrial/x@" + digest(t, first):    "not in the local layout", // replaced
		"seatrial/y@" + digest(t, second):   "not in the local layout",
		"localhost:1/seatrial/x":            "not in the local layout",
		"seatrial/y:1 for another platform": "could not parse reference",
	} {
		if _, err := s.Get(ctx, ref, "amd64"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", ref, err)
		}
	}
	if _, err := s.Get(ctx, "seatrial/y:1", "arm64"); !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "is there for amd64, but not") {
		t.Errorf("another architecture: %v", err)
	}
	if err := s.Put(ctx, "seatrial/z", empty.Image); err == nil || !strings.Contains(err.Error(), "names no architecture") {
		t.Errorf("no architecture: %v", err)
	}
	if again, err := OpenStore(s.Dir()); err != nil {
		t.Error(err)
	} else if _, err := again.Get(ctx, "seatrial/x", "arm64"); err != nil {
		t.Error(err)
	}
}

func TestStoreNestedIndex(t *testing.T) {
	s := open(t)
	arm := image(t, "arm64", v1.Config{}, layer{file("a", "3")})
	put(t, s, "hidden", arm) // brings the blobs
	raw, err := s.index()
	if err != nil {
		t.Fatal(err)
	}
	inner := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: arm})
	var h v1.Hash
	var size int64
	for _, index := range []v1.ImageIndex{inner, mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: inner})} {
		m, err := index.RawManifest()
		if err != nil {
			t.Fatal(err)
		}
		if h, size, err = v1.SHA256(bytes.NewReader(m)); err != nil {
			t.Fatal(err)
		}
		if err := writeFile(s.blob(h), bytes.NewReader(m)); err != nil {
			t.Fatal(err)
		}
	}
	raw.Manifests = []v1.Descriptor{{MediaType: "application/vnd.oci.image.index.v1+json", Digest: h, Size: size, Annotations: map[string]string{refName: "other/tool:1"}}}
	if err := s.writeIndex(raw); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(t.Context(), "other/tool:1", "arm64"); err != nil {
		t.Errorf("an index that another tool wrote: %v", err)
	}
	if _, err := s.Get(t.Context(), "other/tool:1", "amd64"); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v", err)
	}
}

func TestStoreDamage(t *testing.T) {
	s := open(t)
	img := packedImage(t, "amd64", layer{file("a", "1")})
	put(t, s, "x", img)
	blobs, err := filepath.Glob(filepath.Join(s.dir, "blobs", "sha256", "*"))
	if err != nil || len(blobs) != 3 {
		t.Fatalf("%v %v", blobs, err)
	}
	for _, b := range blobs { // a crash cut them short
		if err := os.Truncate(b, 5); err != nil {
			t.Fatal(err)
		}
	}
	left := filepath.Join(s.dir, "blobs", "sha256", "tmp-killed")
	if err := os.WriteFile(left, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(t.Context(), "x", "amd64"); err == nil || !strings.Contains(err.Error(), "is damaged") {
		t.Errorf("damage is not a missing image: %v", err)
	}
	put(t, s, "x", img)
	got, err := s.Get(t.Context(), "x", "amd64")
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(got); err != nil {
		t.Errorf("putting it again did not mend it: %v", err)
	}
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Error("what a killed writer left is still there")
	}
	if err := os.WriteFile(filepath.Join(s.dir, "index.json"), []byte("<html>"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenStore(s.dir); err == nil || !strings.Contains(err.Error(), "is not an OCI layout") {
		t.Errorf("got %v", err)
	}
}

// A layer that does not have its own digest never gets into the layout.
func TestStorePutLiar(t *testing.T) {
	s := open(t)
	img := image(t, "amd64", v1.Config{}, layer{file("a", "1")})
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	err = s.Put(t.Context(), "x", lyingImage{img, []v1.Layer{compressedLiar{layers[0]}}})
	if err == nil || !strings.Contains(err.Error(), "its contents have the digest") {
		t.Errorf("got %v", err)
	}
	left, err := filepath.Glob(filepath.Join(s.dir, "blobs", "sha256", "*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

type lyingImage struct {
	v1.Image
	layers []v1.Layer
}

func (l lyingImage) Layers() ([]v1.Layer, error) { return l.layers, nil }

type compressedLiar struct{ v1.Layer }

func (compressedLiar) Compressed() (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader("lies")), nil
}

func (compressedLiar) Size() (int64, error) { return int64(len("lies")), nil }

// forgedSize is an image whose manifest says other sizes of its layers.
type forgedSize struct {
	v1.Image
	manifest *v1.Manifest
}

func forge(t *testing.T, img v1.Image, more int64) v1.Image {
	t.Helper()
	m, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	m = m.DeepCopy()
	for i := range m.Layers {
		m.Layers[i].Size += more
	}
	return forgedSize{img, m}
}

func (f forgedSize) Manifest() (*v1.Manifest, error) { return f.manifest, nil }
func (f forgedSize) RawManifest() ([]byte, error)    { return json.Marshal(f.manifest) }
func (f forgedSize) Digest() (v1.Hash, error)        { return partial.Digest(f) }
func (f forgedSize) Size() (int64, error)            { return partial.Size(f) }

// A layer that is longer or shorter than its descriptor says is told by that,
// wherever the image comes from.
func TestForgedSize(t *testing.T) {
	host := serve(t)
	img := packedImage(t, "amd64", layer{file("a", strings.Repeat("abc", 1000))})
	for more, want := range map[int64]string{0: "", -1: "bytes, its descriptor in the manifest says", 1: "bytes, its descriptor in the manifest says", -1 << 40: "its descriptor in the manifest says -"} {
		forged := forge(t, img, more)
		check := func(from string, err error) {
			t.Helper()
			if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("%s, %d bytes more: got %v, want %q", from, more, err, want)
			}
		}
		_, err := open(t).Import(t.Context(), ociArchive(t, "a:1", false, nil, forged), "")
		check("archive", err)
		there, err := name.ParseReference(fmt.Sprintf("%s/forged:%d", host, more+1<<41))
		if err != nil {
			t.Fatal(err)
		}
		if err := remote.Write(there, forged); err != nil {
			t.Fatal(err)
		}
		_, err = Resolve(open(t)).Image(t.Context(), there.Name(), "amd64")
		if err != nil { // the length that it announces is told by the library
			err = errors.New(strings.Replace(err.Error(), "does not match expected size", "bytes, its descriptor in the manifest says", 1))
		}
		check("registry", err)

		s := open(t)
		put(t, s, "x", img)
		raw, err := forged.RawManifest()
		if err != nil {
			t.Fatal(err)
		}
		if err := writeFile(s.blob(digestHash(t, forged)), bytes.NewReader(raw)); err != nil {
			t.Fatal(err)
		}
		index, err := s.index()
		if err != nil {
			t.Fatal(err)
		}
		index.Manifests[0].Digest, index.Manifests[0].Size = digestHash(t, forged), int64(len(raw))
		if err := s.writeIndex(index); err != nil {
			t.Fatal(err)
		}
		local, err := s.Get(t.Context(), "x", "amd64")
		if err != nil {
			t.Fatal(err)
		}
		_, err = flatten(t.Context(), local, testSpool(t))
		check("layout", err)
	}
}

func digestHash(t *testing.T, img v1.Image) v1.Hash {
	t.Helper()
	h, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// A stream is read no further than the declared size.
func TestSizedStopsAtOnce(t *testing.T) {
	given := 0
	endless := readerFunc(func(p []byte) (int, error) { given += len(p); return len(p), nil })
	r, err := sized(endless, 1000)
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{r}, make([]byte, 300))
	if n != 1000 || given != 1200 || err == nil || !strings.Contains(err.Error(), "has more than 1000 bytes, its descriptor in the manifest says 1000") {
		t.Errorf("%d of %d bytes: %v", n, given, err)
	}
	if r, err = sized(strings.NewReader("ab"), 2); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); string(got) != "ab" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

// TestMain makes this program the other process of TestStoreConcurrent and
// the killed one of TestKilledBuild.
func TestMain(m *testing.M) {
	switch {
	case os.Getenv(childStore) != "":
		os.Exit(childPuts(os.Getenv(childStore)))
	case os.Getenv(childBuild) != "":
		os.Exit(childBuilds(os.Getenv(childBuild)))
	}
	os.Exit(m.Run())
}

const childStore = "SEATRIAL_TEST_STORE"

func childPuts(dir string) int {
	s, err := OpenStore(dir)
	for i := 0; i < 10 && err == nil; i++ {
		var img v1.Image
		if img, err = mutate.ConfigFile(empty.Image, &v1.ConfigFile{Architecture: "amd64", Author: fmt.Sprint(i)}); err == nil {
			err = s.Put(context.Background(), fmt.Sprintf("child/x:%d", i), img)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func TestStoreConcurrent(t *testing.T) {
	s := open(t)
	child := exec.CommandContext(t.Context(), os.Args[0])
	child.Env = append(os.Environ(), childStore+"="+s.dir)
	var wg sync.WaitGroup
	wg.Go(func() {
		if out, err := child.CombinedOutput(); err != nil {
			t.Errorf("child: %v\n%s", err, out)
		}
	})
	for g := range 2 {
		wg.Go(func() {
			for i := range 10 {
				if err := s.Put(context.Background(), fmt.Sprintf("here/x:%d-%d", g, i), image(t, "amd64", v1.Config{}, layer{file("c", fmt.Sprint(i))})); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	index, err := s.index()
	if err != nil {
		t.Fatal(err)
	}
	if len(index.Manifests) != 30 {
		t.Errorf("%d images of 30", len(index.Manifests))
	}
}

func TestLockHonoursContext(t *testing.T) {
	s := open(t)
	lock, err := LockDir(t.Context(), s.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err = s.Put(ctx, "x", image(t, "amd64", v1.Config{}))
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "another process") {
		t.Errorf("got %v", err)
	}
}

// serve starts a registry with an index for amd64 and arm64 and a lone image for arm64.
func serve(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	host := strings.TrimPrefix(server.URL, "http://")
	fill(t, host)
	return host
}

// fill puts an index and a lone image into a registry, and returns the index.
func fill(t *testing.T, host string) v1.ImageIndex {
	t.Helper()
	var index v1.ImageIndex = empty.Index
	for _, arch := range []string{"amd64", "arm64"} {
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add:        image(t, arch, v1.Config{}, layer{file("arch", arch)}),
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}},
		})
	}
	ref, err := name.ParseReference(host + "/both:1")
	if err != nil {
		t.Fatal(err)
	}
	lone, err := name.ParseReference(host + "/lone:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(ref, index); err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(lone, image(t, "arm64", v1.Config{}, layer{file("arch", "lone")})); err != nil {
		t.Fatal(err)
	}
	return index
}

func TestResolve(t *testing.T) {
	host := serve(t)
	s := open(t)
	source := Resolve(s)
	for _, arch := range []string{"amd64", "arm64"} {
		img, err := source.Image(t.Context(), host+"/both:1", arch)
		if err != nil {
			t.Fatal(err)
		}
		f, err := flatten(t.Context(), img, testSpool(t))
		if err != nil {
			t.Fatal(err)
		}
		if got := describeEntry(f.tree.find("arch")); got != "file 644 0:0 "+arch {
			t.Errorf("%s: got %s", arch, got)
		}
		if _, err := s.Get(t.Context(), host+"/both:1", arch); err != nil {
			t.Errorf("the next build would ask the registry again: %v", err)
		}
	}
	for _, c := range []struct{ ref, arch, want string }{
		{host + "/both:1", "riscv64", "the registry has " + host + "/both:1 for amd64, arm64, not for riscv64"},
		{host + "/lone:1", "amd64", "for arm64, not for amd64: choose another"},
		{host + "/none:1", "amd64", "check the spelling"},
		{host + "/both:2", "amd64", "check the spelling"},
		{"seatrial/none", "arm64", "not in the local layout; build it: seatrial components --arch arm64"},
	} {
		if _, err := source.Image(t.Context(), c.ref, c.arch); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s for %s: %v\nwant %s", c.ref, c.arch, err, c.want)
		}
	}
	put(t, s, "seatrial/x", image(t, "amd64", v1.Config{}))
	if _, err := source.Image(t.Context(), "seatrial/x", "arm64"); err == nil || !strings.Contains(err.Error(), "is there for amd64, but not in the local layout for arm64; build it") {
		t.Errorf("got %v", err)
	}
}

// The digest of an index pins the images of all its architectures, and what was
// fetched by it is found again when the registry is gone.
func TestResolveIndexDigest(t *testing.T) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	index := fill(t, host)
	h, err := index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	s := open(t)
	pins := []string{host + "/both@" + h.String(), host + "/both:1@" + h.String()}
	images := map[string]string{}
	for _, arch := range bothArchs {
		img, err := Resolve(s).Image(t.Context(), pins[0], arch)
		if err != nil {
			t.Fatalf("%s: %v", arch, err)
		}
		images[arch] = digest(t, img)
	}
	if images["amd64"] == images["arm64"] {
		t.Error("both architectures got the same image")
	}
	if _, err := Resolve(s).Image(t.Context(), pins[0][:len(pins[0])-4]+"0000", "amd64"); err == nil || !strings.Contains(err.Error(), "check the spelling") {
		t.Errorf("another digest: %v", err)
	}
	server.Close()
	for _, pin := range append(pins, host+"/both@"+images["amd64"]) {
		if img, err := Resolve(s).Image(t.Context(), pin, "amd64"); err != nil || digest(t, img) != images["amd64"] {
			t.Errorf("%s without network: %v", pin, err)
		}
	}
	if img, err := Local(s).Image(t.Context(), pins[1], "arm64"); err != nil || digest(t, img) != images["arm64"] {
		t.Errorf("arm64 without network: %v", err)
	}
	if _, err := Local(s).Image(t.Context(), host+"/both@"+images["arm64"], "amd64"); !errors.Is(err, ErrNotFound) {
		t.Errorf("the digest of another architecture: %v", err)
	}
}

// A name's digest is a promise: nobody stores another image by it, and a name
// with a digest takes nothing from the tag of the same image.
func TestStorePin(t *testing.T) {
	s := open(t)
	first, second := packedImage(t, "amd64", layer{file("a", "1")}), packedImage(t, "amd64", layer{file("a", "2")})
	put(t, s, "x:1", first)
	pin := "x@" + digest(t, first)
	if err := s.Put(t.Context(), pin, second); err == nil || !strings.Contains(err.Error(), "give the name without a digest") {
		t.Errorf("got %v", err)
	}
	put(t, s, pin, first)
	for _, ref := range []string{"x:1", pin} {
		if img, err := s.Get(t.Context(), ref, "amd64"); err != nil || digest(t, img) != digest(t, first) {
			t.Errorf("%s: %v", ref, err)
		}
	}
}

// Our own names never reach a registry, whatever it would say.
func TestResolveKeepsOwnNames(t *testing.T) {
	asked := make(chan string, 10)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.URL.Path
		http.Error(w, "go away", http.StatusForbidden)
	}))
	t.Cleanup(server.Close)
	source := Resolve(open(t))
	if _, err := source.Image(t.Context(), "seatrial/kernel", "amd64"); err == nil || len(asked) > 0 {
		t.Errorf("asked %d times, %v", len(asked), err)
	}
	if _, err := source.Image(t.Context(), strings.TrimPrefix(server.URL, "http://")+"/x", "amd64"); err == nil || !strings.Contains(err.Error(), "log in") || len(asked) == 0 {
		t.Errorf("asked %d times, %v", len(asked), err)
	}
}

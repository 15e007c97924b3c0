package images

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// ociArchive is an OCI archive of images, one index entry each, and a nested
// index if nest is set.
func ociArchive(t *testing.T, ref string, nest bool, damage func(name string, data []byte) []byte, images ...v1.Image) string {
	t.Helper()
	files := map[string][]byte{"oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`)}
	blob := func(raw []byte, err error) v1.Hash {
		h, _, _ := v1.SHA256(bytes.NewReader(raw))
		if err != nil {
			t.Fatal(err)
		}
		files[blobPath(h.Hex)] = raw
		return h
	}
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex}
	for _, img := range images {
		d, err := partial.Descriptor(img)
		if err != nil {
			t.Fatal(err)
		}
		config, err := img.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		d.Platform = &v1.Platform{OS: config.OS, Architecture: config.Architecture}
		d.Annotations = map[string]string{refName: "latest", "io.containerd.image.name": ref}
		index.Manifests = append(index.Manifests, *d)
		blob(img.RawManifest())
		blob(img.RawConfigFile())
		layers, err := img.Layers()
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range layers {
			r, err := l.Compressed()
			if err != nil {
				t.Fatal(err)
			}
			blob(io.ReadAll(r))
		}
	}
	text, err := json.Marshal(index)
	if err != nil {
		t.Fatal(err)
	}
	if nest {
		h := blob(text, nil)
		outer := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{
			{MediaType: types.OCIImageIndex, Digest: h, Size: int64(len(text)), Annotations: map[string]string{"io.containerd.image.name": ref}},
		}}
		if text, err = json.Marshal(outer); err != nil {
			t.Fatal(err)
		}
	}
	files["index.json"] = text
	var all layer
	for name, data := range files {
		if damage != nil {
			data = damage(name, data)
		}
		all = append(all, file(name, string(data)))
	}
	path := filepath.Join(t.TempDir(), "image.tar")
	if err := os.WriteFile(path, all.archive(t), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestImport(t *testing.T) {
	amd := image(t, "amd64", v1.Config{Cmd: []string{"x"}}, layer{file("a", "amd64")}, layer{file(".wh.a", ""), file("b", "x")})
	arm := image(t, "arm64", v1.Config{}, layer{file("a", "arm64")})
	docker := func(tags ...string) string {
		path := filepath.Join(t.TempDir(), "save.tar")
		refs := map[name.Reference]v1.Image{}
		for _, text := range tags {
			tag, err := name.NewTag(text)
			if err != nil {
				t.Fatal(err)
			}
			refs[tag] = amd
		}
		if err := tarball.MultiRefWriteToFile(path, refs); err != nil {
			t.Fatal(err)
		}
		return path
	}
	zipped := func(path string) string {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path+".gz", compressed(t, raw, "gzip"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path + ".gz"
	}
	for what, c := range map[string]struct {
		file, ref, stored string
		archs             []string
	}{
		"docker save":        {docker("a/b:1"), "", "a/b:1", []string{"amd64"}},
		"docker save, gzip":  {zipped(docker("a/b:1")), "", "a/b:1", []string{"amd64"}},
		"docker save, named": {docker("a/b:1"), "c:2", "c:2", []string{"amd64"}},
		"OCI":                {ociArchive(t, "a/b:1", false, nil, amd), "", "a/b:1", []string{"amd64"}},
		"OCI, platforms":     {ociArchive(t, "a/b:1", false, nil, amd, arm), "", "a/b:1", []string{"amd64", "arm64"}},
		"OCI, nested":        {ociArchive(t, "a/b:1", true, nil, amd, arm), "", "a/b:1", []string{"amd64", "arm64"}},
		"OCI, no name":       {ociArchive(t, "", false, nil, amd), "d:3", "d:3", []string{"amd64"}},
	} {
		t.Run(what, func(t *testing.T) {
			s, err := OpenStore(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			names, err := s.Import(t.Context(), c.file, c.ref)
			if err != nil || len(names) != len(c.archs) || names[0] != c.stored {
				t.Fatalf("%q, %v", names, err)
			}
			hasPlatforms(t, s, c.stored, c.archs)
		})
	}
}

// hasPlatforms checks that an image is stored for each architecture, and not one
// in the place of another: that for amd64 has the file b, and no other has it.
func hasPlatforms(t *testing.T, s *Store, ref string, archs []string) {
	t.Helper()
	for _, arch := range archs {
		img, err := s.Get(t.Context(), ref, arch)
		if err != nil {
			t.Fatal(err)
		}
		f, err := flatten(t.Context(), img, testSpool(t))
		if err != nil {
			t.Fatal(err)
		}
		if has := f.tree.find("b") != nil; has != (arch == "amd64") {
			t.Errorf("%s has b: %v", arch, has)
		}
	}
}

func TestImportRefuses(t *testing.T) {
	amd := packedImage(t, "amd64", layer{file("a", "amd64")})
	swap := func(part, with string) func(string, []byte) []byte {
		return func(_ string, data []byte) []byte { return bytes.ReplaceAll(data, []byte(part), []byte(with)) }
	}
	short := func(name string, data []byte) []byte {
		if strings.HasPrefix(name, "blobs/") && bytes.HasPrefix(data, []byte{0x1f, 0x8b}) {
			return data[:len(data)-1]
		}
		return data
	}
	flip := func(name string, data []byte) []byte {
		if strings.HasPrefix(name, "blobs/") && bytes.HasPrefix(data, []byte{0x1f, 0x8b}) {
			data = bytes.Clone(data)
			data[len(data)-1] ^= 1
		}
		return data
	}
	other := filepath.Join(t.TempDir(), "other.tar")
	if err := os.WriteFile(other, layer{file("x", "")}.archive(t), 0o600); err != nil {
		t.Fatal(err)
	}
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, bytes.Repeat([]byte("no tar"), 200), 0o600); err != nil {
		t.Fatal(err)
	}
	climbing := filepath.Join(t.TempDir(), "climbing.tar")
	if err := os.WriteFile(climbing, layer{{Typeflag: tar.TypeSymlink, Name: "manifest.json", Linkname: "/etc/passwd"}}.archive(t), 0o600); err != nil {
		t.Fatal(err)
	}
	endless := filepath.Join(t.TempDir(), "endless.tar")
	if err := os.WriteFile(endless, layer{file(strings.Repeat("abcdefg/", 511)+"abcdefgh", "")}.archive(t), 0o600); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct{ file, want string }{
		"a long name":     {endless, "has 4096 bytes, 4095 are the limit of a name"},
		"no file":         {filepath.Join(t.TempDir(), "none"), "no such file"},
		"no tar":          {text, "not a sound tar archive"},
		"another archive": {other, "neither manifest.json nor index.json"},
		"a link":          {climbing, "neither manifest.json nor index.json"},
		"no name":         {ociArchive(t, "", false, nil, amd), "its image has no name: give one"},
		"damaged config":  {ociArchive(t, "a:1", false, swap("amd64", "arm64"), amd), "is damaged: its digest is"},
		"truncated layer": {ociArchive(t, "a:1", false, short, amd), "its descriptor in the manifest says"},
		"damaged layer":   {ociArchive(t, "a:1", false, flip, amd), "its contents have the digest"},
		"damaged index":   {ociArchive(t, "a:1", false, swap(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json"`, "{{"), amd), "an index is damaged"},
	} {
		s, err := OpenStore(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		names, err := s.Import(t.Context(), c.file, "")
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %q, %v, want %s", what, names, err, c.want)
		}
		index, err := s.index()
		if err != nil || len(index.Manifests) != 0 {
			t.Errorf("%s: something was stored: %+v, %v", what, index, err)
		}
	}
}

// A FIFO, which would be waited for, is refused; standard input is read, and an
// interrupt ends the wait for it.
func TestImportPipe(t *testing.T) {
	s := open(t)
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Import(t.Context(), fifo, ""); err == nil || !strings.Contains(err.Error(), `is not a regular file: name a file or a folder, or pipe the archive in and name "-"`) {
		t.Errorf("got %v", err)
	}
	old := os.Stdin
	defer func() { os.Stdin = old }()
	archive, err := os.Open(ociArchive(t, "a:1", false, nil, image(t, "amd64", v1.Config{}, layer{file("a", "1")})))
	if err != nil {
		t.Fatal(err)
	}
	defer archive.Close()
	os.Stdin = archive
	if names, err := s.Import(t.Context(), "-", ""); err != nil || len(names) != 1 || names[0] != "a:1" {
		t.Errorf("%q, %v", names, err)
	}
	silent, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	defer writer.Close()
	os.Stdin = silent
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := s.Import(ctx, "-", ""); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

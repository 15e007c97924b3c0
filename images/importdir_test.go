package images

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// unpackedTo is the folder of an archive's files.
func unpackedTo(t *testing.T, archive string) string {
	t.Helper()
	raw, err := os.ReadFile(archive)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for r := tar.NewReader(bytes.NewReader(raw)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return dir
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(dir, h.Name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, data, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestImportFolder(t *testing.T) {
	amd := image(t, "amd64", v1.Config{}, layer{file("a", "amd64")}, layer{file("b", "x")})
	arm := image(t, "arm64", v1.Config{}, layer{file("a", "arm64")})
	linked := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(unpackedTo(t, ociArchive(t, "a/b:1", false, nil, amd)), linked); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		dir, ref, stored string
		archs            []string
	}{
		"one":                 {unpackedTo(t, ociArchive(t, "a/b:1", false, nil, amd)), "", "a/b:1", []string{"amd64"}},
		"platforms":           {unpackedTo(t, ociArchive(t, "a/b:1", false, nil, amd, arm)), "", "a/b:1", []string{"amd64", "arm64"}},
		"nested":              {unpackedTo(t, ociArchive(t, "a/b:1", true, nil, amd, arm)), "", "a/b:1", []string{"amd64", "arm64"}},
		"no name":             {unpackedTo(t, ociArchive(t, "", false, nil, amd)), "d:3", "d:3", []string{"amd64"}},
		"a link to a folder":  {linked, "", "a/b:1", []string{"amd64"}},
		"with a slash behind": {unpackedTo(t, ociArchive(t, "a/b:1", false, nil, amd)) + "/", "", "a/b:1", []string{"amd64"}},
	} {
		t.Run(what, func(t *testing.T) {
			s := open(t)
			names, err := s.Import(t.Context(), c.dir, c.ref)
			if err != nil || len(names) != len(c.archs) || names[0] != c.stored {
				t.Fatalf("%q, %v", names, err)
			}
			hasPlatforms(t, s, c.stored, c.archs)
		})
	}
	// The store's own folder is a layout like any other.
	s := open(t)
	if err := s.Put(t.Context(), "a/b:1", amd); err != nil {
		t.Fatal(err)
	}
	if names, err := s.Import(t.Context(), s.Dir(), "c:2"); err != nil || len(names) != 1 {
		t.Errorf("itself: %q, %v", names, err)
	}
}

// A folder that lies, or leads elsewhere, is refused, and nothing is stored.
func TestImportFolderRefuses(t *testing.T) {
	img := packedImage(t, "amd64", layer{file("a", "amd64")})
	manifest, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	layerBlob, configBlob, manifestBlob := blobName(manifest.Layers[0].Digest), blobName(manifest.Config.Digest), blobName(digest)
	index := func(change func(*v1.IndexManifest)) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			var m v1.IndexManifest
			raw, err := os.ReadFile(filepath.Join(dir, ociIndex))
			if err := errors.Join(err, json.Unmarshal(raw, &m)); err != nil {
				t.Fatal(err)
			}
			change(&m)
			if raw, err = json.Marshal(m); err != nil {
				t.Fatal(err)
			}
			replaceFile(t, filepath.Join(dir, ociIndex), func(name string) error { return os.WriteFile(name, raw, 0o644) })
		}
	}
	instead := func(of string, make func(name string) error) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) { replaceFile(t, filepath.Join(dir, of), make) }
	}
	// The right bytes, elsewhere: only the way there is wrong.
	away := func(of string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			to := filepath.Join(t.TempDir(), "away")
			if err := errors.Join(os.Rename(filepath.Join(dir, of), to), os.Symlink(to, filepath.Join(dir, of))); err != nil {
				t.Fatal(err)
			}
		}
	}
	text := func(s string) func(string) error {
		return func(name string) error { return os.WriteFile(name, []byte(s), 0o644) }
	}
	sparse := func(size int64) func(string) error {
		return func(name string) error { return errors.Join(text("")(name), os.Truncate(name, size)) }
	}
	for what, c := range map[string]struct {
		change func(t *testing.T, dir string)
		want   string
	}{
		"no index":              {instead(ociIndex, func(string) error { return nil }), "has no index.json: it is no OCI layout"},
		"a damaged index":       {instead(ociIndex, text("{{")), "an index is damaged"},
		"an index that is huge": {instead(ociIndex, sparse(maxManifest+1)), "4194304 is the limit"},
		"a linked index":        {away(ociIndex), "index.json is a symbolic link, which is not followed: copy the folder with cp -rL"},
		"a linked manifest":     {away(manifestBlob), "is a symbolic link"},
		"a linked config":       {away(configBlob), "is a symbolic link"},
		"a linked layer":        {away(layerBlob), "is a symbolic link"},
		"linked blobs":          {away("blobs"), "path escapes from parent"},
		"a folder for a blob":   {instead(layerBlob, func(name string) error { return os.Mkdir(name, 0o755) }), "is not a regular file"},
		"a FIFO for a blob":     {instead(layerBlob, func(name string) error { return syscall.Mkfifo(name, 0o644) }), "is not a regular file"},
		"a missing blob":        {instead(layerBlob, func(string) error { return nil }), "is not in it"},
		"another layer":         {instead(layerBlob, text("\x1f\x8b")), "its descriptor in the manifest says"},
		"another config":        {instead(configBlob, text(`{"architecture":"amd64"}`)), "is damaged: its digest is"},
		"another manifest":      {instead(manifestBlob, text("{}")), "is damaged: its digest is"},
		"an endless layer":      {instead(layerBlob, sparse(maxArchive)), "it holds more than any image"},
		"an index of nothing":   {index(func(m *v1.IndexManifest) { m.Manifests = nil }), "it holds no image of Linux"},
		"the digest of another": {index(func(m *v1.IndexManifest) { m.Manifests[0].Digest.Hex = strings.Repeat("0", 64) }), "is not in it"},
		"a config as the image": {index(func(m *v1.IndexManifest) { m.Manifests[0].Digest = manifest.Config.Digest }), "names a blob without a digest"},
		"an image as an index":  {index(func(m *v1.IndexManifest) { m.Manifests[0].MediaType = "application/vnd.oci.image.index.v1+json" }), "it holds no image of Linux"},
		"no name":               {index(func(m *v1.IndexManifest) { m.Manifests[0].Annotations = nil }), "its image has no name: give one"},
		"a name that is none":   {index(func(m *v1.IndexManifest) { m.Manifests[0].Annotations["io.containerd.image.name"] = "A B:1" }), "could not parse reference"},
	} {
		t.Run(what, func(t *testing.T) {
			dir, s := unpackedTo(t, ociArchive(t, "a:1", false, nil, img)), open(t)
			c.change(t, dir)
			if names, err := s.Import(t.Context(), dir, ""); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%q, %v, want %s", names, err, c.want)
			}
			if index, err := s.index(); err != nil || len(index.Manifests) != 0 {
				t.Errorf("something was stored: %+v, %v", index, err)
			}
		})
	}
}

// replaceFile puts something else in the place of a file.
func replaceFile(t *testing.T, name string, make func(name string) error) {
	t.Helper()
	if err := errors.Join(os.Remove(name), make(name)); err != nil {
		t.Fatal(err)
	}
}

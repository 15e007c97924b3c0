package images

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"strconv"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// layer is a list of tar entries; a nil header Typeflag means what the name says.
type layer []tar.Header

func file(name, contents string) tar.Header {
	return tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(contents)), PAXRecords: map[string]string{"SEATRIAL.contents": contents}}
}

func program(name, contents string) tar.Header {
	h := file(name, contents)
	h.Mode = 0o755
	return h
}

func folder(name string, mode int64) tar.Header {
	return tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: mode}
}

func symlink(name, target string) tar.Header {
	return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}
}

func hardlink(name, target string) tar.Header {
	return tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target}
}

// archive is the layer as a tar archive.
func (l layer) archive(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	b.Grow(1024 * len(l)) // growing costs most of the time, under the race detector
	w := tar.NewWriter(&b)
	for _, h := range l {
		contents := h.PAXRecords["SEATRIAL.contents"]
		delete(h.PAXRecords, "SEATRIAL.contents")
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := io.WriteString(w, contents); err != nil {
				t.Fatal(err)
			}
		}
		if contents != "" {
			h.PAXRecords["SEATRIAL.contents"] = contents // the header's map is the caller's
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// bare is the layer without compression: under the race detector making a
// compressor costs 100 ms.
func bare(raw []byte) (v1.Layer, error) {
	return static.NewLayer(raw, types.OCIUncompressedLayer), nil
}

// gzipped is the layer as registries have it.
func gzipped(raw []byte) (v1.Layer, error) {
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(raw)), nil })
}

// packedImage is an image as registries have it.
func packedImage(t testing.TB, arch string, layers ...layer) v1.Image {
	t.Helper()
	return imageOf(t, arch, v1.Config{}, gzipped, layers)
}

// image makes an image of layers for an architecture.
func image(t testing.TB, arch string, config v1.Config, layers ...layer) v1.Image {
	t.Helper()
	return imageOf(t, arch, config, bare, layers)
}

func imageOf(t testing.TB, arch string, config v1.Config, pack func([]byte) (v1.Layer, error), layers []layer) v1.Image {
	t.Helper()
	img, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{OS: "linux", Architecture: arch, Config: config, RootFS: v1.RootFS{Type: "layers"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range layers {
		made, err := pack(l.archive(t))
		if err != nil {
			t.Fatal(err)
		}
		if img, err = mutate.AppendLayers(img, made); err != nil {
			t.Fatal(err)
		}
	}
	return img
}

// kernelImage has a kernel and an archive of modules without parent folders.
func kernelImage(t testing.TB, arch string) v1.Image {
	modules := layer{file("lib/modules/6.1/modules.dep", "a.ko:\n")}
	return image(t, arch, v1.Config{}, layer{file("kernel", "bzImage of "+arch), file("kernel.tar", string(modules.archive(t)))})
}

// shelf is a source of images by reference; all are for amd64.
type shelf map[string]v1.Image

func (s shelf) Image(_ context.Context, ref, _ string) (v1.Image, error) {
	if img, ok := s[ref]; ok {
		return img, nil
	}
	return nil, ErrNotFound
}

// newSection is what follows an offset of a file.
func newSection(r io.ReaderAt, at int64) io.ReaderAt { return io.NewSectionReader(r, at, 1<<62) }

func octal(n uint32) string  { return strconv.FormatUint(uint64(n), 8) }
func number(n uint32) string { return strconv.FormatUint(uint64(n), 10) }

package images

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Import puts the images of an archive, or of a folder that is an OCI layout,
// into the store and returns their names. It reads what docker save, podman
// save, buildah, skopeo and buildx write: the docker and the OCI form,
// compressed or not, for one platform or several. A name is needed if the
// images have none, and replaces the one that they have. Nothing is unpacked
// onto the host but into a nameless file. The file "-" is standard input.
func (s *Store) Import(ctx context.Context, file, ref string) ([]string, error) {
	names, err := s.importFile(ctx, file, ref)
	if err != nil {
		return nil, fmt.Errorf("images: cannot import %s: %w", file, explain(err, s.dir))
	}
	return names, nil
}

func (s *Store) importFile(ctx context.Context, file, ref string) (names []string, err error) {
	if info, err := os.Stat(file); file != stdin && err == nil && info.IsDir() {
		found, done, err := folderImages(file)
		if err != nil {
			return nil, err
		}
		names, err := s.putAll(ctx, found, ref)
		return names, errors.Join(err, done())
	}
	f, err := openArchive(ctx, file)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	r, err := unpacked(cancelled(ctx, f))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	spool, err := newSpool("")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, spool.file.Close()) }()
	var read int64 // what is left out of the archive was unpacked too
	a, err := readArchive(bounded(r, &read, 2*maxArchive), spool)
	if err != nil {
		return nil, err
	}
	found, err := a.images()
	if err != nil {
		return nil, err
	}
	return s.putAll(ctx, found, ref)
}

// openArchive opens a regular file or standard input. Opening a FIFO would wait
// for a writer, and nothing ends that wait.
func openArchive(ctx context.Context, file string) (io.ReadCloser, error) {
	if file == stdin {
		return interruptible(ctx, os.Stdin), nil
	}
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file: name a file or a folder, or pipe the archive in and name %q", file, stdin)
	}
	return os.Open(file)
}

// interruptible is a reader that fails when ctx ends, also while it waits for
// data. What waits then keeps the source until the process ends.
func interruptible(ctx context.Context, source io.Reader) io.ReadCloser {
	r, w := io.Pipe()
	go func() {
		_, err := io.Copy(w, source)
		w.CloseWithError(err)
	}()
	stop := context.AfterFunc(ctx, func() { w.CloseWithError(ctx.Err()) })
	return closer{r, func() error { stop(); return r.Close() }}
}

type closer struct {
	io.Reader
	close func() error
}

func (c closer) Close() error { return c.close() }

// putAll stores what an archive held; a reference takes the place of its names.
func (s *Store) putAll(ctx context.Context, found []importedImage, ref string) (names []string, err error) {
	distinct := map[string]bool{}
	for _, i := range found {
		distinct[i.ref] = true
	}
	if ref != "" && len(distinct) > 1 {
		return nil, fmt.Errorf("it holds %d images with names of their own: import it without a name", len(distinct))
	}
	if len(found) == 0 {
		return nil, errors.New("it holds no image of Linux")
	}
	for _, i := range found {
		to := i.ref
		if ref != "" {
			to = ref
		}
		if to == "" {
			return nil, errors.New("its image has no name: give one")
		}
		if err := s.Put(ctx, to, i.image); err != nil {
			return nil, err
		}
		names = append(names, to)
	}
	return names, nil
}

// importedImage is an image and its name, which may be empty.
type importedImage struct {
	ref   string
	image v1.Image
}

// tarArchive is the files of an archive by name, with contents in a spool.
type tarArchive map[string]*io.SectionReader

// readArchive takes the regular files of an archive; links and whatever else
// an archive of an image has no use for are left out.
func readArchive(r io.Reader, s *spool) (tarArchive, error) {
	a := tarArchive{}
	var total int64
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return a, nil
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) { // names are only keys
			return nil, fmt.Errorf("it is not a sound tar archive: %w", err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if total += h.Size; total > maxArchive || len(a) > maxFiles {
			return nil, errTooMuch()
		}
		if len(h.Name) > maxPath { // names are in memory
			return nil, fmt.Errorf("%.40q... has %d bytes, %d are the limit of a name", h.Name, len(h.Name), maxPath)
		}
		data, err := s.add(tr, h.Size)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", h.Name, err)
		}
		a[path.Clean(h.Name)] = io.NewSectionReader(data, 0, h.Size)
	}
}

// Limits of an archive or a layout: an image has some dozens of files.
const (
	maxFiles   = 100_000
	maxArchive = 4 * maxBytes
)

func errTooMuch() error {
	return fmt.Errorf("it holds more than any image: %d files and %d bytes are the limits", maxFiles, int64(maxArchive))
}

// maxManifest is the most that is read of a file that is not a layer; the
// distribution specification asks registries to take manifests of 4 MiB.
const maxManifest = 4 << 20

// open implements contents.
func (a tarArchive) open(name string) (*io.SectionReader, io.Closer, error) {
	f, ok := a[name]
	if !ok {
		return nil, nil, fmt.Errorf("%s is not in it", name)
	}
	return io.NewSectionReader(f, 0, f.Size()), io.NopCloser(nil), nil
}

// contents are the files of an archive or a folder, by their names in it.
type contents interface {
	open(name string) (*io.SectionReader, io.Closer, error)
}

// archive is the OCI form: an index, and blobs by digest.
type archive struct{ contents }

// read reads a file that is not a layer.
func (a archive) read(name string) (raw []byte, err error) {
	f, c, err := a.open(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	if f.Size() > maxManifest {
		return nil, fmt.Errorf("%s has %d bytes, %d is the limit", name, f.Size(), maxManifest)
	}
	raw = make([]byte, f.Size())
	if _, err := f.ReadAt(raw, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return raw, nil
}

// images lists the images. An archive of docker save may have both forms; its
// own says the names.
func (a tarArchive) images() ([]importedImage, error) {
	switch {
	case a["manifest.json"] != nil:
		return a.docker()
	case a[ociIndex] != nil:
		return archive{a}.index()
	}
	return nil, errors.New("it has neither manifest.json nor index.json: it is no archive of images")
}

// docker reads the form of docker save.
func (a tarArchive) docker() (found []importedImage, err error) {
	raw, err := archive{a}.read("manifest.json")
	if err != nil {
		return nil, err
	}
	var list []struct{ RepoTags []string }
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, fmt.Errorf("manifest.json: %w", err)
	}
	open := func() (io.ReadCloser, error) { return a.repack() }
	for _, m := range list {
		if len(m.RepoTags) == 0 && len(list) > 1 {
			return nil, errors.New("it holds several images, and one has no name: save them one by one")
		}
		if len(m.RepoTags) == 0 {
			img, err := tarball.Image(open, nil)
			return []importedImage{{"", img}}, err
		}
		for _, text := range m.RepoTags {
			tag, err := name.NewTag(text)
			if err != nil {
				return nil, err
			}
			img, err := tarball.Image(open, &tag)
			if err != nil {
				return nil, err
			}
			found = append(found, importedImage{text, img})
		}
	}
	return found, nil
}

// repack is the archive once more as a tar stream, for the library that reads
// the docker form and wants nothing else. The stream ends with its reader.
func (a tarArchive) repack() (io.ReadCloser, error) {
	r, w := io.Pipe()
	go func() {
		out := tar.NewWriter(w)
		for name, f := range a {
			err := out.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: f.Size()})
			if err == nil {
				_, err = io.Copy(out, io.NewSectionReader(f, 0, f.Size()))
			}
			if err != nil {
				w.CloseWithError(err)
				return
			}
		}
		w.CloseWithError(out.Close())
	}()
	return r, nil
}

// Annotations that name an image in an index, the full name first.
var nameAnnotations = []string{"io.containerd.image.name", refName}

// ociIndex is the file that an OCI layout begins with.
const ociIndex = "index.json"

// index reads the OCI index, and the indexes in it. A name that an index has is
// that of all its images.
func (a archive) index() (found []importedImage, err error) {
	raw, err := a.read(ociIndex)
	if err != nil {
		return nil, err
	}
	list, err := manifests(raw)
	if err != nil {
		return nil, err
	}
	all, err := leaves(list, "", func(name string, d v1.Descriptor) (string, []v1.Descriptor, error) {
		inner, err := a.blob(d.Digest)
		if err != nil {
			return "", nil, err
		}
		list, err := manifests(inner)
		return nameOf(d, name), list, err
	})
	if err != nil {
		return nil, err
	}
	for _, l := range all {
		img, err := partial.CompressedToImage(archivedImage{a, l.Descriptor})
		if err != nil {
			return nil, err
		}
		found = append(found, importedImage{nameOf(l.Descriptor, l.in), img})
	}
	return found, nil
}

func manifests(raw []byte) ([]v1.Descriptor, error) {
	var m v1.IndexManifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, fmt.Errorf("an index is damaged: %w", err)
	}
	return m.Manifests, nil
}

// nameOf is the name of what an index lists, if the index itself has none. A
// bare tag is no name.
func nameOf(d v1.Descriptor, name string) string {
	for _, key := range nameAnnotations {
		if v := d.Annotations[key]; name == "" && strings.ContainsAny(v, ":/") {
			name = v
		}
	}
	return name
}

// blobName is where a layout has a blob.
func blobName(h v1.Hash) string { return "blobs/" + h.Algorithm + "/" + h.Hex }

// blob is a blob that is not a layer, checked against its digest.
func (a archive) blob(h v1.Hash) ([]byte, error) {
	if h.Hex == "" {
		return nil, errors.New("its manifest names a blob without a digest: it is no manifest")
	}
	raw, err := a.read(blobName(h))
	if err != nil {
		return nil, err
	}
	if got, _, err := v1.SHA256(strings.NewReader(string(raw))); err != nil || got != h {
		return nil, errors.Join(err, fmt.Errorf("blob %s is damaged: its digest is %s", h, got))
	}
	return raw, nil
}

// archivedImage is an image of the OCI form; layers are checked when they are
// stored.
type archivedImage struct {
	archive archive
	desc    v1.Descriptor
}

func (i archivedImage) MediaType() (types.MediaType, error) { return i.desc.MediaType, nil }
func (i archivedImage) RawManifest() ([]byte, error)        { return i.archive.blob(i.desc.Digest) }

func (i archivedImage) RawConfigFile() ([]byte, error) {
	m, err := partial.Manifest(i)
	if err != nil {
		return nil, err
	}
	return i.archive.blob(m.Config.Digest)
}

func (i archivedImage) LayerByDigest(h v1.Hash) (partial.CompressedLayer, error) {
	m, err := partial.Manifest(i)
	if err != nil {
		return nil, err
	}
	for _, d := range append(m.Layers, m.Config) {
		if d.Digest == h {
			return archivedLayer{i.archive, d}, nil
		}
	}
	return nil, fmt.Errorf("no layer %s", h)
}

type archivedLayer struct {
	archive archive
	desc    v1.Descriptor
}

func (l archivedLayer) Digest() (v1.Hash, error)            { return l.desc.Digest, nil }
func (l archivedLayer) Size() (int64, error)                { return l.desc.Size, nil }
func (l archivedLayer) MediaType() (types.MediaType, error) { return l.desc.MediaType, nil }
func (l archivedLayer) Compressed() (io.ReadCloser, error) {
	f, c, err := l.archive.open(blobName(l.desc.Digest))
	if err != nil {
		return nil, err
	}
	return closer{f, c.Close}, nil
}

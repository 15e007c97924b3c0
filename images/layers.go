package images

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/bzip2"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// Limits of what one image may unpack to; beyond them it is a mistake or a
// bomb, and no machine could hold it in memory.
const (
	maxEntries = 1_000_000
	maxNames   = 512 << 20 // bytes of names and links, which are in memory
	maxBytes   = 8 << 30
	maxStream  = 2 * maxBytes // of layers without their compression: headers and what nothing takes count too
	maxFile    = 1<<32 - 1    // a newc header has eight hexadecimal digits for the size
	maxTarget  = 4096 - 1     // PATH_MAX: the kernel skips longer links
)

// getAgain is what to do about an image that is not what it says it is.
const getAgain = "remove the image from the local layout and get it again"

// spool holds the contents of files while an image is built: one file of the
// host for all of them, so that memory does not grow with the image.
type spool struct {
	file *os.File
	size int64
}

// newSpool makes an empty spool in a folder; empty: that for temporary files.
func newSpool(dir string) (*spool, error) {
	file, err := os.CreateTemp(dir, "spool-*")
	if err != nil {
		return nil, err
	}
	// Without a name it goes with the process, whatever ends that.
	if err := os.Remove(file.Name()); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &spool{file: file}, nil
}

// add copies n bytes into the spool.
func (s *spool) add(r io.Reader, n int64) (io.ReaderAt, error) {
	at := s.size
	written, err := io.Copy(io.NewOffsetWriter(s.file, at), io.LimitReader(r, n))
	s.size += written
	if err == nil && written < n {
		err = io.ErrUnexpectedEOF
	}
	return io.NewSectionReader(s.file, at, written), err
}

// flattener unpacks the layers of one image into a tree.
type flattener struct {
	tree    *tree
	spool   *spool
	entries int
	names   int64 // bytes
	bytes   int64
	stream  int64 // bytes of archives that were read

	left           int // extended attributes that were left behind
	attributeBytes int // of those that were kept
}

// flatten reads all layers of an image, checks them against the digests in its
// config, and returns the file system they make.
func flatten(ctx context.Context, img v1.Image, s *spool) (*flattener, error) {
	layers, err := img.Layers()
	if err != nil {
		return nil, fmt.Errorf("cannot list its layers: %w", err)
	}
	// The digests that the image's config names, and the manifest's digest
	// vouches for: a layer's own DiffID is computed from the very bytes that
	// are to be checked, by unpacking them once more.
	config, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("cannot read its config: %w", err)
	}
	if have := len(config.RootFS.DiffIDs); have != len(layers) {
		return nil, fmt.Errorf("has %d layers, and its config names %d", len(layers), have)
	}
	f := &flattener{tree: newTree(), spool: s}
	for i, l := range layers {
		f.tree.layer = i
		if err := f.layer(ctx, l, config.RootFS.DiffIDs[i]); err != nil {
			return nil, fmt.Errorf("layer %d of %d: %w", i+1, len(layers), err)
		}
	}
	return f, nil
}

func (f *flattener) layer(ctx context.Context, l v1.Layer, want v1.Hash) (err error) {
	packed, err := l.Compressed()
	if err != nil {
		return advised{fmt.Errorf("cannot open it: %w", err), getAgain}
	}
	defer func() { err = errors.Join(err, packed.Close()) }()
	size, err := l.Size()
	if err != nil {
		return fmt.Errorf("cannot tell its size: %w", err)
	}
	whole, err := sized(packed, size)
	if err != nil {
		return err
	}
	r, err := unpacked(whole)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	sum := sha256.New()
	stream := io.TeeReader(bounded(cancelled(ctx, r), &f.stream, maxStream), sum)
	if err := f.unpack(stream); err != nil {
		return err
	}
	// What follows the archive's end belongs to the digest; a bomb may hide there.
	if n, err := io.CopyN(io.Discard, stream, maxBytes); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%d bytes after the end of the archive: %w", n, cmpErr(err, errors.New("too many")))
	}
	if got := fmt.Sprintf("%x", sum.Sum(nil)); want.Algorithm != "sha256" || got != want.Hex {
		return advisedf(getAgain, "is damaged: its digest is sha256:%s, the image says %s", got, want)
	}
	return nil
}

// unpacked is a layer without its compression, whatever its media type says
// about that: compressions have magic numbers. Closing it does not close the layer.
func unpacked(r io.Reader) (io.ReadCloser, error) {
	b := bufio.NewReaderSize(r, 1<<20)
	head, err := b.Peek(512)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("cannot read it: %w", err)
	}
	damaged := func(z io.ReadCloser, err error) (io.ReadCloser, error) {
		if err != nil {
			return nil, fmt.Errorf("its compression is damaged: %w", err)
		}
		return z, nil
	}
	switch magic := head[:min(len(head), 4)]; {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(b)
		return damaged(z, err)
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}), isSkippable(magic):
		// The window bounds the memory, whatever the layer asks for.
		z, err := zstd.NewReader(b, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return damaged(nil, err)
		}
		return z.IOReadCloser(), nil
	case bytes.HasPrefix(magic, []byte("BZh")):
		return io.NopCloser(bzip2.NewReader(b)), nil // its window has 900 kB at most
	case bytes.HasPrefix(head, []byte("\xfd7zXZ\x00")):
		return damaged(unxz(b))
	}
	if !tarBegins(head) {
		return nil, advisedf("pack it anew with gzip, zstd, xz, bzip2 or not at all", "not a sound tar archive, and its first bytes (% x) are of no compression that is known here", head[:min(len(head), 8)])
	}
	return io.NopCloser(b), nil
}

// isSkippable reports whether a zstd stream begins with a frame of metadata:
// 0x184D2A50 to 0x184D2A5F, little-endian (RFC 8878, 3.1.2).
func isSkippable(magic []byte) bool {
	return len(magic) == 4 && magic[0]&0xf0 == 0x50 && bytes.Equal(magic[1:], []byte{0x2a, 0x4d, 0x18})
}

// tarBegins reports whether an archive may begin so: with a header, whose
// checksum is that of its bytes with blanks in the checksum's place, with the
// zeros of the end, or not at all.
func tarBegins(head []byte) bool {
	if len(head) < 512 {
		return len(bytes.Trim(head, "\x00")) == 0
	}
	sum, signed := 0, 0
	for i, c := range head {
		if i >= 148 && i < 156 {
			c = ' '
		}
		sum, signed = sum+int(c), signed+int(int8(c)) // old programs added signed bytes
	}
	want, err := strconv.ParseInt(strings.Trim(string(head[148:156]), " \x00"), 8, 64)
	return err == nil && (int(want) == sum || int(want) == signed) || len(bytes.Trim(head, "\x00")) == 0
}

// maxWindow is the largest window that zstd itself takes without being told to.
const maxWindow = 128 << 20

// cmpErr is the first of two errors that is not nil.
func cmpErr(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// cancelled makes a reader fail as soon as ctx ends.
func cancelled(ctx context.Context, r io.Reader) io.Reader {
	return readerFunc(func(p []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		return r.Read(p)
	})
}

// bounded makes a reader fail when it has read more than a number of bytes, which
// other readers may have a part in. Compression makes a thousand bytes of one.
func bounded(r io.Reader, read *int64, limit int64) io.Reader {
	return readerFunc(func(p []byte) (int, error) {
		n, err := r.Read(p)
		if *read += int64(n); *read > limit {
			return 0, fmt.Errorf("unpacks to more than %d bytes", limit)
		}
		return n, err
	})
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// unpack lays a tar archive over the tree.
func (f *flattener) unpack(r io.Reader) error {
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) { // names are judged below
			return fmt.Errorf("not a sound tar archive: %w", err)
		}
		if f.entries++; f.entries > maxEntries {
			return fmt.Errorf("more than %d entries", maxEntries)
		}
		if f.names += int64(len(h.Name) + len(h.Linkname)); f.names > maxNames {
			return fmt.Errorf("more than %d bytes of names and links", maxNames)
		}
		if err := f.entry(h, tr); err != nil {
			return fmt.Errorf("entry %.200q: %w", h.Name, err)
		}
	}
}

func (f *flattener) entry(h *tar.Header, r io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name, err := cleanName(h.Name)
	if err != nil {
		return err
	}
	dir, base := path.Split(name)
	if hidden, ok := strings.CutPrefix(base, ".wh."); ok {
		return f.whiteout(dir, hidden)
	}
	if h.Typeflag == tar.TypeLink {
		return f.hardLink(name, h.Linkname)
	}
	n, err := f.inode(h, r)
	if err != nil {
		return err
	}
	if n.xattrs, err = f.attributesOf(h); err != nil {
		return err
	}
	return f.tree.put(name, n)
}

// whiteout applies ".wh.NAME" and the opaque mark (OCI image-spec, layer.md).
func (f *flattener) whiteout(dir, hidden string) error {
	if strings.HasPrefix(hidden, ".wh.") && hidden != ".wh..opq" {
		return nil // book-keeping of aufs, not part of the file system
	}
	d, err := f.tree.dir(dir)
	if err != nil {
		return err
	}
	switch hidden {
	case "", ".", "..":
		return errors.New("is a whiteout of no name")
	case ".wh..opq":
		f.tree.clear(d)
	default:
		f.tree.remove(d, hidden)
	}
	return f.tree.tired()
}

func (f *flattener) hardLink(name, to string) error {
	target, err := cleanName(to)
	if err != nil {
		return fmt.Errorf("hard link to %w", err)
	}
	e := f.tree.find(target)
	switch {
	case e == nil:
		if err := f.tree.tired(); err != nil {
			return err
		}
		return fmt.Errorf("hard link to %q, which is not there", to)
	case e.is(typeDir):
		return fmt.Errorf("hard link to %q, which is a directory", to)
	case target == name:
		return nil
	}
	return f.tree.put(name, e.inode)
}

// inode makes an inode of a header, and takes its contents into the spool.
func (f *flattener) inode(h *tar.Header, r io.Reader) (*inode, error) {
	if h.Uid < 0 || h.Uid > maxFile || h.Gid < 0 || h.Gid > maxFile {
		return nil, fmt.Errorf("owner %d:%d does not fit into 32 bits", h.Uid, h.Gid)
	}
	n := &inode{mode: uint32(h.Mode & permMask), uid: uint32(h.Uid), gid: uint32(h.Gid)}
	switch h.Typeflag {
	case tar.TypeDir:
		n.mode |= typeDir
		n.children = map[string]*entry{}
	case tar.TypeSymlink:
		n.mode, n.target = typeSymlink|0o777, h.Linkname
		if n.target == "" || len(n.target) > maxTarget || strings.ContainsRune(n.target, 0) {
			return nil, fmt.Errorf("symbolic link to %.40q: the kernel takes 1 to %d bytes without NUL", n.target, maxTarget)
		}
	case tar.TypeChar, tar.TypeBlock:
		n.mode |= typeChar
		if h.Typeflag == tar.TypeBlock {
			n.mode = n.mode&^typeMask | typeBlock
		}
		if h.Devmajor < 0 || h.Devmajor > 0xfff || h.Devminor < 0 || h.Devminor > 0xfffff {
			return nil, fmt.Errorf("device number %d:%d is out of range", h.Devmajor, h.Devminor)
		}
		n.major, n.minor = uint32(h.Devmajor), uint32(h.Devminor)
	case tar.TypeFifo:
		n.mode |= typeFIFO
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeCont:
		return n, f.contents(n, h.Size, r)
	default:
		return nil, fmt.Errorf("has the unknown type %q", h.Typeflag)
	}
	return n, nil
}

func (f *flattener) contents(n *inode, size int64, r io.Reader) (err error) {
	if f.bytes += size; size > maxFile || f.bytes > maxBytes {
		return fmt.Errorf("%d bytes are too many: an initramfs holds files of %d at most, and %d are the limit for one image", size, maxFile, int64(maxBytes))
	}
	n.mode |= typeFile
	n.size = size
	if size == 0 {
		n.data = bytes.NewReader(nil)
		return nil
	}
	n.data, err = f.spool.add(r, size)
	return err
}

package images

import (
	"bufio"
	"compress/bzip2"
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// Unpack unpacks the kernel of an amd64 image into the cache, for machines to
// enter it without the loader that is packed with it (see [Image.KernelFor]).
// An emulated processor takes half a second to run that loader. A kernel that
// cannot be entered so keeps its loader, and Image.Packed says why; so do all
// on arm64, where kernels come unpacked.
func (b *Builder) Unpack(ctx context.Context, im *Image) error {
	if im.Arch != "amd64" {
		return nil
	}
	key := fmt.Sprintf("%x", sha256.Sum256([]byte("vmlinux 1 "+im.Seals[kernelFile].SHA256)))
	found, err := onceIn(ctx, b, key, loadVmlinux, func(ctx context.Context, dir string) error {
		return makeVmlinux(ctx, dir, im.KernelPath)
	})
	if err != nil {
		return fmt.Errorf("images: cannot unpack the kernel %s: %w", im.KernelPath, explain(err, b.Dir))
	}
	im.vmlinux, im.Packed, im.vmlinuxLease = found.value, found.value.Packed, found.file
	return nil
}

// KernelFor is the file that QEMU is to start on a machine with so much memory:
// the unpacked kernel, if [Builder.Unpack] made one and there is room for it
// beside the initramfs. QEMU lays that at the end of memory and an ELF file where
// it says, and does not look whether they meet; the loader of a packed kernel
// does, and goes elsewhere.
func (im *Image) KernelFor(memoryMiB int) string {
	v := im.vmlinux
	if v == nil || v.path == "" || v.End+im.Seals[initrdFile].Size+firmwareTables > int64(memoryMiB)<<20 {
		return im.KernelPath
	}
	return v.path
}

// firmwareTables is more than QEMU keeps free at the end of memory for ACPI's
// tables (hw/i386/pc.c, acpi_data_size: 160 KiB).
const firmwareTables = 1 << 20

// vmlinux is what is kept of an unpacked kernel beside it.
type vmlinux struct {
	Packed string          // why the kernel is not there; empty: it is
	End    int64           // first physical address behind it
	Seals  map[string]seal // of the file, to notice damage

	path string // empty: it is not there
}

// names of the files of an unpacked kernel in the cache.
const (
	vmlinuxFile        = "vmlinux"
	vmlinuxDescription = "vmlinux.json"
)

func loadVmlinux(dir string) (*lease[vmlinux], error) {
	file, err := leaseDir(dir)
	if err != nil {
		return nil, err
	}
	v, err := readVmlinux(dir)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &lease[vmlinux]{v, file}, nil
}

func readVmlinux(dir string) (*vmlinux, error) {
	description := filepath.Join(dir, vmlinuxDescription)
	raw, err := os.ReadFile(description)
	if err != nil {
		return nil, err
	}
	v := &vmlinux{}
	if err := json.Unmarshal(raw, v); err != nil {
		return nil, fmt.Errorf("images: %s: %w", description, err)
	}
	if v.Packed == "" {
		if err := checkSeals(dir, v.Seals); err != nil {
			return nil, err
		}
		v.path = filepath.Join(dir, vmlinuxFile)
	}
	return v, used(description)
}

// errPacked is why a kernel stays as it is: no failure of the host.
type errPacked struct{ why string }

func (e errPacked) Error() string { return e.why }

// makeVmlinux unpacks a kernel into the folder, or writes down why it cannot.
func makeVmlinux(ctx context.Context, dir, kernel string) error {
	path := filepath.Join(dir, vmlinuxFile)
	v := vmlinux{Seals: map[string]seal{}}
	digest, err := writeVmlinux(ctx, path, kernel)
	if err == nil {
		v.End, err = enterable(path)
	}
	var packed errPacked
	switch {
	case errors.As(err, &packed):
		v.Packed = packed.why
		if err := os.Remove(path); err != nil && !missing(err) {
			return err
		}
	case err != nil:
		return err
	default:
		s, err := sealOf(path)
		if err != nil {
			return err
		}
		s.SHA256 = digest
		v.Seals[vmlinuxFile] = s
	}
	text, err := encode(v)
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, vmlinuxDescription), strings.NewReader(string(text)))
}

func writeVmlinux(ctx context.Context, path, kernel string) (digest string, err error) {
	f, err := os.Open(kernel)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	payload, err := kernelPayload(f)
	if err != nil {
		return "", err
	}
	r, err := unpackedKernel(payload)
	if err != nil {
		return "", err
	}
	var size int64
	digest, err = create(ctx, path, func(w io.Writer) (err error) { size, err = copyKernel(w, r); return err })
	if err != nil {
		return "", err
	}
	var end [4]byte
	if _, err := payload.ReadAt(end[:], payload.Size()-4); err != nil {
		return "", err
	}
	if want := binary.LittleEndian.Uint32(end[:]); size != int64(want) {
		return "", errPacked{fmt.Sprintf("what is packed in it is damaged: %d bytes, not %d", size, want)}
	}
	return digest, nil
}

// maxKernel bounds an unpacked kernel: those of distributions have 30 to 90 MB,
// and a few bytes that were packed can stand for any number.
const maxKernel = 512 << 20

// copyKernel copies what was packed and says how much that was. Only an error of
// writing is one of the host.
func copyKernel(w io.Writer, r io.Reader) (int64, error) {
	var damage error
	n, err := io.Copy(w, io.LimitReader(readerFunc(func(p []byte) (int, error) {
		n, err := r.Read(p)
		if err != nil && !errors.Is(err, io.EOF) {
			damage = err
		}
		return n, err
	}), maxKernel+1))
	switch {
	case damage != nil:
		return n, errPacked{fmt.Sprintf("what is packed in it is damaged: %v", damage)}
	case err == nil && n > maxKernel:
		return n, errPacked{fmt.Sprintf("it has more than %d bytes unpacked", maxKernel)}
	}
	return n, err
}

// kernelPayload finds what is packed in a bzImage: the header is at 0x1f1, and
// from protocol 2.08 on it tells where the payload is, counted from the end of
// the sectors of real mode (Documentation/arch/x86/boot.rst).
func kernelPayload(f *os.File) (*io.SectionReader, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	var head [0x250]byte
	if _, err := f.ReadAt(head[:], 0); err != nil {
		return nil, errPacked{"it is too short to be a bzImage"}
	}
	if string(head[0x202:0x206]) != "HdrS" {
		return nil, errPacked{"it is no bzImage"}
	}
	if version := binary.LittleEndian.Uint16(head[0x206:]); version < 0x208 {
		return nil, errPacked{fmt.Sprintf("its boot protocol %#x tells no payload", version)}
	}
	sectors := int64(head[0x1f1])
	if sectors == 0 {
		sectors = 4 // for old loaders, says the document
	}
	start := (sectors+1)*512 + int64(binary.LittleEndian.Uint32(head[0x248:]))
	size := int64(binary.LittleEndian.Uint32(head[0x24c:]))
	if size < 8 || start+size > info.Size() {
		return nil, errPacked{"its payload lies beyond its end"}
	}
	return io.NewSectionReader(f, start, size), nil
}

// unpackedKernel unpacks a payload. Its last four bytes are the size: gzip ends
// so, and the kernel's build adds it to all others (scripts/Makefile.lib,
// size_append).
func unpackedKernel(payload *io.SectionReader) (r io.Reader, err error) {
	var magic [4]byte
	if _, err := payload.ReadAt(magic[:], 0); err != nil {
		return nil, err
	}
	packed := io.NewSectionReader(payload, 0, payload.Size()-4)
	switch m := string(magic[:]); {
	case strings.HasPrefix(m, "\x1f\x8b"):
		r, err = gzip.NewReader(payload)
	case m == "\x02\x21\x4c\x18": // the format that lz4 -l writes
		r = lz4.NewReader(packed)
	case m == "\x28\xb5\x2f\xfd":
		var z *zstd.Decoder
		if z, err = zstd.NewReader(packed, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderConcurrency(1)); err == nil {
			r = z.IOReadCloser()
		}
	case strings.HasPrefix(m, "BZh"):
		r = bzip2.NewReader(packed)
	case m == "\xfd7zX":
		r, err = unxz(bufio.NewReader(packed))
	default:
		err = fmt.Errorf("% x are the first bytes of no compression that is known here", magic)
	}
	if err != nil {
		return nil, errPacked{err.Error()}
	}
	return r, nil
}

// pvhEntry is the type of the note, of the owner "Xen", with the address of the
// entry in 32-bit mode: XEN_ELFNOTE_PHYS32_ENTRY (Xen, public/elfnote.h). It is
// there if the kernel has CONFIG_PVH.
const pvhEntry = 18

// enterable reports whether QEMU can enter an unpacked kernel, and where in
// memory it ends.
func enterable(path string) (end int64, err error) {
	f, err := elf.Open(path)
	if err != nil {
		return 0, errPacked{fmt.Sprintf("what is packed in it is no ELF file: %v", err)}
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if f.Machine != elf.EM_X86_64 {
		return 0, errPacked{"it is for " + f.Machine.String()}
	}
	entered := false
	for _, p := range f.Progs {
		switch {
		case p.Type == elf.PT_LOAD && (p.Paddr > maxAddress || p.Memsz > maxAddress):
			return 0, errPacked{"it is to lie above 4 GiB"}
		case p.Type == elf.PT_LOAD:
			end = max(end, int64(p.Paddr+p.Memsz))
		case p.Type == elf.PT_NOTE && p.Filesz < maxNotes:
			notes := make([]byte, p.Filesz)
			if _, err := p.ReadAt(notes, 0); err != nil {
				return 0, errPacked{fmt.Sprintf("its notes cannot be read: %v", err)}
			}
			entered = entered || hasNote(notes, f.ByteOrder, "Xen\x00", pvhEntry)
		}
	}
	if !entered {
		return 0, errPacked{"it was built without CONFIG_PVH"}
	}
	return end, nil
}

// Bounds of what an unpacked kernel says of itself: its entry is in 32-bit mode,
// and its notes are a few hundred bytes.
const (
	maxAddress = 1 << 32
	maxNotes   = 1 << 20
)

// hasNote looks through notes: each has three words, the sizes of name and
// description and the type, and then those two, padded to four bytes.
func hasNote(notes []byte, order binary.ByteOrder, name string, kind uint32) bool {
	padded := func(n uint32) uint64 { return (uint64(n) + 3) &^ 3 }
	for len(notes) >= 12 {
		named, described := order.Uint32(notes), order.Uint32(notes[4:])
		whole := 12 + padded(named) + padded(described)
		if whole > uint64(len(notes)) {
			return false
		}
		if order.Uint32(notes[8:]) == kind && string(notes[12:12+named]) == name {
			return true
		}
		notes = notes[whole:]
	}
	return false
}

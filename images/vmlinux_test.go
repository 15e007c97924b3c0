package images

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz"
)

// elfKernel is the smallest kernel that QEMU could enter: an ELF file with notes.
func elfKernel(t *testing.T, notes []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	header := elf.Header64{
		Ident: [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: uint32(elf.EV_CURRENT),
		Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 2,
	}
	note := elf.Prog64{Type: uint32(elf.PT_NOTE), Off: 176, Filesz: uint64(len(notes)), Memsz: uint64(len(notes)), Align: 4}
	load := elf.Prog64{Type: uint32(elf.PT_LOAD), Paddr: 16 << 20, Off: 176, Filesz: uint64(len(notes)), Memsz: 48 << 20}
	for _, part := range []any{header, note, load, notes, bytes.Repeat([]byte("kernel "), 50_000)} {
		if err := binary.Write(&b, binary.LittleEndian, part); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func note(name string, kind uint32, description string) []byte {
	b := binary.LittleEndian.AppendUint32(nil, uint32(len(name)))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(description)))
	b = binary.LittleEndian.AppendUint32(b, kind)
	for _, s := range []string{name, description} {
		b = append(append(b, s...), make([]byte, padding(int64(len(s))))...)
	}
	return b
}

// bzImage wraps a payload as the kernel's own build does.
func bzImage(payload []byte) []byte {
	b := make([]byte, 2*512+0x100)
	b[0x1f1] = 1
	copy(b[0x202:], "HdrS")
	binary.LittleEndian.PutUint16(b[0x206:], 0x20f)
	binary.LittleEndian.PutUint32(b[0x248:], 0x100)
	binary.LittleEndian.PutUint32(b[0x24c:], uint32(len(payload)))
	return append(append(b, payload...), "what follows it"...)
}

// packedKernel packs a kernel; all but gzip are followed by its size.
func packedKernel(t *testing.T, kernel []byte, open func(io.Writer) (io.WriteCloser, error), sized bool) []byte {
	t.Helper()
	var b bytes.Buffer
	z, err := open(&b)
	if err == nil {
		_, err = z.Write(kernel)
	}
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	if !sized {
		return b.Bytes()
	}
	return binary.LittleEndian.AppendUint32(b.Bytes(), uint32(len(kernel)))
}

func gzipTo(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil }

// builtOf is a built image with a kernel.
func builtOf(t *testing.T, kernel []byte) *Image {
	t.Helper()
	path := filepath.Join(t.TempDir(), kernelFile)
	if err := os.WriteFile(path, kernel, 0o644); err != nil {
		t.Fatal(err)
	}
	s, err := sealFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return &Image{Name: "x", Arch: "amd64", KernelPath: path, Seals: map[string]seal{kernelFile: s}}
}

func TestUnpack(t *testing.T) {
	kernel := elfKernel(t, append(note("Linux\x00", pvhEntry, "other"), note("Xen\x00", pvhEntry, "\x50\x08\x00\x01")...))
	for name, payload := range map[string][]byte{
		"gzip": packedKernel(t, kernel, gzipTo, false),
		"lz4": packedKernel(t, kernel, func(w io.Writer) (io.WriteCloser, error) {
			z := lz4.NewWriter(w)
			return z, z.Apply(lz4.LegacyOption(true))
		}, true),
		"zstd": packedKernel(t, kernel, func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) }, true),
		"xz":   packedKernel(t, kernel, func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) }, true),
	} {
		t.Run(name, func(t *testing.T) {
			b := &Builder{Arch: "amd64", Dir: t.TempDir()}
			im := builtOf(t, bzImage(payload))
			for _, state := range []string{"new", "kept", "damaged"} {
				if state == "damaged" {
					if err := os.WriteFile(im.KernelFor(1024), []byte("x"), 0o644); err != nil {
						t.Fatal(err)
					}
				}
				if err := b.Unpack(t.Context(), im); err != nil {
					t.Fatal(err)
				}
				if got, err := os.ReadFile(im.KernelFor(1024)); err != nil || !bytes.Equal(got, kernel) || im.Packed != "" {
					t.Fatalf("%s: %d bytes, %v, %q; want the %d of the kernel", state, len(got), err, im.Packed, len(kernel))
				}
			}
			if freed, err := b.Prune(1); err != nil || freed != 0 {
				t.Errorf("pruned %d bytes of a kernel in use, %v", freed, err)
			}
		})
	}
}

func TestUnpackKeepsItPacked(t *testing.T) {
	good := elfKernel(t, note("Xen\x00", pvhEntry, "\x50\x08\x00\x01"))
	whole := packedKernel(t, good, gzipTo, false)
	beyond := bzImage(whole)
	binary.LittleEndian.PutUint32(beyond[0x24c:], 1<<31)
	old := bzImage(whole)
	binary.LittleEndian.PutUint16(old[0x206:], 0x207)
	arm := bytes.Clone(good)
	binary.LittleEndian.PutUint16(arm[18:], uint16(elf.EM_AARCH64))
	for name, c := range map[string]struct {
		kernel []byte
		why    string
	}{
		"short":            {[]byte("MZ"), "too short"},
		"other":            {make([]byte, 4096), "no bzImage"},
		"old protocol":     {old, "0x207"},
		"beyond its end":   {beyond, "beyond its end"},
		"cut off":          {bzImage(whole[:len(whole)/2]), "damaged"},
		"unknown packing":  {bzImage([]byte("something else")), "no compression"},
		"no ELF file":      {bzImage(packedKernel(t, []byte("hello"), gzipTo, false)), "no ELF file"},
		"without PVH":      {bzImage(packedKernel(t, elfKernel(t, note("Xen\x00", 17, "x")), gzipTo, false)), "CONFIG_PVH"},
		"PVH of others":    {bzImage(packedKernel(t, elfKernel(t, note("Nex\x00", pvhEntry, "x")), gzipTo, false)), "CONFIG_PVH"},
		"notes that lie":   {bzImage(packedKernel(t, elfKernel(t, bytes.Repeat([]byte{0xff}, 64)), gzipTo, false)), "CONFIG_PVH"},
		"another computer": {bzImage(packedKernel(t, arm, gzipTo, false)), "EM_AARCH64"},
	} {
		t.Run(name, func(t *testing.T) {
			b := &Builder{Arch: "amd64", Dir: t.TempDir()}
			im := builtOf(t, c.kernel)
			for range 2 { // made, and kept
				if err := b.Unpack(t.Context(), im); err != nil || im.KernelFor(1024) != im.KernelPath || !strings.Contains(im.Packed, c.why) {
					t.Errorf("%q, %q, %v; want it packed because of %q", im.KernelFor(1024), im.Packed, err, c.why)
				}
			}
			if left, _ := filepath.Glob(filepath.Join(b.Dir, "*", vmlinuxFile)); len(left) > 0 {
				t.Errorf("left %v", left)
			}
		})
	}
}

// A kernel that would fill the disk is given up; one that the disk is too small
// for is an error.
func TestUnpackBounds(t *testing.T) {
	bomb := packedKernel(t, make([]byte, maxKernel+1), gzipTo, false)
	b := &Builder{Arch: "amd64", Dir: t.TempDir()}
	im := builtOf(t, bzImage(bomb))
	if err := b.Unpack(t.Context(), im); err != nil || !strings.Contains(im.Packed, "more than") {
		t.Errorf("%q, %v; want it packed because it is too large", im.Packed, err)
	}
	full := writerFunc(func([]byte) (int, error) { return 0, io.ErrShortWrite })
	if _, err := copyKernel(full, strings.NewReader("x")); err != io.ErrShortWrite {
		t.Errorf("%v; want the error of writing", err)
	}
}

func TestUnpackLeavesArm64(t *testing.T) {
	b := &Builder{Arch: "arm64", Dir: t.TempDir()}
	im := &Image{Arch: "arm64"}
	if err := b.Unpack(t.Context(), im); err != nil || im.KernelFor(1024) != im.KernelPath {
		t.Errorf("%q, %v", im.KernelFor(1024), err)
	}
}

// The smallest memory for an unpacked kernel holds it, the initramfs behind it
// and the firmware's tables.
func TestKernelForSmallMemory(t *testing.T) {
	im := &Image{KernelPath: "packed", vmlinux: &vmlinux{path: "unpacked", End: 64 << 20}, Seals: map[string]seal{initrdFile: {Size: 50 << 20}}}
	for memory, want := range map[int]string{1024: "unpacked", 115: "unpacked", 114: "packed", 64: "packed", 0: "packed"} {
		if got := im.KernelFor(memory); got != want {
			t.Errorf("%d MiB: %s, want %s", memory, got, want)
		}
	}
	im.vmlinux = nil
	if got := im.KernelFor(1024); got != "packed" {
		t.Errorf("nobody unpacked it: %s", got)
	}
}

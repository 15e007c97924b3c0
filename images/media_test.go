package images

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// needTools skips a format whose tools this host does not have.
func needTools(t *testing.T, f Format) {
	t.Helper()
	row, err := f.row()
	if err != nil {
		t.Fatal(err)
	}
	if err := findTools(row.tools); err != nil {
		t.Skip(err)
	}
}

// The same image gives the same medium, in any folder, under any umask, time
// zone, locale and clock; another command line gives another one.
func TestMediaReproducible(t *testing.T) {
	for _, arch := range bothArchs {
		t.Run(arch, func(t *testing.T) {
			first := mediaOf(t, arch, "")
			other := mediaOf(t, arch, "console=ttyS0 x=1")
			second := elsewhere(t, arch)
			for _, f := range Formats() {
				t.Run(string(f), func(t *testing.T) {
					if !f.Supports(arch) {
						t.Skip("no BIOS")
					}
					needTools(t, f)
					sameMedium(t, first[f], second[f])
					if f != KernelInitrd && other[f].Digest == first[f].Digest {
						t.Error("another command line, and the same digest")
					}
				})
			}
		})
	}
}

// elsewhere is mediaOf where everything is different that may be.
func elsewhere(t *testing.T, arch string) map[Format]*Media {
	t.Setenv("TZ", "Asia/Kathmandu")
	t.Setenv("LC_ALL", "de_DE.UTF-8")
	t.Setenv("SOURCE_DATE_EPOCH", "1")
	var tools []string
	for _, row := range formats() {
		tools = append(tools, row.tools...)
	}
	moveClock(t, tools)
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	return mediaOf(t, arch, "")
}

// mediaOf makes an image in a new folder, and all media of it that this host can
// make, as many at a time as there are processors.
func mediaOf(t *testing.T, arch, cmdline string) map[Format]*Media {
	t.Helper()
	b := &Builder{Source: stockFor(t, arch), Arch: arch, Dir: t.TempDir()}
	im, err := b.Build(t.Context(), spec(t, machine))
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var work sync.WaitGroup
	made := map[Format]*Media{}
	room := make(chan struct{}, runtime.GOMAXPROCS(0))
	for _, row := range formats() {
		if !row.format.Supports(arch) || findTools(row.tools) != nil {
			continue
		}
		work.Go(func() {
			room <- struct{}{}
			defer func() { <-room }()
			m, err := b.Media(t.Context(), im, row.format, cmdline)
			if err != nil {
				t.Errorf("%s for %s: %v", row.format, arch, err)
				return
			}
			mu.Lock()
			made[row.format] = m
			mu.Unlock()
		})
	}
	work.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return made
}

func sameMedium(t *testing.T, first, second *Media) {
	t.Helper()
	if first.Digest != second.Digest {
		t.Errorf("%s and %s", first.Digest, second.Digest)
	}
	if len(first.files) == 0 {
		t.Error("no files")
	}
	for i, file := range first.files {
		a, errA := os.ReadFile(file.path)
		b, errB := os.ReadFile(second.files[i].path)
		if err := errors.Join(errA, errB); err != nil || len(a) == 0 || !bytes.Equal(a, b) {
			t.Errorf("%s: %d and %d bytes, %v", file.Name, len(a), len(b), err)
		}
	}
}

// moveClock lets the tools see another year, by Debian's faketime. Our own
// code is compiled without libc and cannot be deceived so; it asks for the time
// only to say how long something took, and to mark what is used in the cache.
func moveClock(t *testing.T, tools []string) {
	t.Helper()
	fake, err := exec.LookPath("faketime")
	if err != nil {
		t.Log("the clock of the tools stays: apt-get install faketime")
		return
	}
	dir := t.TempDir()
	for _, name := range tools {
		if filepath.IsAbs(name) {
			continue
		}
		script := fmt.Sprintf("#!/bin/sh\nexec %s -f +400d %s \"$@\"\n", fake, Tool{Name: name}.Find())
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

// The clock of the tools is really moved: what faketime does not know of is not.
func TestMoveClock(t *testing.T) {
	if _, err := exec.LookPath("faketime"); err != nil {
		t.Skip(err)
	}
	moveClock(t, []string{"date"})
	said, err := exec.Command(Tool{Name: "date"}.Find(), "+%s").Output()
	if err != nil {
		t.Fatal(err)
	}
	seconds, err := strconv.ParseInt(strings.TrimSpace(string(said)), 10, 64)
	if moved := time.Until(time.Unix(seconds, 0)); err != nil || moved < 399*24*time.Hour {
		t.Errorf("moved by %s, %v", moved, err)
	}
}

// A medium for UEFI holds the loader of the component, whatever the host has,
// and another one makes another medium.
func TestMediaLoader(t *testing.T) {
	needTools(t, RawEFI)
	for _, arch := range bothArchs {
		shelf := stockFor(t, arch)
		b := &Builder{Source: shelf, Arch: arch, Dir: t.TempDir()}
		im, err := b.Build(t.Context(), spec(t, machine))
		if err != nil {
			t.Fatal(err)
		}
		first, err := b.Media(t.Context(), im, RawEFI, "")
		if err != nil {
			t.Fatal(err)
		}
		raw, err := os.ReadFile(first.Disk)
		if err != nil || !bytes.Contains(raw, []byte("systemd-boot of "+arch)) {
			t.Errorf("%s: the loader is not on the disk: %v", arch, err)
		}
		shelf["seatrial/efi"] = image(t, arch, v1.Config{}, layer{file(DiskLoader, "another")})
		if second, err := b.Media(t.Context(), im, RawEFI, ""); err != nil || second.Digest == first.Digest {
			t.Errorf("%s: another loader, and the same medium: %v", arch, err)
		}
		shelf["seatrial/efi"] = image(t, arch, v1.Config{}, layer{file("x", "")})
		if _, err := b.Media(t.Context(), im, RawEFI, ""); err == nil || !strings.Contains(err.Error(), "image seatrial/efi has no file boot/systemd-boot.efi") {
			t.Errorf("%s: got %v", arch, err)
		}
		delete(shelf, "seatrial/efi")
		for f, needs := range map[Format]bool{RawEFI: true, Tar: false, Netboot: arch == "arm64"} {
			if _, err := b.Media(t.Context(), im, f, ""); errors.Is(err, ErrNotFound) != needs || f.NeedsLoader(arch) != needs {
				t.Errorf("%s for %s without loader: %v", f, arch, err)
			}
		}
	}
}

// On arm64 the firmware loads GRUB, and that the rest.
func TestNetbootGRUB(t *testing.T) {
	b := &Builder{Source: stockFor(t, "arm64"), Arch: "arm64", Dir: t.TempDir()}
	im, err := b.Build(t.Context(), spec(t, machine))
	if err != nil {
		t.Fatal(err)
	}
	m, err := b.Media(t.Context(), im, Netboot, "console=ttyAMA0 a=$b;c")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		m.Bootfile: "GRUB of arm64", "kernel": "bzImage of arm64",
		"grub/grub.cfg": "linux /kernel 'console=ttyAMA0' 'a=$b;c'\ninitrd /initrd.img\nboot\n",
	} {
		if got, err := os.ReadFile(filepath.Join(m.TFTP, name)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if !m.UEFI {
		t.Error("there is no other firmware on arm64")
	}
	if _, err := b.Media(t.Context(), im, Netboot, `dyndbg="file a +p"`); err == nil || !strings.Contains(err.Error(), `GRUB would hand dyndbg="file a +p" to the kernel with its quotes escaped`) {
		t.Errorf("got %v", err)
	}
}

// iPXE has no quotes: what it would change is refused, all else is handed on.
func TestNetbootIPXE(t *testing.T) {
	b := &Builder{Source: stock(t), Arch: "amd64", Dir: t.TempDir()}
	im, err := b.Build(t.Context(), spec(t, machine))
	if err != nil {
		t.Fatal(err)
	}
	for cmdline, want := range map[string]string{
		`a=$b{c} d=$ {e} f#g h;i j&&k l\ "m n" o`: "",
		`a=${b} c`:      "take the ${...} in it for a setting of its own, and the kernel would not get the word a=${b}: leave that word out",
		`a=x${b c`:      "take the ${...} in it",
		`a #b c`:        "take it and what follows for a comment",
		`a && b`:        "take it for the end of the command",
		`a || b`:        "take it for the end of the command",
		`a ; b`:         "take it for the end of the command",
		`a b\`:          "join the next line to it",
		`dyndbg="a  b"`: "make single blanks of its white space",
	} {
		m, err := b.Media(t.Context(), im, Netboot, cmdline)
		if want != "" {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %v, want %s", cmdline, err, want)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		script, err := os.ReadFile(filepath.Join(m.TFTP, m.Bootfile))
		if want := "#!ipxe\nkernel kernel initrd=initrd.img " + cmdline + "\ninitrd initrd.img\nboot\n"; err != nil || string(script) != want {
			t.Errorf("%s, %v, want %s", script, err, want)
		}
	}
}

func TestMediaCache(t *testing.T) {
	dir := t.TempDir()
	var said []string
	b := &Builder{Source: stock(t), Arch: "amd64", Dir: dir, Progress: func(line string) { said = append(said, line) }}
	im, err := b.Build(t.Context(), spec(t, machine))
	if err != nil {
		t.Fatal(err)
	}
	first, err := b.Media(t.Context(), im, Tar, "")
	if err != nil {
		t.Fatal(err)
	}
	said = nil
	again, err := b.Media(t.Context(), im, Tar, "")
	if err != nil || len(said) > 0 {
		t.Errorf("%v, %q", err, said)
	}
	if d := cmp.Diff(first, again, cmpopts.IgnoreUnexported(Media{}, Image{})); d != "" {
		t.Error(d)
	}
	if err := os.WriteFile(first.files[0].path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if mended, err := b.Media(t.Context(), im, Tar, ""); err != nil || mended.Digest != first.Digest || len(said) == 0 {
		t.Errorf("%+v, %v, %q", mended, err, said)
	}
	if _, err := b.Media(t.Context(), im, "iso", ""); err == nil || !strings.Contains(err.Error(), `unknown format "iso": known are: kernel+initrd, `) {
		t.Errorf("got %v", err)
	}
	im.Arch = "arm64"
	if _, err := b.Media(t.Context(), im, ISOBIOS, ""); err == nil || !strings.Contains(err.Error(), "no BIOS on arm64") {
		t.Errorf("got %v", err)
	}
}

// What a failed tool left is gone, and its own words are in the error.
func TestMediaFailure(t *testing.T) {
	b := &Builder{Source: stock(t), Arch: "amd64", Dir: t.TempDir()}
	im, err := b.Build(t.Context(), spec(t, machine))
	if err != nil {
		t.Fatal(err)
	}
	m := &mastering{ctx: t.Context(), b: b, image: im, dir: t.TempDir(), media: &Media{}}
	if err := m.run("", "mkfs.fat", "--no-such-flag"); (Tool{Name: "mkfs.fat"}).Find() != "" && (err == nil || !strings.Contains(err.Error(), "no-such-flag")) {
		t.Errorf("got %v", err)
	}
	kernel := im.KernelPath
	im.KernelPath = filepath.Join(t.TempDir(), "gone")
	if _, err := b.Media(t.Context(), im, Netboot, ""); err == nil || !strings.Contains(err.Error(), "gone") {
		t.Errorf("got %v", err)
	}
	im.KernelPath = kernel
	onlyImages(t, b.Dir, 2)
}

// All formats may be written into one folder: only the kernel, which is the
// same, and the command line without root= have one name in several of them.
func TestExportNames(t *testing.T) {
	b := &Builder{Source: stock(t), Arch: "amd64", Dir: t.TempDir()}
	im, err := b.Build(t.Context(), spec(t, machine))
	if err != nil {
		t.Fatal(err)
	}
	out, writer := t.TempDir(), map[string]Format{}
	for _, f := range Formats() {
		row, err := f.row()
		if err != nil {
			t.Fatal(err)
		}
		if findTools(row.tools) != nil {
			continue // other tests say that they are missing
		}
		m, err := b.Media(t.Context(), im, f, "")
		if err != nil {
			t.Fatal(err)
		}
		paths, err := m.Export(out, "x")
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range paths {
			if first, twice := writer[p]; twice && !slices.Contains([]string{"x-kernel", "x-cmdline"}, filepath.Base(p)) {
				t.Errorf("%s is written by %s and by %s", filepath.Base(p), first, f)
			}
			writer[p] = f
		}
	}
	if len(writer) < 7 {
		t.Errorf("only %d files", len(writer))
	}
}

// What a killed export left goes with the next one; what a live one has stays.
func TestKilledExport(t *testing.T) {
	im := build(t, t.TempDir(), machine)
	out := t.TempDir()
	left, lock, err := exportDir(out)
	if err != nil {
		t.Fatal(err)
	}
	half := filepath.Join(left, "m-initrd.img")
	if err := os.WriteFile(half, []byte("half"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := im.Export(out, "m"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(half); err != nil {
		t.Errorf("a live export lost its files: %v", err)
	}
	if err := lock.Close(); err != nil { // as the kernel does when it dies
		t.Fatal(err)
	}
	if _, err := im.Export(out, "m"); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(out)
	if err != nil || len(entries) != 3 {
		t.Errorf("%v, %v", entries, err)
	}
}

// A folder in the place of one file keeps all others from being written.
func TestExportOntoFolder(t *testing.T) {
	im, out := build(t, t.TempDir(), machine), t.TempDir()
	if err := os.Mkdir(filepath.Join(out, "m-initrd.img"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := im.Export(out, "m"); err == nil || !strings.Contains(err.Error(), "m-initrd.img is a folder, and a file must get this name") {
		t.Errorf("got %v", err)
	}
	if left, err := os.ReadDir(out); err != nil || len(left) != 1 {
		t.Errorf("%v, %v", left, err)
	}
	if _, err := im.Export(out, "n"); err != nil {
		t.Error(err)
	}
}

// The folder for TFTP can be entered by all and has nothing of a build for
// another architecture; what is the user's own stays.
func TestExportNetboot(t *testing.T) {
	out := t.TempDir()
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	folder := filepath.Join(out, "m-netboot")
	for _, arch := range []string{"amd64", "arm64", "amd64"} {
		b := &Builder{Source: stockFor(t, arch), Arch: arch, Dir: t.TempDir()}
		im, err := b.Build(t.Context(), spec(t, machine))
		if err != nil {
			t.Fatal(err)
		}
		m, err := b.Media(t.Context(), im, Netboot, "")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.Export(out, "m"); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(folder, "mine"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]bool{"boot.ipxe": arch == "amd64", "boot.efi": arch == "arm64", "grub/grub.cfg": arch == "arm64", "mine": true} {
			if _, err := os.Stat(filepath.Join(folder, name)); (err == nil) != want {
				t.Errorf("%s: %s: %v", arch, name, err)
			}
		}
		for _, dir := range []string{folder, filepath.Join(folder, "grub")} {
			if info, err := os.Stat(dir); err == nil && info.Mode().Perm() != 0o755 || err != nil && dir == folder {
				t.Errorf("%s: %v", dir, err)
			}
		}
	}
}

// archived reads a tar archive, entry by entry.
func archived(t *testing.T, path string) iter.Seq2[*tar.Header, string] {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return func(yield func(*tar.Header, string) bool) {
		for r := tar.NewReader(bytes.NewReader(raw)); ; {
			h, err := r.Next()
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			data, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			if !yield(h, string(data)) {
				return
			}
		}
	}
}

func TestTarMedium(t *testing.T) {
	b := &Builder{Source: stock(t), Arch: "amd64", Dir: t.TempDir()}
	im, err := b.Build(t.Context(), spec(t, machine))
	if err != nil {
		t.Fatal(err)
	}
	m, err := b.Media(t.Context(), im, Tar, "a b")
	if err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	paths, err := m.Export(out, "x")
	if err != nil || len(paths) != 1 || paths[0] != filepath.Join(out, "x.tar") {
		t.Fatalf("%q, %v", paths, err)
	}
	got := map[string]string{}
	for h, data := range archived(t, paths[0]) {
		got[h.Name] = string(h.Typeflag) + " " + h.Linkname + data
	}
	for name, want := range map[string]string{
		"init": "0 PID 1", "sbin/init": "1 init", "boot/kernel": "0 bzImage of amd64", "boot/cmdline": "0 a b",
		"opt/link": "2 /usr/local/script", "srv/data/": "5 ", "dev/console": "3 ",
	} {
		if got[name] != want {
			t.Errorf("%s: got %q, want %q", name, got[name], want)
		}
	}
}

// The root has the owner and mode of the image on every medium that holds one,
// and never those of the user who builds.
func TestRootOwner(t *testing.T) {
	for _, c := range []struct {
		files     []File
		mode, own uint32
	}{
		{nil, 0o755, 0},
		{[]File{{Path: "/", Directory: true, Mode: "0711", UID: ID{Number: 7}, GID: ID{Number: 7}}}, 0o711, 7},
	} {
		b := &Builder{Source: stock(t), Arch: "amd64", Dir: t.TempDir()}
		s := spec(t, machine)
		s.Files = append(s.Files, c.files...)
		im, err := b.Build(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		root, f, err := im.root()
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		if n := root.root; n.mode != typeDir|c.mode || n.uid != c.own || n.gid != c.own || n.children["."] != nil {
			t.Errorf("initramfs: %o %d:%d", n.mode, n.uid, n.gid)
		}
		m, err := b.Media(t.Context(), im, Tar, "")
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		for h := range archived(t, m.files[0].path) {
			if h.Name != "./" {
				continue
			}
			if found++; h.Mode != int64(c.mode) || h.Uid != int(c.own) || h.Gid != int(c.own) {
				t.Errorf("tar: %o %d:%d", h.Mode, h.Uid, h.Gid)
			}
		}
		if found != 1 {
			t.Errorf("tar: %d roots", found)
		}
		t.Run("squashfs", func(t *testing.T) { squashfsRoot(t, b, im, c.mode, c.own) })
	}
}

// squashfsRoot compares the root's inode as it is on the disk: unsquashfs shows
// another owner (squashfs-tools 4.5). Nothing on it is compressed.
func squashfsRoot(t *testing.T, b *Builder, im *Image, mode, own uint32) {
	needTools(t, KernelSquashfs)
	m, err := b.Media(t.Context(), im, KernelSquashfs, "")
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(m.Disk)
	if err != nil {
		t.Fatal(err)
	}
	le := binary.LittleEndian
	at, inodes, ids := le.Uint64(raw[32:]), le.Uint64(raw[64:]), le.Uint64(raw[48:])
	inode := raw[inodes+at>>16+2+at&0xffff:]
	id := func(field int) uint32 {
		return le.Uint32(raw[le.Uint64(raw[ids:])+2+4*uint64(le.Uint16(inode[field:])):])
	}
	if got := uint32(le.Uint16(inode[2:])); got != mode || id(4) != own || id(6) != own {
		t.Errorf("%o %d:%d, want %o %d:%d", got, id(4), id(6), mode, own, own)
	}
}

func TestPrune(t *testing.T) {
	dir := t.TempDir()
	b := &Builder{Source: stock(t), Arch: "amd64", Dir: dir}
	build := func(contents string) *Image {
		t.Helper()
		im, err := b.Build(t.Context(), spec(t, head+"files: [{path: /x, contents: "+contents+"}]\n"))
		if err != nil {
			t.Fatal(err)
		}
		return im
	}
	there := func(im *Image) bool {
		_, err := os.Stat(im.InitrdPath)
		return err == nil
	}
	held, old := build("a"), build("b")
	if err := old.lease.Close(); err != nil { // as if nobody had it any more
		t.Fatal(err)
	}
	build("c")
	if !there(held) || !there(old) {
		t.Error("below the limit nothing is removed")
	}
	b.Limit = 1
	last := build("d")
	if there(old) {
		t.Error("what nobody uses is left, beyond the limit")
	}
	if !there(held) || !there(last) {
		t.Error("what is used was removed")
	}
}

// A write that keeps size and times is noticed.
func TestDamage(t *testing.T) {
	dir := t.TempDir()
	im := build(t, dir, machine)
	info, err := os.Stat(im.InitrdPath)
	if err != nil {
		t.Fatal(err)
	}
	flip := func(path string) {
		t.Helper()
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		var b [1]byte
		_, errR := f.ReadAt(b[:], 200)
		b[0] ^= 0x40
		_, errW := f.WriteAt(b[:], 200)
		if err := errors.Join(errR, errW, f.Close(), os.Chtimes(path, info.ModTime(), info.ModTime())); err != nil {
			t.Fatal(err)
		}
	}
	flip(im.InitrdPath)
	if _, err := readImage(filepath.Dir(im.InitrdPath)); err == nil || !strings.Contains(err.Error(), "is damaged: its digest is") {
		t.Errorf("got %v", err)
	}
	flip(im.InitrdPath)
	if _, err := readImage(filepath.Dir(im.InitrdPath)); err != nil {
		t.Errorf("a file that was touched and is sound: %v", err)
	}
	description := filepath.Join(filepath.Dir(im.InitrdPath), imageFile)
	raw, err := os.ReadFile(description)
	if err != nil {
		t.Fatal(err)
	}
	raw = bytes.Replace(raw, []byte(im.Digest), []byte("sha256:"+strings.Repeat("0", 64)), 1)
	if err := os.WriteFile(description, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readImage(filepath.Dir(im.InitrdPath)); err == nil || !strings.Contains(err.Error(), "is damaged: it says sha256:0000") {
		t.Errorf("got %v", err)
	}
}

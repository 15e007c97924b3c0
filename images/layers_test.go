package images

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

func testSpool(t testing.TB) *spool {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "spool"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return &spool{file: f}
}

func listing(t testing.TB, tree *tree) map[string]string {
	t.Helper()
	got := map[string]string{}
	if err := tree.walk(func(name string, e *entry) error {
		if !e.is(typeDir) || len(e.children) == 0 {
			got[name] = describeEntry(e)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return got
}

func TestFlatten(t *testing.T) {
	for name, c := range map[string]struct {
		layers []layer
		want   map[string]string
	}{
		"later wins":         {[]layer{{file("a", "1"), file("b", "1")}, {file("b", "2")}}, map[string]string{"a": "file 644 0:0 1", "b": "file 644 0:0 2"}},
		"duplicate entries":  {[]layer{{file("a", "1"), file("a", "2"), folder("a", 0o700), file("a", "3")}}, map[string]string{"a": "file 644 0:0 3"}},
		"whiteout":           {[]layer{{file("d/a", ""), file("d/b", "")}, {file("d/.wh.a", "")}}, map[string]string{"d/b": "file 644 0:0 "}},
		"whiteout, own file": {[]layer{{file("a", "old")}, {file("a", "new"), file(".wh.a", "")}}, map[string]string{"a": "file 644 0:0 new"}},
		"whiteout, folder":   {[]layer{{file("d/a", ""), file("e", "")}, {folder("d", 0o711), file(".wh.d", ""), file("d/n", "")}}, map[string]string{"d/n": "file 644 0:0 ", "e": "file 644 0:0 "}},
		"whiteout of link":   {[]layer{{file("a", "x"), hardlink("b", "a")}, {file(".wh.a", "")}}, map[string]string{"b": "file 644 0:0 x"}},
		"opaque":             {[]layer{{file("d/a", ""), file("d/s/b", "")}, {file("d/n", ""), file("d/.wh..wh..opq", "")}}, map[string]string{"d/n": "file 644 0:0 "}},
		"aufs":               {[]layer{{file(".wh..wh.plnk/x", ""), file(".wh..wh.aufs", "")}}, map[string]string{".wh..wh.plnk/x": "file 644 0:0 "}},
		"through a link":     {[]layer{{folder("usr/bin", 0o755), symlink("bin", "usr/bin")}, {file("bin/sh", "")}}, map[string]string{"bin": "link usr/bin", "usr/bin/sh": "file 644 0:0 "}},
		"folder over link":   {[]layer{{folder("usr/bin", 0o755), symlink("bin", "usr/bin")}, {folder("bin", 0o755)}}, map[string]string{"bin": "dir 755 0:0", "usr/bin": "dir 755 0:0"}},
		"file over folder":   {[]layer{{file("a/b/c", "")}, {file("a", "")}}, map[string]string{"a": "file 644 0:0 "}},
		"dots inside":        {[]layer{{file("./a/../b/./c", "")}}, map[string]string{"b/c": "file 644 0:0 "}},
		"set-id and owner":   {[]layer{{{Typeflag: tar.TypeReg, Name: "su", Mode: 0o4755, Uid: 1, Gid: 2}}}, map[string]string{"su": "file 4755 1:2 "}},

		// Names and links that mean the host when unpacked carelessly.
		"absolute name":       {[]layer{{file("/etc/passwd", "x")}}, map[string]string{"etc/passwd": "file 644 0:0 x"}},
		"absolute link":       {[]layer{{symlink("etc", "/tmp/outside"), file("etc/x", "")}}, map[string]string{"etc": "link /tmp/outside", "tmp/outside/x": "file 644 0:0 "}},
		"climbing link":       {[]layer{{symlink("d/up", "../../../../tmp"), file("d/up/x", "")}}, map[string]string{"d/up": "link ../../../../tmp", "tmp/x": "file 644 0:0 "}},
		"link chain":          {[]layer{{symlink("a", "b"), symlink("b", "/c/.."), file("a/x", "")}}, map[string]string{"a": "link b", "b": "link /c/..", "c": "dir 755 0:0", "x": "file 644 0:0 "}},
		"hard link, own name": {[]layer{{file("a", "x"), hardlink("a", "a")}}, map[string]string{"a": "file 644 0:0 x"}},
		"hard link to link":   {[]layer{{symlink("a", "/etc/shadow"), hardlink("b", "a")}}, map[string]string{"a": "link /etc/shadow", "b": "link /etc/shadow"}},
		"device":              {[]layer{{{Typeflag: tar.TypeChar, Name: "dev/mem", Mode: 0o600, Devmajor: 1, Devminor: 1}}}, map[string]string{"dev/mem": "char 600 0:0 1:1"}},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := flatten(context.Background(), image(t, "amd64", v1.Config{}, c.layers...), testSpool(t))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, listing(t, f.tree)); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestFlattenRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		layer layer
		want  string
	}{
		"climbing name":         {layer{file("../../etc/passwd", "x")}, `"../../etc/passwd" climbs out of the root`},
		"climbing from root":    {layer{file("/../x", "x")}, "climbs out"},
		"climbing hard link":    {layer{hardlink("a", "../../etc/shadow")}, "hard link to"},
		"hard link to nothing":  {layer{hardlink("a", "/etc/shadow")}, "which is not there"},
		"hard link to a folder": {layer{folder("d", 0o755), hardlink("a", "d")}, "which is a directory"},
		"link loop":             {layer{symlink("a", "b"), symlink("b", "a"), file("a/x", "")}, "more than 40 symbolic links"},
		"link to itself":        {layer{symlink("a", "a/a/a"), file("a/x", "")}, "more than 40 symbolic links"},
		"long part":             {layer{file(strings.Repeat("n", 256), "")}, "the kernel takes 255"},
		"long name":             {layer{file(strings.Repeat("abcdefg/", 600)+"x", "")}, "the kernel takes 4095"},
		"long target":           {layer{symlink("a", strings.Repeat("t", 4096))}, "symbolic link to"},
		"whiteout of no name":   {layer{file("d/.wh.", "")}, "whiteout of no name"},
		"whiteout of parent":    {layer{file("d/.wh...", "")}, "whiteout of no name"},
		"strange type":          {layer{{Typeflag: 'V', Name: "a"}}, "unknown type"},
		"huge owner":            {layer{{Typeflag: tar.TypeReg, Name: "a", Uid: 1 << 32}}, "does not fit into 32 bits"},
		"device number":         {layer{{Typeflag: tar.TypeBlock, Name: "a", Devmajor: 1 << 20}}, "out of range"},
		"root as a file":        {layer{file(".", "x")}, "can only be a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := flatten(context.Background(), image(t, "amd64", v1.Config{}, c.layer), testSpool(t))
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "layer 1 of 1") {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// liar is a layer whose bytes are not what its digest says.
type liar struct {
	v1.Layer
	raw []byte
}

func (l liar) Size() (int64, error) { return int64(len(l.raw)), nil }

func (l liar) Compressed() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(l.raw)), nil }

func TestFlattenDamage(t *testing.T) {
	sound := layer{file("a", strings.Repeat("x", 5000))}.archive(t)
	made, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(sound)), nil })
	if err != nil {
		t.Fatal(err)
	}
	// xzOf packs with the host's xz, which can do more than the library.
	xzOf := func(args ...string) []byte {
		cmd := exec.CommandContext(t.Context(), "xz", append(args, "-c")...)
		cmd.Stdin = bytes.NewReader(sound)
		out, err := cmd.Output()
		if err != nil {
			t.Fatal("apt-get install xz-utils: ", err)
		}
		return out
	}
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	// large is a sound header of a block with the largest dictionary there is.
	large := []byte("\x02\x00\x21\x01\x28\x00\x00\x00")
	large = binary.LittleEndian.AppendUint32(large, crc32.ChecksumIEEE(large))
	index := func(raw []byte) int { return bytes.LastIndex(raw, []byte("\x00\x01")) } // of one block
	begin, oneBlock, checked := xzOf("-6")[:12], xzOf("--check=none"), xzOf("--check=sha256")
	noBlock := join(oneBlock[:12], oneBlock[index(oneBlock):])
	oneBlock = oneBlock[:index(oneBlock)]
	flipped := func(raw []byte, at int) []byte { raw = bytes.Clone(raw); raw[at] ^= 1; return raw }
	for name, c := range map[string]struct {
		raw  []byte
		want string
	}{
		"other bytes":                   {layer{file("a", strings.Repeat("y", 5000))}.archive(t), "is damaged: its digest is sha256:"},
		"cut short":                     {sound[:2000], "unexpected EOF"},
		"not a tar":                     {bytes.Repeat([]byte("garbage!"), 512), "not a sound tar archive"},
		"more behind":                   {append(bytes.Clone(sound), make([]byte, 512)...), "is damaged"},
		"as it is":                      {sound, ""},
		"gzip":                          {compressed(t, sound, "gzip"), ""},
		"zstd":                          {compressed(t, sound, "zstd"), ""},
		"xz":                            {compressed(t, sound, "xz"), ""},
		"bzip2":                         {bzipped(t, sound), ""},
		"zstd behind metadata":          {append([]byte("\x50\x2a\x4d\x18\x04\x00\x00\x00meta"), compressed(t, sound, "zstd")...), ""},
		"zstd behind the last metadata": {append([]byte("\x5f\x2a\x4d\x18\x00\x00\x00\x00"), compressed(t, sound, "zstd")...), ""},
		"xz, short":                     {compressed(t, sound, "xz")[:60], "unexpected EOF"},
		"bzip2, short":                  {bzipped(t, sound)[:40], "unexpected EOF"},
		"xz, large":                     {[]byte("\xfd7zXZ\x00\x00\x04\xe6\xd6\xb4\x46\x02\x00\x21\x01\x28"), "unexpected EOF"},
		"xz, large first":               {join(begin, large), "a block's dictionary of 4294967296 bytes is larger than the limit of 134217728; pack it anew"},
		"xz, large later":               {join(compressed(t, sound, "xz"), begin, large), "is larger than the limit of 134217728; pack it anew"},
		"xz, large second block":        {join(oneBlock, large), "is larger than the limit of 134217728; pack it anew"},
		"xz, large behind padding":      {join(xzOf("-6"), make([]byte, 8), oneBlock, large), "is larger than the limit of 134217728; pack it anew"},
		"xz, several streams":           {join(xzOf("-6"), make([]byte, 4), compressed(t, nil, "xz")), ""},
		"xz, several blocks":            {xzOf("--block-size=600"), ""},
		"xz, sha256 and no filter":      {xzOf("--check=sha256", "--lzma2=preset=0"), ""},
		"xz, no check":                  {xzOf("--check=none", "--block-size=4000"), ""},
		"xz, check":                     {flipped(checked, index(checked)-1), "the check of a block is wrong"},
		"xz, lost block":                {noBlock, "its index says"},
		"xz, another filter":            {xzOf("--x86", "--lzma2"), "another filter than LZMA2"},
		"zstd, window in a later frame": {append(compressed(t, sound, "zstd"), 0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xff, 0, 0, 0), "window size exceeded"},
		"lz4":                           {[]byte("\x04\x22\x4d\x18 and so on"), "its first bytes (04 22 4d 18 20 61 6e 64) are of no compression that is known here; pack it anew with gzip"},
		"not metadata":                  {[]byte("\x60\x2a\x4d\x18\x00\x00\x00\x00"), "are of no compression"},
		"gzip, short":                   {compressed(t, sound, "gzip")[:60], "unexpected EOF"},
		"zstd, short":                   {compressed(t, sound, "zstd")[:60], "unexpected EOF"},
		"gzip, bad":                     {append([]byte{0x1f, 0x8b}, sound...), "its compression is damaged"},
		"empty":                         {nil, "is damaged"},
		"window":                        {[]byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xff, 0, 0, 0}, "window size exceeded"},
	} {
		t.Run(name, func(t *testing.T) {
			want, err := made.DiffID()
			if err != nil {
				t.Fatal(err)
			}
			f := &flattener{tree: newTree(), spool: testSpool(t)}
			err = f.layer(context.Background(), liar{made, c.raw}, want)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// bzipped compresses with the host's bzip2: the standard library only unpacks.
func bzipped(t *testing.T, raw []byte) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "bzip2", "-c")
	cmd.Stdin = bytes.NewReader(raw)
	out, err := cmd.Output()
	if err != nil {
		t.Skip("apt-get install bzip2: ", err)
	}
	return out
}

// compressed compresses.
func compressed(t *testing.T, raw []byte, how string) []byte {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser = gzip.NewWriter(&b)
	if how == "xz" {
		x, err := xz.NewWriter(&b)
		if err != nil {
			t.Fatal(err)
		}
		w = x
	}
	if how == "zstd" {
		z, err := zstd.NewWriter(&b)
		if err != nil {
			t.Fatal(err)
		}
		w = z
	}
	if _, err := w.Write(raw); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// A layer of nothing but zeros, a thousandth of its size, is stopped at the
// limit and not at the end of the disk; behind an archive's end too.
func TestFlattenBomb(t *testing.T) {
	zeros := func(n int64) io.Reader {
		return io.LimitReader(readerFunc(func(p []byte) (int, error) { clear(p); return len(p), nil }), n)
	}
	var header bytes.Buffer
	if err := tar.NewWriter(&header).WriteHeader(&tar.Header{Name: "big", Typeflag: tar.TypeReg, Size: 2 << 30}); err != nil {
		t.Fatal(err)
	}
	f := &flattener{tree: newTree(), spool: testSpool(t), bytes: maxBytes - 1<<30}
	err := f.unpack(io.MultiReader(&header, zeros(2<<30)))
	if err == nil || !strings.Contains(err.Error(), "are too many") {
		t.Errorf("got %v", err)
	}
	if f.spool.size > 0 {
		t.Errorf("%d bytes were written first", f.spool.size)
	}
}

// A hundred thousand entries take a moment, not minutes.
func TestFlattenManyEntries(t *testing.T) {
	t.Parallel()
	many := make(layer, 0, 100_000)
	for i := range cap(many) {
		many = append(many, tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("d%d/f%d", i%100, i), Mode: 0o644})
	}
	f, err := flatten(t.Context(), image(t, "amd64", v1.Config{}, many), testSpool(t))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	if err := f.tree.walk(func(string, *entry) error { n++; return nil }); err != nil || n != 100_100 {
		t.Errorf("%d names, %v", n, err)
	}
}

// The config's digests count, not what the layer says of itself.
func TestFlattenSwapped(t *testing.T) {
	img := image(t, "amd64", v1.Config{}, layer{file("a", "x")})
	other := image(t, "amd64", v1.Config{}, layer{file("a", "y")})
	if _, err := flatten(t.Context(), swapped{img, other}, testSpool(t)); err == nil || !strings.Contains(err.Error(), "is damaged: its digest is sha256:") {
		t.Errorf("got %v", err)
	}
	two := image(t, "amd64", v1.Config{}, layer{file("a", "x")}, layer{file("a", "y")})
	if _, err := flatten(t.Context(), swapped{img, two}, testSpool(t)); err == nil || !strings.Contains(err.Error(), "has 2 layers, and its config names 1") {
		t.Errorf("got %v", err)
	}
}

// swapped is an image with another one's layers.
type swapped struct {
	v1.Image
	other v1.Image
}

func (s swapped) Layers() ([]v1.Layer, error) { return s.other.Layers() }

func TestFlattenLimits(t *testing.T) {
	f := &flattener{tree: newTree(), spool: testSpool(t)}
	f.entries = maxEntries
	if err := f.unpack(bytes.NewReader(layer{file("a", "")}.archive(t))); err == nil || !strings.Contains(err.Error(), "more than 1000000 entries") {
		t.Errorf("entries: %v", err)
	}
	// Few entries can stand for many folders, and for much memory.
	f = &flattener{tree: newTree(), spool: testSpool(t)}
	f.tree.implied = maxEntries - 3
	if err := f.unpack(bytes.NewReader(layer{file("a/b/c/d", ""), file("a/b/c/e", "")}.archive(t))); err != nil {
		t.Errorf("the last folder fits: %v", err)
	}
	if err := f.unpack(bytes.NewReader(layer{file("b/d", "")}.archive(t))); err == nil || !strings.Contains(err.Error(), "more than 1000000 folders that nothing describes") {
		t.Errorf("folders: %v", err)
	}
	f = &flattener{tree: newTree(), spool: testSpool(t), names: maxNames - 3}
	if err := f.unpack(bytes.NewReader(layer{symlink("a", "bc")}.archive(t))); err != nil {
		t.Errorf("the last name fits: %v", err)
	}
	if err := f.unpack(bytes.NewReader(layer{file("a", "")}.archive(t))); err == nil || !strings.Contains(err.Error(), "more than 536870912 bytes of names and links") {
		t.Errorf("names: %v", err)
	}
	f = &flattener{tree: newTree(), spool: testSpool(t), bytes: maxBytes - 1}
	if err := f.unpack(bytes.NewReader(layer{file("a", "x")}.archive(t))); err != nil {
		t.Errorf("the last byte fits: %v", err)
	}
	if err := f.unpack(bytes.NewReader(layer{file("a", "x")}.archive(t))); err == nil || !strings.Contains(err.Error(), "are too many") {
		t.Errorf("bytes: %v", err)
	}
	var b bytes.Buffer // a header that promises 5 GB and has none of it
	if err := tar.NewWriter(&b).WriteHeader(&tar.Header{Name: "big", Typeflag: tar.TypeReg, Size: 5 << 30}); err != nil {
		t.Fatal(err)
	}
	f = &flattener{tree: newTree(), spool: testSpool(t)}
	if err := f.unpack(&b); err == nil || !strings.Contains(err.Error(), "are too many") {
		t.Errorf("lying size: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := flatten(ctx, image(t, "amd64", v1.Config{}, layer{file("a", "")}), testSpool(t)); err == nil {
		t.Error("a cancelled context did not end it")
	}
}

// Images are laid over one another otherwise than layers: no whiteouts, and
// links to folders stay.
func TestOver(t *testing.T) {
	flat := func(l layer) *tree {
		f, err := flatten(context.Background(), image(t, "amd64", v1.Config{}, l), testSpool(t))
		if err != nil {
			t.Fatal(err)
		}
		return f.tree
	}
	merged := flat(layer{folder("usr/bin", 0o755), symlink("bin", "usr/bin"), folder("secret", 0o700), file("secret/a", "1"), folder("tmp", 0o1777)})
	other := flat(layer{folder("bin", 0o755), file("bin/sh", "sh"), file("secret/b", "2"), folder("tmp", 0o755)})
	root := newTree()
	for _, upper := range []*tree{merged, other} {
		if err := root.over(upper); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]string{"bin": "link usr/bin", "usr/bin/sh": "file 644 0:0 sh", "secret/a": "file 644 0:0 1", "secret/b": "file 644 0:0 2", "tmp": "dir 755 0:0"}
	if d := cmp.Diff(want, listing(t, root)); d != "" {
		t.Error(d)
	}
	if got := describeEntry(root.find("secret")); got != "dir 700 0:0" {
		t.Errorf("a folder that the later image does not describe keeps its mode: %s", got)
	}
	if merged.find("secret/b") != nil || merged.find("usr/bin/sh") != nil {
		t.Error("the lower image itself was changed")
	}
}

func TestTrailerName(t *testing.T) {
	root := newTree()
	if err := root.put("TRAILER!!!", newFile(0o644, "")); err != nil {
		t.Fatal(err)
	}
	if err := writeInitramfs(io.Discard, root); err == nil {
		t.Error("the archive would end there")
	}
}

package images

import (
	"archive/tar"
	"os/exec"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Names that are odd and allowed come through on every medium as they are.
func TestOddNames(t *testing.T) {
	names := []string{"a\nb", "bl ank", "\xff\xfe", "ümlaut", `back\slash`, "-dash", "quote\"'", "=", "#x", "tab\tx", strings.Repeat("n", 255)}
	odd := layer{folder("odd", 0o755)}
	for i, n := range names {
		h := program("odd/"+n, "contents of "+n)
		if i < 3 {
			h.PAXRecords["SCHILY.xattr.user.seatrial"] = "value of " + n
		}
		odd = append(odd, h, symlink("odd/to"+string(rune('A'+i)), n))
	}
	odd = append(odd, tar.Header{Typeflag: tar.TypeFifo, Name: "odd/fifo", Mode: 0o600})
	shelf := stock(t)
	shelf["test/odd"] = image(t, "amd64", v1.Config{}, odd)
	b := &Builder{Source: shelf, Arch: "amd64", Dir: t.TempDir()}
	im, err := b.Build(t.Context(), spec(t, strings.Replace(machine, "  - test/init\n", "  - test/init\n  - test/odd\n", 1)))
	if err != nil {
		t.Fatal(err)
	}
	root, f, err := im.root()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := b.Media(t.Context(), im, Tar, "")
	if err != nil {
		t.Fatal(err)
	}
	inTar := map[string]string{}
	for h := range archived(t, m.files[0].path) {
		inTar[h.Name] = h.PAXRecords["SCHILY.xattr.user.seatrial"]
	}
	for i, n := range names {
		e := root.find("odd/" + n)
		attribute, there := inTar["odd/"+n]
		want := ""
		if i < 3 {
			want = "value of " + n
		}
		if e == nil || !there || attribute != want || root.find("odd/to"+string(rune('A'+i))).target != n {
			t.Errorf("%q: %v, in the archive %v with %q", n, e, there, attribute)
		}
	}
	if e := root.find("odd/fifo"); e == nil || !e.is(typeFIFO) {
		t.Error("the FIFO is lost")
	}
	needTools(t, KernelSquashfs)
	if m, err = b.Media(t.Context(), im, KernelSquashfs, ""); err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		out, err := exec.CommandContext(t.Context(), "unsquashfs", "-cat", m.Disk, "odd/"+strings.ReplaceAll(n, `\`, `\\`)).CombinedOutput()
		if err != nil || string(out) != "contents of "+n {
			t.Errorf("squashfs: %q: %q, %v", n, out, err)
		}
	}
}

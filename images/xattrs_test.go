package images

import (
	"archive/tar"
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
)

// pingCapability is what setcap cap_net_raw+ep writes (VFS_CAP_REVISION_2).
const pingCapability = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// with adds an extended attribute to an entry of a layer.
func with(h tar.Header, name, value string) tar.Header {
	records := map[string]string{paxAttribute + name: value}
	for k, v := range h.PAXRecords {
		records[k] = v
	}
	h.PAXRecords = records
	return h
}

func TestFlattenAttributes(t *testing.T) {
	ping := with(program("bin/ping", "x"), "security.capability", pingCapability)
	for name, c := range map[string]struct {
		layers []layer
		want   map[string]attributes
		left   int
	}{
		"none":             {[]layer{{file("a", "")}}, map[string]attributes{}, 0},
		"capability":       {[]layer{{ping}}, map[string]attributes{"bin/ping": {"security.capability": []byte(pingCapability)}}, 0},
		"of a folder":      {[]layer{{with(folder("d", 0o755), "user.a", "1"), file("d/x", "")}}, map[string]attributes{"d": {"user.a": []byte("1")}}, 0},
		"folder again":     {[]layer{{with(folder("d", 0o755), "user.a", "1")}, {folder("d", 0o755)}}, map[string]attributes{}, 0},
		"replaced":         {[]layer{{ping}, {program("bin/ping", "y")}}, map[string]attributes{}, 0},
		"hard link":        {[]layer{{ping, hardlink("bin/a", "bin/ping")}}, map[string]attributes{"bin/a": {"security.capability": []byte(pingCapability)}}, 0},
		"of the overlay":   {[]layer{{with(with(folder("d", 0o755), "trusted.overlay.opaque", "y"), "user.overlay.opaque", "y")}}, map[string]attributes{}, 2},
		"of the system":    {[]layer{{with(with(file("a", ""), "system.posix_acl_access", "x"), "user.b", "")}}, map[string]attributes{"a": {"user.b": {}}}, 1},
		"largest":          {[]layer{{with(file("a", ""), "user."+strings.Repeat("n", 250), "x")}}, map[string]attributes{"a": {"user." + strings.Repeat("n", 250): []byte("x")}}, 0},
		"no tar extension": {[]layer{{{Typeflag: tar.TypeReg, Name: "a", PAXRecords: map[string]string{"SEATRIAL.other": "x"}}}}, map[string]attributes{}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := flatten(t.Context(), image(t, "amd64", v1.Config{}, c.layers...), testSpool(t))
			if err != nil {
				t.Fatal(err)
			}
			got, err := f.tree.attributes()
			if d := cmp.Diff(c.want, got); d != "" || err != nil || f.left != c.left {
				t.Errorf("%s%v, %d left out", d, err, f.left)
			}
		})
	}
	for want, h := range map[string]tar.Header{
		"the kernel takes 255 and 65536": with(file("a", ""), "user."+strings.Repeat("n", 251), ""),
		"and a value of 65537 bytes":     with(file("a", ""), "user.a", strings.Repeat("v", maxAttributeValue+1)),
	} {
		if _, err := flatten(t.Context(), image(t, "amd64", v1.Config{}, layer{h}), testSpool(t)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	f := &flattener{tree: newTree(), spool: testSpool(t), attributeBytes: maxAttributes - 6}
	h := with(file("a", ""), "user.a", "")
	if _, err := f.attributesOf(&h); err != nil {
		t.Errorf("the last byte fits: %v", err)
	}
	if _, err := f.attributesOf(&h); err == nil || !strings.Contains(err.Error(), "bytes of attributes in one image") {
		t.Errorf("got %v", err)
	}
}

// pinging builds the machine with a program that has a capability, in a
// container too and under files of the spec's own.
func pinging(t *testing.T, dir, capability string) (*Builder, *Image) {
	t.Helper()
	shelf := stock(t)
	ping := layer{program("bin/ping", "ping"), program("bin/sh", "")}
	if capability != "" {
		ping[0] = with(ping[0], "security.capability", capability)
	}
	shelf["test/ping"] = image(t, "amd64", v1.Config{Cmd: []string{"/bin/ping"}}, ping)
	b := &Builder{Source: shelf, Arch: "amd64", Dir: dir}
	im, err := b.Build(t.Context(), spec(t, head+"init: [test/init, test/ping]\nservices: [{name: ping, image: test/ping, readonly: true}]\nfiles: [{path: /etc/x, contents: x}]\n"))
	if err != nil {
		t.Fatal(err)
	}
	return b, im
}

func TestMediaAttributes(t *testing.T) {
	b, im := pinging(t, t.TempDir(), pingCapability)
	_, plain := pinging(t, t.TempDir(), "")
	if im.Digest == plain.Digest {
		t.Error("another capability, and the same digest")
	}
	for f, want := range map[Format]string{
		KernelInitrd: "machine: kernel+initrd is an initramfs, which cannot hold extended attributes: security.capability of /bin/ping is lost (1 in all); kernel+squashfs holds them",
		ISOEFI:       "machine: iso-efi is an initramfs, ", Netboot: "machine: netboot is", KernelSquashfs: "", Tar: "",
	} {
		if got := im.Lost(f); !strings.HasPrefix(got, want) || (want == "") != (got == "") {
			t.Errorf("%s: %s", f, got)
		}
		if got := plain.Lost(f); got != "" {
			t.Errorf("%s of an image without attributes: %s", f, got)
		}
	}
	m, err := b.Media(t.Context(), im, Tar, "")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for h := range archived(t, m.files[0].path) {
		for k, v := range h.PAXRecords {
			got[h.Name+" "+k] = v
		}
	}
	// The container's is a hard link to it.
	want := map[string]string{"bin/ping SCHILY.xattr.security.capability": pingCapability}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// Debian's own tool finds in the squashfs what was in the layer.
func TestSquashfsAttributes(t *testing.T) {
	needTools(t, KernelSquashfs)
	disk := func(capability string) string {
		b, im := pinging(t, t.TempDir(), capability)
		m, err := b.Media(t.Context(), im, KernelSquashfs, "")
		if err != nil {
			t.Fatal(err)
		}
		return m.Disk
	}
	for _, c := range []string{pingCapability, ""} {
		raw, err := os.ReadFile(disk(c))
		if err != nil {
			t.Fatal(err)
		}
		if has := bytes.Contains(raw, []byte(pingCapability)); has != (c != "") {
			t.Errorf("capability %q, in the file system: %v", c, has)
		}
	}
	unpack := Tool{Name: "unsquashfs"}.Find()
	if unpack == "" || os.Geteuid() != 0 {
		t.Skip("only root can unpack file capabilities")
	}
	out := filepath.Join(t.TempDir(), "root")
	if said, err := exec.Command(unpack, "-quiet", "-no-progress", "-d", out, disk(pingCapability), "bin/ping").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	value := make([]byte, 64)
	n, err := unix.Getxattr(filepath.Join(out, "bin/ping"), "security.capability", value)
	if errors.Is(err, unix.ENOTSUP) {
		t.Skip("the folder for temporary files cannot hold capabilities")
	}
	if err != nil || string(value[:n]) != pingCapability {
		t.Errorf("%q, %v", value[:max(n, 0)], err)
	}
}

// The file of attributes is sealed as the others are.
func TestAttributesDamage(t *testing.T) {
	dir := t.TempDir()
	_, im := pinging(t, dir, pingCapability)
	at := filepath.Join(filepath.Dir(im.InitrdPath), attributesFile)
	if err := os.WriteFile(at, []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := readImage(filepath.Dir(at)); err == nil || !strings.Contains(err.Error(), attributesFile) {
		t.Errorf("got %v", err)
	}
	_, again := pinging(t, dir, pingCapability)
	if again.Digest != im.Digest || again.Lost(KernelInitrd) == "" {
		t.Errorf("is not made again: %s", again.Lost(KernelInitrd))
	}
}

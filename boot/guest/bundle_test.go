//go:build linux

package guest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestMountFlags(t *testing.T) {
	tests := []struct {
		options            string
		flags, propagation uintptr
		data               string
	}{
		{"", 0, 0, ""},
		{"defaults", 0, 0, ""},
		{"ro,nosuid,nodev,noexec", unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, 0, ""},
		{"ro,rw", 0, 0, ""},
		{"rbind,rshared", unix.MS_BIND | unix.MS_REC, unix.MS_SHARED | unix.MS_REC, ""},
		{"slave", 0, unix.MS_SLAVE, ""},
		{"noatime,size=10%,mode=755", unix.MS_NOATIME, 0, "size=10%,mode=755"},
	}
	for _, tt := range tests {
		flags, propagation, data := mountFlags(strings.Split(tt.options, ","))
		if tt.options == "" {
			flags, propagation, data = mountFlags(nil)
		}
		if flags != tt.flags || propagation != tt.propagation || data != tt.data {
			t.Errorf("%q: %#x %#x %q", tt.options, flags, propagation, data)
		}
	}
}

func testBundle(t *testing.T) Bundle {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "web")
	writeFile(t, filepath.Join(dir, "runtime.json"), strings.ReplaceAll(`{"mounts":[
		{"destination":"B/tmp","type":"tmpfs","source":"tmpfs"},
		{"destination":"B/tmp","options":["private"]},
		{"destination":"B/rootfs","type":"overlay","source":"overlay","options":["lowerdir=B/lower","upperdir=B/tmp/upper","workdir=B/tmp/work"]},
		{"destination":"etc/x","type":"bind","source":"/y","options":["bind","ro"]},
		{"destination":"B-outside","type":"tmpfs","source":"tmpfs"}
	],"mkdir":["B/rootfs/made/deep"],"namespace":"other"}`, "B", dir), 0o644)
	b, err := ReadBundle(dir)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestBundlePrepare(t *testing.T) {
	b := testBundle(t)
	sys := &recorder{prune: b.Dir}
	if err := b.Prepare(sys); err != nil {
		t.Fatal(err)
	}
	if err := b.Release(sys); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"mount tmpfs /tmp tmpfs 0x0 ",
		fmt.Sprintf("mount  /tmp  %#x ", unix.MS_PRIVATE),
		"mount overlay /rootfs overlay 0x0 lowerdir=/lower,upperdir=/tmp/upper,workdir=/tmp/work",
		fmt.Sprintf("mount /y /rootfs/etc/x  %#x ", unix.MS_BIND),
		fmt.Sprintf("mount  /rootfs/etc/x  %#x ", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY),
		"mount tmpfs -outside tmpfs 0x0 ",
		"umount /rootfs/etc/x", "umount /rootfs", "umount /tmp", "umount /tmp",
	}
	if d := cmp.Diff(want, sys.taken()); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	for _, made := range []string{"tmp/upper", "tmp/work", "rootfs/made/deep", "rootfs/etc/x"} {
		if _, err := os.Stat(filepath.Join(b.Dir, made)); err != nil {
			t.Error(err)
		}
	}
	if b.Runtime.Namespace != "other" {
		t.Errorf("namespace %q", b.Runtime.Namespace)
	}
}

func TestBundlePrepareFails(t *testing.T) {
	b := testBundle(t)
	sys := &recorder{prune: b.Dir, fail: map[string]error{"mount overlay": unix.ENODEV}}
	err := b.Prepare(sys)
	if !errors.Is(err, unix.ENODEV) {
		t.Fatalf("got %v", err)
	}
	contains(t, err.Error(), "overlay")
	if calls := sys.taken(); calls[len(calls)-1] != "umount /tmp" {
		t.Errorf("the tmpfs must be taken away: %v", calls)
	}
}

func TestReadBundles(t *testing.T) {
	dir := t.TempDir()
	if b, errs := ReadBundles(filepath.Join(dir, "none")); len(b) != 0 || len(errs) != 0 {
		t.Errorf("absent directory: %v %v", b, errs)
	}
	writeFile(t, filepath.Join(dir, "001-b/runtime.json"), "{", 0o644)
	writeFile(t, filepath.Join(dir, "000-a/config.json"), "{}", 0o644)
	writeFile(t, filepath.Join(dir, "stray"), "", 0o644)
	b, errs := ReadBundles(dir)
	if len(b) != 2 || b[0].Name != "000-a" || b[1].Name != "001-b" {
		t.Fatalf("got %v", b)
	}
	if errs[0] != nil || errs[1] == nil {
		t.Errorf("got errors %v", errs)
	}
}

func FuzzReadBundle(f *testing.F) {
	f.Add([]byte(`{"mounts":[{"destination":"a","options":["bind"]}],"mkdir":["x"]}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, src []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "runtime.json"), src, 0o644); err != nil {
			t.Fatal(err)
		}
		if b, err := ReadBundle(dir); err == nil {
			for _, m := range b.Runtime.Mounts {
				mountFlags(m.Options)
				if !filepath.IsAbs(b.target(m)) {
					t.Errorf("target %q", b.target(m))
				}
			}
		}
	})
}

func TestReadSpec(t *testing.T) {
	const root = `{"ociVersion":"1.2.0","process":{"args":["sh"]},"root":{"path":%s,"readonly":true},"strange":{"kept":1}%s}`
	for _, tt := range []struct {
		name, config string
		text         string
		annotations  map[string]string
		err          string
	}{
		{name: "relative", config: fmt.Sprintf(root, `"rootfs"`, `,"annotations":{"a":"b"}`), annotations: map[string]string{"a": "b"},
			text: `{"annotations":{"a":"b"},"ociVersion":"1.2.0","process":{"args":["sh"]},"root":{"path":"DIR/rootfs","readonly":true},"strange":{"kept":1}}`},
		{name: "absolute", config: fmt.Sprintf(root, `"/other"`, ``),
			text: `{"ociVersion":"1.2.0","process":{"args":["sh"]},"root":{"path":"/other","readonly":true},"strange":{"kept":1}}`},
		{name: "no root", config: `{"process":{}}`, err: "no root or no process"},
		{name: "no process", config: `{"root":{"path":"rootfs"}}`, err: "no root or no process"},
		{name: "null", config: `null`, err: "no root or no process"},
		{name: "root without a path", config: `{"process":{},"root":{}}`, err: "root.path: "},
		{name: "root is null", config: `{"process":{},"root":null}`, err: "root.path: "},
		{name: "root is a list", config: `{"process":{},"root":[]}`, err: "root: "},
		{name: "path is a number", config: `{"process":{},"root":{"path":1}}`, err: "root.path: "},
		{name: "annotation is a number", config: fmt.Sprintf(root, `"rootfs"`, `,"annotations":{"a":1}`), err: "annotations: "},
		{name: "cut off", config: `{"process":{},"root":{"path":"ro`, err: "config.json: unexpected end"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			writeFile(t, filepath.Join(dir, "config.json"), tt.config, 0o644)
			got, err := ReadSpec(dir)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) || !strings.Contains(err.Error(), "config.json") {
					t.Errorf("%s, %v", got.Text, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(strings.ReplaceAll(tt.text, "DIR", dir), string(got.Text)); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
			if d := cmp.Diff(tt.annotations, got.Annotations); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
	if _, err := ReadSpec(t.TempDir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

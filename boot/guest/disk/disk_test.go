//go:build linux

package disk

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// sparse makes a file of that size, with bytes at places.
func sparse(t *testing.T, size int64, at map[int64]string) string {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	for place, text := range at {
		if _, err := f.WriteAt([]byte(text), place); err != nil {
			t.Fatal(err)
		}
	}
	return f.Name()
}

func mkfs(t *testing.T, path string, args ...string) {
	t.Helper()
	if out, err := exec.Command("mke2fs", append(append([]string{"-q", "-F"}, args...), path)...).CombinedOutput(); err != nil {
		t.Fatalf("mke2fs: %v\n%s", err, out)
	}
}

func TestInspect(t *testing.T) {
	const size = 32 << 20
	plain, labelled := sparse(t, size, nil), sparse(t, size, nil)
	mkfs(t, plain, "-t", "ext4")
	mkfs(t, labelled, "-t", "ext4", "-L", "my state")
	for _, c := range []struct {
		name, path, want string
		empty, mounts    bool
	}{
		{"zeros", sparse(t, size, nil), "nothing", true, false},
		{"a small disk of zeros", sparse(t, 512, nil), "nothing", true, false},
		{"a byte", sparse(t, size, map[int64]string{70000: "x"}), "data of no known format, the first at byte 70000", false, false},
		{"the last byte", sparse(t, size, map[int64]string{size - 1: "x"}), "data of no known format, the first at byte 33554431", false, false},
		{"a byte on a small disk", sparse(t, 1024, map[int64]string{1023: "x"}), "data of no known format, the first at byte 1023", false, false},
		{"ext4", plain, "ext4 without a label", false, true},
		{"ext4 with a label", labelled, `ext4 labelled "my state"`, false, true},
		{"swap", sparse(t, size, map[int64]string{1024: "\x01\x00\x00\x00\xff\x1f\x00\x00", 4086: "SWAPSPACE2"}), "swap without a label", false, false},
		{"LUKS", sparse(t, size, map[int64]string{0: "LUKS\xba\xbe\x00\x01"}), "crypto_LUKS without a label", false, false},
		{"a partition table", sparse(t, size, map[int64]string{446: "\x00\x00\x00\x00\x83\x00\x00\x00\x00\x08\x00\x00\x00\x80\x00\x00", 510: "\x55\xaa"}),
			"a partition table (dos)", false, false},
	} {
		got, err := Inspect(context.Background(), c.path)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if got.String() != c.want || got.Empty() != c.empty || got.Mounts != c.mounts {
			t.Errorf("%s: %q, empty %v, mounts %v; want %q, %v, %v", c.name, got, got.Empty(), got.Mounts, c.want, c.empty, c.mounts)
		}
	}
	if _, err := Inspect(context.Background(), filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a device that is not there must be an error, not empty")
	}
}

// Several formats at once: neither is to be trusted, and it is not empty.
func TestInspectSeveral(t *testing.T) {
	path := sparse(t, 32<<20, map[int64]string{})
	mkfs(t, path, "-t", "ext4")
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("SWAPSPACE2"), 4086); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("LUKS\xba\xbe\x00\x01"), 0); err != nil {
		t.Fatal(err)
	}
	c, err := Inspect(context.Background(), path)
	if err != nil || c.Empty() {
		t.Errorf("%v %v", c, err)
	}
}

func TestList(t *testing.T) {
	sys := t.TempDir()
	add := func(name, size, ro string, partition bool) {
		t.Helper()
		files := map[string]string{"size": size, "ro": ro}
		if partition {
			files["partition"] = "1\n"
		}
		if err := os.Mkdir(filepath.Join(sys, name), 0o755); err != nil {
			t.Fatal(err)
		}
		for f, text := range files {
			if err := os.WriteFile(filepath.Join(sys, name, f), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	add("vdb", "8\n", "1\n", false)
	add("vda", "4\n", "0\n", false)
	add("vda1", "2\n", "0\n", true)
	add("cciss!c0d0", "2\n", "0\n", false)
	add("loop0", "9\n", "0\n", false)
	add("sr0", "9\n", "0\n", false)
	add("sdx", "0\n", "0\n", false) // an empty card reader
	got, err := List(sys)
	want := []Disk{{"/dev/cciss/c0d0", 1024, false, false}, {"/dev/vda", 2048, false, false}, {"/dev/vda1", 1024, true, false}, {"/dev/vdb", 4096, false, true}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v %v", got, err)
	}
	if _, err := List(filepath.Join(sys, "none")); err == nil {
		t.Error("a missing folder must be an error, not a machine without disks")
	}
}

func TestAwait(t *testing.T) {
	asked := 0
	ok, err := Await(context.Background(), time.Minute, func() (bool, error) { asked++; return asked == 3, nil })
	if !ok || err != nil || asked != 3 {
		t.Errorf("%v %v, asked %d times", ok, err, asked)
	}
	ok, err = Await(context.Background(), time.Millisecond, func() (bool, error) { return false, nil })
	if ok || err != nil {
		t.Errorf("no answer in time: %v %v", ok, err)
	}
	if _, err = Await(context.Background(), time.Minute, func() (bool, error) { return false, os.ErrPermission }); err == nil {
		t.Error("an error must end the wait")
	}
}

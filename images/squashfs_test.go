package images

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// childSquash lets a child of a test make the squashfs; its value says how.
const childSquash = "SEATRIAL_TEST_SQUASHFS"

// openDir is a folder for another user.
func openDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := errors.Join(os.Chmod(dir, 0o777), os.Chmod(filepath.Dir(dir), 0o755)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// squashfsIn makes the squashfs of an image in another process, with the cache in
// a folder, and returns what it said and the disk.
func squashfsIn(t *testing.T, dir, how string, as *syscall.SysProcAttr) (said string, disk []byte) {
	t.Helper()
	needTools(t, KernelSquashfs)
	child := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestSquashfsChild$", "-test.v")
	child.Dir, child.SysProcAttr = dir, as // the test's own folders may be closed to the user
	child.Env = append(os.Environ(), childSquash+"="+how, "TMPDIR="+dir)
	out, err := child.CombinedOutput()
	skipForbidden(t, err)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if disk, err = os.ReadFile(filepath.Join(dir, "disk")); err != nil {
		t.Fatal(err)
	}
	return string(out), disk
}

// skipForbidden skips a test whose child could not be started, as the host forbids
// its namespaces or its user; a child that ran and failed is another matter.
func skipForbidden(t *testing.T, err error) {
	t.Helper()
	var start *fs.PathError
	if errors.As(err, &start) && (errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC)) {
		t.Skip("run it as root, or where user namespaces are allowed: ", err)
	}
}

// TestSquashfsChild is the other process of the tests below.
func TestSquashfsChild(t *testing.T) {
	how := os.Getenv(childSquash)
	if how == "" {
		return // it has nothing to show by itself
	}
	if how == "forbidden" {
		if err := os.WriteFile("/proc/sys/user/max_user_namespaces", []byte("0"), 0); err != nil {
			t.Fatal(err)
		}
	}
	s := spec(t, machine)
	switch how {
	case "closed":
		syscall.Umask(0o077)
	case "owned", "forbidden": // the root is nobody's who builds
		s.Files = append(s.Files, File{Path: "/", Directory: true, Mode: "0711", UID: ID{Number: 7}, GID: ID{Number: 7}})
	}
	b := &Builder{Source: stock(t), Arch: "amd64", Dir: "cache", Progress: func(line string) { t.Log(line) }}
	im, err := b.Build(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	m, err := b.Media(t.Context(), im, KernelSquashfs, "")
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(m.Disk)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("disk", raw, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod("disk", 0o644); err != nil { // whatever the umask
		t.Fatal(err)
	}
}

// asRoot is a user namespace of which the child is root.
func asRoot() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
}

// The bytes are the same whether root makes them or an ordinary user.
func TestSquashfsOfOtherUser(t *testing.T) {
	other := asRoot()
	if os.Getuid() == 0 {
		other = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	_, ours := squashfsIn(t, openDir(t), "usual", nil)
	said, theirs := squashfsIn(t, openDir(t), "closed", other)
	if !bytes.Equal(ours, theirs) {
		t.Errorf("another user makes other bytes:\n%s", said)
	}
	if _, third := squashfsIn(t, openDir(t), "owned", nil); bytes.Equal(ours, third) {
		t.Error("the owner of the root is not in the bytes")
	}
}

// Where user namespaces are forbidden the squashfs is made all the same, and
// that its root may be the user's is said; where they are not, nothing is.
func TestSquashfsWithoutNamespaces(t *testing.T) {
	const warning = "the root of the squashfs may be owned by your user: a user namespace cannot be made"
	said, allowed := squashfsIn(t, openDir(t), "owned", asRoot())
	if strings.Contains(said, warning) {
		t.Errorf("it can be made:\n%s", said)
	}
	dir := openDir(t)
	said, forbidden := squashfsIn(t, dir, "forbidden", asRoot())
	if !strings.Contains(said, warning) {
		t.Errorf("nothing was said:\n%s", said)
	}
	if len(forbidden) != len(allowed) {
		t.Errorf("%d bytes, and %d with a namespace: more differs than the owner", len(forbidden), len(allowed))
	}
	// Where a namespace can be made later, nobody gets what was made without.
	if said, later := squashfsIn(t, dir, "owned", asRoot()); !bytes.Equal(later, allowed) || strings.Contains(said, warning) {
		t.Errorf("the cache has the bytes that were made without a namespace:\n%s", said)
	}
	if said, again := squashfsIn(t, dir, "forbidden", asRoot()); !bytes.Equal(again, forbidden) || !strings.Contains(said, warning) || strings.Contains(said, "making kernel+squashfs") {
		t.Errorf("without one it was not found again, or nothing was said:\n%s", said)
	}
}

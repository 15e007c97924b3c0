package images

import (
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// repository is a git repository with packages.
type repository struct {
	t   *testing.T
	dir string
}

func newRepository(t *testing.T) *repository {
	t.Helper()
	r := &repository{t, t.TempDir()}
	r.git("init", "-q")
	return r
}

func (r *repository) git(args ...string) {
	r.t.Helper()
	cmd := exec.Command("git", append([]string{"-C", r.dir, "-c", "user.name=x", "-c", "user.email=x@example.com", "-c", "commit.gpgsign=false"}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		r.t.Fatalf("git %q: %v\n%s", args, err, out)
	}
}

func (r *repository) write(name, text string) {
	r.t.Helper()
	path := filepath.Join(r.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

func (r *repository) commit() {
	r.t.Helper()
	r.git("add", "-A")
	r.git("commit", "-q", "-m", "x")
}

// object is git's digest of an object (gitformat-pack(5): its kind, its size, a
// NUL and its contents).
func object(kind, text string) string {
	return fmt.Sprintf("%x", sha1.Sum([]byte(fmt.Sprintf("%s %d\x00%s", kind, len(text), text))))
}

// treeOf is git's digest of a folder with one file.
func treeOf(name, text string) string {
	raw, err := hex.DecodeString(object("blob", text))
	if err != nil {
		panic(err)
	}
	return object("tree", "100644 "+name+"\x00"+string(raw))
}

func TestPackageImage(t *testing.T) {
	t.Parallel()
	const plain = "image: init\nnetwork: true\n"
	hash := treeOf("build.yml", plain)
	r := newRepository(t)
	r.write("pkg/init/build.yml", plain)
	r.write("pkg/web/build.yml", "org: me\nimage: web\ntag: \"v1-{{.Hash}}\"\n")
	r.write("pkg/far/build.yml", "org: registry.example.com:5000/me\nimage: far\ntag: fixed\n")
	more := "image: more\nextra-sources: [\"../init:/x\", \"../web/build.yml:/y\"]\n"
	r.write("pkg/more/build.yml", more)
	r.write("pkg/changed/build.yml", plain)
	r.write("pkg/grown/build.yml", plain)
	r.write("pkg/shrunk/build.yml", plain)
	r.write("pkg/shrunk/other", "x")
	r.commit()
	r.write("pkg/changed/build.yml", plain+"# changed\n")
	r.write("pkg/grown/new", "new")
	r.write("pkg/grown/.gitignore", "ignored\n")
	r.write("pkg/grown/ignored", "no")
	r.write("pkg/late/build.yml", plain)
	if err := os.Remove(filepath.Join(r.dir, "pkg/shrunk/other")); err != nil {
		t.Fatal(err)
	}
	top := newRepository(t)
	top.write("build.yml", plain)
	top.commit()
	bare := t.TempDir()
	if err := os.WriteFile(filepath.Join(bare, "build.yml"), []byte(plain), 0o600); err != nil {
		t.Fatal(err)
	}
	web := "org: me\nimage: web\ntag: \"v1-{{.Hash}}\"\n"
	contents := func(text string) string { return "-dirty-" + fmt.Sprintf("%x", sha256.Sum256([]byte(text)))[:7] }
	for dir, want := range map[string]string{
		"pkg/init":    "docker.io/linuxkit/init:" + hash,
		"pkg/web":     "docker.io/me/web:v1-" + treeOf("build.yml", web),
		"pkg/far":     "registry.example.com:5000/me/far:fixed",
		"pkg/more":    "docker.io/linuxkit/more:" + fmt.Sprintf("%x", sha1.Sum([]byte(treeOf("build.yml", more)+hash+object("blob", web)))),
		"pkg/changed": "docker.io/linuxkit/init:" + hash + contents(plain+"# changed\n"),
		"pkg/grown":   "docker.io/linuxkit/init:" + hash + contents(plain+"ignored\n"+"new"),
		top.dir:       "docker.io/linuxkit/init:" + hash,
		bare:          "docker.io/linuxkit/init:latest",
	} {
		if !filepath.IsAbs(dir) {
			dir = filepath.Join(r.dir, dir)
		}
		if got, err := packageImage(dir); got != want || err != nil {
			t.Errorf("%s: %s, %v, want %s", dir, got, err, want)
		}
	}
	if got, err := packageImage(filepath.Join(r.dir, "pkg/shrunk")); !strings.HasSuffix(got, contents(plain)) {
		t.Errorf("a file is gone: %s, %v", got, err)
	}
	if got, err := packageImage(filepath.Join(r.dir, "pkg/late")); err == nil || !strings.Contains(err.Error(), "is in no commit yet") {
		t.Errorf("not committed: %s, %v", got, err)
	}
}

func TestPackageImageRefuses(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"org: x\n":                                  "has no image",
		"image: [\n":                                "build.yml",
		"image: x\ntag: \"{{.Hush}}\"\n":            "tag: ",
		"image: x\ntag: \"{{\"\n":                   "tag: ",
		"image: x\nextra-sources: [\"../y\"]\n":     "is not SOURCE:DESTINATION",
		"image: x\nextra-sources: [\"../y:/z\"]\n":  "no such file",
		"image: x\n" + strings.Repeat("#", maxYAML): "more than",
	} {
		r := newRepository(t)
		r.write("p/build.yml", text)
		r.commit()
		if got, err := packageImage(filepath.Join(r.dir, "p")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %s, %v", text, got, err)
		}
	}
	if got, err := packageImage(t.TempDir()); err == nil {
		t.Errorf("a folder without build.yml: %s", got)
	}
}

// Templates stand wherever a text does, and their folders are found from the
// YAML's own.
func TestTemplates(t *testing.T) {
	t.Parallel()
	r := newRepository(t)
	r.write("pkg/init/build.yml", "image: init\n")
	r.write("examples/machine.yml", head+"init: [\"@pkg:../pkg/init\"]\nservices: [{name: a, image: \"@pkg:"+r.dir+"/pkg/init\", command: [\"@pkg:../pkg/init\", \"A=@pkg:x\"]}]\n")
	r.commit()
	s, err := LoadSpec(t.Context(), filepath.Join(r.dir, "examples", "machine.yml"))
	if err != nil {
		t.Fatal(err)
	}
	want := "docker.io/linuxkit/init:" + treeOf("build.yml", "image: init\n")
	if s.Init[0] != want || s.Services[0].Image != want {
		t.Errorf("%q, %q", s.Init, s.Services[0].Image)
	}
	if words := s.Services[0].Command; len(words) != 2 || words[0] != want || words[1] != "A=@pkg:x" {
		t.Errorf("command %q", words)
	}
}

package suite

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

// The spec that the README shows must be one that a reader can run: it is
// compiled as a package of this module, laid over it without touching it.
func TestReadmeSpecCompiles(t *testing.T) {
	root, err := moduleRoot()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)```go\n(package .*?)```").FindSubmatch(text)
	if block == nil {
		t.Fatal("the README shows no spec")
	}
	vet := func(spec []byte) ([]byte, error) {
		dir := t.TempDir()
		source, overlay := filepath.Join(dir, "spec"), filepath.Join(dir, "overlay.json")
		b, err := json.Marshal(map[string]map[string]string{"Replace": {filepath.Join(root, "readme", "readme_test.go"): source}})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(source, spec, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(overlay, b, 0o644); err != nil {
			t.Fatal(err)
		}
		c := exec.CommandContext(t.Context(), "go", "test", "-vet=off", "-c", "-o", filepath.Join(dir, "program"), "-overlay", overlay, "./readme")
		c.Dir = root
		return c.CombinedOutput()
	}
	if out, err := vet(block[1]); err != nil {
		t.Errorf("it does not compile: %v\n%s", err, out)
	}
	if _, err := vet(append(block[1], "\nvar _ = undefined\n"...)); err == nil {
		t.Error("this test cannot fail")
	}
}

// Package layers holds the project's import table: which of our packages may
// import which, and which foreign packages are kept out of where.
package layers

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/seatrial/seatrial"

// mayImport lists, for each package, the packages of ours it may import.
// A package that is not listed may not exist.
var mayImport = map[string][]string{
	"":                       {},
	"boot":                   {},
	"boot/guest":             {"boot"},
	"boot/guest/disk":        {},
	"boot/guest/task":        {},
	"boot/guest/cmd/format":  {"boot/guest/disk"},
	"boot/guest/cmd/init":    {"boot", "boot/guest"},
	"boot/guest/cmd/mountie": {"boot/guest/disk"},
	"boot/guest/cmd/service": {"boot", "boot/guest", "boot/guest/task"},
	"boot/guest/cmd/floor":   {"boot", "boot/guest", "boot/guest/task"},
	"images":                 {"boot"},
	"images/component":       {"boot", "images"},
	"qemu":                   {},
	"qemu/qemutest":          {},
	"harness/console":        {"boot"},
	"reports":                {"boot"},
	"harness":                {"boot", "images", "qemu", "harness/console", "reports"},
	"harness/suite":          {"", "boot", "images", "images/component", "qemu", "harness/console", "reports", "harness"},
	"cases/logd":             {},
	"cases":                  {"boot", "images", "qemu", "harness", "harness/console", "harness/suite", "reports"},
	"cmd/seatrial":           {"", "boot", "images", "images/component", "qemu", "harness/console", "reports", "harness"},
	"internal/layers":        {},
}

// only lists foreign modules that may be imported, directly, by these packages alone.
var only = map[string][]string{
	"github.com/onsi/ginkgo":           {"harness/suite", "cases"},
	"github.com/onsi/gomega":           {"harness/suite", "cases"},
	"github.com/containerd/containerd": {"boot/guest/task"},
	"github.com/digitalocean/go-qemu":  {"qemu"},
	"github.com/spf13/cobra":           {"cmd/seatrial"},
	"testing":                          {"qemu/qemutest", "harness/suite", "cases"},
}

type pkg struct {
	ImportPath  string
	Imports     []string
	TestImports []string
	XTestImport []string `json:"XTestImports"`
}

// short turns an import path into a key of mayImport; ok is false for a foreign one.
func short(path string) (key string, ok bool) {
	if path == module {
		return "", true
	}
	return strings.CutPrefix(path, module+"/")
}

func list(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,TestImports,XTestImports", module+"/...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var pkgs []pkg
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}

// broken returns what is wrong with the imports of one package.
func broken(key string, imports []string) []string {
	var wrong []string
	allowed, known := mayImport[key]
	if !known {
		return []string{"package " + key + " is not in the import table: add it there, with what it may import"}
	}
	for _, path := range imports {
		if ours, ok := short(path); ok && ours != key && !slices.Contains(allowed, ours) {
			wrong = append(wrong, key+" must not import "+path)
		}
		for foreign, users := range only {
			if (path == foreign || strings.HasPrefix(path, foreign+"/")) && !slices.Contains(users, key) {
				wrong = append(wrong, key+" must not import "+path)
			}
		}
		if key == "boot" && strings.Contains(path, ".") {
			wrong = append(wrong, "boot must import nothing outside the standard library, but imports "+path)
		}
	}
	return wrong
}

func TestImportTable(t *testing.T) {
	pkgs := list(t)
	if len(pkgs) < 3 {
		t.Fatalf("go list found only %d packages", len(pkgs))
	}
	for _, p := range pkgs {
		key, _ := short(p.ImportPath)
		imports := p.Imports
		if key == "cases" { // it has nothing but tests
			imports = slices.Concat(imports, p.TestImports, p.XTestImport)
		}
		for _, w := range broken(key, imports) {
			t.Error(w)
		}
	}
}

// The table must be able to refuse.
func TestImportTableRefuses(t *testing.T) {
	for _, c := range []struct {
		key, path string
	}{
		{"boot", "github.com/google/go-cmp/cmp"},
		{"qemu", module + "/images"},
		{"harness", "github.com/onsi/ginkgo/v2"},
		{"images", module + "/harness"},
		{"boot/guest", "github.com/containerd/containerd/v2/client"},
		{"util", "fmt"},
	} {
		if len(broken(c.key, []string{c.path})) == 0 {
			t.Errorf("%s importing %s was not refused", c.key, c.path)
		}
	}
	if w := broken("harness", []string{"fmt", module + "/qemu"}); len(w) > 0 {
		t.Errorf("refused without reason: %v", w)
	}
}

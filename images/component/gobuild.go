package component

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const containerdModule = "github.com/containerd/containerd/v2"

// containerdTags leave out what a LinuxKit image never uses: Kubernetes' CRI
// and the snapshotters for file systems that are not there. It halves the
// start of containerd inside an emulated machine.
const containerdTags = "no_cri no_btrfs no_devmapper no_zfs static_build osusergo netgo"

// sourceDigest is over the sources of the guest's programs, tests left out.
func sourceDigest(source fs.FS) (string, error) {
	h := sha256.New()
	err := fs.WalkDir(source, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !isSource(p) {
			return err
		}
		b, err := fs.ReadFile(source, p)
		fmt.Fprintf(h, "%s %d\n", p, len(b))
		h.Write(b)
		return err
	})
	return "sha256:" + hex.EncodeToString(h.Sum(nil)), err
}

func isSource(p string) bool {
	return p == "go.mod" || p == "go.sum" || strings.HasPrefix(p, "boot/") && strings.HasSuffix(p, ".go") && !strings.HasSuffix(p, "_test.go")
}

// lay writes the sources into dir.
func lay(source fs.FS, dir string) error {
	return fs.WalkDir(source, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !isSource(p) {
			return err
		}
		b, err := fs.ReadFile(source, p)
		if err != nil {
			return err
		}
		to := filepath.Join(dir, filepath.FromSlash(p))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		return os.WriteFile(to, b, 0o644)
	})
}

// goBuild compiles a static program for the guest and returns it.
func goBuild(ctx context.Context, source fs.FS, scratch, arch, pkg, tags, ldflags string) ([]byte, error) {
	dir, err := os.MkdirTemp(scratch, "go-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := lay(source, dir); err != nil {
		return nil, err
	}
	out := filepath.Join(dir, "program")
	c := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-mod=readonly",
		"-tags", tags, "-ldflags", strings.TrimSpace("-s -w "+ldflags), "-o", out, pkg)
	c.Dir = dir
	c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch, "GOFLAGS=", "GOWORK=off")
	if err := run(c); err != nil {
		return nil, err
	}
	return os.ReadFile(out)
}

// moduleVersion reads the version of a module out of go.mod.
func moduleVersion(source fs.FS, module string) (string, error) {
	b, err := fs.ReadFile(source, "go.mod")
	if err != nil {
		return "", err
	}
	for _, line := range strings.Split(string(b), "\n") {
		f := strings.Fields(strings.TrimPrefix(strings.TrimSpace(line), "require "))
		if len(f) >= 2 && f[0] == module {
			return f[1], nil
		}
	}
	return "", fmt.Errorf("go.mod does not require %s", module)
}

// moduleSum reads a module's digest out of go.sum.
func moduleSum(source fs.FS, module, version string) (string, error) {
	b, err := fs.ReadFile(source, "go.sum")
	if err != nil {
		return "", err
	}
	for _, line := range strings.Split(string(b), "\n") {
		if f := strings.Fields(line); len(f) == 3 && f[0] == module && f[1] == version {
			return f[2], nil
		}
	}
	return "", fmt.Errorf("go.sum knows no %s %s", module, version)
}

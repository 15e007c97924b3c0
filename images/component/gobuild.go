package component

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// program is a Go program of a recipe.
type program struct {
	pkg     string   // as "go build" takes it
	folders []string // of this module that are compiled into it; nil: a foreign program
	tags    string
}

const containerdModule = "github.com/containerd/containerd/v2"

// ownTags are those of our programs: statically linked, and without gRPC's
// debug pages, whose templates keep the linker from leaving out what is not
// used (17.5 MB instead of 10.8 MB for the service tool).
const ownTags = "osusergo netgo grpcnotrace"

// containerdTags leave out what a LinuxKit image never uses: Kubernetes' CRI,
// the snapshotters for file systems that are not there, and the export of
// traces to a collector. Without CRI alone containerd starts in half the time
// inside an emulated machine.
const containerdTags = ownTags + " static_build no_cri no_btrfs no_devmapper no_zfs no_tracing"

// shimTags also leave out gRPC, as containerd's own build does: the shim speaks
// ttrpc (14.3 MB become 8.1 MB).
const shimTags = containerdTags + " no_grpc"

// recipes are the sources of this package: how components are made.
//
//go:embed *.go *.sh
var ownSources embed.FS

// recipeDigest is over the sources of this package, tests left out. It is part
// of every component's key: a change here rebuilds all of them, which costs a
// minute, and nobody has to remember to raise a version.
func recipeDigest() (string, error) {
	return digestOf(ownSources, func(p string) bool { return !strings.HasSuffix(p, "_test.go") })
}

// digestOf is over the names and contents of the files that want accepts.
func digestOf(source fs.FS, want func(string) bool) (string, error) {
	h := sha256.New()
	err := fs.WalkDir(source, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !want(p) {
			return err
		}
		b, err := fs.ReadFile(source, p)
		fmt.Fprintf(h, "%s %d\n", p, len(b))
		h.Write(b)
		return err
	})
	return "sha256:" + hex.EncodeToString(h.Sum(nil)), err
}

// sources is a digest over all of this module that is compiled into the
// program, and over go.mod and go.sum, which pin everything else.
func (p program) sources(source fs.FS) (string, error) {
	return digestOf(source, func(name string) bool {
		return isModule(name) || isSource(name) && slices.Contains(p.folders, filepath.ToSlash(filepath.Dir(name)))
	})
}

func isModule(p string) bool { return p == "go.mod" || p == "go.sum" }

func isSource(p string) bool {
	return strings.HasPrefix(p, "boot/") && strings.HasSuffix(p, ".go") && !strings.HasSuffix(p, "_test.go")
}

// inModule runs f in a temporary folder that holds the module's sources.
func inModule(source fs.FS, scratch string, f func(dir string) error) (err error) {
	dir, err := os.MkdirTemp(scratch, "go-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	err = fs.WalkDir(source, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !isModule(p) && !isSource(p) {
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
	if err != nil {
		return err
	}
	return f(dir)
}

// goCommand is the go tool in a folder, free of what the user has set for
// work of their own.
func goCommand(ctx context.Context, dir, arch string, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, "go", args...)
	c.Dir = dir
	c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch, "GOFLAGS=", "GOWORK=off")
	return c
}

// goVersion is the toolchain that compiles the programs: the go tool's own or
// the one that go.mod asks for.
func goVersion(ctx context.Context, source fs.FS, scratch string) (version string, err error) {
	err = inModule(source, scratch, func(dir string) error {
		out, err := run(goCommand(ctx, dir, "amd64", "env", "GOVERSION"))
		version = strings.TrimSpace(out)
		return err
	})
	return version, err
}

// compile builds a static program for the guest and returns it.
func (k *kitchen) compile(p program) ([]byte, error) {
	k.Progress(k.recipe.name, "compiling "+p.pkg)
	ldflags := "-s -w "
	if p.folders == nil {
		version, err := moduleVersion(k.Source, containerdModule)
		if err != nil {
			return nil, err
		}
		ldflags += "-X " + containerdModule + "/version.Version=" + version
	} else {
		digest, err := p.sources(k.Source)
		if err != nil {
			return nil, err
		}
		ldflags += "-X main.build=" + digest[7:19]
	}
	var built []byte
	err := inModule(k.Source, k.Cache, func(dir string) error {
		out := filepath.Join(dir, "program")
		_, err := run(goCommand(k.ctx, dir, k.Arch, "build", "-trimpath", "-buildvcs=false", "-mod=readonly",
			"-tags", p.tags, "-ldflags", ldflags, "-o", out, p.pkg))
		if err != nil {
			return err
		}
		built, err = os.ReadFile(out)
		return err
	})
	return built, err
}

// modules lists what a program is compiled from: the modules whose packages
// are linked into it, the toolchain, and our own sources.
func (k *kitchen) modules(p program) ([]Input, error) {
	name := k.recipe.name
	inputs := []Input{{Component: name, Kind: kindToolchain, Name: "go", Version: k.toolchain}}
	if p.folders != nil {
		digest, err := p.sources(k.Source)
		if err != nil {
			return nil, err
		}
		inputs = append(inputs, Input{Component: name, Kind: kindFile, Name: p.pkg, Version: here, Digest: digest})
	}
	linked, err := goList(k.ctx, k.Source, k.Cache, k.Arch, p)
	if err != nil {
		return nil, err
	}
	for _, l := range linked {
		if l.Module == nil || l.Module.Version == "" {
			continue // the standard library, and this module
		}
		sum, err := moduleSum(k.Source, l.Module.Path, l.Module.Version)
		if err != nil {
			return nil, err
		}
		in := Input{Component: name, Kind: kindGo, Name: l.Module.Path, Version: l.Module.Version, Digest: sum}
		k.folders[in.Name] = l.Module.Dir
		if !slices.Contains(inputs, in) {
			inputs = append(inputs, in)
		}
	}
	return inputs, nil
}

// listed is a package as "go list" shows it.
type listed struct {
	ImportPath string
	Module     *struct{ Path, Version, Dir string }
}

// goList lists the packages that are linked into a program.
func goList(ctx context.Context, source fs.FS, scratch, arch string, p program) (list []listed, err error) {
	err = inModule(source, scratch, func(dir string) error {
		out, err := run(goCommand(ctx, dir, arch, "list", "-mod=readonly", "-tags", p.tags, "-deps", "-json=ImportPath,Module", p.pkg))
		if err != nil {
			return err
		}
		for d := json.NewDecoder(strings.NewReader(out)); ; {
			var l listed
			if err := d.Decode(&l); errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return err
			}
			list = append(list, l)
		}
	})
	return list, err
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

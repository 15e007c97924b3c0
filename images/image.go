package images

import (
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

//go:embed default.yml
var defaultYAML []byte

// Default is the YAML of the image that ships, as it is in images/default.yml.
func Default() []byte { return []byte(string(defaultYAML)) }

// DefaultFor is Default with the architecture's own name for the serial line.
// The YAML that ships is written for amd64 and is the only one in which a name
// is replaced: the command line of any other YAML is passed on as it is.
func DefaultFor(arch string) []byte {
	return []byte(strings.ReplaceAll(string(defaultYAML), SerialLine("amd64"), SerialLine(arch)))
}

// SerialLine is what Linux calls the first serial line of the board that QEMU
// emulates for an architecture: a 16550 on amd64, a PL011 on arm64's virt.
func SerialLine(arch string) string {
	if arch == "arm64" {
		return "ttyAMA0"
	}
	return "ttyS0"
}

// Image is a built image: files on the host that QEMU can boot.
type Image struct {
	Name   string // of the spec
	Arch   string // amd64 or arm64
	Digest string // "sha256:...", over kernel, initramfs and command line

	KernelPath string `json:"-"`
	InitrdPath string `json:"-"`
	Cmdline    string // as the spec has it

	Onboot, Onshutdown, Services []string // names of the containers, in order

	Sources map[string]string // image reference -> digest of the image it led to

	UcodeSize int64 `json:",omitempty"` // bytes of microcode before the root's archive in the initramfs

	Sizes map[string]int64 // of the files in the cache, to notice one that was cut short
}

// names of the files of an image in the cache.
const (
	kernelFile  = "kernel"
	initrdFile  = "initrd.img"
	cmdlineFile = "cmdline"
	imageFile   = "image.json"
)

// loadImage reads a built image from its folder in the cache.
func loadImage(dir string) (*Image, error) {
	raw, err := os.ReadFile(filepath.Join(dir, imageFile))
	if err != nil {
		return nil, err
	}
	im := &Image{}
	if err := json.Unmarshal(raw, im); err != nil {
		return nil, fmt.Errorf("images: %s: %w", filepath.Join(dir, imageFile), err)
	}
	for _, name := range []string{kernelFile, initrdFile, cmdlineFile} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		if size, ok := im.Sizes[name]; !ok || info.Size() != size {
			return nil, fmt.Errorf("images: %s has %d bytes, not %d", filepath.Join(dir, name), info.Size(), size)
		}
	}
	im.KernelPath, im.InitrdPath = filepath.Join(dir, kernelFile), filepath.Join(dir, initrdFile)
	return im, nil
}

// Export writes NAME-kernel, NAME-initrd.img and NAME-cmdline into a folder,
// which is made if need be, and returns their paths. On an error none of them
// is new.
func (im *Image) Export(dir, name string) ([]string, error) {
	paths, err := im.export(dir, name)
	if err != nil {
		return nil, fmt.Errorf("images: cannot write the image %s: %w", name, explain(err, dir))
	}
	return paths, nil
}

func (im *Image) export(dir, name string) (paths []string, err error) {
	if name == "" || strings.ContainsRune(name, filepath.Separator) {
		return nil, fmt.Errorf("%q is not a file name", name)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	// All are complete in a folder of their own before the first gets its name.
	tmp, err := os.MkdirTemp(dir, ".seatrial-export-*")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	open := func(path string) func() (io.ReadCloser, error) {
		return func() (io.ReadCloser, error) { return os.Open(path) }
	}
	files := []struct {
		suffix string
		open   func() (io.ReadCloser, error)
	}{
		{"-kernel", open(im.KernelPath)},
		{"-initrd.img", open(im.InitrdPath)},
		{"-cmdline", func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(im.Cmdline)), nil }},
	}
	for _, f := range files {
		r, err := f.open()
		if err != nil {
			return nil, err
		}
		if err := errors.Join(writeFile(filepath.Join(tmp, name+f.suffix), r), r.Close()); err != nil {
			return nil, err
		}
	}
	for _, f := range files {
		to := filepath.Join(dir, name+f.suffix)
		if err := os.Rename(filepath.Join(tmp, name+f.suffix), to); err != nil {
			return nil, err
		}
		paths = append(paths, to)
	}
	return paths, nil
}

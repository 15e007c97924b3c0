package images

import (
	"crypto/sha256"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
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
	Digest string // "sha256:...", over kernel, initramfs and command line, and extended attributes if there are any

	KernelPath string `json:"-"`
	InitrdPath string `json:"-"`
	Cmdline    string // as the spec has it

	Packed string `json:"-"` // why [Builder.Unpack] could not

	Onboot, Onshutdown, Services []string // names of the containers, in order

	Sources map[string]string // image reference -> digest of the image it led to

	UcodeSize int64 `json:",omitempty"` // bytes of microcode before the root's archive in the initramfs

	Seals map[string]seal // of the files in the cache, to notice damage

	attributes map[string]attributes // of files, which the initramfs cannot hold

	vmlinux *vmlinux // the kernel unpacked; nil: nobody asked for it

	lease, vmlinuxLease *os.File // keep the files from being pruned while somebody holds the image
}

// names of the files of an image in the cache.
const (
	kernelFile  = "kernel"
	initrdFile  = "initrd.img"
	cmdlineFile = "cmdline"
	imageFile   = "image.json"
)

// loadImage reads a built image from its folder in the cache.
func loadImage(dir string) (*lease[Image], error) {
	file, err := leaseDir(dir)
	if err != nil {
		return nil, err
	}
	im, err := readImage(dir)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &lease[Image]{im, file}, nil
}

func readImage(dir string) (*Image, error) {
	raw, err := os.ReadFile(filepath.Join(dir, imageFile))
	if err != nil {
		return nil, err
	}
	im := &Image{}
	if err := json.Unmarshal(raw, im); err != nil {
		return nil, fmt.Errorf("images: %s: %w", filepath.Join(dir, imageFile), err)
	}
	if whole := wholeDigest(im.Seals); whole != im.Digest {
		return nil, fmt.Errorf("images: %s is damaged: it says %s, its files make %s", filepath.Join(dir, imageFile), im.Digest, whole)
	}
	if err := checkSeals(dir, im.Seals); err != nil {
		return nil, err
	}
	if _, any := im.Seals[attributesFile]; any {
		if im.attributes, err = readAttributes(dir); err != nil {
			return nil, fmt.Errorf("images: %s: %w", filepath.Join(dir, attributesFile), err)
		}
	}
	im.KernelPath, im.InitrdPath = filepath.Join(dir, kernelFile), filepath.Join(dir, initrdFile)
	return im, used(filepath.Join(dir, imageFile))
}

// wholeDigest is the digest of an image with these files.
func wholeDigest(seals map[string]seal) string {
	whole := sha256.New()
	for _, name := range []string{kernelFile, initrdFile, cmdlineFile} {
		fmt.Fprintf(whole, "%s %s\n", name, seals[name].SHA256)
	}
	if s, any := seals[attributesFile]; any {
		fmt.Fprintf(whole, "%s %s\n", attributesFile, s.SHA256)
	}
	return fmt.Sprintf("sha256:%x", whole.Sum(nil))
}

// Export writes NAME-kernel, NAME-initrd.img and NAME-cmdline into a folder,
// which is made if need be, and returns their paths. On an error none of them
// is new. For other media see [Builder.Media].
func (im *Image) Export(dir, name string) ([]string, error) {
	return plainMedia(im, ParseCmdline(im.Cmdline)).Export(dir, name)
}

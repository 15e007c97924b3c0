package images

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Format is a medium that a machine boots from.
type Format string

// The formats. Those with a boot loader hold the command line themselves.
const (
	KernelInitrd   Format = "kernel+initrd"      // handed to QEMU, the fastest way in
	KernelGzip     Format = "kernel+initrd-gzip" // the same, packed: smaller, and the guest has to unpack it
	KernelZstd     Format = "kernel+initrd-zstd"
	KernelSquashfs Format = "kernel+squashfs" // the root is a read-only disk; a small initramfs finds it
	Tar            Format = "tar"             // the root and boot/ as an archive; not bootable
	ISOBIOS        Format = "iso-bios"        // CD with isolinux
	ISOEFI         Format = "iso-efi"         // CD with systemd-boot
	RawBIOS        Format = "raw-bios"        // disk with an MBR and syslinux
	RawEFI         Format = "raw-efi"         // disk with a GPT and systemd-boot
	QcowBIOS       Format = "qcow2-bios"      // the same disks for QEMU
	QcowEFI        Format = "qcow2-efi"
	Netboot        Format = "netboot" // folder for a TFTP server: iPXE with a script, on arm64 UEFI and GRUB
)

// Media is an image in a form that a machine boots from. Which of the fields
// are set depends on the format.
type Media struct {
	Format Format
	Image  *Image `json:"-"`
	Digest string // "sha256:...", over all files

	Kernel, Initrd string   // paths of what QEMU is handed itself
	Words          []string // to be added to the command line then, such as root=
	Disk           string   // path of the disk
	DiskFormat     string   // "raw" or "qcow2"
	CD             string   // path of the ISO 9660 image
	TFTP, Bootfile string   // folder and the name in it that the firmware asks for
	UEFI           bool     // needs UEFI firmware

	Cmdline string // what the kernel is told, Words included

	files []mediaFile
	lease *os.File // keeps the files from being pruned while somebody uses them
}

// mediaFile is a file of a medium: its name in the cache, and what Export puts
// behind the image's name.
type mediaFile struct {
	Name, Suffix string
	path         string
}

// formatRow describes a format.
type formatRow struct {
	format Format
	about  string
	tools  []string // programs and files of the host, see the table of tools
	archs  []string
	make   func(m *mastering) error

	attributes bool     // can hold extended attributes
	loader     []string // architectures for which it has a boot loader of the component
}

var bothArchs = []string{"amd64", "arm64"}

// formats is the table of formats, in the order in which they are shown.
func formats() []formatRow {
	return []formatRow{
		{KernelInitrd, "kernel, initramfs and command line, as files", nil, bothArchs, nil, false, nil},
		{KernelGzip, "the same with the initramfs packed with gzip", nil, bothArchs, (*mastering).kernelGzip, false, nil},
		{KernelZstd, "the same, packed with zstd", nil, bothArchs, (*mastering).kernelZstd, false, nil},
		{KernelSquashfs, "kernel, small initramfs, squashfs root and command line, as files", []string{"sqfstar"}, bothArchs, (*mastering).squashfs, true, nil},
		{Tar, "the root as an archive, with the kernel in boot/", nil, bothArchs, (*mastering).tar, true, nil},
		{ISOBIOS, "CD for BIOS (isolinux)", []string{"xorriso", isolinuxBin, isolinuxHybrid, ldlinux}, []string{"amd64"}, (*mastering).isoBIOS, false, nil},
		{ISOEFI, "CD for UEFI (systemd-boot)", []string{"xorriso", "mkfs.fat", "mcopy", "mmd"}, bothArchs, (*mastering).isoEFI, false, bothArchs},
		{RawBIOS, "disk for BIOS (MBR, syslinux)", []string{"mkfs.fat", "mcopy", "sfdisk", "syslinux", syslinuxMBR}, []string{"amd64"}, (*mastering).rawBIOS, false, nil},
		{RawEFI, "disk for UEFI (GPT, systemd-boot)", []string{"mkfs.fat", "mcopy", "mmd", "sfdisk"}, bothArchs, (*mastering).rawEFI, false, bothArchs},
		{QcowBIOS, "raw-bios as qcow2", []string{"mkfs.fat", "mcopy", "sfdisk", "syslinux", syslinuxMBR, "qemu-img"}, []string{"amd64"}, (*mastering).qcowBIOS, false, nil},
		{QcowEFI, "raw-efi as qcow2", []string{"mkfs.fat", "mcopy", "mmd", "sfdisk", "qemu-img"}, bothArchs, (*mastering).qcowEFI, false, bothArchs},
		{Netboot, "folder for TFTP, for iPXE or on arm64 UEFI and GRUB", nil, bothArchs, (*mastering).netboot, false, []string{"arm64"}},
	}
}

// Formats are all formats, in the order in which they should be shown.
func Formats() []Format {
	var list []Format
	for _, r := range formats() {
		list = append(list, r.format)
	}
	return list
}

// About describes a format in a few words; empty if there is no such format.
func (f Format) About() string {
	r, err := f.row()
	if err != nil {
		return ""
	}
	return r.about
}

// Supports reports whether there is the format for an architecture.
func (f Format) Supports(arch string) bool {
	r, err := f.row()
	return err == nil && slices.Contains(r.archs, arch)
}

func (f Format) row() (formatRow, error) {
	all := formats()
	i := slices.IndexFunc(all, func(r formatRow) bool { return r.format == f })
	if i < 0 {
		var known []string
		for _, r := range all {
			known = append(known, string(r.format))
		}
		return formatRow{}, fmt.Errorf("unknown format %q: %s", f, didYouMean(string(f), known))
	}
	return all[i], nil
}

// mastering is the making of one medium.
type mastering struct {
	ctx     context.Context
	b       *Builder
	image   *Image
	loader  *component // nil: the medium has none of ours
	owner   string     // of the root of a squashfs if it cannot be the image's, see squashOwner
	cmdline Cmdline
	dir     string // locked, empty, ours
	media   *Media
}

// Media makes a medium of an image, or finds it in the cache. The kernel is
// told cmdline; empty: the image's own. It needs neither root nor a loop
// device, only Debian's tools, see [Tools], and for some formats a component,
// see [Format.NeedsLoader].
func (b *Builder) Media(ctx context.Context, im *Image, format Format, cmdline string) (*Media, error) {
	if cmdline == "" {
		cmdline = im.Cmdline
	}
	m, err := b.media(ctx, im, format, ParseCmdline(cmdline))
	if err != nil {
		return nil, fmt.Errorf("images: cannot make %s of %s: %w", format, im.Name, explain(err, b.Dir))
	}
	return m, nil
}

func (b *Builder) media(ctx context.Context, im *Image, format Format, cmdline Cmdline) (*Media, error) {
	row, err := format.row()
	if err != nil {
		return nil, err
	}
	if !slices.Contains(row.archs, im.Arch) {
		return nil, fmt.Errorf("there is no BIOS on %s: choose a format for UEFI, or kernel+initrd", im.Arch)
	}
	if format == KernelInitrd {
		return plainMedia(im, cmdline), nil
	}
	var loader *component
	if format.NeedsLoader(im.Arch) {
		if loader, err = b.loader(ctx, im.Arch); err != nil {
			return nil, err
		}
	}
	owner := ""
	if format == KernelSquashfs {
		if owner, err = b.squashOwner(im); err != nil {
			return nil, err
		}
	}
	key, err := mediaKey(im, format, cmdline, loader, owner)
	if err != nil {
		return nil, err
	}
	found, err := onceIn(ctx, b, key, loadMedia, func(ctx context.Context, dir string) error {
		if err := findTools(row.tools); err != nil {
			return err
		}
		b.say("%s: making %s", im.Name, format)
		m := &mastering{ctx: ctx, b: b, image: im, loader: loader, owner: owner, cmdline: cmdline, dir: dir, media: &Media{Format: format, Cmdline: cmdline.String()}}
		if err := row.make(m); err != nil {
			return err
		}
		return m.seal()
	})
	if err != nil {
		return nil, err
	}
	found.value.Image, found.value.lease = im, found.file
	return found.value, nil
}

// plainMedia is what needs no making: QEMU loads it as it is.
func plainMedia(im *Image, cmdline Cmdline) *Media {
	return &Media{
		Format: KernelInitrd, Image: im, Digest: im.Digest, Kernel: im.KernelPath, Initrd: im.InitrdPath, Cmdline: cmdline.String(),
		files: []mediaFile{{Suffix: "-kernel", path: im.KernelPath}, {Suffix: "-initrd.img", path: im.InitrdPath}},
	}
}

func mediaKey(im *Image, format Format, cmdline Cmdline, loader *component, owner string) (string, error) {
	parts := []string{builderVersion, "media", string(format), im.Arch, im.Digest, cmdline.String()}
	if loader != nil {
		parts = append(parts, loader.digest)
	}
	if owner != "" {
		parts = append(parts, "owner "+owner)
	}
	raw, err := json.Marshal(parts)
	return fmt.Sprintf("%x", sha256.Sum256(raw)), err
}

// add names a finished file of the medium. The suffix is what Export calls it.
func (m *mastering) add(name, suffix string) {
	m.media.files = append(m.media.files, mediaFile{Name: name, Suffix: suffix})
}

func (m *mastering) path(name string) string { return filepath.Join(m.dir, name) }

// mediaDescription is what is kept of a medium beside its files. Paths in it
// are relative to the folder.
type mediaDescription struct {
	Media Media
	Files []mediaFile
	Seals map[string]seal
}

const mediaFileName = "media.json"

// seal removes what was only needed on the way, digests the files and
// describes the medium.
func (m *mastering) seal() error {
	d := mediaDescription{Media: *m.media, Files: m.media.files, Seals: map[string]seal{}}
	whole := sha256.New()
	for _, f := range d.Files {
		s, err := sealFile(m.path(f.Name))
		if err != nil {
			return err
		}
		d.Seals[f.Name] = s
		fmt.Fprintf(whole, "%s %s\n", f.Name, s.SHA256)
	}
	fmt.Fprintf(whole, "cmdline %s\n", m.media.Cmdline)
	d.Media.Digest = fmt.Sprintf("sha256:%x", whole.Sum(nil))
	if err := m.keepOnly(d.Seals); err != nil {
		return err
	}
	text, err := encode(d)
	if err != nil {
		return err
	}
	return writeFile(m.path(mediaFileName), strings.NewReader(string(text)))
}

// keepOnly removes everything that is not a file of the medium.
func (m *mastering) keepOnly(files map[string]seal) error {
	keep := map[string]bool{}
	for name := range files {
		top, _, _ := strings.Cut(name, "/")
		keep[top] = true
	}
	entries, err := os.ReadDir(m.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !keep[e.Name()] {
			if err := os.RemoveAll(m.path(e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// loadMedia reads a medium from its folder in the cache.
func loadMedia(dir string) (*lease[Media], error) {
	file, err := leaseDir(dir)
	if err != nil {
		return nil, err
	}
	m, err := readMedia(dir)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &lease[Media]{m, file}, nil
}

func readMedia(dir string) (*Media, error) {
	raw, err := os.ReadFile(filepath.Join(dir, mediaFileName))
	if err != nil {
		return nil, err
	}
	var d mediaDescription
	if err := json.Unmarshal(raw, &d); err != nil {
		return nil, fmt.Errorf("images: %s: %w", filepath.Join(dir, mediaFileName), err)
	}
	if err := checkSeals(dir, d.Seals); err != nil {
		return nil, err
	}
	m := &d.Media
	for _, p := range []*string{&m.Kernel, &m.Initrd, &m.Disk, &m.CD, &m.TFTP} {
		if *p != "" {
			*p = filepath.Join(dir, *p)
		}
	}
	for _, f := range d.Files {
		f.path = filepath.Join(dir, f.Name)
		m.files = append(m.files, f)
	}
	return m, used(filepath.Join(dir, mediaFileName))
}

// Export writes the medium's files into a folder, which is made if need be,
// and returns their paths. They are called NAME with a suffix that depends on
// the format. On an error none of them is new.
func (m *Media) Export(dir, name string) ([]string, error) {
	var files []exported
	for _, f := range m.files {
		files = append(files, exported{f.Suffix, func() (io.ReadCloser, error) { return os.Open(f.path) }})
	}
	if m.Kernel != "" {
		suffix := "-cmdline"
		if m.Format == KernelSquashfs {
			suffix = "-squashfs-cmdline" // it has root=, which would mislead the other initramfs
		}
		files = append(files, exported{suffix, func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(m.Cmdline)), nil }})
	}
	paths, err := export(dir, name, files)
	if err != nil {
		return nil, fmt.Errorf("images: cannot write %s of %s: %w", m.Format, name, explain(err, dir))
	}
	return paths, nil
}

// exported is a file to be exported.
type exported struct {
	suffix string
	open   func() (io.ReadCloser, error)
}

func export(dir, name string, files []exported) (paths []string, err error) {
	if name == "" || strings.ContainsRune(name, filepath.Separator) {
		return nil, fmt.Errorf("%q is not a file name", name)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if err := sweepDirs(dir, exportPrefix); err != nil {
		return nil, err
	}
	// All are complete in a folder of their own before the first gets its name.
	tmp, lock, err := exportDir(dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp), lock.Close()) }()
	for _, f := range files {
		r, err := f.open()
		if err != nil {
			return nil, err
		}
		to := filepath.Join(tmp, name+f.suffix)
		if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), writeFile(to, r), r.Close()); err != nil {
			return nil, err
		}
	}
	if err := targets(dir, name, files); err != nil {
		return nil, err
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

// targets makes sure that every file can get its name before the first does: one
// that failed in between would leave a new kernel beside an old initramfs.
func targets(dir, name string, files []exported) error {
	for _, f := range files {
		to := filepath.Join(dir, name+f.suffix)
		if info, err := os.Lstat(to); err == nil && info.IsDir() {
			return fmt.Errorf("%s is a folder, and a file must get this name: move it away, or choose another folder", to)
		}
		if parent := filepath.Dir(to); strings.Contains(f.suffix, "/") {
			if info, err := os.Stat(parent); err == nil && !info.IsDir() {
				return fmt.Errorf("%s is a file, and a folder must get this name: move it away, or choose another folder", parent)
			}
		}
	}
	for _, f := range files {
		for sub := filepath.Dir(f.suffix); sub != "."; sub = filepath.Dir(sub) {
			folder := filepath.Join(dir, name+sub)
			// A TFTP server runs as another user: it must get in, whatever the umask.
			if err := errors.Join(os.MkdirAll(folder, 0o755), os.Chmod(folder, 0o755)); err != nil {
				return err
			}
		}
	}
	return removeStale(dir, name, files)
}

// removeStale takes away what a netboot folder has of an earlier build for
// another architecture; what is not of a build stays.
func removeStale(dir, name string, files []exported) error {
	if !slices.ContainsFunc(files, func(f exported) bool { return strings.HasPrefix(f.suffix, "-netboot/") }) {
		return nil
	}
	for _, old := range []string{"boot.ipxe", "boot.efi", "grub/grub.cfg", "kernel", "initrd.img"} {
		if slices.ContainsFunc(files, func(f exported) bool { return f.suffix == "-netboot/"+old }) {
			continue
		}
		if err := os.Remove(filepath.Join(dir, name+"-netboot", old)); err != nil && !missing(err) {
			return err
		}
	}
	return nil
}

const exportPrefix = ".seatrial-export-"

// exportDir makes a locked folder in another one. The lock goes with the
// process: what a killed one left is removed by the next that writes there.
func exportDir(in string) (string, *os.File, error) {
	for {
		dir, err := os.MkdirTemp(in, exportPrefix)
		if err != nil {
			return "", nil, err
		}
		if lock := tryLockDir(dir); lock != nil && still(lock, dir) {
			return dir, lock, nil
		} else if lock != nil { // swept between the two calls
			lock.Close()
		}
	}
}

// root is the image's root, with the contents left in the initramfs; the
// caller closes the file when it is done with them.
func (im *Image) root() (*tree, *os.File, error) {
	f, err := os.Open(im.InitrdPath)
	if err != nil {
		return nil, nil, err
	}
	t, err := readInitramfs(io.NewSectionReader(f, im.UcodeSize, 1<<62))
	if err == nil {
		err = t.setAttributes(im.attributes)
	}
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("the initramfs %s is damaged: %w", im.InitrdPath, err), f.Close())
	}
	return t, f, nil
}

// copyFile copies a file of the host into the medium's folder.
func (m *mastering) copyFile(from, name string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	_, err = create(m.ctx, m.path(name), func(w io.Writer) error {
		_, err := io.Copy(w, in)
		return err
	})
	return err
}

func (m *mastering) text(name, text string) error {
	return os.WriteFile(m.path(name), []byte(text), 0o644)
}

package component

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// apt is a private apt root: the host's own sources and keys, nothing installed.
type apt struct {
	dir  string
	arch string
}

func newApt(cache, arch string) apt { return apt{dir: filepath.Join(cache, "apt-"+arch), arch: arch} }

// listsAge is how old package lists may be: Debian's change a few times a day.
const listsAge = 24 * time.Hour

// deb is a downloaded package.
type deb struct {
	path, name, version, digest string
}

func (a apt) command(ctx context.Context, args ...string) *exec.Cmd {
	base := []string{
		"-q", "-o", "APT::Architecture=" + a.arch, "-o", "APT::Architectures=" + a.arch,
		"-o", "Dir::State=" + a.dir + "/state", "-o", "Dir::State::status=" + a.dir + "/status",
		"-o", "Dir::Cache=" + a.dir + "/cache", "-o", "Debug::NoLocking=1",
		"-o", "APT::Sandbox::User=", "-o", "Acquire::Retries=3", "-o", "Acquire::http::Timeout=60",
		"-o", "Acquire::Languages=none",
	}
	c := exec.CommandContext(ctx, "apt-get", append(base, args...)...)
	c.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C")
	return c
}

// run runs a command and returns what it wrote on standard output.
func run(c *exec.Cmd) (string, error) {
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	if err := c.Run(); err != nil {
		said := strings.TrimSpace(stdout.String() + "\n" + stderr.String())
		return "", fmt.Errorf("%s: %w\n%s", strings.Join(c.Args, " "), err, said)
	}
	return stdout.String(), nil
}

// prepare makes the root and says whether its package lists are of today.
func (a apt) prepare() (current bool, err error) {
	if _, err := exec.LookPath("apt-get"); err != nil {
		return false, errors.New("component images are made from Debian packages, and there is no apt-get here; build them on Debian or Ubuntu and copy the cache folder")
	}
	for _, d := range []string{"state/lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(a.dir, d), 0o755); err != nil {
			return false, err
		}
	}
	if err := os.WriteFile(filepath.Join(a.dir, "status"), nil, 0o644); err != nil {
		return false, err
	}
	info, err := os.Stat(a.stamp())
	return err == nil && time.Since(info.ModTime()) < listsAge, nil
}

func (a apt) stamp() string { return filepath.Join(a.dir, "updated") }

// update brings the package lists up to date.
func (a apt) update(ctx context.Context) error {
	if _, err := a.prepare(); err != nil {
		return err
	}
	if _, err := run(a.command(ctx, "update")); err != nil {
		return err
	}
	return os.WriteFile(a.stamp(), nil, 0o644)
}

// get returns packages with everything they depend on, in the locked versions
// if those are in the cache or served, and in the newest otherwise. What the
// locked versions are, and whether that is what came, is the caller's to check.
//
// Of what the packages depend on only what want accepts is fetched; nil is all.
func (a apt) get(ctx context.Context, locked []Input, want func(name string) bool, packages ...string) ([]deb, error) {
	if debs, ok := a.cached(locked); ok {
		return debs, nil
	}
	current, err := a.prepare()
	if err != nil {
		return nil, err
	}
	if !current {
		if err := a.update(ctx); err != nil {
			return nil, err
		}
	}
	wanted, served, err := a.served(ctx, locked, packages)
	if err == nil && !served && len(locked) > 0 && current {
		// The lists may be older than the lock.
		if err := a.update(ctx); err != nil {
			return nil, err
		}
		wanted, _, err = a.served(ctx, locked, packages)
	}
	if err != nil {
		return nil, err
	}
	if want != nil {
		wanted = slices.DeleteFunc(wanted, func(p pinned) bool { return !want(p.name) })
	}
	return a.fetch(ctx, wanted)
}

// served resolves the packages: to the locked versions, if the lists hold all
// of them, and to the newest otherwise. One that is missing is enough for the
// newest of all, because packages of one source ask for each other's versions.
func (a apt) served(ctx context.Context, locked []Input, packages []string) (wanted []pinned, asLocked bool, err error) {
	if len(locked) > 0 {
		var pins []string
		for _, in := range locked {
			pins = append(pins, in.Name+"="+in.Version)
		}
		if wanted, err := a.resolve(ctx, pins); err == nil {
			return wanted, true, nil
		}
	}
	wanted, err = a.resolve(ctx, packages)
	return wanted, false, err
}

// pinned is a package in a version.
type pinned struct{ name, version string }

// installLine is what apt-get -s says of a package: Inst NAME (VERSION ORIGIN [ARCH]).
var installLine = regexp.MustCompile(`(?m)^Inst (\S+) \((\S+) `)

// resolve finds what would be installed. It needs no network.
func (a apt) resolve(ctx context.Context, packages []string) ([]pinned, error) {
	out, err := run(a.command(ctx, append([]string{"install", "-s", "--no-install-recommends"}, packages...)...))
	if err != nil {
		return nil, err
	}
	return parseInstall(out)
}

func parseInstall(text string) ([]pinned, error) {
	var list []pinned
	for _, m := range installLine.FindAllStringSubmatch(text, -1) {
		list = append(list, pinned{m[1], m[2]})
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("apt-get names no package to install:\n%s", text)
	}
	return list, nil
}

// fetch returns packages from the cache, and first downloads those that are
// not there.
func (a apt) fetch(ctx context.Context, wanted []pinned) ([]deb, error) {
	var missing []string
	for _, p := range wanted {
		if _, err := a.find(p.name, p.version); err != nil {
			missing = append(missing, p.name+"="+p.version)
		}
	}
	if len(missing) > 0 {
		if err := a.download(ctx, missing); err != nil {
			return nil, err
		}
	}
	var debs []deb
	for _, p := range wanted {
		d, err := a.find(p.name, p.version)
		if err != nil {
			return nil, err
		}
		debs = append(debs, d)
	}
	return debs, nil
}

// download puts packages into the cache. A name appears there only when the
// file is complete: apt has verified it against the signed lists by then.
func (a apt) download(ctx context.Context, packages []string) (err error) {
	dir, err := os.MkdirTemp(a.dir, "fetch-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	c := a.command(ctx, append([]string{"download"}, packages...)...)
	c.Dir = dir
	if _, err := run(c); err != nil {
		return err
	}
	found, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil {
		return err
	}
	for _, path := range found {
		if err := os.Rename(path, filepath.Join(a.dir, "cache", filepath.Base(path))); err != nil {
			return err
		}
	}
	return nil
}

// cached returns the locked packages if all of them are in the cache with the
// digests that are locked.
func (a apt) cached(locked []Input) ([]deb, bool) {
	var debs []deb
	for _, in := range locked {
		d, err := a.find(in.Name, in.Version)
		if err != nil || d.digest != in.Digest {
			return nil, false
		}
		debs = append(debs, d)
	}
	return debs, len(debs) > 0
}

// find looks into the cache, where a file is named NAME_VERSION_ARCH.deb.
func (a apt) find(name, version string) (deb, error) {
	d := deb{name: name, version: version}
	base := filepath.Join(a.dir, "cache", name+"_"+strings.ReplaceAll(version, ":", "%3a")+"_")
	var f *os.File
	var err error
	for _, arch := range []string{a.arch, "all"} {
		d.path = base + arch + ".deb"
		if f, err = os.Open(d.path); err == nil {
			break
		}
	}
	if err != nil {
		return d, err
	}
	h := sha256.New()
	_, err = io.Copy(h, f)
	d.digest = "sha256:" + hex.EncodeToString(h.Sum(nil))
	return d, errors.Join(err, f.Close())
}

func (d deb) input(component string) Input {
	return Input{Component: component, Kind: kindDeb, Name: d.name, Version: d.version, Digest: d.digest}
}

// files reads the files of a package that want accepts, without unpacking it
// to disk. Names are relative to the root.
func (d deb) files(ctx context.Context, want func(name string) bool) ([]file, error) {
	c := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", d.path)
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.Start(); err != nil {
		return nil, err
	}
	files, readErr := readTar(out, want)
	if readErr != nil {
		// dpkg-deb must not wait for a reader that has given up.
		_, _ = io.Copy(io.Discard, out)
	}
	if err := c.Wait(); err != nil {
		return nil, fmt.Errorf("reading %s: %w: %s", d.path, err, stderr.String())
	}
	return files, readErr
}

// file is one entry of a layer.
type file struct {
	name string // relative to the root
	mode fs.FileMode
	link string // target of a symbolic link
	data []byte
}

func readTar(r io.Reader, want func(string) bool) ([]file, error) {
	var files []file
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return files, nil
		}
		if err != nil {
			return nil, err
		}
		name := strings.Trim(strings.TrimPrefix(h.Name, "."), "/")
		if !want(name) {
			continue
		}
		f := file{name: name, mode: fs.FileMode(h.Mode & 0o7777)}
		switch h.Typeflag {
		case tar.TypeReg:
			if f.data, err = io.ReadAll(t); err != nil {
				return nil, err
			}
		case tar.TypeSymlink:
			f.link = h.Linkname
		default:
			continue
		}
		files = append(files, f)
	}
}

// merged is the name of a file where /bin, /sbin and /lib are links into /usr.
func merged(name string) string {
	for _, d := range []string{"bin/", "sbin/", "lib/", "lib64/"} {
		if strings.HasPrefix(name, d) {
			return "usr/" + name
		}
	}
	return name
}

// pick returns the first file with data at that path, /usr merged or not.
func pick(files []file, at string) (file, error) {
	i := slices.IndexFunc(files, func(f file) bool { return merged(f.name) == merged(at) && len(f.data) > 0 })
	if i < 0 {
		return file{}, fmt.Errorf("no package holds %s", at)
	}
	f := files[i]
	f.name = at
	return f, nil
}

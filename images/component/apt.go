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
	"sort"
	"strings"
	"time"
)

// apt is a private apt root: the host's own sources and keys, nothing installed.
type apt struct {
	dir  string
	arch string
}

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

func run(c *exec.Cmd) error {
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	if err := c.Run(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(c.Args, " "), err, strings.TrimSpace(out.String()))
	}
	return nil
}

// prepare makes the root and brings the package lists up to date.
func (a apt) prepare(ctx context.Context) error {
	if _, err := exec.LookPath("apt-get"); err != nil {
		return errors.New("component images are made from Debian packages, and there is no apt-get here; build them on Debian or Ubuntu and copy the cache folder")
	}
	for _, d := range []string{"state/lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(a.dir, d), 0o755); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(a.dir, "status"), nil, 0o644); err != nil {
		return err
	}
	stamp := filepath.Join(a.dir, "updated")
	if info, err := os.Stat(stamp); err == nil && time.Since(info.ModTime()) < listsAge {
		return nil
	}
	if err := run(a.command(ctx, "update")); err != nil {
		return err
	}
	return os.WriteFile(stamp, nil, 0o644)
}

// fetch downloads packages with everything they depend on. A dependency that
// only a package manager needs is left to the caller's choice of files.
func (a apt) fetch(ctx context.Context, packages ...string) ([]deb, error) {
	if err := a.prepare(ctx); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(a.dir, "fetch-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := os.MkdirAll(filepath.Join(dir, "partial"), 0o755); err != nil {
		return nil, err
	}
	args := append([]string{"-o", "Dir::Cache::archives=" + dir, "install", "-y", "--no-install-recommends", "--download-only"}, packages...)
	if err := run(a.command(ctx, args...)); err != nil {
		return nil, err
	}
	found, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil {
		return nil, err
	}
	sort.Strings(found)
	var debs []deb
	for _, path := range found {
		d, err := a.keep(path)
		if err != nil {
			return nil, err
		}
		debs = append(debs, d)
	}
	return debs, nil
}

// keep moves a download into the cache; its name is NAME_VERSION_ARCH.deb.
func (a apt) keep(path string) (deb, error) {
	f, err := os.Open(path)
	if err != nil {
		return deb{}, err
	}
	h := sha256.New()
	_, err = io.Copy(h, f)
	if err := errors.Join(err, f.Close()); err != nil {
		return deb{}, err
	}
	fields := strings.Split(strings.TrimSuffix(filepath.Base(path), ".deb"), "_")
	if len(fields) != 3 {
		return deb{}, fmt.Errorf("%s is not named like a package", path)
	}
	final := filepath.Join(a.dir, "cache", filepath.Base(path))
	return deb{
		path: final, name: fields[0], version: strings.ReplaceAll(fields[1], "%3a", ":"),
		digest: "sha256:" + hex.EncodeToString(h.Sum(nil)),
	}, os.Rename(path, final)
}

func (d deb) input(component string) Input {
	return Input{Component: component, Kind: "deb", Name: d.name, Version: d.version, Digest: d.digest}
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

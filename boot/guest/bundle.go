//go:build linux

package guest

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/seatrial/seatrial/boot"
	"golang.org/x/sys/unix"
)

// Bundle is an OCI bundle of the image: config.json, the root file system in
// rootfs, and beside it runtime.json.
type Bundle struct {
	Name    string // its directory's name
	Dir     string
	Runtime boot.Runtime
}

// ReadBundles returns the bundles in dir by name. A directory that is not there
// holds none. A bundle that cannot be read has its error in the slice beside it.
func ReadBundles(dir string) ([]Bundle, []error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, []error{err}
	}
	var bundles []Bundle
	var problems []error
	for _, e := range entries { // ReadDir sorts by name
		if !e.IsDir() {
			continue
		}
		b, err := ReadBundle(filepath.Join(dir, e.Name()))
		bundles, problems = append(bundles, b), append(problems, err)
	}
	return bundles, problems
}

// ReadBundle reads the runtime.json of one bundle; without it there is nothing
// to do around the container.
func ReadBundle(dir string) (Bundle, error) {
	b := Bundle{Name: filepath.Base(dir), Dir: dir}
	name := filepath.Join(dir, "runtime.json")
	src, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		return b, nil
	}
	if err != nil {
		return b, err
	}
	if err := json.Unmarshal(src, &b.Runtime); err != nil {
		return b, fmt.Errorf("%s: %w", name, err)
	}
	return b, nil
}

// Root is the bundle's root file system.
func (b Bundle) Root() string { return filepath.Join(b.Dir, "rootfs") }

// Prepare makes the bundle's mounts and directories. On failure the bundle's
// own mounts are taken away again.
func (b Bundle) Prepare(sys System) error {
	for _, m := range b.Runtime.Mounts {
		if err := b.mount(sys, m); err != nil {
			return errors.Join(err, b.Release(sys))
		}
	}
	for _, d := range b.Runtime.Mkdir {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return errors.Join(fmt.Errorf("runtime.json mkdir: %w", err), b.Release(sys))
		}
	}
	return nil
}

func (b Bundle) target(m boot.RuntimeMount) string {
	if filepath.IsAbs(m.Destination) {
		return filepath.Clean(m.Destination)
	}
	return filepath.Join(b.Root(), m.Destination)
}

func (b Bundle) mount(sys System, m boot.RuntimeMount) error {
	target := b.target(m)
	if err := os.MkdirAll(target, 0o755); err != nil {
		return fmt.Errorf("runtime.json mount on %s: %w", target, err)
	}
	for _, o := range m.Options {
		k, v, ok := strings.Cut(o, "=")
		if ok && (k == "upperdir" || k == "workdir") {
			if err := os.MkdirAll(v, 0o755); err != nil {
				return fmt.Errorf("runtime.json mount on %s: %w", target, err)
			}
		}
	}
	return mountWords(sys, m.Source, target, m.Type, m.Options)
}

// mountWords mounts as mount(8) would: the kernel wants a bind's other flags,
// and any change of propagation, each in a call of its own.
func mountWords(sys System, source, target, fstype string, options []string) error {
	flags, propagation, data := mountFlags(options)
	if fstype == "bind" {
		fstype, flags = "", flags|unix.MS_BIND
	}
	remount := uintptr(0)
	if extra := flags &^ (unix.MS_BIND | unix.MS_REC); flags&unix.MS_BIND != 0 && extra != 0 && extra&unix.MS_REMOUNT == 0 {
		remount = unix.MS_REMOUNT | unix.MS_BIND | extra
		flags &= unix.MS_BIND | unix.MS_REC
	}
	if flags != 0 || data != "" || fstype != "" || propagation == 0 {
		if err := sys.Mount(source, target, fstype, flags, data); err != nil {
			return fmt.Errorf("mount %s %s on %s (%s): %w", fstype, source, target, strings.Join(options, ","), err)
		}
	}
	for _, f := range []uintptr{remount, propagation} {
		if f == 0 {
			continue
		}
		if err := sys.Mount("", target, "", f, ""); err != nil {
			return fmt.Errorf("mount %s (%s): %w", target, strings.Join(options, ","), err)
		}
	}
	return nil
}

// Release undoes the mounts of Prepare that lie inside the bundle, last first.
// Mounts elsewhere stay: they are what a container such as one that mounts a
// disk was run for.
func (b Bundle) Release(sys System) error {
	var problems []error
	for i := len(b.Runtime.Mounts) - 1; i >= 0; i-- {
		target := b.target(b.Runtime.Mounts[i])
		if !strings.HasPrefix(target, b.Dir+"/") {
			continue
		}
		// A remount is not a mount of its own, and a failed Prepare made fewer.
		if err := unmountIfThere(sys, target); err != nil {
			problems = append(problems, fmt.Errorf("unmount %s: %w", target, err))
		}
	}
	return errors.Join(problems...)
}

// unmountIfThere takes a mount away. Nothing mounted there, or no such place, is
// no error.
func unmountIfThere(sys System, target string) error {
	err := sys.Unmount(target, unix.MNT_DETACH)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// Spec is a container's specification. It is read no further than is
// needed here: the rest is between whoever wrote it and the OCI runtime, and to
// decode all of it costs an emulated machine tens of milliseconds.
type Spec struct {
	Text        []byte // JSON, with an absolute root
	Annotations map[string]string
}

// ReadSpec reads the config.json of the bundle in dir. containerd's shim has a
// working directory of its own, hence the absolute root.
func ReadSpec(dir string) (Spec, error) {
	name := filepath.Join(dir, "config.json")
	src, err := os.ReadFile(name)
	if err != nil {
		return Spec{}, err
	}
	s, err := parseSpec(src, dir)
	if err != nil {
		return Spec{}, fmt.Errorf("%s: %w", name, err)
	}
	return s, nil
}

func parseSpec(src []byte, dir string) (s Spec, err error) {
	var fields, root map[string]json.RawMessage
	if err := json.Unmarshal(src, &fields); err != nil {
		return Spec{}, err
	}
	if fields["root"] == nil || fields["process"] == nil {
		return Spec{}, errors.New("no root or no process in it")
	}
	if err := json.Unmarshal(fields["root"], &root); err != nil {
		return Spec{}, fmt.Errorf("root: %w", err)
	}
	var path string
	if err := json.Unmarshal(root["path"], &path); err != nil {
		return Spec{}, fmt.Errorf("root.path: %w", err)
	}
	if text := fields["annotations"]; text != nil {
		if err := json.Unmarshal(text, &s.Annotations); err != nil {
			return Spec{}, fmt.Errorf("annotations: %w", err)
		}
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	for _, part := range []struct {
		in  map[string]json.RawMessage
		key string
		to  any
	}{{root, "path", path}, {fields, "root", root}} {
		if part.in[part.key], err = json.Marshal(part.to); err != nil {
			return Spec{}, err
		}
	}
	s.Text, err = json.Marshal(fields)
	return s, err
}

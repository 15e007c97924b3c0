//go:build linux

package guest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// cgroupDir is where control groups are mounted.
const cgroupDir = "/sys/fs/cgroup"

// cgroupV1Word asks for the old hierarchies, one per controller.
const cgroupV1Word = "linuxkit.unified_cgroup_hierarchy=0"

func (m *machine) cgroupVersion() int {
	if m.words.has(cgroupV1Word) {
		return 1
	}
	return 2
}

// mountCgroups mounts version 2, or version 1 when the command line asks.
func (m *machine) mountCgroups() error {
	const flags = noDevs | relat
	if m.cgroupVersion() == 2 {
		return mountAll(m.sys, m.root, []mount{{cgroupDir, "cgroup2", flags, "", true}})
	}
	src, err := os.ReadFile(filepath.Join(m.root, "/proc/cgroups"))
	if err != nil {
		return err
	}
	table := []mount{{cgroupDir, "tmpfs", flags, "mode=755", true}}
	for _, c := range cgroupControllers(string(src)) {
		table = append(table, mount{filepath.Join(cgroupDir, c), "cgroup", flags, c, true})
	}
	table = append(table, mount{filepath.Join(cgroupDir, "systemd"), "cgroup", flags, "none,name=systemd", true})
	problems := []error{mountAll(m.sys, m.root, table)}
	// Without this a child's memory does not count for its parent. Newer kernels
	// have nothing else and may refuse.
	_ = os.WriteFile(filepath.Join(m.root, cgroupDir, "memory/memory.use_hierarchy"), []byte("1"), 0)
	return errors.Join(problems...)
}

// cgroupControllers are the enabled controllers of /proc/cgroups: lines of
// name, hierarchy, number of groups, enabled.
func cgroupControllers(table string) []string {
	var names []string
	for line := range strings.Lines(table) {
		if f := strings.Fields(line); len(f) == 4 && !strings.HasPrefix(f[0], "#") && f[3] == "1" {
			names = append(names, f[0])
		}
	}
	return names
}

// MakeCgroups makes the control groups that the bundle names: under version 2
// one directory each, under version 1 one in every hierarchy.
func (b Bundle) MakeCgroups(root string) error {
	if len(b.Runtime.Cgroups) == 0 {
		return nil
	}
	top := filepath.Join(root, cgroupDir)
	hierarchies := []string{top}
	if _, err := os.Stat(filepath.Join(top, "cgroup.controllers")); err != nil {
		entries, err := os.ReadDir(top)
		if err != nil {
			return err
		}
		hierarchies = nil
		for _, e := range entries {
			if e.IsDir() {
				hierarchies = append(hierarchies, filepath.Join(top, e.Name()))
			}
		}
	}
	var problems []error
	for _, group := range b.Runtime.Cgroups {
		for _, h := range hierarchies {
			// Cleaned below "/": a name cannot lead out of its hierarchy.
			if err := os.MkdirAll(filepath.Join(h, filepath.Clean("/"+group)), 0o755); err != nil {
				problems = append(problems, err)
			}
		}
	}
	return errors.Join(problems...)
}

// namespace is one that a bundle wants bound to a path.
type namespace struct{ kind, path string }

// bound are the namespaces that the bundle has paths for.
func (b Bundle) bound() []namespace {
	n := b.Runtime.BindNS
	return slices.DeleteFunc([]namespace{
		{"cgroup", n.Cgroup}, {"ipc", n.Ipc}, {"mnt", n.Mnt}, {"net", n.Net}, {"pid", n.Pid}, {"user", n.User}, {"uts", n.Uts},
	}, func(n namespace) bool { return n.path == "" })
}

// UnbindNamespaces takes back what BindNamespaces did. A namespace that is bound
// lives, and what is in it: of two ends of a wire the far one goes only then.
func (b Bundle) UnbindNamespaces(sys System, root string) error {
	var problems []error
	for _, ns := range b.bound() {
		if err := unmountIfThere(sys, filepath.Join(root, ns.path)); err != nil {
			problems = append(problems, fmt.Errorf("bindNS %s: %w", ns.kind, err))
		}
	}
	return errors.Join(problems...)
}

// BindNamespaces binds the namespaces of process pid to the paths that the
// bundle has for them.
func (b Bundle) BindNamespaces(sys System, root string, pid int) error {
	for _, ns := range b.bound() {
		path := filepath.Join(root, ns.path)
		if err := touch(path); err != nil {
			return fmt.Errorf("bindNS %s: %w", ns.kind, err)
		}
		if err := sys.Mount(fmt.Sprintf("/proc/%d/ns/%s", pid, ns.kind), path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("bindNS %s on %s: %w", ns.kind, ns.path, err)
		}
	}
	return nil
}

func touch(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o644) // a bound namespace cannot be opened for writing
	if err != nil {
		return err
	}
	return f.Close()
}

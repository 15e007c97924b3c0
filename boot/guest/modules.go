//go:build linux

package guest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Modules is the index of a kernel's modules as depmod(8) writes it.
type Modules struct {
	dir     string
	files   map[string]string   // name -> path below dir
	deps    map[string][]string // name -> paths below dir, in modules.dep's order
	builtin map[string]bool
	aliases []alias
	loaded  map[string]bool // by this index; an insertion is not tried twice
}

type alias struct{ prefix, pattern, module string }

// ModulesDir is where the modules of the running kernel are.
func ModulesDir() (string, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", err
	}
	return "/lib/modules/" + unix.ByteSliceToString(u.Release[:]), nil
}

// ReadModules reads modules.dep, modules.alias and modules.builtin of dir. A
// directory that is not there is an empty index: everything is built in.
func ReadModules(dir string) (*Modules, error) {
	m := &Modules{dir: dir, files: map[string]string{}, deps: map[string][]string{}, builtin: map[string]bool{}, loaded: map[string]bool{}}
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	err := m.each("modules.dep", func(line string) {
		file, deps, ok := strings.Cut(line, ":")
		if ok {
			m.files[moduleName(file)] = file
			m.deps[moduleName(file)] = strings.Fields(deps)
		}
	})
	if err != nil {
		return nil, err
	}
	err = m.each("modules.builtin", func(line string) { m.builtin[moduleName(line)] = true })
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	err = m.each("modules.alias", func(line string) {
		f := strings.Fields(line)
		if len(f) == 3 && f[0] == "alias" {
			pattern := dashless(f[1])
			prefix, _, _ := cutAny(pattern, `*?[\`)
			m.aliases = append(m.aliases, alias{prefix, pattern, moduleName(f[2])})
		}
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return m, nil
}

func (m *Modules) each(name string, line func(string)) error {
	src, err := os.ReadFile(filepath.Join(m.dir, name))
	if err != nil {
		return err
	}
	s := bufio.NewScanner(bytes.NewReader(src))
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		if t := strings.TrimSpace(s.Text()); t != "" && t[0] != '#' {
			line(t)
		}
	}
	return s.Err()
}

func cutAny(s, chars string) (before, after string, found bool) {
	if i := strings.IndexAny(s, chars); i >= 0 {
		return s[:i], s[i:], true
	}
	return s, "", false
}

// moduleName is the name of the module in a file: no directory, no suffix, "_"
// for "-".
func moduleName(file string) string {
	base := path.Base(file)
	base, _, _ = strings.Cut(base, ".ko")
	return dashless(base)
}

// dashless writes "_" for "-" outside brackets, where both mean the same
// (modprobe(8)).
func dashless(s string) string {
	if !strings.Contains(s, "-") {
		return s
	}
	b, depth := []byte(s), 0
	for i, c := range b {
		switch {
		case c == '[':
			depth++
		case c == ']' && depth > 0:
			depth--
		case c == '-' && depth == 0:
			b[i] = '_'
		}
	}
	return string(b)
}

// Find returns the modules that a name or a device's modalias stands for, in
// the order of the index, built-in ones left out; known is false when nothing
// answers to it.
func (m *Modules) Find(name string) (modules []string, known bool) {
	name = dashless(name)
	if m.files[name] != "" {
		return []string{name}, true
	}
	known = m.builtin[name]
	seen := map[string]bool{}
	for _, a := range m.aliases {
		if !strings.HasPrefix(name, a.prefix) {
			continue
		}
		if ok, err := path.Match(a.pattern, name); err != nil || !ok {
			continue
		}
		known = true
		if m.files[a.module] != "" && !seen[a.module] {
			seen[a.module] = true
			modules = append(modules, a.module)
		}
	}
	return modules, known
}

// Load inserts a module and before it what it depends on.
func (m *Modules) Load(sys System, module, params string) error {
	deps := m.deps[module]
	for i := len(deps) - 1; i >= 0; i-- { // modules.dep lists the nearest first
		if err := m.insert(sys, deps[i], ""); err != nil {
			return fmt.Errorf("module %s: %w", module, err)
		}
	}
	if err := m.insert(sys, m.files[module], params); err != nil {
		return fmt.Errorf("module %s: %w", module, err)
	}
	return nil
}

func (m *Modules) insert(sys System, file, params string) error {
	if m.loaded[file] {
		return nil
	}
	m.loaded[file] = true
	return sys.InsertModule(filepath.Join(m.dir, file), params)
}

// Modprobe loads everything name stands for.
func (m *Modules) Modprobe(sys System, name, params string) error {
	modules, known := m.Find(name)
	if !known {
		return fmt.Errorf("module %s: not in %s", name, m.dir)
	}
	var problems []error
	for _, module := range modules {
		if err := m.Load(sys, module, params); err != nil {
			problems = append(problems, err)
		}
	}
	return errors.Join(problems...)
}

// maxColdplugRounds bounds the search for devices that drivers bring with
// them: a virtio disk appears behind the PCI device's driver, its partitions'
// driver behind that. Real machines need three.
const maxColdplugRounds = 8

// Coldplug loads a driver for every device in sysfs (mounted at sys), again
// until no new device appears. A driver that will not load is reported but is
// no failure of the others.
func (m *Modules) Coldplug(sys System, sysfs string) error {
	if len(m.files) == 0 {
		return nil
	}
	tried := map[string]bool{}
	var problems []error
	for range maxColdplugRounds {
		names, err := filepath.Glob(filepath.Join(sysfs, "bus/*/devices/*/modalias"))
		if err != nil {
			return err
		}
		fresh := false
		for _, name := range names {
			src, err := os.ReadFile(name)
			if err != nil {
				continue // the device has gone
			}
			modalias := strings.TrimSpace(string(src))
			if modalias == "" || tried[modalias] {
				continue
			}
			tried[modalias], fresh = true, true
			modules, _ := m.Find(modalias)
			for _, module := range modules {
				if err := m.Load(sys, module, ""); err != nil && !errors.Is(err, unix.ENODEV) {
					problems = append(problems, err)
				}
			}
		}
		if !fresh {
			break
		}
	}
	return errors.Join(problems...)
}

// LoadListed loads the modules named in the files of modules-load.d(5).
func (m *Modules) LoadListed(sys System, dir string) error {
	names, err := filepath.Glob(filepath.Join(dir, "*.conf"))
	if err != nil {
		return err
	}
	var problems []error
	for _, name := range names {
		src, err := os.ReadFile(name)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		for line := range strings.Lines(string(src)) {
			line = strings.TrimSpace(line)
			if line == "" || strings.ContainsAny(line[:1], "#;") {
				continue
			}
			if err := m.Modprobe(sys, line, ""); err != nil {
				problems = append(problems, fmt.Errorf("%s: %w", name, err))
			}
		}
	}
	return errors.Join(problems...)
}

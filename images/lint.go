package images

import (
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/pelletier/go-toml/v2"

	"github.com/seatrial/seatrial/boot"
)

// Lint names what is allowed in a spec and seldom meant, for a machine of an
// architecture (amd64, arm64), before anything is built. [Builder.Lint] looks
// into the images as well.
func (s *Spec) Lint(arch string) []Problem {
	l := &linter{spec: s, arch: arch}
	l.text()
	l.sources()
	l.phases(phasesByName(), l.isCalled)
	sortProblems(l.found)
	return l.found
}

// text applies the rules that need no image.
func (l *linter) text() {
	for _, rule := range []func(){l.console, l.files, l.runtimeConfig, l.containers, l.ambiguous, l.bound} {
		rule()
	}
}

// linter collects what the rules find.
type linter struct {
	spec  *Spec
	arch  string
	found []Problem
}

// warn notes something about the value at a path, or what encloses it.
func (l *linter) warn(at, text, hint string) {
	d := &decoder{at: l.spec.at, file: l.spec.at[""].file}
	d.problem(at, text, hint)
	l.found = append(l.found, d.problems...)
}

// console: /dev/console is the last console= that registers. If that is not
// the serial line it shows the kernel and nothing of init and containerd.
func (l *linter) console() {
	if strings.Count(l.spec.Kernel.Cmdline, `"`)%2 == 1 {
		l.warn("kernel.cmdline", "has a quote that nothing closes", "all that follows it is one word to the kernel: close it, or remove it")
	}
	want, have := SerialLine(l.arch), ParseCmdline(l.spec.Kernel.Cmdline).Consoles()
	switch {
	case len(have) == 0:
		l.warn("kernel.cmdline", "has no console=", fmt.Sprintf("add console=%s, or the serial line stays silent", want))
	case !slices.Contains(have, want):
		l.warn("kernel.cmdline", fmt.Sprintf("has no console=%s, which is the serial line of %s", want, l.arch), fmt.Sprintf("add console=%s as the last one", want))
	case have[len(have)-1] != want:
		l.warn("kernel.cmdline", fmt.Sprintf("the last console is %s", have[len(have)-1]), fmt.Sprintf("put console=%s last: init and containerd write to the last console only", want))
	}
}

// phase is what a list of containers needs of the images of init.
type phase struct {
	key   string
	oneOf []string
	lacks string // what to say when there is none of them
	add   string // what has it
}

// phasesByName: upstream's start-up scripts come with the images of the
// programs they start; without them the phases are left out and nobody says so.
func phasesByName() []phase {
	return phases([]string{"runc", "crun"}, "no image of init is called runc or crun", []string{"containerd"}, "no image of init is called containerd")
}

func phases(runtime []string, noRuntime string, containerd []string, noContainerd string) []phase {
	return []phase{
		{"onboot", runtime, noRuntime, "runc"}, {"onshutdown", runtime, noRuntime, "runc"},
		{"services", containerd, noContainerd, "containerd"}, {"services", runtime, noRuntime, "runc"},
	}
}

// isCalled reports whether the name of an image of init holds a word.
func (l *linter) isCalled(word string) bool {
	return slices.ContainsFunc(l.spec.Init, func(ref string) bool {
		r, err := name.ParseReference(ref)
		return err == nil && strings.Contains(path.Base(r.Context().RepositoryStr()), word)
	})
}

// phases names the lists of containers that nothing would start.
func (l *linter) phases(needed []phase, has func(string) bool) {
	if len(l.spec.Init) == 0 {
		l.warn("init", "names no image", "the machine has no init: add one, such as seatrial/init")
		return
	}
	for _, list := range l.spec.lists() {
		for _, p := range needed {
			if p.key == list.kind && len(list.items) > 0 && !slices.ContainsFunc(p.oneOf, has) {
				l.warn(p.key, p.lacks, fmt.Sprintf("add one, such as seatrial/%s: without it these containers are never started", p.add))
			}
		}
	}
}

// hidden are where init mounts a fresh tmpfs over the root.
var hidden = []string{"/var", "/run", "/tmp", "/dev", "/proc", "/sys"}

func under(dir, file string) bool { return file == dir || strings.HasPrefix(file, dir+"/") }

func (l *linter) files() {
	first := map[string]int{}
	for i, f := range l.spec.Files {
		at := fmt.Sprintf("files[%d]", i)
		clean := path.Clean("/" + f.Path)
		if f.Mode == "" && f.Symlink == "" {
			l.warn(at, fmt.Sprintf("%s has no mode", clean), closed(f))
		}
		for _, dir := range hidden {
			if under(dir, clean) {
				l.warn(at+".path", fmt.Sprintf("%s is hidden: the machine mounts a file system over %s", clean, dir), "put it elsewhere, such as /etc, and let what needs it copy it")
			}
		}
		if j, twice := first[clean]; twice && !f.Directory {
			l.warn(at+".path", fmt.Sprintf("%s is written by files[%d] already", clean, j), "the last one wins: remove the other")
		}
		first[clean] = i
	}
}

// closed tells what a missing mode does.
func closed(f File) string {
	usual, write := "0600", "0644"
	if f.Directory {
		usual, write = "0700", "0755"
	}
	return fmt.Sprintf("it becomes %s, and upstream's builder closes a parent that it makes too, for everyone but root: write mode: %q", usual, write)
}

// sources names files of the host that are not there: the build refuses them.
func (l *linter) sources() {
	for i, f := range l.spec.Files {
		if f.Source == "" {
			continue
		}
		if _, err := os.Stat(f.Source); missing(err) && !f.Optional {
			l.warn(fmt.Sprintf("files[%d].source", i), fmt.Sprintf("%s does not exist", f.Source), "make it, or add optional: true")
		}
	}
}

// runtimeConfig looks at the options file of containerd if it is in files.
func (l *linter) runtimeConfig() {
	for i, f := range l.spec.Files {
		switch {
		case path.Clean("/"+f.Path) != boot.RuntimeConfig:
		case f.Contents != nil:
			l.options(fmt.Sprintf("files[%d].contents", i), *f.Contents)
		case f.Source != "":
			l.optionsOf(fmt.Sprintf("files[%d].source", i), f.Source)
		}
	}
}

// optionsOf looks at an options file of the host; one that is not there is told
// by sources.
func (l *linter) optionsOf(at, source string) {
	info, err := os.Stat(source)
	if missing(err) {
		return
	}
	if err == nil && (!info.Mode().IsRegular() || info.Size() > maxYAML) { // a FIFO would block for ever
		err = fmt.Errorf("%s is not a regular file of at most %d bytes", source, maxYAML)
	}
	var text []byte
	if err == nil {
		text, err = os.ReadFile(source)
	}
	if err != nil {
		l.warn(at, "cannot be read: "+err.Error(), "name a file that you may read")
		return
	}
	l.options(at, string(text))
}

func (l *linter) options(at, text string) {
	values := map[string]any{}
	if err := toml.Unmarshal([]byte(text), &values); err != nil {
		l.warn(at, "is not TOML: "+err.Error(), `write options as cliopts = "--log-level debug"`)
		return
	}
	for _, key := range []string{"cliopts", "stderr", "stdout"} {
		value, given := values[key]
		s, isText := value.(string)
		switch {
		case !given:
		case !isText:
			l.warn(at, fmt.Sprintf("%s must be a string", key), `upstream's init panics on anything else: write one string, such as "--log-level debug"`)
		case key == "cliopts" && strings.ContainsAny(s, `'"`):
			l.warn(at, fmt.Sprintf("the quotes in cliopts = %q reach containerd as they are", s), "words are split at white space only: leave the quotes out, and use containerd's own configuration for values with blanks")
		case key != "cliopts" && s == "":
			l.warn(at, fmt.Sprintf("%s is blank", key), "upstream's init does not start containerd then: remove the key to keep the default")
		case key != "cliopts" && s != "stderr" && s != "stdout" && !path.IsAbs(s):
			l.warn(at, fmt.Sprintf("%s = %q is not an absolute path", key, s), `write the path from /, or "stderr" or "stdout"`)
		}
	}
	for key, value := range values {
		if _, table := value.(map[string]any); table {
			l.warn(at, fmt.Sprintf("the table [%s] is ignored", key), "write the keys at the top, before any [table]")
		} else if !slices.Contains([]string{"cliopts", "stderr", "stdout"}, key) {
			l.warn(at, fmt.Sprintf("the key %q is ignored", key), didYouMean(key, []string{"cliopts", "stderr", "stdout"}))
		}
	}
}

// writable are where a directory can be made: the root is read-only.
var writable = []string{"/var", "/run", "/tmp", "/dev", "/sys/fs/cgroup"}

func (l *linter) containers() {
	for _, list := range l.spec.lists() {
		for i, c := range list.items {
			at := fmt.Sprintf("%s[%d]", list.kind, i)
			l.added(at, c)
			l.mountedTwice(at, c.Settings)
			if list := inert(c.Settings); c.Capabilities != nil && len(list) > 0 {
				l.warn(at+".ambient", inertText(list), "add them to capabilities too")
			}
			l.version1(c.Resources, func(key, text, hint string) { l.warn(at+"."+key, text, hint) })
			if c.Runtime == nil {
				continue
			}
			for j, dir := range c.Runtime.Mkdir {
				if path.IsAbs(dir) && !slices.ContainsFunc(writable, func(w string) bool { return under(w, path.Clean(dir)) }) {
					l.warn(fmt.Sprintf("%s.runtime.mkdir[%d]", at, j), fmt.Sprintf("%s cannot be made: the root is read-only", dir), "add it to files with directory: true, or choose a place below /var or /run")
				}
			}
		}
	}
}

// added names lists that add to nothing: the YAML's own list replaces the label's.
func (l *linter) added(at string, c Container) {
	for _, a := range []struct {
		key       string
		list, add []string
	}{{"capabilities", c.Capabilities, c.CapabilitiesAdd}, {"binds", c.Binds, c.BindsAdd}} {
		if a.list != nil && len(a.add) > 0 {
			l.warn(fmt.Sprintf("%s.%s.add", at, a.key), fmt.Sprintf("is dropped: the %s beside it replace whatever it adds to", a.key), fmt.Sprintf("move its items into %s, or remove %s to add to the label's", a.key, a.key))
		}
	}
}

// mountedTwice names mounts whose place another one takes: of all that are on
// the same path the container gets one.
func (l *linter) mountedTwice(at string, s Settings) {
	first := map[string]string{}
	s.eachMount(func(key string, m specs.Mount) {
		path := path.Clean(m.Destination)
		if before, twice := first[path]; twice {
			l.warn(at+"."+key, fmt.Sprintf("takes the place of %s.%s, which is on %s too", at, before, path), "keep one of them, or choose another path")
		}
		first[path] = key
	})
}

// version1 names limits that only cgroup v1 has; the default is v2. What crun
// does about them is in its cgroup-resources.c (1.8.1); runc passes over them.
func (l *linter) version1(r *Resources, warn func(key, text, hint string)) {
	if r == nil || slices.Contains(ParseCmdline(l.spec.Kernel.Cmdline), "linuxkit.unified_cgroup_hierarchy=0") {
		return
	}
	const remedy = "remove it, or boot with linuxkit.unified_cgroup_hierarchy=0 where the init honours that"
	refused := func(key string, given bool) {
		if given {
			warn("resources."+key, "is a limit of cgroup v1: under v2 crun refuses to start the container, and runc ignores it", remedy)
		}
	}
	if m := r.Memory; m != nil {
		refused("memory.kernel", m.Kernel != nil)
		refused("memory.kernelTCP", m.KernelTCP != nil)
		refused("memory.swappiness", m.Swappiness != nil)
		refused("memory.disableOOMKiller", isTrue(m.DisableOOMKiller))
		if m.Swap != nil && *m.Swap > 0 && (m.Limit == nil || *m.Limit > *m.Swap) {
			warn("resources.memory.swap", "counts memory and swap together: under cgroup v2 no container starts with it unless there is a memory.limit that is not above it", "add or lower memory.limit, or remove the swap")
		}
	}
	if c := r.CPU; c != nil {
		refused("cpu.realtimeRuntime", c.RealtimeRuntime != nil && *c.RealtimeRuntime != 0)
		refused("cpu.realtimePeriod", c.RealtimePeriod != nil && *c.RealtimePeriod != 0)
	}
	if b := r.BlockIO; b != nil {
		refused("blockIO.leafWeight", b.LeafWeight != nil && *b.LeafWeight != 0)
		for i, w := range b.WeightDevice {
			if key := fmt.Sprintf("blockIO.weightDevice[%d].leafWeight", i); w.LeafWeight != nil {
				warn("resources."+key, "has no effect under cgroup v2", remedy)
			}
		}
	}
	refused("network", r.Network != nil)
}

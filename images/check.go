package images

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// containerName is what both runc and containerd accept as an identifier
// (containerd: pkg/identifiers); it can never climb out of a folder.
var containerName = regexp.MustCompile(`^[A-Za-z0-9]+([._-][A-Za-z0-9]+)*$`)

// maxName leaves room for "NNN-" within containerd's limit of 76.
const maxName = 72

// maxCmdline is COMMAND_LINE_SIZE of x86 and arm64 without the NUL at the end
// (arch/*/include/*/asm/setup.h).
const maxCmdline = 2048 - 1

// checkSpec notes what cannot be seen from the type of a value.
func (d *decoder) checkSpec(s *Spec) {
	d.reference("kernel.image", s.Kernel.Image, "a machine needs a kernel: name the image that holds it, such as seatrial/kernel")
	if strings.ContainsAny(s.Kernel.Cmdline, "\r\n") {
		d.problem("kernel.cmdline", "holds a line break", "write it in one line; the YAML form >- folds lines into one")
	}
	if n := len(ParseCmdline(s.Kernel.Cmdline).String()); n > maxCmdline {
		d.problem("kernel.cmdline", fmt.Sprintf("has %d bytes, and the kernel cuts off what is beyond %d", n, maxCmdline), "shorten it, or move settings into a file of the image")
	}
	for i, ref := range s.Init {
		d.reference(fmt.Sprintf("init[%d]", i), ref, "name an image")
	}
	for _, list := range []struct {
		key    string
		items  []Container
		unique bool
	}{{"onboot", s.Onboot, false}, {"onshutdown", s.Onshutdown, false}, {"services", s.Services, true}} {
		first := map[string]int{}
		for i, c := range list.items {
			at := fmt.Sprintf("%s[%d]", list.key, i)
			d.container(at, c, list.key == "services")
			if j, twice := first[c.Name]; twice && list.unique && c.Name != "" {
				d.problem(at+".name", fmt.Sprintf("the service name %q is already used by services[%d]", c.Name, j), "give each service a name of its own")
			} else {
				first[c.Name] = i
			}
		}
		if len(list.items) > 1000 {
			d.problem(list.key, fmt.Sprintf("%d containers", len(list.items)), "1000 is the limit: bundles are numbered with three digits")
		}
	}
	for i, f := range s.Files {
		d.checkFile(fmt.Sprintf("files[%d]", i), f)
	}
	d.checkVolumes(s)
	d.checkNames(s)
}

// checkNames notes ids and volumes that are named and not there.
func (d *decoder) checkNames(s *Spec) {
	ids, volumes := s.ids(), s.volumes()
	s.eachID(func(at string, id *ID) {
		if _, err := id.number(ids); err != nil {
			text, hint := split(err, "")
			d.problem(at, text, hint)
		}
	})
	for _, l := range s.lists() {
		for i, c := range l.items {
			at := fmt.Sprintf("%s[%d]", l.kind, i)
			c.eachMount(func(key string, m specs.Mount) {
				if _, err := fromVolume(m, volumes); err != nil {
					text, hint := split(err, "")
					d.problem(at+"."+key, text, hint)
				}
			})
		}
	}
}

// eachID calls f for every id, with its place.
func (s *Spec) eachID(f func(at string, id *ID)) {
	for _, l := range s.lists() {
		for i, c := range l.items {
			at := fmt.Sprintf("%s[%d]", l.kind, i)
			f(at+".uid", c.UID)
			f(at+".gid", c.GID)
			for j := range c.AdditionalGids {
				f(fmt.Sprintf("%s.additionalGids[%d]", at, j), &c.AdditionalGids[j])
			}
		}
	}
	for i := range s.Files {
		f(fmt.Sprintf("files[%d].uid", i), &s.Files[i].UID)
		f(fmt.Sprintf("files[%d].gid", i), &s.Files[i].GID)
	}
}

// eachMount calls f for each sound mount of the settings, in the order in which
// later ones take the place of earlier ones.
func (s Settings) eachMount(f func(key string, m specs.Mount)) {
	for _, l := range []struct {
		key   string
		items []string
		of    func(string) (specs.Mount, error)
	}{{"tmpfs", s.Tmpfs, parseTmpfs}, {"binds", s.Binds, parseBind}, {"binds.add", s.BindsAdd, parseBind}} {
		for i, text := range l.items {
			if m, err := l.of(text); err == nil {
				f(fmt.Sprintf("%s[%d]", l.key, i), m)
			}
		}
	}
	for i, m := range s.Mounts {
		if m, err := m.complete(); err == nil {
			f(fmt.Sprintf("mounts[%d]", i), m)
		}
	}
}

func (d *decoder) reference(at, ref, hint string) {
	if d.bad(at) {
		return
	}
	if ref == "" {
		d.problem(at, "is missing", hint)
	} else if ref != strings.TrimSpace(ref) {
		d.problem(at, fmt.Sprintf("%q begins or ends with a blank", ref), "remove the blank")
	} else if _, err := name.ParseReference(ref); err != nil {
		d.problem(at, fmt.Sprintf("%q is not an image reference", ref), "write it as NAME, NAME:TAG or NAME@sha256:DIGEST, in lower case")
	}
}

func (d *decoder) container(at string, c Container, service bool) {
	d.reference(at+".image", c.Image, "name the image the container is made of")
	switch {
	case d.bad(at + ".name"):
	case c.Name == "":
		d.problem(at+".name", "is missing", "name the container; its bundle and its log files are called so")
	case !containerName.MatchString(c.Name) || len(c.Name) > maxName:
		d.problem(at+".name", fmt.Sprintf("%q cannot name a container", c.Name), fmt.Sprintf("use letters and digits with single . _ - between them, %d at most", maxName))
	}
	c.check(func(key, text, hint string) { d.unless(at+"."+key, text, hint) })
	if c.Runtime != nil && c.Runtime.Namespace != nil && !service {
		d.problem(at+".runtime.namespace", "has no effect here", "only services are run by containerd: remove it")
	}
}

// check notes what is wrong with settings, of the YAML or of a label.
func (s Settings) check(problem func(key, text, hint string)) {
	each := func(key string, list []string, check func(string) error) {
		for i, v := range list {
			if err := check(v); err != nil {
				text, hint := split(err, "")
				problem(fmt.Sprintf("%s[%d]", key, i), text, hint)
			}
		}
	}
	each("env", s.Env, func(v string) error {
		if k, _, ok := strings.Cut(v, "="); !ok || k == "" {
			return advisedf("write it so; NAME= gives an empty value", "%q is not of the form NAME=VALUE", v)
		}
		return nil
	})
	for _, l := range []struct {
		key  string
		caps []string
	}{{"capabilities", s.Capabilities}, {"capabilities.add", s.CapabilitiesAdd}, {"ambient", s.Ambient}} {
		if _, err := capabilityList(l.caps); err != nil {
			text, hint := split(err, "")
			problem(l.key, text, hint)
		}
	}
	bind := func(v string) error { _, err := parseBind(v); return err }
	each("binds", s.Binds, bind)
	each("binds.add", s.BindsAdd, bind)
	each("tmpfs", s.Tmpfs, func(v string) error { _, err := parseTmpfs(v); return err })
	each("rlimits", s.Rlimits, func(v string) error { _, err := parseRlimit(v); return err })
	for i, m := range s.Mounts {
		if _, err := m.complete(); err != nil {
			text, hint := split(err, "")
			problem(fmt.Sprintf("mounts[%d]", i), text, hint)
		}
	}
	for i, v := range s.Devices {
		if err := v.check(); err != nil {
			text, hint := split(err, "")
			problem(fmt.Sprintf("devices[%d]", i), text, hint)
		}
		if v.Path != "all" && v.Type != "p" {
			deviceNumber(fmt.Sprintf("devices[%d]", i), v.Major, v.Minor, problem)
		}
	}
	if len(s.Command) > 0 && s.Command[0] == "" {
		problem("command[0]", "is empty", "name the program to start")
	}
	s.checkScalars(problem)
}

// deviceNumber notes numbers that no device has: the kernel's dev_t has 12 bits
// for the major and 20 for the minor number (include/linux/kdev_t.h).
func deviceNumber(at string, major, minor int64, problem func(key, text, hint string)) {
	for _, n := range []struct {
		key        string
		value, max int64
	}{{"major", major, 1<<12 - 1}, {"minor", minor, 1<<20 - 1}} {
		if n.value < 0 || n.value > n.max {
			problem(at+"."+n.key, fmt.Sprintf("%d is out of range", n.value), fmt.Sprintf("0 to %d is what the kernel takes", n.max))
		}
	}
}

func (s Settings) checkScalars(problem func(key, text, hint string)) {
	for _, ns := range []struct {
		key   string
		value *string
	}{{"net", s.Net}, {"ipc", s.IPC}, {"uts", s.UTS}, {"pid", s.PID}, {"userns", s.Userns}} {
		if v := str(ns.value); v != "" && !slices.Contains([]string{"host", "root", "new"}, v) && (v != "none" || ns.key != "net") && !path.IsAbs(v) {
			problem(ns.key, fmt.Sprintf("%q is not a namespace", v), "write host, new (net also none) or the absolute path of a namespace file")
		}
	}
	if v := str(s.Cwd); v != "" && !path.IsAbs(v) {
		problem("cwd", fmt.Sprintf("%q is not absolute", v), "write the path from /")
	}
	if v := s.OOMScoreAdj; v != nil && (*v < -1000 || *v > 1000) {
		problem("oomScoreAdj", fmt.Sprintf("%d is out of range", *v), "-1000 to 1000 is what the kernel takes")
	}
	if v := str(s.RootfsPropagation); v != "" && !slices.Contains([]string{"private", "shared", "slave", "unbindable", "rprivate", "rshared", "rslave", "runbindable"}, v) {
		problem("rootfsPropagation", fmt.Sprintf("%q is not a propagation mode", v), "write private, shared, slave or unbindable, with or without r before it")
	}
	if v := str(s.Hostname); len(v) > maxHostname {
		problem("hostname", fmt.Sprintf("has %d bytes, and the kernel takes %d", len(v), maxHostname), "shorten it")
	}
	if v := str(s.CgroupsPath); v != "" {
		if _, err := cleanName(v); err != nil {
			problem("cgroupsPath", err.Error(), "write the path below the root of the hierarchy")
		}
	}
	checkMappings("uidMappings", s.UIDMappings, problem)
	checkMappings("gidMappings", s.GIDMappings, problem)
	for i, m := range s.Mounts {
		checkMappings(fmt.Sprintf("mounts[%d].uidMappings", i), m.UIDMappings, problem)
		checkMappings(fmt.Sprintf("mounts[%d].gidMappings", i), m.GIDMappings, problem)
	}
	s.Resources.check(problem)
	s.Runtime.check(problem)
}

func (r *Runtime) check(problem func(key, text, hint string)) {
	if r == nil {
		return
	}
	for i, m := range r.Mounts {
		if m.Destination == "" {
			problem(fmt.Sprintf("runtime.mounts[%d]", i), "has no destination", "say where it is mounted")
		}
	}
	if ns := str(r.Namespace); ns != "" && !containerName.MatchString(ns) {
		problem("runtime.namespace", fmt.Sprintf("%q cannot name a namespace of containerd", ns), "use letters and digits with single . _ - between them")
	}
	first := map[string]string{}
	for i, n := range r.Interfaces {
		at := fmt.Sprintf("runtime.interfaces[%d]", i)
		for _, end := range []struct{ key, name string }{{"name", n.Name}, {"peer", str(n.Peer)}} {
			// The peers are all outside, the others all inside of the container.
			if before, twice := first[end.key+" "+end.name]; twice && end.name != "" {
				problem(at+"."+end.key, fmt.Sprintf("%q is that of %s already", end.name, before), "give each interface a name of its own")
			} else {
				first[end.key+" "+end.name] = at
			}
		}
		if n.Name == "" {
			problem(at+".name", "is missing", "name the interface")
		}
		for key, name := range map[string]string{"name": n.Name, "peer": str(n.Peer)} {
			if name != "" && !isInterface(name) {
				problem(at+"."+key, fmt.Sprintf("%q cannot name an interface", name), fmt.Sprintf("the kernel takes 1 to %d bytes without blanks, slashes and colons, and neither . nor ..", maxInterface))
			}
		}
		if str(n.Add) == "veth" && str(n.Peer) == "" {
			problem(at+".peer", "is missing", "a veth is a pair: name the end that stays outside")
		}
		if str(n.Peer) != "" && str(n.Add) != "veth" && str(n.Add) != "" {
			problem(at+".peer", fmt.Sprintf("an interface of kind %s has none", str(n.Add)), "remove it, or write add: veth")
		}
	}
	for i, c := range r.Cgroups {
		if _, err := cleanName(c); err != nil {
			problem(fmt.Sprintf("runtime.cgroups[%d]", i), err.Error(), "write the path below the root of the hierarchy")
		}
	}
	if b := r.BindNS; b != nil {
		for _, f := range b.paths() {
			if v := str(f.path); v != "" && !path.IsAbs(v) {
				problem("runtime.bindNS."+f.kind, fmt.Sprintf("%q is not absolute", v), "write the path from /, such as /run/netns/web")
			}
		}
	}
}

// maxHostname is __NEW_UTS_LEN (include/uapi/linux/utsname.h).
const maxHostname = 64

// maxInterface is IFNAMSIZ-1 (include/uapi/linux/if.h).
const maxInterface = 15

// isInterface is dev_valid_name (net/core/dev.c).
func isInterface(name string) bool {
	return name != "" && len(name) <= maxInterface && name != "." && name != ".." && !strings.ContainsAny(name, "/: \t\n\v\f\r\x00")
}

// nsPath is a namespace's kind and where it is bound.
type nsPath struct {
	kind string
	path *string
}

func (b *BindNS) paths() []nsPath {
	return []nsPath{{"cgroup", b.Cgroup}, {"ipc", b.IPC}, {"mnt", b.Mnt}, {"net", b.Net}, {"pid", b.PID}, {"user", b.User}, {"uts", b.UTS}}
}

// checkFile checks an item of files.
func (d *decoder) checkFile(at string, f File) {
	inside, err := cleanName(f.Path)
	switch {
	case d.bad(at + ".path"):
	case f.Path == "":
		d.problem(at+".path", "is missing", "say where the file goes")
	case err != nil:
		d.problem(at+".path", err.Error(), "write the path from /")
	case inside == "" && !f.Directory:
		d.problem(at+".path", "the root cannot be a file", "name a file below /")
	}
	var kinds []string
	for _, k := range []struct {
		name string
		set  bool
	}{{"contents", f.Contents != nil}, {"source", f.Source != ""}, {"directory", f.Directory}, {"symlink", f.Symlink != ""}, {"metadata", f.Metadata != ""}} {
		if k.set {
			kinds = append(kinds, k.name)
		}
	}
	switch {
	case len(kinds) == 0 && !d.bad(at) && !slices.ContainsFunc(d.problems, func(p Problem) bool { return strings.HasPrefix(p.Field, at+".") }):
		d.problem(at, fmt.Sprintf("%s has no content", f.Path), `give it one of contents, source, directory: true, symlink or metadata; contents: "" makes an empty file`)
	case len(kinds) > 1:
		d.problem(at, fmt.Sprintf("%s is given as %s", f.Path, strings.Join(kinds, " and ")), "keep one of them")
	}
	if f.Metadata != "" && f.Metadata != "yaml" && f.Metadata != "json" {
		d.problem(at+".metadata", fmt.Sprintf("%q is no format", f.Metadata), "write yaml or json")
	}
	if f.Optional && f.Source == "" {
		d.problem(at+".optional", "has no effect without source", "remove it")
	}
	if _, err := parseMode(f.Mode, 0); err != nil && !d.bad(at+".mode") {
		d.problem(at+".mode", err.Error(), `write it in octal and quoted, such as "0644"`)
	}
}

// parseMode reads an octal file mode, permission and set-id bits only.
func parseMode(mode string, otherwise uint32) (uint32, error) {
	if mode == "" {
		return otherwise, nil
	}
	m, err := strconv.ParseUint(strings.TrimPrefix(mode, "0o"), 8, 32)
	if err != nil || m > 0o7777 {
		return 0, fmt.Errorf("%q is not a file mode", mode)
	}
	return uint32(m), nil
}

func itoa(i int) string { return strconv.Itoa(i) }

func quoted(s string) string { return strconv.Quote(s) }

// str is the string a pointer points to; empty for nil.
func str(p *string) string {
	if p == nil {
		return ""
	}
	return *p
}

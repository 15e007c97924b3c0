package images

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// maxID is the largest id: the kernel takes the number above it for "leave it as
// it is", so that who asks for it would stay root.
const maxID = math.MaxUint32 - 1

// maxMappings is UID_GID_MAP_MAX_EXTENTS (include/linux/user_namespace.h).
const maxMappings = 340

// checkMappings notes what the kernel does not take as a map of ids
// (map_write in kernel/user_namespace.c).
func checkMappings(key string, list []IDMapping, problem func(key, text, hint string)) {
	if len(list) > maxMappings {
		problem(key, fmt.Sprintf("has %d mappings, and the kernel takes %d", len(list), maxMappings), "join neighbours")
		return
	}
	for i, m := range list {
		at := fmt.Sprintf("%s[%d]", key, i)
		if m.Size == 0 {
			problem(at+".size", "maps nothing", "write how many ids are mapped, such as 65536")
			continue
		}
		for _, side := range []struct {
			key   string
			first func(IDMapping) uint32
		}{{"containerID", func(m IDMapping) uint32 { return m.ContainerID }}, {"hostID", func(m IDMapping) uint32 { return m.HostID }}} {
			first := uint64(side.first(m))
			if last := first + uint64(m.Size) - 1; last > maxID {
				problem(at+".size", fmt.Sprintf("%d ids from %s %d on end at %d, and the last id is %d", m.Size, side.key, first, last, uint64(maxID)), "lower one of them")
				continue
			}
			if j := slices.IndexFunc(list[:i], func(o IDMapping) bool {
				from := uint64(side.first(o))
				return first < from+uint64(o.Size) && from < first+uint64(m.Size)
			}); j >= 0 {
				problem(at, fmt.Sprintf("maps a %s that %s[%d] maps already", side.key, key, j), "let each id be in one mapping only")
			}
		}
	}
}

// mapped reports whether an id of a container is mapped.
func mapped(list []IDMapping, id uint32) bool {
	return slices.ContainsFunc(list, func(m IDMapping) bool {
		return id >= m.ContainerID && uint64(id) < uint64(m.ContainerID)+uint64(m.Size)
	})
}

// checkUserns notes what a container does not start with in a user namespace of
// its own: ids that are not mapped, of which runtimes need 0 to set it up, and
// file systems of namespaces that the user namespace does not own.
func (s Settings) checkUserns(known names, problem func(key, text, hint string)) {
	isNew := str(s.Userns) == "new"
	if n := len(s.UIDMappings) + len(s.GIDMappings); isNew != (n > 0) || isNew && len(s.UIDMappings)*len(s.GIDMappings) == 0 {
		problem("userns", mappingsText(s), "a new user namespace needs uidMappings and gidMappings, and only a new one takes them")
		return
	}
	if !isNew {
		return
	}
	for _, l := range []struct {
		key, id string
		list    []IDMapping
		own     *ID
	}{{"uidMappings", "uid", s.UIDMappings, s.UID}, {"gidMappings", "gid", s.GIDMappings, s.GID}} {
		if !mapped(l.list, 0) {
			problem(l.key, "does not map the container's id 0, which sets the container up", "add a mapping with containerID: 0")
			continue
		}
		checkMapped(l.id, l.key, l.list, l.own, known, problem)
	}
	for i := range s.AdditionalGids {
		checkMapped(fmt.Sprintf("additionalGids[%d]", i), "gidMappings", s.GIDMappings, &s.AdditionalGids[i], known, problem)
	}
	s.checkOwned(known, problem)
}

func mappingsText(s Settings) string {
	userns, uids, gids := cmp.Or(str(s.Userns), "host"), len(s.UIDMappings), len(s.GIDMappings)
	if uids > 0 == (gids > 0) {
		return fmt.Sprintf("is %q with %d mappings", userns, uids+gids)
	}
	return fmt.Sprintf("is %q with %d mappings of users and %d of groups", userns, uids, gids)
}

func checkMapped(key, mappings string, list []IDMapping, id *ID, known names, problem func(key, text, hint string)) {
	if n, err := id.number(known.ids); err == nil && !mapped(list, n) {
		problem(key, fmt.Sprintf("%d is not mapped in the container's user namespace", n), "map it in "+mappings+", or choose an id that is mapped")
	}
}

// checkOwned notes mounts that the kernel allows only to who owns the namespace
// that they show (sysfs_init_fs_context, proc_init_fs_context, mqueue).
func (s Settings) checkOwned(known names, problem func(key, text, hint string)) {
	mounts, err := ociMounts(s, known.volumes)
	if err != nil {
		return // told where the mount is
	}
	for _, m := range mounts {
		for _, of := range []struct {
			kind, key string
			shared    bool
		}{
			{"sysfs", "net", sharesHost(s.Net)},
			{"proc", "pid", slices.Contains([]string{"host", "root"}, str(s.PID))},
			{"mqueue", "ipc", sharesHost(s.IPC)},
		} {
			if m.Type == of.kind && of.shared {
				problem("userns", fmt.Sprintf("is new, and does not own the host's %s namespace that the %s on %s shows", of.key, of.kind, m.Destination),
					fmt.Sprintf("add %s: new, or put a bind of the machine's own in its place: %s:%s", of.key, m.Destination, m.Destination))
			}
		}
	}
}

// ipcSysctl are the parameters of an IPC namespace (ipc/ipc_sysctl.c); those of
// message queues begin with fs.mqueue.
var ipcSysctl = []string{"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced"}

// checkSysctl notes parameters that runtimes refuse to set: those of the machine,
// and those of a namespace that is not the container's.
func (s Settings) checkSysctl(problem func(key, text, hint string)) {
	for _, key := range slices.Sorted(maps.Keys(s.Sysctl)) {
		at, name := "sysctl."+key, strings.ReplaceAll(key, "/", ".")
		of := func(ns string, value *string) {
			if sharesHost(value) {
				problem(at, fmt.Sprintf("belongs to the %s namespace, which is the host's", ns), fmt.Sprintf("add %s: new, or set it for the machine with seatrial/sysctl", ns))
			}
		}
		switch {
		case strings.HasPrefix(name, "net."):
			of("net", s.Net)
		case strings.HasPrefix(name, "fs.mqueue.") || slices.Contains(ipcSysctl, name):
			of("ipc", s.IPC)
		case name == "kernel.domainname":
			of("uts", s.UTS)
		case name == "kernel.hostname":
			problem(at, "is not taken by runtimes", "write hostname, with uts: new")
		default:
			problem(at, "is of the whole machine, and no container's", "set it for the machine with seatrial/sysctl")
		}
	}
}

// ambiguous names ids that are written as the name of several containers.
func (l *linter) ambiguous() {
	of := map[string][]string{}
	for _, list := range l.spec.lists() {
		for i, c := range list.items {
			of[c.Name] = append(of[c.Name], fmt.Sprintf("%s[%d]", list.kind, i))
		}
	}
	ids := l.spec.ids()
	check := func(at string, id *ID) {
		if id != nil && id.Name != "" && len(of[id.Name]) > 1 {
			l.warn(at, fmt.Sprintf("%q is the name of %s, and the id of the last one is taken: %d", id.Name, strings.Join(of[id.Name], " and "), ids[id.Name]), "give them names of their own, or write the number")
		}
	}
	l.spec.eachID(check)
}

// bound names files on which several containers bind a namespace: the last one
// hides the others, and who joins it later joins that.
func (l *linter) bound() {
	first := map[string]string{}
	for _, list := range l.spec.lists() {
		for i, c := range list.items {
			if c.Runtime == nil || c.Runtime.BindNS == nil {
				continue
			}
			for _, f := range c.Runtime.BindNS.paths() {
				at := fmt.Sprintf("%s[%d].runtime.bindNS.%s", list.kind, i, f.kind)
				if str(f.path) == "" {
					continue
				}
				if before, twice := first[*f.path]; twice {
					l.warn(at, fmt.Sprintf("%s is where %s is bound too, which this hides", *f.path, before), "bind each on a file of its own")
				}
				first[*f.path] = at
			}
		}
	}
}

// inert names ambient capabilities that a process does not get: the kernel wants
// them among its others (prctl(2), PR_CAP_AMBIENT_RAISE).
func inert(s Settings) []string {
	caps, err := capabilityList(s.Capabilities)
	ambient, err2 := capabilityList(s.Ambient)
	if err != nil || err2 != nil {
		return nil
	}
	return slices.DeleteFunc(ambient, func(c string) bool { return slices.Contains(caps, c) })
}

func inertText(list []string) string {
	return strings.Join(list, ", ") + " is not among capabilities: the process does not get it"
}

// absentBinds names binds of what the machine does not have: its root is
// read-only, so nothing makes it later but where something else is mounted. That
// may be below any folder that a container binds, as mounts are shared.
func (l *imageLinter) absentBinds() {
	bound := map[string]bool{}
	for _, settings := range l.a.made {
		settings.eachMount(func(_ string, m specs.Mount) { bound[path.Clean(m.Source)] = true })
	}
	below := func(source string) bool {
		for dir := path.Dir(path.Clean(source)); dir != "/"; dir = path.Dir(dir) {
			if bound[dir] {
				return true
			}
		}
		return false
	}
	for _, list := range l.spec.lists() {
		for i, c := range list.items {
			at := fmt.Sprintf("%s[%d]", list.kind, i)
			place := mountedAt(at, c.Settings)
			l.a.made[at].eachMount(func(_ string, m specs.Mount) {
				if m.Type != "bind" || !strings.HasPrefix(m.Source, "/") || below(m.Source) || l.appears(m.Source) {
					return
				}
				l.warn(place(m.Destination), fmt.Sprintf("%s is not in the images of init and files, so the container does not start", m.Source), "add it to files, or bind something else")
			})
		}
	}
}

// appears reports whether a path is in the root, or may be once the machine runs.
func (l *imageLinter) appears(source string) bool {
	for range maxLinks {
		source = path.Clean(source)
		if slices.ContainsFunc(append([]string{"/containers"}, hidden...), func(dir string) bool { return under(dir, source) }) || l.a.root.resolve(source) != nil {
			return true
		}
		link, rest := l.firstLink(source)
		if link == "" {
			return false
		}
		source = path.Join(link, rest)
	}
	return false
}

// firstLink is where the first symbolic link of a path leads, and what follows it.
func (l *imageLinter) firstLink(source string) (to, rest string) {
	for i := 1; i <= len(source); i++ {
		if i < len(source) && source[i] != '/' {
			continue
		}
		e := l.a.root.find(source[:i])
		switch {
		case e == nil:
			return "", ""
		case e.is(typeSymlink) && path.IsAbs(e.target):
			return e.target, source[i:]
		case e.is(typeSymlink):
			return path.Join(path.Dir(source[:i]), e.target), source[i:]
		}
	}
	return "", ""
}

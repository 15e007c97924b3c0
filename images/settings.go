package images

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// label is where an image says how its container is to be set up.
const label = "org.mobyproject.config"

// capabilityNames are the kernel's, by number (include/uapi/linux/capability.h).
var capabilityNames = strings.Fields(`
	CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP
	LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK
	IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN
	SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE
	AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM
	BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE`)

// rlimitNames are the limits setrlimit(2) knows.
var rlimitNames = strings.Fields(`AS CORE CPU DATA FSIZE LOCKS MEMLOCK MSGQUEUE
	NICE NOFILE NPROC RSS RTPRIO RTTIME SIGPENDING STACK`)

// capabilityList expands and checks a list of capabilities.
func capabilityList(caps []string) ([]string, error) {
	if len(caps) == 1 {
		switch strings.ToLower(caps[0]) {
		case "none":
			return []string{}, nil
		case "all":
			all := make([]string, 0, len(capabilityNames))
			for _, c := range capabilityNames {
				all = append(all, "CAP_"+c)
			}
			return all, nil
		}
	}
	for _, c := range caps {
		short, ok := strings.CutPrefix(c, "CAP_")
		name := "CAP_" + strings.TrimPrefix(strings.ToUpper(c), "CAP_")
		switch {
		case ok && slices.Contains(capabilityNames, short):
		case name == "CAP_ALL" || name == "CAP_NONE":
			return nil, advisedf("keep it alone, or remove it", "%q stands beside others", c)
		case slices.Contains(capabilityNames, name[len("CAP_"):]):
			return nil, advisedf("write "+name, "unknown capability %q", c)
		default:
			return nil, advisedf("write the full name, such as CAP_NET_ADMIN, or a single all or none", "unknown capability %q", c)
		}
	}
	return caps, nil
}

// parseBind reads "source:destination[:options]". Options replace the default
// rw,rshared; rbind is always among them. The source may be a volume's name.
func parseBind(bind string) (specs.Mount, error) {
	parts := strings.Split(bind, ":")
	if len(parts) < 2 || len(parts) > 3 {
		return specs.Mount{}, advisedf("write it so, such as /var/data:/data:ro", "%q is not of the form SOURCE:DESTINATION[:OPTIONS]", bind)
	}
	if !path.IsAbs(parts[0]) && !volumeName.MatchString(parts[0]) {
		return specs.Mount{}, advisedf("write the path from /, or the name of one of volumes", "the source of %q is neither an absolute path nor the name of a volume", bind)
	}
	if !path.IsAbs(parts[1]) {
		return specs.Mount{}, advisedf("write the path from /", "the destination of %q is not an absolute path", bind)
	}
	m := specs.Mount{Destination: parts[1], Type: "bind", Source: parts[0], Options: []string{"rw", "rbind", "rshared"}}
	if len(parts) == 3 {
		m.Options = append(strings.Split(parts[2], ","), "rbind")
	}
	return m, nil
}

// parseTmpfs reads "destination[:options]".
func parseTmpfs(tmpfs string) (specs.Mount, error) {
	destination, options, has := strings.Cut(tmpfs, ":")
	if !path.IsAbs(destination) || strings.Contains(options, ":") {
		return specs.Mount{}, advisedf("write it so, such as /tmp:size=64m,nosuid", "%q is not of the form /DESTINATION[:OPTIONS]", tmpfs)
	}
	m := specs.Mount{Destination: destination, Type: "tmpfs", Source: "tmpfs"}
	if has {
		m.Options = strings.Split(options, ",")
	}
	return m, nil
}

// parseRlimit reads "name,soft,hard".
func parseRlimit(limit string) (specs.POSIXRlimit, error) {
	parts := strings.Split(limit, ",")
	if len(parts) != 3 {
		return specs.POSIXRlimit{}, advisedf("write it so, such as nofile,1024,4096", "%q is not of the form NAME,SOFT,HARD", limit)
	}
	short := strings.TrimPrefix(strings.ToUpper(strings.TrimSpace(parts[0])), "RLIMIT_")
	if !slices.Contains(rlimitNames, short) {
		return specs.POSIXRlimit{}, advisedf(didYouMean(short, rlimitNames), "%q names no limit", limit)
	}
	var values [2]uint64
	for i, text := range parts[1:] {
		text = strings.TrimSpace(text)
		if strings.EqualFold(text, "unlimited") {
			values[i] = 1<<64 - 1 // RLIM_INFINITY
			continue
		}
		var err error
		if values[i], err = strconv.ParseUint(text, 10, 64); err != nil {
			return specs.POSIXRlimit{}, advisedf("write a number, or unlimited", "%q: %q is neither a number nor unlimited", limit, text)
		}
	}
	if values[0] > values[1] {
		return specs.POSIXRlimit{}, advisedf("raise the hard limit or lower the soft one", "%q: the soft limit is above the hard one", limit)
	}
	return specs.POSIXRlimit{Type: "RLIMIT_" + short, Soft: values[0], Hard: values[1]}, nil
}

// complete fills in what a mount may leave out.
func (m Mount) complete() (specs.Mount, error) {
	places := map[string]string{"proc": "/proc", "devpts": "/dev/pts", "sysfs": "/sys", "cgroup": "/sys/fs/cgroup", "mqueue": "/dev/mqueue"}
	kind := m.Type
	if _, known := places[m.Source]; kind == "" && known {
		kind = m.Source
	}
	if kind == "" && m.Destination == "/dev" {
		kind = "tmpfs"
	}
	if kind == "" {
		return specs.Mount{}, advisedf("write one, such as tmpfs or bind", "the mount on %q has no type", m.Destination)
	}
	out := specs.Mount{Destination: cmp.Or(m.Destination, places[kind]), Type: kind, Source: cmp.Or(m.Source, kind), Options: m.Options}
	out.UIDMappings, out.GIDMappings = ociMappings(m.UIDMappings), ociMappings(m.GIDMappings)
	if !path.IsAbs(out.Destination) {
		return specs.Mount{}, advisedf("write where it is mounted, from /", "the mount of type %s has no absolute destination", kind)
	}
	return out, nil
}

func ociMappings(list []IDMapping) (out []specs.LinuxIDMapping) {
	for _, m := range list {
		out = append(out, specs.LinuxIDMapping(m))
	}
	return out
}

func (v Device) check() error {
	if !slices.Contains([]string{"b", "c", "u", "p"}, v.Type) {
		return advisedf("write b for block, c for character devices, p for a FIFO", "the type %q of device %q is none of b, c, u, p", v.Type, v.Path)
	}
	if v.Path == "all" {
		return nil
	}
	if !path.IsAbs(v.Path) {
		return advisedf("write the path from /, or all for the right to the whole type", `the path %q of a device must be absolute, or "all"`, v.Path)
	}
	if _, err := parseMode(v.Mode, 0); err != nil || v.Mode == "" {
		return advisedf(`write it in octal and quoted, such as mode: "0600"`, "device %s needs a mode", v.Path)
	}
	return nil
}

// labelSettings are the settings in an image's label, if it has one.
func labelSettings(ref string, config v1.Config) (Settings, []Problem) {
	text := config.Labels[label]
	if text == "" {
		return Settings{}, nil
	}
	var s Settings
	d := &decoder{file: "image " + ref + ", label " + label, at: map[string]place{}}
	if !json.Valid([]byte(text)) {
		d.problem("", "is not JSON", "make the image anew with a label that is")
	} else if root := d.parse([]byte(text)); root != nil { // JSON is YAML
		d.decodeStruct(root, &s)
		s.check(d.unless)
	}
	return s, d.sorted()
}

// settings are what a container is made with: what the label of its image says,
// and the YAML over that. What is wrong with a label is told once, and false
// returned for every container that has it.
func (a *assembly) settings(at string, c Container, img *component) (Settings, bool) {
	of, done := a.labels[img.digest]
	if !done {
		s, wrong := labelSettings(c.Image, img.config)
		for _, p := range wrong {
			hint := p.Hint
			p.Hint = ""
			a.faults.problem(at+".image", p.String(), hint)
		}
		if len(wrong) == 0 {
			of = &s
		}
		a.labels[img.digest] = of
	}
	if of == nil {
		return Settings{}, false
	}
	s, before := c.over(*of), len(a.faults.problems)
	s.checkWhole(c.Image, img.config, a.spec.names(), func(key, text, hint string) {
		if _, given := a.spec.at[at+"."+key]; !given && of.has(key) {
			a.faults.problem(at+".image", ofLabel(c.Image, key, text), hint)
			return
		}
		a.faults.problem(at+"."+key, text, hint)
	})
	return s, len(a.faults.problems) == before
}

// ofLabel is what is wrong with the value at a key of an image's label.
func ofLabel(ref, key, text string) string {
	return fmt.Sprintf("image %s, label %s: %s: %s", ref, label, key, text)
}

// has reports whether there is a value at a key, such as "binds[0]".
func (s Settings) has(key string) bool {
	v := reflect.ValueOf(s)
	name, _, _ := strings.Cut(key, "[")
	for _, f := range taggedFields(v.Type()) {
		if spelled, _, _ := strings.Cut(f.Tag.Get("yaml"), ","); spelled == name || spelled == "sysctl" && strings.HasPrefix(name, "sysctl.") {
			return !v.FieldByIndex(f.Index).IsNil()
		}
	}
	return false
}

// checkWhole notes what only shows when image, label and YAML are together.
func (s Settings) checkWhole(ref string, image v1.Config, known names, problem func(key, text, hint string)) {
	if len(s.command(image)) == 0 {
		problem("command", fmt.Sprintf("neither the YAML nor the image %s has one", ref), "add one, such as command: [/bin/sh]")
	}
	if str(s.Hostname) != "" && sharesHost(s.UTS) {
		problem("hostname", fmt.Sprintf("%q needs a namespace of its own", *s.Hostname), "add uts: new, or remove the hostname")
	}
	if dir := s.cwd(image); !path.IsAbs(dir) {
		problem("cwd", fmt.Sprintf("is not given, and the working directory %q of image %s is not absolute", dir, ref), "add cwd with the path from /")
	}
	if _, err := capabilityList(s.Capabilities); err != nil {
		problem("capabilities.add", fmt.Sprintf("makes %s with the label of image %s, but all and none stand alone", strings.Join(s.Capabilities, ", "), ref), "remove it, or write capabilities, which replaces the label's")
	}
	s.checkUserns(known, problem)
	s.checkSysctl(problem)
	ids := map[string]*ID{"uid": s.UID, "gid": s.GID}
	for i := range s.AdditionalGids {
		ids[fmt.Sprintf("additionalGids[%d]", i)] = &s.AdditionalGids[i]
	}
	for _, key := range slices.Sorted(maps.Keys(ids)) {
		if _, err := ids[key].number(known.ids); err != nil {
			text, hint := split(err, "")
			problem(key, text, hint)
		}
	}
	s.eachMount(func(key string, m specs.Mount) {
		if _, err := fromVolume(m, known.volumes); err != nil {
			text, hint := split(err, "")
			problem(key, text, hint)
		}
	})
}

// over returns base with the fields that are present in s replaced; lists
// named "add" are united with the base's. Fields of runtime replace one by one.
func (s Settings) over(base Settings) Settings {
	base.Capabilities = union(base.Capabilities, base.CapabilitiesAdd, s.CapabilitiesAdd)
	base.Binds = union(base.Binds, base.BindsAdd, s.BindsAdd)
	if base.Runtime != nil && s.Runtime != nil {
		merged := *base.Runtime
		replace(&merged, *s.Runtime)
		s.Runtime = &merged
	}
	for _, p := range []**string{&s.Cwd, &s.Net, &s.IPC, &s.UTS, &s.PID, &s.Userns} {
		if str(*p) == "" {
			*p = nil // these have no empty value to replace anything with
		}
	}
	replace(&base, s)
	base.CapabilitiesAdd, base.BindsAdd = nil, nil
	return base
}

// replace sets the fields of the struct that base points to from those of over
// that are not nil. All fields of both are pointers, slices or maps.
func replace[T any](base *T, over T) {
	to, from := reflect.ValueOf(base).Elem(), reflect.ValueOf(over)
	for i := range from.NumField() {
		if from.Type().Field(i).Name != "_" && !from.Field(i).IsNil() {
			to.Field(i).Set(from.Field(i))
		}
	}
}

// union returns the lists behind one another, each value once; nil if all are nil.
func union(lists ...[]string) []string {
	var out []string
	seen := map[string]bool{}
	for _, list := range lists {
		if list != nil && out == nil {
			out = []string{}
		}
		for _, v := range list {
			if !seen[v] {
				out = append(out, v)
			}
			seen[v] = true
		}
	}
	return out
}

// sortedMounts is the mounts by destination, so that /dev comes before /dev/pts.
func sortedMounts(mounts map[string]specs.Mount) []specs.Mount {
	return slices.SortedFunc(maps.Values(mounts), func(a, b specs.Mount) int { return cmp.Compare(a.Destination, b.Destination) })
}

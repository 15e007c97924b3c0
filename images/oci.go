package images

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// names are what settings may refer to by name.
type names struct {
	ids     map[string]uint32
	volumes map[string]Volume
}

// names are those of the spec.
func (s *Spec) names() names { return names{s.ids(), s.volumes()} }

// command is what a container runs, and cwd where: what the settings or else the
// image say.
func (s Settings) command(image v1.Config) []string {
	if s.Command != nil {
		return s.Command
	}
	return slices.Concat(image.Entrypoint, image.Cmd)
}

func (s Settings) cwd(image v1.Config) string { return cmp.Or(str(s.Cwd), image.WorkingDir, "/") }

// ociConfig is the config.json of a container: what the image says, then its
// label, then the YAML.
func ociConfig(s Settings, image v1.Config, known names) (*specs.Spec, error) {
	env := s.Env
	if env == nil {
		env = image.Env
	}
	process, err := process(s, known.ids)
	if err != nil {
		return nil, err
	}
	process.Args, process.Env, process.Cwd = s.command(image), env, s.cwd(image)
	mounts, err := ociMounts(s, known.volumes)
	if err != nil {
		return nil, err
	}
	linux, err := linux(s)
	if err != nil {
		return nil, err
	}
	return &specs.Spec{
		Version:     specVersion(mounts),
		Process:     process,
		Root:        &specs.Root{Path: "rootfs", Readonly: isTrue(s.Readonly)},
		Hostname:    str(s.Hostname),
		Mounts:      mounts,
		Linux:       linux,
		Annotations: s.Annotations,
	}, nil
}

// specVersion is the oldest version of the specification that has all we use:
// a runtime refuses a bundle of a version that it does not know, whatever is
// in it. Only mappings of ids on mounts came later (runtime-spec 1.1, config.md).
func specVersion(mounts []specs.Mount) string {
	for _, m := range mounts {
		if len(m.UIDMappings)+len(m.GIDMappings) > 0 {
			return "1.1.0"
		}
	}
	return "1.0.2"
}

func process(s Settings, ids map[string]uint32) (*specs.Process, error) {
	caps, err := capabilityList(s.Capabilities)
	if err != nil {
		return nil, err
	}
	ambient, err := capabilityList(s.Ambient)
	if err != nil {
		return nil, err
	}
	p := &specs.Process{
		Capabilities: &specs.LinuxCapabilities{
			Bounding:  slices.Compact(slices.Sorted(slices.Values(slices.Concat(caps, ambient)))),
			Effective: caps, Inheritable: caps, Permitted: caps, Ambient: ambient,
		},
		NoNewPrivileges: isTrue(s.NoNewPrivileges),
		OOMScoreAdj:     s.OOMScoreAdj,
	}
	if p.User.UID, err = s.UID.number(ids); err != nil {
		return nil, fmt.Errorf("uid: %w", err)
	}
	if p.User.GID, err = s.GID.number(ids); err != nil {
		return nil, fmt.Errorf("gid: %w", err)
	}
	for _, id := range s.AdditionalGids {
		n, err := id.number(ids)
		if err != nil {
			return nil, fmt.Errorf("additionalGids: %w", err)
		}
		p.User.AdditionalGids = append(p.User.AdditionalGids, n)
	}
	for _, text := range s.Rlimits {
		limit, err := parseRlimit(text)
		if err != nil {
			return nil, err
		}
		p.Rlimits = append(p.Rlimits, limit)
	}
	return p, nil
}

// ociMounts is the default mounts with those of the settings over them, by destination.
func ociMounts(s Settings, volumes map[string]Volume) ([]specs.Mount, error) {
	dev := []string{"nosuid", "strictatime", "mode=755", "size=65536k"}
	sys := []string{"nosuid", "noexec", "nodev"}
	if isTrue(s.Readonly) {
		dev, sys = append(dev, "ro"), append(sys, "ro")
	}
	mounts := map[string]specs.Mount{}
	add := func(m specs.Mount, err error) error {
		if err == nil {
			m, err = fromVolume(m, volumes)
		}
		mounts[m.Destination] = m
		return err
	}
	for _, m := range []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "nodev", "noexec", "relatime"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: dev},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: sys},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "relatime", "ro"}},
	} {
		mounts[m.Destination] = m
	}
	for _, text := range s.Tmpfs {
		if err := add(parseTmpfs(text)); err != nil {
			return nil, err
		}
	}
	for _, text := range s.Binds {
		if err := add(parseBind(text)); err != nil {
			return nil, err
		}
	}
	for _, m := range s.Mounts {
		if err := add(m.complete()); err != nil {
			return nil, err
		}
	}
	return sortedMounts(mounts), nil
}

func linux(s Settings) (*specs.Linux, error) {
	l := &specs.Linux{
		Namespaces:        namespaces(s),
		UIDMappings:       ociMappings(s.UIDMappings),
		GIDMappings:       ociMappings(s.GIDMappings),
		Resources:         s.Resources.oci(),
		Sysctl:            s.Sysctl,
		CgroupsPath:       str(s.CgroupsPath),
		RootfsPropagation: str(s.RootfsPropagation),
		MaskedPaths:       s.MaskedPaths,
		ReadonlyPaths:     s.ReadonlyPaths,
	}
	for _, v := range s.Devices {
		kind := v.Type
		if kind == "u" {
			kind = "c" // the same thing by another name, which the device cgroup does not know
		}
		rule := specs.LinuxDeviceCgroup{Allow: true, Type: kind, Access: "rwm"}
		if v.Path != "all" {
			mode, err := parseMode(v.Mode, 0)
			if err != nil {
				return nil, fmt.Errorf("device %s: %w", v.Path, err)
			}
			l.Devices = append(l.Devices, specs.LinuxDevice{Path: v.Path, Type: v.Type, Major: v.Major, Minor: v.Minor, FileMode: fileMode(mode)})
			rule.Major, rule.Minor = &v.Major, &v.Minor
		}
		if kind != "p" { // a FIFO is no device to the cgroup
			l.Resources.Devices = append(l.Resources.Devices, rule)
		}
	}
	return l, nil
}

// namespaces are a mount namespace always, a process namespace unless the
// host's is asked for, and the others only when asked for.
func namespaces(s Settings) []specs.LinuxNamespace {
	list := []specs.LinuxNamespace{{Type: specs.MountNamespace}}
	for _, n := range []struct {
		kind  specs.LinuxNamespaceType
		value string
	}{
		{specs.PIDNamespace, cmp.Or(str(s.PID), "new")},
		{specs.NetworkNamespace, str(s.Net)},
		{specs.IPCNamespace, str(s.IPC)},
		{specs.UTSNamespace, str(s.UTS)},
		{specs.UserNamespace, str(s.Userns)},
	} {
		switch n.value {
		case "", "host", "root":
		case "new", "none":
			list = append(list, specs.LinuxNamespace{Type: n.kind})
		default:
			list = append(list, specs.LinuxNamespace{Type: n.kind, Path: n.value})
		}
	}
	return list
}

func sharesHost(ns *string) bool {
	return strings.Contains(" host root ", " "+cmp.Or(str(ns), "host")+" ")
}

func isTrue(p *bool) bool { return p != nil && *p }

package images

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v4"
)

// Spec is a LinuxKit YAML file: what a machine consists of.
type Spec struct {
	Name string // the file's base name without its suffix; names the image

	Kernel     Kernel      `yaml:"kernel"`
	Init       []string    `yaml:"init"`       // references of images laid over the root, in order
	Onboot     []Container `yaml:"onboot"`     // run one after another before services
	Onshutdown []Container `yaml:"onshutdown"` // run one after another when the machine stops
	Services   []Container `yaml:"services"`   // run by containerd
	Files      []File      `yaml:"files"`      // written last, over everything else

	_ ignored     `yaml:"trust"` // upstream accepts it and does nothing with it
	_ unsupported `yaml:"volumes"`

	file string
	at   map[string]place // path of a value, such as "services[1].image" -> where it stands
}

// Kernel says where kernel and modules come from and what the kernel is told.
type Kernel struct {
	Image   string  `yaml:"image"`
	Cmdline string  `yaml:"cmdline"`
	Binary  *string `yaml:"binary"` // file in the image; nil: "kernel"
	Tar     *string `yaml:"tar"`    // archive in the image unpacked at /; nil: "kernel.tar"; "none" or "": no archive

	_ unsupported `yaml:"ucode"`
}

// Container is an item of onboot, onshutdown or services.
type Container struct {
	Name  string `yaml:"name"`
	Image string `yaml:"image"`
	Settings
}

// Settings are the fields of a container that may also come from the label
// org.mobyproject.config of its image. A nil field is absent; a field that is
// present replaces the label's, also when it is empty.
type Settings struct {
	Command           []string          `yaml:"command"` // replaces entry point and command of the image
	Env               []string          `yaml:"env"`     // "K=V"; replaces the image's
	Cwd               *string           `yaml:"cwd"`     // default "/"
	Capabilities      []string          `yaml:"capabilities"`
	CapabilitiesAdd   []string          `yaml:"capabilities.add"` // added to the label's
	Ambient           []string          `yaml:"ambient"`
	Binds             []string          `yaml:"binds"`     // "source:destination[:options]"
	BindsAdd          []string          `yaml:"binds.add"` // added to the label's
	Mounts            []Mount           `yaml:"mounts"`
	Tmpfs             []string          `yaml:"tmpfs"` // "destination[:options]"
	Devices           []Device          `yaml:"devices"`
	Net               *string           `yaml:"net"` // "host" (default), "new" or "none", or a path; so also IPC and UTS
	IPC               *string           `yaml:"ipc"`
	UTS               *string           `yaml:"uts"`
	PID               *string           `yaml:"pid"` // "new" (default), "host" or a path
	Hostname          *string           `yaml:"hostname"`
	Readonly          *bool             `yaml:"readonly"` // default false
	UID               *uint32           `yaml:"uid"`
	GID               *uint32           `yaml:"gid"`
	AdditionalGids    []uint32          `yaml:"additionalGids"`
	NoNewPrivileges   *bool             `yaml:"noNewPrivileges"`
	OOMScoreAdj       *int              `yaml:"oomScoreAdj"` // -1000 to 1000
	RootfsPropagation *string           `yaml:"rootfsPropagation"`
	CgroupsPath       *string           `yaml:"cgroupsPath"`
	Resources         *Resources        `yaml:"resources"`
	Sysctl            map[string]string `yaml:"sysctl"`
	Rlimits           []string          `yaml:"rlimits"` // "name,soft,hard"
	MaskedPaths       []string          `yaml:"maskedPaths"`
	ReadonlyPaths     []string          `yaml:"readonlyPaths"`
	Annotations       map[string]string `yaml:"annotations"`
	Runtime           *Runtime          `yaml:"runtime"`

	_ unsupported `yaml:"userns"`
	_ unsupported `yaml:"uidMappings"`
	_ unsupported `yaml:"gidMappings"`
}

// Mount is a mount inside a container, or before it is made (see [Runtime]).
type Mount struct {
	Destination string   `yaml:"destination"`
	Type        string   `yaml:"type"` // may be left out where source or destination tell it
	Source      string   `yaml:"source"`
	Options     []string `yaml:"options"`

	_ unsupported `yaml:"uidmappings"`
	_ unsupported `yaml:"gidmappings"`
}

// Device is a device node of a container and the right to use it. With Path
// "all" there is no node, only the right to all devices of the type.
type Device struct {
	Path  string `yaml:"path"`
	Type  string `yaml:"type"` // "b" block, "c" or "u" character, "p" FIFO
	Major int64  `yaml:"major"`
	Minor int64  `yaml:"minor"`
	Mode  string `yaml:"mode"` // octal, required
}

// Resources limits a container through its cgroup. Nil fields set no limit.
type Resources struct {
	Memory *struct {
		Limit *int64 `yaml:"limit"` // bytes

		_ unsupported `yaml:"reservation"`
		_ unsupported `yaml:"swap"`
		_ unsupported `yaml:"kernel"`
		_ unsupported `yaml:"kernelTCP"`
		_ unsupported `yaml:"swappiness"`
		_ unsupported `yaml:"disableOOMKiller"`
	} `yaml:"memory"`
	CPU *struct {
		Shares *uint64 `yaml:"shares"` // relative weight
		Quota  *int64  `yaml:"quota"`  // microseconds of each period
		Period *uint64 `yaml:"period"` // microseconds
		Cpus   *string `yaml:"cpus"`   // list such as "0-1,3"

		_ unsupported `yaml:"mems"`
		_ unsupported `yaml:"realtimeRuntime"`
		_ unsupported `yaml:"realtimePeriod"`
	} `yaml:"cpu"`
	Pids *struct {
		Limit *int64 `yaml:"limit"` // processes and threads
	} `yaml:"pids"`

	_ unsupported `yaml:"devices"`
	_ unsupported `yaml:"blockio"`
	_ unsupported `yaml:"blockIO"`
	_ unsupported `yaml:"hugepageLimits"`
	_ unsupported `yaml:"network"`
}

// Runtime is what is done around a container before it is made.
type Runtime struct {
	Mounts    []Mount  `yaml:"mounts"`
	Mkdir     []string `yaml:"mkdir"`
	Namespace *string  `yaml:"namespace"` // containerd's namespace, services only

	_ unsupported `yaml:"cgroups"`
	_ unsupported `yaml:"interfaces"`
	_ unsupported `yaml:"bindNS"`
}

// File is an item of files: a file, directory or symbolic link of the root.
type File struct {
	Path      string  `yaml:"path"`
	Contents  *string `yaml:"contents"`
	Source    string  `yaml:"source"` // on the host, read when the image is built
	Directory bool    `yaml:"directory"`
	Symlink   string  `yaml:"symlink"`  // the link's target
	Optional  bool    `yaml:"optional"` // left out if Source does not exist
	Mode      string  `yaml:"mode"`     // octal; default 0600, for a directory 0700
	UID       uint32  `yaml:"uid"`
	GID       uint32  `yaml:"gid"`

	_ unsupported `yaml:"metadata"`
}

// LoadSpec reads the YAML file at path and parses it with [ParseSpec].
func LoadSpec(path string) (*Spec, error) {
	src, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("images: cannot read the image's YAML: %w", err)
	}
	return ParseSpec(path, src)
}

// ParseSpec parses a LinuxKit YAML text. The name is the file's: it stands in
// errors and gives Spec.Name, and a relative files[].source is taken from its
// folder; "~/" is the user's home. The error is a [*SpecError] with all
// problems that were found.
func ParseSpec(name string, src []byte) (*Spec, error) {
	base := filepath.Base(name)
	s := &Spec{Name: strings.TrimSuffix(strings.TrimSuffix(base, ".yml"), ".yaml"), file: name}
	d := &decoder{file: name, at: map[string]place{}}
	if root := d.parse(src); root != nil {
		d.decodeStruct(root, s)
		s.at = d.at
		if root.Kind == yaml.MappingNode {
			d.checkSpec(s)
		}
	}
	if err := d.err(); err != nil {
		return nil, err
	}
	for i := range s.Files {
		source, err := hostPath(name, s.Files[i].Source)
		if err != nil {
			d.problem(fmt.Sprintf("files[%d].source", i), err.Error(), "write the path in full")
			return nil, d.err()
		}
		s.Files[i].Source = source
	}
	return s, nil
}

// hostPath resolves a source named in the YAML file.
func hostPath(yaml, source string) (string, error) {
	if rest, ok := strings.CutPrefix(source, "~/"); ok {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("the home folder for %q is not known: %w", source, err)
		}
		return filepath.Join(home, rest), nil
	}
	if source == "" || filepath.IsAbs(source) {
		return source, nil
	}
	return filepath.Join(filepath.Dir(yaml), source), nil
}

// where returns "file:line:col: " for the value at a path such as
// "services[1].image", or as much of it as is known.
func (s *Spec) where(path string) string {
	if p, ok := s.at[path]; ok {
		return fmt.Sprintf("%s:%d:%d: ", s.file, p.line, p.column)
	}
	if s.file != "" {
		return s.file + ": "
	}
	return ""
}

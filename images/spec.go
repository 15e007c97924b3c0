package images

// Spec is what a machine consists of: one LinuxKit YAML file, or several merged.
type Spec struct {
	Name string // the first file's base name without its suffix; names the image

	Kernel     Kernel      `yaml:"kernel"`
	Init       []string    `yaml:"init"`       // references of images laid over the root, in order
	Onboot     []Container `yaml:"onboot"`     // run one after another before services
	Onshutdown []Container `yaml:"onshutdown"` // run one after another when the machine stops
	Services   []Container `yaml:"services"`   // run by containerd
	Files      []File      `yaml:"files"`      // written last, over everything else
	Volumes    []Volume    `yaml:"volumes"`    // trees that containers share through binds and mounts

	_ ignored `yaml:"trust"` // upstream accepts it and does nothing with it

	at map[string]place // path of a value, such as "services[1].image" -> where it stands
}

// Kernel says where kernel and modules come from and what the kernel is told.
type Kernel struct {
	Image   string  `yaml:"image"`
	Cmdline string  `yaml:"cmdline"`
	Binary  *string `yaml:"binary"` // file in the image; nil: "kernel"
	Tar     *string `yaml:"tar"`    // archive in the image unpacked at /; nil: "kernel.tar"; "none" or "": no archive
	Ucode   string  `yaml:"ucode"`  // archive of CPU microcode in the image, given to the kernel before the initramfs
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
	Readonly          *bool             `yaml:"readonly"`    // default false
	Userns            *string           `yaml:"userns"`      // "host" (default), "new" or a path
	UIDMappings       []IDMapping       `yaml:"uidMappings"` // of a user namespace that is new
	GIDMappings       []IDMapping       `yaml:"gidMappings"`
	UID               *ID               `yaml:"uid"`
	GID               *ID               `yaml:"gid"`
	AdditionalGids    []ID              `yaml:"additionalGids"`
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
}

// Mount is a mount inside a container, or before it is made (see [Runtime]).
type Mount struct {
	Destination string   `yaml:"destination"`
	Type        string   `yaml:"type"` // may be left out where source or destination tell it
	Source      string   `yaml:"source"`
	Options     []string `yaml:"options"`

	// An ID-mapped mount: needs a runc of 1.2 or newer and a file system that can.
	UIDMappings []IDMapping `yaml:"uidMappings,uidmappings"`
	GIDMappings []IDMapping `yaml:"gidMappings,gidmappings"`
}

// IDMapping maps Size ids of a container, from ContainerID on, to those of the
// host from HostID on.
type IDMapping struct {
	ContainerID uint32 `yaml:"containerID,containerid,containerId"`
	HostID      uint32 `yaml:"hostID,hostid,hostId"`
	Size        uint32 `yaml:"size"`
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

// Runtime is what is done around a container before it is made.
type Runtime struct {
	Mounts    []Mount  `yaml:"mounts"`
	Mkdir     []string `yaml:"mkdir"`
	Namespace *string  `yaml:"namespace"` // containerd's namespace, services only

	Cgroups    []string    `yaml:"cgroups"`       // made before the container, relative to the root of the hierarchy
	Interfaces []Interface `yaml:"interfaces"`    // moved or made between create and start, in order
	BindNS     *BindNS     `yaml:"bindNS,bindNs"` // where the container's namespaces are bound, to be joined by others
}

// Interface is a network interface of a container: an existing one that is
// moved into its network namespace, or a new one.
type Interface struct {
	Name         string  `yaml:"name"`
	Add          *string `yaml:"add"`  // kind of a new interface, such as "dummy"; with Peer: "veth"
	Peer         *string `yaml:"peer"` // the other end of a veth pair, which stays outside
	CreateInRoot *bool   `yaml:"createInRoot"`
}

// BindNS names files that keep a container's namespaces.
type BindNS struct {
	Cgroup *string `yaml:"cgroup"`
	IPC    *string `yaml:"ipc"`
	Mnt    *string `yaml:"mnt"`
	Net    *string `yaml:"net"`
	PID    *string `yaml:"pid"`
	User   *string `yaml:"user"`
	UTS    *string `yaml:"uts"`
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
	UID       ID      `yaml:"uid"`
	GID       ID      `yaml:"gid"`
	Metadata  string  `yaml:"metadata"` // "yaml" or "json": the contents are this spec, merged
}

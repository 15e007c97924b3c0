package boot

// Where things are in the machine, and what they are called. These are
// LinuxKit's names: an image built for its init finds everything in place.
const (
	ContainersDir = "/containers"             // OCI bundles, below it the three kinds:
	OnbootDir     = ContainersDir + "/onboot" // NNN-name, run one after another
	OnshutdownDir = ContainersDir + "/onshutdown"
	ServicesDir   = ContainersDir + "/services" // name, run by containerd
	VolumesDir    = ContainersDir + "/volumes"  // NAME/lower, NAME/merged, and NAME/tmp unless read-only

	Namespace        = "services.linuxkit" // containerd's namespace for services
	RuntimeConfig    = "/etc/containerd/runtime-config.toml"
	ContainerdSocket = "/run/containerd/containerd.sock"
	LogDir           = "/var/log"                                // NAME.out.log and NAME.log of every service
	LoggingSocket    = "/var/run/linuxkit-external-logging.sock" // of a logging daemon, if the image has one

	InitPath       = "/sbin/init"
	ServicePath    = "/usr/bin/service"
	ContainerdPath = "/usr/bin/containerd"
	RuncPath       = "/usr/bin/runc"
	PoweroffPath   = "/sbin/poweroff"
	HoldPath       = "/run/seatrial.hold" // a FIFO, as long as PID 1 is held
)

// Words on the kernel command line.
const (
	// DevKmsgWord lifts the rate limit from /dev/kmsg; without it the kernel
	// drops events (Documentation/admin-guide/kernel-parameters.txt, printk.devkmsg).
	DevKmsgWord = "printk.devkmsg=on"
	// AgentWord, followed by a terminal name such as "ttyS1", starts the agent on it.
	AgentWord = "seatrial.agent="
	// HoldWord, followed by one of [Holdable], makes PID 1 wait before it does
	// what leads to that milestone, until something is written to [HoldPath].
	HoldWord = "seatrial.hold="
)

// Runtime is a bundle's runtime.json: what is done around the container.
// Before it is made: mounts, directories, control groups; between its making
// and its start: network interfaces, then names for its namespaces.
type Runtime struct {
	Cgroups    []string           `json:"cgroups,omitempty"` // made in every hierarchy, relative to its root
	Mounts     []RuntimeMount     `json:"mounts,omitempty"`
	Mkdir      []string           `json:"mkdir,omitempty"` // made 0755 after the mounts
	Interfaces []RuntimeInterface `json:"interfaces,omitempty"`
	BindNS     RuntimeNamespaces  `json:"bindNS,omitzero"`
	Namespace  string             `json:"namespace,omitempty"` // services only; empty: [Namespace]
}

// RuntimeInterface is a network interface that the container is given. With
// Add it is made, as a link of that kind; without, one that exists is moved
// into the container. Peer alone means a veth pair.
type RuntimeInterface struct {
	Name         string `json:"name,omitempty"`
	Add          string `json:"add,omitempty"`          // kind of link to make, such as "dummy" or "wireguard"
	Peer         string `json:"peer,omitempty"`         // veth only: the end that stays in the root namespace
	CreateInRoot bool   `json:"createInRoot,omitempty"` // made in the root namespace, then moved
}

// RuntimeNamespaces are the paths that the container's namespaces are bound
// to, so that others can enter them by name. Empty: not bound.
type RuntimeNamespaces struct {
	Cgroup string `json:"cgroup,omitempty"`
	Ipc    string `json:"ipc,omitempty"`
	Mnt    string `json:"mnt,omitempty"`
	Net    string `json:"net,omitempty"`
	Pid    string `json:"pid,omitempty"`
	User   string `json:"user,omitempty"`
	Uts    string `json:"uts,omitempty"`
}

// RuntimeMount is one mount made before the container is created. A relative
// destination is below the bundle's rootfs directory, except for the bundle's
// own set-up mounts, which the builder writes with absolute paths.
type RuntimeMount struct {
	Destination string   `json:"destination"`
	Type        string   `json:"type,omitempty"`
	Source      string   `json:"source,omitempty"`
	Options     []string `json:"options,omitempty"`
}

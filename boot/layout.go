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
	LogDir           = "/var/log" // NAME.out.log and NAME.log of every service

	InitPath       = "/sbin/init"
	ServicePath    = "/usr/bin/service"
	ContainerdPath = "/usr/bin/containerd"
	RuncPath       = "/usr/bin/runc"
	PoweroffPath   = "/sbin/poweroff"
)

// Words on the kernel command line.
const (
	// DevKmsgWord lifts the rate limit from /dev/kmsg; without it the kernel
	// drops events (Documentation/admin-guide/kernel-parameters.txt, printk.devkmsg).
	DevKmsgWord = "printk.devkmsg=on"
	// AgentWord, followed by a terminal name such as "ttyS1", starts the agent on it.
	AgentWord = "seatrial.agent="
)

// Runtime is a bundle's runtime.json: what is done around the container.
// Before it is made, in this order: mounts, directories, cgroups. Between
// create and start: interfaces, then binds of its namespaces.
type Runtime struct {
	Mounts     []RuntimeMount     `json:"mounts,omitempty"`
	Mkdir      []string           `json:"mkdir,omitempty"` // made 0755 after the mounts
	Cgroups    []string           `json:"cgroups,omitempty"`
	Interfaces []RuntimeInterface `json:"interfaces,omitempty"`
	BindNS     RuntimeBindNS      `json:"bindNS,omitzero"`
	Namespace  string             `json:"namespace,omitempty"` // services only; empty: [Namespace]
}

// RuntimeInterface is a network interface of the container. Without Add an
// existing one is moved into its namespace. With Peer it is an end of a veth
// pair whose other end, the peer, stays outside.
type RuntimeInterface struct {
	Name         string `json:"name,omitempty"`
	Add          string `json:"add,omitempty"` // kind of a new interface
	Peer         string `json:"peer,omitempty"`
	CreateInRoot bool   `json:"createInRoot,omitempty"` // make it outside and move it
}

// RuntimeBindNS says on which files the container's namespaces are bound.
type RuntimeBindNS struct {
	Cgroup string `json:"cgroup,omitempty"`
	IPC    string `json:"ipc,omitempty"`
	Mnt    string `json:"mnt,omitempty"`
	Net    string `json:"net,omitempty"`
	PID    string `json:"pid,omitempty"`
	User   string `json:"user,omitempty"`
	UTS    string `json:"uts,omitempty"`
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

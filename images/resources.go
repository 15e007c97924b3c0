package images

import (
	"fmt"
	"regexp"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Resources limits a container through its cgroup. Nil fields set no limit.
// Where upstream's two spellings of a key differ, both are taken.
type Resources struct {
	Devices []DeviceRule `yaml:"devices"`
	Memory  *struct {
		Limit            *int64  `yaml:"limit"`       // bytes, as all of memory but swappiness
		Reservation      *int64  `yaml:"reservation"` // soft limit
		Swap             *int64  `yaml:"swap"`        // memory and swap together
		Kernel           *int64  `yaml:"kernel"`      // cgroup v1 only
		KernelTCP        *int64  `yaml:"kernelTCP,kerneltcp"`
		Swappiness       *uint64 `yaml:"swappiness"` // 0 to 100
		DisableOOMKiller *bool   `yaml:"disableOOMKiller,disableoomkiller"`
	} `yaml:"memory"`
	CPU *struct {
		Shares          *uint64 `yaml:"shares"` // relative weight
		Quota           *int64  `yaml:"quota"`  // microseconds of each period
		Period          *uint64 `yaml:"period"` // microseconds
		RealtimeRuntime *int64  `yaml:"realtimeRuntime,realtimeruntime"`
		RealtimePeriod  *uint64 `yaml:"realtimePeriod,realtimeperiod"`
		Cpus            *string `yaml:"cpus"` // list such as "0-1,3"
		Mems            *string `yaml:"mems"` // memory nodes, likewise
	} `yaml:"cpu"`
	Pids *struct {
		Limit *int64 `yaml:"limit"` // processes and threads
	} `yaml:"pids"`
	BlockIO *struct {
		Weight                  *uint16          `yaml:"weight"`
		LeafWeight              *uint16          `yaml:"leafWeight,leafweight"`
		WeightDevice            []WeightDevice   `yaml:"weightDevice,weightdevice"`
		ThrottleReadBpsDevice   []ThrottleDevice `yaml:"throttleReadBpsDevice,throttlereadbpsdevice"` // bytes a second
		ThrottleWriteBpsDevice  []ThrottleDevice `yaml:"throttleWriteBpsDevice,throttlewritebpsdevice"`
		ThrottleReadIOPSDevice  []ThrottleDevice `yaml:"throttleReadIOPSDevice,throttlereadiopsdevice"` // operations a second
		ThrottleWriteIOPSDevice []ThrottleDevice `yaml:"throttleWriteIOPSDevice,throttlewriteiopsdevice"`
	} `yaml:"blockIO,blockio"`
	HugepageLimits []HugepageLimit `yaml:"hugepageLimits,hugepagelimits"`
	Network        *struct {
		ClassID    *uint32             `yaml:"classID,classid"`
		Priorities []InterfacePriority `yaml:"priorities"`
	} `yaml:"network"`
}

// DeviceRule allows or denies the use of devices; a nil number is any number.
type DeviceRule struct {
	Allow  bool   `yaml:"allow"`
	Type   string `yaml:"type"` // "a" all, "b" block, "c" character
	Major  *int64 `yaml:"major"`
	Minor  *int64 `yaml:"minor"`
	Access string `yaml:"access"` // of "rwm"
}

// WeightDevice is the share of a block device.
type WeightDevice struct {
	Major      int64   `yaml:"major"`
	Minor      int64   `yaml:"minor"`
	Weight     *uint16 `yaml:"weight"`
	LeafWeight *uint16 `yaml:"leafWeight,leafweight"`
}

// ThrottleDevice is the limit of a block device.
type ThrottleDevice struct {
	Major int64  `yaml:"major"`
	Minor int64  `yaml:"minor"`
	Rate  uint64 `yaml:"rate"`
}

// HugepageLimit is the limit of pages of a size such as "2MB".
type HugepageLimit struct {
	PageSize string `yaml:"pageSize,pagesize"`
	Limit    uint64 `yaml:"limit"` // bytes
}

// InterfacePriority is the priority of what a container sends through an interface.
type InterfacePriority struct {
	Name     string `yaml:"name"`
	Priority uint32 `yaml:"priority"`
}

// oci is the resources in the words of the OCI.
func (r *Resources) oci() *specs.LinuxResources {
	out := &specs.LinuxResources{}
	if r == nil {
		return out
	}
	for _, d := range r.Devices {
		out.Devices = append(out.Devices, specs.LinuxDeviceCgroup{Allow: d.Allow, Type: d.Type, Major: d.Major, Minor: d.Minor, Access: d.Access})
	}
	if m := r.Memory; m != nil {
		out.Memory = &specs.LinuxMemory{
			Limit: m.Limit, Reservation: m.Reservation, Swap: m.Swap, KernelTCP: m.KernelTCP,
			Swappiness: m.Swappiness, DisableOOMKiller: m.DisableOOMKiller,
		}
		//lint:ignore SA1019 the YAML has it, and machines with cgroup v1 honour it
		out.Memory.Kernel = m.Kernel
	}
	if c := r.CPU; c != nil {
		out.CPU = &specs.LinuxCPU{
			Shares: c.Shares, Quota: c.Quota, Period: c.Period, RealtimeRuntime: c.RealtimeRuntime, RealtimePeriod: c.RealtimePeriod,
			Cpus: str(c.Cpus), Mems: str(c.Mems),
		}
	}
	if r.Pids != nil {
		out.Pids = &specs.LinuxPids{Limit: r.Pids.Limit}
	}
	if b := r.BlockIO; b != nil {
		out.BlockIO = &specs.LinuxBlockIO{
			Weight: b.Weight, LeafWeight: b.LeafWeight, WeightDevice: weights(b.WeightDevice),
			ThrottleReadBpsDevice: throttles(b.ThrottleReadBpsDevice), ThrottleWriteBpsDevice: throttles(b.ThrottleWriteBpsDevice),
			ThrottleReadIOPSDevice: throttles(b.ThrottleReadIOPSDevice), ThrottleWriteIOPSDevice: throttles(b.ThrottleWriteIOPSDevice),
		}
	}
	for _, h := range r.HugepageLimits {
		out.HugepageLimits = append(out.HugepageLimits, specs.LinuxHugepageLimit{Pagesize: h.PageSize, Limit: h.Limit})
	}
	if n := r.Network; n != nil {
		out.Network = &specs.LinuxNetwork{ClassID: n.ClassID}
		for _, p := range n.Priorities {
			out.Network.Priorities = append(out.Network.Priorities, specs.LinuxInterfacePriority{Name: p.Name, Priority: p.Priority})
		}
	}
	return out
}

func weights(list []WeightDevice) (out []specs.LinuxWeightDevice) {
	for _, w := range list {
		d := specs.LinuxWeightDevice{Weight: w.Weight, LeafWeight: w.LeafWeight}
		d.Major, d.Minor = w.Major, w.Minor
		out = append(out, d)
	}
	return out
}

func throttles(list []ThrottleDevice) (out []specs.LinuxThrottleDevice) {
	for _, t := range list {
		d := specs.LinuxThrottleDevice{Rate: t.Rate}
		d.Major, d.Minor = t.Major, t.Minor
		out = append(out, d)
	}
	return out
}

// check notes what the kernel would refuse when the container starts.
func (r *Resources) check(problem func(key, text, hint string)) {
	if r == nil {
		return
	}
	for i, d := range r.Devices {
		at := "resources.devices[" + itoa(i) + "]"
		if d.Type != "a" && d.Type != "b" && d.Type != "c" && d.Type != "" {
			problem(at+".type", quoted(d.Type)+" is none of a, b, c", "write a for all devices, b for block, c for character devices")
		}
		for key, n := range map[string]*int64{"major": d.Major, "minor": d.Minor} {
			if n != nil && *n < -1 {
				problem(at+"."+key, itoa(int(*n))+" is out of range", "write the number, or leave it out to mean all")
			}
		}
		for _, letter := range d.Access {
			if letter != 'r' && letter != 'w' && letter != 'm' {
				problem(at+".access", quoted(d.Access)+" holds more than the letters r, w, m", "write which of read, write and mknod it is about, such as rwm")
				break
			}
		}
	}
	r.checkMemory(problem)
	r.checkCPU(problem)
	r.checkBlockIO(problem)
	for i, h := range r.HugepageLimits {
		if h.PageSize == "" {
			problem("resources.hugepageLimits["+itoa(i)+"].pageSize", "is missing", "write it as the kernel does, such as 2MB")
		}
	}
}

func (r *Resources) checkMemory(problem func(key, text, hint string)) {
	m := r.Memory
	if m == nil {
		return
	}
	for _, l := range []struct {
		key   string
		value *int64
	}{{"limit", m.Limit}, {"reservation", m.Reservation}, {"swap", m.Swap}} {
		if l.value != nil && *l.value < -1 {
			problem("resources.memory."+l.key, fmt.Sprintf("%d is out of range", *l.value), "write the bytes, or -1 for no limit")
		}
	}
	if m.Swappiness != nil && *m.Swappiness > 100 {
		problem("resources.memory.swappiness", "is above 100", "0 to 100 is what the kernel takes")
	}
}

// cpuList is what the kernel takes for a list of numbers (lib/bitmap.c).
var cpuList = regexp.MustCompile(`^\s*(\d+(-\d+(:\d+/\d+)?)?)(\s*,\s*\d+(-\d+(:\d+/\d+)?)?)*\s*$`)

// checkCPU: a period lasts 1 ms to 1 s, and its part 1 ms at least
// (kernel/sched/core.c); shares are what both versions of cgroups can hold.
func (r *Resources) checkCPU(problem func(key, text, hint string)) {
	c := r.CPU
	if c == nil {
		return
	}
	if v := c.Shares; v != nil && *v != 0 && (*v < 2 || *v > 262144) {
		problem("resources.cpu.shares", fmt.Sprintf("%d is out of range", *v), "2 to 262144 is what the kernel takes, and 1024 is usual")
	}
	if v := c.Period; v != nil && *v != 0 && (*v < 1000 || *v > 1_000_000) {
		problem("resources.cpu.period", fmt.Sprintf("%d is out of range", *v), "1000 to 1000000 microseconds is what the kernel takes, and 100000 is usual")
	}
	if v := c.Quota; v != nil && *v > 0 && *v < 1000 {
		problem("resources.cpu.quota", fmt.Sprintf("%d is too little", *v), "write 1000 microseconds or more, or -1 for no limit")
	}
	for _, l := range []struct {
		key   string
		value *string
	}{{"cpus", c.Cpus}, {"mems", c.Mems}} {
		if v := str(l.value); v != "" && !cpuList.MatchString(v) {
			problem("resources.cpu."+l.key, quoted(v)+" is not a list of numbers", "write it as 0-3,5")
		}
	}
}

func (r *Resources) checkBlockIO(problem func(key, text, hint string)) {
	b := r.BlockIO
	if b == nil {
		return
	}
	weight := func(key string, v *uint16) {
		if v != nil && *v != 0 && (*v < 10 || *v > 1000) {
			problem("resources.blockIO."+key, fmt.Sprintf("%d is out of range", *v), "10 to 1000 is what the specification takes")
		}
	}
	weight("weight", b.Weight)
	for i, w := range b.WeightDevice {
		at := "weightDevice[" + itoa(i) + "]"
		deviceNumber("resources.blockIO."+at, w.Major, w.Minor, problem)
		weight(at+".weight", w.Weight)
	}
	for key, list := range map[string][]ThrottleDevice{
		"throttleReadBpsDevice": b.ThrottleReadBpsDevice, "throttleWriteBpsDevice": b.ThrottleWriteBpsDevice,
		"throttleReadIOPSDevice": b.ThrottleReadIOPSDevice, "throttleWriteIOPSDevice": b.ThrottleWriteIOPSDevice,
	} {
		for i, t := range list {
			deviceNumber("resources.blockIO."+key+"["+itoa(i)+"]", t.Major, t.Minor, problem)
		}
	}
}

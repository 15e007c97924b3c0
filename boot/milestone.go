package boot

import "slices"

// Milestone names a point that every boot passes, in a fixed order.
type Milestone string

// The milestones, in the order a machine passes them. Kernel is never
// announced: a host infers it from the kernel's first console line.
const (
	Kernel     Milestone = "kernel"     // the kernel prints
	Init       Milestone = "init"       // PID 1 runs
	Mounts     Milestone = "mounts"     // the early file systems are mounted
	Modules    Milestone = "modules"    // modules for the present devices are loaded
	System     Milestone = "system"     // host name, loopback, limits, resolv.conf
	Onboot     Milestone = "onboot"     // every onboot container has ended
	Containerd Milestone = "containerd" // containerd answers on its socket
	Services   Milestone = "services"   // every service has been started
	Ready      Milestone = "ready"      // the machine is up; nothing more will be started
	Shutdown   Milestone = "shutdown"   // PID 1 was asked to stop the machine
	Off        Milestone = "off"        // all stopped and unmounted; the kernel is asked to end
)

var order = []Milestone{Kernel, Init, Mounts, Modules, System, Onboot, Containerd, Services, Ready, Shutdown, Off}

// Milestones returns all milestones in boot order.
func Milestones() []Milestone { return slices.Clone(order) }

// Holdable returns the milestones before which a machine can be held: those
// that PID 1 works for when the agent, through which it is let go, is there.
func Holdable() []Milestone { return []Milestone{System, Onboot, Containerd, Services} }

// Valid reports whether m is one of the milestones above.
func (m Milestone) Valid() bool { return slices.Contains(order, m) }

// Before reports whether m is passed earlier than n. An unknown milestone is
// before every other.
func (m Milestone) Before(n Milestone) bool {
	return slices.Index(order, m) < slices.Index(order, n)
}

// State is what an event says of its milestone or unit.
type State string

// The states. A milestone is reached by Done or by Failed: a machine that
// could not bring up containerd still says Ready, with State Failed, so that
// nobody waits for an end that was already decided.
const (
	Began   State = "began"   // work on it has started
	Done    State = "done"    // it is complete and good
	Failed  State = "failed"  // it is complete and not good; Detail says why
	Warned  State = "warned"  // something was wrong and was worked around; Detail says what
	Running State = "running" // a unit (container, containerd) runs
	Exited  State = "exited"  // a unit ended with status 0
	Held    State = "held"    // work on it waits until the host lets it begin; see [HoldWord]
)

// Package qemu turns a configuration into a QEMU command line, runs it, and
// gives the caller the guest's serial line, the agent's line and the monitor.
// It knows nothing of images, milestones or test frameworks.
//
// A machine is started paused. Serial lines are pseudo-terminals in raw mode
// and the monitor (QMP) is an inherited descriptor, all attached before the
// first instruction runs, so that no byte is lost and no port or path is
// shared with anybody.
//
// QEMU's exit status proves nothing: a power-off, a panic with panic=-1 and a
// reboot under -no-reboot all end with status 0. [Exit] therefore also carries
// the monitor's SHUTDOWN reason.
package qemu

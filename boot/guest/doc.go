// Package guest is what runs inside the machine: PID 1 and what it needs to
// bring a machine up from nothing to its services and down again.
//
// One program, installed as /init and /sbin/init, does most of it and chooses
// its part by the name it is called by (see [Main]):
//
//	init                     PID 1
//	modprobe [-q] [-a] NAME  load modules; the kernel itself calls this
//	poweroff, reboot, halt   ask PID 1 to stop the machine; -f: at once
//	init agent TTY           run commands for the host, see [ServeAgent]
//
// The second program, cmd/service, is the only one that links containerd's
// client. PID 1 starts it as "service system", tells it on its standard input
// when containerd answers, and hears from it on descriptor 3 how the services
// came up ([ServicesReport]).
//
// # How a machine comes up
//
// An initramfs is unpacked into the kernel's first mount, which cannot be left
// by pivot_root(2), so no container could be made there. [LeaveRootfs] binds
// that tree onto a mount of its own and moves into it: the files stay where
// they are, nothing is copied, no memory is needed.
//
// Then the phases run in the order of [boot.Milestones], each a list of steps.
// A step that fails is said on the console and makes its milestone Failed;
// the next step runs all the same. A machine that half works can be looked
// into, one that stopped cannot.
//
// Every line for people begins with the name of what speaks ("init: ",
// "containerd: ", "service web: ", "onboot 000-format: ") and goes to
// /dev/console; every event goes to /dev/kmsg as package boot describes.
//
// # What differs from LinuxKit's init
//
// The exit status of an onboot container is said; runc's own reason is shown;
// the container is deleted. containerd is supervised: its death is noticed at
// once, a refused option is named and left out, and it is started again. No
// wait is without a deadline. Services are stopped by SIGTERM before SIGKILL.
package guest

// Package boot is the contract between a booting machine and whoever watches
// it: the milestones a boot passes, the one form in which an event is written
// on the console and read back, the frames of the agent that runs commands
// inside the machine, and the paths and names both sides rely on.
//
// It is compiled into PID 1 and into the host's harness, so it imports nothing
// but the standard library and makes no system calls of its own.
//
// # Events
//
// An event is one line, written in one write to /dev/kmsg:
//
//	seatrial[1] init 4 {"at":"mounts","state":"done","up":1204} 9a8b7c6d
//
// The fields are the vocabulary version in brackets, the speaker, the
// speaker's own sequence number (from 1), a JSON object, and the CRC-32C of
// everything between "seatrial" and the blank before the sum. kmsg is used
// because the kernel never tears one record apart with its own lines, which it
// does to text written to /dev/console. Kernel prefixes such as
// "[    1.234567] " before the record are expected and ignored.
//
// A damaged record is an error, a gap in a speaker's numbers is counted by
// [Trace]; neither is ever silence.
package boot

//go:build linux

package guest

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// SendLog gives what can be read from the file or FIFO at path to the logging
// daemon behind socket, under the name of its source. The daemon (LinuxKit's
// memlogd, or one that speaks its protocol) takes one datagram per source: the
// name, with the open descriptor as SCM_RIGHTS beside it, from which it reads
// lines until the end.
//
// A FIFO must have its writer by now: without one it is at its end.
func SendLog(socket, name, path string) error {
	log, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	defer unix.Close(log)
	if err := unix.SetNonblock(log, false); err != nil { // the daemon's own choice
		return err
	}
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	// A daemon that does not read must not hold up the boot.
	limit := unix.NsecToTimeval(answerTime.Nanoseconds())
	if err := unix.SetsockoptTimeval(s, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit); err != nil {
		return err
	}
	if err := unix.Sendmsg(s, []byte(name), unix.UnixRights(log), &unix.SockaddrUnix{Name: socket}, 0); err != nil {
		return fmt.Errorf("logging daemon at %s: %w", socket, err)
	}
	return nil
}

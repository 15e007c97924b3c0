//go:build linux

package guest

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// OpenLog opens a log file, or a FIFO that nobody writes to yet, for reading.
func OpenLog(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0) // or a FIFO would be waited for
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if err := unix.SetNonblock(fd, false); err != nil { // its reader may wait
		unix.Close(fd)
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// SendLog gives what can be read from log to the logging daemon behind socket,
// under the name of its source. The daemon (LinuxKit's memlogd, or one that
// speaks its protocol) takes one datagram per source: the name, with the open
// descriptor as SCM_RIGHTS beside it, from which it reads lines until the end.
//
// A FIFO must have its writer by now: without one it is at its end.
func SendLog(socket, name string, log *os.File) error {
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
	if err := unix.Sendmsg(s, []byte(name), unix.UnixRights(int(log.Fd())), &unix.SockaddrUnix{Name: socket}, 0); err != nil {
		return fmt.Errorf("logging daemon at %s: %w", socket, err)
	}
	return nil
}

package qemu

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// OpenTerminal opens a pseudo-terminal; the slave's name is the one to give to
// QEMU. The caller must close both.
//
// The pty package hands the address of a variable on its stack to the kernel as
// a number, for the terminal's index. If the collector moves the stack in
// between (it shrinks one in a few thousand calls of a busy program), the answer
// is lost and the slave is that of index 0: another machine's line, or the
// user's own terminal. So the kernel is asked again, and the slave replaced.
func OpenTerminal() (master, slave *os.File, err error) {
	return openTerminal(pty.Open)
}

func openTerminal(open func() (master, slave *os.File, err error)) (*os.File, *os.File, error) {
	master, slave, err := open()
	if err != nil {
		return nil, nil, fmt.Errorf("opening a pseudo-terminal: %w", err)
	}
	index, err := unix.IoctlGetUint32(int(master.Fd()), unix.TIOCGPTN) // ioctl_tty(2)
	name := filepath.Join("/dev/pts", strconv.FormatUint(uint64(index), 10))
	if err == nil && slave.Name() != name {
		slave.Close()
		slave, err = os.OpenFile(name, os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		master.Close()
		slave.Close()
		return nil, nil, fmt.Errorf("far side of a pseudo-terminal: %w", err)
	}
	return master, slave, nil
}

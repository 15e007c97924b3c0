package suite

import (
	"fmt"
	"os"
	"syscall"
)

// endWithOwner ends this process as soon as the one that holds the lock of the
// run's folder is gone, even by SIGKILL: its machines then end with it. Between
// the two stand the ginkgo tool and whatever started it, which would not notice.
func endWithOwner(run string) error {
	f, err := os.Open(run)
	if err != nil {
		return fmt.Errorf("run folder: %w", err)
	}
	go func() {
		// The wait ends with the process: there is nobody it could be handed to.
		for {
			err := syscall.Flock(int(f.Fd()), syscall.LOCK_SH)
			if err == syscall.EINTR {
				continue
			}
			fmt.Fprintf(os.Stderr, "seatrial: the process that began the run is gone (%v): giving up\n", err)
			os.Exit(3)
		}
	}()
	return nil
}

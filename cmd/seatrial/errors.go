package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"syscall"

	"github.com/seatrial/seatrial/harness"
	"github.com/seatrial/seatrial/images"
	"github.com/seatrial/seatrial/reports"
)

// Exit statuses; the root's help explains them.
const (
	exitGuest  = 1
	exitMisuse = 2
	exitInfra  = 3
)

// exitError is an error that has been reported already, with the status to end with.
type exitError struct{ status int }

func (e exitError) Error() string { return fmt.Sprintf("exit status %d", e.status) }

// misuse marks an error as the request's own fault.
type misuse struct{ error }

func (m misuse) Unwrap() error { return m.error }

func misusef(format string, args ...any) error { return misuse{fmt.Errorf(format, args...)} }

// exitStatus reports an error, unless that was done, and chooses the status.
func exitStatus(o *options, err error, interrupted bool) int {
	var done exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &done):
		return done.status
	case interrupted:
		fmt.Fprintf(os.Stderr, "seatrial: interrupted: %v\n", err)
		return exitInfra
	}
	fmt.Fprintf(os.Stderr, "seatrial: %v\n", err)
	if !o.begun { // cobra's own words about flags, arguments and verbs
		fmt.Fprintln(os.Stderr, "seatrial --help, or seatrial VERB --help, shows what there is")
		return exitMisuse
	}
	return errorStatus(err)
}

func errorStatus(err error) int {
	var f *harness.Failure
	var m misuse
	var spec *images.SpecError
	switch {
	case hostFailed(err):
		return exitInfra
	case errors.As(err, &f):
		return classStatus(f.Class)
	case errors.As(err, &m), errors.As(err, &spec), errors.Is(err, images.ErrNotFound):
		return exitMisuse
	}
	return exitInfra
}

// hostFailed reports whether the error is one that no other request would have avoided.
func hostFailed(err error) bool {
	// Not net.Error: every syscall.Errno is one.
	var network *net.OpError
	var request *url.Error
	if errors.As(err, &network) || errors.As(err, &request) {
		return true
	}
	for _, e := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EIO, syscall.ENOMEM} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func classStatus(c reports.Class) int {
	switch c {
	case reports.Guest:
		return exitGuest
	case reports.Misuse:
		return exitMisuse
	}
	return exitInfra
}

// remedy adds to an error about a file or folder what can be done about it.
func remedy(err error, flag string) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%w; free some space, or choose another place with %s", err, flag)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS), errors.Is(err, syscall.ENOTDIR), errors.Is(err, fs.ErrExist):
		return fmt.Errorf("%w; choose a folder you may write to with %s", err, flag)
	}
	return err
}

// Command seatrial builds LinuxKit images, boots them in QEMU and proves what
// they do. One file holds one verb; what verbs share is in options.go (flags,
// cache, image), errors.go (exit statuses), display.go (what goes on, on
// standard error), runs.go (folders of runs) and terminal.go (the user's own).
package main

import (
	"context"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // nohup
		signals = append(signals, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), signals...)
	o := &options{}
	err := root(o).ExecuteContext(ctx)
	status := exitStatus(o, err, ctx.Err() != nil)
	stop()
	os.Exit(status)
}

// about is the root's help. Exit statuses stand here because every verb keeps them.
const about = `Builds a LinuxKit image from its YAML, boots it in QEMU with the serial line
as its console, and proves what it does. A failure names its cause: a panic, a
console in the wrong order, a service that died, a QEMU that was killed.

Results go to standard output, progress and errors to standard error. Progress
is drawn on a terminal and written as plain lines elsewhere; NO_COLOR takes the
colours away.

Exit status:
  0  done; for test and qualify: everything was proved
  1  the guest failed
  2  the request cannot be: a wrong flag, file or image
  3  the host failed, the run was interrupted, or nothing could be shown`

const firstSteps = `  seatrial doctor                  # what this host can do and what is missing
  seatrial run                     # the image that ships, its console on this terminal
  seatrial test my.yml             # build my image, boot it, prove that it comes up
  seatrial qualify                 # in a checkout: the whole suite, report in out/latest`

func root(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "seatrial",
		Short:   "Sea trials for LinuxKit images: build one, boot it, prove it",
		Long:    about,
		Example: firstSteps,
		// Errors are said once, in exitStatus, with the status they lead to.
		SilenceUsage: true, SilenceErrors: true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return o.begin(cmd) },
	}
	flags := cmd.PersistentFlags()
	flags.StringVar(&o.cache, "cache", "", "folder for component images, built images and downloads (default: seatrial in the user's cache folder)")
	flags.StringVar(&o.arch, "arch", runtime.GOARCH, "architecture of the guest: amd64 or arm64")
	flags.StringVar(&o.accel, "accel", "", "accelerator of machines: tcg or kvm (default: a trial guest finds out)")
	flags.BoolVar(&o.attended, "attended", false, "another seatrial looks after the terminal")
	hide(flags, "attended")
	complete(cmd, "arch", "amd64", "arm64")
	complete(cmd, "accel", accels()...)
	cmd.AddCommand(
		runCommand(o), testCommand(o), qualifyCommand(o),
		buildCommand(o), lintCommand(o), importCommand(o), pruneCommand(o), componentsCommand(o), doctorCommand(o),
		reportCommand(), reproCommand(o), benchCommand(o),
	)
	return cmd
}

// Command seatrial builds LinuxKit images, boots them in QEMU and proves what
// they do.
//
// It speaks as follows: results on standard output, progress and errors on
// standard error. Exit status 0: proved; 1: the guest failed; 2: the request
// cannot be (a wrong flag, file or image); 3: the host failed, or nothing could
// be shown.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/seatrial/seatrial/harness"
	"github.com/seatrial/seatrial/images"
	"github.com/seatrial/seatrial/reports"
)

// Exit statuses.
const (
	exitGuest  = 1
	exitMisuse = 2
	exitInfra  = 3
)

// exitError is an error that has been reported already, with the status to end with.
type exitError struct{ status int }

func (e exitError) Error() string { return fmt.Sprintf("exit status %d", e.status) }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := root().ExecuteContext(ctx)
	stop()
	if err != nil {
		os.Exit(status(err))
	}
}

// status reports an error, unless that was done, and chooses the exit status.
func status(err error) int {
	var done exitError
	if errors.As(err, &done) {
		return done.status
	}
	fmt.Fprintf(os.Stderr, "seatrial: %v\n", err)
	var f *harness.Failure
	if errors.As(err, &f) {
		return classStatus(f.Class)
	}
	return exitMisuse
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

// options are what every verb takes.
type options struct {
	cache string
	arch  string
}

func root() *cobra.Command {
	o := &options{}
	cmd := &cobra.Command{
		Use:   "seatrial",
		Short: "Sea trials for LinuxKit images: build one, boot it, prove it",
		Long: `Builds a LinuxKit image from its YAML, boots it in QEMU with the serial line
as its console, and proves what it does. A failure names its cause: a panic, a
console in the wrong order, a service that died, a QEMU that was killed.`,
		SilenceUsage: true, SilenceErrors: true,
	}
	cmd.PersistentFlags().StringVar(&o.cache, "cache", "", "folder for component images, built images and downloads (default: seatrial in the user's cache folder)")
	cmd.PersistentFlags().StringVar(&o.arch, "arch", runtime.GOARCH, "architecture of the guest: amd64 or arm64")
	cmd.AddCommand(doctorCommand(o), componentsCommand(o), buildCommand(o), testCommand(o))
	return cmd
}

// cacheDir is the cache folder, made if missing.
func (o *options) cacheDir() (string, error) {
	dir := o.cache
	if dir == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("no cache folder; give one with --cache: %w", err)
		}
		dir = filepath.Join(user, "seatrial")
	}
	return dir, os.MkdirAll(dir, 0o755)
}

// image builds the image of a YAML file, or of the YAML that ships.
func (o *options) image(ctx context.Context, args []string) (*images.Image, error) {
	cache, err := o.cacheDir()
	if err != nil {
		return nil, err
	}
	spec, err := loadSpec(args)
	if err != nil {
		return nil, err
	}
	store, err := images.OpenStore(filepath.Join(cache, "store"))
	if err != nil {
		return nil, err
	}
	b := &images.Builder{
		Source: images.Resolve(store), Arch: o.arch, Dir: filepath.Join(cache, "images"),
		Progress: func(step string) { fmt.Fprintln(os.Stderr, step) },
	}
	return b.Build(ctx, spec)
}

func loadSpec(args []string) (*images.Spec, error) {
	if len(args) == 0 {
		return images.ParseSpec("default.yml", images.Default())
	}
	return images.LoadSpec(args[0])
}

func buildCommand(o *options) *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "build [image.yml]",
		Short: "Build an image: kernel, initramfs and kernel command line",
		Long: `Builds the image that the YAML file describes (without one: the image that
ships) and writes NAME-kernel, NAME-initrd.img and NAME-cmdline. The same input
gives the same bytes.`,
		Example: "  seatrial build my.yml -o out",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			im, err := o.image(cmd.Context(), args)
			if err != nil {
				return err
			}
			paths, err := im.Export(dir, im.Name)
			for _, p := range paths {
				fmt.Println(p)
			}
			return err
		},
	}
	cmd.Flags().StringVarP(&dir, "output", "o", ".", "folder for the files")
	return cmd
}

//go:build linux

// Command format makes a file system on a machine's empty disk, so that the
// machine can keep its state there. It never touches a disk that holds
// anything, unless it is told to by -force and the name of the disk.
//
//	format [-type ext4] [-label NAME] [-force] [DEVICE]
//
// With a label and without a device, a disk that has the label already is what
// was asked for, and nothing is done. So the same image formats a new disk and
// leaves the disk of an older machine as it is.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seatrial/seatrial/boot/guest/disk"
)

const usage = `usage: format [-type ext4] [-label NAME] [-force] [DEVICE]
Makes a file system on DEVICE, or on the first empty disk. A disk that has the
label already, or without -label any file system of the type, is left as it is.
`

// Exit statuses.
const (
	exitRefused = 1 // nothing was formatted, and there is no such file system
	exitMisuse  = 2
)

// request is what the command line asks for.
type request struct {
	kind, label, device string
	force               bool
	wait                time.Duration // for a disk to appear
}

// host is what the program sees of the machine.
type host struct {
	list    func() ([]disk.Disk, error)
	inspect func(ctx context.Context, path string) (disk.Content, error)
	mkfs    func(ctx context.Context, r request, path string) error
	out     io.Writer
}

func main() {
	r, err := parse(os.Args[1:], os.Stderr)
	if err != nil {
		fmt.Fprintf(os.Stderr, "format: %v\n", err)
		os.Exit(exitMisuse)
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	h := host{
		list:    func() ([]disk.Disk, error) { return disk.List("/sys/class/block") },
		inspect: disk.Inspect, mkfs: mke2fs, out: os.Stdout,
	}
	err = h.format(ctx, r)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "format: %v\n", err)
		os.Exit(exitRefused)
	}
}

func parse(args []string, stderr io.Writer) (request, error) {
	var r request
	f := flag.NewFlagSet("format", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.Usage = func() { fmt.Fprint(stderr, usage); f.PrintDefaults() }
	f.StringVar(&r.kind, "type", "ext4", "type of the file system; only ext4")
	f.StringVar(&r.label, "label", "", "label of the file system, 16 bytes at most")
	f.BoolVar(&r.force, "force", false, "format DEVICE whatever it holds, each time")
	f.DurationVar(&r.wait, "wait", 5*time.Second, "how long to wait for a disk to appear")
	if err := f.Parse(args); err != nil {
		return r, err
	}
	r.device = f.Arg(0)
	switch {
	case f.NArg() > 1:
		return r, fmt.Errorf("one device at most, not %s", strings.Join(f.Args(), " "))
	case r.kind != "ext4":
		return r, fmt.Errorf("-type %s: only ext4 can be made; leave -type out", r.kind)
	case len(r.label) > 16:
		return r, fmt.Errorf("-label %s: a label of ext4 holds 16 bytes, this has %d", r.label, len(r.label))
	case r.force && r.device == "":
		return r, errors.New("-force erases a disk: name the DEVICE")
	}
	return r, nil
}

// format does what is asked for or says why not.
func (h host) format(ctx context.Context, r request) error {
	var disks []disk.Disk
	found, err := disk.Await(ctx, r.wait, func() (bool, error) {
		var err error
		disks, err = h.list()
		for _, d := range disks {
			if r.device == "" || d.Path == r.device {
				return true, err
			}
		}
		return false, err
	})
	switch {
	case err != nil:
		return err
	case !found && r.device != "":
		return fmt.Errorf("there is no disk %s; there are: %s", r.device, paths(disks))
	case !found:
		return errors.New("the machine has no disk")
	case r.device != "":
		return h.named(ctx, r)
	}
	return h.first(ctx, r, disks)
}

func paths(disks []disk.Disk) string {
	var out []string
	for _, d := range disks {
		out = append(out, d.Path)
	}
	if out == nil {
		return "none"
	}
	return strings.Join(out, " ")
}

// wanted says whether a device holds what is asked for already.
func (r request) wanted(c disk.Content) bool {
	return c.Type == r.kind && (r.label == "" || c.Label == r.label)
}

func (h host) named(ctx context.Context, r request) error {
	c, err := h.inspect(ctx, r.device)
	switch {
	case err != nil:
		return err
	case r.force:
		return h.make(ctx, r, r.device)
	case r.wanted(c):
		return h.leave(r.device, c)
	case !c.Empty():
		return fmt.Errorf("%s holds %v; it is left as it is (-force erases it)", r.device, c)
	}
	return h.make(ctx, r, r.device)
}

// first looks for a disk that holds what is asked for, then for an empty one.
func (h host) first(ctx context.Context, r request, disks []disk.Disk) error {
	empty := ""
	var refused []string
	for _, d := range disks {
		c, err := h.inspect(ctx, d.Path)
		switch {
		case err != nil:
			return err
		case r.wanted(c):
			return h.leave(d.Path, c)
		case !c.Empty():
			refused = append(refused, fmt.Sprintf("%s holds %v", d.Path, c))
		case d.ReadOnly:
			refused = append(refused, d.Path+" is empty, but read-only")
		case empty == "" && !d.Partition:
			empty = d.Path
		}
	}
	if empty == "" {
		return fmt.Errorf("no empty disk: %s; all are left as they are (-force DEVICE erases one)", strings.Join(refused, ", "))
	}
	return h.make(ctx, r, empty)
}

func (h host) leave(device string, c disk.Content) error {
	_, err := fmt.Fprintf(h.out, "format: %s holds %v already\n", device, c)
	return err
}

func (h host) make(ctx context.Context, r request, device string) error {
	if err := h.mkfs(ctx, r, device); err != nil {
		return err
	}
	c, err := h.inspect(ctx, device)
	if err == nil && !r.wanted(c) {
		err = fmt.Errorf("%s holds %v after it was formatted", device, c)
	}
	if err == nil {
		_, err = fmt.Fprintf(h.out, "format: %s was formatted: %v\n", device, c)
	}
	return err
}

// mke2fs makes the file system. Without -F it refuses what it takes to hold
// something, and in any case what is mounted.
func mke2fs(ctx context.Context, r request, device string) error {
	args := []string{"-q", "-t", r.kind}
	if r.label != "" {
		args = append(args, "-L", r.label)
	}
	if r.force {
		args = append(args, "-F")
	}
	out, err := exec.CommandContext(ctx, "mke2fs", append(args, device)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("mke2fs %s: %w: %s", device, err, strings.TrimSpace(string(out)))
	}
	return nil
}

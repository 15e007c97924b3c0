//go:build linux

// Command mountie mounts a file system by its label or device where the whole
// machine sees it.
//
//	mountie [-label NAME | DEVICE] PATH
//
// Without label and device it takes the first file system it finds. PATH is
// made if it is missing.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seatrial/seatrial/boot/guest/disk"
)

const usage = `usage: mountie [-label NAME | DEVICE] PATH
Mounts the file system with that label, or on that device, or the first one
there is, on PATH.
`

// Exit statuses.
const (
	exitFailed = 1
	exitMisuse = 2
)

// request is what the command line asks for.
type request struct {
	label, device, path string
	wait                time.Duration // for the file system to appear
}

// host is what the program sees of the machine.
type host struct {
	list      func() ([]disk.Disk, error)
	inspect   func(ctx context.Context, path string) (disk.Content, error)
	mount     func(device, path, kind string) error
	mountinfo func() (string, error)
	out       io.Writer
}

func main() {
	r, err := parse(os.Args[1:], os.Stderr)
	if err != nil {
		fmt.Fprintf(os.Stderr, "mountie: %v\n", err)
		os.Exit(exitMisuse)
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	h := host{
		list:    func() ([]disk.Disk, error) { return disk.List("/sys/class/block") },
		inspect: disk.Inspect, out: os.Stdout, mount: mount,
		mountinfo: func() (string, error) { b, err := os.ReadFile("/proc/self/mountinfo"); return string(b), err },
	}
	err = h.run(ctx, r)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "mountie: %v\n", err)
		os.Exit(exitFailed)
	}
}

func parse(args []string, stderr io.Writer) (request, error) {
	var r request
	f := flag.NewFlagSet("mountie", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.Usage = func() { fmt.Fprint(stderr, usage); f.PrintDefaults() }
	f.StringVar(&r.label, "label", "", "label of the file system")
	f.StringVar(&r.device, "device", "", "device of the file system, as DEVICE")
	f.DurationVar(&r.wait, "wait", 5*time.Second, "how long to wait for the file system to appear")
	if err := f.Parse(args); err != nil {
		return r, err
	}
	switch rest := f.Args(); {
	case len(rest) == 2 && r.device == "":
		r.device, r.path = rest[0], rest[1]
	case len(rest) == 1:
		r.path = rest[0]
	default:
		return r, fmt.Errorf("one PATH and at most one DEVICE, not %q", strings.Join(rest, " "))
	}
	switch {
	case r.label != "" && r.device != "":
		return r, fmt.Errorf("a label (%s) or a device (%s), not both", r.label, r.device)
	case !filepath.IsAbs(r.path):
		return r, fmt.Errorf("the path %q is not absolute", r.path)
	}
	r.path = filepath.Clean(r.path)
	return r, nil
}

// run mounts what is asked for or says why not.
func (h host) run(ctx context.Context, r request) error {
	info, err := h.mountinfo()
	if err != nil {
		return err
	}
	if err := visible(info, r.path); err != nil {
		return err
	}
	var device string
	var content disk.Content
	var seen []string
	found, err := disk.Await(ctx, r.wait, func() (ok bool, err error) {
		device, content, seen, err = h.find(ctx, r)
		return device != "", err
	})
	switch {
	case err != nil:
		return err
	case !found:
		return fmt.Errorf("%s; there is: %s", r.missing(), orNone(strings.Join(seen, ", ")))
	case !content.Mounts:
		return fmt.Errorf("%s holds %v, which cannot be mounted", device, content)
	}
	if err := h.mount(device, r.path, content.Type); err != nil {
		return err
	}
	_, err = fmt.Fprintf(h.out, "mountie: %s, %v, is on %s\n", device, content, r.path)
	return err
}

// missing says what was looked for and not found.
func (r request) missing() string {
	switch {
	case r.label != "":
		return fmt.Sprintf("no file system is labelled %q", r.label)
	case r.device != "":
		return "there is no disk " + r.device
	}
	return "no disk holds a file system"
}

func orNone(s string) string {
	if s == "" {
		return "no disk at all"
	}
	return s
}

// find looks for the device once; seen is all there is. A label that two
// devices have is an error: which of them is meant cannot be known.
func (h host) find(ctx context.Context, r request) (device string, content disk.Content, seen []string, err error) {
	disks, err := h.list()
	if err != nil {
		return "", disk.Content{}, nil, err
	}
	for _, d := range disks {
		c, err := h.inspect(ctx, d.Path)
		if err != nil {
			return "", disk.Content{}, nil, err
		}
		seen = append(seen, fmt.Sprintf("%s with %v", d.Path, c))
		matches := c.Mounts
		switch {
		case r.device != "":
			matches = d.Path == r.device
		case r.label != "":
			matches = c.Label == r.label
		}
		if matches && device != "" && r.label != "" {
			return "", disk.Content{}, nil, fmt.Errorf("both %s and %s are labelled %q: name the device", device, d.Path, r.label)
		}
		if matches && device == "" {
			device, content = d.Path, c
		}
	}
	return device, content, seen, nil
}

// visible checks that what is mounted on path is seen outside this container:
// the mount that path lies on must be shared with the machine's, and not only
// follow it (proc(5), mountinfo: the optional fields "shared:" and "master:").
func visible(mountinfo, path string) error {
	best, fields := "", []string(nil)
	for line := range strings.Lines(mountinfo) {
		f := strings.Fields(line)
		if len(f) < 7 {
			continue
		}
		// Later lines lie over earlier ones.
		if at := f[4]; within(path, at) && len(at) >= len(best) {
			best, fields = at, f[6:]
		}
	}
	shared, follows := false, false
	for _, f := range fields {
		if f == "-" {
			break
		}
		shared = shared || strings.HasPrefix(f, "shared:")
		follows = follows || strings.HasPrefix(f, "master:")
	}
	if best == "" || best == "/" || !shared || follows {
		return fmt.Errorf("what is mounted on %s would be seen in this container alone: choose a path below /var, or bind the path's folder "+
			"from the machine with rshared,rbind (binds.add) and set rootfsPropagation: shared", path)
	}
	return nil
}

func within(path, folder string) bool {
	return path == folder || strings.HasPrefix(path, strings.TrimSuffix(folder, "/")+"/")
}

func mount(device, path, kind string) error {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return err
	}
	err := unix.Mount(device, path, kind, unix.MS_RELATIME, "")
	switch {
	case errors.Is(err, unix.ENODEV):
		return fmt.Errorf("the kernel has no driver for %s, which is on %s", kind, device)
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("%s is mounted already, or something is mounted on %s", device, path)
	case err != nil:
		return fmt.Errorf("mounting %s on %s: %w", device, path, err)
	}
	return nil
}

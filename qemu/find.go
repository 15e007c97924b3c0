package qemu

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"time"
)

var versionLine = regexp.MustCompile(`version (\d+\.\d+\.\d+)`)

// oldest is the QEMU of Debian 12, with which everything here is tested.
const oldest = "7.2.0"

// askPatience is how long a QEMU may take to say something about itself: it
// needs a tenth of a second.
const askPatience = 10 * time.Second

// pipeGrace is how long a process that such a QEMU, or a script in its place,
// leaves behind may keep the pipe.
const pipeGrace = time.Second

// ask returns what QEMU says about itself.
func ask(ctx context.Context, limit time.Duration, binary string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no end in %v", limit))
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.WaitDelay = pipeGrace
	out, err := cmd.Output()
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil // it has ended well, and said it all
	}
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", binary, strings.Join(args, " "), err)
	}
	return out, nil
}

// deviceLine is a line of "-device help".
var deviceLine = regexp.MustCompile(`(?m)^name "([^"]+)"(?:.*, alias "([^"]+)")?`)

// Devices asks a QEMU which devices it has, by all their names, in order.
// Distributions leave some out, or put them into packages of their own.
func Devices(ctx context.Context, binary string) ([]string, error) {
	out, err := ask(ctx, askPatience, binary, "-device", "help")
	if err != nil {
		return nil, err
	}
	var names []string
	for _, m := range deviceLine.FindAllSubmatch(out, -1) {
		names = append(names, string(m[1]))
		if len(m[2]) > 0 {
			names = append(names, string(m[2]))
		}
	}
	slices.Sort(names)
	return names, nil
}

// Missing lists the devices of the command line that are not among those, which
// are sorted.
func (c Command) Missing(devices []string) []string {
	var missing []string
	for i, arg := range c.Args[:len(c.Args)-1] {
		if arg != "-device" {
			continue
		}
		name, _, _ := strings.Cut(c.Args[i+1], ",")
		name = strings.TrimPrefix(name, "driver=")
		if _, found := slices.BinarySearch(devices, name); !found && !slices.Contains(missing, name) && !strings.HasPrefix(name, "{") {
			missing = append(missing, name)
		}
	}
	return missing
}

// older compares version numbers of three parts.
func older(a, b string) bool {
	var x, y [3]int
	// What does not scan stays 0, and the expression in versionLine lets nothing else through.
	_, _ = fmt.Sscanf(a, "%d.%d.%d", &x[0], &x[1], &x[2])
	_, _ = fmt.Sscanf(b, "%d.%d.%d", &y[0], &y[1], &y[2])
	return slices.Compare(x[:], y[:]) < 0
}

// Find looks for the QEMU of a guest architecture in PATH and asks its
// version. The error says how to install it.
func Find(arch string) (binary, version string, err error) {
	name, pkg := "qemu-system-x86_64", "qemu-system-x86"
	switch arch {
	case "amd64":
	case "arm64":
		name, pkg = "qemu-system-aarch64", "qemu-system-arm"
	default:
		return "", "", fmt.Errorf("qemu: unknown architecture %q; known are amd64 and arm64", arch)
	}
	binary, err = exec.LookPath(name)
	if err != nil {
		return "", "", fmt.Errorf("no %s in PATH; on Debian and Ubuntu: apt-get install %s", name, pkg)
	}
	out, err := ask(context.Background(), askPatience, binary, "--version")
	if err != nil {
		return "", "", err
	}
	m := versionLine.FindSubmatch(out)
	if m == nil {
		return "", "", fmt.Errorf("%s --version says %q, which holds no version", binary, out)
	}
	if v := string(m[1]); older(v, oldest) {
		return "", "", fmt.Errorf("%s is QEMU %s, which is too old: %s or newer is needed; on Debian 12 and Ubuntu 24.04: apt-get install %s", binary, v, oldest, pkg)
	}
	return binary, string(m[1]), nil
}

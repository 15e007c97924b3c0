package qemu

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"time"
)

var versionLine = regexp.MustCompile(`version (\d+\.\d+\.\d+)`)

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
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, binary, "--version").Output()
	if err != nil {
		return "", "", fmt.Errorf("%s --version: %w", binary, err)
	}
	m := versionLine.FindSubmatch(out)
	if m == nil {
		return "", "", fmt.Errorf("%s --version says %q, which holds no version", binary, out)
	}
	return binary, string(m[1]), nil
}

package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// need is something the host must have.
type need struct {
	Program string `json:"program"`
	Package string `json:"package"` // of Debian and Ubuntu; empty: Get says how to get it
	Get     string `json:"get,omitempty"`
	For     string `json:"for"`
	Path    string `json:"path,omitempty"` // where it is; empty: missing
}

func needs(arch string) []need {
	qemu := need{Program: "qemu-system-x86_64", Package: "qemu-system-x86", For: "running machines"}
	if arch == "arm64" {
		qemu = need{Program: "qemu-system-aarch64", Package: "qemu-system-arm", For: "running machines"}
	}
	return []need{
		qemu,
		{Program: "mkfs.ext4", Package: "e2fsprogs", For: "state disks"},
		{Program: "dpkg-deb", Package: "dpkg", For: "component images"},
		{Program: "apt-get", Package: "apt", For: "component images"},
		// Debian 12 has Go 1.19, which cannot even fetch a newer one by itself (1.21 can).
		{Program: "go", Get: "install Go 1.21 or later by hand, from go.dev or your system's backports", For: "component images"},
	}
}

// find fills in where the programs are and returns the packages of the missing
// ones, or the program's name where there is no package.
func find(all []need) (missing []string) {
	for i := range all {
		path, err := exec.LookPath(all[i].Program)
		if err != nil {
			missing = append(missing, cmp.Or(all[i].Package, all[i].Program))
			continue
		}
		all[i].Path = path
	}
	return missing
}

func doctorCommand(o *options) *cobra.Command {
	var install, tests, asJSON bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Say what this host can do, what is missing, and how to get it",
		Long: `Looks for the programs seatrial needs, and runs a small guest to find out which
accelerator works: a device node proves nothing. Exit status 3 if anything is
missing. With --install, missing packages are installed through apt-get first.`,
		Example: `  seatrial doctor
  seatrial doctor --install          # gets what is missing, where apt-get is
  seatrial doctor --arch arm64 --json`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			all := needs(o.arch)
			if tests {
				// Go's race detector is linked through cgo; the package brings the C library's headers as well.
				all = append(all, need{Program: "gcc", Package: "build-essential", For: "the race detector"})
			}
			missing := find(all)
			if install { // what is only needed for media as well, once it installs at all
				missing = append(missing, missingForMedia(o.arch)...)
			}
			if install && len(missing) > 0 {
				var err error
				if missing, err = installMissing(cmd.Context(), all, missing); err != nil {
					return err
				}
			}
			if len(missing) > 0 {
				return sayMissing(all, missing, asJSON)
			}
			return sayHost(cmd.Context(), o, all, asJSON)
		},
	}
	cmd.Flags().BoolVar(&install, "install", false, "install what is missing (Debian and Ubuntu, as root or through sudo)")
	cmd.Flags().BoolVar(&tests, "tests", false, "look for what seatrial's own tests need, too: a C compiler")
	cmd.Flags().BoolVar(&asJSON, "json", false, "write the findings as JSON")
	return cmd
}

// sayMissing says what to install, and ends with the status of a host that lacks something.
func sayMissing(all []need, missing []string, asJSON bool) error {
	if asJSON {
		if err := writeJSON(map[string]any{"programs": all, "missing": missing}); err != nil {
			return err
		}
		return exitError{exitInfra}
	}
	for _, n := range all {
		switch {
		case n.Path != "":
		case n.Package == "":
			fmt.Fprintf(os.Stderr, "missing: %s (for %s): %s\n", n.Program, n.For, n.Get)
		default:
			fmt.Fprintf(os.Stderr, "missing: %s (for %s), in Debian's package %s\n", n.Program, n.For, n.Package)
		}
	}
	packages := packaged(all, missing)
	if len(packages) == 0 {
		return exitError{exitInfra}
	}
	if _, err := exec.LookPath("apt-get"); err == nil {
		fmt.Fprintf(os.Stderr, "install: apt-get install %s\nor: seatrial doctor --install\n", strings.Join(packages, " "))
	} else {
		fmt.Fprintln(os.Stderr, "no apt-get here: install these programs with your system's own tools; the packages may have other names there")
	}
	return exitError{exitInfra}
}

func sayHost(ctx context.Context, o *options, all []need, asJSON bool) error {
	h, err := o.host(ctx)
	if err != nil {
		return err
	}
	if asJSON {
		h.Devices = nil // hundreds, which QEMU lists as well
		return writeJSON(map[string]any{"programs": all, "missing": []string{}, "host": h, "media": mediaNeeds(o.arch)})
	}
	for _, n := range all {
		fmt.Printf("%-20s %s\n", n.Program, n.Path)
	}
	for _, n := range mediaNeeds(o.arch) {
		if n.Path == "" {
			fmt.Printf("%-20s missing, only needed for %s: apt-get install %s\n", filepath.Base(n.Program), n.For, n.Package)
		}
	}
	fmt.Printf("%-20s %s\n%-20s %s, CPU model %s: %s\n%-20s %.1f: %s\n", "QEMU", h.Version,
		"accelerator", h.Accel.Name, h.Accel.CPU, printable(h.Accel.Why), "deadlines times", h.Scale, h.Why)
	if h.SmallPages {
		fmt.Printf("%-20s off for QEMU: this host returns free memory to its hypervisor, and each would have to be fetched again\n", "huge pages")
	}
	return nil
}

// packaged are those of the missing things that are packages.
func packaged(all []need, missing []string) []string {
	return slices.DeleteFunc(slices.Clone(missing), func(name string) bool {
		return slices.ContainsFunc(all, func(n need) bool { return n.Package == "" && n.Program == name })
	})
}

// installMissing installs packages through the system's own apt-get and
// returns what is missing all the same; without apt-get nothing can be done.
func installMissing(ctx context.Context, all []need, packages []string) (missing []string, err error) {
	apt, err := exec.LookPath("apt-get")
	packages = packaged(all, packages)
	if err != nil || len(packages) == 0 {
		return find(all), nil
	}
	prefix := []string{apt}
	if os.Geteuid() != 0 {
		sudo, err := exec.LookPath("sudo")
		if err != nil {
			return nil, fmt.Errorf("cannot install: neither root nor sudo here; as root: apt-get install %s", strings.Join(packages, " "))
		}
		prefix = []string{sudo, apt}
	}
	for _, args := range [][]string{{"update"}, append([]string{"install", "-y", "--no-install-recommends"}, packages...)} {
		argv := append(append([]string{}, prefix...), args...)
		fmt.Fprintln(os.Stderr, strings.Join(argv, " "))
		c := exec.CommandContext(ctx, argv[0], argv[1:]...)
		c.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stderr, os.Stderr
		if err := c.Run(); err != nil {
			return nil, fmt.Errorf("%s: %w", strings.Join(argv, " "), err)
		}
	}
	return find(all), nil
}

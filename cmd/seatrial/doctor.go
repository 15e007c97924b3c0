package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/spf13/cobra"

	"github.com/seatrial/seatrial/harness"
)

// need is something the host must have.
type need struct {
	Program string `json:"program"`
	Package string `json:"package"` // of Debian and Ubuntu
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
	}
}

// find fills in where the programs are and returns the packages of the missing ones.
func find(all []need) (missing []string) {
	for i := range all {
		path, err := exec.LookPath(all[i].Program)
		if err != nil {
			missing = append(missing, all[i].Package)
			continue
		}
		all[i].Path = path
	}
	return missing
}

func doctorCommand(o *options) *cobra.Command {
	var install, asJSON bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Say what this host can do, what is missing, and how to get it",
		Long: `Looks for the programs seatrial needs, and runs a small guest to find out which
accelerator works: a device node proves nothing. Exit status 3 if anything is
missing. With --install, missing packages are installed through apt-get first.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			all := needs(o.arch)
			missing := find(all)
			if install && len(missing) > 0 {
				if err := aptInstall(cmd, missing); err != nil {
					return err
				}
				missing = find(all)
			}
			if len(missing) > 0 {
				return sayMissing(all, missing, asJSON)
			}
			return sayHost(cmd, o, all, asJSON)
		},
	}
	cmd.Flags().BoolVar(&install, "install", false, "install what is missing (Debian and Ubuntu, as root or through sudo)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "write the findings as JSON")
	return cmd
}

func sayMissing(all []need, missing []string, asJSON bool) error {
	if asJSON {
		if err := writeJSON(map[string]any{"programs": all, "missing": missing}); err != nil {
			return err
		}
		return exitError{exitInfra}
	}
	for _, n := range all {
		if n.Path == "" {
			fmt.Fprintf(os.Stderr, "missing: %s (for %s), in Debian's package %s\n", n.Program, n.For, n.Package)
		}
	}
	fmt.Fprintf(os.Stderr, "on Debian and Ubuntu: apt-get install %s\nor: seatrial doctor --install\n", strings.Join(missing, " "))
	return exitError{exitInfra}
}

func sayHost(cmd *cobra.Command, o *options, all []need, asJSON bool) error {
	cache, err := o.cacheDir()
	if err != nil {
		return err
	}
	h, err := harness.Survey(cmd.Context(), o.arch, cache)
	if err != nil {
		fmt.Fprintf(os.Stderr, "seatrial: %v\n", err)
		return exitError{exitInfra}
	}
	if asJSON {
		return writeJSON(map[string]any{"programs": all, "missing": []string{}, "host": h})
	}
	for _, n := range all {
		fmt.Printf("%-20s %s\n", n.Program, n.Path)
	}
	fmt.Printf("%-20s %s\n%-20s %s, CPU model %s: %s\n%-20s %.1f: %s\n", "QEMU", h.Version,
		"accelerator", h.Accel.Name, h.Accel.CPU, h.Accel.Why, "deadlines times", h.Scale, h.Why)
	return nil
}

func writeJSON(v any) error {
	e := json.NewEncoder(os.Stdout)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// aptInstall installs packages through the system's own apt-get.
func aptInstall(cmd *cobra.Command, packages []string) error {
	apt, err := exec.LookPath("apt-get")
	if err != nil {
		return fmt.Errorf("no apt-get here: install these yourself, by the names your system gives them: %s", strings.Join(packages, " "))
	}
	prefix := []string{apt}
	if os.Geteuid() != 0 {
		prefix = []string{"sudo", apt}
	}
	for _, args := range [][]string{{"update"}, append([]string{"install", "-y", "--no-install-recommends"}, packages...)} {
		argv := append(append([]string{}, prefix...), args...)
		fmt.Fprintln(os.Stderr, strings.Join(argv, " "))
		c := exec.CommandContext(cmd.Context(), argv[0], argv[1:]...)
		c.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		c.Stdout, c.Stderr = os.Stderr, os.Stderr
		if err := c.Run(); err != nil {
			return fmt.Errorf("%s: %w", strings.Join(argv, " "), err)
		}
	}
	return nil
}

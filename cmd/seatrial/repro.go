package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/seatrial/seatrial/harness"
	"github.com/seatrial/seatrial/images"
	"github.com/seatrial/seatrial/qemu"
)

func reproCommand(o *options) *cobra.Command {
	var escape string
	cmd := &cobra.Command{
		Use:   "repro EVIDENCE",
		Short: "Boot a machine again from the evidence it left, with its console on this terminal",
		Long: `Reads ` + harness.FileMachine + ` in a machine's evidence folder (RUN/machines/NAME) and boots
the same kernel, initramfs, command line, memory, CPUs and devices once more, as
run does. The image must still be in the cache; nothing is built. What the spec
did with the machine is not repeated, writable disks are as they are now, and on
a network of machines it is alone.`,
		Example: `  seatrial repro out/latest/machines/my-machine-1.3`,
		Args:    cobra.ExactArgs(1), ValidArgsFunction: folders,
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := parseEscape(escape)
			if err != nil {
				return misuse{err}
			}
			plan, arch, err := readPlan(args[0])
			if err != nil {
				return misuse{err}
			}
			if isTerminal(os.Stdin) && !o.attended {
				return supervise(cmd.Context())
			}
			o.arch = arch
			h, err := o.host(cmd.Context())
			if err != nil {
				return err
			}
			return o.boot(cmd.Context(), h, plan, key)
		},
	}
	cmd.Flags().StringVar(&escape, "escape", "^]", "key that ends the machine: ^X for Ctrl-X, or none")
	return cmd
}

// readPlan makes the plan of a machine that was, and its architecture.
func readPlan(dir string) (harness.Plan, string, error) {
	var p harness.Plan
	path := filepath.Join(dir, harness.FileMachine)
	b, err := os.ReadFile(path)
	if err != nil {
		return p, "", fmt.Errorf("no evidence of a machine: %w; give RUN/machines/NAME", err)
	}
	var c qemu.Config
	if err := json.Unmarshal(b, &c); err != nil {
		return p, "", fmt.Errorf("%s: %w", path, err)
	}
	for _, file := range []string{c.Kernel, c.Initrd} {
		if _, err := os.Stat(file); file != "" && errors.Is(err, fs.ErrNotExist) {
			return p, "", fmt.Errorf("the image of machine %s is gone from the cache: %s; build it again from the same YAML and components, here", c.Name, file)
		}
	}
	return harness.Plan{
		Name: c.Name, Cmdline: c.Cmdline, CPUs: c.CPUs, MemoryMiB: c.MemoryMiB, Disks: c.Disks, NICs: c.NICs, RTC: c.RTC,
		Balloon: c.Balloon, TPM: c.TPM, Vars: c.Boot.Vars, Vsock: c.Vsock, Extra: c.Extra,
		NoInitrd: c.Initrd == "", NoAgent: !c.Agent,
		Image: &images.Image{Name: c.Name, Arch: c.Arch, KernelPath: c.Kernel, InitrdPath: c.Initrd, Cmdline: c.Cmdline},
	}, c.Arch, nil
}

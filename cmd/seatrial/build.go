package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
)

// builtImage is what build --json says.
type builtImage struct {
	Name    string   `json:"name"`
	Arch    string   `json:"arch"`
	Digest  string   `json:"digest"`
	Cmdline string   `json:"cmdline"`
	Files   []string `json:"files"`
}

func buildCommand(o *options) *cobra.Command {
	var dir string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "build [image.yml]",
		Short: "Build an image: kernel, initramfs and kernel command line",
		Long: `Builds the image that the YAML file describes (without one: the image that
ships) and writes NAME-kernel, NAME-initrd.img and NAME-cmdline. The same input
gives the same bytes. Components of seatrial's own that the image names are
brought up to date first.`,
		Example: `  seatrial build                        # the image that ships, into this folder
  seatrial build my.yml -o out          # mine
  seatrial build my.yml --arch arm64 --json`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: yamlFiles,
		RunE: func(cmd *cobra.Command, args []string) error {
			d := newDisplay(os.Stderr)
			im, err := o.image(cmd.Context(), args, d)
			d.close()
			if err != nil {
				return err
			}
			undo := foldersToMake(filepath.Clean(dir))
			paths, err := im.Export(dir, im.Name)
			if err != nil {
				undo()
				return remedy(err, "-o")
			}
			if asJSON {
				return writeJSON(builtImage{im.Name, im.Arch, im.Digest, im.Cmdline, paths})
			}
			for _, p := range paths {
				fmt.Println(p)
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&dir, "output", "o", ".", "folder for the files, made if missing")
	cmd.Flags().BoolVar(&asJSON, "json", false, "write name, digest, command line and files as JSON")
	return cmd
}

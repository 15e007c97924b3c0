package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/seatrial/seatrial/images/component"
)

func componentsCommand(o *options) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "components [name...]",
		Short: "Build the component images that are not up to date",
		Long: `Makes kernel, init, runc, containerd and the others out of Debian packages and
Go programs, into the local store below the cache folder. Cold it takes a few
minutes, afterwards only what changed is built. The other verbs do this by
themselves for the components that an image names.`,
		Example: `  seatrial components                      # all of them
  seatrial components kernel init          # these two
  seatrial components --arch arm64 --json  # with what each was made of`,
		ValidArgs: component.Names(),
		Args:      cobra.OnlyValidArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				args = component.Names()
			}
			d := newDisplay(os.Stderr)
			built, err := o.components(cmd.Context(), args, d)
			d.close()
			if err != nil {
				return err
			}
			if asJSON {
				return writeJSON(built)
			}
			for _, b := range built {
				fmt.Println(b.Ref, b.Digest)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "write reference, digest and inputs of each as JSON")
	return cmd
}

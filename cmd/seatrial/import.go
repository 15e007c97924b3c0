package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func importCommand(o *options) *cobra.Command {
	var ref string
	cmd := &cobra.Command{
		Use:   "import ARCHIVE|FOLDER...",
		Short: "Put images from archives and OCI layouts into the local store",
		Long: `Reads what docker save, podman save, skopeo and buildx write, in the docker or
the OCI form, compressed or not, or a folder that is an OCI layout, and puts the
images into the store below the cache folder; "-" is standard input. From there a YAML file uses them by name, without a registry.
The names are printed.`,
		Example: `  docker save my/app:1 -o app.tar && seatrial import app.tar
  docker save my/app:1 | seatrial import -
  seatrial import app.oci.tar --name my/app:1
  skopeo copy docker://alpine oci:layout && seatrial import layout --name alpine`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, store, err := o.openStore()
			if err != nil {
				return err
			}
			for _, file := range args {
				names, err := store.Import(cmd.Context(), file, ref)
				if err != nil {
					return misuse{err}
				}
				for _, name := range names {
					fmt.Println(name)
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&ref, "name", "", "name of the image, if the archive has none or another is wanted")
	return cmd
}

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/seatrial/seatrial/images"
)

func pruneCommand(o *options) *cobra.Command {
	var gib float64
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Make the cache smaller: built images, media, and images nobody needs",
		Long: `Removes from the store what no image has any more, then, of built images and
media and of fetched images, those used longest ago until each of the two holds
no more than the limit. What is in use is left, and so are seatrial's own
components. Builds keep their cache below 8 GiB by themselves.`,
		Example: "  seatrial prune --limit 2",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if gib < 0 {
				return misusef("--limit %g: give 0 or more", gib)
			}
			cache, store, err := o.openStore()
			if err != nil {
				return err
			}
			limit := int64(gib * (1 << 30))
			built, err := (&images.Builder{Dir: filepath.Join(cache, "images")}).Prune(limit)
			if errors.Is(err, os.ErrNotExist) {
				err = nil // nothing was ever built
			}
			// The store takes 0 for no limit, and here it means as little as can be.
			fetched, errStore := store.Prune(cmd.Context(), max(limit, 1))
			fmt.Printf("%.1f MB freed\n", float64(built+fetched)/1e6)
			return remedy(errors.Join(err, errStore), "--cache")
		},
	}
	cmd.Flags().Float64Var(&gib, "limit", 8, "GiB that built images, and the store, may hold")
	return cmd
}

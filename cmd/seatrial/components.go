package main

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/seatrial/seatrial"
	"github.com/seatrial/seatrial/images/component"
)

func componentsCommand(o *options) *cobra.Command {
	var asJSON, update bool
	cmd := &cobra.Command{
		Use:   "components [name...]",
		Short: "Build the component images that are not up to date",
		Long: `Makes kernel, init, runc, containerd and the others out of Debian packages and
Go programs, into the local store below the cache folder. Cold it takes a few
minutes, afterwards only what changed is built. The other verbs do this by
themselves for the components that an image names.

The inputs and their versions are those of the lock file that was compiled in.
A package that is not served any more in its locked version is taken in the
newest one, and the difference is shown; with --locked it is an error.

--update-lock, in a checkout, looks up the newest inputs for both architectures,
writes ` + component.LockPath + ` and shows what changed.`,
		Example: `  seatrial components                      # all of them
  seatrial components kernel init          # these two
  seatrial components --arch arm64 --json  # with what each was made of
  seatrial components --update-lock        # what is newer than the lock file`,
		ValidArgs: component.Names(),
		Args:      cobra.OnlyValidArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if update {
				return updateLock(cmd.Context(), o, args)
			}
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
	cmd.Flags().BoolVar(&o.locked, "locked", false, "fail if a component cannot be made as the lock file says")
	cmd.Flags().BoolVar(&update, "update-lock", false, "refresh the lock file for both architectures and show the difference")
	cmd.MarkFlagsMutuallyExclusive("locked", "update-lock")
	cmd.MarkFlagsMutuallyExclusive("json", "update-lock")
	return cmd
}

// updateLock refreshes the lock file of the checkout it is called in. An
// error, or an interruption, leaves the file as it was.
func updateLock(ctx context.Context, o *options, names []string) error {
	if len(names) > 0 {
		return misusef("--update-lock refreshes the lock of all components: name none")
	}
	text, err := os.ReadFile(component.LockPath)
	if err != nil {
		return misusef("--update-lock works on the file %s of a checkout of seatrial: change into its folder: %w", component.LockPath, err)
	}
	old, err := component.ParseLock(text)
	if err != nil {
		return err
	}
	cache, err := o.cacheDir()
	if err != nil {
		return err
	}
	d := newDisplay(os.Stderr)
	fresh, err := component.UpdateLock(ctx, component.Options{
		Cache: cache, Source: seatrial.Source, Progress: func(name, step string) { d.set("lock", name+": "+step) },
	})
	d.drop("lock")
	d.close()
	if err != nil {
		return err
	}
	counts := map[string]int{}
	for _, c := range component.Diff(old, fresh) {
		counts[c.What()]++
		fmt.Println(c)
	}
	if len(counts) == 0 {
		fmt.Println("the lock file is up to date")
		return nil
	}
	if text, err = fresh.Encode(); err != nil {
		return err
	}
	if err := replaceFile(component.LockPath, text); err != nil {
		return err
	}
	fmt.Printf("%d added, %d changed, %d removed; rebuild seatrial to use the new lock file\n", counts["added"], counts["changed"], counts["removed"])
	return nil
}

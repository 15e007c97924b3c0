package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/seatrial/seatrial/images"
)

// builtImage is what build --json says.
type builtImage struct {
	Name    string   `json:"name"`
	Arch    string   `json:"arch"`
	Digest  string   `json:"digest"`
	Cmdline string   `json:"cmdline"`
	Files   []string `json:"files"`

	Media []builtMedium `json:"media"`
}

func buildCommand(o *options) *cobra.Command {
	var dir, sbom string
	var asJSON bool
	var names []string
	cmd := &cobra.Command{
		Use:   "build [image.yml...]",
		Short: "Build an image: kernel and initramfs, or any medium to boot from",
		Long: `Builds the image that the YAML file describes (without one: the image that
ships; several are merged from left to right; "-" is standard input) and writes
it in every format that is asked for. The same input gives the same bytes; the
digest of each is printed on standard error. Components of seatrial's own that
the image names are brought up to date first. Formats:

` + formatHelp(),
		Example: `  seatrial build                        # the image that ships, into this folder
  seatrial build my.yml -o out          # mine
  seatrial build base.yml extra.yml -f iso-efi -f qcow2-bios
  seatrial build my.yml --arch arm64 --json
  seatrial build my.yml --sbom my.cdx.json   # and what it consists of`,
		ValidArgsFunction: yamlFiles,
		RunE: func(cmd *cobra.Command, args []string) error {
			list, err := formats(names, o.arch)
			if err != nil {
				return err
			}
			if info, err := os.Stat(sbom); err == nil && info.IsDir() {
				return misusef("--sbom %s is a folder; give the name of the file to write", sbom)
			}
			spec, err := loadSpec(cmd.Context(), o.arch, args)
			if err != nil {
				return err
			}
			d := newDisplay(os.Stderr)
			im, err := o.imageOf(cmd.Context(), spec, d)
			var made []*images.Media
			if err == nil {
				made, err = o.media(cmd.Context(), im, list, "", d)
			}
			d.close()
			if err != nil {
				return err
			}
			if sbom != "" {
				if err := o.writeBOM(cmd.Context(), spec, im, sbom); err != nil {
					return err
				}
			}
			undo := foldersToMake(filepath.Clean(dir))
			built := builtImage{Name: im.Name, Arch: im.Arch, Digest: im.Digest, Cmdline: im.Cmdline}
			for _, m := range made {
				paths, err := m.Export(dir, im.Name)
				if err != nil {
					undo()
					return remedy(err, "-o")
				}
				built.Files = append(built.Files, paths...)
				built.Media = append(built.Media, builtMedium{m.Format, m.Digest, m.Cmdline, paths})
			}
			if asJSON {
				return writeJSON(built)
			}
			for _, m := range built.Media {
				fmt.Fprintf(os.Stderr, "%s: %s %s\n", im.Name, m.Format, m.Digest)
			}
			for _, p := range built.Files {
				fmt.Println(p)
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&dir, "output", "o", ".", "folder for the files, made if missing")
	cmd.Flags().StringSliceVarP(&names, "format", "f", []string{string(images.KernelInitrd)}, "what to make; may be given more than once")
	cmd.Flags().StringVar(&sbom, "sbom", "", "also write the image's bill of materials to this file, as CycloneDX JSON")
	o.mirrorFlag(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "write name, digest, command line and files as JSON")
	return cmd
}

// writeBOM writes the bill of materials of an image to a file.
func (o *options) writeBOM(ctx context.Context, spec *images.Spec, im *images.Image, file string) error {
	_, store, err := o.openStore()
	if err != nil {
		return err
	}
	b := &images.Builder{Source: images.ResolveVia(store, o.via, nil), Arch: o.arch}
	text, err := b.BOM(ctx, spec, im)
	if err != nil {
		return err
	}
	return remedy(replaceFile(file, text), "--sbom")
}

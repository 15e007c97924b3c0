package main

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"

	"github.com/seatrial/seatrial/images"
	"github.com/seatrial/seatrial/qemu"
)

// builtMedium is what build --json says of a medium.
type builtMedium struct {
	Format  images.Format `json:"format"`
	Digest  string        `json:"digest"`
	Cmdline string        `json:"cmdline"`
	Files   []string      `json:"files"`
}

// formatHelp lists the formats with what they are.
func formatHelp() string {
	var b strings.Builder
	for _, f := range images.Formats() {
		fmt.Fprintf(&b, "  %-16s %s\n", f, f.About())
	}
	return b.String()
}

// formats checks the formats that were asked for, before anything is built.
func formats(names []string, arch string) ([]images.Format, error) {
	var list []images.Format
	for _, name := range names {
		f := images.Format(name)
		switch {
		case f.About() == "":
			return nil, misusef("unknown format %q; there are:\n%s", name, strings.TrimRight(formatHelp(), "\n"))
		case !f.Supports(arch):
			return nil, misusef("there is no BIOS on %s, so no %s; choose a format for UEFI, or kernel+initrd", arch, f)
		}
		list = append(list, f)
	}
	return list, nil
}

// media makes media of an image, with a kernel command line instead of its own
// if that is not empty.
func (o *options) media(ctx context.Context, im *images.Image, list []images.Format, cmdline string, d *display) ([]*images.Media, error) {
	if slices.ContainsFunc(list, func(f images.Format) bool { return f.NeedsLoader(im.Arch) }) {
		if _, err := o.components(ctx, []string{images.LoaderName}, d); err != nil {
			return nil, err
		}
	}
	b, err := o.builder(im.Name, d)
	if err != nil {
		return nil, err
	}
	defer d.drop("image " + im.Name)
	var made []*images.Media
	for _, f := range list {
		if lost := im.Lost(f); lost != "" {
			d.say("note: %s", lost)
		}
		m, err := b.Media(ctx, im, f, cmdline)
		if err != nil {
			return nil, remedy(err, "--cache")
		}
		made = append(made, m)
	}
	return made, nil
}

// mediaNeeds are the programs for media and for rare devices that this host
// lacks or has. Nothing else needs them, so their absence is no failure of the
// host.
func mediaNeeds(arch string) []need {
	var all []need
	for _, t := range images.Tools() {
		all = append(all, need{Program: t.Name, Package: t.Package, For: t.For, Path: t.Find()})
	}
	firmware, _, err := qemu.Firmware(arch)
	if err != nil {
		firmware = ""
	}
	tpm, err := exec.LookPath("swtpm")
	if err != nil {
		tpm = ""
	}
	return append(all, need{Program: "UEFI firmware", Package: qemu.FirmwarePackage(arch), For: "booting UEFI media", Path: firmware},
		need{Program: "swtpm", Package: "swtpm", For: "machines with a TPM", Path: tpm})
}

// missingForMedia are the packages of the programs of mediaNeeds that
// are not here, each once.
func missingForMedia(arch string) []string {
	var packages []string
	for _, n := range mediaNeeds(arch) {
		if n.Path == "" && !slices.Contains(packages, n.Package) {
			packages = append(packages, n.Package)
		}
	}
	return packages
}

package component

import (
	"path"
	"slices"

	"github.com/seatrial/seatrial/images"
)

// efiRecipe is the boot loaders of UEFI media. They come as a component, not
// from the host, so that media are made for either architecture on any host
// and of what the lock file says.
func efiRecipe() recipe {
	return recipe{
		name: images.LoaderName, debs: []string{"systemd-boot-efi", "grub-efi-ARCH-bin"}, make: makeEFI,
		// Without what installs a loader on the machine that runs.
		wants: func(name string) bool {
			return slices.Contains([]string{"systemd-boot-efi", "grub-efi-amd64-bin", "grub-efi-arm64-bin"}, name)
		},
	}
}

// makeEFI takes systemd-boot, for disks and CDs, and the GRUB that Debian
// links with everything that network boot needs.
func makeEFI(k *kitchen) ([]file, error) {
	word := map[string]string{"amd64": "x64", "arm64": "aa64"}[k.Arch] // UEFI's for the architecture
	all, err := k.files(func(name string) bool { return path.Ext(name) == ".efi" })
	if err != nil {
		return nil, err
	}
	var files []file
	for at, to := range map[string]string{
		"usr/lib/systemd/boot/efi/systemd-boot" + word + ".efi":                      images.DiskLoader,
		"usr/lib/grub/" + grubFolder(k.Arch) + "/monolithic/grubnet" + word + ".efi": images.NetLoader,
	} {
		f, err := pick(all, at)
		if err != nil {
			return nil, err
		}
		f.name, f.mode = to, 0o644
		files = append(files, f)
	}
	return files, nil
}

// grubFolder is GRUB's name of an architecture under UEFI.
func grubFolder(arch string) string {
	if arch == "arm64" {
		return "arm64-efi"
	}
	return "x86_64-efi"
}

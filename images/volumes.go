package images

import (
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seatrial/seatrial/boot"
)

// Volume is a tree that containers share: a bind or mount whose source is not
// a path names one.
type Volume struct {
	Name      string   `yaml:"name"`
	Image     string   `yaml:"image"`     // what it holds at first; empty: nothing
	Readonly  bool     `yaml:"readonly"`  // who binds it must say so too
	Format    string   `yaml:"format"`    // "filesystem" (default), or "oci": the image itself, as a layout
	Platforms []string `yaml:"platforms"` // of format oci, such as linux/arm64; default: the machine's own
}

var volumeName = regexp.MustCompile(`^[a-z0-9_-]+$`)

func (d *decoder) checkVolumes(s *Spec) {
	first := map[string]int{}
	for i, v := range s.Volumes {
		at := fmt.Sprintf("volumes[%d]", i)
		switch j, twice := first[v.Name]; {
		case d.bad(at + ".name"):
		case v.Name == "":
			d.problem(at+".name", "is missing", "name the volume; binds use the name as their source")
		case !volumeName.MatchString(v.Name):
			d.problem(at+".name", fmt.Sprintf("%q cannot name a volume", v.Name), "use small letters, digits, _ and -")
		case twice:
			d.problem(at+".name", fmt.Sprintf("the volume name %q is already used by volumes[%d]", v.Name, j), "give each volume a name of its own")
		default:
			first[v.Name] = i
		}
		if v.Image != "" {
			d.reference(at+".image", v.Image, "")
		}
		d.checkVolumeFormat(at, v)
	}
}

func (d *decoder) checkVolumeFormat(at string, v Volume) {
	switch v.Format {
	case "", "filesystem":
		if len(v.Platforms) > 0 {
			d.problem(at+".platforms", "has no effect without format: oci", "add the format, or remove it")
		}
	case "oci":
		if v.Image == "" {
			d.problem(at+".image", "is missing", "format oci needs an image")
		}
	default:
		d.problem(at+".format", fmt.Sprintf("%q is no format of a volume", v.Format), "write filesystem or oci")
	}
	for i, p := range v.Platforms {
		if _, err := architecture(p); err != nil {
			d.problem(fmt.Sprintf("%s.platforms[%d]", at, i), err.Error(), "write it as linux/amd64")
		}
	}
}

// architecture is that of a platform such as linux/arm64.
func architecture(platform string) (string, error) {
	p, err := v1.ParsePlatform(platform)
	if err != nil || p.OS != "linux" || p.Architecture == "" {
		return "", fmt.Errorf("%q is not a platform of Linux", platform)
	}
	return p.Architecture, nil
}

// architectures are those whose images a volume of format oci holds.
func (v Volume) architectures(own string) []string {
	var list []string
	for _, p := range v.Platforms {
		if arch, err := architecture(p); err == nil { // checked when the spec was parsed
			list = append(list, arch)
		}
	}
	if list == nil {
		list = []string{own}
	}
	return list
}

// volumes are the spec's volumes by name.
func (s *Spec) volumes() map[string]Volume {
	m := map[string]Volume{}
	for _, v := range s.Volumes {
		m[v.Name] = v
	}
	return m
}

// fromVolume puts the volume's path in the place of a name in a bind's source.
func fromVolume(m specs.Mount, volumes map[string]Volume) (specs.Mount, error) {
	bind := m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
	if !bind || path.IsAbs(m.Source) {
		return m, nil
	}
	v, ok := volumes[m.Source]
	if !ok {
		hint := "add one to volumes; a path begins with a slash"
		if len(volumes) > 0 {
			hint = didYouMean(m.Source, slices.Sorted(maps.Keys(volumes)))
		}
		return m, advisedf(hint, "there is no volume %q", m.Source)
	}
	if v.Readonly && !slices.Contains(m.Options, "ro") {
		return m, advisedf("add :ro to the bind, or the option ro to the mount", "volume %s is read-only, and bound to be written", v.Name)
	}
	m.Source = path.Join(boot.VolumesDir, v.Name, "merged")
	return m, nil
}

// place puts a volume into the root: its first contents in lower, and where
// it is mounted in merged. What is written goes to tmp; a read-only volume has
// none, which is how the machine knows it by.
func (v Volume) place(root, files *tree) error {
	at := strings.TrimPrefix(path.Join(boot.VolumesDir, v.Name), "/")
	dirs := []string{"lower", "merged"}
	if !v.Readonly {
		dirs = append(dirs, "tmp")
	}
	for _, d := range dirs {
		if err := root.put(path.Join(at, d), newDir(0o755)); err != nil {
			return err
		}
	}
	if files == nil {
		return nil
	}
	if err := root.put(path.Join(at, "lower"), files.root.bare()); err != nil {
		return err
	}
	return root.overlay(path.Join(at, "lower"), files.root)
}

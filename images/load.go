package images

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// Text is a YAML text and the name of the file it comes from.
type Text struct {
	Name string
	Data []byte
}

// stdin is the argument that stands for standard input, and stdinName what
// errors call it.
const (
	stdin     = "-"
	stdinName = "<standard input>"
)

// LoadSpec reads YAML files and parses them with [ParseSpecs]; "-" is standard
// input. An address (http, https) is refused: what a machine consists of should
// not depend on what a server answers today. What waits for a pipe ends with ctx.
func LoadSpec(ctx context.Context, paths ...string) (*Spec, error) {
	var texts []Text
	for _, path := range paths {
		t := Text{Name: path}
		var err error
		switch {
		case strings.HasPrefix(path, "http://"), strings.HasPrefix(path, "https://"):
			return nil, fmt.Errorf("images: %s: YAML is not fetched from the network: get it with curl -f and give the file, or pipe it in and give %q", path, stdin)
		case path == stdin:
			t.Name = stdinName
			in := io.LimitReader(os.Stdin, maxYAML+1)
			t.Data, err = unlessDone(ctx, func() ([]byte, error) { return io.ReadAll(in) })
		default:
			t.Data, err = unlessDone(ctx, func() ([]byte, error) { return readYAML(path) })
		}
		if err != nil {
			return nil, fmt.Errorf("images: cannot read the image's YAML: %w", err)
		}
		texts = append(texts, t)
	}
	return ParseSpecs(texts...)
}

// unlessDone returns what read does, or the end of ctx. Opening a FIFO waits for a
// writer, and reading one for what it writes; no signal ends either. The process
// soon does, then.
func unlessDone(ctx context.Context, read func() ([]byte, error)) (data []byte, err error) {
	done := make(chan struct{})
	var got []byte
	var failed error
	go func() {
		defer close(done)
		got, failed = read()
	}()
	select {
	case <-done:
		return got, failed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// readYAML reads no more than a spec may have, and one byte to show it.
func readYAML(path string) (data []byte, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return nil, fmt.Errorf("%s is a folder: name the YAML file in it", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxYAML+1))
}

// ParseSpec is [ParseSpecs] for one text.
func ParseSpec(name string, src []byte) (*Spec, error) { return ParseSpecs(Text{name, src}) }

// ParseSpecs parses LinuxKit YAML texts and merges them from left to right:
// lists are put behind one another, and fields of the kernel replace earlier
// ones if they are not empty. What one text needs, such as a kernel or a
// volume, another may have.
//
// The name of a text stands in errors, the first one gives Spec.Name, and a
// relative files[].source is taken from the text's folder; "~/" is the user's
// home. The error is a [*SpecError] with all problems of all texts.
func ParseSpecs(texts ...Text) (*Spec, error) {
	if len(texts) == 0 {
		return nil, fmt.Errorf("images: no YAML file given")
	}
	s := &Spec{Name: specName(texts[0].Name), at: map[string]place{}}
	all := &decoder{file: texts[0].Name, at: s.at}
	sound := true // else the whole cannot be judged
	for _, t := range texts {
		part, d := &Spec{}, &decoder{file: t.Name, at: map[string]place{}}
		root := d.parse(t.Data)
		if root != nil {
			d.decodeStruct(root, part)
			d.hostPaths(part)
		}
		sound = sound && root != nil && root.Kind == yaml.MappingNode
		s.merge(part, d, all)
	}
	if sound {
		all.checkSpec(s)
	}
	if err := all.err(); err != nil {
		return nil, err
	}
	return s, nil
}

// specName is the base name of a file without its suffix.
func specName(file string) string {
	if file == stdinName {
		return "image"
	}
	base := filepath.Base(file)
	return strings.TrimSuffix(strings.TrimSuffix(base, ".yml"), ".yaml")
}

// merge puts a part behind what was merged before, with its places and problems.
func (s *Spec) merge(part *Spec, from, to *decoder) {
	first := map[string]int{
		"init": len(s.Init), "onboot": len(s.Onboot), "onshutdown": len(s.Onshutdown),
		"services": len(s.Services), "files": len(s.Files), "volumes": len(s.Volumes),
	}
	for path, p := range from.at {
		if _, have := to.at[path]; path != "" || !have {
			to.at[moved(path, first)] = p
		}
	}
	for path := range from.broken {
		if to.broken == nil {
			to.broken = map[string]bool{}
		}
		to.broken[moved(path, first)] = true
	}
	for _, p := range from.problems {
		p.Field = moved(p.Field, first)
		to.problems = append(to.problems, p)
	}
	s.Kernel.merge(part.Kernel)
	s.Init = append(s.Init, part.Init...)
	s.Onboot = append(s.Onboot, part.Onboot...)
	s.Onshutdown = append(s.Onshutdown, part.Onshutdown...)
	s.Services = append(s.Services, part.Services...)
	s.Files = append(s.Files, part.Files...)
	s.Volumes = append(s.Volumes, part.Volumes...)
}

func (k *Kernel) merge(over Kernel) {
	for _, f := range []struct{ to, from *string }{{&k.Image, &over.Image}, {&k.Cmdline, &over.Cmdline}, {&k.Ucode, &over.Ucode}} {
		if *f.from != "" {
			*f.to = *f.from
		}
	}
	if str(over.Binary) != "" {
		k.Binary = over.Binary
	}
	if over.Tar != nil {
		k.Tar = over.Tar // empty means none
	}
}

// moved is a path with the index of its list raised by that of the list's
// first item.
func moved(path string, first map[string]int) string {
	list, rest, ok := strings.Cut(path, "[")
	if !ok || first[list] == 0 {
		return path
	}
	index, rest, ok := strings.Cut(rest, "]")
	i, err := strconv.Atoi(index)
	if !ok || err != nil {
		return path // no list's, or longer than any
	}
	return fmt.Sprintf("%s[%d]%s", list, i+first[list], rest)
}

// hostPaths resolves the sources that the text names.
func (d *decoder) hostPaths(s *Spec) {
	for i := range s.Files {
		source, err := hostPath(d.file, s.Files[i].Source)
		if err != nil {
			d.problem(fmt.Sprintf("files[%d].source", i), err.Error(), "write the path in full")
		}
		s.Files[i].Source = source
	}
}

// hostPath resolves a source named in a YAML file.
func hostPath(yaml, source string) (string, error) {
	if rest, ok := strings.CutPrefix(source, "~/"); ok {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("the home folder for %q is not known: %w", source, err)
		}
		return filepath.Join(home, rest), nil
	}
	if source == "" || filepath.IsAbs(source) {
		return source, nil
	}
	if yaml == stdinName {
		return source, nil // from the working directory
	}
	return filepath.Join(filepath.Dir(yaml), source), nil
}

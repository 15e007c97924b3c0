package images

import (
	"bytes"
	"cmp"
	"context"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"

	cdx "github.com/CycloneDX/cyclonedx-go"
	"github.com/github/go-spdx/v2/spdxexp/spdxlicenses"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/package-url/packageurl-go"
)

// Part is something that a component image was made of.
type Part struct {
	Kind    string `json:"kind"` // PartDeb, PartGo, or a word of the maker's own
	Name    string `json:"name"`
	Version string `json:"version"`
	Digest  string `json:"digest,omitempty"` // "sha256:..." of a package, go.sum's "h1:..." of a module

	Licenses []License `json:"licenses,omitempty"` // as the part itself names them; nil: not known
}

// License is a licence by its SPDX identifier or, if it has none, in the words
// of the part that is under it.
type License struct {
	ID   string `json:"id,omitempty"`
	Name string `json:"name,omitempty"`
}

// Kinds of part that the bill of materials knows by a package URL.
const (
	PartDeb = "deb" // a Debian package
	PartGo  = "go"  // a Go module
)

// partsKey is the annotation of a manifest that holds an image's parts.
const partsKey = "io.github.seatrial.parts"

// WithParts notes in an image's manifest what it was made of, for [Builder.BOM].
// The note is part of the image: whoever changes it changes the digest.
func WithParts(img v1.Image, parts []Part) (v1.Image, error) {
	text, err := json.Marshal(parts)
	if err != nil {
		return nil, err
	}
	return mutate.Annotations(img, map[string]string{partsKey: string(text)}).(v1.Image), nil
}

// partsOf are the parts noted in an image's manifest; known is false if
// nothing is noted, as in images that others made.
func partsOf(img v1.Image) (parts []Part, known bool, err error) {
	m, err := img.Manifest()
	if err != nil {
		return nil, false, err
	}
	text, known := m.Annotations[partsKey]
	if !known {
		return nil, false, nil
	}
	if err := json.Unmarshal([]byte(text), &parts); err != nil {
		return nil, false, fmt.Errorf("its annotation %s is damaged: %w", partsKey, err)
	}
	return parts, true, nil
}

// BOM is the bill of materials of an image that was built of the spec, in
// CycloneDX 1.6 (JSON): every component image with its layers and what it was
// made of, and every Go program in the root with its modules, which it names
// itself. The same image gives the same bytes: it has no serial number and no
// time. Of images that others made only layers and Go programs are known, and
// the bill says so (compositions).
//
// It is an error if a component image is not any more what the machine was
// built of, or if the image's own files are not what was written.
func (b *Builder) BOM(ctx context.Context, s *Spec, im *Image) ([]byte, error) {
	text, err := b.bom(ctx, s, im)
	if err != nil {
		return nil, fmt.Errorf("images: cannot make the bill of materials of %s: %w", im.Name, err)
	}
	return text, nil
}

func (b *Builder) bom(ctx context.Context, s *Spec, im *Image) ([]byte, error) {
	a := newAssembly(b, s)
	if err := cmpErr(a.resolve(ctx, nil), a.faults.err()); err != nil {
		return nil, err
	}
	all := &bill{parts: map[string]cdx.Component{}, needs: map[string][]string{}}
	for _, key := range slices.Sorted(maps.Keys(a.components)) {
		c := a.components[key]
		if built := im.Sources[key]; c.digest != built {
			return nil, fmt.Errorf("%s is %s now, but the machine was built of %s: build it again", key, c.digest, cmp.Or(built, "something without it"))
		}
		if err := all.image(key, c); err != nil {
			return nil, fmt.Errorf("image %s: %w", key, err)
		}
	}
	if err := all.programs(ctx, im); err != nil {
		return nil, err
	}
	return all.encode(im)
}

// bill is a bill of materials in the making.
type bill struct {
	parts          map[string]cdx.Component // by bom-ref
	needs          map[string][]string      // bom-ref -> what it directly consists of
	known, unknown []cdx.BOMReference       // images whose parts are all known, or not
}

// machineRef is the bom-ref of the image itself.
const machineRef = "machine"

// add adds a component, unless it is there, as something another one consists of.
// The same part may be named by one who knows its licences and by one who does not.
func (l *bill) add(of string, c cdx.Component) {
	if have, ok := l.parts[c.BOMRef]; !ok || have.Licenses == nil {
		l.parts[c.BOMRef] = c
	}
	if !slices.Contains(l.needs[of], c.BOMRef) {
		l.needs[of] = append(l.needs[of], c.BOMRef)
	}
}

// image adds a component image with its layers and parts.
func (l *bill) image(key string, c *component) error {
	m, err := c.image.Manifest()
	if err != nil {
		return err
	}
	var layers []cdx.Component
	for i, d := range m.Layers {
		layers = append(layers, cdx.Component{
			BOMRef: fmt.Sprintf("%s layer %d", key, i+1), Type: cdx.ComponentTypeFile,
			Name: d.Digest.String(), MIMEType: string(d.MediaType), Hashes: hashes(d.Digest.String()),
		})
	}
	r, err := name.ParseReference(c.ref)
	if err != nil {
		return err
	}
	made := cdx.Component{
		BOMRef: key, Type: cdx.ComponentTypeContainer, Name: c.ref, Version: c.digest, Hashes: hashes(c.digest), Components: &layers,
		PackageURL: packageurl.NewPackageURL(packageurl.TypeOCI, "", path.Base(r.Context().RepositoryStr()), c.digest, nil, "").ToString(),
	}
	parts, known, err := partsOf(c.image)
	if err != nil {
		return err
	}
	var other []cdx.Property
	for _, p := range parts {
		switch p.Kind {
		case PartDeb, PartGo:
			l.add(key, p.component())
		default: // how it was made
			other = append(other, cdx.Property{Name: "seatrial:made-with:" + p.Kind + ":" + p.Name, Value: strings.TrimSpace(p.Version + " " + p.Digest)})
		}
	}
	if len(other) > 0 {
		made.Properties = &other
	}
	if known {
		l.known = append(l.known, cdx.BOMReference(key))
	} else {
		l.unknown = append(l.unknown, cdx.BOMReference(key))
	}
	l.add(machineRef, made)
	return nil
}

// component is a package or module as an entry of the bill. Two of the same
// name and version that differ are two entries.
func (p Part) component() cdx.Component {
	kind, group, base := packageurl.TypeDebian, "debian", p.Name
	if p.Kind == PartGo {
		kind = packageurl.TypeGolang
		group, base = path.Split(p.Name)
	}
	purl := packageurl.NewPackageURL(kind, strings.Trim(group, "/"), base, p.Version, nil, "").ToString()
	c := cdx.Component{
		BOMRef: strings.TrimSpace(purl + " " + p.Digest), Type: cdx.ComponentTypeLibrary,
		Name: p.Name, Version: p.Version, PackageURL: purl, Hashes: hashes(p.Digest),
		Licenses: p.licenses(),
	}
	if strings.HasPrefix(p.Digest, "h1:") { // over a list of files, so no hash of one
		c.Properties = &[]cdx.Property{{Name: "seatrial:go.sum", Value: p.Digest}}
	}
	return c
}

// licenses are a part's licences; nil if none is known. An identifier that SPDX
// does not have would make the bill invalid and is a name.
func (p Part) licenses() *cdx.Licenses {
	var list cdx.Licenses
	for _, n := range p.Licenses {
		known, id := spdxlicenses.IsActiveLicense(n.ID)
		switch {
		case known && id == n.ID:
			list = append(list, cdx.LicenseChoice{License: &cdx.License{ID: n.ID}})
		case n.ID != "" || n.Name != "":
			list = append(list, cdx.LicenseChoice{License: &cdx.License{Name: cmp.Or(n.Name, n.ID)}})
		}
	}
	if list == nil {
		return nil
	}
	return &list
}

// hashes is a digest as CycloneDX has it; nil for what is no SHA-256.
func hashes(digest string) *[]cdx.Hash {
	hex, ok := strings.CutPrefix(digest, "sha256:")
	if !ok {
		return nil
	}
	return &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: hex}}
}

// programs adds the Go programs of the root, whoever made them: the linker
// writes the modules into each.
func (l *bill) programs(ctx context.Context, im *Image) (err error) {
	if err := checkSeals(filepath.Dir(im.InitrdPath), im.Seals); err != nil {
		return err
	}
	root, file, err := im.root()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	seen := map[*inode]bool{}
	return root.walk(func(name string, e *entry) error {
		if err := ctx.Err(); err != nil || seen[e.inode] || !e.is(typeFile) {
			return err
		}
		seen[e.inode] = true
		info := goProgram(e.inode)
		if info == nil {
			return nil
		}
		digest, err := digestOf(io.NewSectionReader(e.data, 0, e.size))
		if err != nil {
			return err
		}
		ref := "program /" + name
		l.add(machineRef, cdx.Component{
			BOMRef: ref, Type: cdx.ComponentTypeApplication, Name: "/" + name, Version: info.Main.Version,
			Description: info.Path, Hashes: hashes(digest),
		})
		l.add(ref, Part{Kind: PartGo, Name: "std", Version: strings.TrimPrefix(info.GoVersion, "go")}.component())
		for _, m := range append(info.Deps, &info.Main) {
			for m.Replace != nil {
				m = m.Replace
			}
			if m.Path != "" {
				l.add(ref, Part{Kind: PartGo, Name: m.Path, Version: m.Version, Digest: m.Sum}.component())
			}
		}
		return nil
	})
}

// goProgram is what a Go program says of itself; nil if it is none. A file of
// a foreign image may be made to break the reader, which is not hardened: it is
// no Go program then.
func goProgram(n *inode) (info *debug.BuildInfo) {
	magic := make([]byte, 4)
	if _, err := n.data.ReadAt(magic, 0); err != nil || string(magic) != "\x7fELF" {
		return nil
	}
	defer func() {
		if recover() != nil {
			info = nil
		}
	}()
	info, err := buildinfo.Read(io.NewSectionReader(n.data, 0, n.size))
	if err != nil {
		return nil
	}
	return info
}

// encode writes the bill, sorted, so that it does not depend on anything but
// what is in it.
func (l *bill) encode(im *Image) ([]byte, error) {
	bom := cdx.NewBOM()
	var files []cdx.Component
	for _, name := range slices.Sorted(maps.Keys(im.Seals)) {
		files = append(files, cdx.Component{BOMRef: "file " + name, Type: cdx.ComponentTypeFile, Name: name, Hashes: hashes(im.Seals[name].SHA256)})
	}
	bom.Metadata = &cdx.Metadata{
		Tools: &cdx.ToolsChoice{Components: &[]cdx.Component{{Type: cdx.ComponentTypeApplication, Name: "seatrial"}}},
		Component: &cdx.Component{
			BOMRef: machineRef, Type: cdx.ComponentTypeOS, Name: im.Name, Version: im.Digest, Components: &files,
			Properties: &[]cdx.Property{{Name: "seatrial:arch", Value: im.Arch}},
		},
	}
	var components []cdx.Component
	for _, ref := range slices.Sorted(maps.Keys(l.parts)) {
		components = append(components, l.parts[ref])
	}
	var dependencies []cdx.Dependency
	for _, ref := range slices.Sorted(maps.Keys(l.needs)) {
		list := slices.Sorted(slices.Values(l.needs[ref]))
		dependencies = append(dependencies, cdx.Dependency{Ref: ref, Dependencies: &list})
	}
	bom.Components, bom.Dependencies = &components, &dependencies
	var compositions []cdx.Composition
	for _, c := range []struct {
		aggregate cdx.CompositionAggregate
		images    []cdx.BOMReference
	}{{cdx.CompositionAggregateComplete, l.known}, {cdx.CompositionAggregateUnknown, l.unknown}} {
		if len(c.images) > 0 {
			compositions = append(compositions, cdx.Composition{Aggregate: c.aggregate, Dependencies: &c.images})
		}
	}
	bom.Compositions = &compositions
	var out bytes.Buffer
	err := cdx.NewBOMEncoder(&out, cdx.BOMFileFormatJSON).SetPretty(true).SetEscapeHTML(false).EncodeVersion(bom, cdx.SpecVersion1_6)
	return out.Bytes(), err
}

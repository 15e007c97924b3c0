package component

import (
	"cmp"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/google/licensecheck"

	"github.com/seatrial/seatrial/images"
)

// parts are the inputs as the image itself names them, for its bill of
// materials, with the licences of those that say theirs.
func (k *kitchen) parts(inputs []Input) ([]images.Part, error) {
	copyrights, err := k.copyrights()
	if err != nil {
		return nil, err
	}
	var list []images.Part
	for _, in := range inputs {
		p := images.Part{Kind: in.Kind, Name: in.Name, Version: in.Version, Digest: in.Digest}
		switch in.Kind {
		case kindDeb:
			p.Licenses = debLicenses(copyrights[in.Name])
		case kindGo:
			if p.Licenses, err = moduleLicenses(k.folders[in.Name]); err != nil {
				return nil, err
			}
		}
		list = append(list, p)
	}
	return list, nil
}

const docs = "usr/share/doc/"

// copyrights are the copyright files of the packages at hand, by package. A
// package may have a link to the documents of another one of the same source
// (Debian Policy 12.5); of one that is not at hand they are not known.
func (k *kitchen) copyrights() (map[string]string, error) {
	found, err := k.files(func(name string) bool {
		rest, below := strings.CutPrefix(name, docs)
		return below && (path.Base(rest) == "copyright" || !strings.Contains(rest, "/"))
	})
	if err != nil {
		return nil, err
	}
	texts := map[string]string{}
	for _, f := range found {
		if name, ok := strings.CutSuffix(strings.TrimPrefix(f.name, docs), "/copyright"); ok {
			texts[name] = string(f.data)
		}
	}
	for _, f := range found {
		if f.link != "" && !strings.Contains(f.link, "/") && path.Dir(f.name)+"/" == docs {
			texts[path.Base(f.name)] = texts[f.link]
		}
	}
	return texts, nil
}

// debLicenses are the licences that a copyright file names for the files of a
// package's source, sorted. It knows the machine-readable form only (Debian's
// copyright-format 1.0), of which it reads two fields: libraries for Debian's
// control files bring OpenPGP and compressions with them. Nil if the form is
// another one, or if there are files whose licence has no name in it.
func debLicenses(text string) []images.License {
	stanzas := regexp.MustCompile(`\n[ \t]*\n`).Split(strings.ReplaceAll(text, "\r\n", "\n"), -1)
	if format, _ := field(stanzas[0], "Format"); !strings.Contains(format, "/copyright-format/1.0") {
		return nil
	}
	var list []images.License
	for _, s := range stanzas[1:] {
		if _, files := field(s, "Files"); !files {
			continue // the text of a licence
		}
		name, _ := field(s, "License")
		if name == "" {
			return nil
		}
		list = append(list, debLicense(name))
	}
	return sorted(list)
}

// field is the first line of a field of a stanza.
func field(stanza, name string) (value string, given bool) {
	for line := range strings.Lines(stanza) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.EqualFold(key, name) {
			return strings.TrimSpace(value), true
		}
	}
	return "", false
}

// gnu is a short name of a GNU licence of a version.
var gnu = regexp.MustCompile(`^(A?GPL|LGPL|GFDL)-(\d)(\.\d)?(?:\.0)?(\+?)$`)

// debLicense is a licence by Debian's short name. The identifier is given where
// the format itself says what the name stands for (section 7.1); others, and
// several in one ("GPL-2+ or MIT"), keep the words of the file.
func debLicense(name string) images.License {
	if m := gnu.FindStringSubmatch(name); m != nil {
		which := "-only"
		if m[4] != "" {
			which = "-or-later"
		}
		return images.License{ID: m[1] + "-" + m[2] + cmp.Or(m[3], ".0") + which}
	}
	ids := map[string]string{
		"expat": "MIT", "isc": "ISC", "zlib": "Zlib", "apache-2": "Apache-2.0", "apache-2.0": "Apache-2.0",
		"bsd-2-clause": "BSD-2-Clause", "bsd-3-clause": "BSD-3-Clause", "bsd-4-clause": "BSD-4-Clause",
		"cc0": "CC0-1.0", "cc0-1.0": "CC0-1.0", "mpl-1.1": "MPL-1.1", "mpl-2.0": "MPL-2.0",
	}
	if id := ids[strings.ToLower(name)]; id != "" {
		return images.License{ID: id}
	}
	return images.License{Name: name}
}

// licenseFile is what a file with the licence of a whole module is called.
var licenseFile = regexp.MustCompile(`(?i)^(licen[cs]e|copying)(\.txt|\.md)?$`)

// enough is how much of a file must be words of known licences, in percent. The
// rest is names of copyright holders and titles; pkg.go.dev asks for as much.
const enough = 75

// moduleLicenses are the licences of a Go module's own licence files, sorted;
// nil if there is none, or one that is not known.
func moduleLicenses(dir string) ([]images.License, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var list []images.License
	for _, e := range entries {
		if !e.Type().IsRegular() || !licenseFile.MatchString(e.Name()) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		found := textLicenses(text)
		if found == nil {
			return nil, nil
		}
		list = append(list, found...)
	}
	return sorted(list), nil
}

// textLicenses are the licences whose words a text consists of. An address of a
// licence is none: it may be anything's.
func textLicenses(text []byte) (list []images.License) {
	c := licensecheck.Scan(text)
	if c.Percent < enough {
		return nil
	}
	for _, m := range c.Match {
		if !m.IsURL {
			list = append(list, images.License{ID: m.ID})
		}
	}
	return list
}

// sorted is the list in order, each once.
func sorted(list []images.License) []images.License {
	order := func(a, b images.License) int { return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Name, b.Name)) }
	return slices.Compact(slices.SortedFunc(slices.Values(list), order))
}

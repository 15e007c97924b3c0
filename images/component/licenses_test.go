package component

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/seatrial/seatrial/images"
)

const dep5 = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\nUpstream-Name: x\n\n"

func TestDebLicenses(t *testing.T) {
	ids := func(list ...string) (out []images.License) {
		for _, id := range list {
			out = append(out, images.License{ID: id})
		}
		return out
	}
	for text, want := range map[string][]images.License{
		dep5 + "Files: *\nCopyright: me\nLicense: GPL-2+\n text of it\n":                    ids("GPL-2.0-or-later"),
		dep5 + "Files: *\nLicense: LGPL-2.1\n\nFiles: y\nLicense: GPL-3.0+\n":               ids("GPL-3.0-or-later", "LGPL-2.1-only"),
		dep5 + "Files: *\nLicense: Expat\n\nFiles: y\nLicense: Expat\n":                     ids("MIT"),
		dep5 + "files: *\nlicense: zlib\n \t\nLicense: GPL-1\n a text that no file names\n": ids("Zlib"),
		strings.ReplaceAll(dep5+"Files: *\nLicense: ISC\n", "\n", "\r\n"):                   ids("ISC"),
		dep5 + "Files: *\nLicense: GPL-2+ or Artistic\n":                                    {{Name: "GPL-2+ or Artistic"}},
		dep5 + "Files: *\nLicense: GPL\n\nFiles: y\nLicense: MIT\n":                         {{Name: "GPL"}, {Name: "MIT"}}, // any version; which of many
		dep5 + "Files: *\nLicense: GPL-2\n\nFiles: y\nLicense:\n text without a name\n":     nil,
		dep5 + "Files: *\nCopyright: me\n":                                                  nil,
		dep5:                                                                                nil,
		"":                                                                                  nil,
		"This package was debianized by me.\n\nFiles: *\nLicense: GPL-2\n":                  nil,
		"Format: https://example.com/other-format/1.0/\n\nFiles: *\nLicense: GPL-2\n":       nil,
		"Upstream-Name: x\n\nFormat: x/copyright-format/1.0/\n\nFiles: *\nLicense: GPL-2\n": nil,
		dep5 + "Comment: Files: are not here\n License: GPL-2\n":                            nil,
	} {
		if got := debLicenses(text); cmp.Diff(want, got) != "" {
			t.Errorf("%q:\n%s", text, cmp.Diff(want, got))
		}
	}
}

// A module's licence is that of its own file, and none if that is not known.
func TestModuleLicenses(t *testing.T) {
	apache, err := os.ReadFile("../../LICENSE")
	if err != nil {
		t.Fatal(err)
	}
	known, other := string(apache), strings.Repeat("You may look at this on Sundays, when it rains. ", 30)
	for what, c := range map[string]struct {
		files map[string]string
		want  []images.License
	}{
		"LICENSE":             {map[string]string{"LICENSE": known, "main.go": "package main"}, []images.License{{ID: "Apache-2.0"}}},
		"licence.txt":         {map[string]string{"licence.txt": known}, []images.License{{ID: "Apache-2.0"}}},
		"twice":               {map[string]string{"COPYING": known, "LICENSE.md": known}, []images.License{{ID: "Apache-2.0"}}},
		"no file":             {map[string]string{"README": known, "LICENSE.docs": known, "LICENSED": known}, nil},
		"unknown words":       {map[string]string{"LICENSE": other}, nil},
		"half of it unknown":  {map[string]string{"LICENSE": known + strings.Repeat(other, 10)}, nil},
		"one of two unknown":  {map[string]string{"COPYING": other, "LICENSE": known}, nil},
		"an address":          {map[string]string{"LICENSE": "https://www.apache.org/licenses/LICENSE-2.0"}, nil},
		"empty":               {map[string]string{"LICENSE": ""}, nil},
		"folder of that name": {map[string]string{"LICENSE/Apache": known}, nil},
	} {
		dir := t.TempDir()
		for name, text := range c.files {
			write(t, filepath.Join(dir, name), text)
		}
		if got, err := moduleLicenses(dir); err != nil || cmp.Diff(c.want, got) != "" {
			t.Errorf("%s: %v %v", what, got, err)
		}
	}
	if list, err := moduleLicenses(filepath.Join(t.TempDir(), "gone")); err == nil {
		t.Errorf("sources that are not there have the licences %v", list) // others would know them: other bytes
	}
}

// Parts have the licences of their own packages, also where the documents are
// another one's, and none where those are not at hand.
func TestPartsLicenses(t *testing.T) {
	module := t.TempDir()
	text, err := os.ReadFile("../../LICENSE")
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(module, "LICENSE"), string(text))
	k := &kitchen{ctx: t.Context(), folders: map[string]string{"example.com/m": module}, debs: []deb{
		debOf(t, "named", func(dir string) {
			write(t, filepath.Join(dir, docs, "named/copyright"), dep5+"Files: *\nLicense: ISC\n")
		}),
		debOf(t, "linked", func(dir string) { link(t, "named", filepath.Join(dir, docs, "linked")) }),
		debOf(t, "elsewhere", func(dir string) { link(t, "absent", filepath.Join(dir, docs, "elsewhere")) }),
		debOf(t, "free", func(dir string) { write(t, filepath.Join(dir, docs, "free/copyright"), "do what you want\n") }),
	}}
	var inputs []Input
	for _, d := range k.debs {
		inputs = append(inputs, d.input("c"))
	}
	inputs = append(inputs, Input{Kind: kindGo, Name: "example.com/m"}, Input{Kind: kindToolchain, Name: "go"})
	parts, err := k.parts(inputs)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"named": "ISC", "linked": "ISC", "elsewhere": "", "free": "", "example.com/m": "Apache-2.0", "go": ""}
	for _, p := range parts {
		got := ""
		for _, l := range p.Licenses {
			got += l.ID + l.Name
		}
		if got != want[p.Name] {
			t.Errorf("%s: %q, want %q", p.Name, got, want[p.Name])
		}
	}
	if len(parts) != len(want) {
		t.Errorf("%d parts", len(parts))
	}
}

// debOf makes a Debian package.
func debOf(t *testing.T, name string, fill func(dir string)) deb {
	t.Helper()
	if _, err := exec.LookPath("dpkg-deb"); err != nil {
		t.Skip("needs dpkg-deb")
	}
	dir := filepath.Join(t.TempDir(), name)
	write(t, filepath.Join(dir, "DEBIAN/control"), "Package: "+name+"\nVersion: 1\nArchitecture: all\nMaintainer: me <me@example.com>\nDescription: x\n")
	fill(dir)
	d := deb{path: dir + ".deb", name: name, version: "1"}
	if _, err := run(exec.Command("dpkg-deb", "--build", dir, d.path)); err != nil {
		t.Fatal(err)
	}
	return d
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, to, name string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(to, name); err != nil {
		t.Fatal(err)
	}
}

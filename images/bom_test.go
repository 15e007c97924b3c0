package images

import (
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	cdx "github.com/CycloneDX/cyclonedx-go"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// goTool builds a Go program that uses a module: a small one, since every test
// reads it several times.
func goTool(t *testing.T) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "tool")
	c := exec.Command("go", "build", "-ldflags", "-s -w", "-o", path, "github.com/seatrial/seatrial/boot/guest/cmd/mountie")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}

// billStock is stock with a noted image under init, and a Go program.
func billStock(t *testing.T, parts []Part) shelf {
	t.Helper()
	s := stock(t)
	program, err := os.ReadFile(goTool(t))
	if err != nil {
		t.Fatal(err)
	}
	tool := image(t, "amd64", v1.Config{}, layer{file("usr/bin/tool", string(program)), hardlink("usr/bin/again", "usr/bin/tool"),
		file("usr/bin/broken", string(program[:4096])), file("usr/bin/script", "#!/bin/sh\n")})
	if s["test/init"], err = WithParts(s["test/init"], parts); err != nil {
		t.Fatal(err)
	}
	s["test/tool"] = tool
	return s
}

const billYAML = head + "init: [test/init, test/tool]\nservices: [{name: web, image: test/web}]\n"

func someParts() []Part {
	digest := "sha256:" + strings.Repeat("ab", 32)
	return []Part{
		{PartDeb, "libc6", "2:2.36-9+deb12u1~x", digest, []License{{ID: "GPL-2.0-or-later"}, {Name: "GPL or Artistic"}}},
		{PartGo, "example.com/a/b/v2", "v2.1.0", "h1:xyz=", []License{{ID: "Of-My-Own"}}},
		{PartGo, "example.com/c", "v1.0.0", "h1:abc=", nil},
		{"toolchain", "go", "go1.26", "", nil},
	}
}

func billOf(t *testing.T, source Source) ([]byte, *Image) {
	t.Helper()
	b := &Builder{Source: source, Arch: "amd64", Dir: t.TempDir()}
	s := spec(t, billYAML)
	im, err := b.Build(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	text, err := b.BOM(t.Context(), s, im)
	if err != nil {
		t.Fatal(err)
	}
	return text, im
}

func TestBOM(t *testing.T) {
	t.Parallel()
	shelf := billStock(t, someParts())
	text, im := billOf(t, shelf)
	if again, _ := billOf(t, shelf); !bytes.Equal(text, again) {
		t.Error("the same image in another folder has another bill")
	}
	var bom cdx.BOM
	if err := cdx.NewBOMDecoder(bytes.NewReader(text), cdx.BOMFileFormatJSON).Decode(&bom); err != nil {
		t.Fatal(err)
	}
	if bom.SerialNumber != "" || bom.Metadata.Timestamp != "" {
		t.Errorf("differs from time to time: %q, %q", bom.SerialNumber, bom.Metadata.Timestamp)
	}
	if bom.Metadata.Component.Version != im.Digest {
		t.Errorf("is of %s", bom.Metadata.Component.Version)
	}
	have := map[string]cdx.Component{}
	for _, c := range *bom.Components {
		have[c.BOMRef] = c
	}
	needs := map[string]string{}
	for _, d := range *bom.Dependencies {
		needs[d.Ref] = " " + strings.Join(*d.Dependencies, "\n ") + "\n"
		for _, ref := range *d.Dependencies {
			if _, ok := have[ref]; !ok {
				t.Errorf("%s needs %s, which is not there", d.Ref, ref)
			}
		}
	}
	// Every component image with the layers that its manifest has.
	for ref, digest := range im.Sources {
		c := have[ref]
		m, err := shelf[ref].Manifest()
		if err != nil {
			t.Fatal(err)
		}
		if c.Version != digest || c.Components == nil || len(*c.Components) != len(m.Layers) || (*c.Components)[0].Name != m.Layers[0].Digest.String() {
			t.Errorf("%s: %+v", ref, c)
		}
		if !strings.Contains(needs[machineRef], " "+ref+"\n") {
			t.Errorf("the machine does not need %s", ref)
		}
	}
	// What an image says it was made of.
	deb := "pkg:deb/debian/libc6@2:2.36-9%2Bdeb12u1~x sha256:" + strings.Repeat("ab", 32)
	if c := have[deb]; c.Version != "2:2.36-9+deb12u1~x" || (*c.Hashes)[0].Value != strings.Repeat("ab", 32) || !strings.Contains(needs["test/init"], deb) {
		t.Errorf("%+v among %q", c, needs["test/init"])
	}
	if c := have["test/init"]; (*c.Properties)[0] != (cdx.Property{Name: "seatrial:made-with:toolchain:go", Value: "go1.26"}) {
		t.Errorf("%+v", c.Properties)
	}
	checkLicenses(t, have)
	// What a program says of itself; a hard link is not a second one.
	info, err := buildinfo.ReadFile(goTool(t))
	if err != nil {
		t.Fatal(err)
	}
	var programs []string
	for ref := range have {
		if strings.HasPrefix(ref, "program ") {
			programs = append(programs, ref)
		}
	}
	if len(programs) != 1 || programs[0] != "program /usr/bin/again" {
		t.Fatalf("programs %q", programs)
	}
	if len(info.Deps) == 0 {
		t.Fatal("the program has no modules to be named")
	}
	for _, m := range info.Deps {
		if !strings.Contains(needs[programs[0]], "/"+filepath.Base(m.Path)+"@"+m.Version) && m.Replace == nil {
			t.Errorf("no %s %s among\n%s", m.Path, m.Version, needs[programs[0]])
		}
	}
	// What is not known is said.
	var known, unknown []string
	for _, c := range *bom.Compositions {
		for _, ref := range *c.Dependencies {
			if c.Aggregate == cdx.CompositionAggregateComplete {
				known = append(known, string(ref))
			} else {
				unknown = append(unknown, string(ref))
			}
		}
	}
	if strings.Join(known, " ") != "test/init" || strings.Join(unknown, " ") != "test/kernel test/tool test/web" {
		t.Errorf("known %q, unknown %q", known, unknown)
	}
}

// checkLicenses looks for the licences of someParts.
func checkLicenses(t *testing.T, have map[string]cdx.Component) {
	t.Helper()
	for ref, want := range map[string]string{
		"pkg:deb/debian/libc6@2:2.36-9%2Bdeb12u1~x sha256:" + strings.Repeat("ab", 32): `id "GPL-2.0-or-later", name "GPL or Artistic"`,
		"pkg:golang/example.com/a/b/v2@v2.1.0 h1:xyz=":                                 `name "Of-My-Own"`, // SPDX has no such identifier
		"pkg:golang/example.com/c@v1.0.0 h1:abc=":                                      "",
		"test/init": "",
	} {
		var got []string
		if l := have[ref].Licenses; l != nil {
			for _, c := range *l {
				if c.License.ID != "" {
					got = append(got, fmt.Sprintf("id %q", c.License.ID))
				} else {
					got = append(got, fmt.Sprintf("name %q", c.License.Name))
				}
			}
		}
		if _, ok := have[ref]; !ok || strings.Join(got, ", ") != want {
			t.Errorf("%s: there %v, licences %q, want %q", ref, ok, got, want)
		}
	}
}

// A module has the licences that one image knows, also where a program names it
// that knows none; another version's are not taken for it.
func TestBOMLicensesOfOne(t *testing.T) {
	t.Parallel()
	info, err := buildinfo.ReadFile(goTool(t))
	if err != nil {
		t.Fatal(err)
	}
	m := info.Deps[0]
	for version, want := range map[string]bool{m.Version: true, m.Version + "-x": false} {
		text, _ := billOf(t, billStock(t, []Part{{PartGo, m.Path, version, m.Sum, []License{{ID: "ISC"}}}}))
		var bom cdx.BOM
		if err := json.Unmarshal(text, &bom); err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(*bom.Components, func(c cdx.Component) bool { return c.Name == m.Path && c.Version == m.Version })
		if i < 0 || ((*bom.Components)[i].Licenses != nil) != want {
			t.Errorf("noted for %s: %+v", version, (*bom.Components)[max(i, 0)])
		}
	}
}

// Another package is another bill, also where the root has the same bytes.
func TestBOMOther(t *testing.T) {
	t.Parallel()
	one, first := billOf(t, billStock(t, someParts()))
	parts := someParts()
	parts[0].Version = "2.37"
	other, second := billOf(t, billStock(t, parts))
	if first.Digest != second.Digest {
		t.Error("the note of the parts is in the root")
	}
	if bytes.Equal(one, other) {
		t.Error("another version, and the same bill")
	}
}

// An image that is not what the machine was built of is not described.
func TestBOMTampered(t *testing.T) {
	t.Parallel()
	shelf := billStock(t, someParts())
	b := &Builder{Source: shelf, Arch: "amd64", Dir: t.TempDir()}
	s := spec(t, billYAML)
	im, err := b.Build(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	sound := shelf["test/init"]
	for name, c := range map[string]struct {
		change func(t *testing.T)
		want   string
	}{
		"another part": {func(t *testing.T) {
			parts := someParts()
			parts[0].Digest = "sha256:" + strings.Repeat("cd", 32)
			if shelf["test/init"], err = WithParts(sound, parts); err != nil {
				t.Fatal(err)
			}
		}, "but the machine was built of " + im.Sources["test/init"] + ": build it again"},
		"damaged note": {func(t *testing.T) {
			damaged := mutate.Annotations(sound, map[string]string{partsKey: "[{"}).(v1.Image)
			digest, err := damaged.Digest()
			if err != nil {
				t.Fatal(err)
			}
			shelf["test/init"], im.Sources["test/init"] = damaged, digest.String()
		}, "image test/init: its annotation io.github.seatrial.parts is damaged"},
		"gone":               {func(*testing.T) { delete(shelf, "test/init") }, "machine.yml:"},
		"not in the machine": {func(*testing.T) { shelf["test/init"] = sound; delete(im.Sources, "test/init") }, "something without it"},
		"initramfs": {func(t *testing.T) {
			f, err := os.OpenFile(im.InitrdPath, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			_, err = f.WriteAt([]byte("x"), 1000)
			if err := errors.Join(err, f.Close()); err != nil {
				t.Fatal(err)
			}
			digest, err := sound.Digest()
			if err != nil {
				t.Fatal(err)
			}
			im.Sources["test/init"] = digest.String()
		}, initrdFile + " is damaged: its digest is "},
	} {
		before := im.Sources["test/init"]
		c.change(t)
		if _, err := b.BOM(t.Context(), s, im); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
		shelf["test/init"], im.Sources["test/init"] = sound, before
		if im, err = b.Build(t.Context(), s); err != nil { // mended if it was damaged
			t.Fatal(err)
		}
	}
	if _, err := b.BOM(t.Context(), s, im); err != nil {
		t.Errorf("put right again: %v", err)
	}
}

// The bill is what the schema of CycloneDX asks for, and one that is not is
// found out.
func TestBOMValid(t *testing.T) {
	t.Parallel()
	schema := bomSchema(t)
	text, _ := billOf(t, billStock(t, someParts()))
	valid := func(text []byte) error {
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		return schema.Validate(doc)
	}
	if err := valid(text); err != nil {
		t.Error(err)
	}
	for old, new := range map[string]string{`"alg": "SHA-256"`: `"alg": "SHA-257"`, `"type": "container"`: `"type": "box"`, `"aggregate": "complete"`: `"aggregate": "all"`, `"id": "GPL-2.0-or-later"`: `"id": "GPL-2+"`} {
		wrong := bytes.Replace(text, []byte(old), []byte(new), 1)
		if bytes.Equal(wrong, text) || valid(wrong) == nil {
			t.Errorf("%s is valid", new)
		}
	}
}

// bomSchema is the schema that comes with the library.
func bomSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/CycloneDX/cyclonedx-go").Output()
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	for _, file := range []string{"bom-1.6.schema.json", "spdx.schema.json", "jsf-0.82.schemax.json"} {
		text, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "schema", file))
		if err != nil {
			t.Fatal(err)
		}
		var id struct {
			ID string `json:"$id"`
		}
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, &id); err != nil {
			t.Fatal(err)
		}
		if err := c.AddResource(id.ID, doc); err != nil {
			t.Fatal(err)
		}
	}
	schema, err := c.Compile("http://cyclonedx.org/schema/bom-1.6.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

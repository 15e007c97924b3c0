package images

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
	"go.yaml.in/yaml/v4"

	"github.com/seatrial/seatrial/boot"
)

const everything = `
kernel: {image: test/kernel, ucode: early.cpio}
init: [test/init]
volumes:
  - {name: data, image: test/shell}
  - {name: blank}
  - {name: fixed, image: test/shell, readonly: true}
  - {name: whole, image: test/shell, format: oci}
onboot:
  - name: first
    image: test/shell
    binds: ["data:/data", "blank:/blank:rw,rshared", "fixed:/fixed:ro", "/dev:/dev"]
    mounts: [{type: bind, source: whole, destination: /whole, options: [rbind, ro]}]
services:
  - name: second
    image: test/shell
    uid: first
    gid: second
    additionalGids: [5, first]
    net: new
    userns: new
    uidMappings: [{containerID: 0, hostID: 1000, size: 210}]
    gidMappings: [{containerid: 0, hostid: 1001, size: 211}]
    resources:
      memory: {kernelTCP: 4, disableOOMKiller: true}
      cpu: {realtimeRuntime: 5, mems: "0"}
      blockio: {leafWeight: 6, throttleReadBpsDevice: [{major: 8, minor: 1, rate: 7}]}
      hugepageLimits: [{pageSize: 2MB, limit: 8}]
      network: {classID: 9}
      devices: [{allow: false, access: rwm}]
    runtime:
      cgroups: [podruntime]
      interfaces: [{name: v0, add: veth, peer: v1}, {name: wg0, add: wireguard, createInRoot: true}]
      bindNS: {net: /run/netns/second}
files:
  - {path: /etc/machine.yml, metadata: yaml, mode: "0644"}
  - {path: /etc/machine.json, metadata: json, uid: second}
`

func buildEverything(t *testing.T, text string) *Image {
	t.Helper()
	shelf := stock(t)
	modules := layer{file("lib/modules/6.1/modules.dep", "")}
	shelf["test/kernel"] = image(t, "amd64", v1.Config{}, layer{file("kernel", "k"), file("kernel.tar", string(modules.archive(t))), file("early.cpio", "microcode")})
	b := Builder{Source: shelf, Arch: "amd64", Dir: t.TempDir()}
	im, err := b.Build(t.Context(), spec(t, text))
	if err != nil {
		t.Fatal(err)
	}
	return im
}

// What upstream validates and then drops is in the bundles here.
func TestEverything(t *testing.T) {
	im := buildEverything(t, everything)
	raw, err := os.ReadFile(im.InitrdPath)
	if err != nil || !bytes.HasPrefix(raw, []byte("microcode\x00\x00\x00070701")) {
		t.Errorf("microcode comes first, padded to four bytes: %.20q, %v", raw, err)
	}
	read := func(path string, into any) {
		t.Helper()
		text, _, err := im.ReadFile(path)
		if err == nil {
			err = json.Unmarshal(text, into)
		}
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
	}
	var first, second specs.Spec
	var table boot.Runtime
	read("/containers/onboot/000-first/config.json", &first)
	read("/containers/services/second/config.json", &second)
	read("/containers/services/second/runtime.json", &table)

	sources := map[string]string{}
	for _, m := range first.Mounts {
		sources[m.Destination] = m.Source
	}
	for at, want := range map[string]string{
		"/data": "/containers/volumes/data/merged", "/blank": "/containers/volumes/blank/merged",
		"/fixed": "/containers/volumes/fixed/merged", "/whole": "/containers/volumes/whole/merged", "/dev": "/dev",
	} {
		if sources[at] != want {
			t.Errorf("%s is bound from %q, want %q", at, sources[at], want)
		}
	}
	if d := cmp.Diff(specs.User{UID: 100, GID: 101, AdditionalGids: []uint32{5, 100}}, second.Process.User); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]specs.LinuxIDMapping{{HostID: 1000, Size: 210}}, second.Linux.UIDMappings); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]specs.LinuxIDMapping{{HostID: 1001, Size: 211}}, second.Linux.GIDMappings); d != "" {
		t.Error(d)
	}
	want := `{"devices":[{"allow":false,"access":"rwm"}],"memory":{"kernelTCP":4,"disableOOMKiller":true},` +
		`"cpu":{"realtimeRuntime":5,"mems":"0"},"blockIO":{"leafWeight":6,"throttleReadBpsDevice":[{"major":8,"minor":1,"rate":7}]},` +
		`"hugepageLimits":[{"pageSize":"2MB","limit":8}],"network":{"classID":9}}`
	if got, err := json.Marshal(second.Linux.Resources); err != nil || string(got) != want {
		t.Errorf("resources %s, %v", got, err)
	}
	if d := cmp.Diff(boot.Runtime{
		Mounts: table.Mounts, Cgroups: []string{"podruntime"},
		Interfaces: []boot.RuntimeInterface{{Name: "v0", Add: "veth", Peer: "v1"}, {Name: "wg0", Add: "wireguard", CreateInRoot: true}},
		BindNS:     boot.RuntimeNamespaces{Net: "/run/netns/second"},
	}, table); d != "" {
		t.Error(d)
	}
}

func TestVolumes(t *testing.T) {
	im := buildEverything(t, everything)
	f, err := os.Open(im.InitrdPath)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	root, err := readInitramfs(newSection(f, im.UcodeSize))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{
		"data/lower/bin/sh": true, "data/merged": true, "data/tmp": true, "data/merged/bin": false,
		"blank/lower": true, "blank/tmp": true, "blank/lower/bin": false,
		"fixed/lower/bin/sh": true, "fixed/merged": true, "fixed/tmp": false, // no tmp: read-only
		"whole/lower/oci-layout": true, "whole/lower/index.json": true, "whole/lower/bin": false,
	} {
		if got := root.find("containers/volumes/"+name) != nil; got != want {
			t.Errorf("%s is there: %v, want %v", name, got, want)
		}
	}
	// The layout is whole: every digest in it is a blob in it.
	var index v1.IndexManifest
	text, _, err := im.ReadFile("/containers/volumes/whole/lower/index.json")
	if err == nil {
		err = json.Unmarshal(text, &index)
	}
	if err != nil || len(index.Manifests) != 1 || index.Manifests[0].Platform.Architecture != "amd64" {
		t.Fatalf("%s, %v", text, err)
	}
	var m v1.Manifest
	blob := func(h v1.Hash) []byte {
		text, _, err := im.ReadFile("/containers/volumes/whole/lower/" + blobPath(h.Hex))
		if got, _, _ := v1.SHA256(bytes.NewReader(text)); err != nil || got != h {
			t.Errorf("blob %s has digest %s, %v", h, got, err)
		}
		return text
	}
	if err := json.Unmarshal(blob(index.Manifests[0].Digest), &m); err != nil {
		t.Fatal(err)
	}
	for _, d := range append(m.Layers, m.Config) {
		blob(d.Digest)
	}
}

func TestMetadata(t *testing.T) {
	im := buildEverything(t, everything)
	text, mode, err := im.ReadFile("/etc/machine.yml")
	if err != nil || mode != 0o644 {
		t.Fatalf("mode %v, %v", mode, err)
	}
	again, err := ParseSpec("again.yml", text)
	if err != nil {
		t.Fatalf("the metadata is not a spec: %v\n%s", err, text)
	}
	s := spec(t, everything)
	if d := cmp.Diff(s.Services, again.Services); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(s.Volumes, again.Volumes); d != "" {
		t.Error(d)
	}
	fromJSON, _, err := im.ReadFile("/etc/machine.json")
	if err != nil {
		t.Fatal(err)
	}
	var a, b any
	if err := errors.Join(yaml.Unmarshal(text, &a), yaml.Unmarshal(fromJSON, &b)); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(a, b); d != "" {
		t.Errorf("the two formats differ: %s", d)
	}
	if _, err := s.Metadata("toml"); err == nil {
		t.Error("toml is no format")
	}
}

func TestMerge(t *testing.T) {
	one := "kernel: {image: k, cmdline: a, tar: x}\ninit: [i]\nvolumes: [{name: v}]\nservices: [{name: web, image: w}]\n"
	two := "kernel: {cmdline: b, tar: \"\"}\ninit: [j]\nservices:\n  - {name: db, image: d, binds: [\"v:/x\"], uid: web}\n"
	s, err := ParseSpecs(Text{"dir/one.yml", []byte(one)}, Text{"two.yml", []byte(two)})
	if err != nil {
		t.Fatal(err) // a volume and a name of the first file are known in the second
	}
	if s.Name != "one" || s.Kernel.Image != "k" || s.Kernel.Cmdline != "b" || *s.Kernel.Tar != "" || len(s.Init) != 2 || s.Services[1].Name != "db" {
		t.Errorf("%+v", s)
	}
	if at := placeOf(s.at, "services[1].image").prefix(); at != "two.yml:4:23: " {
		t.Errorf("db's image stands at %s", at)
	}
	_, err = ParseSpecs(Text{"one.yml", []byte(one)}, Text{"two.yml", []byte(two + "  - {name: web, image: w, readonly: 1}\nvolumes: [{name: v}]\n")}, Text{"three.yml", []byte("srvices: []\n")})
	var wrong *SpecError
	if !errors.As(err, &wrong) {
		t.Fatal(err)
	}
	for i, want := range []string{
		`two.yml:5:12: services[2].name: the service name "web" is already used by services[0]`,
		"two.yml:5:37: services[2].readonly: must be true or false",
		`two.yml:6:18: volumes[1].name: the volume name "v" is already used`,
		`three.yml:1:1: unknown key "srvices"; did you mean "services"?`,
	} {
		lines := strings.Split(err.Error(), "\n")
		if i >= len(lines) || !strings.HasPrefix(lines[i], want) {
			t.Errorf("want %s\nin\n%v", want, err)
		}
	}
	if len(wrong.Problems) != 4 {
		t.Errorf("%d problems", len(wrong.Problems))
	}
}

// What another text lacks is not told as long as one cannot be read at all.
func TestMergeUnreadable(t *testing.T) {
	_, err := ParseSpecs(Text{"one.yml", []byte("init: [i]\n")}, Text{"two.yml", nil})
	if err == nil || err.Error() != "two.yml: the file is empty; a spec needs at least a kernel" {
		t.Errorf("got %v", err)
	}
}

func TestLoadSpecSources(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "in.yml")
	if err := os.WriteFile(path, []byte(head+"files: [{path: /a, source: b}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	in, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	old := os.Stdin
	os.Stdin = in
	defer func() { os.Stdin = old }()
	s, err := LoadSpec(t.Context(), "-")
	if err != nil || s.Name != "image" || s.Files[0].Source != "b" {
		t.Errorf("%+v, %v", s, err)
	}
	for arg, want := range map[string]string{
		"https://example.com/a.yml":    "not fetched from the network",
		dir:                            "is a folder",
		filepath.Join(dir, "none.yml"): "no such file",
		"-":                            "<standard input>: the file is empty", // read to its end above
	} {
		if _, err := LoadSpec(t.Context(), arg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", arg, err, want)
		}
	}
	if _, err := LoadSpec(t.Context()); err == nil {
		t.Error("no file was given")
	}
}

// A label may name what the spec does not have.
func TestLabelNames(t *testing.T) {
	for text, want := range map[string]string{
		`{"uid": "nobody"}`:       `uid: "nobody" is no container`,
		`{"binds": ["vol:/x"]}`:   `there is no volume "vol"`,
		`{"binds": ["data:/x"]}`:  "",
		`{"gid": "web"}`:          "",
		`{"uidmappings": []}`:     `unknown key "uidmappings"; did you mean "uidMappings"?`,
		`{"additionalGids": [1]}`: "",
	} {
		shelf := stock(t)
		shelf["test/web"] = image(t, "amd64", v1.Config{Cmd: []string{"x"}, Labels: map[string]string{label: text}})
		b := Builder{Source: shelf, Arch: "amd64", Dir: t.TempDir()}
		_, err := b.Build(t.Context(), spec(t, head+"volumes: [{name: data}]\nservices: [{name: web, image: test/web}]\n"))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
}

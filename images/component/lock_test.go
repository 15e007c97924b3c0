package component

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/seatrial/seatrial"
	"github.com/seatrial/seatrial/images"
)

func in(component, kind, name, version, digest string) Input {
	return Input{Component: component, Kind: kind, Name: name, Version: version, Digest: digest}
}

// The lock that ships must name every component's inputs, for both
// architectures, and agree with go.mod and go.sum.
func TestShippedLock(t *testing.T) {
	lock, err := Locked()
	if err != nil {
		t.Fatal(err)
	}
	if text, err := lock.Encode(); err != nil || string(text) != string(lockFile) {
		t.Errorf("the lock file is not written as Encode writes it (%v): do not edit it, run seatrial components --update-lock", err)
	}
	for _, problem := range stale(lock) {
		t.Error(problem)
	}
	if strings.Contains(string(lockFile), "://") {
		t.Error("the lock file holds an address")
	}
}

// stale lists what a lock lacks of the recipes, and where it differs from
// go.mod and go.sum.
func stale(lock Lock) (problems []string) {
	for _, arch := range arches {
		for _, r := range recipes() {
			if len(r.debs) > 0 && len(lock.of(arch, r.name, kindDeb)) == 0 {
				problems = append(problems, fmt.Sprintf("%s: no package of %s is locked", arch, r.name))
			}
			if len(r.programs) > 0 && len(lock.of(arch, r.name, kindGo)) == 0 {
				problems = append(problems, fmt.Sprintf("%s: no module of %s is locked", arch, r.name))
			}
		}
		for _, in := range lock[arch] {
			if !slices.Contains(Names(), in.Component) {
				problems = append(problems, fmt.Sprintf("%s: %s is locked for %s, which does not exist", arch, in.Name, in.Component))
			}
			if in.Kind != kindGo {
				continue
			}
			version, err := moduleVersion(seatrial.Source, in.Name)
			if err != nil || version != in.Version {
				problems = append(problems, fmt.Sprintf("%s: %s %s is locked, go.mod has %s (%v)", arch, in.Name, in.Version, version, err))
			} else if sum, err := moduleSum(seatrial.Source, in.Name, version); err != nil || sum != in.Digest {
				problems = append(problems, fmt.Sprintf("%s: %s has another digest in go.sum (%v)", arch, in.Name, err))
			}
		}
	}
	return problems
}

func TestStaleLockIsSeen(t *testing.T) {
	for _, c := range []struct {
		spoil func(Lock)
		want  string
	}{
		{func(l Lock) { delete(l, "arm64") }, "arm64: no package of runc"},
		{func(l Lock) { l["amd64"] = append(l["amd64"], in("ghost", kindDeb, "x", "1", "d")) }, "which does not exist"},
		{func(l Lock) {
			i := slices.IndexFunc(l["amd64"], func(in Input) bool { return in.Kind == kindGo })
			l["amd64"][i].Version = "v0.0.1"
		}, "go.mod has"},
		{func(l Lock) {
			i := slices.IndexFunc(l["amd64"], func(in Input) bool { return in.Kind == kindGo })
			l["amd64"][i].Digest = "h1:x"
		}, "another digest"},
	} {
		lock, err := Locked()
		if err != nil {
			t.Fatal(err)
		}
		c.spoil(lock)
		if problems := strings.Join(stale(lock), "\n"); !strings.Contains(problems, c.want) {
			t.Errorf("want %q among %q", c.want, problems)
		}
	}
}

func TestParseLock(t *testing.T) {
	good := Lock{"amd64": {in("b", kindGo, "m", "v1", "h1:a"), in("a", kindDeb, "p", "1:2", "sha256:b")}, "arm64": {}}
	text, err := good.Encode()
	if err != nil {
		t.Fatal(err)
	}
	back, err := ParseLock(text)
	if err != nil {
		t.Fatal(err)
	}
	if len(Diff(good, back)) != 0 || back["amd64"][0].Component != "a" {
		t.Errorf("written and read back:\n%s\n%v", text, back)
	}
	entry := `{"component":"a","kind":"deb","name":"p","version":"1","digest":"d"}`
	for text, want := range map[string]string{
		`{`:              "unexpected EOF",
		`{"riscv64":[]}`: "unknown architecture",
		`{"amd64":[` + entry + `,` + entry + `]}`:                                "listed twice",
		`{"amd64":[` + strings.Replace(entry, `"d"`, `""`, 1) + `]}`:             "without",
		`{"amd64":[` + strings.Replace(entry, `"deb"`, `"rpm"`, 1) + `]}`:        `kind "rpm"`,
		`{"amd64":[` + strings.Replace(entry, `"digest"`, `"address"`, 1) + `]}`: "unknown field",
	} {
		if _, err := ParseLock([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: want an error with %q, got %v", text, want, err)
		}
	}
}

func TestDiff(t *testing.T) {
	old := Lock{"amd64": {in("c", kindDeb, "same", "1", "d"), in("c", kindDeb, "up", "1", "d"), in("c", kindDeb, "gone", "1", "d"), in("c", kindDeb, "swapped", "1", "d")}}
	new := Lock{"amd64": {in("c", kindDeb, "same", "1", "d"), in("c", kindDeb, "up", "2", "e"), in("c", kindDeb, "swapped", "1", "x")}, "arm64": {in("c", kindDeb, "more", "1", "d")}}
	var got []string
	for _, c := range Diff(old, new) {
		got = append(got, c.String())
	}
	want := []string{
		"amd64 c: changed swapped 1: other contents under the same version: x, was d",
		"amd64 c: changed up 1 -> 2",
		"amd64 c: removed gone 1",
		"arm64 c: added more 1",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if d := Diff(old, old); len(d) != 0 {
		t.Errorf("nothing changed, but: %v", d)
	}
}

func TestDrift(t *testing.T) {
	locked := []Input{in("c", kindDeb, "a", "1", "d1"), in("c", kindDeb, "b", "1", "d2")}
	same := append(slices.Clone(locked), in("c", kindRecipe, "c", here, "r"))
	noted, missing, err := drift(locked, same)
	if b := (Built{Inputs: noted, Unused: missing}); err != nil || len(b.Drift()) != 0 || len(noted) != 3 {
		t.Errorf("the same inputs drift: %v %v %v", noted, missing, err)
	}
	noted, missing, err = drift(locked, []Input{in("c", kindDeb, "a", "2", "d3"), in("c", kindDeb, "new", "1", "d")})
	got := Built{Inputs: noted, Unused: missing}.Drift()
	want := []string{"a: locked 1, used 2", "new: not locked, used 1", "b: locked 1, not used"}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Error(d, err)
	}
	if _, _, err := drift(locked, []Input{in("c", kindDeb, "a", "1", "other")}); err == nil || !strings.Contains(err.Error(), "a 1 has the digest other, but d1 is locked") {
		t.Errorf("another digest under the locked version must be an error: %v", err)
	}
}

// With Locked a difference is an error that names the remedy; without it is said.
func TestTellDrift(t *testing.T) {
	b := Built{Inputs: []Input{{Component: "c", Kind: kindDeb, Name: "a", Drift: "locked 1, used 2"}}}
	var said []string
	o := Options{Progress: func(name, step string) { said = append(said, name+": "+step) }}
	if err := o.tell("c", b); err != nil || !slices.Equal(said, []string{"c: differs from the lock file: a: locked 1, used 2"}) {
		t.Errorf("%v %q", err, said)
	}
	o.Locked = true
	if err := o.tell("c", b); err == nil || !strings.Contains(err.Error(), "a: locked 1, used 2") || !strings.Contains(err.Error(), "--update-lock") {
		t.Errorf("%v", err)
	}
	if err := o.tell("c", Built{Inputs: []Input{in("c", kindDeb, "a", "1", "d")}}); err != nil {
		t.Errorf("nothing differs, but: %v", err)
	}
}

// A key must change with what goes into a component and with nothing else.
func TestKey(t *testing.T) {
	lock := Lock{"amd64": {in("init", kindGo, "m", "v1", "d"), in("runc", kindDeb, "runc", "1", "d")}}
	o := Options{Arch: "amd64", Source: seatrial.Source, Lock: lock}
	by := map[string]recipe{}
	for _, r := range recipes() {
		by[r.name] = r
	}
	key := func(o Options, name, toolchain string) string {
		t.Helper()
		k, err := o.key(by[name], toolchain)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	init, runc := key(o, "init", "go1"), key(o, "runc", "go1")
	if init != key(o, "init", "go1") || init == runc {
		t.Error("a key must be the same for the same component, and another for another")
	}
	if init == key(o, "init", "go2") || runc != key(o, "runc", "go2") {
		t.Error("the toolchain decides what is compiled, and nothing else")
	}
	changed := o
	changed.Lock = Lock{"amd64": {in("init", kindGo, "m", "v1", "d"), in("runc", kindDeb, "runc", "2", "e")}}
	if runc == key(changed, "runc", "go1") || init != key(changed, "init", "go1") {
		t.Error("a changed lock must rebuild its own component, and no other")
	}
	other := o
	other.Arch = "arm64"
	if init == key(other, "init", "go1") {
		t.Error("the architecture must be part of the key")
	}
}

// What was compiled before needs no go tool; what must be compiled says so.
func TestWithoutGo(t *testing.T) {
	store, err := images.OpenStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	im, err := assemble(nil, v1.Config{}, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Put(t.Context(), "seatrial/init", im); err != nil {
		t.Fatal(err)
	}
	digest, err := im.Digest()
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Arch: "amd64", Store: store, Cache: t.TempDir(), Source: seatrial.Source, Lock: Lock{}, Names: []string{"init"}}
	i := slices.IndexFunc(recipes(), func(r recipe) bool { return r.name == "init" })
	key, err := o.key(recipes()[i], "go1.99")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", "")
	for key, want := range map[string]string{key: "", "of other sources": "there is no go in PATH: install Go, or add its folder to PATH"} {
		note, err := json.Marshal(Built{Ref: "seatrial/init", Key: key, Digest: digest.String(), Inputs: []Input{in("init", kindToolchain, "go", "go1.99", "")}})
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(o.Cache, "components", "init-amd64.json")
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, note, 0o600)); err != nil {
			t.Fatal(err)
		}
		built, err := Build(t.Context(), o)
		if want == "" && (err != nil || len(built) != 1 || built[0].Digest != digest.String()) {
			t.Errorf("%+v, %v", built, err)
		}
		if want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// What a program is said to be compiled from must be what the go tool says.
func TestFolders(t *testing.T) {
	for _, r := range recipes() {
		for _, p := range r.programs {
			if p.folders == nil {
				continue
			}
			list, err := goList(context.Background(), seatrial.Source, t.TempDir(), "amd64", p)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, l := range list {
				if folder, ours := strings.CutPrefix(l.ImportPath, "github.com/seatrial/seatrial/"); ours {
					got = append(got, folder)
				}
			}
			want := slices.Sorted(slices.Values(p.folders))
			slices.Sort(got)
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("%s is compiled from other folders than its recipe says: %s", p.pkg, d)
			}
		}
	}
}

func TestParseInstall(t *testing.T) {
	list, err := parseInstall("Reading package lists...\nInst gcc-12-base (12.2.0-14 Debian:12.9/stable [arm64])\nInst libc6 (2.36-9 Debian:12.9/stable, Debian-Security:12 [arm64]) []\nConf libc6 (2.36-9 Debian:12.9/stable [arm64])\n")
	if err != nil || !slices.Equal(list, []pinned{{"gcc-12-base", "12.2.0-14"}, {"libc6", "2.36-9"}}) {
		t.Errorf("%v %v", list, err)
	}
	if _, err := parseInstall("Reading package lists...\n"); err == nil {
		t.Error("an answer without a package must be an error")
	}
}

// A locked package is taken from the cache only if its contents are the locked ones.
func TestCached(t *testing.T) {
	a := newApt(t.TempDir(), "arm64")
	if err := os.MkdirAll(filepath.Join(a.dir, "cache"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"p_1%3a2_arm64.deb": "x", "q_3_all.deb": "y"} {
		if err := os.WriteFile(filepath.Join(a.dir, "cache", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	p, err := a.find("p", "1:2")
	if err != nil {
		t.Fatal(err)
	}
	q, err := a.find("q", "3")
	if err != nil {
		t.Fatal(err)
	}
	locked := []Input{p.input("c"), q.input("c")}
	if debs, ok := a.cached(locked); !ok || len(debs) != 2 {
		t.Errorf("%v %v", debs, ok)
	}
	if err := os.WriteFile(q.path, []byte("damaged"), 0o644); err != nil {
		t.Fatal(err)
	}
	if debs, ok := a.cached(locked); ok {
		t.Errorf("a damaged package was taken from the cache: %v", debs)
	}
	if _, ok := a.cached(nil); ok {
		t.Error("nothing locked must not count as cached")
	}
}

// A library that no package holds must not be left out in silence.
func TestLibrariesMissing(t *testing.T) {
	program := dynamicProgram(t)
	if _, err := libraries(program, nil); err == nil || !strings.Contains(err.Error(), "in none of the packages") {
		t.Errorf("%v", err)
	}
	all := []file{{name: "lib64/ld-linux-x86-64.so.2", data: []byte("x")}, {name: "lib/ld-linux-aarch64.so.1", data: []byte("x")}}
	for _, lib := range []string{"libc.so.6", "libselinux.so.1", "libpcre2-8.so.0", "libcap.so.2"} {
		all = append(all, file{name: "lib/" + lib, data: []byte("x")})
	}
	if found, err := libraries(program, all); err != nil || len(found) < 2 {
		t.Errorf("%v %v", found, err)
	}
}

// dynamicProgram is a program of the host that is linked to shared libraries.
func dynamicProgram(t *testing.T) file {
	t.Helper()
	b, err := os.ReadFile("/bin/ls")
	if err != nil {
		t.Fatal(err)
	}
	return file{name: "bin/ls", data: b}
}

package component

import (
	"slices"
	"strings"
	"testing"
)

func mod(name string, depends ...string) module {
	return module{file: file{name: "lib/modules/6/kernel/" + name + ".ko"}, name: name, depends: depends, aliases: []string{"alias-" + name}}
}

// Loading a line of modules.dep from its last entry to its first must find
// every module's own needs loaded already.
func TestIndexLoads(t *testing.T) {
	all := map[string]module{}
	for _, m := range []module{mod("pci", "ring", "modern", "legacy", "virtio"), mod("modern", "ring"), mod("legacy"), mod("virtio", "ring"), mod("ring"), mod("other")} {
		all[m.name] = m
	}
	modules, err := closure(all, []string{"pci", "builtin"})
	if err != nil {
		t.Fatal(err)
	}
	if slices.ContainsFunc(modules, func(m module) bool { return m.name == "other" }) || len(modules) != 5 {
		t.Errorf("closure: %v", modules)
	}
	dep, alias := index("lib/modules/6", modules)
	if !strings.Contains(alias, "alias alias-ring ring\n") {
		t.Errorf("aliases: %s", alias)
	}
	for _, line := range strings.Split(strings.TrimSpace(dep), "\n") {
		of, needs, _ := strings.Cut(line, ":")
		loaded := map[string]bool{}
		order := strings.Fields(needs)
		slices.Reverse(order)
		for _, p := range append(order, of) {
			for _, d := range all[moduleName(p)].depends {
				if !loaded[d] {
					t.Errorf("%s: %s is loaded before %s, which it needs", of, moduleName(p), d)
				}
			}
			loaded[moduleName(p)] = true
		}
	}
	if _, err := closure(map[string]module{"a": mod("a", "gone")}, []string{"a"}); err == nil {
		t.Error("a module whose needs are missing must be refused")
	}
}

func TestParseModinfo(t *testing.T) {
	depends, aliases := parseModinfo([]byte("license=GPL\x00depends=virtio,virtio-ring\x00alias=pci:v1\x00alias=pci:v2\x00"))
	if !slices.Equal(depends, []string{"virtio", "virtio_ring"}) || !slices.Equal(aliases, []string{"pci:v1", "pci:v2"}) {
		t.Errorf("%q %q", depends, aliases)
	}
	if depends, aliases := parseModinfo([]byte("depends=\x00")); depends != nil || aliases != nil {
		t.Errorf("nothing must be nothing: %q %q", depends, aliases)
	}
}

package images

import (
	"fmt"
	"strings"
	"testing"
)

// A list of the largest length that a text may have is judged as a whole; what
// looked at each pair in it, or at each folder of a path from the root, took most
// of a minute. The number of looks is counted where it can be.
func TestLintLong(t *testing.T) {
	const many = 20_000
	var binds []string
	for i := range many {
		binds = append(binds, fmt.Sprintf("\"/nothing:/b%d\"", i))
	}
	b := Builder{Source: lintShelf(t), Arch: "amd64"}
	found, _, err := b.Lint(t.Context(), spec(t, sound+"services: [{name: a, image: test/web, readonly: true, binds: ["+strings.Join(binds, ", ")+"]}]\n"))
	if err != nil || len(found) != 2*many { // no source, and no place
		t.Errorf("%d problems, %v", len(found), err)
	}
	deep := strings.TrimSuffix(strings.Repeat("d/", 1500), "/")
	root := newTree()
	if err := root.put(deep+"/file", newFile(0o644, "")); err != nil {
		t.Fatal(err)
	}
	before := root.steps
	for name, want := range map[string]string{deep: "", deep + "/file": deep + "/file", deep + "/file/x": deep + "/file", deep + "/new/x": "", "d": "", "other": ""} {
		if got := root.inTheWay(name); got != want {
			t.Errorf("%.20s...: got %.20q", name, got)
		}
	}
	if root.steps != before {
		t.Errorf("%d steps from the root", root.steps-before)
	}
}

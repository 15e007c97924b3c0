package images

import (
	"archive/tar"
	"bytes"
	"fmt"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// chain is a way of 40 links to a folder, each as long as a link may be.
func chain() layer {
	l := layer{folder("end", 0o755), symlink("l40", "end")}
	for i := 39; i > 0; i-- {
		to := fmt.Sprintf("l%d", i+1)
		l = append(l, symlink(fmt.Sprintf("l%d", i), strings.Repeat("./", (maxTarget-len(to))/2)+to))
	}
	return l
}

const tooFar = "lead too far: following them takes more than 134217728 steps"

// Few bytes can stand for much work: what leads through long links, deep folders
// or the same opaque folder again and again is given up, with a name, after a
// number of steps. The same entries in the usual places take next to none.
func TestSteps(t *testing.T) {
	repeat := func(n int, f func(i int) tar.Header) (l layer) {
		for i := range n {
			l = append(l, f(i))
		}
		return l
	}
	const many = 200
	const before = maxSteps - 200*many // as if much was done already
	deep := strings.Repeat("d/", 2040)
	wide := repeat(2_000, func(i int) tar.Header { return file(fmt.Sprintf("wide/%d", i), "") })
	for what, c := range map[string]struct {
		before, bad, good layer
	}{
		"files":     {chain(), repeat(many, func(i int) tar.Header { return file(fmt.Sprintf("l1/%d", i), "") }), repeat(many, func(i int) tar.Header { return file(fmt.Sprintf("l40/%d", i), "") })},
		"links":     {append(chain(), file("end/x", "")), repeat(many, func(i int) tar.Header { return hardlink(fmt.Sprint(i), "l1/x") }), repeat(many, func(i int) tar.Header { return hardlink(fmt.Sprint(i), "l40/x") })},
		"whiteouts": {chain(), repeat(many, func(i int) tar.Header { return file(fmt.Sprintf("l1/.wh.%d", i), "") }), repeat(many, func(i int) tar.Header { return file(fmt.Sprintf("l40/.wh.%d", i), "") })},
		"opaque":    {wide, repeat(200, func(int) tar.Header { return file("wide/.wh..wh..opq", "") }), layer{file("wide/.wh..wh..opq", "")}},
		"deep":      {nil, repeat(200, func(int) tar.Header { return file(deep+"x", "") }), repeat(many, func(i int) tar.Header { return file(fmt.Sprintf("a/b/c/%d", i), "") })},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			run := func(l layer) (*flattener, error) {
				f := &flattener{tree: newTree(), spool: testSpool(t)}
				if err := f.unpack(bytes.NewReader(c.before.archive(t))); err != nil {
					t.Fatal(err)
				}
				f.tree.steps = before
				return f, f.unpack(bytes.NewReader(l.archive(t)))
			}
			f, err := run(c.bad)
			if err == nil || !strings.Contains(err.Error(), tooFar) {
				t.Errorf("%v after %d steps", err, f.tree.steps)
			}
			if f.tree.steps > maxSteps+maxLinks*maxPath {
				t.Errorf("it went on to %d steps", f.tree.steps)
			}
			if f, err := run(c.good); err != nil || f.tree.steps > maxSteps-100*many {
				t.Errorf("usual ones: %v after %d steps", err, f.tree.steps)
			}
		})
	}
}

// Images over one another are held to the same number.
func TestOverSteps(t *testing.T) {
	upper := func(dir string) *tree {
		up := newTree()
		for i := range 500 {
			if err := up.put(fmt.Sprintf("%s/%d/x", dir, i), newFile(0o644, "")); err != nil {
				t.Fatal(err)
			}
		}
		return up
	}
	f, err := flatten(t.Context(), image(t, "amd64", v1.Config{}, chain()), testSpool(t))
	if err != nil {
		t.Fatal(err)
	}
	f.tree.steps = maxSteps - 1_000_000 // as if much was done already
	if err := f.tree.over(upper("l40")); err != nil {
		t.Errorf("one link: %v", err)
	}
	if err = f.tree.over(upper("l2")); err == nil || !strings.Contains(err.Error(), tooFar) {
		t.Errorf("a chain: %v after %d steps", err, f.tree.steps)
	}
}

// What is left out of an archive, or is longer than its files, was unpacked too.
func TestStreamBounded(t *testing.T) {
	f := &flattener{tree: newTree(), spool: testSpool(t), stream: maxStream - 10_000}
	img := image(t, "amd64", v1.Config{}, layer{file("a", "x")}, layer{file("b", strings.Repeat("x", 9_000))})
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if err := f.layer(t.Context(), layers[0], config.RootFS.DiffIDs[0]); err != nil {
		t.Errorf("it fits: %v", err)
	}
	if err := f.layer(t.Context(), layers[1], config.RootFS.DiffIDs[1]); err == nil || !strings.Contains(err.Error(), "unpacks to more than 17179869184 bytes") {
		t.Errorf("the next: %v", err)
	}
}

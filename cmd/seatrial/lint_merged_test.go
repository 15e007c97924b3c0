package main

import (
	"os"
	"path/filepath"
	"testing"
)

// Two files that are an image only together are sound when they are merged, and
// each has its problem alone.
func TestLintMerged(t *testing.T) {
	dir := t.TempDir()
	var files []string
	for name, text := range map[string]string{
		"a.yml": "kernel: {image: x/kernel, cmdline: console=ttyS0}\n",
		"b.yml": "init: [x/init]\n",
	} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	o := &options{cache: t.TempDir(), arch: "amd64"}
	for merged, want := range map[bool]int{true: 0, false: 2} {
		got := 0
		for _, set := range lintSets(files, merged) {
			found, _, err := o.lint(t.Context(), set)
			if err != nil {
				t.Fatal(err)
			}
			got += len(found)
		}
		if got != want {
			t.Errorf("merged %v: %d problems, want %d", merged, got, want)
		}
	}
}

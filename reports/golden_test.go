package reports

import (
	"bytes"
	"flag"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestGolden(t *testing.T) {
	text := func(opt TextOptions) func(io.Writer, Run) error {
		return func(w io.Writer, r Run) error { return WriteText(w, r, opt) }
	}
	for _, g := range []struct {
		file  string
		run   Run
		write func(io.Writer, Run) error
	}{
		{"failed.txt", sampleRun(), text(TextOptions{})},
		{"failed-colour-80.txt", sampleRun(), text(TextOptions{Colour: true, Width: 80})},
		{"passed.txt", passedRun(), text(TextOptions{})},
		{"failed.xml", sampleRun(), WriteJUnit},
		{"passed.xml", passedRun(), WriteJUnit},
		{"passed.json", passedRun(), WriteJSON},
		{"compared.txt", sampleRun(), func(w io.Writer, r Run) error { return Compare(passedRun(), r).WriteText(w) }},
	} {
		t.Run(g.file, func(t *testing.T) {
			var got bytes.Buffer
			if err := g.write(&got, g.run); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join("testdata", g.file)
			if *update {
				if err := os.WriteFile(path, got.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), got.String()); d != "" {
				t.Errorf("go test -update writes it anew, if this is meant (-want +got):\n%s", d)
			}
		})
	}
}

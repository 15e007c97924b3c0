package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// figure is one measured value. Its name begins with its group: "boot.ready_s".
type figure struct {
	Name    string  `json:"name"`
	Value   float64 `json:"value"`
	Unit    string  `json:"unit"`
	Target  string  `json:"target"`  // what it should be, in words: "<= 12"; empty: none is set
	Command string  `json:"command"` // that measures it again
}

// group is a set of figures that are measured together. To add one, write a
// file bench_NAME.go with a function that returns its group, and name that
// function in groups: nothing else needs to know. Measure takes the median of
// several runs, measures with the tool's own packages and not with a stopwatch
// around a shell, and cleans up after itself.
type group struct {
	name    string
	about   string // what is measured and how, for help and table
	measure func(context.Context, *bench) ([]figure, error)
}

// groups are all there are, in the order they run.
func groups() []group {
	return []group{bootGroup(), initGroup(), imagesGroup(), mediaGroup(), forkGroup(), soakGroup()}
}

func groupNames() []string {
	var names []string
	for _, g := range groups() {
		names = append(names, g.name)
	}
	return names
}

// bench is what a group works with.
type bench struct {
	o    *options
	d    *display
	dir  string // for temporary files; removed when all is measured
	runs int    // how often to repeat
}

func benchCommand(o *options) *cobra.Command {
	var out, table string
	var runs int
	cmd := &cobra.Command{
		Use:    "bench [group...]",
		Hidden: true, // for those who work on seatrial; make bench runs it
		Short:  "Measure, and write the figures to a file",
		Long: `Runs groups of measurements (without a name: all) and writes their figures, as
an array of {name, value, unit, target, command}, to a file. With --table the
figures in a Markdown page are replaced by those of that file instead.` + aboutGroups(),
		Example: `  seatrial bench
  seatrial bench boot --runs 9
  seatrial bench --table docs/benchmarks.md`,
		ValidArgs: groupNames(),
		Args:      cobra.OnlyValidArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if table != "" {
				return writeTable(table, out)
			}
			if runs < 1 {
				return misusef("--runs %d: give 1 or more", runs)
			}
			figures, err := o.bench(cmd.Context(), args, runs)
			if err != nil {
				return err
			}
			for _, f := range figures {
				fmt.Printf("%-24s %10.3f %-4s %s\n", f.Name, f.Value, f.Unit, f.Target)
			}
			return writeFigures(out, figures)
		},
	}
	cmd.Flags().StringVarP(&out, "output", "o", filepath.Join("out", "bench.json"), "file of the figures")
	cmd.Flags().IntVar(&runs, "runs", 5, "how often each thing is done; the median counts")
	cmd.Flags().StringVar(&table, "table", "", "Markdown page whose table to make from the file of the figures")
	return cmd
}

func aboutGroups() string {
	var b strings.Builder
	b.WriteString("\n\nGroups:")
	for _, g := range groups() {
		fmt.Fprintf(&b, "\n  %-10s %s", g.name, g.about)
	}
	return b.String()
}

// bench measures the named groups, or all.
func (o *options) bench(ctx context.Context, names []string, runs int) (figures []figure, err error) {
	dir, err := os.MkdirTemp("", "seatrial-bench-")
	if err != nil {
		return nil, err
	}
	d := newDisplay(os.Stderr)
	defer func() {
		d.close()
		err = errors.Join(err, os.RemoveAll(dir))
	}()
	for _, g := range groups() {
		if len(names) > 0 && !slices.Contains(names, g.name) {
			continue
		}
		found, err := g.measure(ctx, &bench{o: o, d: d, dir: dir, runs: runs})
		if err != nil {
			return nil, fmt.Errorf("benchmark %s: %w", g.name, err)
		}
		for i := range found {
			found[i].Command = "make bench BENCH=" + g.name
		}
		figures = append(figures, found...)
	}
	return figures, nil
}

// median of at least one value.
func median(values []float64) float64 {
	v := slices.Sorted(slices.Values(values))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

func writeFigures(path string, figures []figure) error {
	b, err := json.MarshalIndent(figures, "", "  ")
	if err != nil {
		return err
	}
	return remedy(replaceFile(path, append(b, '\n')), "-o")
}

// replaceFile writes a file so that no reader ever sees half of it.
func replaceFile(path string, b []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// Marks around the generated part of a page.
const (
	tableBegin = "<!-- figures: made by seatrial bench --table, do not edit -->\n"
	tableEnd   = "<!-- end of figures -->\n"
)

// writeTable replaces the table of a page by the figures of a file.
func writeTable(page, from string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return misusef("%w; measure first: make bench", err)
	}
	var figures []figure
	if err := json.Unmarshal(b, &figures); err != nil {
		return misusef("%s: %w", from, err)
	}
	text, err := os.ReadFile(page)
	if err != nil {
		return misuse{err}
	}
	before, rest, begins := strings.Cut(string(text), tableBegin)
	_, after, ends := strings.Cut(rest, tableEnd)
	if !begins || !ends {
		return misusef("%s has no place for the table: it needs the lines %q and %q", page, tableBegin, tableEnd)
	}
	return replaceFile(page, []byte(before+tableBegin+tableOf(figures)+tableEnd+after))
}

func tableOf(figures []figure) string {
	var b strings.Builder
	b.WriteString("\n| name | value | unit | target | measured by |\n|---|---:|---|---|---|\n")
	for _, f := range figures {
		fmt.Fprintf(&b, "| `%s` | %.3f | %s | %s | `%s` |\n", f.Name, f.Value, f.Unit, f.Target, f.Command)
	}
	b.WriteString("\n")
	return b.String()
}

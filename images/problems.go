package images

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is one thing that is wrong with a YAML text.
type Problem struct {
	Line, Column int    // from 1; 0 if the problem has no place
	Text         string // what is wrong
	Hint         string // what to do about it
}

// SpecError is all that is wrong with a YAML text, in the order of its lines.
type SpecError struct {
	File     string
	Problems []Problem
}

// Error returns one line for each problem: "file:line:col: text; hint".
func (e *SpecError) Error() string {
	var lines []string
	for _, p := range e.Problems {
		line := e.File + ": "
		if p.Line > 0 {
			line = fmt.Sprintf("%s:%d:%d: ", e.File, p.Line, p.Column)
		}
		line += p.Text
		if p.Hint != "" {
			line += "; " + p.Hint
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

// maxProblems are shown at once; a text with more is not a spec at all.
const maxProblems = 100

type place struct{ line, column int }

// problem notes that the value at path is wrong. A path that is not in the
// text, such as that of a missing key, is placed at what encloses it.
func (d *decoder) problem(path, text, hint string) {
	at := d.at[path]
	for outer := path; at.line == 0 && outer != ""; {
		outer = outer[:max(strings.LastIndexAny(outer, ".["), 0)]
		at = d.at[outer]
	}
	d.misplaced(at, path, text, hint)
}

// misplaced is problem for what has no value, such as a key.
func (d *decoder) misplaced(at place, path, text, hint string) {
	if path != "" {
		text = path + ": " + text
	}
	if len(d.problems) < maxProblems {
		d.problems = append(d.problems, Problem{Line: at.line, Column: at.column, Text: text, Hint: hint})
	}
}

func (d *decoder) err() error {
	if len(d.problems) == 0 {
		return nil
	}
	slices.SortStableFunc(d.problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	if len(d.problems) == maxProblems {
		d.problems = append(d.problems, Problem{Text: fmt.Sprintf("these are the first %d problems", maxProblems), Hint: "the rest is not shown"})
	}
	return &SpecError{File: d.file, Problems: d.problems}
}

// didYouMean is the hint for a word that is not one of the known ones: the
// nearest of them if it is near, else all.
func didYouMean(word string, known []string) string {
	best, distance := "", 3 // more than two slips are another word
	for _, k := range known {
		if n := slips(strings.ToLower(word), strings.ToLower(k)); n < distance && n < len(k) {
			best, distance = k, n
		}
	}
	if best != "" {
		return fmt.Sprintf("did you mean %q?", best)
	}
	return "known are: " + strings.Join(known, ", ")
}

// slips is the Levenshtein distance, with words longer than any key cut short.
func slips(a, b string) int {
	a, b = a[:min(len(a), 40)], b[:min(len(b), 40)]
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}

package images

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is one thing that is wrong with a YAML text, or likely to be.
type Problem struct {
	File         string
	Line, Column int    // from 1; 0 if the problem has no place
	Field        string // path of the value, such as "services[1].image"; empty: the whole text
	Text         string // what is wrong
	Hint         string // what to do about it
}

// String is "file:line:col: field: text; hint".
func (p Problem) String() string {
	line := p.File + ": "
	if p.Line > 0 {
		line = fmt.Sprintf("%s:%d:%d: ", p.File, p.Line, p.Column)
	}
	if p.Field != "" {
		line += p.Field + ": "
	}
	line += p.Text
	if p.Hint != "" {
		line += "; " + p.Hint
	}
	return line
}

// SpecError is all that is wrong with YAML texts, in the order of their lines.
type SpecError struct{ Problems []Problem }

// Error returns one line for each problem, see [Problem.String].
func (e *SpecError) Error() string {
	var lines []string
	for _, p := range e.Problems {
		lines = append(lines, p.String())
	}
	return strings.Join(lines, "\n")
}

// maxProblems are shown at once; a text with more is not a spec at all.
const maxProblems = 100

type place struct {
	file         string
	line, column int
}

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
	if len(d.problems) < maxProblems {
		d.problems = append(d.problems, Problem{File: cmp.Or(at.file, d.file), Line: at.line, Column: at.column, Field: path, Text: text, Hint: hint})
	}
}

func (d *decoder) err() error {
	if len(d.problems) == 0 {
		return nil
	}
	sortProblems(d.problems)
	if len(d.problems) >= maxProblems {
		d.problems = append(d.problems[:maxProblems], Problem{File: d.file, Text: fmt.Sprintf("these are the first %d problems", maxProblems), Hint: "the rest is not shown"})
	}
	return &SpecError{Problems: d.problems}
}

// sortProblems sorts by line within each file; files stay in their order.
func sortProblems(list []Problem) {
	order := map[string]int{}
	for _, p := range list {
		if _, known := order[p.File]; !known {
			order[p.File] = len(order)
		}
	}
	slices.SortStableFunc(list, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(order[a.File], order[b.File]), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
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

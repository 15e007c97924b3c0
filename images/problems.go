package images

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unicode"
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
	line := place{p.File, p.Line, p.Column}.prefix()
	if p.Field != "" {
		line += p.Field + ": "
	}
	line += p.Text
	if p.Hint != "" {
		line += "; " + p.Hint
	}
	return visible(line)
}

// visible is a text with everything escaped that does not show, or does
// something to a terminal.
func visible(text string) string {
	var b strings.Builder
	for _, r := range text {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			quoted := strconv.QuoteRune(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		}
	}
	return b.String()
}

// SpecError is all that is wrong with YAML texts, or with the images that they
// name, in the order of the texts' lines.
type SpecError struct {
	Problems []Problem
	causes   []error // what problems were made of
}

// Error returns one line for each problem, see [Problem.String].
func (e *SpecError) Error() string {
	var lines []string
	for _, p := range e.Problems {
		lines = append(lines, p.String())
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns the errors that problems were made of, such as [ErrNotFound].
func (e *SpecError) Unwrap() []error { return e.causes }

// advised is an error with what to do about it, which a Problem has apart.
type advised struct {
	error
	hint string
}

func advisedf(hint, format string, args ...any) error {
	return advised{fmt.Errorf(format, args...), hint}
}

func (a advised) Error() string { return a.error.Error() + "; " + a.hint }
func (a advised) Unwrap() error { return a.error }

// split is an error's text without the advice in it, and that; what else there
// is to do if it has none.
func split(err error, otherwise string) (text, hint string) {
	var a advised
	if !errors.As(err, &a) {
		return err.Error(), otherwise
	}
	return strings.Replace(err.Error(), a.Error(), a.error.Error(), 1), a.hint
}

// faults collects what stands in the way of an image.
type faults struct {
	decoder
	causes []error
}

// note notes that something failed for what the value at a path asks for. What
// is no fault of the spec or its images, the end of ctx or a full disk, is
// returned instead.
func (f *faults) note(ctx context.Context, path string, err error, hint string) error {
	for _, host := range []error{ctx.Err(), syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EIO, syscall.ENOMEM} {
		if host != nil && (errors.Is(err, host) || ctx.Err() != nil) {
			return fmt.Errorf("%s%w", placeOf(f.at, path).prefix(), err)
		}
	}
	text, hint := split(err, hint)
	f.problem(path, text, hint)
	f.causes = append(f.causes, err)
	return nil
}

func (f *faults) err() error {
	if len(f.problems) == 0 {
		return nil
	}
	return &SpecError{Problems: f.sorted(), causes: f.causes}
}

// maxProblems are shown at once; a text with more is not a spec at all.
const maxProblems = 100

type place struct {
	file         string
	line, column int
}

// prefix is "file:line:col: ", or as much of it as is known.
func (p place) prefix() string {
	switch {
	case p.line > 0:
		return fmt.Sprintf("%s:%d:%d: ", p.file, p.line, p.column)
	case p.file != "":
		return p.file + ": "
	}
	return ""
}

// placeOf is where the value at a path stands. A path that is not in the text,
// such as that of a missing key, is placed at what encloses it.
func placeOf(known map[string]place, path string) place {
	at := known[path]
	for outer := path; at.line == 0 && outer != ""; {
		outer = outer[:max(strings.LastIndexAny(outer, ".["), 0)]
		at = known[outer]
	}
	return at
}

// problem notes that the value at path is wrong.
func (d *decoder) problem(path, text, hint string) {
	d.misplaced(placeOf(d.at, path), path, text, hint)
}

// unreadable is problem for a value that nothing can be made of: what is in it
// is not missing.
func (d *decoder) unreadable(path, text, hint string) {
	d.problem(path, text, hint)
	if d.broken == nil {
		d.broken = map[string]bool{}
	}
	d.broken[path] = true
}

// bad reports whether the value at a path, or what encloses it, was already
// found to be wrong; one mistake should not be two problems.
func (d *decoder) bad(at string) bool {
	for outer := at; outer != ""; outer = outer[:max(strings.LastIndexAny(outer, ".["), 0)] {
		if d.broken[outer] {
			return true
		}
	}
	return slices.ContainsFunc(d.problems, func(p Problem) bool { return p.Field == at })
}

// unless is problem for a value that is not bad yet.
func (d *decoder) unless(path, text, hint string) {
	if !d.bad(path) {
		d.problem(path, text, hint)
	}
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
	return &SpecError{Problems: d.sorted()}
}

// sorted is the problems by their lines, and a word about those that were too many.
func (d *decoder) sorted() []Problem {
	sortProblems(d.problems)
	if len(d.problems) < maxProblems {
		return d.problems
	}
	return append(d.problems[:maxProblems:maxProblems], Problem{File: d.file, Text: fmt.Sprintf("these are the first %d problems", maxProblems), Hint: "the rest is not shown"})
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

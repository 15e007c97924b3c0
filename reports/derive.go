package reports

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/seatrial/seatrial/boot"
)

// Sizes of what a summary shows.
const (
	tailLines    = 40 // console lines of a failure
	slowestCases = 5
)

// Counts is how many cases ended how.
type Counts struct{ Passed, Failed, Skipped int }

// Count counts the cases. As in [Run.Judge], a case without a known outcome
// has failed.
func (r *Run) Count() Counts {
	var n Counts
	for _, c := range r.Cases {
		switch c.Outcome {
		case Passed:
			n.Passed++
		case Skipped:
			n.Skipped++
		default:
			n.Failed++
		}
	}
	return n
}

// String is the closing line of a summary: "38 passed, 0 failed", and
// ", 2 skipped" if there are any.
func (n Counts) String() string {
	s := fmt.Sprintf("%d passed, %d failed", n.Passed, n.Failed)
	if n.Skipped > 0 {
		s += fmt.Sprintf(", %d skipped", n.Skipped)
	}
	return s
}

// FirstLine is the one line that says what happened.
func FirstLine(run Run) string {
	n := run.Count()
	if run.Outcome == Passed {
		return oneLine(fmt.Sprintf("all %d cases passed in %s", n.Passed, short(run.Took)))
	}
	failed := failures(run)
	if len(failed) == 0 {
		return oneLine(cmp.Or(run.Failure, "the run did not pass, and nothing was said of the reason"))
	}
	line := headline(failed[0]) + " (" + caseName(failed[0]) + ")"
	if more := len(failed) - 1; more > 0 {
		line += fmt.Sprintf(", and %d more failed", more)
	}
	return oneLine(line)
}

// failures are the cases that neither passed nor were skipped, in their order.
func failures(run Run) []Case {
	var out []Case
	for _, c := range run.Cases {
		if c.Outcome != Passed && c.Outcome != Skipped {
			out = append(out, c)
		}
	}
	return out
}

// headline is class and title of a failed case.
func headline(c Case) string {
	first, _, _ := strings.Cut(strings.TrimSpace(c.Failure), "\n")
	title := cmp.Or(c.Title, first, "failed, and nothing was said of the reason")
	if c.Class == "" {
		return title
	}
	return string(c.Class) + ": " + title
}

func caseName(c Case) string { return strings.Join(c.Path, " › ") }

// topic is what a case is listed under.
func topic(c Case) string {
	if len(c.Path) == 0 {
		return ""
	}
	return c.Path[0]
}

// blamed is the machine that a failed case is about: the last one it used
// that went wrong, or simply the last one.
func blamed(run Run, c Case) (Boot, bool) {
	var last Boot
	found := false
	for _, id := range slices.Backward(c.BootIDs) {
		b, ok := run.Boots[id]
		if !ok {
			continue
		}
		if _, bad := cause(b); bad || b.Class != "" {
			return b, true
		}
		if !found {
			last, found = b, true
		}
	}
	return last, found
}

// cause is the first fatal fault that no spec asked for.
func cause(b Boot) (Fault, bool) {
	for _, f := range b.Faults {
		if f.Fatal && !f.Expect {
			return f, true
		}
	}
	return Fault{}, false
}

// awaited is what a failed case was waiting for, as far as it is known.
func awaited(c Case, b Boot) string { return cmp.Or(c.Awaited, string(b.Wanted)) }

// reached is the furthest milestone in words; one that was reached badly says so.
func reached(b Boot) string {
	for _, m := range b.Marks {
		if m.At == b.Reached && m.Unit == "" && m.State == boot.Failed {
			return string(b.Reached) + " (failed" + prefixed(": ", m.Detail) + ")"
		}
	}
	return cmp.Or(string(b.Reached), "nothing")
}

func tail(b Boot) []Line { return b.Console[max(0, len(b.Console)-tailLines):] }

func evidence(c Case, b Boot) []Artifact {
	var out []Artifact
	seen := map[string]bool{}
	for _, a := range slices.Concat(c.Evidence, b.Evidence) {
		if !seen[a.Path] {
			seen[a.Path] = true
			out = append(out, a)
		}
	}
	return out
}

// slowest are the cases that took longest, the slowest first.
func slowest(run Run) []Case {
	cases := slices.Clone(run.Cases)
	slices.SortStableFunc(cases, func(a, b Case) int { return cmp.Compare(b.Took, a.Took) })
	return cases[:min(len(cases), slowestCases)]
}

// short writes a duration for people: 0.31s, 12.3s, 4m12s.
func short(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return fmt.Sprintf("%.2fs", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%.1fs", d.Seconds())
	}
	return d.Round(time.Second).String()
}

// prefixed puts prefix before s, unless s is empty.
func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}

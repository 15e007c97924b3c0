package reports

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/seatrial/seatrial/boot"
)

// A milestone has moved if its time differs by more than both of these: two
// boots of the same image on an idle two-core host differ by about a tenth,
// and below a quarter of a second nobody cares.
const (
	movedShare = 0.10
	movedLeast = 250 * time.Millisecond
)

// Comparison is what differs between two runs.
type Comparison struct {
	Cases []CaseChange
	Marks []MarkChange
}

// CaseChange is a case that ended otherwise; an Outcome is empty in the run
// that did not have the case.
type CaseChange struct {
	Name          string
	Before, After Outcome
	Title         string // of the later failure
}

// MarkChange is a milestone of a machine, known by its ID in both runs, that
// was reached at another time. A time below zero means that it was not reached.
type MarkChange struct {
	Boot          string
	At            boot.Milestone
	Before, After time.Duration // host's time
}

// Compare finds the cases whose outcome changed, in b's order and then those
// that only a has, and the milestones that moved, by machine.
func Compare(a, b Run) Comparison {
	var out Comparison
	before := map[string]Case{}
	for _, c := range a.Cases {
		before[caseName(c)] = c
	}
	for _, c := range b.Cases {
		old := before[caseName(c)]
		delete(before, caseName(c))
		if old.Outcome != c.Outcome {
			out.Cases = append(out.Cases, CaseChange{Name: caseName(c), Before: old.Outcome, After: c.Outcome, Title: c.Title})
		}
	}
	for _, c := range a.Cases {
		if _, gone := before[caseName(c)]; gone {
			out.Cases = append(out.Cases, CaseChange{Name: caseName(c), Before: c.Outcome})
		}
	}
	for _, id := range slices.Sorted(maps.Keys(b.Boots)) {
		if old, ok := a.Boots[id]; ok {
			out.Marks = append(out.Marks, moved(old, b.Boots[id])...)
		}
	}
	return out
}

func moved(a, b Boot) []MarkChange {
	var out []MarkChange
	for _, at := range boot.Milestones() {
		x, y := reachedAt(a, at), reachedAt(b, at)
		far := time.Duration(movedShare * float64(max(x, y)))
		if (x < 0) != (y < 0) || (x-y).Abs() > max(far, movedLeast) {
			out = append(out, MarkChange{Boot: b.ID, At: at, Before: x, After: y})
		}
	}
	return out
}

// reachedAt is the host's time of a milestone reached well; below zero if it was not.
func reachedAt(b Boot, at boot.Milestone) time.Duration {
	for _, m := range b.Marks {
		if m.At == at && m.Unit == "" && m.State == boot.Done {
			return m.Host
		}
	}
	return -1
}

// WriteText writes the comparison for a terminal.
func (c Comparison) WriteText(w io.Writer) error {
	var t bytes.Buffer
	if len(c.Cases)+len(c.Marks) == 0 {
		t.WriteString("no case changed its outcome, no milestone moved\n")
	}
	for _, x := range c.Cases {
		fmt.Fprintf(&t, "%-7s -> %-7s  %s%s\n", cmp.Or(x.Before, "absent"), cmp.Or(x.After, "absent"), oneLine(x.Name), oneLine(prefixed(": ", x.Title)))
	}
	for _, x := range c.Marks {
		fmt.Fprintf(&t, "%7s -> %-7s  %s %s\n", at(x.Before), at(x.After), oneLine(x.Boot), x.At)
	}
	_, err := w.Write(t.Bytes())
	return err
}

func at(d time.Duration) string {
	if d < 0 {
		return "never"
	}
	return short(d)
}

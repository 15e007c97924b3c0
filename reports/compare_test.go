package reports

import (
	"bytes"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestCompare(t *testing.T) {
	boots := func(host time.Duration, more ...Mark) map[string]Boot {
		return map[string]Boot{"m": {ID: "m", Marks: append([]Mark{{At: "ready", State: "done", Host: host}}, more...)}}
	}
	a := Run{Boots: boots(10*time.Second, Mark{At: "off", State: "done", Host: 20 * time.Second}), Cases: []Case{
		{Path: []string{"same"}, Outcome: Passed}, {Path: []string{"worse"}, Outcome: Passed}, {Path: []string{"gone"}, Outcome: Passed}}}
	b := Run{Boots: boots(12 * time.Second), Cases: []Case{
		{Path: []string{"same"}, Outcome: Passed}, {Path: []string{"worse"}, Outcome: Failed, Title: "panic"}, {Path: []string{"new"}, Outcome: Failed}}}
	want := Comparison{
		Cases: []CaseChange{{Name: "worse", Before: Passed, After: Failed, Title: "panic"}, {Name: "new", After: Failed}, {Name: "gone", Before: Passed}},
		Marks: []MarkChange{{"m", "ready", 10 * time.Second, 12 * time.Second}, {"m", "off", 20 * time.Second, -1}},
	}
	if d := cmp.Diff(want, Compare(a, b)); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	b.Boots = boots(10*time.Second+900*time.Millisecond, a.Boots["m"].Marks[1]) // within a tenth
	if d := Compare(a, b).Marks; d != nil {
		t.Errorf("moved, though hardly: %v", d)
	}
	if d := Compare(a, a); d.Cases != nil || d.Marks != nil {
		t.Errorf("a run differs from itself: %+v", d)
	}
	var text bytes.Buffer
	if err := Compare(a, a).WriteText(&text); err != nil || text.String() != "no case changed its outcome, no milestone moved\n" {
		t.Errorf("%q, %v", text.String(), err)
	}
}

package reports

import (
	"strings"
	"testing"
	"time"

	"github.com/seatrial/seatrial/boot"
)

// A fork's report does not pretend that it booted in a blink: what it inherited
// is said to be inherited, and the time axis begins with the template's boot.
func TestForkInReport(t *testing.T) {
	b := Boot{
		ID: "m", Took: 2 * time.Second, Reached: boot.Ready,
		Fork:    &Fork{How: "ram", At: 12 * time.Second, Took: 200 * time.Millisecond},
		Marks:   []Mark{{At: boot.Ready, State: boot.Done, Host: 11 * time.Second, Inherited: true}},
		Console: []Line{{N: 1, Host: 11 * time.Second, Text: "ready", Inherited: true}, {N: 2, Host: 13 * time.Second, Text: "on"}},
	}
	p := newPageBoot(b, "m", 100)
	for _, want := range []string{"a fork of a machine that was up after 12", "answered after 0.20s"} {
		if !strings.Contains(p.Summary, want) {
			t.Errorf("%q is missing in %q", want, p.Summary)
		}
	}
	found := false
	for _, r := range p.Timeline.Rows {
		found = found || strings.Contains(r.Title, "by the template")
	}
	if !found {
		t.Errorf("no milestone is said to be the template's: %+v", p.Timeline.Rows)
	}
	for how, want := range map[string]string{"stream": "all its memory (no capability)", "cold": "booted in the place of a fork: no capability"} {
		if got := (Fork{How: how, Why: "no capability"}).String(); !strings.Contains(got, want) {
			t.Errorf("%s: %q", how, got)
		}
	}
	b.Fork = nil
	if p := newPageBoot(b, "m", 100); strings.Contains(p.Summary, "fork") {
		t.Errorf("a booted machine: %q", p.Summary)
	}
}

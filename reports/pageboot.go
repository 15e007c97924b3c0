package reports

import (
	"fmt"
	"strings"
	"time"

	"github.com/seatrial/seatrial/boot"
)

// Bounds that keep the page quick to open: a guest that floods its console
// fills the evidence, not the browser.
const (
	pageConsole = 60_000 // console lines on the whole page
	bootConsole = 6_000  // and at most of one machine
	fewestLines = 150    // but at least that many
	aroundLine  = 25     // lines kept on either side of a fault or a milestone
	longestLine = 4_000  // bytes of one line
)

// pause is the silence before a console line from which on it is marked.
const pause = time.Second

type pageBoot struct {
	Boot
	Anchor   string
	State    string // "failed", "warned", "passed"
	Took     string
	Open     bool // shown without being asked for
	Summary  string
	Timeline *timeline
	Lines    []consoleRow
	Evidence []link
	kept     map[int]bool
}

// consoleRow is a console line, or where Gone is not 0 the note that so many
// were left out.
type consoleRow struct {
	N        int
	ID, Href string
	Time     string
	Class    string
	Segments []segment
	Gone     int
}

// consoleShare is how many console lines each of n machines may show.
func consoleShare(n int) int {
	return min(bootConsole, max(fewestLines, pageConsole/max(n, 1)))
}

func newPageBoot(b Boot, anchor string, share int) pageBoot {
	p := pageBoot{Boot: b, Anchor: anchor, State: "passed", Took: short(b.Took), Evidence: links(b.Evidence), kept: map[int]bool{}}
	_, bad := cause(b)
	switch {
	case bad || b.Class != "" || b.Verdict != "":
		p.State = "failed"
	case len(b.Faults) > 0:
		p.State = "warned"
	}
	p.Summary = "reached " + reached(b)
	if b.Wanted != "" {
		p.Summary += ", awaited " + string(b.Wanted)
	}
	if b.Fork != nil {
		p.Summary += "; " + b.Fork.String()
	}
	p.Lines = p.console(share)
	p.Timeline = drawTimeline(b, p.Href)
	return p
}

// Href is where a console line is on the page; the machine, if it is not.
func (p pageBoot) Href(n int) string {
	if p.kept[n] {
		return fmt.Sprintf("#%s-%d", p.Anchor, n)
	}
	return "#" + p.Anchor
}

func (p *pageBoot) console(share int) []consoleRow {
	keep := p.keep(share)
	marked := faultLines(p.Boot)
	var out []consoleRow
	before := time.Duration(0)
	for i, l := range p.Console {
		if !keep[i] {
			if n := len(out); n > 0 && out[n-1].Gone > 0 {
				out[n-1].Gone++
			} else {
				out = append(out, consoleRow{Gone: 1})
			}
			continue
		}
		p.kept[l.N] = true
		out = append(out, p.row(l, marked[l.N], l.Host-before >= pause))
		before = l.Host
	}
	return out
}

func (p *pageBoot) row(l Line, class string, late bool) consoleRow {
	if class == "" && strings.Contains(l.Text, "seatrial[") {
		if _, found, err := boot.ParseEvent([]byte(l.Text)); found && err == nil {
			class = "ev"
		}
	}
	if late {
		class += " late"
	}
	if len(l.Text) > longestLine || len(l.Raw) > 2*longestLine {
		l.Raw = ""
		l.Text = l.Text[:min(len(l.Text), longestLine)] + " … (cut; the serial log has all of it)"
	}
	id := fmt.Sprintf("%s-%d", p.Anchor, l.N)
	return consoleRow{N: l.N, ID: id, Href: "#" + id, Time: hostTime(l.Host), Class: class, Segments: segments(l)}
}

// keep chooses the lines to show if there are more than the share: a quarter
// from the start, the rest from the end, and what is around faults and milestones.
func (p *pageBoot) keep(share int) []bool {
	n := len(p.Console)
	keep := make([]bool, n)
	around := func(from, to int) {
		for i := max(from, 0); i < min(to, n); i++ {
			keep[i] = true
		}
	}
	if n <= share {
		around(0, n)
		return keep
	}
	around(0, share/4)
	around(n-share*3/4, n)
	at := map[int]int{}
	for i, l := range p.Console {
		at[l.N] = i
	}
	for _, f := range p.Faults {
		if i, ok := at[f.Line]; ok {
			around(i-aroundLine, i+min(len(f.Lines), share)+aroundLine)
		}
	}
	for _, line := range markLines(p.Boot) {
		if i, ok := at[line]; ok {
			around(i-1, i+2)
		}
	}
	return keep
}

// faultLines finds the lines that show each fault and how to mark them. A
// fault's lines need not follow one another: two processors may print at once.
func faultLines(b Boot) map[int]string {
	out := map[int]string{}
	for _, f := range b.Faults {
		if f.Line <= 0 {
			continue
		}
		class := "bad"
		if !f.Fatal || f.Expect {
			class = "warn"
		}
		next := 0
		for _, l := range b.Console {
			if l.N < f.Line || next == len(f.Lines) && l.N > f.Line {
				continue
			}
			if l.N == f.Line || l.Text == f.Lines[next] {
				if out[l.N] != "bad" {
					out[l.N] = class
				}
				if next < len(f.Lines) && l.Text == f.Lines[next] {
					next++
				}
			}
		}
	}
	return out
}

package reports

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/seatrial/seatrial/boot"
)

// Measures of the drawing, in CSS pixels. Across, everything is in percent, so
// that the page may be as narrow as it likes without the text getting small.
const (
	rowHeight   = 20
	chartTop    = 46 // guest's axis and the strip of console activity
	chartBottom = 20 // host's axis
	stripHeight = 18
	stripBins   = 150
	unitRows    = 40 // units shown; a machine with more shows the first
)

// timeline is the drawing of a boot. Percentages run from 0 to 100.
type timeline struct {
	Height, RowsEnd int
	Rows            []timelineRow
	HostTicks       []tick
	GuestTicks      []tick
	Cuts            []cutMark
	Faults          []faultMark
	Strip           []stripBar
	Scale           string // the pieces of the scale, for the page's script
	MoreUnits       int
}

type tick struct {
	X    float64
	Text string
}

type cutMark struct {
	X, W float64
	Text string
}

type faultMark struct {
	X           float64
	Title, Href string
	Soft        bool // a warning, or expected
}

type stripBar struct {
	X, Y, H float64
	Title   string
}

// drawTimeline draws what is known of a boot; nil if there is nothing to draw.
// href gives the place of a console line on the page.
func drawTimeline(b Boot, href func(line int) string) *timeline {
	end := b.Took
	if b.Fork != nil {
		end += b.Fork.At
	}
	if n := len(b.Console); n > 0 {
		end = max(end, b.Console[n-1].Host)
	}
	for _, m := range b.Marks {
		end = max(end, m.Host)
	}
	if end <= 0 || len(b.Marks)+len(b.Console) == 0 {
		return nil
	}
	s := newScale(interesting(b), end)
	t := &timeline{Cuts: s.cuts(), Scale: s.json()}
	rows := timelineRows(b, end)
	t.Rows, t.MoreUnits = limitUnits(rows)
	lineOf := markLines(b)
	for i := range t.Rows {
		r := &t.Rows[i]
		r.Y = chartTop + i*rowHeight
		r.BarY, r.TextY = r.Y+3, r.Y+14
		r.place(s)
		r.Href = href(lineOf[r.key])
	}
	t.RowsEnd = chartTop + len(t.Rows)*rowHeight
	t.Height = t.RowsEnd + chartBottom
	t.HostTicks = s.ticks(0)
	if offset, ok := guestOffset(b); ok {
		t.GuestTicks = s.ticks(offset)
	}
	for _, f := range b.Faults {
		t.Faults = append(t.Faults, faultMark{X: s.at(f.Host), Href: href(f.Line), Soft: !f.Fatal || f.Expect,
			Title: fmt.Sprintf("%s: %s (%s)", f.Rule, f.Title, short(f.Host))})
	}
	t.Strip = activity(b, s)
	return t
}

// interesting are the times that must not vanish in a cut.
func interesting(b Boot) []time.Duration {
	var out []time.Duration
	for _, m := range b.Marks {
		out = append(out, m.Host)
	}
	for _, f := range b.Faults {
		out = append(out, f.Host)
	}
	return out
}

// markKey names a milestone, or a unit below it; containerd is both.
type markKey struct {
	at   boot.Milestone
	unit string
}

// markLines finds the console line on which each milestone and unit was last
// spoken of: the event's own record, or else the line that came with it.
func markLines(b Boot) map[markKey]int {
	out := map[markKey]int{}
	for _, m := range b.Marks {
		i, found := slices.BinarySearchFunc(b.Console, m.Host, func(l Line, t time.Duration) int { return cmp.Compare(l.Host, t) })
		if !found {
			i--
		}
		if i >= 0 && i < len(b.Console) {
			out[markKey{m.At, m.Unit}] = b.Console[i].N
		}
	}
	for _, l := range b.Console {
		e, found, err := boot.ParseEvent([]byte(l.Text))
		if !found || err != nil {
			continue // a damaged record is a fault of its own
		}
		out[markKey{e.At, e.Unit}] = l.N
	}
	return out
}

// guestOffset is how much later the host's clock is than the guest's: the
// median, because a line may be late.
func guestOffset(b Boot) (time.Duration, bool) {
	var all []time.Duration
	for _, m := range b.Marks {
		if m.Guest > 0 {
			all = append(all, m.Host-m.Guest)
		}
	}
	if len(all) == 0 {
		return 0, false
	}
	slices.Sort(all)
	return all[len(all)/2], true
}

// activity counts console lines per slice of the drawing, so that silence can be seen. The
// root keeps a burst from flattening the rest.
func activity(b Boot, s scale) []stripBar {
	counts := make([]int, stripBins)
	most := 0
	for _, l := range b.Console {
		i := min(int(s.at(l.Host)/100*stripBins), stripBins-1)
		counts[i]++
		most = max(most, counts[i])
	}
	var out []stripBar
	for i, n := range counts {
		if n == 0 {
			continue
		}
		h := max(1.5, math.Sqrt(float64(n)/float64(most))*stripHeight)
		out = append(out, stripBar{X: 100 * float64(i) / stripBins, Y: chartTop - 6 - h, H: h, Title: fmt.Sprintf("%d console lines", n)})
	}
	return out
}

func (s scale) json() string {
	pieces := make([][4]float64, 0, len(s))
	for _, p := range s {
		pieces = append(pieces, [4]float64{p.t0.Seconds(), p.t1.Seconds(), p.x0, p.x1})
	}
	b, err := json.Marshal(pieces)
	if err != nil {
		return "[]" // cannot be: finite numbers only
	}
	return string(b)
}

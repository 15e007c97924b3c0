package reports

import (
	"fmt"
	"slices"
	"time"

	"github.com/seatrial/seatrial/boot"
)

// timelineRow is a milestone or a unit and its bar.
type timelineRow struct {
	key                            markKey
	Name, Href, State, Title, Note string
	Unit                           bool
	Y, BarY, TextY                 int
	X, W, NoteX                    float64
	NoteLeft                       bool // the note stands left of the bar
	seen                           bool
	from, to                       time.Duration
}

// timelineRows makes a row of every milestone reached and of every unit, each
// unit below the milestone that it belongs to.
func timelineRows(b Boot, end time.Duration) []timelineRow {
	var rows []timelineRow
	before := time.Duration(0)
	for _, at := range boot.Milestones() {
		row := timelineRow{key: markKey{at, ""}, Name: string(at), from: before, to: end, State: "open"}
		var units []timelineRow
		for _, m := range b.Marks {
			if m.At != at {
				continue
			}
			if m.Unit != "" {
				units = addUnit(units, m, end)
				continue
			}
			row.add(m)
		}
		if row.State != "open" {
			before = row.to
		}
		switch {
		case row.seen && instant(at) && row.State != "open":
			row.from = row.to
		case !row.seen && b.Reached.Before(at) && !boot.Ready.Before(at):
			row.State, row.from, row.to, row.seen = "missed", end, end, true
			row.Title = string(at) + " was not reached"
		}
		if row.seen {
			rows = append(rows, row)
		}
		rows = append(rows, units...)
	}
	return rows
}

// instant reports whether nothing is done before a milestone is reached: it
// follows from the one before, or from a request.
func instant(m boot.Milestone) bool { return m == boot.Ready || m == boot.Shutdown }

// add takes in a mark of the row's own milestone.
func (r *timelineRow) add(m Mark) {
	r.seen = true
	switch m.State {
	case boot.Began, boot.Held:
		r.from = m.Host
		r.Title = fmt.Sprintf("%s %s at %s", m.At, m.State, short(m.Host))
		return
	case boot.Warned:
		r.State = "warned"
	case boot.Failed:
		r.State, r.to = "failed", m.Host
	default:
		r.to = m.Host
		if r.State == "open" {
			r.State = "done"
		}
	}
	implied := ""
	if m.Implied {
		implied = ", inferred from the console"
	}
	if m.Inherited {
		implied += ", by the template"
	}
	guest := ""
	if m.Guest > 0 {
		guest = fmt.Sprintf(", guest clock %s", short(m.Guest))
	}
	r.Title = fmt.Sprintf("%s %s: host %s%s%s%s", m.At, m.State, short(m.Host), guest, implied, prefixed("; ", m.Detail))
}

func addUnit(units []timelineRow, m Mark, end time.Duration) []timelineRow {
	i := slices.IndexFunc(units, func(r timelineRow) bool { return r.Name == m.Unit })
	if i < 0 {
		units = append(units, timelineRow{key: markKey{m.At, m.Unit}, Name: m.Unit, Unit: true, State: "runs", from: m.Host, to: end})
		i = len(units) - 1
	}
	u := &units[i]
	switch m.State {
	case boot.Failed:
		u.State, u.to = "failed", m.Host
	case boot.Exited, boot.Done:
		u.State, u.to = "exited", m.Host
	case boot.Warned:
		u.State = "warned"
	}
	u.Title = fmt.Sprintf("%s%s %s at %s%s", suffixed(u.Title, "; "), m.Unit, m.State, short(m.Host), prefixed(": ", m.Detail))
	return units
}

// suffixed puts suffix after s, unless s is empty.
func suffixed(s, suffix string) string {
	if s == "" {
		return ""
	}
	return s + suffix
}

func limitUnits(rows []timelineRow) ([]timelineRow, int) {
	units, more := 0, 0
	var out []timelineRow
	for _, r := range rows {
		if r.Unit {
			if units++; units > unitRows {
				more++
				continue
			}
		}
		out = append(out, r)
	}
	return out, more
}

// place finds the row's bar and where its note fits.
func (r *timelineRow) place(s scale) {
	x0, x1 := s.at(r.from), s.at(r.to)
	r.X, r.W = x0, max(x1-x0, 0.25)
	took := r.to - r.from
	switch r.State {
	case "runs":
		r.Note = "from " + short(r.from)
	case "open":
		r.Note = "never finished"
	case "missed":
		r.Note, r.W = "not reached", 0
	default:
		r.Note = short(r.to)
		if took > 0 {
			r.Note += "  +" + short(took)
		}
	}
	r.NoteX = x0 + r.W
	if r.NoteX > 75 {
		r.NoteX, r.NoteLeft = x0, true
	}
}

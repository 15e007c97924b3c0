package boot

import (
	"slices"
	"time"
)

// Trace is what has been heard of one boot: events in order of arrival, and
// how many were missed. The zero Trace is ready to use. It is not safe for
// concurrent use.
type Trace struct {
	events []Event
	seen   map[string]uint64 // speaker -> last sequence number
	missed int
}

// Add records an event and returns how many events of the same speaker were
// missed before it.
func (t *Trace) Add(e Event) (missed int) {
	if t.seen == nil {
		t.seen = map[string]uint64{}
	}
	if last := t.seen[e.Speaker]; e.Seq > last+1 {
		missed = int(e.Seq - last - 1)
	}
	t.seen[e.Speaker] = max(t.seen[e.Speaker], e.Seq)
	t.missed += missed
	t.events = append(t.events, e)
	return missed
}

// Missed is the number of events that the sequence numbers show to be lost.
func (t *Trace) Missed() int { return t.missed }

// Events returns a copy of all events in order of arrival.
func (t *Trace) Events() []Event { return slices.Clone(t.events) }

// Reached reports whether milestone m was passed, well or badly, and when by
// the machine's clock.
func (t *Trace) Reached(m Milestone) (up time.Duration, ok bool) {
	e, ok := t.milestone(m)
	return e.Up, ok
}

// Milestone returns the event that ended milestone m: its State is Done or Failed.
func (t *Trace) Milestone(m Milestone) (Event, bool) { return t.milestone(m) }

func (t *Trace) milestone(m Milestone) (Event, bool) {
	for _, e := range t.events {
		if e.At == m && e.Unit == "" && (e.State == Done || e.State == Failed) {
			return e, true
		}
	}
	return Event{}, false
}

// Last is the furthest milestone reached; empty if none was.
func (t *Trace) Last() Milestone {
	var last Milestone
	for _, e := range t.events {
		if e.Unit == "" && (e.State == Done || e.State == Failed) && last.Before(e.At) {
			last = e.At
		}
	}
	return last
}

// Unit returns the newest event about the named unit.
func (t *Trace) Unit(name string) (Event, bool) {
	for _, e := range slices.Backward(t.events) {
		if e.Unit == name {
			return e, true
		}
	}
	return Event{}, false
}

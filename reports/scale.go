package reports

import (
	"fmt"
	"slices"
	"time"
)

// scale maps host time to percent of the drawing, piece by piece: a long time
// in which nothing happened is cut short, or a machine that boots in ten
// seconds and then serves cases for five minutes would show nothing of its boot.
type scale []piece

type piece struct {
	t0, t1 time.Duration
	x0, x1 float64
	cut    bool
}

// cutWidth is the share of the drawing that a cut gets, in percent.
const cutWidth = 8

// newScale makes a scale from 0 to end. A gap between two interesting times is
// cut if it is longer than three seconds and takes more than two thirds of
// what is not yet cut.
func newScale(times []time.Duration, end time.Duration) scale {
	times = append(slices.Clone(times), 0, end)
	slices.Sort(times)
	times = slices.Compact(times)
	var pieces scale
	for i := 1; i < len(times); i++ {
		if times[i] > end || times[i-1] < 0 {
			continue
		}
		pieces = append(pieces, piece{t0: times[i-1], t1: times[i]})
	}
	rest := pieces.cutLongest(end)
	cuts := 0
	for _, p := range pieces {
		if p.cut {
			cuts++
		}
	}
	x, room := 0.0, 100.0-float64(cuts)*cutWidth
	for i := range pieces {
		p := &pieces[i]
		p.x0 = x
		if p.cut {
			x += cutWidth
		} else if rest > 0 {
			x += room * float64(p.t1-p.t0) / float64(rest)
		}
		p.x1 = x
	}
	return pieces.joined()
}

// cutLongest marks at most three pieces as cut, the longest first, and returns
// the time that is left uncut.
func (s scale) cutLongest(rest time.Duration) time.Duration {
	for range 3 {
		longest := -1
		for i, p := range s {
			if !p.cut && (longest < 0 || p.t1-p.t0 > s[longest].t1-s[longest].t0) {
				longest = i
			}
		}
		if longest < 0 {
			return rest
		}
		gap := s[longest].t1 - s[longest].t0
		if gap <= 3*time.Second || gap <= 2*(rest-gap) || rest-gap == 0 {
			return rest
		}
		s[longest].cut = true
		rest -= gap
	}
	return rest
}

// joined makes one piece of neighbours that are not cut.
func (s scale) joined() scale {
	var out scale
	for _, p := range s {
		if n := len(out); n > 0 && !p.cut && !out[n-1].cut {
			out[n-1].t1, out[n-1].x1 = p.t1, p.x1
			continue
		}
		out = append(out, p)
	}
	return out
}

// at is the place of a time, in percent.
func (s scale) at(t time.Duration) float64 {
	for _, p := range s {
		if t <= p.t1 {
			if t <= p.t0 || p.t1 == p.t0 {
				return p.x0
			}
			return p.x0 + (p.x1-p.x0)*float64(t-p.t0)/float64(p.t1-p.t0)
		}
	}
	return 100
}

func (s scale) cuts() []cutMark {
	var out []cutMark
	for _, p := range s {
		if p.cut {
			out = append(out, cutMark{X: p.x0, W: p.x1 - p.x0, Text: short(p.t1 - p.t0)})
		}
	}
	return out
}

// ticks are round times of a clock that is offset behind the host's.
func (s scale) ticks(offset time.Duration) []tick {
	uncut := time.Duration(0)
	for _, p := range s {
		if !p.cut {
			uncut += p.t1 - p.t0
		}
	}
	step := stepFor(uncut)
	var out []tick
	for _, p := range s {
		if p.cut {
			continue
		}
		first := (p.t0 - offset + step - 1) / step * step
		for t := max(first, 0); t+offset <= p.t1; t += step {
			out = append(out, tick{s.at(t + offset), fmt.Sprintf("%gs", t.Seconds())})
		}
	}
	return out
}

// stepFor finds the round step that gives between five and ten ticks.
func stepFor(span time.Duration) time.Duration {
	step := time.Millisecond
	for i := 0; span/step > 10; i++ {
		if i%3 == 1 {
			step = step / 2 * 5
		} else {
			step *= 2
		}
	}
	return step
}

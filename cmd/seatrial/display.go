package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/charmbracelet/x/ansi"
	"golang.org/x/term"
)

// redraw is how often a terminal's picture is made anew: often enough for
// seconds that count, seldom enough to cost nothing over a slow line.
const redraw = 200 * time.Millisecond

// display shows what goes on. On a terminal the things under way stand in a
// block at the bottom, each with the time it has taken, below the lines of
// what is over; elsewhere every change is a plain line.
type display struct {
	w      io.Writer
	live   bool // a terminal that can move its cursor
	colour bool
	size   func() (width, height int)

	mu     sync.Mutex
	began  time.Time
	status string
	rows   []row
	drawn  int // lines of the block on the screen

	stop chan struct{}
	done sync.WaitGroup
}

// row is one thing under way.
type row struct {
	key, text string
	began     time.Time
}

// newDisplay shows things on f until close.
func newDisplay(f *os.File) *display {
	d := &display{w: f, began: time.Now(), stop: make(chan struct{})}
	d.live = isTerminal(f) && os.Getenv("TERM") != "dumb"
	d.colour = colourful(f)
	d.size = func() (int, int) {
		if w, h, err := term.GetSize(int(f.Fd())); err == nil && w > 0 && h > 0 {
			return w, h
		}
		return 80, 24
	}
	if d.live {
		d.done.Go(d.tick)
	}
	return d
}

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// colourful reports whether to use colours on f; see no-color.org.
func colourful(f *os.File) bool {
	return isTerminal(f) && os.Getenv("TERM") != "dumb" && os.Getenv("NO_COLOR") == ""
}

func (d *display) tick() {
	t := time.NewTicker(redraw)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			d.update(func() {})
		case <-d.stop:
			return
		}
	}
}

// update changes the state and draws it.
func (d *display) update(change func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.live {
		change()
		return
	}
	var b strings.Builder
	erase(&b, d.drawn)
	under := d.w
	d.w = &b
	change()
	d.draw(&b)
	d.w = under
	// A display that cannot be written to is no reason to stop the work.
	_, _ = io.WriteString(d.w, b.String())
}

// erase takes the block away; the cursor stands below it.
func erase(b *strings.Builder, lines int) {
	if lines > 0 {
		b.WriteString("\r" + ansi.CursorUp(lines) + ansi.EraseScreenBelow)
	}
}

// draw writes the block: what is under way, oldest first, and the status.
func (d *display) draw(b *strings.Builder) {
	width, height := d.size()
	rows := d.rows
	if most := max(height-3, 1); len(rows) > most {
		rows = rows[:most]
	}
	d.drawn = 0
	line := func(s string) {
		b.WriteString(ansi.Truncate(s, width-1, "…") + "\n")
		d.drawn++
	}
	for _, r := range rows {
		line(fmt.Sprintf("%s %s  %s", d.paint("2", fmt.Sprintf("%6s", seconds(time.Since(r.began)))), d.paint("1", r.key), r.text))
	}
	if d.status != "" {
		line(d.paint("2", fmt.Sprintf("%6s", seconds(time.Since(d.began)))) + " " + d.status)
	}
}

// say writes a line that stays.
func (d *display) say(format string, args ...any) {
	text := printable(fmt.Sprintf(format, args...))
	d.update(func() { fmt.Fprintln(d.w, text) })
}

// sayPainted is say in a colour.
func (d *display) sayPainted(sgr, format string, args ...any) {
	text := d.paint(sgr, printable(fmt.Sprintf(format, args...)))
	d.update(func() { fmt.Fprintln(d.w, text) })
}

// set notes how far a thing under way has come.
func (d *display) set(key, text string) {
	key, text = printable(key), printable(text)
	d.update(func() {
		if !d.live {
			fmt.Fprintf(d.w, "%s: %s\n", key, text)
		}
		for i := range d.rows {
			if d.rows[i].key == key {
				d.rows[i].text = text
				return
			}
		}
		d.rows = append(d.rows, row{key, text, time.Now()})
	})
}

// drop takes a thing away that is over.
func (d *display) drop(key string) {
	key = printable(key)
	d.update(func() {
		for i, r := range d.rows {
			if r.key == key {
				d.rows = append(d.rows[:i:i], d.rows[i+1:]...)
				return
			}
		}
	})
}

// state sets the last line of the block, which a terminal alone shows.
func (d *display) state(format string, args ...any) {
	d.update(func() { d.status = printable(fmt.Sprintf(format, args...)) })
}

// close takes the block off the screen and ends the drawing.
func (d *display) close() {
	close(d.stop)
	d.done.Wait()
	d.update(func() { d.rows, d.status = nil, "" })
}

func (d *display) paint(sgr, s string) string {
	if !d.colour {
		return s
	}
	return "\x1b[" + sgr + "m" + s + "\x1b[m"
}

// printable takes everything out of a guest's text that could move the cursor.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, ansi.Strip(s))
}

// seconds writes a time that has passed: 7s, 1m07s.
func seconds(d time.Duration) string {
	s := int(d.Seconds())
	if s < 60 {
		return fmt.Sprintf("%ds", s)
	}
	return fmt.Sprintf("%dm%02ds", s/60, s%60)
}

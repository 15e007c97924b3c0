package console

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/charmbracelet/x/ansi"

	"github.com/seatrial/seatrial/boot"
)

// Line is one console line.
type Line struct {
	N    int           // from 1
	At   time.Duration // when its end came
	Text string        // without CR, escape sequences and other control bytes
	Raw  []byte        // as it came, without the line end

	Inherited bool // printed by the machine that this one goes on from
}

// Mark is an event of the boot, with the line it came on.
type Mark struct {
	boot.Event
	Line    int
	Time    time.Duration // of the host
	Implied bool          // concluded from a line, not announced

	Inherited bool // passed by the machine that this one goes on from
}

// Fault is something wrong that a rule recognised.
type Fault struct {
	Rule     string
	Title    string
	Severity Severity
	Blame    Blame
	First    int // number of its first line
	At       time.Duration
	Lines    []string
	Open     bool // more of its lines may still come
	Expected bool // the spec wants to see it

	Inherited bool // of the machine that this one goes on from

	end func(line string) bool
	max int
}

// Options says how to read a console.
type Options struct {
	Rules   []Rule               // nil: Rules()
	Clock   func() time.Duration // since the machine began to run; nil: always 0
	Console string               // the terminal that is read, e.g. "ttyS0"; empty: its order is not judged
	Stamped io.Writer            // gets every line as JSON with its time; nil: nobody
}

// Log is the console of one machine. It is safe for concurrent use.
type Log struct {
	o Options

	mu       sync.Mutex
	partial  []byte
	lines    []Line
	marks    []Mark
	trace    boot.Trace
	faults   []Fault
	expected map[string]bool
	kernels  int // how often a kernel began
	progress time.Duration
	seen     map[string]bool // shapes of lines, to tell progress from repetition
	changed  chan struct{}
	closed   bool
	inherits bool // lines come from Inherit
	stampErr error
}

// NewLog returns an empty log.
func NewLog(o Options) *Log {
	if o.Rules == nil {
		o.Rules = Rules()
	}
	if o.Clock == nil {
		o.Clock = func() time.Duration { return 0 }
	}
	return &Log{o: o, expected: map[string]bool{}, seen: map[string]bool{}, changed: make(chan struct{})}
}

// Replay reads a saved serial line to its end.
func Replay(r io.Reader, o Options) (*Log, error) {
	l := NewLog(o)
	_, err := io.Copy(l, r)
	l.Close()
	return l, err
}

// Write adds bytes of the line. It never waits for a reader.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	rest := p
	for {
		i := bytes.IndexByte(rest, '\n')
		if i < 0 {
			break
		}
		l.add(append(l.partial, rest[:i]...), l.o.Clock())
		l.partial, rest = nil, rest[i+1:]
	}
	l.partial = append(l.partial, rest...)
	l.wake()
	return len(p), l.stampErr
}

// Inherit takes in what another machine printed before this one went on from
// where it was: its lines, with its times, and the beginning of a line that it
// had not finished. It must come before the first Write. What rules and events
// say of these lines is marked as inherited.
func (l *Log) Inherit(lines []Line, partial []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.inherits = true
	for _, line := range lines {
		l.add(line.Raw, line.At)
	}
	l.inherits = false
	l.partial = append(l.partial, partial...)
	l.wake()
	return l.stampErr
}

// Close says that the machine is gone: the unfinished last line is taken as
// complete, and no fault stays open.
func (l *Log) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	if len(l.partial) > 0 {
		l.add(l.partial, l.o.Clock())
		l.partial = nil
	}
	for i := range l.faults {
		l.faults[i].Open = false
	}
	l.closed = true
	l.wake()
}

func (l *Log) wake() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// Clean takes out of raw bytes what a terminal would not show.
func Clean(raw []byte) string {
	text := ansi.Strip(string(raw))
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' || r == 0x7f {
			return -1
		}
		return r
	}, text)
}

// add judges one complete line.
func (l *Log) add(raw []byte, at time.Duration) {
	line := Line{N: len(l.lines) + 1, At: at, Text: Clean(raw), Raw: bytes.TrimRight(raw, "\r"), Inherited: l.inherits}
	l.lines = append(l.lines, line)
	l.stamp(line)
	if shape := shapeOf(line.Text); !l.seen[shape] {
		l.seen[shape], l.progress = true, line.At
	}
	e, found, err := boot.ParseEvent([]byte(line.Text))
	switch {
	case found && err != nil:
		l.damaged(line, err)
	case found:
		l.event(line, e)
	default:
		l.judge(line)
	}
}

// shapeOf is a line without its numbers: a line that differs only in them is
// no progress.
func shapeOf(text string) string {
	return strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return -1
		}
		return r
	}, text)
}

// stamped is a line in the stamped log. Bytes that are no text are damaged in
// it; the serial log has them.
type stamped struct {
	At        float64 `json:"t"` // seconds
	Raw       string  `json:"line"`
	Inherited bool    `json:"inherited,omitempty"`
}

// ReadStamped reads the lines of a serial log, with their times from its
// stamped log, and the unfinished line at its end, if there is one.
func ReadStamped(serial []byte, times io.Reader) (lines []Line, partial []byte, err error) {
	raws := bytes.Split(serial, []byte("\n"))
	raws, partial = raws[:len(raws)-1], raws[len(raws)-1]
	in := json.NewDecoder(times)
	for i, raw := range raws {
		var s stamped
		if err := in.Decode(&s); err != nil {
			return nil, nil, fmt.Errorf("console: the time of line %d: %w", i+1, err)
		}
		raw = bytes.TrimRight(raw, "\r")
		lines = append(lines, Line{N: i + 1, At: time.Duration(s.At * float64(time.Second)), Text: Clean(raw), Raw: raw})
	}
	return lines, partial, nil
}

func (l *Log) stamp(line Line) {
	if l.o.Stamped == nil || l.stampErr != nil {
		return
	}
	b, err := json.Marshal(stamped{line.At.Seconds(), string(line.Raw), line.Inherited})
	if err == nil {
		_, err = l.o.Stamped.Write(append(b, '\n'))
	}
	if err != nil {
		l.stampErr = fmt.Errorf("console: writing the stamped log: %w", err)
	}
}

// Changed is closed at the next change of the log.
func (l *Log) Changed() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

// Closed reports whether the machine is gone and everything was read.
func (l *Log) Closed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

// Lines returns the complete lines so far.
func (l *Log) Lines() []Line {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lines[:len(l.lines):len(l.lines)]
}

// Text returns the cleaned text from line number n (from 1) on, with the
// unfinished last line: a shell's prompt has no line end.
func (l *Log) Text(n int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var b strings.Builder
	for _, line := range l.lines[min(max(n-1, 0), len(l.lines)):] {
		b.WriteString(line.Text)
		b.WriteByte('\n')
	}
	b.WriteString(Clean(l.partial))
	return b.String()
}

// Tail returns the last n lines.
func (l *Log) Tail(n int) []Line {
	lines := l.Lines()
	return lines[max(len(lines)-n, 0):]
}

// Marks returns the events so far.
func (l *Log) Marks() []Mark {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.marks)
}

// Milestone returns the event that ended a milestone.
func (l *Log) Milestone(m boot.Milestone) (boot.Event, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.trace.Milestone(m)
}

// Last is the furthest milestone reached; empty if none was.
func (l *Log) Last() boot.Milestone {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.trace.Last()
}

// Progress is when something new last came: a line unlike all before it, or
// an event.
func (l *Log) Progress() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.progress
}

// Expect marks faults of the named rules as wanted, past and future ones.
func (l *Log) Expect(rules ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range rules {
		l.expected[r] = true
	}
	for i := range l.faults {
		l.faults[i].Expected = l.expected[l.faults[i].Rule]
	}
	l.wake()
}

// Faults returns the faults of at least the severity, in order of occurrence.
func (l *Log) Faults(atLeast Severity) []Fault {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []Fault
	for _, f := range l.faults {
		if f.Severity >= atLeast {
			f.Lines = slices.Clone(f.Lines)
			out = append(out, f)
		}
	}
	return out
}

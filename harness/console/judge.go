package console

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/seatrial/seatrial/boot"
)

var (
	kernelStart = regexp.MustCompile(`Linux version \d+\.\d+`)
	kernelStamp = regexp.MustCompile(`^\[ *\d+\.\d+\]`)
)

// judge looks for faults in a line that is no event.
func (l *Log) judge(line Line) {
	if kernelStart.MatchString(line.Text) && kernelStamp.MatchString(line.Text) {
		l.kernelBegan(line)
	}
	// The last line of a panic repeats its first, and is no second one.
	if n := len(l.faults); n > 0 && l.faults[n-1].Open && l.faults[n-1].end != nil && l.faults[n-1].end(line.Text) {
		l.extend(line)
		return
	}
	for _, r := range l.o.Rules {
		if f, ok := r.find(line); ok {
			l.open(f)
			return
		}
	}
	l.extend(line)
}

func (l *Log) kernelBegan(line Line) {
	l.kernels++
	if l.kernels > 1 {
		l.open(Fault{Rule: RuleReset, Title: "machine reset: the kernel started again", Severity: Fatal,
			First: line.N, At: line.At, Lines: []string{line.Text}})
		return
	}
	e := boot.Event{Speaker: "console", Seq: 1, At: boot.Kernel, State: boot.Done}
	l.trace.Add(e)
	l.marks = append(l.marks, Mark{Event: e, Line: line.N, Time: line.At, Implied: true, Inherited: line.Inherited})
}

// find applies the rule to a line.
func (r Rule) find(line Line) (Fault, bool) {
	if !strings.Contains(line.Text, r.Literal) {
		return Fault{}, false
	}
	m := r.Match.FindStringSubmatchIndex(line.Text)
	if m == nil {
		return Fault{}, false
	}
	for _, e := range r.Except {
		if e.MatchString(line.Text) {
			return Fault{}, false
		}
	}
	f := Fault{
		Rule: r.Name, Severity: r.Severity, First: line.N, At: line.At, Lines: []string{line.Text},
		Title: string(r.Match.ExpandString(nil, r.Title, line.Text, m)), Open: r.Lines > 1, max: max(r.Lines, 1),
	}
	if r.End != nil {
		f.end = r.End.MatchString
	}
	if r.Name == RuleInitDied {
		f.Title = initDied(f.Title, line.Text[m[2]:m[3]])
	}
	return f, true
}

// initDied decodes the wait status that the kernel prints: exit status in the
// second byte, signal in the low seven bits (kernel/exit.c, wait(2)).
func initDied(title, hex string) string {
	code, err := strconv.ParseUint(hex, 16, 32)
	if err != nil {
		return title
	}
	if signal := code & 0x7f; signal != 0 {
		return fmt.Sprintf("init died: PID 1 was killed by signal %d", signal)
	}
	return fmt.Sprintf("init died: PID 1 exited with status %d", code>>8&0xff)
}

// open adds a fault; the one before it can grow no more.
func (l *Log) open(f Fault) {
	if n := len(l.faults); n > 0 {
		l.faults[n-1].Open = false
	}
	if f.Blame == "" {
		f.Blame = Guest
	}
	f.Expected = l.expected[f.Rule]
	f.Inherited = l.inherits
	l.faults = append(l.faults, f)
}

// extend gives the line to the fault that is still open.
func (l *Log) extend(line Line) {
	n := len(l.faults)
	if n == 0 || !l.faults[n-1].Open {
		return
	}
	f := &l.faults[n-1]
	f.Lines = append(f.Lines, line.Text)
	f.Open = len(f.Lines) < f.max && (f.end == nil || !f.end(line.Text))
}

func (l *Log) damaged(line Line, err error) {
	f := Fault{Rule: RuleDamaged, Severity: Warning, Title: err.Error(), First: line.N, At: line.At, Lines: []string{line.Text}}
	if strings.Contains(err.Error(), "vocabulary") {
		f.Rule, f.Severity, f.Blame = RuleVersion, Fatal, Misuse
	}
	l.open(f)
}

// event takes in an event and what it says of faults.
func (l *Log) event(line Line, e boot.Event) {
	l.progress = line.At
	if missed := l.trace.Add(e); missed > 0 {
		l.open(Fault{Rule: RuleMissed, Severity: Warning, Title: fmt.Sprintf("%d events of %s were lost", missed, e.Speaker),
			First: line.N, At: line.At, Lines: []string{line.Text}})
	}
	l.marks = append(l.marks, Mark{Event: e, Line: line.N, Time: line.At, Inherited: line.Inherited})
	f := Fault{First: line.N, At: line.At, Lines: []string{line.Text}, Severity: Fatal}
	switch {
	case e.At == boot.Init && e.State == boot.Done && l.o.Console != "" && e.Facts[boot.FactConsole] != "" && e.Facts[boot.FactConsole] != l.o.Console:
		f.Rule = RuleConsoleOrder
		f.Title = fmt.Sprintf("console order: /dev/console is %s, not %s: init, containerd and services write there; put console=%s last on the kernel command line",
			e.Facts[boot.FactConsole], l.o.Console, l.o.Console)
	case e.State == boot.Failed && e.Unit != "":
		f.Rule, f.Title = RuleUnit, unitFailed(e)
	case e.State == boot.Failed:
		f.Rule, f.Title = RuleMilestone, strings.TrimSuffix(fmt.Sprintf("%s failed: %s", e.At, e.Detail), ": ")
	case e.State == boot.Warned:
		f.Rule, f.Severity, f.Title = RuleWarned, Warning, e.Detail
	default:
		return
	}
	l.open(f)
}

func unitFailed(e boot.Event) string {
	name := e.Unit
	switch e.At {
	case boot.Services:
		name = "service " + name
	case boot.Onboot:
		name = "onboot " + name
	}
	why := e.Detail
	if status := e.Facts[boot.FactStatus]; why == "" && status != "" {
		why = "exit status " + status
	}
	return strings.TrimSuffix(name+" failed: "+why, ": ")
}

// Cause picks the fault to blame: the first, for what follows from it comes
// after it.
func Cause(faults []Fault) (Fault, bool) {
	if len(faults) == 0 {
		return Fault{}, false
	}
	return faults[0], true
}

package harness

import (
	"fmt"
	"strings"

	"github.com/seatrial/seatrial/boot"
	"github.com/seatrial/seatrial/harness/console"
	"github.com/seatrial/seatrial/reports"
)

// tailLines is how many console lines a failure shows.
const tailLines = 40

// Failure is a verdict: why a machine did not do what was awaited.
type Failure struct {
	Class   reports.Class
	Title   string         // one line that names the cause
	Reached boot.Milestone // furthest milestone; empty: none
	Wanted  string         // what was awaited, in words
	Fault   *console.Fault // what the console showed, if that is the cause
	Tail    []console.Line // the last console lines
	Command string         // to start the machine by hand
	Dir     string         // where the evidence is
	Machine string
	Err     error // underlying error, if any
}

// Error says everything, the cause on its first line. A machine that could not
// even be planned has no console and no evidence.
func (f *Failure) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n", f.Class, f.Title)
	if f.Machine == "" && f.Err == nil { // about the host, before there was a machine
		return strings.TrimSuffix(b.String(), "\n")
	}
	reached := string(f.Reached)
	if reached == "" {
		reached = "nothing"
	}
	fmt.Fprintf(&b, "machine %s reached %s, awaited %s\n", f.Machine, reached, f.Wanted)
	if f.Fault != nil && len(f.Fault.Lines) > 0 {
		fmt.Fprintf(&b, "fault (%s, console line %d):\n", f.Fault.Rule, f.Fault.First)
		for _, l := range f.Fault.Lines {
			fmt.Fprintf(&b, "  | %s\n", l)
		}
	}
	if f.Err != nil && f.Err.Error() != f.Title {
		fmt.Fprintf(&b, "error: %v\n", f.Err)
	}
	if f.Command == "" {
		return strings.TrimSuffix(b.String(), "\n")
	}
	if len(f.Tail) > 0 {
		fmt.Fprintf(&b, "last %d console lines:\n", len(f.Tail))
		for _, l := range f.Tail {
			fmt.Fprintf(&b, "  %5d %8.3fs  %s\n", l.N, l.At.Seconds(), l.Text)
		}
	} else {
		b.WriteString("the console stayed silent\n")
	}
	fmt.Fprintf(&b, "to start it by hand:\n  %s\n", f.Command)
	fmt.Fprintf(&b, "evidence: %s", f.Dir)
	return b.String()
}

// Unwrap gives the underlying error.
func (f *Failure) Unwrap() error { return f.Err }

// GomegaString is what an assertion prints for the value, beside Error: Gomega
// would otherwise dump every field, console lines included.
func (f *Failure) GomegaString() string { return fmt.Sprintf("*harness.Failure of class %s", f.Class) }

package suite

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/onsi/gomega/types"

	"github.com/seatrial/seatrial/boot"
	"github.com/seatrial/seatrial/harness"
	"github.com/seatrial/seatrial/harness/console"
	"github.com/seatrial/seatrial/reports"
)

// awaiting is a matcher over a *harness.Machine that may yet come true, and
// that knows when it no longer can.
type awaiting struct {
	wanted  string
	met     func(*harness.Machine) bool
	verdict *harness.Failure
}

// Match asks the machine; when the answer is no, it also asks whether there is hope.
func (a *awaiting) Match(actual any) (bool, error) {
	m, ok := actual.(*harness.Machine)
	if !ok {
		return false, fmt.Errorf("this matcher is for a *harness.Machine, not %T", actual)
	}
	a.verdict = nil
	// The order matters: what came in the meantime must not lose to a verdict
	// that was reached after it.
	if a.met(m) {
		return true, nil
	}
	a.verdict = m.Hope(a.wanted)
	return false, nil
}

// MatchMayChangeInTheFuture lets Eventually stop as soon as hope is lost.
func (a *awaiting) MatchMayChangeInTheFuture(any) bool { return a.verdict == nil }

// FailureMessage is the verdict, if there is one.
func (a *awaiting) FailureMessage(actual any) string {
	if a.verdict != nil {
		return a.verdict.Error()
	}
	m, _ := actual.(*harness.Machine)
	return fmt.Sprintf("stalled: the spec stopped waiting for %s\nmachine %s, evidence: %s\n%s",
		a.wanted, m.Name(), m.Dir(), tail(m))
}

// NegatedFailureMessage says what came although it must not.
func (a *awaiting) NegatedFailureMessage(actual any) string {
	m, _ := actual.(*harness.Machine)
	return fmt.Sprintf("guest: %s came, and must not have\nmachine %s, evidence: %s\n%s", a.wanted, m.Name(), m.Dir(), tail(m))
}

func tail(m *harness.Machine) string {
	var b strings.Builder
	for _, l := range m.Console().Tail(40) {
		fmt.Fprintf(&b, "  %5d %8.3fs  %s\n", l.N, l.At.Seconds(), l.Text)
	}
	return b.String()
}

// Reach succeeds once the machine has passed the milestone well. A milestone
// passed badly is a fault and ends the wait.
func Reach(at boot.Milestone) types.GomegaMatcher {
	return &awaiting{wanted: string(at), met: func(m *harness.Machine) bool {
		e, ok := m.Console().Milestone(at)
		return ok && e.State == boot.Done && m.Verdict() == nil
	}}
}

// Print succeeds once a console line matches the regular expression.
func Print(re string) types.GomegaMatcher {
	match := regexp.MustCompile(re)
	return &awaiting{wanted: fmt.Sprintf("a console line matching %q", re), met: func(m *harness.Machine) bool {
		return HasLine(m, match)
	}}
}

// HasLine reports whether a console line of the machine matches.
func HasLine(m *harness.Machine, re *regexp.Regexp) bool {
	for _, l := range m.Console().Lines() {
		if re.MatchString(l.Text) {
			return true
		}
	}
	return false
}

// Warn succeeds once a fault of at least warning severity has a matching title.
func Warn(re string) types.GomegaMatcher {
	match := regexp.MustCompile(re)
	return &awaiting{wanted: fmt.Sprintf("a fault titled %q", re), met: func(m *harness.Machine) bool {
		for _, f := range m.Console().Faults(console.Warning) {
			if match.MatchString(f.Title) {
				return true
			}
		}
		return false
	}}
}

// faultFree matches a machine in whose console no rule found anything.
type faultFree struct{ found []console.Fault }

// BeFaultFree succeeds if nothing wrong was seen of the machine so far, not
// even a warning. It says nothing of the future.
func BeFaultFree() types.GomegaMatcher { return &faultFree{} }

func (f *faultFree) Match(actual any) (bool, error) {
	m, ok := actual.(*harness.Machine)
	if !ok {
		return false, fmt.Errorf("BeFaultFree is for a *harness.Machine, not %T", actual)
	}
	f.found = m.Console().Faults(console.Warning)
	return len(f.found) == 0, nil
}

func (f *faultFree) FailureMessage(any) string {
	var b strings.Builder
	fmt.Fprintf(&b, "guest: %s\n", f.found[0].Title)
	for _, x := range f.found {
		fmt.Fprintf(&b, "%s (rule %s, console line %d)\n  %s\n", x.Title, x.Rule, x.First, strings.Join(x.Lines, "\n  "))
	}
	return b.String()
}

func (f *faultFree) NegatedFailureMessage(any) string {
	return "the console shows no fault, and should"
}

// verdict matches the error of a wait.
type verdict struct {
	class reports.Class
	title *regexp.Regexp
}

// BeVerdict succeeds for an error that is a verdict of the class with a
// matching title.
func BeVerdict(class reports.Class, title string) types.GomegaMatcher {
	return &verdict{class, regexp.MustCompile(title)}
}

func (v *verdict) Match(actual any) (bool, error) {
	err, _ := actual.(error)
	var f *harness.Failure
	if !errors.As(err, &f) {
		return false, nil
	}
	return f.Class == v.class && v.title.MatchString(f.Title), nil
}

func (v *verdict) FailureMessage(actual any) string {
	return fmt.Sprintf("expected the verdict %q with a title matching %q, got:\n%v", v.class, v.title, actual)
}

func (v *verdict) NegatedFailureMessage(actual any) string {
	return fmt.Sprintf("expected another verdict than:\n%v", actual)
}

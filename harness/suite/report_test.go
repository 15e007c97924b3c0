package suite

import (
	"errors"
	"strings"
	"testing"

	"github.com/onsi/ginkgo/v2/types"
	"github.com/onsi/gomega"

	"github.com/seatrial/seatrial/boot"
	"github.com/seatrial/seatrial/harness"
	"github.com/seatrial/seatrial/harness/console"
	"github.com/seatrial/seatrial/reports"
)

// failed is the report of a spec in which an assertion of err failed.
func failed(err error) types.SpecReport {
	var message string
	gomega.NewGomega(func(m string, _ ...int) { message = m }).Expect(err).NotTo(gomega.HaveOccurred())
	return types.SpecReport{
		LeafNodeType: types.NodeTypeIt, LeafNodeText: "spec", State: types.SpecStateFailed,
		Failure: types.Failure{Message: message},
	}
}

func TestCaseOfAVerdict(t *testing.T) {
	verdict := &harness.Failure{
		Class: reports.Guest, Title: "init died: PID 1 exited with status 1", Reached: boot.Kernel, Wanted: "ready",
		Machine: "m", Command: "qemu-system-x86_64 -S", Dir: "/evidence",
		Fault: &console.Fault{Rule: "init-died", First: 7, Lines: []string{"Attempted to kill init!"}},
		Tail:  []console.Line{{N: 1, Text: "a console line"}},
	}
	c := toCase(failed(verdict), nil)
	if c.Class != reports.Guest || c.Title != verdict.Title || c.Awaited != "ready" || c.Outcome != reports.Failed {
		t.Errorf("%+v", c)
	}
	if !strings.Contains(c.Failure, "Attempted to kill init!") {
		t.Errorf("the fault's lines are missing:\n%s", c.Failure)
	}
	for _, twice := range []string{"a console line", "qemu-system-x86_64", "/evidence", "Tail:"} {
		if strings.Contains(c.Failure, twice) {
			t.Errorf("%q is told by the machine's own part of the report:\n%s", twice, c.Failure)
		}
	}
}

func TestCaseOfAnyOtherFailure(t *testing.T) {
	c := toCase(failed(errors.New("guesswork: no")), nil)
	if c.Class != reports.Guest || c.Awaited != "" || !strings.Contains(c.Failure, "guesswork: no") {
		t.Errorf("%+v", c)
	}
	panicked := types.SpecReport{LeafNodeType: types.NodeTypeIt, State: types.SpecStatePanicked, Failure: types.Failure{ForwardedPanic: "index out of range"}}
	if c := toCase(panicked, nil); c.Class != reports.Misuse || c.Title != "the spec panicked: index out of range" {
		t.Errorf("%+v", c)
	}
	passed := types.SpecReport{LeafNodeType: types.NodeTypeIt, State: types.SpecStatePassed}
	if c := toCase(passed, nil); c.Class != "" || c.Outcome != reports.Passed || c.Failure != "" {
		t.Errorf("%+v", c)
	}
}

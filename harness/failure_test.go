package harness

import (
	"errors"
	"strings"
	"testing"

	"github.com/seatrial/seatrial/reports"
)

// A failure shows what there is to look at, and nothing that there is not.
func TestFailureText(t *testing.T) {
	f := Failure{Class: reports.Misuse, Title: "no such medium", Wanted: "to start", Machine: "m", Dir: "/d", Err: errors.New("no such medium")}
	if got, want := f.Error(), "misuse: no such medium\nmachine m reached nothing, awaited to start"; got != want {
		t.Errorf("never planned: %q", got)
	}
	if got := (&Failure{Class: reports.Misuse, Title: "no KVM here", Wanted: "an accelerator"}).Error(); got != "misuse: no KVM here" {
		t.Errorf("about no machine: %q", got)
	}
	f.Command, f.Err = "qemu -x", errors.New("exit status 1")
	for _, want := range []string{"error: exit status 1\n", "the console stayed silent\n", "to start it by hand:\n  qemu -x\n", "evidence: /d"} {
		if !strings.Contains(f.Error(), want) {
			t.Errorf("no %q in %q", want, f.Error())
		}
	}
}

package harness

import (
	"errors"
	"strings"
	"testing"

	"github.com/seatrial/seatrial/boot"
	"github.com/seatrial/seatrial/reports"
)

// A held machine is a template like one that is up: each fork is changed and
// goes on by itself.
func TestForkOfAHeldMachine(t *testing.T) {
	h, im := standIn(t, "linux")
	s := OpenTemplates(TemplateOptions{Dir: t.TempDir()})
	plan := func() Plan { p := forkPlan(t, im); p.Hold = boot.Containerd; return p }
	a, b := forked(t, s, h, plan()), forked(t, s, h, plan())
	if n := boots(t, h); n != 1 {
		t.Errorf("%d boots for two forks", n)
	}
	if got := a.Console().Last(); got != boot.Onboot {
		t.Errorf("held at %s, want after %s", got, boot.Onboot)
	}
	err := a.Await(t.Context(), boot.Ready)
	if failed(t, err, reports.Misuse); !strings.Contains(err.Error(), "held before containerd") {
		t.Errorf("a wait that cannot end: %v", err)
	}
	if err := a.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := a.Await(t.Context(), boot.Ready); err != nil {
		t.Error(err)
	}
	failed(t, a.Release(t.Context()), reports.Misuse)
	if _, ok := b.Console().Milestone(boot.Ready); ok || !b.held() {
		t.Error("the other fork went on as well")
	}
}

func TestHoldThatCannotBe(t *testing.T) {
	h, im := standIn(t, "linux")
	s := OpenTemplates(TemplateOptions{Dir: t.TempDir()})
	for name, change := range map[string]func(*Plan){
		"before the agent": func(p *Plan) { p.Hold = boot.Mounts },
		"unknown":          func(p *Plan) { p.Hold = "lunch" },
		"without an agent": func(p *Plan) { p.Hold, p.NoAgent = boot.Containerd, true },
	} {
		p := forkPlan(t, im)
		change(&p)
		_, err := s.Fork(t.Context(), h, p)
		failed(t, err, reports.Misuse)
		if t.Failed() {
			t.Fatal(name)
		}
	}
	failed(t, forked(t, s, h, forkPlan(t, im)).Release(t.Context()), reports.Misuse)
}

// failed checks that err is a verdict of the class.
func failed(t *testing.T, err error, class reports.Class) {
	t.Helper()
	var f *Failure
	if !errors.As(err, &f) || f.Class != class {
		t.Errorf("%v, want a verdict of class %s", err, class)
	}
}

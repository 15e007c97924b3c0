package reports

import "testing"

func TestJudge(t *testing.T) {
	pass, fail, skip := Case{Outcome: Passed}, Case{Outcome: Failed, Title: "kernel panic"}, Case{Outcome: Skipped}
	for _, c := range []struct {
		name string
		run  Run
		want Outcome
	}{
		{"all passed", Run{Planned: 2, Cases: []Case{pass, pass}}, Passed},
		{"one failed", Run{Planned: 2, Cases: []Case{pass, fail}}, Failed},
		{"one skipped", Run{Planned: 2, Cases: []Case{pass, skip}}, Failed},
		{"one lost", Run{Planned: 2, Cases: []Case{pass}}, Failed},
		{"none ran", Run{}, Failed},
		{"the run broke", Run{Planned: 1, Cases: []Case{pass}, Failure: "no QEMU"}, Failed},
	} {
		c.run.Judge()
		if c.run.Outcome != c.want {
			t.Errorf("%s: %s, want %s", c.name, c.run.Outcome, c.want)
		}
		if (c.run.Failure == "") != (c.want == Passed) {
			t.Errorf("%s: failure %q", c.name, c.run.Failure)
		}
	}
}

package reports

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestScaleLaws(t *testing.T) {
	second := func(ns ...int) []time.Duration {
		var out []time.Duration
		for _, n := range ns {
			out = append(out, time.Duration(n)*time.Second)
		}
		return out
	}
	for name, c := range map[string]struct {
		times []time.Duration
		end   time.Duration
		cuts  int
	}{
		"even":            {second(1, 2, 3), 4 * time.Second, 0},
		"long service":    {second(2, 5, 9, 10), 300 * time.Second, 1},
		"quiet in middle": {second(2, 9, 200, 201), 202 * time.Second, 1},
		"no marks":        {nil, 60 * time.Second, 0},
		"all at once":     {second(0, 0, 0), time.Second, 0},
		"short":           {[]time.Duration{ms(1)}, ms(900), 0},
		"after the end":   {second(1, 99), 10 * time.Second, 1},
	} {
		s := newScale(c.times, c.end)
		if got := len(s.cuts()); got != c.cuts {
			t.Errorf("%s: %d cuts, want %d: %+v", name, got, c.cuts, s)
		}
		last := -1.0
		for i := range 1001 {
			x := s.at(c.end * time.Duration(i) / 1000)
			if x < last || x < 0 || x > 100.001 {
				t.Fatalf("%s: %v comes after %v", name, x, last)
			}
			last = x
		}
		if s.at(0) != 0 || last < 99.99 {
			t.Errorf("%s: runs from %v to %v", name, s.at(0), last)
		}
		if n := len(s.ticks(0)); n < 2 || n > 14 {
			t.Errorf("%s: %d ticks", name, n)
		}
	}
}

func TestTimelineRows(t *testing.T) {
	states := func(b Boot) map[string]string {
		out := map[string]string{}
		for _, r := range drawTimeline(b, func(int) string { return "#" }).Rows {
			out[r.Name] = r.State
		}
		return out
	}
	got := states(brokenContainerd("x"))
	want := map[string]string{
		"kernel": "done", "init": "done", "mounts": "done", "modules": "done", "system": "done", "onboot": "done",
		"000-sysctl": "exited", "001-dhcpcd": "exited", "containerd": "failed", "services": "failed", "ready": "failed",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	if got := states(panicBoot("x")); got["init"] != "done" || got["mounts"] != "missed" || got["ready"] != "missed" || got["off"] != "" {
		t.Errorf("panic: %v", got)
	}
	if got := states(goodBoot("x")); got["web"] != "runs" || got["off"] != "done" {
		t.Errorf("good: %v", got)
	}
	if drawTimeline(Boot{}, nil) != nil {
		t.Error("a machine that never ran has a timeline")
	}
}

// A bar leads to the line on which its event was spoken, also when it had to be inferred.
func TestMarkLines(t *testing.T) {
	b := goodBoot("x")
	lines := markLines(b)
	if n := lines[markKey{"ready", ""}]; n == 0 || b.Console[n-1].Text[:9] != "[    7.54" {
		t.Errorf("ready: line %d", n)
	}
	if n := lines[markKey{"kernel", ""}]; n == 0 || b.Console[n-1].Host != ms(1870) {
		t.Errorf("kernel: line %d", n)
	}
	if m, u := lines[markKey{"containerd", ""}], lines[markKey{"containerd", "containerd"}]; m == 0 || u == 0 || m == u {
		t.Errorf("containerd: the milestone leads to line %d, the unit to %d", m, u)
	}
	if n := lines[markKey{"absent", ""}]; n != 0 {
		t.Errorf("absent: line %d", n)
	}
}

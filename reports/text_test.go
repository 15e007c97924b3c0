package reports

import (
	"bytes"
	"strings"
	"testing"

	"github.com/charmbracelet/x/ansi"
)

func summary(t *testing.T, run Run, opt TextOptions) string {
	t.Helper()
	var b bytes.Buffer
	if err := WriteText(&b, run, opt); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestLastLine(t *testing.T) {
	sample, passed, empty := sampleRun(), passedRun(), Run{}
	empty.Judge()
	for want, run := range map[string]Run{
		"9 passed, 5 failed, 1 skipped": sample,
		"2 passed, 0 failed":            passed,
		"0 passed, 0 failed":            empty,
	} {
		text := strings.TrimSuffix(summary(t, run, TextOptions{}), "\n")
		if got := text[strings.LastIndexByte(text, '\n')+1:]; got != want {
			t.Errorf("last line %q, want %q", got, want)
		}
	}
}

func TestFirstLine(t *testing.T) {
	untold := Run{Planned: 1, Cases: []Case{{Path: []string{"a", "b"}, Outcome: Failed}}}
	untold.Judge()
	cut := passedRun()
	cut.Planned, cut.Outcome = 3, ""
	cut.Judge()
	for want, run := range map[string]Run{
		"all 2 cases passed in 4m12s": passedRun(),
		"guest: kernel panic: init exited with status 1 (init › keeps the machine up when a child dies), and 4 more failed": sampleRun(),
		"failed, and nothing was said of the reason (a › b)":                                                                untold,
		"a planned case was never reported: the run was cut short":                                                          cut,
		"the run did not pass, and nothing was said of the reason":                                                          {},
		"infra: two lines (x)": {Cases: []Case{{Path: []string{"x"}, Outcome: Failed, Class: Infra, Title: "two\n lines"}}},
	} {
		if got := FirstLine(run); got != want {
			t.Errorf("got  %q\nwant %q", got, want)
		}
		if text := summary(t, run, TextOptions{}); !strings.Contains(strings.SplitN(text, "\n", 2)[0], want) {
			t.Errorf("the summary does not begin with %q", want)
		}
	}
}

// The order in which an engineer asks holds for each failure.
func TestOrderOfAnswers(t *testing.T) {
	text := summary(t, sampleRun(), TextOptions{})
	_, text, _ = strings.Cut(text, "[1/5]")
	at := 0
	for _, want := range []string{
		"guest: kernel panic", "reached  init, awaited ready", "fault init-killed", "| [", "last 38 console lines",
		"to start it by hand", "qemu-system-x86_64 -name init-exits", "evidence:", "machines/init-exits/serial.log", "[2/5]",
	} {
		i := strings.Index(text[at:], want)
		if i < 0 {
			t.Fatalf("%q is missing, or stands too early", want)
		}
		at += i
	}
}

func TestWidthAndColour(t *testing.T) {
	run := sampleRun()
	for line := range strings.Lines(summary(t, run, TextOptions{Width: 70, Colour: true})) {
		command := strings.Contains(line, "qemu-system") || strings.HasPrefix(line, "  -")
		listed := strings.HasPrefix(ansi.Strip(line), "    ") || strings.HasPrefix(ansi.Strip(line), "guest ")
		if w := ansi.StringWidth(strings.TrimSuffix(line, "\n")); w > 70 && listed && !command {
			t.Errorf("%d columns: %s", w, line)
		}
	}
	if !strings.Contains(summary(t, run, TextOptions{Colour: true}), "\x1b[1;31mFAILED") {
		t.Error("no colour where it was asked for")
	}
	if strings.Contains(summary(t, run, TextOptions{}), "\x1b") {
		t.Error("an escape where no colour was asked for")
	}
}

func TestJudgeLaws(t *testing.T) {
	for name, run := range map[string]Run{"failed": sampleRun(), "passed": passedRun(), "empty": {}} {
		run.Judge()
		outcome, failure := run.Outcome, run.Failure
		run.Judge()
		if run.Outcome != outcome || run.Failure != failure {
			t.Errorf("%s: judged twice it is %s %q, once %s %q", name, run.Outcome, run.Failure, outcome, failure)
		}
		n := run.Count()
		if n.Passed+n.Failed+n.Skipped != len(run.Cases) {
			t.Errorf("%s: %v does not count every case", name, n)
		}
		if passed := n.Failed+n.Skipped == 0 && n.Passed > 0; passed != (run.Outcome == Passed) {
			t.Errorf("%s: %s with %v", name, run.Outcome, n)
		}
	}
	odd := Run{Planned: 1, Cases: []Case{{Path: []string{"x"}, Outcome: "perhaps"}}}
	if odd.Judge(); odd.Outcome != Failed || odd.Count().Failed != 1 {
		t.Error("an unknown outcome did not count as failed")
	}
}

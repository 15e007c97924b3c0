package reports

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestVisible(t *testing.T) {
	for in, want := range map[string]string{
		"plain, tab\t and newline\n": "plain, tab\t and newline\n",
		"Grüße › 時計 🚢":               "Grüße › 時計 🚢",
		"a\x00b\x1b[2J\x7f\r":        `a\x00b\x1b[2J\x7f\x0d`,
		"\u009b31m":                  `\x9b31m`,
		"abc\u202egnp.exe":           `abc\u202egnp.exe`,
		"\u2066x\u2069\u200b\ufeff":  `\u2066x\u2069\u200b\ufeff`,
		"\u2028\uffff\U000e0041":     `\u2028\uffff\ue0041`,
		"\xff\xc3":                   `\xff\xc3`,
		"real \ufffd stays":          "real \ufffd stays",
	} {
		if got := visible(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func FuzzVisible(f *testing.F) {
	f.Add("a\x1b\u202e\xff")
	f.Fuzz(func(t *testing.T, s string) {
		v := visible(s)
		if !utf8.ValidString(v) || strings.ContainsFunc(v, hidden) {
			t.Errorf("%q became %q", s, v)
		}
		if visible(v) != v {
			t.Errorf("%q is not left alone", v)
		}
	})
}

// hostileRun has in every text what a guest might send to fool a reader.
func hostileRun() Run {
	const bad = "</script><script>alert(1)</script><img src=x onerror=alert(2)>]]>\"'`{{.}}\u202e\x00\x1b[31mred\x1b[0m\xff\u2028&amp;"
	line := Line{N: 1, Host: ms(5), Text: bad, Raw: "\x1b[1;31m" + bad + "\x1b[0m\x1b]0;title\x07\r"}
	b := Boot{ID: bad, Image: bad, Digest: bad, Arch: bad, Cmdline: bad, Command: bad, Took: ms(900), Reached: "ready", Verdict: bad, Class: Guest, End: bad,
		Marks:    []Mark{{At: "init", Unit: bad, State: "failed", Detail: bad, Host: ms(4)}, {At: "init", State: "done", Detail: bad, Host: ms(5)}},
		Faults:   []Fault{{Rule: bad, Title: bad, Line: 1, Lines: []string{bad}, Fatal: true, Host: ms(5)}},
		Console:  []Line{line},
		Evidence: []Artifact{{bad, "javascript:alert(3)"}, {bad, bad}, {bad, "a b#c?d%e"}}}
	r := Run{ID: bad, Title: bad, Host: Host{OS: bad, Guest: bad, AccelWhy: bad, Accelerator: bad, Scale: bad}, Inputs: []Input{{bad, bad, bad, bad, bad, bad}},
		Boots: map[string]Boot{bad: b}, Planned: 1,
		Cases: []Case{{Path: []string{bad, bad}, Labels: []string{bad}, Where: bad, Outcome: Failed, Class: Class(bad), Title: bad, Failure: bad + "\n" + bad, BootIDs: []string{bad}, Evidence: b.Evidence}}}
	r.Judge()
	return r
}

func TestNothingActive(t *testing.T) {
	for _, f := range formats() {
		if f.name == FileJSON {
			continue // JSON has escapes of its own
		}
		var b bytes.Buffer
		if err := f.write(&b, hostileRun()); err != nil {
			t.Fatal(err)
		}
		if !utf8.Valid(b.Bytes()) || strings.ContainsFunc(b.String(), hidden) {
			t.Errorf("%s lets through what acts", f.name)
		}
		if !strings.Contains(b.String(), `\u202e`) {
			t.Errorf("%s does not show what was there", f.name)
		}
	}
	root := asJUnit(t, hostileRun())
	if got := root.Suites[0].Cases[0].Failure.Text; !strings.Contains(got, "</script><script>alert(1)") || !strings.Contains(got, "]]>") {
		t.Errorf("JUnit lost text: %q", got)
	}
}

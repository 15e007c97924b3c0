package reports

import (
	"bytes"
	"encoding/xml"
	"strings"
	"testing"
	"unicode/utf8"
)

func asJUnit(t *testing.T, run Run) junitSuites {
	t.Helper()
	var b bytes.Buffer
	if err := WriteJUnit(&b, run); err != nil {
		t.Fatal(err)
	}
	if !utf8.Valid(b.Bytes()) {
		t.Error("not UTF-8")
	}
	var root junitSuites
	d := xml.NewDecoder(&b)
	d.Strict = true
	if err := d.Decode(&root); err != nil {
		t.Fatal(err)
	}
	return root
}

func TestJUnitCounts(t *testing.T) {
	root := asJUnit(t, sampleRun())
	if root.Tests != 15 || root.Failures != 5 || root.Skipped != 1 || root.Errors != 0 {
		t.Errorf("%d tests, %d failures, %d skipped, %d errors", root.Tests, root.Failures, root.Skipped, root.Errors)
	}
	tests, failures, skipped := 0, 0, 0
	for _, s := range root.Suites {
		tests += s.Tests
		if s.Tests != len(s.Cases) {
			t.Errorf("suite %s says %d tests and has %d", s.Name, s.Tests, len(s.Cases))
		}
		for _, c := range s.Cases {
			if c.Failure != nil {
				failures++
			}
			if c.Skipped != nil {
				skipped++
			}
		}
	}
	if tests != root.Tests || failures != root.Failures || skipped != root.Skipped {
		t.Errorf("the suites hold %d tests, %d failures, %d skipped", tests, failures, skipped)
	}
	c := root.Suites[0].Cases[2]
	if c.Failure.Type != "guest" || c.Failure.Message != "kernel panic: init exited with status 1" || c.File != "cases/init_test.go" || c.Line != "38" {
		t.Errorf("%+v, failure %+v", c, c.Failure)
	}
	for _, want := range []string{"machines/init-exits/serial.log", "qemu-system-x86_64"} {
		if !strings.Contains(c.Out.Text, want) {
			t.Errorf("system-out lacks %s", want)
		}
	}
}

// A run that proved too little is never green, whoever reads it.
func TestJUnitOfUnprovedRun(t *testing.T) {
	cut := passedRun()
	cut.Planned++
	for name, run := range map[string]Run{"empty": {}, "cut short": cut, "broken": {Failure: "no QEMU"}} {
		run.Judge()
		if root := asJUnit(t, run); root.Failures != 1 {
			t.Errorf("%s: %d failures", name, root.Failures)
		} else if s := root.Suites[len(root.Suites)-1]; s.Cases[0].Failure.Text != run.Failure {
			t.Errorf("%s: %q, want %q", name, s.Cases[0].Failure.Text, run.Failure)
		}
	}
	if root := asJUnit(t, passedRun()); root.Failures != 0 {
		t.Errorf("passed: %d failures", root.Failures)
	}
}

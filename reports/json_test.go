package reports

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func asJSON(t *testing.T, run Run) string {
	t.Helper()
	var b bytes.Buffer
	if err := WriteJSON(&b, run); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestJSONRoundTrip(t *testing.T) {
	run := sampleRun()
	text := asJSON(t, run)
	if again := asJSON(t, sampleRun()); text != again {
		t.Error("equal runs gave different bytes")
	}
	got, err := ReadJSON(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(run, got); d != "" {
		t.Errorf("-written +read:\n%s", d)
	}
}

func TestReadJSONIsStrict(t *testing.T) {
	good := asJSON(t, passedRun())
	change := func(old, new string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("the run has no %s", old)
		}
		return strings.Replace(good, old, new, 1)
	}
	for name, c := range map[string]struct{ text, want string }{
		"empty":           {"", "not a run in JSON"},
		"other document":  {"{}", `no field "schema"`},
		"newer schema":    {change(`"schema": 1`, `"schema": 2`), "schema 2, this program reads 1"},
		"unknown field":   {change(`"title":`, `"colour": "red", "title":`), "colour"},
		"wrong type":      {change(`"planned": 2`, `"planned": "2"`), "planned"},
		"cut off":         {good[:len(good)/2], "not a run in JSON"},
		"more after it":   {good + "{}", "not a run in JSON"},
		"unknown outcome": {change(`"outcome": "passed"`, `"outcome": "green"`), `unknown outcome "green"`},
		"case outcome":    {strings.ReplaceAll(good, `   "outcome": "passed"`, `   "outcome": "green"`), "case 2"},
		"misfiled boot":   {change(`"id": "default"`, `"id": "other"`), `boot "other" is filed under "default"`},
	} {
		if _, err := ReadJSON(strings.NewReader(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one that names %q", name, err, c.want)
		}
	}
	if _, err := ReadJSON(strings.NewReader(good)); err != nil {
		t.Errorf("unchanged: %v", err)
	}
}

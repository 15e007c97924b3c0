package reports

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSegments(t *testing.T) {
	for raw, want := range map[string][]segment{
		"\x1b[31mred\x1b[0m plain\r":   {{"f1", "red"}, {"", " plain"}},
		"\x1b[1;34mhost\x1b[m:~#":      {{"f4 b", "host"}, {"", ":~#"}},
		"\x1b[1m\x1b[31ma\x1b[22mb":    {{"f1 b", "a"}, {"f1", "b"}},
		"\x1b[7minverse\x1b[27m":       {{"fi gi", "inverse"}},
		"\x1b[38;5;9mbright\x1b[39m.":  {{"f9", "bright"}, {"", "."}},
		"\x1b[38;5;196;1mcube":         {{"f9 b", "cube"}},
		"\x1b[38;2;10;20;90mblue":      {{"f4", "blue"}},
		"\x1b[48;5;2mgreen ground":     {{"g2", "green ground"}},
		"\x1b[2J\x1b[H\x1b[?7lcleared": {{"", "cleared"}},
		"\x1b]0;evil\x07seen":          {{"", "seen"}},
		"\x1b]8;;http://x\x1b\\seen":   {{"", "seen"}},
		"\x1bcreset":                   {{"", "reset"}},
		"\x1b[>4;1mnot a style":        {{"", "not a style"}},
		"cut off \x1b[3":               {{"", "cut off "}, {"", `\x1b[3`}},
		"\x1b[999;;38modd":             {{"", "odd"}},
		"\x1b[31m\x1b[32m":             nil,
		"\x1b[31m<b>\u202e":            {{"f1", `<b>\u202e`}},
	} {
		if d := cmp.Diff(joined(want), segments(Line{Raw: raw})); d != "" {
			t.Errorf("%q: -want +got:\n%s", raw, d)
		}
	}
	if d := cmp.Diff([]segment{{"", "text"}}, segments(Line{Text: "text", Raw: "text\r"})); d != "" {
		t.Error(d)
	}
}

// joined merges neighbours of one style, as segments does.
func joined(in []segment) []segment {
	var out []segment
	for _, s := range in {
		if n := len(out); n > 0 && out[n-1].Class == s.Class {
			out[n-1].Text += s.Text
			continue
		}
		out = append(out, s)
	}
	return out
}

func FuzzSegments(f *testing.F) {
	f.Add("\x1b[1;31mx\x1b[0m\x1b]0;y\x07")
	f.Add("\x1b[38;2;1;2")
	f.Fuzz(func(t *testing.T, raw string) {
		for _, s := range segments(Line{Raw: raw}) {
			if visible(s.Text) != s.Text {
				t.Errorf("%q lets %q through", raw, s.Text)
			}
			for _, r := range s.Class {
				if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != ' ' {
					t.Errorf("%q made the class %q", raw, s.Class)
				}
			}
		}
	})
}

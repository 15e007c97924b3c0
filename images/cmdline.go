package images

import "strings"

// Cmdline is a kernel command line as words. The zero value is empty.
type Cmdline []string

// ParseCmdline splits a command line into words as the kernel does: at white
// space outside double quotes (lib/cmdline.c, next_arg). Quotes are kept.
func ParseCmdline(line string) Cmdline {
	var words Cmdline
	quoted := false
	start := -1
	for i, r := range line {
		space := !quoted && strings.ContainsRune(" \t\n\v\f\r", r)
		switch {
		case space && start >= 0:
			words, start = append(words, line[start:i]), -1
		case !space && start < 0:
			start = i
		}
		if r == '"' {
			quoted = !quoted
		}
	}
	if start >= 0 {
		words = append(words, line[start:])
	}
	return words
}

// String joins the words with single blanks.
func (c Cmdline) String() string { return strings.Join(c, " ") }

// end is the index of the word "--", which ends the kernel's own words; what
// follows goes to init.
func (c Cmdline) end() int {
	for i, w := range c {
		if w == "--" {
			return i
		}
	}
	return len(c)
}

// Value returns the value of the last "key=value" word, or "" and true for
// the last bare "key".
func (c Cmdline) Value(key string) (string, bool) {
	for i := c.end() - 1; i >= 0; i-- {
		if k, v, _ := strings.Cut(c[i], "="); k == key {
			return strings.Trim(v, `"`), true
		}
	}
	return "", false
}

// Consoles returns the names of the terminals in console= words, in order and
// without their options. /dev/console is the last of them that registers.
func (c Cmdline) Consoles() []string {
	var names []string
	for _, w := range c[:c.end()] {
		if v, ok := strings.CutPrefix(w, "console="); ok {
			terminal, _, _ := strings.Cut(strings.Trim(v, `"`), ",")
			names = append(names, terminal)
		}
	}
	return names
}

// With returns the command line with words added at its end, before any "--".
// A word replaces the words with the same key, except for console=, of which
// there may be several: there only the same word is not added twice.
func (c Cmdline) With(words ...string) Cmdline {
	out := make(Cmdline, 0, len(c)+len(words))
	own, rest := c[:c.end()], c[c.end():]
	out = append(out, own...)
	for _, w := range words {
		key, _, _ := strings.Cut(w, "=")
		kept := out[:0]
		present := false
		for _, have := range out {
			k, _, _ := strings.Cut(have, "=")
			switch {
			case have == w && key == "console":
				present = true
				kept = append(kept, have)
			case k != key || key == "console":
				kept = append(kept, have)
			}
		}
		if out = kept; !present {
			out = append(out, w)
		}
	}
	return append(out, rest...)
}

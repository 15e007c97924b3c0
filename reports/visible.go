package reports

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// visible replaces everything that could act instead of being read: control
// characters other than tab and newline, format characters (among them the
// bidirectional overrides), line and paragraph separators, non-characters, and
// bytes that are not UTF-8. What takes their place is plain ASCII without
// quotes or brackets, so it may be applied to finished HTML and XML.
func visible(s string) string {
	if !strings.ContainsFunc(s, hidden) && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	b.Grow(len(s) + 16)
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && n == 1, r <= 0xff && hidden(r):
			fmt.Fprintf(&b, `\x%02x`, byteOf(r, s[0]))
		case hidden(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
		s = s[n:]
	}
	return b.String()
}

func byteOf(r rune, first byte) rune {
	if r == utf8.RuneError {
		return rune(first)
	}
	return r
}

func hidden(r rune) bool {
	switch {
	case r == '\n', r == '\t':
		return false
	case r < utf8.RuneSelf:
		return r < ' ' || r == 0x7f
	}
	return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp) || r&0xfffe == 0xfffe
}

// oneLine makes s fit where only one line may stand.
func oneLine(s string) string {
	return strings.Join(strings.Fields(visible(s)), " ")
}

package reports

import (
	"regexp"
	"strconv"
	"strings"
)

// segment is a piece of a console line in one style: CSS class names, or none.
type segment struct{ Class, Text string }

// escape matches one terminal sequence: CSI, OSC, the other strings, two-byte escapes.
var escape = regexp.MustCompile(`\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[PX^_][^\x1b]*\x1b\\|[ -/]*[0-Z\\^-~])`)

// segments turns the colours of a raw console line into styles and drops every
// other sequence. A style ends with its line: a guest that dies in red must
// not paint what follows.
func segments(l Line) []segment {
	if !strings.Contains(l.Raw, "\x1b") {
		return []segment{{"", visible(l.Text)}}
	}
	var out []segment
	var now style
	raw := strings.Trim(l.Raw, "\r\n")
	add := func(text string) {
		if text = visible(strings.Trim(text, "\r")); text == "" {
			return
		}
		class := now.class()
		if n := len(out); n > 0 && out[n-1].Class == class {
			out[n-1].Text += text
			return
		}
		out = append(out, segment{class, text})
	}
	for {
		at := escape.FindStringIndex(raw)
		if at == nil {
			add(raw)
			return out
		}
		add(raw[:at[0]])
		if seq := raw[at[0]:at[1]]; strings.HasPrefix(seq, "\x1b[") && strings.HasSuffix(seq, "m") {
			now.apply(seq[2 : len(seq)-1])
		}
		raw = raw[at[1]:]
	}
}

// style is the state that SGR sequences change (ECMA-48, 8.3.117). Colours are
// numbered from 1, so that the zero value is the default.
type style struct {
	fg, bg                                int
	bold, dim, italic, underline, inverse bool
}

func (s *style) apply(params string) {
	if strings.Trim(params, "0123456789;:") != "" {
		return // private sequences, such as xterm's modifyOtherKeys
	}
	codes := strings.FieldsFunc(params+" ", func(r rune) bool { return r == ';' || r == ':' })
	for i := 0; i < len(codes); i++ {
		n, err := strconv.Atoi(strings.TrimSpace(codes[i]))
		if err != nil {
			n = 0 // an empty parameter means 0
		}
		switch {
		case n == 38 || n == 48:
			colour, used := extended(codes[i+1:])
			i += used
			if n == 38 {
				s.fg = colour
			} else {
				s.bg = colour
			}
		default:
			s.set(n)
		}
	}
}

func (s *style) set(n int) {
	switch {
	case n == 0:
		*s = style{}
	case n == 1:
		s.bold = true
	case n == 2:
		s.dim = true
	case n == 3:
		s.italic = true
	case n == 4:
		s.underline = true
	case n == 7:
		s.inverse = true
	case n == 22:
		s.bold, s.dim = false, false
	case n == 23:
		s.italic = false
	case n == 24:
		s.underline = false
	case n == 27:
		s.inverse = false
	case n >= 30 && n <= 37:
		s.fg = n - 30 + 1
	case n == 39:
		s.fg = 0
	case n >= 40 && n <= 47:
		s.bg = n - 40 + 1
	case n == 49:
		s.bg = 0
	case n >= 90 && n <= 97:
		s.fg = n - 90 + 9
	case n >= 100 && n <= 107:
		s.bg = n - 100 + 9
	}
}

// extended reads "5;N" or "2;R;G;B" and finds the nearest of the 16 colours
// the page has for both of its themes. used is how many codes were read.
func extended(codes []string) (colour, used int) {
	at := func(i int) int {
		if i >= len(codes) {
			return 0
		}
		n, err := strconv.Atoi(strings.TrimSpace(codes[i]))
		if err != nil || n > 255 {
			return 0
		}
		return n
	}
	switch at(0) {
	case 5:
		n := at(1)
		switch {
		case n < 16:
			return n + 1, 2
		case n >= 232:
			grey := 8 + 10*(n-232)
			return nearest(grey, grey, grey), 2
		}
		n -= 16
		return nearest(n/36*51, n/6%6*51, n%6*51), 2
	case 2:
		return nearest(at(1), at(2), at(3)), 4
	}
	return 0, 1
}

// nearest keeps each component's high half; a colour with a bright component
// is one of the bright eight.
func nearest(r, g, b int) int {
	top := max(r, g, b)
	colour := 1
	for i, c := range []int{r, g, b} {
		if c > 64 && c*2 > top {
			colour += 1 << i
		}
	}
	if top > 200 {
		colour += 8
	}
	return colour
}

func (s style) class() string {
	var out []string
	add := func(on bool, name string) {
		if on {
			out = append(out, name)
		}
	}
	fg, bg := s.fg, s.bg
	if s.inverse {
		fg, bg = bg, fg
		add(fg == 0, "fi")
		add(bg == 0, "gi")
	}
	add(fg > 0, "f"+strconv.Itoa(fg-1))
	add(bg > 0, "g"+strconv.Itoa(bg-1))
	add(s.bold, "b")
	add(s.dim, "d")
	add(s.italic, "i")
	add(s.underline, "u")
	return strings.Join(out, " ")
}

package reports

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/net/html"
)

// dom is a parsed page.
type dom struct {
	*html.Node
	ids map[string]*html.Node
}

func render(t *testing.T, run Run) (dom, string) {
	t.Helper()
	var b bytes.Buffer
	if err := WriteHTML(&b, run); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	root, err := html.Parse(&b)
	if err != nil {
		t.Fatal(err)
	}
	d := dom{root, map[string]*html.Node{}}
	for n := range root.Descendants() {
		if id := attr(n, "id"); id != "" {
			if d.ids[id] != nil {
				t.Errorf("id %s is there twice", id)
			}
			d.ids[id] = n
		}
	}
	return d, text
}

func attr(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

func (d dom) all(tag, class string) []*html.Node {
	var out []*html.Node
	for n := range d.Descendants() {
		has := class == "" || strings.Contains(" "+attr(n, "class")+" ", " "+class+" ")
		if n.Type == html.ElementNode && n.Data == tag && has {
			out = append(out, n)
		}
	}
	return out
}

func text(n *html.Node) string {
	var b strings.Builder
	for c := range n.Descendants() {
		if c.Type == html.TextNode {
			b.WriteString(c.Data)
		}
	}
	return b.String()
}

func TestPageHolds(t *testing.T) {
	run := sampleRun()
	d, _ := render(t, run)
	if h := d.all("h1", ""); len(h) != 1 || text(h[0]) != FirstLine(run) {
		t.Error("the heading is not the first line")
	}
	for _, tag := range []string{"header", "nav", "main", "footer", "title"} {
		if len(d.all(tag, "")) == 0 {
			t.Errorf("no <%s>", tag)
		}
	}
	for name, c := range map[string]struct{ got, want int }{
		"failures":  {len(d.all("article", "failure")), 5},
		"machines":  {len(d.all("details", "machine")), 5},
		"timelines": {len(d.all("svg", "chart")), 5},
		"topics":    {len(d.all("div", "topic")), 5},
		"commands":  {len(d.all("div", "command")), 4 + 5}, // two failures share a machine
		"tails":     {len(d.all("div", "tail")), 4},
	} {
		if c.got != c.want {
			t.Errorf("%d %s, want %d", c.got, name, c.want)
		}
	}
	if line := d.ids["m2-24"]; line == nil || !strings.Contains(attr(line, "class"), "bad") || !strings.Contains(text(line), "Kernel panic") {
		t.Error("the fault's line is not marked")
	}
	if line := d.ids["m1-24"]; line == nil || strings.Contains(attr(line, "class"), "bad") {
		t.Error("a good line is marked, or missing")
	}
	if line := d.ids["m4-41"]; len(d.all("b", "f1")) == 0 || !strings.HasPrefix(text(line), "418.235ERRO[0000]") {
		t.Errorf("colours are lost: %s", text(line))
	}
}

// Every link within the page leads somewhere, and nothing is fetched.
func TestPageStandsAlone(t *testing.T) {
	for name, run := range map[string]Run{"failed": sampleRun(), "passed": passedRun(), "hostile": hostileRun(), "empty": {}, "large": largeRun(1, 7_000)} {
		d, _ := render(t, run)
		for n := range d.Descendants() {
			if n.Type != html.ElementNode {
				continue
			}
			if strings.Contains(" link img iframe object embed base video audio ", " "+n.Data+" ") || attr(n, "src") != "" || attr(n, "style") != "" {
				t.Errorf("%s: <%s> fetches, or breaks the page's policy", name, n.Data)
			}
			href := attr(n, "href")
			if to, ok := strings.CutPrefix(href, "#"); ok && d.ids[to] == nil {
				t.Errorf("%s: link %s leads nowhere", name, href)
			}
			if strings.Contains(href, "://") || strings.HasPrefix(href, "javascript:") {
				t.Errorf("%s: link leads away: %s", name, href)
			}
		}
	}
}

func TestPageEscapes(t *testing.T) {
	d, raw := render(t, hostileRun())
	if n := len(d.all("script", "")); n != 1 {
		t.Errorf("%d scripts, want the page's own", n)
	}
	for n := range d.Descendants() {
		for _, a := range n.Attr {
			if strings.HasPrefix(a.Key, "on") {
				t.Errorf("<%s> has a handler: %s", n.Data, a.Key)
			}
		}
	}
	if n := strings.Count(raw, "<script>alert"); n != 0 {
		t.Errorf("%d scripts of the guest's", n)
	}
	line := d.ids["m1-1"]
	if line == nil || !strings.Contains(text(line), "<script>alert(1)</script>") {
		t.Fatal("the guest's text is lost")
	}
	if strings.Contains(text(line), "title") || strings.Contains(text(line), "[1;31m") {
		t.Errorf("terminal sequences are shown: %s", text(line))
	}
}

// largeRun has n machines, each with so many console lines and a fault in the middle.
func largeRun(n, lines int) Run {
	r := Run{Title: "large", Planned: n, Boots: map[string]Boot{}, Began: sampleStart}
	for i := range n {
		s := newScript(fmt.Sprintf("machine-%02d", i)).toInit()
		for len(s.b.Console) < lines {
			s.kernel(ms(7), fmt.Sprintf("eth0: link is up and this line %d is about as long as a kernel's line", len(s.b.Console)))
			if len(s.b.Console) == lines/2 {
				s.fault("odd", Guest, "an odd line", true, 1)
			}
		}
		b := s.end(ms(100), "powered off")
		r.Boots[b.ID] = b
		r.Cases = append(r.Cases, Case{Path: []string{"large", b.ID}, Outcome: Passed, BootIDs: []string{b.ID}})
	}
	r.Judge()
	return r
}

// The pages are not parsed here: under the race detector that takes longer than all else.
func TestPageStaysSmall(t *testing.T) {
	for name, run := range map[string]Run{"40 boots": largeRun(40, 500), "a flood": largeRun(1, 20_000)} {
		var page bytes.Buffer
		if err := WriteHTML(&page, run); err != nil {
			t.Fatal(err)
		}
		if page.Len() > 10<<20 {
			t.Errorf("%s: %d bytes", name, page.Len())
		}
		half := len(run.Boots["machine-00"].Console) / 2
		if !strings.Contains(page.String(), fmt.Sprintf(`id="m1-%d"`, half)) {
			t.Errorf("%s: the fault's line was left out", name)
		}
		if gone := strings.Contains(page.String(), `<p class="gone">`); gone != (name == "a flood") {
			t.Errorf("%s: lines were left out: %v", name, gone)
		}
		t.Logf("%s: %d kB", name, page.Len()>>10)
	}
}

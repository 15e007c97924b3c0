package reports

import (
	"cmp"
	"fmt"
	"html/template"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"
)

// page is what the template shows: a Run, arranged.
type page struct {
	CSS      template.CSS
	JS       template.JS
	Policy   string
	Run      Run
	First    string
	Passed   bool
	Counts   Counts
	Closing  string
	Began    string
	Took     string
	HostLine string
	Failures []pageFailure
	Topics   []pageTopic
	Labels   []string
	Slowest  []pageCase
	Boots    []pageBoot
}

type pageTopic struct {
	Name   string
	Counts Counts
	Cases  []pageCase
}

type pageCase struct {
	Case
	ID, Name, Took, State, Headline string
	Boots                           []link
	Href                            string // its failure below, if it has one
}

type link struct{ Text, Href string }

type pageFailure struct {
	pageCase
	N        int
	Boot     *pageBoot
	Reached  string
	Awaited  string
	Fault    *Fault
	FaultAt  string
	Lines    []consoleRow // the last console lines
	Earlier  int          // number of the failure that already shows this machine
	Text     string       // the failure's own text, unless it is only the title
	Evidence []link
}

// newPage arranges a run. Machines come in the order in which they began.
func newPage(run Run) page {
	p := page{
		Run: run, First: FirstLine(run), Passed: run.Outcome == Passed, Counts: run.Count(),
		Began: run.Began.UTC().Format("2 January 2006, 15:04:05 UTC"), Took: short(run.Took), HostLine: hostLine(run.Host),
	}
	p.Closing = p.Counts.String()
	boots := slices.SortedFunc(maps.Values(run.Boots), func(a, b Boot) int {
		return cmp.Or(a.Began.Compare(b.Began), cmp.Compare(a.ID, b.ID))
	})
	share := consoleShare(len(boots))
	at := map[string]int{}
	for i, b := range boots {
		at[b.ID] = i
		p.Boots = append(p.Boots, newPageBoot(b, fmt.Sprintf("m%d", i+1), share))
	}
	if len(p.Boots) == 1 || p.Passed && len(p.Boots) > 0 {
		p.Boots[0].Open = true
	}
	labels := map[string]bool{}
	byTopic := map[string]int{}
	shown := map[string]int{}
	for i, c := range run.Cases {
		pc := newPageCase(c, i, at)
		if pc.State == "failed" {
			p.Failures = append(p.Failures, p.failure(pc, at, shown))
		}
		for _, l := range c.Labels {
			labels[l] = true
		}
		j, ok := byTopic[topic(c)]
		if !ok {
			j = len(p.Topics)
			byTopic[topic(c)] = j
			p.Topics = append(p.Topics, pageTopic{Name: topic(c)})
		}
		p.Topics[j].Cases = append(p.Topics[j].Cases, pc)
	}
	for i := range p.Topics {
		p.Topics[i].count()
	}
	p.Labels = slices.Sorted(maps.Keys(labels))
	for _, c := range slowest(run) {
		p.Slowest = append(p.Slowest, newPageCase(c, 0, at))
	}
	return p
}

func (t *pageTopic) count() {
	var r Run
	for _, c := range t.Cases {
		r.Cases = append(r.Cases, c.Case)
	}
	t.Counts = r.Count()
}

func newPageCase(c Case, i int, at map[string]int) pageCase {
	out := pageCase{Case: c, ID: fmt.Sprintf("c%d", i+1), Took: short(c.Took), State: "failed"}
	switch c.Outcome {
	case Passed, Skipped:
		out.State = string(c.Outcome)
	default:
		out.Headline = strings.TrimPrefix(headline(c), string(c.Class)+": ")
		out.Href = "#f-" + out.ID
	}
	if n := len(c.Path); n > 1 {
		out.Name = strings.Join(c.Path[1:], " › ")
	} else {
		out.Name = topic(c)
	}
	for _, id := range c.BootIDs {
		l := link{Text: id}
		if j, ok := at[id]; ok {
			l.Href = fmt.Sprintf("#m%d", j+1)
		}
		out.Boots = append(out.Boots, l)
	}
	return out
}

// failure shows a machine's console only with the first case that it failed.
func (p *page) failure(c pageCase, at, shown map[string]int) pageFailure {
	f := pageFailure{pageCase: c, N: len(p.Failures) + 1}
	if text := strings.TrimSpace(c.Failure); !strings.Contains(headline(c.Case), text) {
		f.Text = text
	}
	b, ok := blamed(p.Run, c.Case)
	f.Awaited = awaited(c.Case, b)
	f.Evidence = links(evidence(c.Case, b))
	if !ok {
		return f
	}
	f.Boot = &p.Boots[at[b.ID]]
	f.Reached = reached(b)
	if f.Earlier = shown[b.ID]; f.Earlier > 0 {
		return f
	}
	shown[b.ID] = f.N
	if fault, ok := cause(b); ok {
		f.Fault, f.FaultAt = &fault, short(fault.Host)
	}
	all := f.Boot.Lines
	for _, l := range all[max(0, len(all)-tailLines):] {
		if l.Gone == 0 {
			l.ID = "" // the machine's own console has it
			l.Href = f.Boot.Href(l.N)
			f.Lines = append(f.Lines, l)
		}
	}
	return f
}

// links are the files of a folder in which the page lies too.
func links(files []Artifact) []link {
	var out []link
	for _, a := range files {
		u := url.URL{Path: a.Path}
		out = append(out, link{Text: a.Path, Href: u.String()})
	}
	return out
}

func hostTime(d time.Duration) string { return fmt.Sprintf("%.3f", d.Seconds()) }

package reports

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/charmbracelet/x/ansi"
)

// TextOptions says what the summary is written for. The zero value is a plain file.
type TextOptions struct {
	Colour bool // mark outcomes with ANSI colours
	Width  int  // columns at which console lines and titles are cut; 0: never
}

// failureLines is how much of a failure's own text a summary shows; run.json
// and the page have all of it.
const failureLines = 12

type textWriter struct {
	bytes.Buffer
	opt TextOptions
}

// WriteText writes the summary for a terminal. Its last line is [Counts.String].
func WriteText(w io.Writer, run Run, opt TextOptions) error {
	t := &textWriter{opt: opt}
	t.verdict(run)
	failed := failures(run)
	t.list(failed)
	shown := map[string]int{} // boot -> number of the failure that showed it
	for i, c := range failed {
		t.failure(run, c, i+1, len(failed), shown)
	}
	t.closing(run)
	_, err := w.Write(t.Bytes())
	return err
}

func (t *textWriter) verdict(run Run) {
	word := t.colour("1;32", "PASSED")
	if run.Outcome != Passed {
		word = t.colour("1;31", "FAILED")
	}
	fmt.Fprintf(t, "%s  %s\n", word, FirstLine(run))
}

// list gives every failed case its line.
func (t *textWriter) list(failed []Case) {
	if len(failed) == 0 {
		return
	}
	t.WriteByte('\n')
	for _, c := range failed {
		class := fmt.Sprintf("%-8s", c.Class)
		title := oneLine(strings.TrimPrefix(headline(c), string(c.Class)+": "))
		line := t.cut(oneLine(caseName(c))+": "+title, len(class)+1)
		fmt.Fprintf(t, "%s %s\n", t.colour("31", class), line)
	}
}

// failure shows one failed case in the order a kernel engineer asks.
func (t *textWriter) failure(run Run, c Case, i, n int, shown map[string]int) {
	fmt.Fprintf(t, "\n%s %s\n", t.colour("1", fmt.Sprintf("[%d/%d]", i, n)), t.colour("1;31", oneLine(headline(c))))
	t.field("case", caseName(c))
	if c.Where != "" {
		t.field("where", c.Where)
	}
	b, ok := blamed(run, c)
	if ok {
		reached := reached(b)
		if a := awaited(c, b); a != "" {
			reached += ", awaited " + a
		}
		t.field("reached", reached)
	}
	if _, explained := cause(b); !explained || !strings.Contains(c.Failure, c.Title) {
		t.said(c) // else it would be said a third time
	}
	if !ok {
		t.evidence(evidence(c, b))
		return
	}
	t.field("machine", b.ID+prefixed(": ", b.End))
	if first, again := shown[b.ID]; again {
		t.field("console", fmt.Sprintf("the machine is that of failure %d: see there", first))
		return
	}
	shown[b.ID] = i
	t.fault(b)
	t.console(b)
	fmt.Fprintf(t, "  to start it by hand:\n    %s\n", visible(b.Command))
	t.evidence(evidence(c, b))
}

// said shows the failure's own text, unless it is only the title again.
func (t *textWriter) said(c Case) {
	lines := strings.Split(strings.TrimSpace(visible(c.Failure)), "\n")
	if len(lines) == 1 && strings.Contains(headline(c), lines[0]) {
		return
	}
	t.WriteString("  said:\n")
	for i, l := range lines {
		if i == failureLines {
			fmt.Fprintf(t, "    (%d more lines in %s)\n", len(lines)-i, FileJSON)
			break
		}
		fmt.Fprintf(t, "    %s\n", t.cut(l, 4))
	}
}

func (t *textWriter) fault(b Boot) {
	f, ok := cause(b)
	if !ok {
		return
	}
	where := "seen at " + short(f.Host)
	if f.Line > 0 {
		where = fmt.Sprintf("console line %d, at %s", f.Line, short(f.Host))
	}
	fmt.Fprintf(t, "  fault %s (%s): %s\n", oneLine(f.Rule), where, oneLine(f.Title))
	for _, l := range f.Lines {
		fmt.Fprintf(t, "    %s %s\n", t.colour("31", "|"), t.cut(consoleLine(l), 6))
	}
}

func (t *textWriter) console(b Boot) {
	lines := tail(b)
	if len(lines) == 0 {
		t.field("console", "stayed silent")
		return
	}
	fmt.Fprintf(t, "  last %d console lines:\n", len(lines))
	for _, l := range lines {
		fmt.Fprintf(t, "    %5d %9.3fs  %s\n", l.N, l.Host.Seconds(), t.cut(consoleLine(l.Text), 22))
	}
}

func (t *textWriter) evidence(files []Artifact) {
	if len(files) == 0 {
		return
	}
	t.WriteString("  evidence:\n")
	for _, a := range files {
		fmt.Fprintf(t, "    %s\n", oneLine(a.Path))
	}
}

func (t *textWriter) closing(run Run) {
	t.WriteString("\nslowest cases:\n")
	for _, c := range slowest(run) {
		fmt.Fprintf(t, "  %8s  %s\n", short(c.Took), t.cut(oneLine(caseName(c)), 12))
	}
	h := run.Host
	if h.Guest != "" {
		fmt.Fprintf(t, "machines: %s\n", oneLine(h.Guest))
	}
	fmt.Fprintf(t, "accelerator: %s%s\n", oneLine(h.Accelerator), oneLine(prefixed(", because ", h.AccelWhy)))
	fmt.Fprintf(t, "host: %s\n", oneLine(hostLine(h)))
	fmt.Fprintf(t, "took: %s on %d machines\n", short(run.Took), len(run.Boots))
	fmt.Fprintf(t, "%s\n", run.Count())
}

func hostLine(h Host) string {
	return fmt.Sprintf("%s %s, %d CPUs, %d MiB, QEMU %s%s", h.OS, h.Arch, h.CPUs, h.MemoryMiB, h.QEMU, prefixed(", deadlines ", h.Scale))
}

func (t *textWriter) field(name, value string) {
	fmt.Fprintf(t, "  %-8s %s\n", name, oneLine(value))
}

func (t *textWriter) colour(sgr, s string) string {
	s = visible(s)
	if !t.opt.Colour {
		return s
	}
	return "\x1b[" + sgr + "m" + s + "\x1b[m"
}

// cut shortens s so that it and what stands before it fit the width.
func (t *textWriter) cut(s string, before int) string {
	if t.opt.Width <= 0 {
		return s
	}
	return ansi.Truncate(s, max(t.opt.Width-before, 20), "…")
}

// consoleLine is oneLine for console text, whose blanks mean something.
func consoleLine(s string) string {
	return strings.ReplaceAll(visible(s), "\n", `\n`)
}

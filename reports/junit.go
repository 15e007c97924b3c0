package reports

import (
	"bytes"
	"cmp"
	"encoding/xml"
	"fmt"
	"io"
	"strings"
	"time"
)

// The JUnit elements that CI systems read. One suite per topic.
type (
	junitSuites struct {
		XMLName   xml.Name     `xml:"testsuites"`
		Name      string       `xml:"name,attr"`
		Tests     int          `xml:"tests,attr"`
		Failures  int          `xml:"failures,attr"`
		Errors    int          `xml:"errors,attr"`
		Skipped   int          `xml:"skipped,attr"`
		Time      string       `xml:"time,attr"`
		Timestamp string       `xml:"timestamp,attr"`
		Suites    []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name       string          `xml:"name,attr"`
		Tests      int             `xml:"tests,attr"`
		Failures   int             `xml:"failures,attr"`
		Errors     int             `xml:"errors,attr"`
		Skipped    int             `xml:"skipped,attr"`
		Time       string          `xml:"time,attr"`
		Timestamp  string          `xml:"timestamp,attr"`
		Properties []junitProperty `xml:"properties>property"`
		Cases      []junitCase     `xml:"testcase"`
	}
	junitProperty struct {
		Name  string `xml:"name,attr"`
		Value string `xml:"value,attr"`
	}
	junitCase struct {
		Class   string       `xml:"classname,attr"`
		Name    string       `xml:"name,attr"`
		Time    string       `xml:"time,attr"`
		File    string       `xml:"file,attr,omitempty"`
		Line    string       `xml:"line,attr,omitempty"`
		Failure *junitResult `xml:"failure"`
		Skipped *junitResult `xml:"skipped"`
		Out     *junitText   `xml:"system-out"`
	}
	junitResult struct {
		Type    string `xml:"type,attr,omitempty"`
		Message string `xml:"message,attr"`
		Text    string `xml:",cdata"`
	}
	junitText struct {
		Text string `xml:",cdata"`
	}
)

// WriteJUnit writes the run as JUnit XML. A run that did not pass although no
// case failed (cut short, nothing ran, a case skipped) gets a failed case of
// its own, so that a CI system which reads nothing else cannot take it for a pass.
func WriteJUnit(w io.Writer, run Run) error {
	root := junitSuites{Name: run.Title, Time: seconds(run.Took), Timestamp: stamp(run.Began)}
	at := map[string]int{}
	for _, c := range run.Cases {
		i, ok := at[topic(c)]
		if !ok {
			i = len(root.Suites)
			at[topic(c)] = i
			root.Suites = append(root.Suites, junitSuite{Name: topic(c), Timestamp: stamp(c.Began), Properties: hostProperties(run)})
		}
		root.Suites[i].Cases = append(root.Suites[i].Cases, toJUnit(run, c))
	}
	if run.Outcome != Passed && run.Count().Failed == 0 {
		root.Suites = append(root.Suites, junitSuite{
			Name: "run", Timestamp: stamp(run.Began), Properties: hostProperties(run),
			Cases: []junitCase{{
				Class: "run", Name: "proves every planned case", Time: seconds(0),
				Failure: &junitResult{Type: "run", Message: FirstLine(run), Text: run.Failure},
			}},
		})
	}
	root.total(run)
	var b bytes.Buffer
	b.WriteString(xml.Header)
	e := xml.NewEncoder(&b)
	e.Indent("", " ")
	if err := e.Encode(root); err != nil {
		return fmt.Errorf("reports: run as JUnit XML: %w", err)
	}
	_, err := io.WriteString(w, visible(b.String())+"\n")
	return err
}

// total counts what the suites hold.
func (root *junitSuites) total(run Run) {
	took := map[string]time.Duration{}
	for _, c := range run.Cases {
		took[topic(c)] += c.Took
	}
	for i := range root.Suites {
		s := &root.Suites[i]
		s.Time = seconds(took[s.Name])
		s.Tests = len(s.Cases)
		for _, c := range s.Cases {
			if c.Failure != nil {
				s.Failures++
			}
			if c.Skipped != nil {
				s.Skipped++
			}
		}
		root.Tests += s.Tests
		root.Failures += s.Failures
		root.Skipped += s.Skipped
	}
}

func toJUnit(run Run, c Case) junitCase {
	out := junitCase{Class: run.Title, Time: seconds(c.Took), File: c.Where}
	if n := len(c.Path); n > 0 {
		out.Name = c.Path[n-1]
		out.Class = cmp.Or(strings.Join(c.Path[:n-1], " › "), run.Title)
	}
	if i := strings.LastIndexByte(c.Where, ':'); i > 0 {
		out.File, out.Line = c.Where[:i], c.Where[i+1:]
	}
	switch c.Outcome {
	case Passed:
	case Skipped:
		out.Skipped = &junitResult{Message: cmp.Or(c.Title, c.Failure)}
	default:
		out.Failure = &junitResult{Type: string(c.Class), Message: oneLine(cmp.Or(c.Title, headline(c))), Text: c.Failure}
	}
	if text := caseOutput(run, c); text != "" {
		out.Out = &junitText{text}
	}
	return out
}

// caseOutput is where the evidence of a case is and how to start its machines.
func caseOutput(run Run, c Case) string {
	var b strings.Builder
	for _, a := range c.Evidence {
		fmt.Fprintf(&b, "evidence: %s\n", a.Path)
	}
	for _, id := range c.BootIDs {
		if boot, ok := run.Boots[id]; ok && boot.Command != "" {
			fmt.Fprintf(&b, "machine %s: %s\n", id, boot.Command)
		}
	}
	return b.String()
}

func hostProperties(run Run) []junitProperty {
	h := run.Host
	return []junitProperty{
		{"run", run.ID}, {"host", h.OS + " " + h.Arch}, {"cpus", fmt.Sprint(h.CPUs)},
		{"memoryMiB", fmt.Sprint(h.MemoryMiB)}, {"qemu", h.QEMU},
		{"machines", h.Guest}, {"accelerator", h.Accelerator}, {"acceleratorWhy", h.AccelWhy}, {"scale", h.Scale},
	}
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.3f", d.Seconds()) }

// stamp is ISO 8601 without a zone, in UTC, as the JUnit schema has it.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05") }

package suite

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/ginkgo/v2/types"
	"github.com/onsi/gomega"

	"github.com/seatrial/seatrial/harness"
	"github.com/seatrial/seatrial/reports"
)

// endSpec tells the display how a spec ended.
func (s *Suite) endSpec(r ginkgo.SpecReport) {
	if s.world.Run != "" && !filtered(r) {
		s.tell(harness.Note{Case: r.FullText(), State: string(outcome(r.State)), Took: r.RunTime})
	}
}

// filtered reports whether the spec was left out by a filter: it was not planned.
func filtered(r ginkgo.SpecReport) bool {
	return r.State == types.SpecStateSkipped && r.Failure.Message == ""
}

// report turns Ginkgo's report into ours and writes it in every form. It runs
// once, in the first process, after all specs of all processes.
func (s *Suite) report(r ginkgo.Report) {
	if s.world.Run == "" {
		return // the suite broke before it had a folder; Ginkgo itself says why
	}
	run := reports.Run{
		ID: filepath.Base(s.world.Run), Title: s.title, Began: s.world.Began,
		Took: time.Since(s.world.Began), Planned: r.PreRunStats.SpecsThatWillRun,
		Host: s.world.Host.Report(), Inputs: s.world.Inputs, Boots: map[string]reports.Boot{},
	}
	boots, err := readBoots(s.world.Run)
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
	for _, spec := range r.SpecReports {
		if spec.LeafNodeType != types.NodeTypeIt {
			if spec.Failed() {
				run.Failure = fmt.Sprintf("%s: %s", spec.LeafNodeType, firstLine(spec.Failure.Message))
			}
			continue
		}
		if filtered(spec) {
			continue
		}
		c := toCase(spec, boots)
		for _, id := range c.BootIDs {
			if b, ok := boots[id]; ok {
				run.Boots[id] = b
			}
		}
		run.Cases = append(run.Cases, c)
	}
	run.Judge()
	gomega.Expect(reports.WriteAll(s.world.Run, run)).To(gomega.Succeed())
}

// readBoots reads what the machines of all processes left.
func readBoots(run string) (map[string]reports.Boot, error) {
	boots := map[string]reports.Boot{}
	found, err := filepath.Glob(filepath.Join(run, "machines", "*", "boot.json"))
	if err != nil {
		return nil, err
	}
	for _, path := range found {
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		var boot reports.Boot
		if err := json.Unmarshal(b, &boot); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		for i := range boot.Evidence {
			if rel, err := filepath.Rel(run, boot.Evidence[i].Path); err == nil {
				boot.Evidence[i].Path = rel
			}
		}
		boots[boot.ID] = boot
	}
	return boots, nil
}

func toCase(spec types.SpecReport, boots map[string]reports.Boot) reports.Case {
	c := reports.Case{
		Path:   append(append([]string{}, spec.ContainerHierarchyTexts...), spec.LeafNodeText),
		Labels: spec.Labels(), Where: location(spec.LeafNodeLocation), Outcome: outcome(spec.State),
		Began: spec.StartTime, Took: spec.RunTime,
	}
	for _, e := range spec.ReportEntries {
		if id, ok := e.GetRawValue().(string); ok && e.Name == entryMachine {
			c.BootIDs = append(c.BootIDs, id)
			c.Evidence = append(c.Evidence, boots[id].Evidence...)
		}
	}
	if c.Outcome != reports.Passed {
		c.Class, c.Title = blame(spec)
		c.Failure = failureText(spec)
		if m := awaited.FindStringSubmatch(spec.Failure.Message); m != nil {
			c.Awaited = m[1]
		}
	}
	return c
}

// said finds the first line of a harness.Failure inside an assertion's text.
var said = regexp.MustCompile(`(?m)^\s*(?:Unexpected error:\s*)?(guest|infra|stalled|misuse): (.+)$`)

// What a harness.Failure says after its cause. A report shows the console, the
// command and the evidence of the machine itself, so its text leaves them out.
var (
	awaited  = regexp.MustCompile(`(?m)^\s*machine \S+ reached \S+, awaited (.+)$`)
	appendix = regexp.MustCompile(`(?ms)^\s*(last \d+ console lines:|the console stayed silent)\n.*?^\s*evidence: [^\n]*\n?`)
)

// blame classifies a failed spec by what was said of it.
func blame(spec types.SpecReport) (reports.Class, string) {
	text := spec.Failure.Message
	if m := said.FindStringSubmatch(text); m != nil {
		return reports.Class(m[1]), m[2]
	}
	switch spec.State {
	case types.SpecStateTimedout:
		return reports.Stalled, "the spec's own time ended: " + firstLine(text)
	case types.SpecStatePanicked:
		return reports.Misuse, "the spec panicked: " + firstLine(spec.Failure.ForwardedPanic)
	case types.SpecStateInterrupted, types.SpecStateAborted:
		return reports.Infra, "interrupted: " + firstLine(text)
	case types.SpecStateSkipped, types.SpecStatePending:
		return "", firstLine(text)
	}
	return reports.Guest, firstLine(text)
}

func failureText(spec types.SpecReport) string {
	text := appendix.ReplaceAllString(spec.Failure.Message, "")
	if spec.Failure.ForwardedPanic != "" {
		text += "\n" + spec.Failure.ForwardedPanic + "\n" + spec.Failure.Location.FullStackTrace
	}
	if at := location(spec.Failure.Location); at != "" {
		text += "\nat " + at
	}
	return strings.TrimSpace(text)
}

func outcome(s types.SpecState) reports.Outcome {
	switch {
	case s.Is(types.SpecStatePassed):
		return reports.Passed
	case s.Is(types.SpecStateSkipped | types.SpecStatePending):
		return reports.Skipped
	}
	return reports.Failed
}

func location(l types.CodeLocation) string {
	if l.FileName == "" {
		return ""
	}
	name := l.FileName
	if root, err := moduleRoot(); err == nil {
		if rel, err := filepath.Rel(root, name); err == nil {
			name = rel
		}
	}
	return fmt.Sprintf("%s:%d", name, l.LineNumber)
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return line
}

package harness

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/seatrial/seatrial/harness/console"
	"github.com/seatrial/seatrial/reports"
)

// Names of the files in a machine's evidence folder. The serial line is
// written as it comes, so that it is there even after SIGKILL.
const (
	fileSerial  = "serial.log"    // every byte of the serial line
	fileStamped = "console.jsonl" // its lines with the host's times; replays with them
	fileCommand = "command"       // the QEMU command line, to paste into a shell
	FileMachine = "machine.json"  // qemu.Config of the machine, to boot it again
	fileBoot    = "boot.json"     // reports.Boot
	fileStderr  = "qemu.stderr"   // written by package qemu
	fileQMP     = "qmp.jsonl"     // written by package qemu
)

// Report is all that is known of the machine now.
func (m *Machine) Report() reports.Boot {
	im := m.plan.Image
	b := reports.Boot{
		ID: m.plan.Name, Image: im.Name, Digest: im.Digest, Arch: im.Arch,
		Cmdline: m.plan.cmdline(m.host.Arch), Command: m.command, Began: m.resumed,
		Took: time.Since(m.resumed), Reached: m.log.Last(), Evidence: m.artifacts(),
	}
	m.mu.Lock()
	if m.fork != nil {
		fork := *m.fork
		b.Fork = &fork
	}
	if !m.ended.IsZero() {
		b.Took = m.ended.Sub(m.resumed)
	}
	if f := m.verdict; f != nil {
		b.Class, b.Verdict = f.Class, f.Title
	}
	m.mu.Unlock()
	if m.log.Closed() {
		b.End = m.vm.Exit().String()
	}
	for _, mark := range m.log.Marks() {
		b.Marks = append(b.Marks, reports.Mark{
			At: mark.At, Unit: mark.Unit, State: mark.State, Detail: mark.Detail,
			Guest: mark.Up, Host: mark.Time, Implied: mark.Implied, Inherited: mark.Inherited,
		})
	}
	for _, f := range m.log.Faults(console.Warning) {
		b.Faults = append(b.Faults, reports.Fault{
			Rule: f.Rule, Class: classOf(f.Blame), Title: f.Title, Line: f.First, Lines: f.Lines,
			Host: f.At, Fatal: f.Severity == console.Fatal, Expect: f.Expected, Inherited: f.Inherited,
		})
	}
	for _, l := range m.log.Lines() {
		line := reports.Line{N: l.N, Host: l.At, Text: l.Text, Inherited: l.Inherited}
		if raw := string(l.Raw); raw != l.Text {
			line.Raw = raw
		}
		b.Console = append(b.Console, line)
	}
	return b
}

func (m *Machine) artifacts() []reports.Artifact {
	var out []reports.Artifact
	for _, name := range []string{fileSerial, fileStamped, fileCommand, FileMachine, fileBoot, fileStderr, fileQMP} {
		path := filepath.Join(m.plan.Dir, name)
		if _, err := os.Stat(path); err == nil || name == fileBoot {
			out = append(out, reports.Artifact{Name: name, Path: path})
		} else if !errors.Is(err, os.ErrNotExist) {
			out = append(out, reports.Artifact{Name: fmt.Sprintf("%s (%v)", name, err), Path: path})
		}
	}
	return out
}

func (m *Machine) writeEvidence() error {
	b, err := json.MarshalIndent(m.Report(), "", " ")
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(m.plan.Dir, fileBoot), b)
}

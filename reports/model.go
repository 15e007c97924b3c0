package reports

import (
	"fmt"
	"time"

	"github.com/seatrial/seatrial/boot"
)

// Outcome is how a case, or a whole run, ended.
type Outcome string

// The outcomes. A run has passed only if at least one case ran, every case
// that was planned is reported, and all of them passed.
const (
	Passed  Outcome = "passed"
	Failed  Outcome = "failed"
	Skipped Outcome = "skipped" // not run; a run with a skipped case has not passed
)

// Class says whose fault a failure is.
type Class string

// The classes of blame.
const (
	Guest   Class = "guest"   // the machine under test did wrong
	Infra   Class = "infra"   // the host, QEMU or seatrial itself
	Stalled Class = "stalled" // nothing happened any more and neither side can be shown at fault
	Misuse  Class = "misuse"  // the spec or the image asks for something that cannot be
)

// Run is everything that is known of one run. Every report is a function of it.
type Run struct {
	ID      string          `json:"id"`
	Title   string          `json:"title"`
	Began   time.Time       `json:"began"`
	Took    time.Duration   `json:"took"`    // nanoseconds
	Outcome Outcome         `json:"outcome"` // set by Judge
	Failure string          `json:"failure,omitempty"`
	Planned int             `json:"planned"` // cases that were to run
	Host    Host            `json:"host"`
	Inputs  []Input         `json:"inputs,omitempty"` // what the images were made of
	Cases   []Case          `json:"cases"`
	Boots   map[string]Boot `json:"boots"` // by Boot.ID; cases may share a machine
}

// Host is where the run took place.
type Host struct {
	OS          string `json:"os"`
	Arch        string `json:"arch"`
	CPUs        int    `json:"cpus"`
	MemoryMiB   int    `json:"memoryMiB"`
	QEMU        string `json:"qemu"`        // version
	Accelerator string `json:"accelerator"` // "tcg", "kvm"
	AccelWhy    string `json:"accelWhy"`    // why that one
	Guest       string `json:"guest"`       // architecture of the machines; empty: not known
	Scale       string `json:"scale"`       // factor on all deadlines, and where it comes from
}

// Input is one thing an image was made of, as the lock file records it.
type Input struct {
	Component string `json:"component"`
	Kind      string `json:"kind"` // "deb", "go", "file", "recipe", "toolchain"
	Name      string `json:"name"`
	Version   string `json:"version"`
	Digest    string `json:"digest"`
	Drift     string `json:"drift,omitempty"` // how it differs from the lock file; empty: it does not
}

// Case is one spec.
type Case struct {
	Path     []string      `json:"path"` // containers outside in, then the spec's own text
	Labels   []string      `json:"labels,omitempty"`
	Where    string        `json:"where,omitempty"` // file:line
	Outcome  Outcome       `json:"outcome"`
	Class    Class         `json:"class,omitempty"`   // of a failure
	Title    string        `json:"title,omitempty"`   // of a failure: one line that names the cause
	Awaited  string        `json:"awaited,omitempty"` // of a failure: what was being waited for, in words
	Failure  string        `json:"failure,omitempty"` // all that was said of it
	Began    time.Time     `json:"began"`
	Took     time.Duration `json:"took"`
	BootIDs  []string      `json:"boots,omitempty"` // machines it used
	Evidence []Artifact    `json:"evidence,omitempty"`
}

// Boot is one machine from power-on to its end.
type Boot struct {
	ID       string         `json:"id"`
	Image    string         `json:"image"`
	Digest   string         `json:"digest"`
	Arch     string         `json:"arch"`
	Cmdline  string         `json:"cmdline"`
	Command  string         `json:"command"` // the QEMU command line, to paste into a shell
	Began    time.Time      `json:"began"`
	Took     time.Duration  `json:"took"`
	Reached  boot.Milestone `json:"reached"`
	Wanted   boot.Milestone `json:"wanted,omitempty"` // awaited when it failed
	Class    Class          `json:"class,omitempty"`
	Verdict  string         `json:"verdict,omitempty"` // one line; empty: nothing was wrong
	End      string         `json:"end,omitempty"`     // how the machine ended, in words
	Marks    []Mark         `json:"marks,omitempty"`
	Faults   []Fault        `json:"faults,omitempty"`
	Console  []Line         `json:"console,omitempty"`
	Evidence []Artifact     `json:"evidence,omitempty"`
	Fork     *Fork          `json:"fork,omitempty"` // nil: a spec about booting, which asked for no fork
}

// Fork is how a machine came up that was to be a copy of a booted one.
type Fork struct {
	How      string        `json:"how"`                // "ram": shares the template's memory; "stream": loaded a copy of it; "cold": had to boot
	Why      string        `json:"why,omitempty"`      // it was not "ram"
	Template string        `json:"template,omitempty"` // its key
	At       time.Duration `json:"at"`                 // on the clock of Mark.Host: all before is inherited
	Took     time.Duration `json:"took"`               // from QEMU's start to the first answer from inside
	MACs     []string      `json:"macs,omitempty"`     // of its network cards
}

// String says in a line how the machine came up.
func (f Fork) String() string {
	switch f.How {
	case "ram":
		return fmt.Sprintf("a fork of a machine that was up after %s; it answered after %s", short(f.At), short(f.Took))
	case "stream":
		return fmt.Sprintf("a fork, loaded with all its memory (%s), of a machine that was up after %s; it answered after %s", f.Why, short(f.At), short(f.Took))
	}
	return fmt.Sprintf("booted in the place of a fork: %s; up after %s", f.Why, short(f.Took))
}

// Mark is an event with the host's time.
type Mark struct {
	At      boot.Milestone `json:"at"`
	Unit    string         `json:"unit,omitempty"`
	State   boot.State     `json:"state"`
	Detail  string         `json:"detail,omitempty"`
	Guest   time.Duration  `json:"guest"` // machine's clock since its kernel started
	Host    time.Duration  `json:"host"`  // since QEMU was resumed; of a fork: since its template's was, less the time it lay on disk
	Implied bool           `json:"implied,omitempty"`

	Inherited bool `json:"inherited,omitempty"` // passed by the template
}

// Fault is something the rules recognised as wrong.
type Fault struct {
	Rule   string        `json:"rule"`
	Class  Class         `json:"class"`
	Title  string        `json:"title"`
	Line   int           `json:"line"`  // 1-based console line it begins on; 0: not from the console
	Lines  []string      `json:"lines"` // the lines that show it
	Host   time.Duration `json:"host"`
	Fatal  bool          `json:"fatal"` // false: a warning
	Expect bool          `json:"expected,omitempty"`

	Inherited bool `json:"inherited,omitempty"` // of the template
}

// Line is one console line: text without CR and escape sequences, Raw as it
// came when that differs.
type Line struct {
	N    int           `json:"n"` // 1-based
	Host time.Duration `json:"host"`
	Text string        `json:"text"`
	Raw  string        `json:"raw,omitempty"`

	Inherited bool `json:"inherited,omitempty"` // printed by the template
}

// Artifact is a file kept as evidence, its path relative to the run's folder.
type Artifact struct {
	Name string `json:"name"`
	Path string `json:"path"`
}

// Judge sets Outcome and, when the run has not passed, Failure: a run that
// lost a case, ran none or skipped one has failed as surely as one with a
// failed case.
func (r *Run) Judge() {
	failed, skipped := 0, 0
	first := ""
	for _, c := range r.Cases {
		switch c.Outcome {
		case Passed:
		case Skipped:
			skipped++
		default:
			failed++
			if first == "" {
				first = headline(c)
			}
		}
	}
	r.Outcome = Failed
	switch {
	case failed > 0:
		r.Failure = first
	case r.Failure != "": // the run itself broke; keep what was said of it
	case len(r.Cases) == 0:
		r.Failure = "no case ran: nothing was proved"
	case len(r.Cases) < r.Planned:
		r.Failure = "a planned case was never reported: the run was cut short"
	case skipped > 0:
		r.Failure = "a case was skipped: not everything was proved"
	default:
		r.Outcome = Passed
	}
}

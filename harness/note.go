package harness

import "time"

// FileProgress is the file in a run's folder to which every process of a suite
// appends what happens, one [Note] as a line of JSON each, for whoever shows it.
const FileProgress = "progress.jsonl"

// Note is one thing that happened in a run.
type Note struct {
	Time    time.Time     `json:"time"`
	Planned int           `json:"planned,omitempty"` // the run begins, with so many specs
	Step    string        `json:"step,omitempty"`    // what is being prepared before the first spec
	Case    string        `json:"case,omitempty"`    // a spec's text
	State   string        `json:"state,omitempty"`   // of the spec: [CaseBegan], or its reports.Outcome
	Took    time.Duration `json:"took,omitempty"`    // of the spec that has ended, in nanoseconds
	Machine *Progress     `json:"machine,omitempty"` // a machine's milestone or unit
	Closed  string        `json:"closed,omitempty"`  // name of a machine that is gone
}

// CaseBegan is the State of a spec that runs.
const CaseBegan = "began"

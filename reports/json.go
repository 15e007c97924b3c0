package reports

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Schema is the version of the JSON form. It changes when a reader of the old
// form would misunderstand the new one.
const Schema = 1

// document is the JSON form: a Run below its schema version.
type document struct {
	Schema int `json:"schema"`
	Run
}

// WriteJSON writes the run as JSON. Equal runs give equal bytes. Bytes of the
// console that are not UTF-8 become U+FFFD; the serial log kept as evidence has them.
func WriteJSON(w io.Writer, run Run) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	if err := e.Encode(document{Schema, run}); err != nil {
		return fmt.Errorf("reports: run as JSON: %w", err)
	}
	return nil
}

// ReadJSON reads what [WriteJSON] wrote. It is strict: an unknown field, an
// unknown outcome, another schema or text after the end is an error, because a
// report that is half understood must not be taken for a proof.
func ReadJSON(r io.Reader) (Run, error) {
	b, err := io.ReadAll(r)
	if err != nil {
		return Run{}, fmt.Errorf("reports: reading run: %w", err)
	}
	var version struct {
		Schema *int `json:"schema"`
	}
	if err := json.Unmarshal(b, &version); err != nil {
		return Run{}, fmt.Errorf("reports: not a run in JSON: %w", err)
	}
	switch {
	case version.Schema == nil:
		return Run{}, errors.New(`reports: not a run: it has no field "schema"`)
	case *version.Schema != Schema:
		return Run{}, fmt.Errorf("reports: run has schema %d, this program reads %d: read it with the version that wrote it", *version.Schema, Schema)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	var doc document
	if err := d.Decode(&doc); err != nil {
		return Run{}, fmt.Errorf("reports: run at byte %d: %w", d.InputOffset(), err)
	}
	return doc.Run, doc.check()
}

// check finds what JSON's own rules cannot.
func (r *Run) check() error {
	var problems []error
	if err := r.Outcome.check(); err != nil {
		problems = append(problems, fmt.Errorf("reports: run %s: %w", r.ID, err))
	}
	for i, c := range r.Cases {
		if len(c.Path) == 0 {
			problems = append(problems, fmt.Errorf("reports: case %d has no name", i+1))
		}
		if err := c.Outcome.check(); err != nil {
			problems = append(problems, fmt.Errorf("reports: case %d (%s): %w", i+1, caseName(c), err))
		}
	}
	for id, b := range r.Boots {
		if b.ID != id {
			problems = append(problems, fmt.Errorf("reports: boot %q is filed under %q", b.ID, id))
		}
	}
	return errors.Join(problems...)
}

func (o Outcome) check() error {
	switch o {
	case Passed, Failed, Skipped:
		return nil
	}
	return fmt.Errorf("unknown outcome %q", string(o))
}

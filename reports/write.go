package reports

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Names of the files that [WriteAll] writes.
const (
	FileJSON    = "run.json"
	FileJUnit   = "junit.xml"
	FileHTML    = "report.html"
	FileSummary = "summary.txt"
)

// format is one form of a run and the file it goes to.
type format struct {
	name  string
	write func(io.Writer, Run) error
}

// formats lists run.json last: where it is, the others are.
func formats() []format {
	return []format{
		{FileSummary, func(w io.Writer, r Run) error { return WriteText(w, r, TextOptions{}) }},
		{FileJUnit, WriteJUnit},
		{FileHTML, WriteHTML},
		{FileJSON, WriteJSON},
	}
}

// WriteAll judges the run and writes it into dir, which it makes if need be, in
// every form. Each file appears whole or not at all; an error while any of them
// is made leaves dir as it was.
func WriteAll(dir string, run Run) (err error) {
	run.Judge()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("reports: %w", err)
	}
	temps := map[string]string{} // final name -> temporary path
	defer func() {
		for _, temp := range temps {
			if gone := os.Remove(temp); gone != nil && !errors.Is(gone, os.ErrNotExist) {
				err = errors.Join(err, gone)
			}
		}
	}()
	for _, f := range formats() {
		var b bytes.Buffer
		if err := f.write(&b, run); err != nil {
			return err
		}
		temp, err := writeTemp(dir, f.name, b.Bytes())
		if temp != "" {
			temps[f.name] = temp
		}
		if err != nil {
			return fmt.Errorf("reports: writing %s: %w", filepath.Join(dir, f.name), err)
		}
	}
	for _, f := range formats() {
		if err := os.Rename(temps[f.name], filepath.Join(dir, f.name)); err != nil {
			return fmt.Errorf("reports: %w", err)
		}
		delete(temps, f.name)
	}
	return nil
}

// writeTemp writes a file that nobody looks for yet. The path is empty only if
// nothing was made.
func writeTemp(dir, name string, b []byte) (path string, err error) {
	f, err := os.CreateTemp(dir, "."+name+".*.tmp")
	if err != nil {
		return "", err
	}
	_, err = f.Write(b)
	// Without Sync a power cut after the rename may leave an empty file.
	err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close())
	return f.Name(), err
}

// ReadRun reads the run that [WriteAll] wrote into dir.
func ReadRun(dir string) (Run, error) {
	path := filepath.Join(dir, FileJSON)
	f, err := os.Open(path)
	if err != nil {
		return Run{}, fmt.Errorf("reports: no run in %s: %w", dir, err)
	}
	defer f.Close()
	run, err := ReadJSON(f)
	if err != nil {
		return Run{}, fmt.Errorf("%s: %w", path, err)
	}
	return run, nil
}

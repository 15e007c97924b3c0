package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/seatrial/seatrial/images"
)

// finding is a problem of a YAML file, as lint --json says it.
type finding struct {
	File   string `json:"file"`
	Line   int    `json:"line"`   // from 1; 0: the problem has no place
	Column int    `json:"column"` // from 1
	Field  string `json:"field,omitempty"`
	Text   string `json:"text"`
	Hint   string `json:"hint,omitempty"` // what to do about it
}

func lintCommand(o *options) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "lint [image.yml...]",
		Short: "Check YAML files without building: every problem, with its place and a remedy",
		Long: `Reads the files as build would and prints every problem on a line of its own:
FILE:LINE:COLUMN: what is wrong; what to do. Nothing is built or fetched, so it
says nothing of whether the images named exist. Exit status 2 if there is any
problem.`,
		Example: `  seatrial lint my.yml
  seatrial lint *.yml --json`,
		Args: cobra.MinimumNArgs(1),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return []string{"yml", "yaml"}, cobra.ShellCompDirectiveFilterFileExt
		},
		RunE: func(_ *cobra.Command, args []string) error {
			all := []finding{} // not null in JSON
			for _, file := range args {
				found, err := lint(file, o.arch)
				if err != nil {
					return err
				}
				all = append(all, found...)
			}
			if err := sayFindings(all, asJSON); err != nil {
				return err
			}
			if len(all) > 0 {
				return exitError{exitMisuse}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "write the problems as JSON")
	return cmd
}

// lint returns what is wrong with a file, or, if it can be built, what in it is
// seldom meant; the error is for one that cannot be read.
func lint(file, arch string) ([]finding, error) {
	spec, err := loadSpec(arch, []string{file})
	var wrong *images.SpecError
	var problems []images.Problem
	switch {
	case errors.As(err, &wrong):
		problems = wrong.Problems
	case err != nil:
		return nil, err
	default:
		problems = spec.Lint(arch)
	}
	var found []finding
	for _, p := range problems {
		found = append(found, finding(p))
	}
	return found, nil
}

func sayFindings(all []finding, asJSON bool) error {
	if asJSON {
		return writeJSON(all)
	}
	for _, f := range all {
		if _, err := fmt.Println(images.Problem(f)); err != nil {
			return err
		}
	}
	return nil
}

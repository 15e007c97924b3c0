package main

import (
	"context"
	"errors"
	"fmt"
	"os"

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
	var asJSON, merged bool
	cmd := &cobra.Command{
		Use:   "lint [image.yml...]",
		Short: "Check YAML files without building: every problem, with its place and a remedy",
		Long: `Reads the files as build would and prints every problem on a line of its own:
FILE:LINE:COLUMN: what is wrong; what to do. It also looks into the images that
are in the local store: for all that build would refuse, for modules that a
machine needs, for the programs that start containers, for the places of mounts.
Nothing is kept or fetched; images that are not in the store are named on
standard error. Exit status 2 if there
is any problem. Each file is read alone; with --merged they are one image, as
build reads several files.`,
		Example: `  seatrial lint my.yml
  seatrial lint *.yml --json
  seatrial lint --merged base.yml extra.yml`,
		Args: cobra.MinimumNArgs(1),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return []string{"yml", "yaml"}, cobra.ShellCompDirectiveFilterFileExt
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			all := []finding{} // not null in JSON
			for _, files := range lintSets(args, merged) {
				found, unseen, err := o.lint(cmd.Context(), files)
				if err != nil {
					return err
				}
				for _, p := range unseen {
					fmt.Fprintln(os.Stderr, "note:", p)
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
	o.mirrorFlag(cmd.Flags())
	cmd.Flags().BoolVar(&merged, "merged", false, "check the files as one image, merged from left to right as build does")
	cmd.Flags().BoolVar(&asJSON, "json", false, "write the problems as JSON")
	return cmd
}

// lintSets are the files that are read together: all, or each alone.
func lintSets(args []string, merged bool) (sets [][]string) {
	if merged {
		return [][]string{args}
	}
	for _, file := range args {
		sets = append(sets, []string{file})
	}
	return sets
}

// lint returns what is wrong with files that are merged, or, if it can be built, what in it is
// seldom meant, and which images could not be looked into; the error is for a
// file or image that cannot be read.
func (o *options) lint(ctx context.Context, files []string) (found []finding, unseen []images.Problem, err error) {
	spec, err := loadSpec(ctx, o.arch, files)
	var wrong *images.SpecError
	var problems []images.Problem
	switch {
	case errors.As(err, &wrong):
		problems = wrong.Problems
	case err != nil:
		return nil, nil, err
	default:
		_, store, err := o.openStore()
		if err != nil {
			return nil, nil, err
		}
		b := &images.Builder{Source: images.Local(store), Arch: o.arch}
		if problems, unseen, err = b.Lint(ctx, spec); err != nil {
			return nil, nil, err
		}
	}
	for _, p := range problems {
		found = append(found, finding(p))
	}
	return found, unseen, nil
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

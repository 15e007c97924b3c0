package main

import (
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/seatrial/seatrial/reports"
)

func reportCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "report [run folder]",
		Short: "Make every form of a run's report again from its run.json",
		Long: `Reads RUN/run.json and writes junit.xml, report.html and summary.txt anew, then
prints the summary. The machines need not exist any more. Without a folder:
out/latest. The exit status is that of the run.`,
		Example: `  seatrial report
  seatrial report out/runs/20250102T030405-6789
  seatrial report --json | jq .outcome`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: folders,
		RunE: func(_ *cobra.Command, args []string) error {
			dir := "out/latest"
			if len(args) > 0 {
				dir = args[0]
			}
			run, err := reports.ReadRun(dir)
			if err != nil {
				return misusef("%w; give the folder of a run, one that holds %s", err, reports.FileJSON)
			}
			if err := reports.WriteAll(dir, run); err != nil {
				return err
			}
			return concludeRun(run, asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the run as JSON instead of the summary")
	return cmd
}

// concludeRun prints what a run proved and gives the status to end with.
func concludeRun(run reports.Run, asJSON bool) error {
	write := func() error { return reports.WriteText(os.Stdout, run, textOptions(os.Stdout)) }
	if asJSON {
		write = func() error { return reports.WriteJSON(os.Stdout, run) }
	}
	if err := write(); err != nil {
		return err
	}
	return runStatus(run)
}

// textOptions suit a summary to what it is written on.
func textOptions(f *os.File) reports.TextOptions {
	o := reports.TextOptions{Colour: colourful(f)}
	if w, _, err := term.GetSize(int(f.Fd())); err == nil {
		o.Width = w
	}
	return o
}

// runStatus is nil for a run that proved everything; else the first failed
// case decides, and a run without one has shown nothing.
func runStatus(run reports.Run) error {
	if run.Outcome == reports.Passed {
		return nil
	}
	for _, c := range run.Cases {
		if c.Outcome == reports.Failed {
			return exitError{classStatus(c.Class)}
		}
	}
	return exitError{exitInfra}
}

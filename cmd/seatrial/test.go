package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/seatrial/seatrial/boot"
	"github.com/seatrial/seatrial/harness"
	"github.com/seatrial/seatrial/harness/console"
	"github.com/seatrial/seatrial/images"
	"github.com/seatrial/seatrial/reports"
)

func testCommand(o *options) *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:   "test [image.yml]",
		Short: "Build an image, boot it and prove that it comes up and goes down well",
		Long: `Builds the image (without a file: the one that ships), boots it, and proves
three things: it reaches ready, nothing wrong was seen, it powers off cleanly.
The report and the evidence go to OUT/latest.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			im, err := o.image(ctx, args)
			if err != nil {
				return err
			}
			cache, err := o.cacheDir()
			if err != nil {
				return err
			}
			h, err := harness.Survey(ctx, o.arch, cache)
			if err != nil {
				fmt.Fprintf(os.Stderr, "seatrial: %v\n", err)
				return exitError{exitInfra}
			}
			return proveImage(ctx, h, im, filepath.Join(out, "latest"))
		},
	}
	cmd.Flags().StringVar(&out, "out", "out", "folder for reports and evidence")
	return cmd
}

// proveImage boots the image once and reports what it proved.
func proveImage(ctx context.Context, h harness.Host, im *images.Image, dir string) error {
	run := reports.Run{ID: im.Name, Title: "image " + im.Name, Began: time.Now(), Planned: 3, Host: h.Report(), Boots: map[string]reports.Boot{}}
	plan := harness.Plan{
		Name: im.Name, Image: im, Dir: filepath.Join(dir, "machines", im.Name),
		Notify: func(p harness.Progress) {
			fmt.Fprintf(os.Stderr, "%s: %s %s %s %s\n", p.Machine, p.At, p.Unit, p.State, p.Detail)
		},
	}
	m, err := harness.Boot(ctx, h, plan)
	if err != nil {
		return err
	}
	prove := func(text string, f func() error) {
		began := time.Now()
		err := f()
		run.Cases = append(run.Cases, toCase(im.Name, text, began, err))
	}
	prove("comes up", func() error { return m.Await(ctx, boot.Ready) })
	prove("shows no fault", func() error {
		if faults := m.Console().Faults(console.Warning); len(faults) > 0 {
			return errors.New(faults[0].Title)
		}
		return nil
	})
	prove("powers off cleanly", func() error { return m.PowerOff(ctx) })
	closeErr := m.Close()
	run.Boots[im.Name] = relative(m.Report(), dir)
	run.Took = time.Since(run.Began)
	run.Judge()
	if err := errors.Join(closeErr, reports.WriteAll(dir, run)); err != nil {
		fmt.Fprintf(os.Stderr, "seatrial: %v\n", err)
		return exitError{exitInfra}
	}
	if err := reports.WriteText(os.Stdout, run, reports.TextOptions{}); err != nil {
		return err
	}
	return exitOf(run)
}

func toCase(image, text string, began time.Time, err error) reports.Case {
	c := reports.Case{Path: []string{image, text}, Began: began, Took: time.Since(began), Outcome: reports.Passed, BootIDs: []string{image}}
	if err != nil {
		c.Outcome, c.Class, c.Title, c.Failure = reports.Failed, reports.Guest, err.Error(), err.Error()
		var f *harness.Failure
		if errors.As(err, &f) {
			c.Class, c.Title = f.Class, f.Title
		}
	}
	return c
}

// relative makes the evidence's paths relative to the report's folder.
func relative(b reports.Boot, dir string) reports.Boot {
	for i, a := range b.Evidence {
		if rel, err := filepath.Rel(dir, a.Path); err == nil {
			b.Evidence[i].Path = rel
		}
	}
	return b
}

func exitOf(run reports.Run) error {
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

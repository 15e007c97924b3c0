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
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "test [image.yml]",
		Short: "Build an image, boot it and prove that it comes up and goes down well",
		Long: `Builds the image (without a file: the one that ships), boots it, and proves
three things: it reaches ready, nothing wrong was seen, it powers off cleanly.
Report and evidence go to OUT/runs/TIME-PID, and OUT/latest leads there.`,
		Example: `  seatrial test
  seatrial test my.yml --out /tmp/trial
  seatrial test my.yml --json | jq '.cases[] | select(.outcome != "passed") | .title'`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: yamlFiles,
		RunE: func(cmd *cobra.Command, args []string) error {
			d := newDisplay(os.Stderr)
			run, err := o.test(cmd.Context(), args, out, d)
			d.close()
			if err != nil {
				return err
			}
			return concludeRun(run, asJSON)
		},
	}
	outFlags(cmd, &out)
	o.mirrorFlag(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the run as JSON instead of the summary")
	return cmd
}

// outFlags are those of the verbs that leave a run behind.
func outFlags(cmd *cobra.Command, out *string) {
	cmd.Flags().StringVar(out, "out", "out", fmt.Sprintf("folder for reports and evidence; the last %d runs are kept", keptRuns))
	if err := cmd.MarkFlagDirname("out"); err != nil {
		panic(err) // no such flag: a slip in this package
	}
}

func (o *options) test(ctx context.Context, args []string, out string, d *display) (reports.Run, error) {
	im, err := o.image(ctx, args, d)
	if err != nil {
		return reports.Run{}, err
	}
	h, err := o.host(ctx)
	if err != nil {
		return reports.Run{}, err
	}
	folder, err := newRun(out)
	if err != nil {
		return reports.Run{}, err
	}
	run, err := o.proveImage(ctx, h, im, folder.Dir, d)
	if err == nil {
		err = reports.WriteAll(folder.Dir, run)
	}
	if err != nil {
		return run, errors.Join(remedy(err, "--out"), folder.discard())
	}
	return run, folder.publish()
}

// proveImage boots the image once and says what that proved.
func (o *options) proveImage(ctx context.Context, h harness.Host, im *images.Image, dir string, d *display) (run reports.Run, err error) {
	plan := harness.Plan{
		Name: im.Name, Image: im, Dir: filepath.Join(dir, "machines", im.Name),
		Notify: func(p harness.Progress) { d.set("machine "+p.Machine, describe(p)) },
	}
	room, err := o.admit(ctx, plan, func(text string) { d.set("machine "+im.Name, text) })
	if err != nil {
		return run, err
	}
	defer func() { err = errors.Join(err, room.Release()) }()
	run = reports.Run{ID: filepath.Base(dir), Title: "image " + im.Name, Began: time.Now(), Planned: 3, Host: h.Report(), Boots: map[string]reports.Boot{}}
	m, err := harness.Boot(ctx, h, plan)
	if err != nil {
		return run, err
	}
	prove := func(text string, f func() error) {
		began := time.Now()
		c := toCase(im.Name, text, began, f())
		run.Cases = append(run.Cases, c)
		sayCase(d, text, c.Outcome, c.Took)
	}
	prove("comes up", func() error { return m.Await(ctx, boot.Ready) })
	prove("shows no fault", func() error {
		if faults := m.Console().Faults(console.Warning); len(faults) > 0 {
			return errors.New(faults[0].Title)
		}
		return nil
	})
	prove("powers off cleanly", func() error { return m.PowerOff(ctx) })
	err = m.Close()
	run.Boots[im.Name] = relative(m.Report(), dir)
	run.Took = time.Since(run.Began)
	run.Judge()
	return run, err
}

// describe puts a machine's event into a few words.
func describe(p harness.Progress) string {
	s := string(p.At)
	if p.Unit != "" {
		s += " " + p.Unit
	}
	if p.State != boot.Done {
		s += " " + string(p.State)
	}
	if p.Detail != "" {
		s += ": " + p.Detail
	}
	return s
}

// sayCase leaves a line about a spec that is over.
func sayCase(d *display, text string, o reports.Outcome, took time.Duration) {
	colour := map[reports.Outcome]string{reports.Passed: "32", reports.Failed: "31"}[o]
	if colour == "" {
		colour = "33"
	}
	d.sayPainted(colour, "%-7s %6.1fs  %s", o, took.Seconds(), text)
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

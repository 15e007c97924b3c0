package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/seatrial/seatrial/harness"
	"github.com/seatrial/seatrial/images"
	"github.com/seatrial/seatrial/qemu"
	"github.com/seatrial/seatrial/reports"
)

// runFlags are what the user says about the machine.
type runFlags struct {
	cpus    int
	memory  string
	disks   []string
	cds     []string
	cmdline string
	words   string
	agent   string
	escape  string
	format  string
	net     string
	publish []int
	tpm     string
	vars    string
}

func runCommand(o *options) *cobra.Command {
	f := &runFlags{}
	cmd := &cobra.Command{
		Use:   "run [image.yml]",
		Short: "Build an image and boot it with its console on this terminal",
		Long: `Builds the image (without a file: the one that ships) and boots it. The serial
line is this terminal: what you type goes to the machine, Ctrl-C included, and
what the machine prints comes here. It ends when the machine powers itself off,
or with the escape key. However it ends, the terminal is left as it was found.

Where standard input is no terminal its bytes go to the serial line as they
are; that it ends does not end the machine, and there is no escape key.

Exit status 0 if the machine powered itself off or was ended with the escape
key, 1 if it panicked, reset or showed a fatal fault: the verdict then comes
last, on standard error, and says where the evidence is.

A disk is FILE[,format=raw|qcow2][,ro][,snapshot][,serial=NAME]. The format is
raw unless the file's name ends in .qcow2; it is never guessed from the content,
which the guest could forge. With snapshot, what the machine writes is forgotten.

A network card is closed, so that the machine reaches nobody, unless --net open
lets it out to this host's network; 10.0.2.2 is this host then. A TCP port that
is published is reached from this host, at an address that is said on standard
error. The image must give the card its address (seatrial/dhcp does).`,
		Example: `  seatrial run
  seatrial run my.yml --cpus 2 --mem 2G --disk state.img --disk data.qcow2,ro
  seatrial run --append 'quiet loglevel=3'
  seatrial run --cmdline 'console=ttyS0'    # instead of the image's own
  seatrial run my.yml --format iso-efi --uefi-vars vars.fd --tpm tpm
  seatrial run my.yml --net open --publish 80
  printf 'poweroff\n' | seatrial run > boot.log`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: yamlFiles,
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := f.medium(o.arch); err != nil {
				return err
			}
			if _, _, err := f.plan(); err != nil {
				return err
			}
			if isTerminal(os.Stdin) && !o.attended {
				return supervise(cmd.Context())
			}
			return o.run(cmd.Context(), args, f)
		},
	}
	flags := cmd.Flags()
	o.mirrorFlag(flags)
	flags.IntVar(&f.cpus, "cpus", 1, "virtual CPUs")
	flags.StringVar(&f.memory, "mem", "1024", "memory: MiB, or with a unit: 512M, 2G")
	flags.StringArrayVar(&f.disks, "disk", nil, "attach a disk; may be given again")
	flags.StringArrayVar(&f.cds, "cd", nil, "put an ISO image into a CD drive; may be given again")
	flags.StringVar(&f.words, "append", "", "words to add to the image's kernel command line")
	flags.StringVar(&f.cmdline, "cmdline", "", "kernel command line instead of the image's")
	flags.StringVar(&f.agent, "agent", "on", "on or off: a second serial line, for seatrial's agent inside")
	flags.StringVar(&f.escape, "escape", "^]", "key that ends the machine: ^X for Ctrl-X, or none")
	flags.StringVarP(&f.format, "format", "f", string(images.KernelInitrd), "medium to boot from; seatrial build --help lists them")
	flags.StringVar(&f.net, "net", "", "a network card: none, closed or open (default none, or closed with --publish)")
	flags.IntSliceVar(&f.publish, "publish", nil, "TCP port of the machine to reach from this host; may be given again")
	flags.StringVar(&f.tpm, "tpm", "", "folder of the state of a TPM 2.0, made if missing (default no TPM)")
	flags.StringVar(&f.vars, "uefi-vars", "", "file of UEFI's variables, made if missing: boot by UEFI and keep them there")
	complete(cmd, "agent", "on", "off")
	complete(cmd, "net", "none", "closed", "open")
	complete(cmd, "format", bootableFormats()...)
	return cmd
}

// plan turns the flags into a plan without image or folder, and the escape key
// (0: none). The error lists all that is wrong.
func (f *runFlags) plan() (harness.Plan, byte, error) {
	p := harness.Plan{CPUs: f.cpus, Cmdline: f.cmdline, NoAgent: f.agent == "off", CDs: f.cds, TPM: f.tpm, Vars: f.vars}
	var errs []error
	var err error
	if p.NICs, err = f.cards(); err != nil {
		errs = append(errs, err)
	}
	if p.MemoryMiB, err = parseMemory(f.memory); err != nil {
		errs = append(errs, err)
	}
	if f.cpus < 1 || f.cpus > 255 {
		errs = append(errs, fmt.Errorf("--cpus %d: give 1 to 255", f.cpus))
	}
	if f.agent != "on" && f.agent != "off" {
		errs = append(errs, fmt.Errorf("--agent %q: give on or off", f.agent))
	}
	for _, text := range f.disks {
		disk, err := parseDisk(text)
		if err != nil {
			errs = append(errs, err)
		}
		p.Disks = append(p.Disks, disk)
	}
	for _, path := range f.cds {
		if err := readable(path); err != nil {
			errs = append(errs, fmt.Errorf("--cd %s: %w", path, err))
		}
	}
	escape, err := parseEscape(f.escape)
	if err != nil {
		errs = append(errs, err)
	}
	if len(errs) > 0 {
		return p, 0, misuse{errors.Join(errs...)}
	}
	return p, escape, nil
}

// cards are the network cards that the flags ask for.
func (f *runFlags) cards() ([]qemu.NIC, error) {
	for _, port := range f.publish {
		if port < 1 || port > 65535 {
			return nil, fmt.Errorf("--publish %d: give a TCP port, 1 to 65535", port)
		}
	}
	card := []qemu.NIC{{Open: f.net == "open", Forwards: f.publish}}
	switch {
	case f.net == "" && len(f.publish) == 0:
		return nil, nil
	case f.net == "none" && len(f.publish) > 0:
		return nil, errors.New("--net none: without a card no port can be published; leave one of them out")
	case f.net == "none":
		return nil, nil
	case f.net == "", f.net == "closed", f.net == "open":
		return card, nil
	}
	return nil, fmt.Errorf("--net %q: give none, closed or open", f.net)
}

// bootableFormats are the formats that a machine can boot from.
func bootableFormats() []string {
	var names []string
	for _, f := range images.Formats() {
		if f != images.Tar {
			names = append(names, string(f))
		}
	}
	return names
}

// medium checks the format before anything is built.
func (f *runFlags) medium(arch string) (images.Format, error) {
	list, err := formats([]string{f.format}, arch)
	if err != nil {
		return "", err
	}
	if list[0] == images.Tar {
		return "", misusef("no machine boots from a %s; choose one of %s", f.format, strings.Join(bootableFormats(), ", "))
	}
	return list[0], nil
}

// run builds, boots and attends the machine until its end.
func (o *options) run(ctx context.Context, args []string, f *runFlags) error {
	plan, escape, err := f.plan()
	if err != nil {
		return err
	}
	format, err := f.medium(o.arch)
	if err != nil {
		return err
	}
	d := newDisplay(os.Stderr)
	err = o.provide(ctx, args, f, format, &plan, d)
	d.close()
	if err != nil {
		return err
	}
	h, err := o.host(ctx)
	if err != nil {
		return err
	}
	return o.boot(ctx, h, plan, escape)
}

// provide builds what the plan boots.
func (o *options) provide(ctx context.Context, args []string, f *runFlags, format images.Format, plan *harness.Plan, d *display) error {
	im, err := o.image(ctx, args, d)
	if err != nil {
		return err
	}
	plan.Name, plan.Image = im.Name, im
	if f.words != "" {
		if plan.Cmdline == "" {
			plan.Cmdline = im.Cmdline
		}
		plan.Cmdline += " " + f.words
	}
	if format == images.KernelInitrd {
		return nil
	}
	// A boot loader has the command line from the medium.
	made, err := o.media(ctx, im, []images.Format{format}, plan.KernelCmdline(o.arch), d)
	if err != nil {
		return err
	}
	plan.Media = made[0]
	return nil
}

// boot lends the terminal to a machine. Its evidence is kept below the cache
// folder if it did badly; that of one that did well is of no use to anybody.
func (o *options) boot(ctx context.Context, h harness.Host, plan harness.Plan, escape byte) error {
	cache, err := o.cacheDir()
	if err != nil {
		return err
	}
	folder, err := newRun(filepath.Join(cache, "run"))
	if err != nil {
		return err
	}
	plan.Dir = folder.Dir
	room, err := o.admit(ctx, plan, func(text string) { fmt.Fprintf(os.Stderr, "seatrial: %s %s\n", plan.Name, text) })
	if err != nil {
		return errors.Join(err, folder.discard())
	}
	err = errors.Join(interact(ctx, h, plan, escape), room.Release())
	var f *harness.Failure
	if err != nil && (!errors.As(err, &f) || f.Class != reports.Misuse) {
		return errors.Join(remedy(err, "--cache"), folder.release())
	}
	return errors.Join(err, folder.discard())
}

// interact boots the machine and lends it the user's terminal. The terminal is
// given back before anything is said about how it went.
func interact(ctx context.Context, h harness.Host, plan harness.Plan, escape byte) error {
	c, err := openTerminal(os.Stdin, os.Stdout, escape)
	if err != nil {
		return err
	}
	c.greet(plan.Name)
	plan.Echo = os.Stdout
	m, err := harness.Boot(ctx, h, plan)
	if err != nil {
		return errors.Join(err, c.close())
	}
	if err := c.tellPorts(ctx, m, plan.NICs); err != nil {
		return errors.Join(err, m.Close(), c.close())
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	c.start(m.Type, func() { cancel(errEscape) })
	err = m.Attend(ctx)
	escaped := errors.Is(context.Cause(ctx), errEscape)
	closeErr := m.Close()
	if err := errors.Join(closeErr, c.close()); err != nil {
		return err
	}
	if escaped {
		fmt.Fprintln(os.Stderr, "seatrial: ended with the escape key")
		return nil
	}
	return err
}

// parseMemory reads an amount of memory in MiB.
func parseMemory(s string) (int, error) {
	number, factor := s, 1
	switch {
	case strings.HasSuffix(s, "G"):
		number, factor = strings.TrimSuffix(s, "G"), 1024
	case strings.HasSuffix(s, "M"):
		number = strings.TrimSuffix(s, "M")
	}
	n, err := strconv.Atoi(number)
	if err != nil || n < 1 || n > 1<<20 {
		return 0, fmt.Errorf("--mem %q: give MiB, or an amount such as 512M or 2G", s)
	}
	if n *= factor; n < 64 {
		return 0, fmt.Errorf("--mem %q: a Linux guest needs 64 MiB or more", s)
	}
	return n, nil
}

// parseDisk reads FILE[,option...]. A comma in a file's name is not supported:
// no option begins with what follows it, and the error says so.
func parseDisk(s string) (qemu.Disk, error) {
	path, rest, _ := strings.Cut(s, ",")
	d := qemu.Disk{Path: path, Format: "raw"}
	if strings.HasSuffix(path, ".qcow2") {
		d.Format = "qcow2"
	}
	bad := func(format string, args ...any) (qemu.Disk, error) {
		return d, fmt.Errorf("--disk %s: %s", s, fmt.Sprintf(format, args...))
	}
	for rest != "" {
		var option string
		option, rest, _ = strings.Cut(rest, ",")
		key, value, given := strings.Cut(option, "=")
		switch {
		case key == "format" && (value == "raw" || value == "qcow2"):
			d.Format = value
		case option == "ro":
			d.ReadOnly = true
		case option == "snapshot":
			d.Snapshot = true
		case key == "serial" && given && len(value) <= 20: // virtio-blk's limit
			d.Serial = value
		default:
			return bad("unknown option %q; known are format=raw, format=qcow2, ro, snapshot, serial=NAME of up to 20 characters", option)
		}
	}
	if path == "" {
		return bad("no file is named")
	}
	info, err := os.Stat(path)
	if err != nil {
		return bad("%v; make it first: truncate -s 1G FILE, or qemu-img create -f qcow2 FILE 1G", err)
	}
	if info.IsDir() {
		return bad("it is a folder, not a disk")
	}
	flag := os.O_RDWR
	if d.ReadOnly || d.Snapshot {
		flag = os.O_RDONLY
	}
	file, err := os.OpenFile(path, flag, 0)
	if err != nil {
		return bad("%v; add ,ro if the machine need not write to it", err)
	}
	return d, file.Close()
}

// readable says why something is no file that can be read; nil: it is one.
func readable(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err == nil && info.IsDir() {
		err = errors.New("is a folder")
	}
	return errors.Join(err, file.Close())
}

// parseEscape reads ^X or none.
func parseEscape(s string) (byte, error) {
	if s == "none" {
		return 0, nil
	}
	if len(s) == 2 && s[0] == '^' {
		if c := s[1] &^ 0x20; c >= 'A' && c <= '_' { // the upper-case column and what stands beside it
			return c - '@', nil
		}
	}
	return 0, fmt.Errorf("--escape %q: give ^ and a letter, such as ^A, or none", s)
}

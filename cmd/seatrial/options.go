package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/seatrial/seatrial"
	"github.com/seatrial/seatrial/harness"
	"github.com/seatrial/seatrial/images"
	"github.com/seatrial/seatrial/images/component"
)

// options are what every verb takes.
type options struct {
	cache    string
	arch     string
	accel    string // of machines, forced; empty: a trial guest finds out
	mirrors  []string
	via      []images.Mirror // what mirrors say
	locked   bool            // components must be as the lock file says
	attended bool            // a supervisor holds the terminal; see terminal.go
	begun    bool            // flags and arguments were good
}

// begin runs before every verb.
func (o *options) begin(*cobra.Command) error {
	if !slices.Contains(archs(), o.arch) {
		return fmt.Errorf("unknown architecture %q for --arch; known are: %s", o.arch, strings.Join(archs(), ", "))
	}
	if !slices.Contains(append(accels(), ""), o.accel) {
		return fmt.Errorf("unknown accelerator %q for --accel; known are: %s; without it a trial guest finds out", o.accel, strings.Join(accels(), ", "))
	}
	o.via = nil
	for _, text := range o.mirrors {
		m, err := images.ParseMirror(text)
		if err != nil {
			return fmt.Errorf("--mirror: %w", err)
		}
		o.via = append(o.via, m)
	}
	o.begun = true
	return nil
}

func archs() []string { return []string{"amd64", "arm64"} }

func accels() []string { return []string{"tcg", "kvm"} }

// mirrorFlag adds --mirror to a set of flags.
func (o *options) mirrorFlag(flags *pflag.FlagSet) {
	flags.StringArrayVar(&o.mirrors, "mirror", nil, "`REGISTRY=HOST[/PREFIX]` to ask before that registry; may be given more than once")
}

// hide keeps a flag out of the help.
func hide(flags *pflag.FlagSet, name string) {
	if err := flags.MarkHidden(name); err != nil {
		panic(err) // no such flag: a slip in this package
	}
}

// complete offers fixed words for a flag in the shell.
func complete(cmd *cobra.Command, flag string, words ...string) {
	if err := cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // no such flag: a slip in this package
	}
}

// yamlFiles completes an image's YAML in the shell.
func yamlFiles(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return []string{"yml", "yaml"}, cobra.ShellCompDirectiveFilterFileExt
}

// folders completes one folder in the shell.
func folders(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return nil, cobra.ShellCompDirectiveFilterDirs
}

// cacheDir is the cache folder, made if missing.
func (o *options) cacheDir() (string, error) {
	dir := o.cache
	if dir == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("no cache folder; give one with --cache: %w", err)
		}
		dir = filepath.Join(user, "seatrial")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("cache folder: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("cache folder: %w", remedy(err, "--cache"))
	}
	return dir, nil
}

// host finds out what this computer can do for machines of the architecture.
func (o *options) host(ctx context.Context) (harness.Host, error) {
	cache, err := o.cacheDir()
	if err != nil {
		return harness.Host{}, err
	}
	h, err := harness.Survey(ctx, o.arch, o.accel, cache)
	if f := (*harness.Failure)(nil); errors.As(err, &f) {
		return h, err // it says what to do
	}
	if err != nil {
		return h, fmt.Errorf("%w; seatrial doctor --arch %s says what is missing", remedy(err, "--cache"), o.arch)
	}
	return h, nil
}

// admitPatience is how long a machine waits for room before the user is told.
const admitPatience = time.Second

// admit waits until this host has room for the plan's machine beside all others
// that seatrial runs here, and says so if that takes a while.
func (o *options) admit(ctx context.Context, plan harness.Plan, say func(string)) (*harness.Admitted, error) {
	cache, err := o.cacheDir()
	if err != nil {
		return nil, err
	}
	a, err := harness.HostAdmission(filepath.Join(cache, "room"))
	if err != nil {
		return nil, err
	}
	waiting := time.AfterFunc(admitPatience, func() { say("waits for room: other machines have this host's memory or CPUs") })
	defer waiting.Stop()
	return a.Admit(ctx, plan, false)
}

// loadSpec reads the YAML files that were given, merged, or the YAML that ships, for arch.
func loadSpec(ctx context.Context, arch string, args []string) (*images.Spec, error) {
	if len(args) == 0 {
		return images.ParseSpec("default.yml", images.DefaultFor(arch))
	}
	spec, err := images.LoadSpec(ctx, args...)
	if err == nil {
		return spec, nil
	}
	var wrong *images.SpecError
	if errors.As(err, &wrong) {
		return nil, err
	}
	for _, arg := range args {
		if info, statErr := os.Stat(arg); statErr == nil && info.IsDir() {
			return nil, misusef("%s is a folder, not an image's YAML; give the file, such as %s", arg, filepath.Join(arg, "image.yml"))
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, misusef("%w; give the path of an image's YAML, or none for the image that ships", err)
	}
	return nil, misuse{err}
}

// openStore opens the local store of images, below the cache folder.
func (o *options) openStore() (cache string, store *images.Store, err error) {
	if cache, err = o.cacheDir(); err != nil {
		return "", nil, err
	}
	store, err = images.OpenStore(filepath.Join(cache, "store"))
	return cache, store, remedy(err, "--cache")
}

// image builds the image of a YAML file, or of the YAML that ships, to be booted
// from its initramfs.
func (o *options) image(ctx context.Context, args []string, d *display) (*images.Image, error) {
	spec, err := loadSpec(ctx, o.arch, args)
	if err != nil {
		return nil, err
	}
	im, err := o.imageOf(ctx, spec, d)
	if err == nil {
		err = o.unpack(ctx, im, d)
	}
	if err == nil {
		if lost := im.Lost(images.KernelInitrd); lost != "" {
			d.say("note: %s", lost)
		}
	}
	return im, err
}

// unpack unpacks the kernel of an image that is to be booted.
func (o *options) unpack(ctx context.Context, im *images.Image, d *display) error {
	b, err := o.builder(im.Name, d)
	if err != nil {
		return err
	}
	err = remedy(b.Unpack(ctx, im), "--cache")
	if im.Packed != "" {
		d.say("note: the kernel is started by the loader that is packed with it, which takes longer: %s", im.Packed)
	}
	return err
}

// imageOf builds the image of a spec, and the components of ours that it names
// and that are not up to date.
func (o *options) imageOf(ctx context.Context, spec *images.Spec, d *display) (*images.Image, error) {
	if _, err := o.components(ctx, ownComponents(spec), d); err != nil {
		return nil, err
	}
	return o.assemble(ctx, spec, d)
}

// assemble builds the image of a spec from component images as they are.
func (o *options) assemble(ctx context.Context, spec *images.Spec, d *display) (*images.Image, error) {
	b, err := o.builder(spec.Name, d)
	if err != nil {
		return nil, err
	}
	im, err := b.Build(ctx, spec)
	d.drop("image " + spec.Name)
	return im, remedy(err, "--cache")
}

// builder makes images and media in the cache; name is what the display calls
// the image.
func (o *options) builder(name string, d *display) (*images.Builder, error) {
	cache, store, err := o.openStore()
	if err != nil {
		return nil, err
	}
	return &images.Builder{
		Source: images.ResolveVia(store, o.via, func(line string) { d.say("note: %s", line) }), Arch: o.arch, Dir: filepath.Join(cache, "images"),
		Progress: func(step string) { d.set("image "+name, step) },
	}, nil
}

// ownComponents are the names of the component images that a spec uses and
// that are made here.
func ownComponents(s *images.Spec) []string {
	refs := append([]string{s.Kernel.Image}, s.Init...)
	for _, list := range [][]images.Container{s.Onboot, s.Onshutdown, s.Services} {
		for _, c := range list {
			refs = append(refs, c.Image)
		}
	}
	names := []string{}
	for _, name := range component.Names() {
		if slices.Contains(refs, images.Own+name) {
			names = append(names, name)
		}
	}
	return names
}

// components brings component images up to date.
func (o *options) components(ctx context.Context, names []string, d *display) ([]component.Built, error) {
	if len(names) == 0 {
		return nil, nil
	}
	cache, store, err := o.openStore()
	if err != nil {
		return nil, err
	}
	under := ""
	built, err := component.Build(ctx, component.Options{
		Arch: o.arch, Store: store, Cache: cache, Source: seatrial.Source, Names: names, Locked: o.locked,
		Progress: func(name, step string) {
			if under != name {
				d.drop("component " + under)
			}
			under = name
			if strings.HasPrefix(step, component.Differs) {
				d.say("component %s %s", name, step)
				return
			}
			d.set("component "+name, step)
		},
	})
	d.drop("component " + under)
	if err != nil {
		return nil, fmt.Errorf("%w; seatrial doctor says what this host lacks", remedy(err, "--cache"))
	}
	return built, nil
}

func writeJSON(v any) error {
	e := json.NewEncoder(os.Stdout)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

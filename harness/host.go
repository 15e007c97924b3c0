package harness

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/seatrial/seatrial/qemu"
	"github.com/seatrial/seatrial/reports"
)

// Host is what this computer can do for machines of one architecture, found
// out by running guests, not by looking at device nodes.
type Host struct {
	Arch    string     `json:"arch"`
	Binary  string     `json:"binary"`  // of QEMU
	Version string     `json:"version"` // of QEMU
	Accel   qemu.Accel `json:"accel"`
	Devices []string   `json:"devices,omitempty"` // that QEMU has, sorted; empty: not known
	Scale   float64    `json:"scale"`             // factor on every deadline, 1 or more
	Why     string     `json:"why"`               // where the scale comes from

	SmallPages bool `json:"smallPages,omitempty"` // QEMU runs without huge pages, see [qemu.SpareHugePages]
}

// probeReference is how long the probe guest takes under TCG on the slowest
// machine the default patience was set on: two shared cores, QEMU 7.2. A host
// that needs longer gets all deadlines longer in proportion.
const probeReference = 400 * time.Millisecond

// maxScale bounds the factor: beyond it a host is not slow but broken, and a
// deadline of hours would hide that.
const maxScale = 10

// Survey finds QEMU for arch and decides by a trial guest which accelerator to
// use and how patient to be. With accel, "tcg" or "kvm", that one is used: it is
// an error if the trial guest does not run under it, and a *Failure of class
// misuse if it never could. The answer is kept below cacheDir for as long as
// QEMU and /dev/kvm stay what they are, and the host is not booted again. It
// may turn huge pages off for this process and its children.
func Survey(ctx context.Context, arch, accel, cacheDir string) (Host, error) {
	if problem := qemu.ProblemOfAccel(accel, arch); problem != "" {
		return Host{}, &Failure{Class: reports.Misuse, Title: problem, Wanted: "an accelerator"}
	}
	binary, version, err := qemu.Find(arch)
	if err != nil {
		return Host{}, err
	}
	if err := os.MkdirAll(cacheDir, 0o755); err != nil {
		return Host{}, fmt.Errorf("cache folder: %w", err)
	}
	options := qemu.ProbeOptions{Binary: binary, Arch: arch, Accel: accel}
	name := "accelerator-" + arch
	if accel != "" { // beside what a trial finds, so that neither answer is lost by the other
		name += "-" + accel
	}
	found, devices, err := survey(ctx, options, cacheDir, filepath.Join(cacheDir, name+".json"))
	if err != nil {
		return Host{}, err
	}
	h := Host{Arch: arch, Binary: binary, Version: version, Accel: found, Devices: devices, Scale: 1}
	h.Scale = min(max(float64(found.Took)/float64(probeReference), 1), maxScale)
	h.SmallPages = found.Name == "tcg" && qemu.SpareHugePages()
	h.Why = fmt.Sprintf("probe guest took %v, the reference is %v", found.Took.Round(time.Millisecond), probeReference)
	return h, nil
}

// survey returns the kept answers of trial guest and QEMU, or asks them.
func survey(ctx context.Context, options qemu.ProbeOptions, cacheDir, kept string) (accel qemu.Accel, devices []string, err error) {
	accel, devices, ok := readAccel(kept, options.Key())
	if ok {
		return accel, devices, nil
	}
	fail := func(err error) (qemu.Accel, []string, error) { return qemu.Accel{}, nil, err }
	dir, err := os.MkdirTemp(cacheDir, "probe-")
	if err != nil {
		return fail(fmt.Errorf("cache folder: %w", err))
	}
	defer os.RemoveAll(dir)
	options.Dir = dir
	if accel, err = qemu.Probe(ctx, options); err != nil {
		return fail(fmt.Errorf("%s: no accelerator: %w", options.Binary, err))
	}
	if devices, err = qemu.Devices(ctx, options.Binary); err != nil {
		return fail(err)
	}
	return accel, devices, keepAccel(kept, keptAccel{options.Key(), accel, devices})
}

type keptAccel struct {
	Key     string     `json:"key"`
	Accel   qemu.Accel `json:"accel"`
	Devices []string   `json:"devices"`
}

// readAccel returns a kept probe result; any reason not to trust the file
// only means that the probe runs again.
func readAccel(path, key string) (accel qemu.Accel, devices []string, ok bool) {
	var k keptAccel
	b, err := os.ReadFile(path)
	if err != nil || json.Unmarshal(b, &k) != nil || k.Key != key || len(k.Devices) == 0 {
		return qemu.Accel{}, nil, false
	}
	return k.Accel, k.Devices, true
}

func keepAccel(path string, k keptAccel) error {
	b, err := json.MarshalIndent(k, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(path, b)
}

// provides is an error that names the devices of a command line that this host's
// QEMU does not have. What the survey did not find is asked for once more: a
// package may have brought it since.
func (h Host) provides(ctx context.Context, command *qemu.Command) error {
	if len(h.Devices) == 0 || len(command.Missing(h.Devices)) == 0 {
		return nil
	}
	now, err := qemu.Devices(ctx, h.Binary)
	if err != nil {
		return err
	}
	if missing := command.Missing(now); len(missing) > 0 {
		return fmt.Errorf("QEMU %s (%s) has no device %s; \"%s -device help\" lists those it has, and a distribution may have others in packages of their own",
			h.Version, h.Binary, strings.Join(missing, ", "), h.Binary)
	}
	return nil
}

// writeFile writes a file so that no reader ever sees half of it.
func writeFile(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return os.Chmod(path, 0o644)
}

// Report puts the host into a report's words.
func (h Host) Report() reports.Host {
	r := reports.Host{
		OS: runtime.GOOS, Arch: runtime.GOARCH, CPUs: runtime.NumCPU(), QEMU: h.Version,
		Guest: h.Arch, Accelerator: h.Accel.Name, AccelWhy: h.Accel.Why, Scale: fmt.Sprintf("%.1f (%s)", h.Scale, h.Why),
	}
	var info syscall.Sysinfo_t
	if syscall.Sysinfo(&info) == nil {
		r.MemoryMiB = int(info.Totalram * uint64(info.Unit) >> 20)
	}
	return r
}

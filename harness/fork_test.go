package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seatrial/seatrial/boot"
	"github.com/seatrial/seatrial/images"
	"github.com/seatrial/seatrial/qemu"
	"github.com/seatrial/seatrial/reports"
)

func forkPlan(t *testing.T, im *images.Image) Plan {
	t.Helper()
	return Plan{Name: "m", Image: im, MemoryMiB: 64, Dir: t.TempDir(), Patience: Patience{Quiet: 20 * time.Second}}
}

// forked makes a fork that lives until the test ends.
func forked(t *testing.T, s *Templates, h Host, p Plan) *Machine {
	t.Helper()
	m, err := s.Fork(t.Context(), h, p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func says(t *testing.T, m *Machine, argv ...string) string {
	t.Helper()
	r, err := m.Exec(t.Context(), argv...)
	if err != nil {
		t.Fatal(err)
	}
	return r.Stdout
}

// names are the files and folders in a templates folder that end so.
func names(t *testing.T, dir, pattern string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// One boot serves many forks. Each has the template's memory and none of the
// others' writes, and an identity of its own.
func TestFork(t *testing.T) {
	h, im := standIn(t, "linux")
	dir := t.TempDir()
	s := OpenTemplates(TemplateOptions{Dir: dir})
	before := time.Now()
	a, b := forked(t, s, h, forkPlan(t, im)), forked(t, s, h, forkPlan(t, im))
	if n := boots(t, h); n != 1 {
		t.Errorf("%d boots for two forks", n)
	}
	says(t, a, "@append", "/x", "written by a")
	if got := says(t, b, "@cat", "/x"); got != "" {
		t.Errorf("b sees what a wrote: %q", got)
	}
	if got := says(t, a, "@cat", "/x"); got != "written by a" {
		t.Errorf("a does not see what it wrote: %q", got)
	}
	seedA, seedB := says(t, a, "@cat", "entropy"), says(t, b, "@cat", "entropy")
	if len(seedA) != 2*entropySize || seedA == seedB {
		t.Errorf("entropy: %q and %q", seedA, seedB)
	}
	nanos, err := strconv.ParseInt(says(t, b, "@cat", "clock"), 10, 64)
	if at := time.Unix(0, nanos); err != nil || at.Before(before) || at.After(time.Now()) {
		t.Errorf("the clock was set to %v (%v)", at, err)
	}
	if _, err := os.Stat(filepath.Join(dir, names(t, dir, "*.lock")[0][len(dir)+1:len(dir)+65], "ram")); err != nil {
		t.Error(err)
	}
}

// A fork's log tells what it inherited from what it printed itself, and so
// does the report.
func TestForkLog(t *testing.T) {
	h, im := standIn(t, "linux")
	s := OpenTemplates(TemplateOptions{Dir: t.TempDir()})
	told := make(chan Progress, 100)
	p := forkPlan(t, im)
	forked(t, s, h, p)
	p = forkPlan(t, im)
	p.Notify = func(e Progress) { told <- e }
	m := forked(t, s, h, p)
	if err := m.Await(t.Context(), boot.Ready); err != nil {
		t.Error(err)
	}
	// The template had begun a line, which the fork ended.
	line, err := m.AwaitLine(t.Context(), regexpOf(`^login: and goes on$`))
	if err != nil || line.Inherited {
		t.Errorf("%+v, %v", line, err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	r := m.Report()
	if r.Fork == nil || r.Fork.How != "ram" || r.Fork.Why != "" || r.Fork.At <= 0 || r.Fork.Took <= 0 || len(r.Fork.Template) != 64 {
		t.Errorf("fork: %+v", r.Fork)
	}
	if r.Reached != boot.Ready || len(r.Marks) == 0 {
		t.Errorf("reached %q, %d marks", r.Reached, len(r.Marks))
	}
	for _, mark := range r.Marks {
		if !mark.Inherited || mark.Host > r.Fork.At {
			t.Errorf("the fork pretends to have passed %s itself, at %v", mark.At, mark.Host)
		}
	}
	if last := r.Console[len(r.Console)-1]; last.Inherited || last.Host < r.Fork.At {
		t.Errorf("the fork's own line: %+v", last)
	}
	if r.Took > time.Since(r.Began) {
		t.Errorf("took %v since %v", r.Took, r.Began)
	}
	if len(told) != 0 {
		t.Errorf("inherited events were told again: %+v", <-told)
	}
	raw, err := os.ReadFile(filepath.Join(m.Dir(), fileSerial))
	if err != nil || !strings.HasPrefix(string(raw), "[    0.0] Linux version 6.1\r\n") || !strings.HasSuffix(string(raw), "login: and goes on\r\n") {
		t.Errorf("serial log %q, %v", raw, err)
	}
}

// tenForks makes ten at once, each as a process of its own would.
func tenForks(t *testing.T, dir string, h Host, im *images.Image) {
	t.Helper()
	var all sync.WaitGroup
	for range 10 {
		p := forkPlan(t, im)
		all.Go(func() {
			m, err := OpenTemplates(TemplateOptions{Dir: dir}).Fork(t.Context(), h, p)
			if err != nil {
				t.Error(err)
				return
			}
			if err := m.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

// Ten that ask at once get one template.
func TestTemplateIsBuiltOnce(t *testing.T) {
	h, im := standIn(t, "linux")
	dir := t.TempDir()
	tenForks(t, dir, h, im)
	if n := boots(t, h); n != 1 {
		t.Errorf("%d boots", n)
	}
	if left := names(t, dir, "*.new"); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// What was damaged, by whatever, is noticed before it is used, by a process
// that has used it already as well as by a new one, and made again.
func TestDamagedTemplate(t *testing.T) {
	flip := func(path string) error {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		b[len(b)/2] ^= 1
		if err := os.WriteFile(path, b, 0o600); err != nil {
			return err
		}
		return os.Chtimes(path, info.ModTime(), info.ModTime()) // as if nothing had happened
	}
	cut := func(path string) error { return os.Truncate(path, 3) }
	for name, damage := range map[string]struct {
		file string
		do   func(string) error
	}{
		"memory flipped": {fileRAM, flip}, "memory cut": {fileRAM, cut}, "memory gone": {fileRAM, os.Remove},
		"state flipped": {fileState, flip}, "state cut": {fileState, cut}, "state gone": {fileState, os.Remove},
		"log flipped": {fileSerial, flip}, "times gone": {fileStamped, os.Remove},
		"record flipped": {fileTemplate, flip}, "record gone": {fileTemplate, os.Remove},
		"all gone": {"", os.RemoveAll},
	} {
		for _, c := range []struct{ fresh, held bool }{{false, false}, {true, false}, {false, true}, {true, true}} {
			t.Run(fmt.Sprintf("%s fresh %v held %v", name, c.fresh, c.held), func(t *testing.T) {
				t.Parallel()
				h, im := standIn(t, "linux")
				s := OpenTemplates(TemplateOptions{Dir: t.TempDir()})
				m := forked(t, s, h, forkPlan(t, im))
				says(t, m, "@cat", "/x") // its proof has come
				if err := damage.do(filepath.Join(s.o.Dir, m.fork.Template, damage.file)); err != nil {
					t.Fatal(err)
				}
				if c.fresh {
					s = OpenTemplates(s.o)
				}
				if !c.held {
					if err := m.Close(); err != nil {
						t.Fatal(err)
					}
				}
				forked(t, s, h, forkPlan(t, im))
				if n := boots(t, h); n != 2 {
					t.Errorf("%d boots: the damage was not noticed", n)
				}
			})
		}
	}
}

// Ten that find a template damaged which another's machine still uses get one
// new template, at once; that machine's lock is not theirs any more.
func TestDamagedTemplateInUse(t *testing.T) {
	h, im := standIn(t, "linux")
	dir := t.TempDir()
	first := forked(t, OpenTemplates(TemplateOptions{Dir: dir}), h, forkPlan(t, im))
	if err := os.Remove(filepath.Join(dir, first.fork.Template, fileState)); err != nil {
		t.Fatal(err)
	}
	tenForks(t, dir, h, im)
	if n := boots(t, h); n != 2 {
		t.Errorf("%d boots", n)
	}
	f, err := tryLock(filepath.Join(dir, first.fork.Template+".lock"), exclusive)
	if err != nil {
		t.Fatalf("the new template's lock: %v", err)
	}
	f.Close()
	if got := says(t, first, "@cat", "/x"); got != "" {
		t.Errorf("the machine in use says %q", got)
	}
}

// What shapes a machine leads to a template of its own; what does not, not.
func TestTemplateKey(t *testing.T) {
	h, im := standIn(t, "linux")
	s := OpenTemplates(TemplateOptions{Dir: t.TempDir()})
	key := func(change func(*Host, *Plan, *images.Image)) string {
		h, p, i := h, forkPlan(t, im), *im
		if change != nil {
			change(&h, &p, &i)
		}
		p.Image = &i
		sh, err := s.shapeOf(h, p)
		if err != nil {
			t.Fatal(err)
		}
		return sh.key()
	}
	base := key(nil)
	disk := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(disk, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{base: "nothing"}
	for name, change := range map[string]func(*Host, *Plan, *images.Image){
		"image":       func(_ *Host, _ *Plan, i *images.Image) { i.Digest = "sha256:2" },
		"cmdline":     func(_ *Host, p *Plan, _ *images.Image) { p.Cmdline = "quiet" },
		"hold":        func(_ *Host, p *Plan, _ *images.Image) { p.Hold = boot.Containerd },
		"memory":      func(_ *Host, p *Plan, _ *images.Image) { p.MemoryMiB = 65 },
		"CPUs":        func(_ *Host, p *Plan, _ *images.Image) { p.CPUs = 2 },
		"devices":     func(_ *Host, p *Plan, _ *images.Image) { p.Extra = []string{"-device", "x"} },
		"CPU model":   func(h *Host, _ *Plan, _ *images.Image) { h.Accel.CPU = "qemu64" },
		"accelerator": func(h *Host, _ *Plan, _ *images.Image) { h.Accel.Name = "kvm" },
		"version":     func(h *Host, _ *Plan, _ *images.Image) { h.Version = "8.0.0" },
		"binary":      func(h *Host, _ *Plan, _ *images.Image) { h.Binary = disk },
	} {
		k := key(change)
		if other, ok := seen[k]; ok {
			t.Errorf("%s leads to the same template as %s", name, other)
		}
		seen[k] = name
	}
	if key(func(_ *Host, p *Plan, _ *images.Image) {
		p.Name, p.Expect, p.Patience.Boot = "other", []string{"panic"}, time.Hour
	}) != base {
		t.Error("name, expectations and patience shape nothing")
	}
	plan := forkPlan(t, im)
	plan.Disks = append(plan.Disks, readOnly(disk))
	first, err := s.shapeOf(h, plan)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(disk, []byte("changed"), 0o600); err != nil {
		t.Fatal(err)
	}
	if second, err := s.shapeOf(h, plan); err != nil || second.key() == first.key() {
		t.Errorf("a changed disk leads to the same template (%v)", err)
	}
}

// An update of the firmware leads to another template of a machine that boots by
// UEFI. Its files are this host's, so it is their marks that are looked at.
func TestTemplateKeyHasFirmware(t *testing.T) {
	code, vars, err := qemu.Firmware("amd64")
	if err != nil {
		t.Skip("needs UEFI: ", err)
	}
	h, im := standIn(t, "linux")
	s := OpenTemplates(TemplateOptions{Dir: t.TempDir()})
	want, err := markFiles(code, vars)
	if err != nil {
		t.Fatal(err)
	}
	p := forkPlan(t, im)
	for _, uefi := range []bool{false, true} {
		p.Media = &images.Media{Image: im, Cmdline: p.KernelCmdline("amd64"), Disk: im.KernelPath, UEFI: uefi}
		sh, err := s.shapeOf(h, p)
		if err != nil || uefi != slices.Equal(sh.Firmware, want) || !uefi && sh.Firmware != nil {
			t.Errorf("UEFI %v: %+v, %v", uefi, sh.Firmware, err)
		}
	}
	updated := shape{Firmware: slices.Clone(want)}
	updated.Firmware[0].Inode++
	if same := (shape{Firmware: want}); updated.key() == same.key() {
		t.Error("an update leads to the same key")
	}
}

// Without the capability memory goes with the state; where nothing can be
// saved every machine boots. The report says which, and why.
func TestLadder(t *testing.T) {
	for _, c := range []struct {
		play  string
		rung  Rung
		how   string
		why   string
		boots int // for two machines
	}{
		{"linux", "", "ram", "", 1},
		{"linux", RungStream, "stream", "", 1},
		{"linux", RungCold, "cold", "demanded", 2},
		{"old", "", "stream", "Invalid parameter 'x-ignore-shared'", 1},
		{"blocked", "", "cold", "non-migratable device 'nvme'", 3},
	} {
		t.Run(c.play+string(c.rung), func(t *testing.T) {
			h, im := standIn(t, c.play)
			s := OpenTemplates(TemplateOptions{Dir: t.TempDir(), Rung: c.rung})
			for range 2 {
				m := forked(t, s, h, forkPlan(t, im))
				f := m.Report().Fork
				if f == nil || f.How != c.how || !strings.Contains(f.Why, c.why) || (c.why == "") != (f.Why == "") {
					t.Errorf("got %+v", f)
				}
				says(t, m, "@append", "/x", "y")
				if got := says(t, m, "@cat", "/x"); got != "y" {
					t.Errorf("the machine has %q", got)
				}
			}
			if n := boots(t, h); n != c.boots {
				t.Errorf("%d boots", n)
			}
		})
	}
}

// Without an agent nothing can be proved, so nothing is claimed; the errors of
// a disk would stay below its overlay.
func TestUnforkable(t *testing.T) {
	h, im := standIn(t, "linux")
	disk := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(disk, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*Plan){
		"without an agent":       func(p *Plan) { p.NoAgent = true },
		"disk 0 fails on demand": func(p *Plan) { p.Disks = []qemu.Disk{{Path: disk, Error: &qemu.DiskError{}}} },
	} {
		p := forkPlan(t, im)
		change(&p)
		m := forked(t, OpenTemplates(TemplateOptions{Dir: t.TempDir()}), h, p)
		if f := m.Report().Fork; f.How != "cold" || !strings.Contains(f.Why, want) {
			t.Errorf("%s: got %+v", want, f)
		}
	}
}

// Where a template may not fit its machine boots, and says why; one that is
// there needs no more room; a rung that was demanded is not given up.
func TestFullFolder(t *testing.T) {
	h, im := standIn(t, "linux")
	dir := t.TempDir()
	open := func(rung Rung, mib int64) *Templates {
		s := OpenTemplates(TemplateOptions{Dir: dir, Rung: rung})
		s.free = func(string) (int64, error) { return mib << 20, nil }
		return s
	}
	for _, c := range []struct {
		free int64
		how  string
	}{{63, "cold"}, {64, "ram"}, {0, "ram"}} {
		f := forked(t, open("", c.free), h, forkPlan(t, im)).Report().Fork
		want := fmt.Sprintf("%d MiB free in %s, 64 may be needed", c.free, dir)
		if f.How != c.how || (f.How == "cold") != (f.Why == want) {
			t.Errorf("%d MiB free: %+v", c.free, f)
		}
	}
	var f *Failure
	if m, err := open(RungStream, 63).Fork(t.Context(), h, forkPlan(t, im)); !errors.As(err, &f) || f.Class != reports.Infra || !strings.Contains(f.Title, "63 MiB free") {
		t.Errorf("%v, %v", m, err)
	}
	if free, err := freeSpace(dir); err != nil || free <= 0 {
		t.Errorf("%d bytes free, %v", free, err)
	}
	if _, err := freeSpace(filepath.Join(dir, "none")); err == nil {
		t.Error("there is room in a folder that is not there")
	}
}

// What a template cannot freeze or compare keeps a plan from being forked;
// what is like it and harmless does not.
func TestUnforkablePlans(t *testing.T) {
	qcow2 := func(backing byte) []qemu.Disk {
		header := make([]byte, 104)
		copy(header, "QFI\xfb\x00\x00\x00\x03")
		header[15] = backing
		path := filepath.Join(t.TempDir(), "disk")
		if err := os.WriteFile(path, header, 0o600); err != nil {
			t.Fatal(err)
		}
		return []qemu.Disk{{Path: path, Format: "qcow2"}}
	}
	asRaw := qcow2(1)
	asRaw[0].Format = "raw" // its bytes are the disk's, and all there is
	for _, c := range []struct {
		why  string
		plan Plan
	}{
		{"", Plan{}},
		{"clock is set", Plan{RTC: "2038-01-19T03:14:07"}},
		{"", Plan{Disks: qcow2(0)}},
		{"", Plan{Disks: asRaw}},
		{"disk 0 is the overlay", Plan{Disks: qcow2(1)}},
		{"-drive brings a file", Plan{Extra: []string{"-drive", "file=x"}}},
		{"--blockdev brings", Plan{Extra: []string{"-device", "x", "--blockdev", "y"}}},
		{"-hdd brings", Plan{Extra: []string{"-hdd", "x"}}},
		{"-virtfs brings", Plan{Extra: []string{"-virtfs", "local,path=/"}}},
		{"-object brings", Plan{Extra: []string{"-object", "memory-backend-file,id=x,mem-path=/x"}}},
		{"", Plan{Extra: []string{"-object", "memory-backend-ram,id=x", "-device", "drive"}}},
		{"", Plan{Extra: []string{"-device", "edu"}}},
	} {
		if got := OpenTemplates(TemplateOptions{}).Unforkable(c.plan); !strings.Contains(got, c.why) || c.why == "" && got != "" {
			t.Errorf("%+v: %q, want %q", c.plan, got, c.why)
		}
	}
}

// A disk that is written to is the template's own copy, and the fork's is an
// overlay of that; a plan with a disk of the same content finds the template.
func TestForkDisks(t *testing.T) {
	h, im := standIn(t, "linux")
	s := OpenTemplates(TemplateOptions{Dir: t.TempDir()})
	fork := func(content string) *Machine {
		disk := filepath.Join(t.TempDir(), "di,sk")
		if err := os.WriteFile(disk, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		p := forkPlan(t, im)
		p.Disks = append(p.Disks, qemu.Disk{Path: disk})
		return forked(t, s, h, p)
	}
	a, b, other := fork("content"), fork("content"), fork("other")
	if a.fork.Template != b.fork.Template || a.fork.Template == other.fork.Template {
		t.Errorf("templates %s, %s and %s", a.fork.Template, b.fork.Template, other.fork.Template)
	}
	copied := filepath.Join(s.o.Dir, a.fork.Template, "disk0")
	if got, err := os.ReadFile(copied); err != nil || string(got) != "content" {
		t.Errorf("the template's disk: %q, %v", got, err)
	}
	argv, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", a.PID()))
	if err != nil || !strings.Contains(string(argv), "file="+copied+",format=raw,snapshot=on") {
		t.Errorf("%q, %v", argv, err)
	}
	if err := os.WriteFile(copied, []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(a.Close(), b.Close()); err != nil {
		t.Fatal(err)
	}
	fork("content")
	if n := boots(t, h); n != 3 {
		t.Errorf("%d boots: the damaged disk was not noticed", n)
	}
}

// Holes stay holes, and count for nothing in a digest.
func TestSparse(t *testing.T) {
	dir := t.TempDir()
	from, to, dense := filepath.Join(dir, "from"), filepath.Join(dir, "to"), filepath.Join(dir, "dense")
	f, err := os.Create(from)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = f.WriteAt([]byte("data"), 3<<20); err == nil {
		err = f.Truncate(16 << 20)
	}
	if err := errors.Join(err, f.Close(), copySparse(to, from)); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(to)
	if err != nil || !bytes.Equal(got, b) {
		t.Errorf("the copy differs (%v)", err)
	}
	if size, err := onDisk(to); err != nil || size > 1<<20 {
		t.Errorf("the copy takes up %d bytes (%v)", size, err)
	}
	if err := os.WriteFile(dense, b, 0o600); err != nil {
		t.Fatal(err)
	}
	digests := map[string]bool{}
	for _, path := range []string{from, to, dense} {
		sum, err := digestFile(path)
		if err != nil {
			t.Fatal(err)
		}
		digests[sum] = true
	}
	if len(digests) != 1 {
		t.Errorf("%d digests of one content", len(digests))
	}
	for _, change := range []func() error{
		func() error { return os.Truncate(to, 16<<20+1) },
		func() error { b[10<<20] = 1; return os.WriteFile(to, b, 0o600) },
		func() error { b[10<<20], b[11<<20] = 0, 1; return os.WriteFile(to, b, 0o600) },
	} {
		if err := change(); err != nil {
			t.Fatal(err)
		}
		sum, err := digestFile(to)
		if err != nil || digests[sum] {
			t.Errorf("a change was not noticed (%v)", err)
		}
		digests[sum] = true
	}
}

// What does not work is a verdict that names its cause, and leaves nothing.
func TestForkRefuses(t *testing.T) {
	for _, c := range []struct {
		play  string
		rung  Rung
		class reports.Class
		title string
		boots int // when it is tried twice
	}{
		{"panics", "", reports.Guest, "it is broken", 1},
		{"amnesiac", "", reports.Infra, "this is no copy of template", 1},
		{"unloadable", "", reports.Infra, "no such thing", 1},
		{"old", RungRAM, reports.Infra, "x-ignore-shared", 2},
	} {
		t.Run(c.play, func(t *testing.T) {
			h, im := standIn(t, c.play)
			s := OpenTemplates(TemplateOptions{Dir: t.TempDir(), Rung: c.rung})
			for range 2 {
				m, err := s.Fork(t.Context(), h, forkPlan(t, im))
				if m != nil { // its proof may still be on its way
					_, err = m.Exec(t.Context(), "@cat", "mac")
					if closing := m.Close(); closing != nil {
						t.Error(closing)
					}
				}
				var f *Failure
				if !errors.As(err, &f) || f.Class != c.class || !strings.Contains(f.Title, c.title) {
					t.Errorf("%v, %v", m, err)
				}
			}
			if n := boots(t, h); n != c.boots {
				t.Errorf("%d boots", n)
			}
			if left := names(t, s.o.Dir, "*.new"); len(left) > 0 {
				t.Errorf("left behind: %q", left)
			}
			for _, lock := range names(t, s.o.Dir, "*.lock") {
				f, err := tryLock(lock, exclusive)
				if err != nil {
					t.Errorf("%s: %v", lock, err)
					continue
				}
				f.Close()
			}
		})
	}
}

// The least recently used templates go when there are too many, but none that
// is in use.
func TestPrune(t *testing.T) {
	h, im := standIn(t, "linux")
	dir := t.TempDir()
	s := OpenTemplates(TemplateOptions{Dir: dir, Limit: 1})
	one := func(cmdline string) *Machine {
		p := forkPlan(t, im)
		p.Cmdline = cmdline
		return forked(t, s, h, p)
	}
	there := func(m *Machine) bool {
		_, err := os.Stat(filepath.Join(dir, m.fork.Template))
		return err == nil
	}
	a := one("a")
	b := one("b")
	if !there(a) || !there(b) {
		t.Error("a template in use was removed")
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	c := one("c")
	if there(a) || !there(b) || !there(c) {
		t.Errorf("a: %v, b: %v, c: %v; want only a to be gone", there(a), there(b), there(c))
	}
	if n := len(names(t, dir, "*")); n != 4 {
		t.Errorf("%d files: %q", n, names(t, dir, "*"))
	}
}

// What lies about goes too: folders of killed builders, and templates whose lock
// file is gone. A builder at work, and a folder that fits, are left alone.
func TestPruneOfRemains(t *testing.T) {
	h, im := standIn(t, "linux")
	dir := t.TempDir()
	put := func(name string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name, "ram"), make([]byte, 8192), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	there := func(name string) bool {
		_, err := os.Stat(filepath.Join(dir, name))
		return err == nil
	}
	put("killed.new")
	put("working.new")
	put("lockless")
	working, err := tryLock(filepath.Join(dir, "working.lock"), exclusive)
	if err != nil {
		t.Fatal(err)
	}
	defer working.Close()
	p := forkPlan(t, im)
	forked(t, OpenTemplates(TemplateOptions{Dir: dir}), h, p)
	if there("killed.new") || there("killed.lock") || !there("working.new") || !there("working.lock") || !there("lockless") {
		t.Errorf("within the limit there are %q", names(t, dir, "*"))
	}
	p.Cmdline, p.Dir = "other", t.TempDir()
	m := forked(t, OpenTemplates(TemplateOptions{Dir: dir, Limit: 1}), h, p)
	if there("lockless") || there("lockless.lock") || !there("working.new") || !there(m.fork.Template) {
		t.Errorf("beyond the limit there are %q", names(t, dir, "*"))
	}
}

// A builder that was killed leaves a folder, which is no template.
func TestKilledBuilder(t *testing.T) {
	h, im := standIn(t, "linux")
	s := OpenTemplates(TemplateOptions{Dir: t.TempDir()})
	sh, err := s.shapeOf(h, forkPlan(t, im))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(s.o.Dir, sh.key()+".new", "ram"), 0o700); err != nil {
		t.Fatal(err)
	}
	forked(t, s, h, forkPlan(t, im))
	if left := names(t, s.o.Dir, "*.new"); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// Whoever waits for another's template can be interrupted.
func TestForkInterrupted(t *testing.T) {
	h, im := standIn(t, "linux")
	s := OpenTemplates(TemplateOptions{Dir: t.TempDir()})
	sh, err := s.shapeOf(h, forkPlan(t, im))
	if err != nil {
		t.Fatal(err)
	}
	lock, err := lockFile(t.Context(), s.lockPath(sh.key()), exclusive)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := s.Fork(ctx, h, forkPlan(t, im)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if n := boots(t, h); n != 0 {
		t.Errorf("%d boots", n)
	}
}

// Every fork's network card gets an address of its own, unless the plan has
// given it one.
func TestForkAddress(t *testing.T) {
	h, im := standIn(t, "linux")
	s := OpenTemplates(TemplateOptions{Dir: t.TempDir()})
	seen := map[string]bool{}
	for _, name := range []string{"a", "b"} {
		p := forkPlan(t, im)
		p.Name, p.NICs = name, []qemu.NIC{{}, {MAC: "52:54:00:00:00:01"}}
		m := forked(t, s, h, p)
		macs := m.Report().Fork.MACs
		from, to, _ := strings.Cut(says(t, m, "@cat", "mac"), " ")
		if len(macs) != 2 || macs[0] != to || from == to || seen[to] || macs[1] != "52:54:00:00:00:01" {
			t.Errorf("%s: %q to %q, report %q", name, from, to, macs)
		}
		seen[to] = true
	}
	if n := boots(t, h); n != 1 {
		t.Errorf("%d boots", n)
	}
}

// A fork of which nothing was asked proves itself before it is closed.
func TestForkProvesItselfAtItsEnd(t *testing.T) {
	for play, want := range map[string]string{"linux": "", "amnesiac": "this is no copy of template"} {
		h, im := standIn(t, play)
		m, err := OpenTemplates(TemplateOptions{Dir: t.TempDir()}).Fork(t.Context(), h, forkPlan(t, im))
		if err == nil {
			err = m.Close()
		}
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v", play, err)
		}
	}
}

// Forks are on the plan's network; the template, which would be a stranger with
// their addresses, never was.
func TestForksShareANetwork(t *testing.T) {
	h, im := standIn(t, "linux")
	s := OpenTemplates(TemplateOptions{Dir: t.TempDir()})
	lan := &qemu.Network{}
	for _, name := range []string{"a", "b"} {
		p := forkPlan(t, im)
		p.Name, p.NICs = name, []qemu.NIC{{Network: lan}}
		forked(t, s, h, p)
	}
	if n := boots(t, h); n != 1 {
		t.Errorf("%d boots for two forks", n)
	}
	if err := lan.Partition([]string{"nobody"}); err == nil || !strings.HasSuffix(err.Error(), "there are: a, b") {
		t.Error(err)
	}
}

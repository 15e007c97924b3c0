package harness

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seatrial/seatrial/boot"
	"github.com/seatrial/seatrial/harness/console"
	"github.com/seatrial/seatrial/qemu"
	"github.com/seatrial/seatrial/reports"
)

// Templates is a folder of machines that were booted once and are kept, paused,
// to be forked. Processes share it: a template is built once however many ask
// for it, is looked at before it is used, and is never removed while it is in
// use. Safe for concurrent use.
type Templates struct {
	o    TemplateOptions
	free func(dir string) (int64, error) // bytes that may still be written there

	mu       sync.Mutex
	verified map[string]string   // key -> marks of files whose contents were checked
	digests  map[fileMark]string // of disks
	failed   map[string]error    // key -> why the machine does not come up
}

// TemplateOptions says where templates are kept and how.
type TemplateOptions struct {
	Dir   string // made if missing; not shared with other users
	Limit int64  // bytes on disk beyond which the least recently used go; 0: 8 GiB
	Rung  Rung   // how machines must be forked; empty: the best way there is
}

// Rung is a way to a machine that is up, from the fastest to the slowest.
type Rung string

// The rungs of the ladder.
const (
	RungRAM    Rung = "ram"    // forks map the template's memory, copy on write
	RungStream Rung = "stream" // forks load a copy of all memory that was used
	RungCold   Rung = "cold"   // every machine boots
)

// templateLimit holds about twenty templates of the image that ships.
const templateLimit = 8 << 30

// OpenTemplates makes a Templates; it touches nothing yet.
func OpenTemplates(o TemplateOptions) *Templates {
	if o.Limit == 0 {
		o.Limit = templateLimit
	}
	return &Templates{o: o, free: freeSpace, verified: map[string]string{}, digests: map[fileMark]string{}, failed: map[string]error{}}
}

// templateFormat changes when files of older programs must not be used.
const templateFormat = 2

// shape is everything that decides what a template is. Its digest is the key,
// so a template whose shape has changed is never found, only pruned.
type shape struct {
	Format    int            `json:"format"`
	Milestone boot.Milestone `json:"milestone"`
	Image     string         `json:"image"` // digest of kernel, initramfs and command line
	Medium    string         `json:"medium,omitempty"`
	Args      []string       `json:"args"` // of QEMU, without what differs from machine to machine
	QEMU      string         `json:"qemu"` // version
	Binary    fileMark       `json:"binary"`
	HostCPU   string         `json:"hostCPU,omitempty"` // under KVM the guest sees it
	Disks     []string       `json:"disks,omitempty"`
	CDs       []fileMark     `json:"cds,omitempty"`      // which may be big, and are not read
	Firmware  []fileMark     `json:"firmware,omitempty"` // of UEFI: an update leaves its path as it was
	Rung      Rung           `json:"rung,omitempty"`     // if one was demanded
}

// fileMark tells whether a file is still the same without reading it. The time
// of its last change of state cannot be set back by the ordinary calls.
type fileMark struct {
	Path    string    `json:"path"`
	Size    int64     `json:"size"`
	Inode   uint64    `json:"inode"`
	Changed time.Time `json:"changed"`
}

func markFile(path string) (fileMark, error) {
	info, err := os.Stat(path)
	if err != nil {
		return fileMark{}, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fileMark{}, fmt.Errorf("%s: no inode", path)
	}
	return fileMark{Path: path, Size: info.Size(), Inode: st.Ino, Changed: time.Unix(st.Ctim.Unix()).UTC()}, nil
}

// markFiles marks those that have a path.
func markFiles(paths ...string) ([]fileMark, error) {
	var all []fileMark
	for _, path := range paths {
		if path == "" {
			continue
		}
		mark, err := markFile(path)
		if err != nil {
			return nil, err
		}
		all = append(all, mark)
	}
	return all, nil
}

// shapeOf finds the shape of the template that a plan needs.
func (s *Templates) shapeOf(h Host, p Plan) (shape, error) {
	config, err := p.config(h)
	if err != nil {
		return shape{}, err
	}
	config.Name, config.NICs = "template", p.NICs // not the addresses of one machine
	command, err := config.Command()
	if err != nil {
		return shape{}, err
	}
	for i, arg := range command.Args { // digests stand for them, wherever they lie
		switch arg {
		case config.Kernel:
			command.Args[i] = "kernel"
		case config.Initrd:
			command.Args[i] = "initrd"
		}
		for n, d := range config.Disks {
			command.Args[i] = strings.Replace(command.Args[i], d.Source(), diskName(n), 1)
		}
		for n, path := range config.CDs {
			if path == "" {
				continue
			}
			command.Args[i] = strings.Replace(command.Args[i], qemu.CDSource(path), fmt.Sprintf("cd%d", n), 1)
		}
	}
	sh := shape{Format: templateFormat, Milestone: p.goal(), Image: p.Image.Digest, Args: command.Args, QEMU: h.Version, Rung: s.o.Rung}
	if sh.Binary, err = markFile(h.Binary); err != nil {
		return shape{}, err
	}
	if h.Accel.Name == "kvm" {
		if sh.HostCPU, err = hostCPU(); err != nil {
			return shape{}, err
		}
	}
	if p.Media != nil {
		sh.Medium = p.Media.Digest
	}
	if sh.CDs, err = markFiles(config.CDs...); err != nil {
		return shape{}, err
	}
	if config.Boot.UEFI {
		code, vars, err := qemu.Firmware(h.Arch)
		if err != nil {
			return shape{}, err
		}
		if sh.Firmware, err = markFiles(code, vars); err != nil {
			return shape{}, err
		}
	}
	for _, d := range config.Disks {
		is, err := s.diskShape(d)
		if err != nil {
			return shape{}, err
		}
		sh.Disks = append(sh.Disks, is)
	}
	return sh, nil
}

func diskName(n int) string { return fmt.Sprintf("disk%d", n) }

// diskShape is a disk's content, which is read again only when the file was
// touched. A read-only disk may be a big medium and is not copied: for it, its
// mark stands.
func (s *Templates) diskShape(d qemu.Disk) (string, error) {
	mark, err := markFile(d.Path)
	if err != nil {
		return "", err
	}
	if d.ReadOnly {
		b, err := json.Marshal(mark)
		return string(b), err
	}
	s.mu.Lock()
	known, ok := s.digests[mark]
	s.mu.Unlock()
	if ok {
		return known, nil
	}
	sum, err := digestFile(d.Path)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.digests[mark] = sum
	return sum, err
}

// hostCPU is what /proc/cpuinfo says of the first processor and does not
// change while it runs.
func hostCPU() (string, error) {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "", err
	}
	first, _, _ := strings.Cut(string(b), "\n\n")
	var keep []string
	for line := range strings.Lines(first) {
		if !strings.Contains(line, "MHz") && !strings.Contains(line, "bogomips") {
			keep = append(keep, line)
		}
	}
	return digest([]byte(strings.Join(keep, ""))), nil
}

func (sh shape) key() string {
	b, err := json.Marshal(sh)
	if err != nil {
		panic(err) // strings and numbers always encode
	}
	return digest(b)
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// template is a kept machine. The lock keeps it from being removed.
type template struct {
	Key   string            `json:"key"`
	Shape shape             `json:"shape"`
	Rung  Rung              `json:"rung"`
	Why   string            `json:"why,omitempty"` // it is not RungRAM
	Nonce string            `json:"nonce"`         // only its memory and this file have it
	Hello string            `json:"hello"`         // the agent's build
	MACs  []string          `json:"macs,omitempty"`
	At    time.Duration     `json:"at"`   // on the machine's clock, when it was paused
	Save  time.Duration     `json:"save"` // what pausing and saving took
	Built time.Time         `json:"built"`
	Files map[string]string `json:"files"` // name -> digest
	Sum   string            `json:"sum"`   // digest of this file with Sum empty

	dir  string
	lock *os.File
}

// Names of the files of a template, beside those of a machine's evidence.
const (
	fileTemplate = "template.json"
	fileRAM      = "ram"
	fileState    = "state"
)

func (t *template) sum() string {
	c := *t
	c.Sum = ""
	b, err := json.Marshal(c)
	if err != nil {
		panic(err) // strings and numbers always encode
	}
	return digest(b)
}

func (t *template) path(name string) string { return filepath.Join(t.dir, name) }

// hold finds the plan's template or makes it, and keeps it from being removed
// until the returned template's lock is closed.
func (s *Templates) hold(ctx context.Context, h Host, p Plan) (*template, error) {
	sh, err := s.shapeOf(h, p)
	if err != nil {
		return nil, &Failure{Class: reports.Misuse, Title: err.Error(), Wanted: "a template", Machine: p.Name, Dir: p.Dir, Err: err}
	}
	key := sh.key()
	if err := os.MkdirAll(s.o.Dir, 0o700); err != nil {
		return nil, s.broken(p, err)
	}
	for {
		t, err := s.find(ctx, key)
		if t != nil || err != nil {
			return t, s.broken(p, err)
		}
		if err := s.make(ctx, h, p, sh); err != nil {
			return nil, s.broken(p, err)
		}
	}
}

// broken turns an error about the folder into a verdict; verdicts about
// machines stay what they are.
func (s *Templates) broken(p Plan, err error) error {
	var f *Failure
	if err == nil || errors.As(err, &f) {
		return err
	}
	if full := fullError(""); errors.As(err, &full) && s.o.Rung == "" {
		return err // the machine boots instead
	}
	return &Failure{Class: reports.Infra, Title: "template: " + err.Error(), Wanted: "a template", Machine: p.Name, Dir: p.Dir, Err: err}
}

func (s *Templates) lockPath(key string) string { return filepath.Join(s.o.Dir, key+".lock") }

// find returns the template if it is there and undamaged, and nil if it is not.
func (s *Templates) find(ctx context.Context, key string) (*template, error) {
	lock, err := lockFile(ctx, s.lockPath(key), unix.LOCK_SH)
	if err != nil {
		return nil, err
	}
	t, err := s.load(key)
	if err != nil {
		return nil, lock.Close() // it is made again; nothing can be lost but a boot
	}
	t.lock = lock
	now := time.Now()
	return t, os.Chtimes(lock.Name(), now, now) // for prune
}

// make builds the template, unless another did while this one waited for it.
func (s *Templates) make(ctx context.Context, h Host, p Plan, sh shape) error {
	key := sh.key()
	lock, err := s.alone(ctx, key)
	if lock == nil || err != nil {
		return err
	}
	defer lock.Close()
	if _, err := s.load(key); err == nil {
		return nil
	}
	s.mu.Lock()
	err = s.failed[key]
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if err := s.roomFor(p); err != nil {
		return err
	}
	if err := s.build(ctx, h, p, sh); err != nil {
		var f *Failure
		if errors.As(err, &f) && f.Class == reports.Guest {
			s.mu.Lock()
			s.failed[key] = err // it would fail for everyone who asks
			s.mu.Unlock()
		}
		return err
	}
	if _, err := s.load(key); err != nil {
		return fmt.Errorf("just built, and damaged already: %w", err)
	}
	return s.prune(key)
}

// alone takes the key's lock for a builder; nil: there is no need, the template
// is there.
//
// Whoever can be let in as a user, and cannot load the template, knows that
// nobody builds it and that others use what has been damaged since, for as long
// as their machines live. Those are not waited for: they keep the lock they
// have, and the builder gets a new one.
func (s *Templates) alone(ctx context.Context, key string) (*os.File, error) {
	path := s.lockPath(key)
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, 200*time.Millisecond) {
		lock, err := tryLock(path, unix.LOCK_EX)
		if !errors.Is(err, errLocked) {
			return lock, err
		}
		used, err := tryLock(path, unix.LOCK_SH)
		if err == nil {
			if _, damaged := s.load(key); damaged != nil {
				lock, err = replaceLock(ctx, used, path)
			}
			if err = errors.Join(err, used.Close()); lock != nil || err != nil {
				return lock, err
			}
			if _, err := s.load(key); err == nil {
				return nil, nil
			}
			continue // another was faster, and builds
		}
		if !errors.Is(err, errLocked) {
			return nil, err
		}
		select {
		case <-time.After(wait): // for the builder
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for the lock %s: %w", path, context.Cause(ctx))
		}
	}
}

// fullError says that a template might not fit where templates are kept.
type fullError string

func (e fullError) Error() string { return string(e) }

// roomFor is a fullError if the plan's machine may need more than there is. Its
// memory is a mapped file: a page of it that finds no room kills QEMU with
// SIGBUS, which names no cause.
func (s *Templates) roomFor(p Plan) error {
	free, err := s.free(s.o.Dir)
	if err != nil {
		return err
	}
	if need := int64(cmp.Or(p.MemoryMiB, defaultMemory)); free>>20 < need {
		return fullError(fmt.Sprintf("%d MiB free in %s, %d may be needed", free>>20, s.o.Dir, need))
	}
	return nil
}

func freeSpace(dir string) (int64, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return 0, fmt.Errorf("free space of %s: %w", dir, err)
	}
	return int64(fs.Bavail) * fs.Bsize, nil
}

// load reads a template and makes sure that nothing of it has changed. The
// contents are read once by each process: half a second for the image that
// ships; after that the files' marks are compared, which is free.
func (s *Templates) load(key string) (*template, error) {
	t := &template{dir: filepath.Join(s.o.Dir, key)}
	b, err := os.ReadFile(t.path(fileTemplate))
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, t); err != nil {
		return nil, err
	}
	if t.Sum != t.sum() || t.Key != key || t.Shape.key() != key {
		return nil, fmt.Errorf("%s is damaged", t.path(fileTemplate))
	}
	marks, err := t.marks()
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	known := s.verified[key] == marks
	s.mu.Unlock()
	if known {
		return t, nil
	}
	for name, want := range t.Files {
		got, err := digestFile(t.path(name))
		if err != nil {
			return nil, err
		}
		if got != want {
			return nil, fmt.Errorf("%s is damaged: its digest is %s, not %s", t.path(name), got, want)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.verified[key] = marks
	return t, nil
}

// marks tells whether any of the files was touched since.
func (t *template) marks() (string, error) {
	var all []fileMark
	for name := range t.Files {
		m, err := markFile(t.path(name))
		if err != nil {
			return "", err
		}
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b fileMark) int { return strings.Compare(a.Path, b.Path) })
	b, err := json.Marshal(all)
	return string(b), err
}

// build boots the machine, saves it, and puts it in its place when it is whole.
func (s *Templates) build(ctx context.Context, h Host, p Plan, sh shape) (err error) {
	key := sh.key()
	t := &template{Key: key, Shape: sh, Nonce: rand.Text(), Built: time.Now().UTC(), Files: map[string]string{}, dir: filepath.Join(s.o.Dir, key+".new")}
	if err := os.RemoveAll(t.dir); err != nil { // of a builder that was killed
		return err
	}
	if err := os.Mkdir(t.dir, 0o700); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(t.dir)) }()
	if err := t.boot(ctx, h, p, s.o.Rung); err != nil {
		return err
	}
	entries, err := os.ReadDir(t.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if t.Files[e.Name()], err = digestFile(t.path(e.Name())); err != nil {
			return err
		}
	}
	t.Sum = t.sum()
	b, err := json.MarshalIndent(t, "", " ")
	if err != nil {
		return err
	}
	if err := writeFile(t.path(fileTemplate), b); err != nil {
		return err
	}
	place := filepath.Join(s.o.Dir, key)
	if err := os.RemoveAll(place); err != nil { // a damaged one
		return err
	}
	return os.Rename(t.dir, place)
}

// boot brings the machine up, marks its memory, and saves it by the highest
// rung that it can be saved by.
func (t *template) boot(ctx context.Context, h Host, p Plan, demanded Rung) error {
	p.Name, p.Dir = "template-"+t.Key[:12], filepath.Join(p.Dir, "template")
	var ram qemu.RAM
	if demanded != RungStream {
		ram.File = t.path(fileRAM)
	}
	for _, n := range p.nics() {
		t.MACs = append(t.MACs, n.MAC)
	}
	config, err := p.config(h)
	if err != nil {
		return err
	}
	for i, d := range config.Disks {
		if d.ReadOnly {
			continue
		}
		if err := copySparse(t.path(diskName(i)), d.Path); err != nil {
			return err
		}
	}
	m, err := launch(ctx, h, p, func(c *qemu.Config) {
		// What the machine writes on its way up belongs to the template.
		c.RAM, c.Disks, c.NICs = ram, t.disks(c.Disks, false), alone(c.NICs)
	}, nil)
	if err != nil {
		return err
	}
	err = t.save(ctx, m, demanded)
	if err := errors.Join(err, m.Close()); err != nil {
		return err
	}
	if t.Rung != RungRAM {
		if err := os.RemoveAll(t.path(fileRAM)); err != nil {
			return err
		}
	}
	if t.Rung == RungCold {
		return os.RemoveAll(t.path(fileState))
	}
	if tail := m.log.Tail(1); len(tail) > 0 {
		t.At = max(t.At, tail[0].At) // it came before the pause, and was read after it
	}
	for _, name := range []string{fileSerial, fileStamped} {
		if err := copyFile(t.path(name), filepath.Join(p.Dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// disks are a machine's disks with the template's copies of those that are
// written to, or with overlays over them, when nobody writes to them any more.
func (t *template) disks(disks []qemu.Disk, overlays bool) []qemu.Disk {
	disks = slices.Clone(disks)
	for i, d := range disks {
		if !d.ReadOnly {
			disks[i].Path, disks[i].Snapshot = t.path(diskName(i)), overlays
		}
	}
	return disks
}

// save pauses the machine, once it is up or held, and saves it.
func (t *template) save(ctx context.Context, m *Machine, demanded Rung) error {
	if err := m.awaitUp(ctx); err != nil {
		return err
	}
	if r, err := m.Exec(ctx, "@mark", t.Nonce); err != nil {
		return err
	} else if r.Exit != 0 {
		return m.failure(reports.Guest, "the nonce that tells forks from reboots is not taken: "+r.Stderr, "a template", nil)
	}
	t.Hello = m.agent.build()
	if err := m.quieten(ctx); err != nil {
		return err
	}
	f, err := os.Create(t.path(fileState))
	if err != nil {
		return err
	}
	began := time.Now()
	t.At, t.Rung = began.Sub(m.began), RungRAM
	if demanded != RungStream {
		err = m.vm.Save(ctx, f, true)
		if errors.Is(err, qemu.ErrNotSaveable) && demanded == "" {
			t.Why = err.Error()
		}
	}
	if demanded == RungStream || t.Why != "" {
		t.Rung = RungStream
		err = m.vm.Save(ctx, f, false)
		if errors.Is(err, qemu.ErrNotSaveable) && demanded == "" {
			t.Rung, t.Why, err = RungCold, err.Error(), nil
		}
	}
	t.Save = time.Since(began)
	if err := errors.Join(err, f.Close()); err != nil {
		return m.failure(reports.Infra, "saving the machine: "+err.Error(), "a template", err)
	}
	return nil
}

// Settling: the machine is asked so often, at most, whether it idles.
const (
	settlePause = 300 * time.Millisecond
	settleTries = 20
	settleIdle  = 0.8 // of the time between two askings
)

// quieten lets the machine finish what it has begun: services that were started
// are not yet still, and every fork would do the rest of their work again,
// before it answers. A machine that never idles is taken as it is.
func (m *Machine) quieten(ctx context.Context) error {
	var idle, all uint64
	for range settleTries {
		r, err := m.Exec(ctx, "@cat", "/proc/stat")
		if err != nil {
			return err
		}
		nowIdle, nowAll, ok := cpuTimes(r.Stdout)
		if !ok || all > 0 && float64(nowIdle-idle) >= settleIdle*float64(nowAll-all) {
			return nil
		}
		idle, all = nowIdle, nowAll
		pause := time.NewTimer(settlePause)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return m.interrupted(ctx, "the machine to idle")
		}
	}
	return nil
}

// cpuTimes reads the first line of /proc/stat: all processors' idle time, the
// fourth number, and the sum (proc(5)).
func cpuTimes(stat string) (idle, all uint64, ok bool) {
	line, _, _ := strings.Cut(stat, "\n")
	fields := strings.Fields(line)
	if len(fields) < 5 || fields[0] != "cpu" {
		return 0, 0, false
	}
	for i, f := range fields[1:] {
		n, err := strconv.ParseUint(f, 10, 64)
		if err != nil {
			return 0, 0, false
		}
		if i == 3 {
			idle = n
		}
		all += n
	}
	return idle, all, true
}

// lines reads what the template printed: its bytes, and what they mean.
func (t *template) lines() (serial []byte, lines []console.Line, partial []byte, err error) {
	if serial, err = os.ReadFile(t.path(fileSerial)); err != nil {
		return nil, nil, nil, err
	}
	times, err := os.Open(t.path(fileStamped))
	if err != nil {
		return nil, nil, nil, err
	}
	defer times.Close()
	lines, partial, err = console.ReadStamped(serial, times)
	return serial, lines, partial, err
}

// kept is what lies in the folder under one key.
type kept struct {
	key  string
	size int64
	used time.Time
}

// kept lists the templates by what there is of them, a lock file or a folder or
// both, and the keys of folders that builders have not finished.
func (s *Templates) kept() (all []kept, unfinished []string, err error) {
	entries, err := os.ReadDir(s.o.Dir)
	if err != nil {
		return nil, nil, err
	}
	found := map[string]time.Time{}
	for _, e := range entries {
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // another has just pruned it
		}
		if err != nil {
			return nil, nil, err
		}
		if key, is := strings.CutSuffix(e.Name(), ".new"); is && e.IsDir() {
			unfinished = append(unfinished, key)
		} else if key, is := strings.CutSuffix(e.Name(), ".lock"); is {
			found[key] = info.ModTime() // see find
		} else if _, locked := found[e.Name()]; e.IsDir() && !locked {
			found[e.Name()] = info.ModTime()
		}
	}
	for key, used := range found {
		size, err := onDisk(filepath.Join(s.o.Dir, key))
		if err != nil {
			return nil, nil, err
		}
		all = append(all, kept{key, size, used})
	}
	slices.SortFunc(all, func(a, b kept) int { return a.used.Compare(b.used) })
	return all, unfinished, nil
}

// prune removes what killed builders have left, and the least recently used
// templates until the rest fits. Those in use stay, and so does the one named.
func (s *Templates) prune(keep string) error {
	all, unfinished, err := s.kept()
	if err != nil {
		return err
	}
	for _, key := range unfinished {
		if err := s.clear(key); err != nil {
			return err
		}
	}
	var total int64
	for _, k := range all {
		total += k.size
	}
	for _, k := range all {
		if total <= s.o.Limit {
			return nil
		}
		if k.key == keep {
			continue
		}
		removed, err := s.remove(k.key)
		if err != nil {
			return err
		}
		if removed {
			total -= k.size
		}
	}
	return nil
}

// clear removes the unfinished folder of a key that nobody builds.
func (s *Templates) clear(key string) error {
	lock, err := tryLock(s.lockPath(key), unix.LOCK_EX)
	if errors.Is(err, errLocked) {
		return nil
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	err = os.RemoveAll(filepath.Join(s.o.Dir, key+".new"))
	if _, none := os.Stat(filepath.Join(s.o.Dir, key)); errors.Is(none, fs.ErrNotExist) {
		err = errors.Join(err, os.Remove(lock.Name())) // of nothing
	}
	return err
}

// remove takes away a template that nobody uses or builds.
func (s *Templates) remove(key string) (bool, error) {
	lock, err := tryLock(s.lockPath(key), unix.LOCK_EX)
	if errors.Is(err, errLocked) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer lock.Close()
	return true, errors.Join(os.RemoveAll(filepath.Join(s.o.Dir, key)), os.RemoveAll(filepath.Join(s.o.Dir, key+".new")), os.Remove(lock.Name()))
}

// onDisk is what a folder's files take up; holes take up nothing.
func onDisk(dir string) (int64, error) {
	var sum int64
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			var info fs.FileInfo
			if info, err = d.Info(); err == nil {
				if st, ok := info.Sys().(*syscall.Stat_t); ok {
					sum += st.Blocks * 512 // st_blocks counts these, see stat(2)
				}
			}
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	return sum, err
}

func copyFile(to, from string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o600)
}

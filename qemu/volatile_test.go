package qemu

import (
	"bytes"
	"cmp"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// blank makes a disk of zeros.
func blank(t *testing.T, size int) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// opened opens a volatile disk of eight bytes, with nobody at its far end.
func opened(t *testing.T) (d *volatile, path string) {
	t.Helper()
	path = blank(t, 8)
	d, far, err := openVolatile(path)
	if err != nil {
		t.Fatal(err)
	}
	far.Close()
	t.Cleanup(func() {
		if err := d.close(); err != nil {
			t.Error(err)
		}
	})
	return d, path
}

func written(t *testing.T, d *volatile, at int64, text string) {
	t.Helper()
	if err := d.write([]byte(text), at); err != nil {
		t.Fatal(err)
	}
}

func content(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(b), "\x00", ".")
}

// What was flushed is never lost; of the rest, what the fates say, however
// writes overlap.
func TestVolatileLoses(t *testing.T) {
	kept := map[string]bool{}
	for seed := range uint64(20) {
		for _, part := range []float64{0, 0.5, 1} {
			d, path := opened(t)
			written(t, d, 0, "aaaa")
			d.flush()
			written(t, d, 2, "bbbb")
			written(t, d, 3, "cc")
			if got := content(t, path); got != "aabccb.." {
				t.Fatalf("before: %s", got)
			}
			loss, err := d.lose(part, rand.New(rand.NewPCG(seed, 0)))
			got := content(t, path)
			want := []string{"aabccb..", "aabbbb..", "aaacc...", "aaaa...."}
			lost := map[string]int{want[0]: 0, want[1]: 1, want[2]: 1, want[3]: 2}
			if n, ok := lost[got]; err != nil || !ok || loss != (Loss{2, n}) {
				t.Errorf("part %v, seed %d: %s, %+v, %v", part, seed, got, loss, err)
			}
			if part == 0 && got != want[0] || part == 1 && got != want[3] {
				t.Errorf("part %v: %s", part, got)
			}
			kept[got] = true
		}
	}
	if len(kept) != 4 {
		t.Errorf("only these outcomes: %v", kept)
	}
}

func TestVolatileCacheHasAnEnd(t *testing.T) {
	d, path := opened(t)
	d.room = 8 // old and new content of four bytes
	written(t, d, 0, "aa")
	written(t, d, 1, "bb")
	written(t, d, 4, "cc") // pushes out the first
	if loss, err := d.lose(1, rand.New(rand.NewPCG(0, 0))); err != nil || loss != (Loss{2, 2}) {
		t.Errorf("%+v, %v", loss, err)
	}
	if got := content(t, path); got != "aa......" {
		t.Errorf("%s", got)
	}
	if err := d.write([]byte("x"), 8); err == nil {
		t.Error("a write behind the end is taken")
	}
}

func TestVolatileRefusesWhatIsNotNBD(t *testing.T) {
	d, far, err := openVolatile(blank(t, 8))
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	if _, err := far.Write(bytes.Repeat([]byte("x"), 64)); err != nil {
		t.Fatal(err)
	}
	<-d.ended
	if err := d.close(); !errors.Is(err, errNoNBD) {
		t.Error(err)
	}
}

// QEMU reads, writes and flushes the disk, and a power cut loses what it had not
// flushed.
func TestPowerCut(t *testing.T) {
	for _, part := range []float64{0, 1} {
		c := counting(t, "amd64")
		c.Disks = []Disk{{Path: blank(t, 1<<20), Volatile: true}, {Path: blank(t, 1<<20), ReadOnly: true}}
		v := start(t, c)
		if err := v.Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, command := range []string{"write -P 0x61 0 512", "flush", "write -P 0x62 512 512"} {
			// What came of it goes to QEMU's standard output; the file shows it.
			if err := v.QMP().Do(t.Context(), "human-monitor-command", map[string]any{"command-line": `qemu-io disk0 "` + command + `"`}, nil); err != nil {
				t.Fatalf("%s: %v", command, err)
			}
		}
		loss, err := v.PowerCut(part, 1)
		if err != nil || loss != (Loss{1, int(part)}) {
			t.Errorf("%+v, %v", loss, err)
		}
		if e := v.Exit(); e.String() != "the power was cut" {
			t.Errorf("%+v", e)
		}
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(c.Disks[0].Path)
		if err != nil || b[0] != 'a' || b[511] != 'a' || (b[512] == 'b') != (part == 0) {
			t.Errorf("part %v: %q, %v", part, b[500:520], err)
		}
		if _, err := v.PowerCut(part, 1); err == nil || !strings.Contains(err.Error(), "cut already") {
			t.Errorf("cut again: %v", err)
		}
		if e := v.Exit(); e.String() != "the power was cut" {
			t.Errorf("after it was cut again: %+v", e)
		}
	}
}

// A machine that ended otherwise is not one whose power was cut.
func TestPowerCutComesTooLate(t *testing.T) {
	v := start(t, counting(t, "amd64"))
	if err := v.Quit(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := v.PowerCut(1, 0); err == nil || !strings.Contains(err.Error(), "that has ended") || v.Exit().PowerCut {
			t.Errorf("%v; %+v", err, v.Exit())
		}
	}
}

func TestPowerCutRefuses(t *testing.T) {
	c := counting(t, "amd64")
	c.Disks = []Disk{{Path: blank(t, 1<<20)}}
	v := start(t, c)
	if _, err := v.PowerCut(1, 0); err == nil || !strings.Contains(err.Error(), "disk 0 would lose nothing") {
		t.Error(err)
	}
	if _, err := v.PowerCut(1.5, 0); err == nil || !strings.Contains(err.Error(), "1.5") {
		t.Error(err)
	}
	if v.isDone() {
		t.Error("it has ended all the same")
	}
	for want, d := range map[string]Disk{
		"nothing is written to it":      {Volatile: true, ReadOnly: true},
		"only raw disks":                {Volatile: true, Format: "qcow2"},
		"both volatile and failing":     {Volatile: true, Error: &DiskError{}},
		"volatile, but nothing is writ": {Volatile: true, Snapshot: true},
		"truncate -s %512":              {Volatile: true, Path: blank(t, 1<<20+1)},
	} {
		d.Path = cmp.Or(d.Path, c.Disks[0].Path)
		if _, err := (Config{Binary: "qemu", Arch: "amd64", Kernel: c.Kernel, Disks: []Disk{d}}).Command(); err == nil || !strings.Contains(err.Error(), "disk 0: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", d, err)
		}
	}
	c.Disks[0].Volatile, c.Dir = true, "" // its size is one of whole blocks
	command, err := c.Command()
	if err != nil {
		t.Fatal(err)
	}
	if by := command.String(); !strings.Contains(by, "file="+c.Disks[0].Path) || strings.Contains(by, "nbd") {
		t.Error(by)
	}
}

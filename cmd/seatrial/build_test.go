package main

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// A build of a medium that is killed while a tool works leaves no process, no
// file of the medium, and a cache in which the next build works.
func TestKilledMedia(t *testing.T) {
	for _, program := range []string{"mkfs.fat", "mcopy", "sfdisk", "syslinux"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip(err)
		}
	}
	s := newShop(t)
	s.stock("amd64", guestText)
	args := []string{"build", "guest.yml", "-f", "raw-bios", "-o", "made", "--json"}
	want := mediumOf(t, s.run(args...))
	if err := errors.Join(os.RemoveAll(filepath.Join(s.dir, "made")), os.RemoveAll(filepath.Join(s.cache, "seatrial", "images"))); err != nil {
		t.Fatal(err)
	}

	// A tool that says who it is and then works for ever.
	bin, pidFile := t.TempDir(), filepath.Join(s.temp, "pid")
	script := "#!/bin/sh\necho half > \"$PWD/half\"\necho $$ > '" + pidFile + "'\nexec tail -f /dev/null\n"
	if err := os.WriteFile(filepath.Join(bin, "mcopy"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	sound := s.path
	s.path = bin + ":" + sound
	c := s.command(args...)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	pid := 0
	await(t, "the tool", func() bool {
		text, err := os.ReadFile(pidFile)
		if err != nil || !strings.HasSuffix(string(text), "\n") {
			return false
		}
		pid, err = strconv.Atoi(strings.TrimSpace(string(text)))
		return err == nil
	})
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait() // "signal: killed" is what was asked for
	gone(t, pid)
	if _, err := os.Stat(filepath.Join(s.dir, "made")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder of the results: %v", err)
	}
	half, err := filepath.Glob(filepath.Join(s.cache, "seatrial", "images", "tmp-*", "half"))
	if err != nil || len(half) != 1 {
		t.Fatalf("the killed build was not at work: %q, %v", half, err)
	}

	s.path = sound
	if got := mediumOf(t, s.run(args...)); got != want {
		t.Errorf("after the killed build: %s, want %s", got, want)
	}
	if left, err := filepath.Glob(filepath.Join(s.cache, "seatrial", "images", "tmp-*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
	entries, err := os.ReadDir(filepath.Join(s.dir, "made"))
	if err != nil || len(entries) != 1 || entries[0].Name() != "guest-bios.img" {
		t.Errorf("%v, %v", entries, err)
	}
}

// mediumOf is the digest of the one medium that build --json tells of.
func mediumOf(t *testing.T, got said) string {
	t.Helper()
	var built builtImage
	if err := json.Unmarshal([]byte(got.stdout), &built); err != nil || len(built.Media) != 1 {
		t.Fatalf("%v: %+v", err, got)
	}
	return built.Media[0].Digest
}

package qemu

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestBootArgs(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "a,b")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	base := Config{Binary: "qemu", Arch: "amd64"}
	arm := Config{Binary: "qemu", Arch: "arm64"}
	with := func(c Config, change func(*Config)) Config { change(&c); return c }
	for name, c := range map[string]struct {
		config Config
		want   string // a part of the command line, or of the error
		bad    bool
	}{
		"nothing":         {base, "nothing to boot from", true},
		"cmdline":         {with(base, func(c *Config) { c.Boot.CD, c.Cmdline = file, "a" }), "without a kernel", true},
		"no CD":           {with(base, func(c *Config) { c.Boot.CD = file + "x" }), "CD: ", true},
		"no TFTP":         {with(base, func(c *Config) { c.Boot.TFTP = file + "x" }), "TFTP folder: ", true},
		"no bootfile":     {with(base, func(c *Config) { c.Boot.TFTP = dir }), "needs a folder and the name", true},
		"BIOS on arm64":   {with(arm, func(c *Config) { c.Boot.CD = file }), "arm64 has no BIOS", true},
		"variables":       {with(base, func(c *Config) { c.Boot.CD, c.Boot.Vars = file, "v" }), "kept in v, but the machine has no UEFI", true},
		"CD":              {with(base, func(c *Config) { c.Boot.CD = file }), "file=" + dir + "/a,,b -device ide-cd,drive=cd,bootindex=0", false},
		"network":         {with(base, func(c *Config) { c.Boot.TFTP, c.Boot.Bootfile = dir, "b" }), "restrict=on,tftp=" + dir + ",bootfile=b -device virtio-net-pci,netdev=boot,bootindex=0", false},
		"disk":            {with(base, func(c *Config) { c.Disks = []Disk{{Path: file}} }), "virtio-blk-pci,drive=disk0", false},
		"kernel and a CD": {with(base, func(c *Config) { c.Kernel, c.Boot.CD = file, file }), "-kernel " + dir, false},
	} {
		command, err := c.config.Command()
		switch {
		case c.bad && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: got %v, want %s", name, err, c.want)
		case !c.bad && err != nil:
			t.Errorf("%s: %v", name, err)
		case !c.bad && !strings.Contains(strings.Join(command.Args, " "), c.want):
			t.Errorf("%s: %q lacks %s", name, command.Args, c.want)
		case !c.bad && c.config.Kernel == "" && strings.Contains(strings.Join(command.Args, " "), "-kernel"):
			t.Errorf("%s: a kernel from nowhere", name)
		}
	}
}

func TestFirmware(t *testing.T) {
	if _, _, err := Firmware("vax"); err == nil {
		t.Error("no firmware for that")
	}
	code, vars, err := Firmware("amd64")
	if err != nil {
		if !strings.Contains(err.Error(), "install ovmf") {
			t.Error(err)
		}
		t.Skip(err)
	}
	c := Config{Binary: "qemu", Arch: "amd64", Boot: Boot{UEFI: true}, Disks: []Disk{{Path: code}}}
	command, err := c.Command()
	if err != nil {
		t.Fatal(err)
	}
	line := strings.Join(command.Args, " ")
	if !strings.Contains(line, "readonly=on,file="+code) || !strings.Contains(line, "snapshot=on,file="+vars) {
		t.Errorf("the firmware could be changed: %s", line)
	}
}

// UEFI's variables are kept in a file that begins as a copy of the firmware's.
func TestFirmwareVariables(t *testing.T) {
	_, vars, err := Firmware("amd64")
	if err != nil {
		t.Skip(err)
	}
	c := counting(t, "amd64")
	c.Boot = Boot{UEFI: true, Vars: filepath.Join(t.TempDir(), "va,rs")}
	if err := start(t, c).Close(); err != nil {
		t.Fatal(err)
	}
	kept, err := os.ReadFile(c.Boot.Vars)
	empty, err2 := os.ReadFile(vars)
	if err != nil || err2 != nil || string(kept) != string(empty) {
		t.Fatalf("%d bytes, not %d: %v, %v", len(kept), len(empty), err, err2)
	}
	kept[len(kept)-1] ^= 1
	if err := os.WriteFile(c.Boot.Vars, kept, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := start(t, c).Close(); err != nil {
		t.Fatal(err)
	}
	if again, err := os.ReadFile(c.Boot.Vars); err != nil || string(again) != string(kept) {
		t.Errorf("they did not outlive a start: %v", err)
	}
	if err := os.WriteFile(c.Boot.Vars, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(t.Context(), c); err == nil || !strings.Contains(err.Error(), "has 1 bytes; those of "+vars) {
		t.Error(err)
	}
}

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

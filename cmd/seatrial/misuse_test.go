package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// left lists what is below folders, relative to each.
func left(t *testing.T, dirs ...string) []string {
	t.Helper()
	var all []string
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
			if path != dir {
				all = append(all, strings.TrimPrefix(path, dir))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// Whatever is wrong with a request, the answer has a place, a remedy and a
// status, and nothing is left where the tool was run.
func TestBadInput(t *testing.T) {
	broken := "kernel: {image: [\n"
	unknownKey := "kernel: {image: test/kernel, cmdline: x, tar: none}\ninit: [test/init]\nservice: []\n"
	otherArch := "kernel: {image: seatrial/other, cmdline: x}\n"
	unknownImage := "kernel: {image: seatrial/nosuch, cmdline: x}\n"
	for name, c := range map[string]struct {
		args   []string
		status int
		says   []string // regular expressions, on standard error or output
	}{
		"unknown verb":       {[]string{"qualfy"}, 2, []string{`unknown command "qualfy"`, "Did you mean", "qualify", "--help"}},
		"unknown flag":       {[]string{"build", "--outptu", "x"}, 2, []string{"unknown flag: --outptu", "--help"}},
		"too many arguments": {[]string{"run", "a.yml", "b.yml"}, 2, []string{"accepts at most 1 arg"}},
		"negative limit":     {[]string{"prune", "--limit", "-1"}, 2, []string{"--limit -1: give 0 or more"}},
		"import of nothing":  {[]string{"import", "none.tar"}, 2, []string{"cannot import none.tar: stat none.tar: no such file"}},
		"import of a YAML":   {[]string{"import", "broken.yml"}, 2, []string{"not a sound tar archive"}},
		"unknown format":     {[]string{"build", "-f", "iso"}, 2, []string{`unknown format "iso"`, "iso-bios +CD for BIOS"}},
		"no BIOS there":      {[]string{"build", "-f", "iso-bios", "--arch", "arm64"}, 2, []string{"there is no BIOS on arm64, so no iso-bios"}},
		"YAML from a server": {[]string{"build", "https://example.com/a.yml"}, 2, []string{"not fetched from the network", "curl"}},
		"unknown arch":       {[]string{"build", "--arch", "mips"}, 2, []string{`unknown architecture "mips"`, "amd64, arm64"}},
		"unknown accel":      {[]string{"doctor", "--accel", "hvf"}, 2, []string{`unknown accelerator "hvf"`, "tcg, kvm"}},
		"KVM for another":    {[]string{"doctor", "--arch", otherThanHost(), "--accel", "kvm"}, 2, []string{"KVM was forced", "can only be emulated", "force tcg"}},
		"unknown component":  {[]string{"components", "kernle"}, 2, []string{`invalid argument "kernle"`, "--help"}},
		"unknown benchmark":  {[]string{"bench", "boto"}, 2, []string{`invalid argument "boto"`}},

		"lock of one component":   {[]string{"components", "--update-lock", "kernel"}, 2, []string{"name none"}},
		"lock outside a checkout": {[]string{"components", "--update-lock"}, 2, []string{"no such file", "checkout"}},

		"missing file":             {[]string{"build", "none.yml"}, 2, []string{"none.yml: no such file", "give the path of an image's YAML"}},
		"missing file, run":        {[]string{"run", "none.yml"}, 2, []string{"none.yml: no such file"}},
		"missing file, test":       {[]string{"test", "none.yml"}, 2, []string{"none.yml: no such file"}},
		"missing file, lint":       {[]string{"lint", "none.yml"}, 2, []string{"none.yml: no such file"}},
		"folder":                   {[]string{"build", "folder"}, 2, []string{"folder is a folder", "folder/image.yml"}},
		"folder, run":              {[]string{"run", "folder"}, 2, []string{"folder is a folder"}},
		"folder, lint":             {[]string{"lint", "folder"}, 2, []string{"folder is a folder"}},
		"broken YAML":              {[]string{"build", "broken.yml"}, 2, []string{`broken\.yml:\d+:\d+: `}},
		"broken YAML, run":         {[]string{"run", "broken.yml"}, 2, []string{`broken\.yml:\d+:\d+: `}},
		"broken YAML, test":        {[]string{"test", "broken.yml"}, 2, []string{`broken\.yml:\d+:\d+: `}},
		"broken YAML, lint":        {[]string{"lint", "broken.yml"}, 2, []string{`broken\.yml:\d+:\d+: `}},
		"unknown key":              {[]string{"build", "key.yml"}, 2, []string{`key\.yml:3:\d+: .*service`, "services"}},
		"unknown key, lint":        {[]string{"lint", "key.yml"}, 2, []string{`key\.yml:3:\d+: .*service`, "services"}},
		"unknown key, lint JSON":   {[]string{"lint", "--json", "key.yml"}, 2, []string{`"line": 3`, `"hint": `}},
		"unknown image":            {[]string{"build", "image.yml"}, 2, []string{`image\.yml:1:\d+: .*seatrial/nosuch`, "seatrial components"}},
		"unknown image, run":       {[]string{"run", "image.yml"}, 2, []string{`image\.yml:1:\d+: .*seatrial/nosuch`}},
		"unknown image, test":      {[]string{"test", "image.yml"}, 2, []string{`image\.yml:1:\d+: .*seatrial/nosuch`}},
		"image of another arch":    {[]string{"build", "other.yml", "--arch", "arm64"}, 2, []string{`other\.yml:1:\d+: .*seatrial/other is there for amd64, but not.* for arm64`}},
		"lint without a file":      {[]string{"lint"}, 2, []string{"requires at least 1 arg"}},
		"port of nobody":           {[]string{"run", "guest.yml", "--publish", "0"}, 2, []string{"--publish 0: give a TCP port"}},
		"port without a card":      {[]string{"run", "guest.yml", "--net", "none", "--publish", "80"}, 2, []string{"without a card no port"}},
		"unknown network":          {[]string{"run", "guest.yml", "--net", "tap"}, 2, []string{`--net "tap": give none, closed or open`}},
		"unknown medium":           {[]string{"run", "guest.yml", "--format", "iso"}, 2, []string{`unknown format "iso"`}},
		"missing CD":               {[]string{"run", "guest.yml", "--cd", "none.iso"}, 2, []string{"--cd none.iso: open none.iso: no such file"}},
		"CD that is a folder":      {[]string{"run", "guest.yml", "--cd", "folder"}, 2, []string{"--cd folder: is a folder"}},
		"no medium":                {[]string{"run", "guest.yml", "--format", "tar"}, 2, []string{"no machine boots from a tar", "iso-efi"}},
		"medium for BIOS on arm64": {[]string{"run", "guest.yml", "--format", "iso-bios", "--arch", "arm64"}, 2, []string{"there is no BIOS on arm64"}},
		"variables without UEFI":   {[]string{"run", "guest.yml", "--format", "raw-bios", "--uefi-vars", "v.fd"}, 2, []string{"the medium raw-bios boots without UEFI"}},
		"missing disk":             {[]string{"run", "guest.yml", "--disk", "none.img"}, 2, []string{"--disk none.img: .*no such file", "truncate -s"}},
		"folder as disk":           {[]string{"run", "guest.yml", "--disk", "folder"}, 2, []string{"--disk folder: it is a folder"}},
		"unknown disk option":      {[]string{"run", "guest.yml", "--disk", "guest.yml,readonly"}, 2, []string{`unknown option "readonly"`, "known are .*ro"}},
		"unknown disk format":      {[]string{"run", "guest.yml", "--disk", "guest.yml,format=vmdk"}, 2, []string{`unknown option "format=vmdk"`, "qcow2"}},
		"no disk":                  {[]string{"run", "guest.yml", "--disk", ""}, 2, []string{"no file is named"}},
		"bad memory":               {[]string{"run", "guest.yml", "--mem", "lots"}, 2, []string{`--mem "lots"`, "512M"}},
		"little memory":            {[]string{"run", "guest.yml", "--mem", "1M"}, 2, []string{"64 MiB or more"}},
		"no CPUs":                  {[]string{"run", "guest.yml", "--cpus", "0"}, 2, []string{"--cpus 0"}},
		"bad agent":                {[]string{"run", "guest.yml", "--agent", "maybe"}, 2, []string{"on or off"}},
		"bad escape":               {[]string{"run", "guest.yml", "--escape", "x"}, 2, []string{"--escape"}},
		"many at once":             {[]string{"run", "--mem", "x", "--cpus", "0", "--disk", "none"}, 2, []string{"--mem", "--cpus", "--disk none"}},
		"output is a file":         {[]string{"build", "guest.yml", "-o", "guest.yml"}, 3, []string{"guest.yml", "choose .*-o"}},
		"reports into a file":      {[]string{"test", "guest.yml", "--out", "guest.yml"}, 3, []string{"not a directory", "--out"}},
		"something called latest":  {[]string{"test", "guest.yml", "--out", "folder"}, 2, []string{"folder/latest is in the way", "--out"}},
		"cache is a file":          {[]string{"build", "guest.yml", "--cache", "guest.yml"}, 3, []string{"cache folder", "--cache"}},
		"no run":                   {[]string{"report"}, 2, []string{"no run in out/latest", "run.json"}},
		"no such run":              {[]string{"report", "folder"}, 2, []string{"no run in folder"}},
		"a run that is not one":    {[]string{"report", "notrun"}, 2, []string{"run.json"}},
		"no evidence":              {[]string{"repro", "folder"}, 2, []string{"no evidence of a machine", "RUN/machines/NAME"}},
		"evidence, image gone":     {[]string{"repro", "evidence"}, 2, []string{"image of machine m is gone", "/nowhere/kernel"}},
		"suite of another arch":    {[]string{"qualify", "--arch", "arm64", "--install=false"}, 2, []string{"no suite in "}}, // the arch is no reason
		"no suite":                 {[]string{"qualify", "--install=false"}, 2, []string{"no suite in ", "checkout", "seatrial test"}},
		"bill into a folder":       {[]string{"build", "guest.yml", "--sbom", "folder"}, 2, []string{"folder", "--sbom"}},
		"figures that are not":     {[]string{"bench", "--table", "page.md"}, 2, []string{"bench.json", "make bench"}},
		"benchmarks without a run": {[]string{"bench", "--runs", "0"}, 2, []string{"--runs 0"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newShop(t)
			s.stock("amd64", guestText)
			s.write("broken.yml", broken)
			s.write("key.yml", unknownKey)
			s.write("image.yml", unknownImage)
			s.write("other.yml", otherArch)
			for _, dir := range []string{"folder/latest", "notrun", "evidence"} {
				if err := os.MkdirAll(filepath.Join(s.dir, dir), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			s.write("notrun/run.json", "{}")
			s.write("evidence/machine.json", `{"Name":"m","Arch":"amd64","Kernel":"/nowhere/kernel"}`)
			before := left(t, s.dir, s.temp)
			got := s.run(c.args...)
			if got.status != c.status {
				t.Errorf("status %d, want %d", got.status, c.status)
			}
			for _, want := range c.says {
				if !regexp.MustCompile(want).MatchString(got.stderr + got.stdout) {
					t.Errorf("does not say %q:\n%s%s", want, got.stderr, got.stdout)
				}
			}
			if got.stdout != "" && c.args[0] != "lint" {
				t.Errorf("on standard output: %s", got.stdout)
			}
			if after := left(t, s.dir, s.temp); !slices.Equal(before, after) {
				t.Errorf("left behind: before %q, after %q", before, after)
			}
		})
	}
}

// The same requests, made well, succeed: the refusals are not for everything.
func TestGoodInput(t *testing.T) {
	s := newShop(t)
	s.stock("amd64", guestText)
	const unseen = ".yml:1:59: kernel.tar: names no archive of modules, so modules were not looked for; make sure that overlay, virtio_pci, virtio_blk and virtio_net are built into the kernel\n"
	if got := s.run("lint", "guest.yml"); got != (said{stderr: "note: guest" + unseen}) {
		t.Errorf("lint: %+v", got)
	}
	s.write("absent.yml", strings.Replace(guestYAML, "test/init", "test/init, test/absent", 1))
	if got := s.run("lint", "absent.yml"); got.status != 0 || got.stdout != "" || !strings.HasPrefix(got.stderr, "note: absent"+unseen+"note: absent.yml:2:19: init[1]: test/absent is not in the local store") {
		t.Errorf("lint, image not at hand: %+v", got)
	}
	s.write("bare.yml", strings.Replace(guestYAML, "test/init", "test/kernel", 1))
	if got := s.run("lint", "bare.yml"); got.status != 2 || !strings.Contains(got.stdout, "none of the images holds /init") || got.stderr != "note: bare"+unseen {
		t.Errorf("lint, no /init: %+v", got)
	}
	got := s.run("build", "guest.yml", "-o", "made")
	if got.status != 0 || got.stdout != "made/guest-kernel\nmade/guest-initrd.img\nmade/guest-cmdline\n" {
		t.Errorf("build: %+v", got)
	}
	if got := s.run("build", "guest.yml", "-o", "made", "--json"); got.status != 0 || !strings.Contains(got.stdout, `"digest": "sha256:`) {
		t.Errorf("build --json: %+v", got)
	}
	if got := s.run("build", "guest.yml", "-o", "made", "--sbom", "made/guest.cdx.json"); got.status != 0 {
		t.Errorf("build --sbom: %+v", got)
	}
	bill, err := os.ReadFile(filepath.Join(s.dir, "made", "guest.cdx.json"))
	if err != nil || !strings.Contains(string(bill), `"name": "test/init"`) {
		t.Errorf("%v: %s", err, bill)
	}
}

// emptyPath is a $PATH with nothing but the named programs: the host's own go,
// and others that fail.
func emptyPath(t *testing.T, programs ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, p := range programs {
		if p == "go" {
			real, err := exec.LookPath(p)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(real, filepath.Join(dir, p)); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, p), []byte("#!/bin/sh\nexit 1\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestHostThatLacksThings(t *testing.T) {
	for name, c := range map[string]struct {
		have []string
		args []string
		says []string
		not  string
	}{
		"no QEMU":             {[]string{"apt-get"}, []string{"run", "guest.yml"}, []string{"qemu-system-x86", "seatrial doctor"}, ""},
		"no QEMU, test":       {[]string{"apt-get"}, []string{"test", "guest.yml"}, []string{"qemu-system-x86", "seatrial doctor"}, ""},
		"doctor":              {[]string{"apt-get"}, []string{"doctor"}, []string{"missing: qemu-system-x86_64 .*package qemu-system-x86", "mkfs.ext4", "missing: go .*: install Go", "apt-get install qemu-system-x86 e2fsprogs dpkg\n"}, "missing: apt-get"},
		"doctor, arm64":       {[]string{"apt-get"}, []string{"doctor", "--arch", "arm64"}, []string{"missing: qemu-system-aarch64 .*package qemu-system-arm"}, "x86"},
		"doctor, no apt":      {nil, []string{"doctor", "--install"}, []string{"missing: apt-get", "no apt-get here"}, "apt-get install"},
		"doctor, apt fails":   {[]string{"apt-get", "sudo"}, []string{"doctor", "--install"}, []string{"apt-get update: exit status 1"}, ""},
		"doctor, JSON":        {[]string{"apt-get"}, []string{"doctor", "--json"}, []string{`"missing": \[`}, ""},
		"components, no apt":  {[]string{"go"}, []string{"components", "kernel"}, []string{"component kernel for amd64", "seatrial doctor"}, ""},
		"qualify, no apt-get": {nil, []string{"qualify", "suite"}, []string{"missing: qemu-system-x86_64", "no apt-get here"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newShop(t)
			s.stock("amd64", guestText)
			if err := os.Mkdir(filepath.Join(s.dir, "suite"), 0o755); err != nil {
				t.Fatal(err)
			}
			s.write("suite/x_test.go", "package suite\n")
			s.path = emptyPath(t, c.have...)
			before := left(t, s.dir, s.temp)
			got := s.run(c.args...)
			if got.status != 3 {
				t.Errorf("status %d, want 3", got.status)
			}
			for _, want := range c.says {
				if !regexp.MustCompile(want).MatchString(got.stderr + got.stdout) {
					t.Errorf("does not say %q:\n%s%s", want, got.stderr, got.stdout)
				}
			}
			if c.not != "" && strings.Contains(got.stderr, c.not) {
				t.Errorf("says %q:\n%s", c.not, got.stderr)
			}
			if after := left(t, s.dir, s.temp); !slices.Equal(before, after) {
				t.Errorf("left behind: before %q, after %q", before, after)
			}
		})
	}
}

// A full disk is named, with the flag that chooses another, and holds nothing
// of ours afterwards that was not there before.
func TestFullDisk(t *testing.T) {
	full := t.TempDir()
	if err := syscall.Mount("tmpfs", full, "tmpfs", 0, "size=64k"); err != nil {
		t.Skip("needs to mount a small file system: ", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(full, 0); err != nil {
			t.Error(err)
		}
	})
	if err := os.WriteFile(filepath.Join(full, "ballast"), make([]byte, 128<<10), 0o644); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal("the file system is not full: ", err)
	}
	for name, c := range map[string]struct {
		args []string
		flag string
	}{
		"build output":  {[]string{"build", "guest.yml", "-o", full + "/o"}, "-o"},
		"test reports":  {[]string{"test", "guest.yml", "--out", full + "/t"}, "--out"},
		"build cache":   {[]string{"build", "guest.yml", "--cache", full + "/c"}, "--cache"},
		"doctor, cache": {[]string{"doctor", "--cache", full + "/d"}, "--cache"},
	} {
		t.Run(name, func(t *testing.T) {
			s := machines(t, guestText)
			look := func() []string {
				return slices.DeleteFunc(left(t, s.dir, s.temp, full), func(path string) bool {
					info, err := os.Stat(full + path)
					return c.flag == "--cache" && err == nil && info.IsDir() // those of a cache may stay, empty
				})
			}
			before := look()
			got := s.run(c.args...)
			if got.status != 3 || !strings.Contains(got.stderr, "no space left on device") || !strings.Contains(got.stderr, "choose another place with "+c.flag) {
				t.Errorf("%+v", got)
			}
			if after := look(); !slices.Equal(before, after) {
				t.Errorf("left behind: before %q, after %q", before, after)
			}
		})
	}
}

// A file system that takes nothing is named, with the flag that chooses another.
func TestReadOnlyPlaces(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_RDONLY, "size=64k"); err != nil {
		t.Skip("needs to mount a small file system: ", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	for flag, args := range map[string][]string{
		"-o":      {"build", "guest.yml", "-o", dir + "/o"},
		"--cache": {"build", "guest.yml", "--cache", dir + "/c"},
		"--out":   {"qualify", "suite", "--install=false", "--out", dir + "/q"},
	} {
		s := newShop(t)
		s.stock("amd64", guestText)
		if err := os.Mkdir(filepath.Join(s.dir, "suite"), 0o755); err != nil {
			t.Fatal(err)
		}
		s.write("suite/x_test.go", "package suite\n")
		got := s.run(args...)
		if got.status != 3 || !strings.Contains(got.stderr, "read-only file system") || !strings.Contains(got.stderr, "write to with "+flag) {
			t.Errorf("%v: %+v", args, got)
		}
	}
}

func TestCompletion(t *testing.T) {
	s := newShop(t)
	for line, want := range map[string]string{
		"components k":  "kernel",
		"run --agent o": "off",
		"--arch a":      "arm64",
		"run ":          "yml",
		"qual":          "qualify",
	} {
		args := strings.Split(line, " ")
		if got := s.run(append([]string{"__complete"}, args...)...); !strings.Contains(got.stdout, want) {
			t.Errorf("%q: %q is not offered:\n%s", line, want, got.stdout)
		}
	}
	if got := s.run("__complete", "components", "k"); strings.Contains(got.stdout, "runc") {
		t.Errorf("offers what does not begin with k: %s", got.stdout)
	}
}

// Every verb's help says how it is used, by example.
func TestHelp(t *testing.T) {
	o := &options{}
	for _, cmd := range root(o).Commands() {
		if cmd.Name() == "help" || cmd.Name() == "completion" {
			continue
		}
		if cmd.Example == "" || cmd.Long == "" {
			t.Errorf("%s: no example, or no description", cmd.Name())
		}
		for _, line := range strings.Split(cmd.Example, "\n") {
			if !strings.Contains(line, "seatrial "+cmd.Name()) {
				t.Errorf("%s: the example %q is of something else", cmd.Name(), line)
			}
		}
	}
	if !strings.Contains(about, "Exit status:") {
		t.Error("the exit statuses are not explained")
	}
}

// otherThanHost is an architecture that this host can only emulate.
func otherThanHost() string {
	if runtime.GOARCH == "amd64" {
		return "arm64"
	}
	return "amd64"
}

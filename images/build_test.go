package images

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seatrial/seatrial/boot"
)

const machine = `
kernel:
  image: test/kernel
  cmdline: "console=tty0   console=ttyS0"
init:
  - test/init
onboot:
  - name: first
    image: test/shell
    command: [/bin/sh, -c, "echo hi"]
    readonly: true
services:
  - name: web
    image: test/web
    env: [A=1]
    binds.add: ["/etc/resolv.conf:/etc/resolv.conf:ro"]
    runtime: {mkdir: [/var/lib/web], namespace: mine}
  - name: shell
    image: test/shell
files:
  - path: /etc/deep/er/conf
    contents: "x=1\n"
  - path: /usr/local/script
    source: script.sh
    mode: "0755"
  - {path: /opt/gone, source: nothing-here, optional: true}
  - {path: /opt/link, symlink: /usr/local/script}
  - {path: /srv/data, directory: true, mode: "0750", uid: 7, gid: 8}
`

const webLabel = `{"net": "host", "readonly": false, "binds": ["/dev:/dev"], "capabilities": ["CAP_NET_BIND_SERVICE"], "runtime": {"mkdir": ["/run/web"], "mounts": [{"type": "tmpfs", "destination": "/run/x"}]}}`

func stock(t testing.TB) shelf { return stockFor(t, "amd64") }

func stockFor(t testing.TB, arch string) shelf {
	shell := layer{folder("bin", 0o755), program("bin/sh", "#!shell"), file("etc/hostname", "builder")}
	return shelf{
		"test/kernel":  kernelImage(t, arch),
		"seatrial/efi": image(t, arch, v1.Config{}, layer{file(DiskLoader, "systemd-boot of "+arch), file(NetLoader, "GRUB of "+arch)}),
		"test/init":    image(t, arch, v1.Config{}, layer{program("init", "PID 1"), hardlink("sbin/init", "init"), symlink("sbin/poweroff", "init")}),
		"test/shell":   image(t, arch, v1.Config{Cmd: []string{"/bin/sh"}}, shell),
		"test/web": image(t, arch, v1.Config{
			Entrypoint: []string{"/bin/httpd"}, Cmd: []string{"-f"}, Env: []string{"A=0", "B=2"}, WorkingDir: "/www",
			Labels: map[string]string{label: webLabel},
		}, layer{program("bin/httpd", "httpd"), file("www/index.html", "hello")}),
	}
}

// spec writes the YAML and its script into a new folder and loads it.
func spec(t testing.TB, text string) *Spec {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "script.sh"), []byte("#!/bin/sh\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "machine.yml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := LoadSpec(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func build(t testing.TB, dir, text string) *Image {
	t.Helper()
	b := Builder{Source: stock(t), Arch: "amd64", Dir: dir}
	im, err := b.Build(context.Background(), spec(t, text))
	if err != nil {
		t.Fatal(err)
	}
	return im
}

// tree reads the image's initramfs back.
func (im *Image) tree(t testing.TB) *tree {
	t.Helper()
	raw, err := os.ReadFile(im.InitrdPath)
	if err != nil {
		t.Fatal(err)
	}
	tree, err := readInitramfs(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func TestBuild(t *testing.T) {
	im := build(t, t.TempDir(), machine)
	if im.Name != "machine" || im.Arch != "amd64" || im.Cmdline != "console=tty0 console=ttyS0" {
		t.Errorf("image %+v", im)
	}
	if d := cmp.Diff([]string{"web", "shell"}, im.Services); d != "" {
		t.Error(d)
	}
	if len(im.Sources) != 4 || !strings.HasPrefix(im.Sources["test/web"], "sha256:") {
		t.Errorf("sources %v", im.Sources)
	}
	if kernel, err := os.ReadFile(im.KernelPath); err != nil || string(kernel) != "bzImage of amd64" {
		t.Errorf("kernel %q, %v", kernel, err)
	}
	got := map[string]string{}
	root := im.tree(t)
	if err := root.walk(func(name string, e *entry) error {
		got[name] = describeEntry(e)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"init":                        "file 755 0:0 PID 1",
		"sbin/init":                   "file 755 0:0 PID 1",
		"sbin/poweroff":               "link init",
		"lib":                         "dir 755 0:0",
		"lib/modules/6.1/modules.dep": "file 644 0:0 a.ko:\n",
		"dev/console":                 "char 600 0:0 5:1",
		"dev/null":                    "char 666 0:0 1:3",
		"tmp":                         "dir 1777 0:0",
		"etc":                         "dir 755 0:0",
		"etc/deep/er":                 "dir 755 0:0",
		"etc/deep/er/conf":            "file 600 0:0 x=1\n",
		"etc/resolv.conf":             "link /run/resolvconf/resolv.conf",
		"etc/mtab":                    "link /proc/mounts",
		"usr/local/script":            "file 755 0:0 #!/bin/sh\n",
		"opt/link":                    "link /usr/local/script",
		"srv/data":                    "dir 750 7:8",
		"opt/gone":                    "",
		"containers/onboot/000-first/rootfs/bin/sh":  "file 755 0:0 #!shell",
		"containers/onboot/000-first/lower":          "",
		"containers/services/web/lower/bin/httpd":    "file 755 0:0 httpd",
		"containers/services/web/lower/etc/hostname": "",
		"containers/services/web/rootfs":             "dir 755 0:0",
		"containers/services/web/tmp":                "dir 755 0:0",
		"containers/services/shell/lower":            "", // the same files are in the onboot bundle
	} {
		if got[name] != want {
			t.Errorf("%s: got %q, want %q", name, got[name], want)
		}
	}
	if a, b := root.find("init"), root.find("sbin/init"); a.inode != b.inode {
		t.Error("a hard link became two files")
	}
}

func describeEntry(e *entry) string {
	owner := func(kind string) string {
		return kind + " " + octal(e.mode&permMask) + " " + number(e.uid) + ":" + number(e.gid)
	}
	switch e.mode & typeMask {
	case typeDir:
		return owner("dir")
	case typeSymlink:
		return "link " + e.target
	case typeChar:
		return owner("char") + " " + number(e.major) + ":" + number(e.minor)
	}
	data := make([]byte, e.size)
	if _, err := e.data.ReadAt(data, 0); err != nil && e.size > 0 {
		return err.Error()
	}
	return owner("file") + " " + string(data)
}

func TestBundles(t *testing.T) {
	im := build(t, t.TempDir(), machine)
	var config specs.Spec
	var table boot.Runtime
	read := func(path string, into any) {
		t.Helper()
		raw, mode, err := im.ReadFile(path)
		if err == nil {
			err = json.Unmarshal(raw, into)
		}
		if err != nil || mode != 0o644 {
			t.Fatalf("%s: mode %v, %v", path, mode, err)
		}
	}
	read("/containers/services/web/config.json", &config)
	read("/containers/services/web/runtime.json", &table)

	if d := cmp.Diff([]string{"/bin/httpd", "-f"}, config.Process.Args); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"A=1"}, config.Process.Env); d != "" {
		t.Errorf("the YAML replaces all of the image's env: %s", d)
	}
	if config.Process.Cwd != "/www" || config.Root.Path != "rootfs" || config.Root.Readonly {
		t.Errorf("cwd %q, root %+v", config.Process.Cwd, config.Root)
	}
	if d := cmp.Diff([]string{"CAP_NET_BIND_SERVICE"}, config.Process.Capabilities.Bounding); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]specs.LinuxNamespace{{Type: "mount"}, {Type: "pid"}}, config.Linux.Namespaces); d != "" {
		t.Errorf("host network, own processes: %s", d)
	}
	var at []string
	for _, m := range config.Mounts {
		at = append(at, m.Destination+" "+m.Type)
	}
	if d := cmp.Diff([]string{"/dev bind", "/dev/pts devpts", "/etc/resolv.conf bind", "/proc proc", "/sys sysfs", "/sys/fs/cgroup cgroup"}, at); d != "" {
		t.Error(d)
	}
	at0 := "/containers/services/web/"
	if d := cmp.Diff(boot.Runtime{
		Mounts: []boot.RuntimeMount{
			{Destination: at0 + "tmp", Type: "tmpfs", Source: "tmpfs"},
			{Destination: at0 + "tmp", Options: []string{"remount", "private"}},
			{Destination: at0 + "rootfs", Type: "overlay", Source: "overlay", Options: []string{"lowerdir=" + at0 + "lower", "upperdir=" + at0 + "tmp/upper", "workdir=" + at0 + "tmp/work"}},
			{Destination: "/run/x", Type: "tmpfs"},
		},
		Mkdir:     []string{"/var/lib/web"},
		Namespace: "mine",
	}, table); d != "" {
		t.Error(d)
	}

	table = boot.Runtime{}
	read("/containers/onboot/000-first/runtime.json", &table)
	rootfs := "/containers/onboot/000-first/rootfs"
	if d := cmp.Diff(boot.Runtime{Mounts: []boot.RuntimeMount{{Destination: rootfs, Source: rootfs, Type: "bind", Options: []string{"bind"}}}}, table); d != "" {
		t.Error(d)
	}
	table = boot.Runtime{}
	read("/containers/services/shell/runtime.json", &table)
	if len(table.Mounts) != 3 || table.Mounts[2].Options[0] != "lowerdir="+rootfs {
		t.Errorf("the shared image's files are in the onboot bundle: %+v", table.Mounts)
	}
	if _, _, err := im.ReadFile("/containers/services/none/config.json"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}

// A source whose path leads through a file is as missing as any other.
func TestSourceThroughFile(t *testing.T) {
	file := func(optional string) string {
		return head + "files: [{path: /a, source: script.sh/a, mode: \"0644\"" + optional + "}]\n"
	}
	for optional, want := range map[string]string{", optional: true": "", "": "the source of /a does not exist: "} {
		a := newAssembly(&Builder{}, spec(t, file(optional)))
		if err := cmpErr(a.readSources(t.Context()), a.faults.err()); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v", optional, err)
		}
	}
}

//go:build linux

package guest

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/seatrial/seatrial/boot"
	"golang.org/x/sys/unix"
)

func testModules(t *testing.T) *Modules {
	t.Helper()
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "modules.dep"), `kernel/drivers/virtio/virtio_pci.ko: kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko
kernel/drivers/virtio/virtio_ring.ko: kernel/drivers/virtio/virtio.ko
kernel/drivers/virtio/virtio.ko:
kernel/drivers/net/virtio-net.ko: kernel/drivers/virtio/virtio.ko
kernel/fs/overlayfs/overlay.ko:
`, 0o644)
	writeFile(t, filepath.Join(dir, "modules.alias"), `# Aliases extracted from modules themselves.
alias pci:v00001AF4d*sv*sd*bc*sc*i* virtio_pci
alias virtio:d00000001v* virtio_net
alias x-[a-c]-y overlay
alias fs-overlay overlay
alias pci:v00008086d* absent_driver
`, 0o644)
	writeFile(t, filepath.Join(dir, "modules.builtin"), "kernel/fs/ext4/ext4.ko\n", 0o644)
	m, err := ReadModules(dir)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestModulesFind(t *testing.T) {
	m := testModules(t)
	tests := []struct {
		name  string
		want  []string
		known bool
	}{
		{"overlay", []string{"overlay"}, true},
		{"virtio-net", []string{"virtio_net"}, true},
		{"fs-overlay", []string{"overlay"}, true},
		{"x-b-y", []string{"overlay"}, true},
		{"x-d-y", nil, false},
		{"pci:v00001AF4d00001000sv00001AF4sd00000001bc02sc00i00", []string{"virtio_pci"}, true},
		{"pci:v00008086d00001000sv0", nil, true}, // the driver is not in the image
		{"ext4", nil, true},
		{"nonesuch", nil, false},
		{"", nil, false},
	}
	for _, tt := range tests {
		got, known := m.Find(tt.name)
		if d := cmp.Diff(tt.want, got); d != "" || known != tt.known {
			t.Errorf("%q: known %v, (-want +got)\n%s", tt.name, known, d)
		}
	}
}

func TestModprobe(t *testing.T) {
	m, sys := testModules(t), &recorder{}
	if err := m.Modprobe(sys, "virtio_pci", "a=1"); err != nil {
		t.Fatal(err)
	}
	if err := m.Modprobe(sys, "virtio_net", ""); err != nil {
		t.Fatal(err)
	}
	want := []string{"insert virtio.ko ", "insert virtio_ring.ko ", "insert virtio_pci.ko a=1", "insert virtio-net.ko "}
	if d := cmp.Diff(want, sys.taken()); d != "" {
		t.Errorf("dependencies first, each once (-want +got)\n%s", d)
	}
	if err := m.Modprobe(sys, "nonesuch", ""); err == nil {
		t.Error("an unknown module must be an error")
	}
	sys.fail = map[string]error{"insert overlay": unix.ENOMEM}
	if err := m.Modprobe(sys, "fs-overlay", ""); err == nil {
		t.Error("a refused module must be an error")
	}
}

// appearing is a System in which a driver brings a device with it.
type appearing struct {
	recorder
	after, device string
}

func (a *appearing) InsertModule(file, params string) error {
	if filepath.Base(file) == a.after {
		if err := os.MkdirAll(filepath.Dir(a.device), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(a.device, []byte("virtio:d00000001v00001AF4\n"), 0o644); err != nil {
			return err
		}
	}
	return a.recorder.InsertModule(file, params)
}

func TestColdplug(t *testing.T) {
	m, sysfs := testModules(t), t.TempDir()
	writeFile(t, filepath.Join(sysfs, "bus/pci/devices/0000:00:01.0/modalias"), "pci:v00001AF4d00001000sv00001AF4sd00000001bc02sc00i00\n", 0o644)
	writeFile(t, filepath.Join(sysfs, "bus/pci/devices/0000:00:02.0/modalias"), "pci:v00001234d0\n", 0o644)
	sys := &appearing{after: "virtio_pci.ko", device: filepath.Join(sysfs, "bus/virtio/devices/virtio0/modalias")}
	if err := m.Coldplug(sys, sysfs); err != nil {
		t.Fatal(err)
	}
	want := []string{"insert virtio.ko ", "insert virtio_ring.ko ", "insert virtio_pci.ko ", "insert virtio-net.ko "}
	if d := cmp.Diff(want, sys.taken()); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	refusing := &recorder{fail: map[string]error{"insert virtio_ring": unix.EINVAL}}
	if err := testModules(t).Coldplug(refusing, sysfs); err == nil {
		t.Error("a driver that will not load must be told")
	}
	absent := &recorder{fail: map[string]error{"insert virtio_pci": unix.ENODEV, "insert virtio-net": unix.ENODEV}}
	if err := testModules(t).Coldplug(absent, sysfs); err != nil {
		t.Errorf("a driver without its device is no fault: %v", err)
	}
}

func TestLoadListed(t *testing.T) {
	m, sys, dir := testModules(t), &recorder{}, t.TempDir()
	writeFile(t, filepath.Join(dir, "b.conf"), "# c\n; c\n\n  overlay \nnonesuch\n", 0o644)
	writeFile(t, filepath.Join(dir, "ignored"), "virtio\n", 0o644)
	err := m.LoadListed(sys, dir)
	if err == nil {
		t.Error("an unknown module in the list must be told")
	} else {
		contains(t, err.Error(), "nonesuch")
		contains(t, err.Error(), "b.conf")
	}
	if d := cmp.Diff([]string{"insert overlay.ko "}, sys.taken()); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

func TestReadModulesWithoutDirectory(t *testing.T) {
	m, err := ReadModules(filepath.Join(t.TempDir(), "none"))
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Coldplug(&recorder{}, "/nonexistent"); err != nil {
		t.Error(err)
	}
	if _, err := ReadModules(t.TempDir()); err == nil {
		t.Error("a directory without modules.dep is damaged")
	}
}

// A file system that is a module is mounted once that is loaded; one that the
// kernel has, or lacks, is not asked for again.
func TestMountRest(t *testing.T) {
	for _, c := range []struct {
		name, dep, alias, builtin string
		fail, want                []string
		said                      string
	}{
		{name: "no module"},
		{name: "built in", alias: "alias fs-pstore pstore", builtin: "pstore.ko"},
		{name: "module", dep: "binfmt_misc.ko:", alias: "alias fs-binfmt_misc binfmt_misc",
			want: []string{"insert binfmt_misc.ko ", "mount binfmt_misc /proc/sys/fs/binfmt_misc binfmt_misc 0x20000e "}},
		{name: "damaged", dep: "binfmt_misc.ko:", alias: "alias fs-binfmt_misc binfmt_misc", fail: []string{"insert"},
			want: []string{"insert binfmt_misc.ko "}, said: "init: module binfmt_misc: damaged"},
	} {
		t.Run(c.name, func(t *testing.T) {
			tm := newTestMachine(t)
			for _, f := range c.fail {
				tm.sys.fail[f] = errors.New("damaged")
			}
			dir := filepath.Join(tm.root, "/lib/modules/test")
			for name, text := range map[string]string{"modules.dep": c.dep, "modules.alias": c.alias, "modules.builtin": c.builtin} {
				writeFile(t, filepath.Join(dir, name), text+"\n", 0o644)
			}
			var err error
			if tm.index, err = ReadModules(dir); err != nil {
				t.Fatal(err)
			}
			if err := tm.mountRest(); err != nil {
				t.Error(err)
			}
			if got := tm.sys.taken(); !slices.Equal(got, c.want) {
				t.Errorf("%q, want %q", got, c.want)
			}
			if got := tm.console.String(); !strings.Contains(got, c.said) || (c.said == "") != (got == "") {
				t.Errorf("said %q, want %q", got, c.said)
			}
		})
	}
}

// Until the mounts are there, /sbin/modprobe of the image leads nowhere.
func TestKernelFindsItsHelper(t *testing.T) {
	tm := newTestMachine(t)
	helper := filepath.Join(tm.root, helperLink)
	if _, err := os.Lstat(helper); !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	for _, dir := range []string{"run", "dev"} {
		if err := os.MkdirAll(filepath.Join(tm.root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := populate(tm.root); err != nil {
		t.Fatal(err)
	}
	if got, err := os.Readlink(helper); err != nil || got != boot.InitPath {
		t.Errorf("%q, %v", got, err)
	}
}

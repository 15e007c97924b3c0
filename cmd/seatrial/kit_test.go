package main

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/seatrial/seatrial/images"
	"github.com/seatrial/seatrial/qemu"
)

// TestMain builds the tool once: its verbs are tested as a user meets them.
func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "seatrial-tool-")
	if err == nil {
		err = buildTool(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	status := m.Run()
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		status = 1
	}
	os.Exit(status)
}

// tool is the path of the built tool; TestMain sets it before any test runs.
var tool string

func buildTool(dir string) error {
	tool = filepath.Join(dir, "seatrial")
	if out, err := exec.Command("go", "build", "-o", tool, ".").CombinedOutput(); err != nil {
		return fmt.Errorf("building the tool: %w\n%s", err, out)
	}
	return nil
}

// shop is a place to run the tool in: a working folder, a cache, a folder for
// temporary files.
type shop struct {
	t                *testing.T
	dir, cache, temp string
	path             string // $PATH
}

func newShop(t *testing.T) *shop {
	t.Helper()
	s := &shop{t: t, dir: t.TempDir(), cache: t.TempDir(), temp: t.TempDir(), path: os.Getenv("PATH")}
	return s
}

func (s *shop) write(name, text string) string {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
	return path
}

func (s *shop) command(args ...string) *exec.Cmd {
	c := exec.Command(tool, args...)
	c.Dir = s.dir
	c.Env = append(os.Environ(), "XDG_CACHE_HOME="+s.cache, "TMPDIR="+s.temp, "PATH="+s.path, "TERM=xterm")
	return c
}

// said is what the tool left.
type said struct {
	stdout, stderr string
	status         int
}

func (s *shop) run(args ...string) said {
	s.t.Helper()
	c := s.command(args...)
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		s.t.Fatal(err)
	}
	return said{stdout.String(), stderr.String(), c.ProcessState.ExitCode()}
}

// guestText is what the small guest says when it is up.
const guestText = "[    0.000000] Linux version 6.1\r\nguest: type\r\n"

// guestKernel is a multiboot kernel that prints a text on COM1 and then echoes
// what is typed; q powers the machine off, r resets it.
func guestKernel(text string) string {
	const base, code, size = 0x100000, 0x20, 192
	u32 := binary.LittleEndian.AppendUint32
	var b []byte
	for _, v := range []uint32{0x1badb002, 0x10000, -(0x1badb002 + 0x10000) & 0xffffffff, base, base, 0, 0, base + code} {
		b = u32(b, v)
	}
	b = u32(append(b, 0xbe), base+size)         // mov esi, text
	b = u32(append(b, 0xb9), uint32(len(text))) // mov ecx, its length
	b = append(b,
		0x66, 0xba, 0xfd, 0x03, // again: mov dx, 0x3fd (line status)
		0xec, 0xa8, 0x20, 0x74, 0xfb, // in al, dx; test al, 0x20; jz: transmitter busy
		0x66, 0xba, 0xf8, 0x03, 0xac, 0xee, // mov dx, 0x3f8; lodsb; out dx, al
		0xe2, 0xef) // loop again
	b = append(b,
		0x66, 0xba, 0xfd, 0x03, // next: mov dx, 0x3fd
		0xec, 0xa8, 0x01, 0x74, 0xf7, // in al, dx; test al, 1; jz next
		0x66, 0xba, 0xf8, 0x03, 0xec, // mov dx, 0x3f8; in al, dx
		'<', 'q', 0x74, 0x07, // cmp al, 'q'; je off
		'<', 'r', 0x74, 0x10, // cmp al, 'r'; je reset
		0xee, 0xeb, 0xe7, // out dx, al; jmp next
		0x66, 0xba, 0x04, 0x06, 0x66, 0xb8, 0x00, 0x20, 0x66, 0xef, 0xf4, 0xeb, 0xfd, // off: PM1a_CNT of q35: SLP_EN
		0xb0, 0xfe, 0xe6, 0x64, 0xf4, 0xeb, 0xfd) // reset: by the keyboard controller
	return string(append(append(b, make([]byte, size-len(b))...), text...))
}

const guestYAML = "kernel: {image: test/kernel, cmdline: console=ttyS0, tar: none}\ninit: [test/init]\n"

// stock puts the small guest's components into the cache of the shop and
// writes guest.yml.
func (s *shop) stock(arch, text string) {
	s.t.Helper()
	store, err := images.OpenStore(filepath.Join(s.cache, "seatrial", "store"))
	if err != nil {
		s.t.Fatal(err)
	}
	for ref, files := range map[string]map[string]string{
		"test/kernel": {"kernel": guestKernel(text)},
		"test/init":   {"init": "#!/bin/false\n"},
		// One of our own names, which no registry is asked for.
		images.Own + "other": {"kernel": ""},
	} {
		if err := store.Put(s.t.Context(), ref, archive(s.t, arch, files)); err != nil {
			s.t.Fatal(err)
		}
	}
	s.write("guest.yml", guestYAML)
}

func archive(t *testing.T, arch string, files map[string]string) v1.Image {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, text := range files {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o755, Size: int64(len(text))}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, text); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	im, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{OS: "linux", Architecture: arch, RootFS: v1.RootFS{Type: "layers"}})
	if err != nil {
		t.Fatal(err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	if im, err = mutate.AppendLayers(im, layer); err != nil {
		t.Fatal(err)
	}
	return im
}

// machines is a shop with the small guest, on a host that can run it.
func machines(t *testing.T, text string) *shop {
	t.Helper()
	if _, _, err := qemu.Find("amd64"); err != nil {
		t.Skip("needs QEMU: ", err)
	}
	s := newShop(t)
	s.stock("amd64", text)
	return s
}

// children are the processes that a process started and that still are.
func children(t *testing.T, pid int) []int {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	var all []int
	for _, path := range tasks {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // the thread has just ended
		}
		for _, word := range strings.Fields(string(b)) {
			child, err := strconv.Atoi(word)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, child)
		}
	}
	return all
}

// gone waits until a process is no more, or only waits to be reaped.
func gone(t *testing.T, pid int) {
	t.Helper()
	await(t, fmt.Sprintf("the end of process %d", pid), func() bool {
		if syscall.Kill(pid, 0) != nil {
			return true
		}
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err != nil || strings.Contains(string(b), ") Z ")
	})
}

// patience is for what takes milliseconds on a quiet host.
const patience = time.Minute

func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited %v for %s", patience, what)
		}
	}
}

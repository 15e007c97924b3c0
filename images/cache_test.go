package images

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// The same inputs give the same bytes, wherever and under whatever umask.
func TestReproducible(t *testing.T) {
	first := build(t, t.TempDir(), machine)
	old := syscall.Umask(0o077)
	second := build(t, t.TempDir(), machine)
	syscall.Umask(old)
	if first.Digest != second.Digest || first.InitrdPath == second.InitrdPath {
		t.Errorf("%s and %s", first.Digest, second.Digest)
	}
	for _, paths := range [][2]string{{first.InitrdPath, second.InitrdPath}, {first.KernelPath, second.KernelPath}} {
		a, errA := os.ReadFile(paths[0])
		b, errB := os.ReadFile(paths[1])
		if err := errors.Join(errA, errB); err != nil || !bytes.Equal(a, b) {
			t.Errorf("%s and %s differ, %v", paths[0], paths[1], err)
		}
	}
	for what, change := range map[string]string{
		"a file":      strings.Replace(machine, "x=1", "x=2", 1),
		"a mode":      strings.Replace(machine, `"0755"`, `"0754"`, 1),
		"the cmdline": strings.Replace(machine, "ttyS0", "ttyS1", 1),
		"a service":   strings.Replace(machine, "net: host", "net: new", 1) + "  - {path: /x, contents: y}\n",
	} {
		if other := build(t, t.TempDir(), change); other.Digest == first.Digest {
			t.Errorf("%s was changed, and not the digest", what)
		}
	}
}

func TestCache(t *testing.T) {
	dir := t.TempDir()
	var said []string
	s := spec(t, machine)
	b := Builder{Source: stock(t), Arch: "amd64", Dir: dir, Progress: func(line string) { said = append(said, line) }}
	first, err := b.Build(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	if len(said) == 0 {
		t.Error("a build without a word")
	}
	said = nil
	again, err := b.Build(t.Context(), s)
	if err != nil || len(said) > 0 {
		t.Errorf("%v; nothing has changed, but: %q", err, said)
	}
	if d := cmp.Diff(first, again, cmpopts.IgnoreUnexported(Image{})); d != "" {
		t.Error(d)
	}
	s.Name = "other"
	if renamed, err := b.Build(t.Context(), s); err != nil || renamed.Name != "other" || len(said) > 0 {
		t.Errorf("the name is not content: %+v, %v, %q", renamed, err, said)
	}
	source := s.Files[1].Source
	if err := os.WriteFile(source, []byte("#!/bin/bash\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	changed, err := b.Build(t.Context(), s)
	if err != nil || changed.Digest == first.Digest {
		t.Errorf("a source has changed: %+v, %v", changed, err)
	}
	if err := os.Truncate(changed.InitrdPath, 100); err != nil {
		t.Fatal(err)
	}
	mended, err := b.Build(t.Context(), s)
	if err != nil || mended.Digest != changed.Digest {
		t.Fatalf("%+v, %v", mended, err)
	}
	if info, err := os.Stat(mended.InitrdPath); err != nil || info.Size() <= 100 {
		t.Errorf("an image that was cut short is given out: %v, %v", info, err)
	}
	onlyImages(t, dir, 3) // two, and what both began with
}

// onlyImages fails if there is anything but n complete images in a cache.
func onlyImages(t *testing.T, dir string, n int) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if _, err := readImage(filepath.Join(dir, e.Name())); err != nil {
			t.Errorf("left behind: %s (%v)", e.Name(), err)
		}
		files, err := os.ReadDir(filepath.Join(dir, e.Name()))
		if err != nil || len(files) != 4 {
			t.Errorf("%s holds %v, %v", e.Name(), files, err)
		}
	}
	if len(entries) != n {
		t.Errorf("%d images, want %d", len(entries), n)
	}
}

func TestBuildErrors(t *testing.T) {
	service := head + "services:\n  - name: web\n    image: test/web\n    "
	for name, c := range map[string]struct {
		arch, text string
		change     func(shelf)
		want       []string
	}{
		"unknown image":     {"amd64", head + "init: [test/none]\n", nil, []string{"machine.yml:2:8: init[0]: not in the local layout"}},
		"two unknown":       {"amd64", head + "init: [a]\nservices: [{name: x, image: b}]\n", nil, []string{"machine.yml:2:8: ", "machine.yml:3:29: "}},
		"wrong arch":        {"arm64", head, nil, []string{"machine.yml:1:17: kernel.image: image test/kernel is for amd64, not for arm64; choose an image for arm64"}},
		"unknown arch":      {"x86_64", head, nil, []string{`unknown architecture "x86_64": amd64 and arm64 are known`}},
		"missing source":    {"amd64", head + "files:\n  - {path: /a, source: gone}\n", nil, []string{"machine.yml:3:24: files[0].source: the source of /a does not exist: ", "gone; make it, or add optional: true"}},
		"source is folder":  {"amd64", head + "files:\n  - {path: /a, source: .}\n", nil, []string{"machine.yml:3:24: files[0].source: cannot read the source of /a: ", "is not a regular file; name a single file"}},
		"no kernel inside":  {"amd64", "kernel: {image: test/kernel, binary: bzImage}\n", nil, []string{`machine.yml:1:38: kernel.binary: image test/kernel has no file "bzImage"; name the kernel's file`}},
		"no modules inside": {"amd64", "kernel: {image: test/web, binary: bin/httpd}\n", nil, []string{`image test/web has no file "kernel.tar"; name the archive of modules with kernel.tar, or write tar: none`}},
		"no command":        {"amd64", head + "services:\n  - {name: x, image: test/init}\n", nil, []string{`machine.yml:3:5: services[0].command: neither the YAML nor the image test/init has one; add one`}},
		"hostname":          {"amd64", service + "hostname: h\n", nil, []string{`machine.yml:5:15: services[0].hostname: "h" needs a namespace of its own; add uts: new`}},
		"bad label": {"amd64", service, func(s shelf) {
			s["test/web"] = image(t, "amd64", v1.Config{Labels: map[string]string{label: `{"bindz": [], "uid": "nobody"}`}})
		}, []string{`machine.yml:4:12: services[0].image: image test/web, label org.mobyproject.config:1:2: unknown key "bindz"; did you mean "binds"?`}},
		"hostile layer": {"amd64", service, func(s shelf) {
			s["test/web"] = image(t, "amd64", v1.Config{Cmd: []string{"x"}}, layer{file("../x", "")})
		}, []string{"machine.yml:4:12: services[0].image: image test/web: layer 1 of 1: ", "climbs out of the root"}},
		"kernel.tar is none": {"amd64", head, func(s shelf) {
			s["test/kernel"] = image(t, "amd64", v1.Config{}, layer{file("kernel", "k"), file("kernel.tar", strings.Repeat("no tar", 200))})
		}, []string{"kernel.tar in image test/kernel: not a sound tar archive"}},
	} {
		t.Run(name, func(t *testing.T) {
			shelf := stock(t)
			if c.change != nil {
				c.change(shelf)
			}
			b := Builder{Source: shelf, Arch: c.arch, Dir: t.TempDir()}
			im, err := b.Build(t.Context(), spec(t, c.text))
			if err == nil {
				t.Fatalf("built %+v", im)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got  %v\nwant %s", err, want)
				}
			}
			onlyImages(t, b.Dir, 0)
		})
	}
	// And what differs from the above only in being right is built.
	for _, right := range []string{head, service, service + "hostname: h\n    uts: new\n", "kernel: {image: test/web, binary: bin/httpd, tar: none}\n"} {
		build(t, t.TempDir(), right)
	}
}

func TestExplain(t *testing.T) {
	full := explain(&fs.PathError{Op: "write", Path: "/none/x/y", Err: syscall.ENOSPC}, "/z")
	if !errors.Is(full, syscall.ENOSPC) || !strings.Contains(full.Error(), "no room in /none/x: free some, or choose another folder") {
		t.Errorf("got %v", full)
	}
	if other := errors.New("other"); explain(other, "/x") != other {
		t.Error("an error of another kind was changed")
	}
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, nil, 0); err != nil {
		t.Fatal(err)
	}
	denied := explain(&fs.PathError{Op: "open", Path: secret, Err: syscall.EACCES}, "/cache")
	if strings.Contains(denied.Error(), "/cache") || !strings.Contains(denied.Error(), "may not use it: change its owner or mode") {
		t.Errorf("a file that is only read: got %v", denied)
	}
	denied = explain(&fs.PathError{Op: "mkdir", Path: "/sealed/x", Err: syscall.EACCES}, "/cache")
	if !strings.Contains(denied.Error(), "may not write in /sealed: change its owner or mode, or choose another folder") {
		t.Errorf("a folder: got %v", denied)
	}
}

const childFull = "SEATRIAL_TEST_FULL"

// What is full or read-only is named, and what to do about it: the cache, the
// store or the folder for temporary files. The file systems are real ones, in a
// mount namespace of a child.
func TestFullDisk(t *testing.T) {
	if os.Getenv(childFull) == "" {
		child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestFullDisk$", "-test.v")
		child.Env = append(os.Environ(), childFull+"=1")
		child.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
		if os.Getuid() != 0 {
			child.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
			child.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
			child.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
		}
		out, err := child.CombinedOutput()
		skipForbidden(t, err)
		if err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	disk := func(options string, flags uintptr) string {
		t.Helper()
		dir := t.TempDir()
		if err := syscall.Mount("tmpfs", dir, "tmpfs", flags, options); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
		return dir
	}
	roomy, small, few, sealed := disk("", 0), disk("size=64k", 0), disk("nr_inodes=6", 0), disk("", syscall.MS_RDONLY)
	archive := ociArchive(t, "a:1", false, nil, image(t, "amd64", v1.Config{}, layer{file("a", strings.Repeat("x", 200_000))}))
	shelf := stock(t)
	shelf["test/kernel"] = image(t, "amd64", v1.Config{}, layer{file("kernel", strings.Repeat("k", 200_000)), file("kernel.tar", string(layer{}.archive(t)))})
	builds := func(dir string) error {
		_, err := (&Builder{Source: shelf, Arch: "amd64", Dir: dir}).Build(t.Context(), spec(t, head))
		return err
	}
	imports := func(dir, tmp string) error {
		t.Setenv("TMPDIR", tmp)
		s, err := OpenStore(dir)
		if err == nil {
			_, err = s.Import(t.Context(), archive, "")
		}
		return err
	}
	for what, c := range map[string]struct {
		err  error
		want string
	}{
		"build":              {builds(filepath.Join(roomy, "c")), ""},
		"import":             {imports(filepath.Join(roomy, "s"), roomy), ""},
		"build, full":        {builds(small), "no room in " + small},
		"build, no inodes":   {builds(few), "no room in " + few},
		"build, sealed":      {builds(filepath.Join(sealed, "c")), sealed + " is mounted read-only: mount it to be written, or choose another folder"},
		"import, full":       {imports(small, roomy), "no room in " + small + "/blobs/sha256 (0 MiB are left of 0): free some, or choose another folder"},
		"import, full tmp":   {imports(filepath.Join(roomy, "t"), small), "no room in " + small + " ("},
		"import, tmp":        {imports(filepath.Join(roomy, "u"), small), "or let TMPDIR name another folder"},
		"import, sealed":     {imports(sealed, roomy), sealed + " is mounted read-only"},
		"import, sealed tmp": {imports(filepath.Join(roomy, "v"), sealed), sealed + " is mounted read-only: mount it to be written, or let TMPDIR name another folder"},
	} {
		if (c.err == nil) != (c.want == "") || c.err != nil && !strings.Contains(c.err.Error(), c.want) {
			t.Errorf("%s: got %v\nwant %s", what, c.err, c.want)
		}
	}
}

func TestBuildCancelled(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	b := Builder{Source: stock(t), Arch: "amd64", Dir: dir, Progress: func(string) { cancel() }}
	if _, err := b.Build(ctx, spec(t, machine)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	onlyImages(t, dir, 0)
}

func TestBuildConcurrent(t *testing.T) {
	dir := t.TempDir()
	var mu sync.Mutex
	written := 0
	b := Builder{Source: stock(t), Arch: "amd64", Dir: dir, Progress: func(line string) {
		mu.Lock()
		defer mu.Unlock()
		if strings.Contains(line, "writing") {
			written++
		}
	}}
	s := spec(t, machine)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := b.Build(t.Context(), s); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if written != 1 {
		t.Errorf("built %d times", written)
	}
	onlyImages(t, dir, 2)
}

const childBuild = "SEATRIAL_TEST_BUILD"

// childBuilds takes a build folder as a build does, says so, and waits to be killed.
func childBuilds(dir string) int {
	b := Builder{Dir: dir}
	work, _, err := b.workDir(context.Background(), "key")
	if err == nil {
		err = os.WriteFile(filepath.Join(work, initrdFile), []byte("half"), 0o600)
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("ready")
	_, _ = os.Stdin.Read(make([]byte, 1)) // until the parent closes it or kills us
	return 0
}

// What a killed build left goes with the next one; what a live one has stays.
func TestKilledBuild(t *testing.T) {
	dir := t.TempDir()
	child := exec.CommandContext(t.Context(), os.Args[0])
	child.Env = append(os.Environ(), childBuild+"="+dir)
	in, errIn := child.StdinPipe()
	out, errOut := child.StdoutPipe()
	if err := errors.Join(errIn, errOut, child.Start()); err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("child: %q, %v", line, err)
	}
	b := Builder{Source: stock(t), Arch: "amd64", Dir: dir}
	if _, err := b.Build(t.Context(), spec(t, machine)); err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(dir, workPrefix+"key", initrdFile)
	if _, err := os.Stat(left); err != nil {
		t.Errorf("a live build lost its files: %v", err)
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait() // "signal: killed" is what was asked for
	if _, err := b.Build(t.Context(), spec(t, head)); err != nil {
		t.Fatal(err)
	}
	onlyImages(t, dir, 3)
}

func TestExport(t *testing.T) {
	im := build(t, t.TempDir(), machine)
	dir := filepath.Join(t.TempDir(), "out")
	paths, err := im.Export(dir, "m")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{filepath.Join(dir, "m-kernel"), filepath.Join(dir, "m-initrd.img"), filepath.Join(dir, "m-cmdline")}, paths); d != "" {
		t.Error(d)
	}
	if line, err := os.ReadFile(paths[2]); err != nil || string(line) != im.Cmdline {
		t.Errorf("%q, %v", line, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 3 {
		t.Errorf("%v, %v", entries, err)
	}
	lost := *im
	lost.InitrdPath += "-gone"
	if _, err := lost.Export(filepath.Join(dir, "b"), "m"); err == nil {
		t.Error("exported without an initramfs")
	}
	if left, err := os.ReadDir(filepath.Join(dir, "b")); err != nil || len(left) != 0 {
		t.Errorf("left behind %v, %v", left, err)
	}
	if _, err := im.Export(dir, "../x"); err == nil {
		t.Error("a name with a slash")
	}
}

var update = flag.Bool("update", false, "write the golden files anew")

// The same inputs give the bytes that they gave on another day, on another
// machine. Nothing else moves the clock of our own code, which asks the kernel
// and not a library that could be deceived. Media that tools of the host make
// change with those, and are compared within one run only.
//
// A difference that is meant needs another builderVersion: what was built
// before would otherwise be taken for what would be built now.
func TestSameAsEver(t *testing.T) {
	const golden = "testdata/digests.json"
	type ledger struct {
		BuilderVersion string
		Digests        map[string]string
	}
	got := ledger{builderVersion, map[string]string{}}
	for _, arch := range bothArchs {
		b := &Builder{Source: stockFor(t, arch), Arch: arch, Dir: t.TempDir()}
		im, err := b.Build(t.Context(), spec(t, machine))
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range formats() {
			if len(row.tools) > 0 || !row.format.Supports(arch) {
				continue
			}
			m, err := b.Media(t.Context(), im, row.format, "")
			if err != nil {
				t.Fatal(err)
			}
			got.Digests[arch+" "+string(row.format)] = m.Digest
		}
	}
	if *update {
		text, err := json.MarshalIndent(got, "", "\t")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(golden, append(text, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	var want ledger
	if err := json.Unmarshal(text, &want); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("raise builderVersion if this is meant, and go test -update (-want +got):\n%s", d)
	}
}

package images

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// lintShelf has all that the sound spec names, with a kernel that has all modules.
func lintShelf(t *testing.T) shelf {
	t.Helper()
	none := v1.Config{}
	return shelf{
		"test/kernel":     moduleKernel(t, allModules()),
		"test/init":       image(t, "amd64", none, layer{program("sbin/init", "PID 1"), symlink("init", "sbin/init")}),
		"test/runc":       image(t, "amd64", none, layer{program("usr/bin/crun", "crun"), symlink("usr/bin/runc", "crun")}),
		"test/containerd": image(t, "amd64", none, layer{program("usr/bin/containerd", "containerd")}),
		"test/web":        image(t, "amd64", v1.Config{Cmd: []string{"/web"}}, layer{program("web", ""), folder("data", 0o755), file("etc/web.conf", "")}),
		"test/bound": image(t, "amd64", v1.Config{Cmd: []string{"/web"}, Labels: map[string]string{label: `{"readonly": true, "binds": ["/var/x:/gone"]}`}},
			layer{program("web", "")}),
		"test/ambient": image(t, "amd64", v1.Config{Cmd: []string{"/web"}, Labels: map[string]string{label: `{"ambient": ["CAP_KILL"]}`}}, layer{program("web", "")}),
		"test/limited": image(t, "amd64", v1.Config{Cmd: []string{"/web"}, Labels: map[string]string{label: `{"resources": {"memory": {"kernel": 1}}}`}}, layer{program("web", "")}),
	}
}

func allModules() layer {
	return layer{
		file("lib/modules/6.1/modules.dep", "kernel/fs/overlayfs/overlay.ko.xz: kernel/a.ko\nkernel/drivers/virtio/virtio-pci.ko:\n"),
		file("lib/modules/6.1/modules.builtin", "kernel/drivers/block/virtio_blk.ko\nkernel/drivers/net/virtio_net.ko\n"),
	}
}

func moduleKernel(t *testing.T, files layer) v1.Image {
	t.Helper()
	return image(t, "amd64", v1.Config{}, layer{file("kernel", "k"), file("kernel.tar", string(files.archive(t)))})
}

// Each change has one trap, or leaves something that is right alone.
func TestLintImages(t *testing.T) {
	readonly := sound + "services:\n  - name: web\n    image: test/web\n    readonly: true\n    "
	onboot := sound + "onboot: [{name: a, image: test/web}]\n"
	for name, c := range map[string]struct {
		text   string
		change func(shelf)
		want   string // empty: nothing is wrong
	}{
		"sound":   {sound, nil, ""},
		"no disk": {sound, func(s shelf) { s["test/kernel"] = moduleKernel(t, allModules()[:1]) }, "machine.yml:1:17: kernel.image: has no module virtio_blk; kernel.image: has no module virtio_net"},
		"no overlay": {sound, func(s shelf) {
			s["test/kernel"] = moduleKernel(t, append(layer{file("lib/modules/6.1/modules.dep", "a/virtio_pci.ko:")}, allModules()[1:]...))
		}, "kernel.image: has no module overlay, neither built in"},
		"no module index":    {sound, func(s shelf) { s["test/kernel"] = moduleKernel(t, layer{file("etc/x", "")}) }, "has no module index"},
		"no PID 1":           {sound, func(s shelf) { s["test/init"] = s["test/runc"] }, "init: none of the images holds /init"},
		"no runc":            {onboot, func(s shelf) { s["test/runc"] = s["test/init"] }, "machine.yml:3:9: onboot: none of the images of init holds /usr/bin/runc; add one, such as seatrial/runc"},
		"runc":               {onboot, nil, ""},
		"runc, of any name":  {strings.Replace(onboot, "test/runc", "test/other", 1), func(s shelf) { s["test/other"] = s["test/runc"] }, ""},
		"no containerd":      {readonly + "net: new\n", func(s shelf) { s["test/containerd"] = s["test/init"] }, "services: none of the images of init holds /usr/bin/containerd"},
		"link to nowhere":    {onboot, func(s shelf) { s["test/runc"] = image(t, "amd64", v1.Config{}, layer{symlink("usr/bin/runc", "crun")}) }, "holds /usr/bin/runc"},
		"bind nowhere":       {readonly + "binds: [\"/var/x:/data\", \"/var/x:/nowhere\"]\n", nil, "machine.yml:7:29: services[0].binds[1]: /nowhere is not in the image test/web, and a read-only container does not start without it"},
		"bind, writable":     {container + "binds: [\"/var/x:/nowhere\"]\n", nil, ""},
		"bind over a file":   {readonly + "binds: [\"/var/x:/etc/web.conf\", \"/etc/resolv.conf:/etc/resolv.conf\"]\n", nil, ""},
		"bind below a mount": {readonly + "binds: [\"/var/x:/data\", \"/var/y:/data/y\", \"/dev/z:/dev/z\"]\n", nil, ""},
		"tmpfs nowhere":      {readonly + "tmpfs: [\"/scratch\"]\n", nil, "services[0].tmpfs[0]: /scratch is not"},
		"mount nowhere":      {readonly + "mounts: [{type: tmpfs, destination: /scratch}]\n", nil, "services[0].mounts[0]: /scratch is not"},
		"of the label":       {sound + "services: [{name: web, image: test/bound}]\n", nil, "services[0].image: /gone is not in the image test/bound"},
		"absent source":      {container + "binds: [\"/var/x:/x\", \"/usr/bin/nothing:/y\"]\n", nil, "machine.yml:6:26: services[0].binds[1]: /usr/bin/nothing is not in the images of init and files, so the container does not start; add it to files, or bind something else"},
		"source of init":     {container + "binds: [\"/usr/bin/runc:/x\", \"/run/x:/y\", \"/containers/x:/z\", \"/proc/1:/p\"]\n", nil, ""},
		"source of files":    {container + "mounts: [{type: bind, source: /srv/a/b, destination: /x}]\nfiles: [{path: /srv/a, symlink: ../etc/../var/x}]\n", nil, ""},
		"below a shared one": {container + "binds: [\"/usr/bin/a/b:/x\"]\nonboot: [{name: mount, image: test/web, binds: [\"/usr/bin:/usr/bin\"]}]\n", nil, ""},
		"above a shared one": {container + "binds: [\"/usr/no:/x\"]\nonboot: [{name: mount, image: test/web, binds: [\"/usr/bin:/usr/bin\"]}]\n", nil, "services[0].binds[0]: /usr/no is not in the images"},
		"link to nothing":    {container + "mounts: [{type: bind, source: /srv/a/b, destination: /x}]\nfiles: [{path: /srv/a, symlink: ../etc/nothing}]\n", nil, "services[0].mounts[0]: /srv/a/b is not in the images"},
		"link to itself":     {container + "mounts: [{type: bind, source: /srv/a/b, destination: /x}]\nfiles: [{path: /srv/a, symlink: a}]\n", nil, "services[0].mounts[0]: /srv/a/b is not in the images"},
		"ambient of label":   {sound + "services: [{name: web, image: test/ambient}]\n", nil, "services[0].image: image test/ambient, label org.mobyproject.config: ambient: CAP_KILL is not among capabilities"},
		"ambient of both":    {sound + "services: [{name: web, image: test/ambient, capabilities.add: [CAP_KILL]}]\n", nil, ""},
		"ambient alone":      {sound + "services: [{name: web, image: test/web, ambient: [CAP_KILL]}]\n", nil, "machine.yml:3:50: services[0].ambient: CAP_KILL is not among capabilities"},
		"limit of label":     {sound + "services: [{name: web, image: test/limited}]\n", nil, "services[0].image: image test/limited, label org.mobyproject.config: resources.memory.kernel: is a limit of cgroup v1"},
		"limit taken away":   {sound + "services: [{name: web, image: test/limited, resources: {}}]\n", nil, ""},
		"label, writable":    {sound + "services: [{name: web, image: test/bound, readonly: false}]\n", nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := lintShelf(t)
			if c.change != nil {
				c.change(s)
			}
			b := Builder{Source: s, Arch: "amd64"}
			found, unseen, err := b.Lint(t.Context(), spec(t, c.text))
			if err != nil || len(unseen) > 0 {
				t.Fatalf("%v, %v", unseen, err)
			}
			var said []string
			for _, p := range found {
				said = append(said, p.String())
			}
			wants := strings.Split(c.want, "; kernel")
			if c.want == "" {
				wants = nil
			}
			if len(said) != len(wants) {
				t.Fatalf("got %q, want %q", said, wants)
			}
			for i, want := range wants {
				if !strings.Contains(said[i], want) {
					t.Errorf("got %q, want %q", said[i], want)
				}
			}
		})
	}
}

// What is not at hand is told, each image once, and the rest is judged.
func TestLintUnseen(t *testing.T) {
	s := lintShelf(t)
	b := Builder{Source: s, Arch: "amd64"}
	text := sound + "onboot:\n  - {name: a, image: test/bound}\n  - {name: b, image: seatrial/b}\n  - {name: c, image: seatrial/b}\n"
	s["test/kernel"] = moduleKernel(t, layer{file("etc/x", "")})
	delete(s, "test/runc")
	found, unseen, err := b.Lint(t.Context(), spec(t, text))
	if err != nil || len(found) != 2 || len(unseen) != 2 {
		t.Fatalf("%v, %v, %v", found, unseen, err)
	}
	for i, want := range []string{
		"/machine.yml:2:19: init[1]: test/runc is not in the local store for amd64, so what starts containers was judged by the names of images; seatrial build gets it",
		"/machine.yml:5:22: onboot[1].image: seatrial/b is not in the local store for amd64, so its container was not looked at; seatrial components b --arch amd64 makes it",
	} {
		if !strings.HasSuffix(unseen[i].String(), want) {
			t.Errorf("got %s", unseen[i])
		}
	}
	odd := sound + "volumes: [{name: v, image: seatrial/v, format: oci, platforms: [linux/s390x, linux/arm64]}]\n"
	if _, unseen, err = b.Lint(t.Context(), spec(t, odd)); err != nil || len(unseen) != 3 || !strings.Contains(unseen[1].String(), "for s390x, so what the volume holds was not looked at; nothing makes it") || !strings.Contains(unseen[2].String(), "seatrial components v --arch arm64 makes it") {
		t.Errorf("%v, %v", unseen, err)
	}
	delete(s, "test/kernel")
	if found, unseen, err = b.Lint(t.Context(), spec(t, text)); err != nil || len(found) != 1 || len(unseen) != 3 || !strings.Contains(unseen[0].String(), "kernel.image: test/kernel is not in") {
		t.Errorf("%v, %v, %v", found, unseen, err)
	}
}

// Without an archive of modules nothing is known of them, which is said.
func TestLintNoArchive(t *testing.T) {
	s := lintShelf(t)
	b := Builder{Source: s, Arch: "amd64"}
	for tar, want := range map[string]string{"none": "kernel.tar: names no archive", `""`: "kernel.tar: names no archive", "kernel.tar": ""} {
		found, unseen, err := b.Lint(t.Context(), spec(t, strings.Replace(sound, "test/kernel,", "test/kernel, tar: "+tar+",", 1)))
		if err != nil || len(found) > 0 || len(unseen) > 1 || (len(unseen) == 1) != (want != "") || want != "" && !strings.Contains(unseen[0].String(), "machine.yml:1:35: "+want) {
			t.Errorf("tar: %s: %v, %v, %v", tar, found, unseen, err)
		}
	}
}

// Faults of every image at once, each with its place; a build refuses the very same.
func TestFaults(t *testing.T) {
	s := lintShelf(t)
	s["test/damaged"] = swapped{s["test/web"], s["test/init"]}
	s["test/hostile"] = image(t, "amd64", v1.Config{Cmd: []string{"x"}}, layer{file("../x", "")})
	s["test/relative"] = image(t, "amd64", v1.Config{Cmd: []string{"x"}, WorkingDir: "a/b"})
	s["test/notar"] = image(t, "amd64", v1.Config{}, layer{file("kernel", "k"), file("kernel.tar", strings.Repeat("no tar", 200))})
	for name, text := range map[string]string{
		"json": `{"net": `, "key": `{"bindz": [], "readonly": "yes"}`, "names": `{"uid": "nobody", "binds": ["vol:/x"]}`,
		"all": `{"capabilities": ["all"]}`, "host": `{"hostname": "h"}`, "userns": `{"userns": "new", "uidMappings": [{"containerID": 0, "hostID": 1, "size": 1}], "gidMappings": [{"containerID": 0, "hostID": 1, "size": 1}], "net": "new"}`,
	} {
		s["label/"+name] = image(t, "amd64", v1.Config{Cmd: []string{"x"}, Labels: map[string]string{label: text}})
	}
	const text = `kernel: {image: test/notar, cmdline: console=ttyS0, binary: bzImage}
init:
  - test/init
  - test/damaged
  - test/runc
  - test/containerd
onboot:
  - {name: a, image: test/damaged}
  - {name: b, image: test/init}
services:
  - name: c
    image: test/hostile
  - {name: d, image: test/web, hostname: x}
  - {name: e, image: test/web, hostname: y}
  - {name: f, image: test/web, hostname: z, uts: new}
  - {name: g, image: label/json}
  - {name: h, image: label/key}
  - {name: i, image: label/key}
  - {name: j, image: label/names}
  - {name: k, image: label/names, uid: k, binds: []}
  - {name: l, image: label/all, capabilities.add: [CAP_CHOWN]}
  - {name: m, image: label/all, capabilities: [CAP_CHOWN]}
  - {name: n, image: label/host}
  - {name: o, image: label/userns, userns: host}
  - {name: p, image: test/web, command: []}
  - {name: q, image: test/relative}
  - {name: r, image: test/relative, cwd: /}
volumes:
  - {name: v, image: test/damaged}
files:
  - {path: /etc/a, source: gone, mode: "0644"}
`
	want := []string{
		`1:9: kernel.tar: kernel.tar in image test/notar: not a sound tar archive: archive/tar: invalid tar header; make the archive anew, name another one, or write tar: none`,
		`1:61: kernel.binary: image test/notar has no file "bzImage"; name the kernel's file with kernel.binary`,
		`4:5: init[1]: image test/damaged: layer 1 of 1: is damaged: its digest is sha256:`,
		`9:5: onboot[1].command: neither the YAML nor the image test/init has one; add one, such as command: [/bin/sh]`,
		`12:12: services[0].image: image test/hostile: layer 1 of 1: entry "../x": "../x" climbs out of the root; name another image, or make this one anew`,
		`13:42: services[1].hostname: "x" needs a namespace of its own; add uts: new, or remove the hostname`,
		`14:42: services[2].hostname: "y" needs a namespace of its own; add uts: new, or remove the hostname`,
		`16:22: services[4].image: image label/json, label org.mobyproject.config: is not JSON; make the image anew with a label that is`,
		`17:22: services[5].image: image label/key, label org.mobyproject.config:1:2: unknown key "bindz"; did you mean "binds"?`,
		`17:22: services[5].image: image label/key, label org.mobyproject.config:1:27: readonly: must be true or false, but is the string yes; write true or false, without quotes`,
		`19:22: services[7].image: image label/names, label org.mobyproject.config: uid: "nobody" is no container; write a number, or a container's name: known are: a, b, c`,
		`19:22: services[7].image: image label/names, label org.mobyproject.config: binds[0]: there is no volume "vol"; known are: v`,
		`21:51: services[9].capabilities.add: makes all, CAP_CHOWN with the label of image label/all, but all and none stand alone; remove it, or write capabilities`,
		`23:22: services[11].image: image label/host, label org.mobyproject.config: hostname: "h" needs a namespace of its own; add uts: new, or remove the hostname`,
		`24:44: services[12].userns: is "host" with 2 mappings; a new user namespace needs`,
		`25:41: services[13].command: neither the YAML nor the image test/web has one`,
		`26:5: services[14].cwd: is not given, and the working directory "a/b" of image test/relative is not absolute; add cwd`,
		`31:28: files[0].source: the source of /etc/a does not exist: `,
	}
	b := Builder{Source: s, Arch: "amd64", Dir: t.TempDir()}
	y := spec(t, text)
	found, unseen, err := b.Lint(t.Context(), y)
	if err != nil || len(unseen) > 0 {
		t.Fatalf("%v, %v", unseen, err)
	}
	_, err = b.Build(t.Context(), y)
	var refused *SpecError
	if !errors.As(err, &refused) {
		t.Fatalf("built, or %v", err)
	}
	if d := cmp.Diff(found, refused.Problems); d != "" {
		t.Errorf("lint and build differ: %s", d)
	}
	for i := range max(len(want), len(found)) {
		if i >= len(found) || i >= len(want) || !strings.Contains(found[i].String(), "machine.yml:"+want[i]) {
			t.Errorf("problem %d: want %q in\n%v", i, want[min(i, len(want)-1)], err)
			break
		}
	}
	onlyImages(t, b.Dir, 0)
}

// What files would take away is told, by the build too; what takes nothing away is right.
func TestFilesInTheWay(t *testing.T) {
	s := lintShelf(t)
	s["test/init"] = image(t, "amd64", v1.Config{}, layer{program("sbin/init", "PID 1"), symlink("init", "sbin/init"), folder("etc/empty", 0o755), symlink("bin", "sbin"), file("etc/conf.d/x", "")})
	const text = sound + `files:
  - {path: /etc/conf.d, contents: x, mode: "0644"}
  - {path: /etc/conf.d, symlink: /x}
  - {path: /etc/empty, contents: x, mode: "0644"}
  - {path: /sbin/init/x, contents: x, mode: "0644"}
  - {path: /sbin/init, directory: true, mode: "0755"}
  - {path: /bin, directory: true, mode: "0755"}
  - {path: /new, contents: x, mode: "0644"}
  - {path: /new/x, contents: x, mode: "0644"}
  - {path: /deep/x, contents: x, mode: "0644"}
  - {path: /deep, contents: x, mode: "0644"}
  - {path: /self, symlink: self}
  - {path: /self/x, contents: x, mode: "0644"}
`
	want := []string{
		"machine.yml:4:12: files[0].path: /etc/conf.d is a directory (entries in it: 1), which this would take away; name a file in it",
		"machine.yml:5:12: files[1].path: /etc/conf.d is a directory",
		"machine.yml:6:12: files[2].path: /etc/empty is a directory (entries in it: 0)",
		"machine.yml:7:12: files[3].path: /sbin/init/x cannot lie below /sbin/init, which is no directory; choose",
		"machine.yml:8:12: files[4].path: /sbin/init is no directory in the images or earlier files; choose",
		"machine.yml:9:12: files[5].path: /bin is a symbolic link to sbin already",
		"machine.yml:11:12: files[7].path: /new/x cannot lie below /new",
		"machine.yml:13:12: files[9].path: /deep is a directory (entries in it: 1)",
		"machine.yml:15:5: files[11]: \"self/\" leads through more than 40 symbolic links; choose another path",
	}
	b := Builder{Source: s, Arch: "amd64", Dir: t.TempDir()}
	_, err := b.Build(t.Context(), spec(t, text))
	var refused *SpecError
	if !errors.As(err, &refused) || len(refused.Problems) != len(want) {
		t.Fatalf("got %v", err)
	}
	for i, p := range refused.Problems {
		if !strings.Contains(p.String(), want[i]) {
			t.Errorf("got %s, want %s", p, want[i])
		}
	}
	right := sound + `files:
  - {path: /etc/empty, symlink: /x}
  - {path: /bin/x, contents: x, mode: "0644"}
  - {path: /sbin, directory: true, mode: "0700"}
  - {path: /init, contents: x, mode: "0755"}
  - {path: /etc/conf.d, source: gone, optional: true, mode: "0644"}
`
	if found, _, err := b.Lint(t.Context(), spec(t, right)); err != nil || len(found) > 0 {
		t.Errorf("%v, %v", found, err)
	}
	if _, err := b.Build(t.Context(), spec(t, right)); err != nil {
		t.Error(err)
	}
}

// A full disk and the end of patience are no faults of an image.
func TestFaultsOfTheHost(t *testing.T) {
	f := &faults{decoder: decoder{at: map[string]place{"init": {"x.yml", 2, 3}}}}
	if err := f.note(t.Context(), "init[0]", syscall.ENOSPC, ""); !errors.Is(err, syscall.ENOSPC) || f.err() != nil || !strings.HasPrefix(err.Error(), "x.yml:2:3: ") {
		t.Errorf("got %v, %v", err, f.err())
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.note(over, "init[0]", errors.New("x"), ""); err == nil || f.err() != nil {
		t.Errorf("got %v, %v", err, f.err())
	}
	if err := f.note(t.Context(), "init[0]", ErrNotFound, "get it"); err != nil || !errors.Is(f.err(), ErrNotFound) {
		t.Errorf("got %v, %v", err, f.err())
	}
}

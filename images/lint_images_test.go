package images

import (
	"strings"
	"testing"

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
		"all built in":       {strings.Replace(sound, "test/kernel,", "test/kernel, tar: none,", 1), func(s shelf) { s["test/kernel"] = moduleKernel(t, nil) }, ""},
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
		"/machine.yml:5:22: onboot[1].image: seatrial/b is not in the local store for amd64, so read-only containers were not looked into; seatrial components b --arch amd64 makes it",
	} {
		if !strings.HasSuffix(unseen[i].String(), want) {
			t.Errorf("got %s", unseen[i])
		}
	}
	delete(s, "test/kernel")
	if found, unseen, err = b.Lint(t.Context(), spec(t, text)); err != nil || len(found) != 1 || len(unseen) != 3 || !strings.Contains(unseen[0].String(), "kernel.image: test/kernel is not in") {
		t.Errorf("%v, %v, %v", found, unseen, err)
	}
	// An image that is there and cannot be read is an error.
	s["test/web"] = swapped{s["test/web"], s["test/init"]}
	if _, _, err = b.Lint(t.Context(), spec(t, sound+"services: [{name: a, image: test/web, readonly: true}]\n")); err == nil || !strings.Contains(err.Error(), "is damaged") {
		t.Errorf("got %v", err)
	}
}

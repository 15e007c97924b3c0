package component

import (
	"bytes"
	"debug/elf"
	_ "embed"
	"path"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// recipe is how one component is made.
type recipe struct {
	name   string
	config v1.Config
	key    func(sources string) string // what else decides the result, besides the name
	make   func(*kitchen) ([]file, error)
}

//go:embed getty.sh
var gettyScript []byte

// labelConfig is LinuxKit's label for what a container needs by default.
const labelConfig = "org.mobyproject.config"

func recipes() []recipe {
	same := func(string) string { return "" }
	own := func(sources string) string { return sources }
	return []recipe{
		{name: "kernel", key: func(string) string { return strings.Join(wanted, " ") }, make: func(k *kitchen) ([]file, error) {
			k.Progress(k.name, "fetching the cloud kernel")
			files, debs, err := kernelFiles(k.ctx, k.apt)
			for _, d := range debs {
				k.inputs = append(k.inputs, d.input(k.name))
			}
			return files, err
		}},
		{name: "init", key: own, make: makeInit},
		{name: "runc", key: same, make: makeRunc},
		{name: "containerd", key: own, make: makeContainerd},
		{name: "busybox", key: same, make: makeBusybox, config: v1.Config{Cmd: []string{"/bin/sh"}, Env: searchPath}},
		{name: "getty", key: func(string) string { return string(gettyScript) + "2" }, make: makeGetty, config: v1.Config{
			Cmd: []string{"/usr/bin/getty.sh"}, Env: searchPath, Labels: map[string]string{labelConfig: `{
"capabilities": ["all"], "net": "host", "pid": "host",
"devices": [{"path": "all", "type": "c", "mode": "0666"}],
"binds": ["/dev:/dev", "/run:/run", "/tmp:/tmp", "/etc:/hostroot/etc", "/containers:/containers", "/var/log:/var/log",
 "/usr/bin/ctr:/usr/bin/ctr", "/usr/bin/containerd:/usr/bin/containerd"]}`}}},
		{name: "web", key: same, make: makeWeb, config: v1.Config{
			Cmd: []string{"/bin/httpd", "-f", "-p", "80", "-h", "/www"}, Env: searchPath,
			Labels: map[string]string{labelConfig: `{"capabilities": ["CAP_NET_BIND_SERVICE"], "net": "host", "readonly": true}`}}},
	}
}

var searchPath = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}

func makeInit(k *kitchen) ([]file, error) {
	initProgram, err := k.program("./boot/guest/cmd/init")
	if err != nil {
		return nil, err
	}
	service, err := k.program("./boot/guest/cmd/service")
	if err != nil {
		return nil, err
	}
	files := []file{
		{name: "init", mode: 0o755, data: initProgram},
		{name: "sbin/init", mode: 0o755, data: initProgram},
		{name: "usr/bin/service", mode: 0o755, data: service},
	}
	for _, name := range []string{"modprobe", "poweroff", "reboot", "halt", "usermode-helper"} {
		files = append(files, file{name: "sbin/" + name, mode: 0o777, link: "init"})
	}
	return files, nil
}

func makeContainerd(k *kitchen) ([]file, error) {
	var files []file
	for _, p := range []string{"containerd", "containerd-shim-runc-v2", "ctr"} {
		b, err := k.containerd(p)
		if err != nil {
			return nil, err
		}
		files = append(files, file{name: "usr/bin/" + p, mode: 0o755, data: b})
	}
	config := "version = 3\nroot = \"/var/lib/containerd\"\nstate = \"/run/containerd\"\n"
	return append(files, file{name: "etc/containerd/config.toml", mode: 0o644, data: []byte(config)}), nil
}

// makeRunc takes runc and the shared libraries it needs, and no others: the
// packages carry locales, converters and manuals as well.
func makeRunc(k *kitchen) ([]file, error) {
	all, err := k.debs(func(name string) bool {
		return path.Base(name) == "runc" || strings.Contains(path.Base(name), ".so")
	}, "runc")
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(all, func(f file) bool { return path.Base(f.name) == "runc" && len(f.data) > 0 })
	if i < 0 {
		return nil, errNothing
	}
	runc := all[i]
	runc.name = "usr/bin/runc"
	return append(libraries(runc, all), runc), nil
}

// libraries follows an ELF file's needed entries, and its loader's path,
// through the files at hand. A link is resolved to a copy of what it names.
func libraries(program file, all []file) []file {
	byBase := map[string]file{}
	for _, f := range all {
		if len(f.data) > 0 || f.link != "" && byBase[path.Base(f.name)].name == "" {
			byBase[path.Base(f.name)] = f
		}
	}
	var out []file
	seen := map[string]bool{}
	var follow func(file)
	follow = func(f file) {
		e, err := elf.NewFile(bytes.NewReader(f.data))
		if err != nil {
			return // a linker script or the like needs nothing
		}
		needed, err := e.ImportedLibraries()
		if err != nil {
			return
		}
		if p := e.Section(".interp"); p != nil {
			if b, err := p.Data(); err == nil {
				loader := strings.TrimRight(string(b), "\x00")
				if lib, ok := resolve(byBase, path.Base(loader)); ok && !seen[loader] {
					seen[loader] = true
					lib.name = strings.TrimPrefix(loader, "/")
					out = append(out, lib)
				}
			}
		}
		for _, n := range needed {
			lib, ok := resolve(byBase, n)
			if !ok || seen[n] {
				continue
			}
			seen[n] = true
			lib.name = "usr/lib/" + n
			out = append(out, lib)
			follow(lib)
		}
	}
	follow(program)
	return out
}

func resolve(byBase map[string]file, name string) (file, bool) {
	for range 4 { // a chain of links is one or two long
		f, ok := byBase[name]
		if !ok || len(f.data) > 0 {
			return f, ok
		}
		name = path.Base(f.link)
	}
	return file{}, false
}

// applets are the names under which busybox is called.
var applets = strings.Fields(`ash sh ls cat echo ps grep sed awk head tail wc sleep date env id whoami hostname mount umount
mkdir rm rmdir mv cp ln touch stat df du free uname dmesg ip ifconfig ping wget nc httpd kill true false test [ printf
sort uniq cut tr find xargs tee which vi more less getty login stty tty sync poweroff reboot halt top od hexdump md5sum sha256sum`)

func makeBusybox(k *kitchen) ([]file, error) {
	found, err := k.debs(func(name string) bool { return path.Base(name) == "busybox" }, "busybox-static")
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(found, func(f file) bool { return len(f.data) > 0 })
	if i < 0 {
		return nil, errNothing
	}
	files := []file{{name: "bin/busybox", mode: 0o755, data: found[i].data}}
	for _, a := range applets {
		files = append(files, file{name: "bin/" + a, mode: 0o777, link: "busybox"})
	}
	return append(files, file{name: "etc/passwd", mode: 0o644, data: []byte("root:x:0:0:root:/root:/bin/ash\n")},
		file{name: "etc/group", mode: 0o644, data: []byte("root:x:0:\n")}), nil
}

func makeGetty(k *kitchen) ([]file, error) {
	files, err := makeBusybox(k)
	profile := "export PS1='(ns: getty) \\h:\\w# ' TERM=vt102\n"
	return append(files, file{name: "usr/bin/getty.sh", mode: 0o755, data: gettyScript},
		file{name: "etc/profile", mode: 0o644, data: []byte(profile)},
		file{name: "usr/bin/autologin", mode: 0o755, data: []byte("#!/bin/sh\nexec /bin/ash -l\n")}), err
}

func makeWeb(k *kitchen) ([]file, error) {
	files, err := makeBusybox(k)
	return append(files, file{name: "www/index.html", mode: 0o644, data: []byte("seatrial web\n")}), err
}

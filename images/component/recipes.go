package component

import (
	"bytes"
	"debug/elf"
	_ "embed"
	"fmt"
	"path"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// recipe is how one component is made.
type recipe struct {
	name     string
	config   v1.Config
	debs     []string               // Debian packages; ARCH in a name stands for the architecture
	wants    func(name string) bool // which of what they depend on; nil: all
	programs []program              // Go programs
	make     func(*kitchen) ([]file, error)
}

func (r recipe) packages(arch string) []string {
	var out []string
	for _, d := range r.debs {
		out = append(out, strings.ReplaceAll(d, "ARCH", arch))
	}
	return out
}

//go:embed getty.sh
var gettyScript []byte

// labelConfig is LinuxKit's label for what a container needs by default.
const labelConfig = "org.mobyproject.config"

// setup is the label for what a container needs.
func setup(json string) map[string]string { return map[string]string{labelConfig: json} }

// own describes a program of this repository.
func own(name string, folders ...string) program {
	folder := "boot/guest/cmd/" + name
	return program{pkg: "./" + folder, folders: append(folders, folder), tags: ownTags}
}

// containerdProgram describes a program of containerd.
func containerdProgram(name, tags string) program {
	return program{pkg: containerdModule + "/cmd/" + name, tags: tags}
}

func recipes() []recipe {
	busybox := []string{"busybox-static"}
	return []recipe{
		{name: "kernel", debs: []string{"linux-image-cloud-ARCH"}, make: makeKernel,
			wants: func(name string) bool { return strings.HasPrefix(name, "linux-image-6") }},
		{name: "init", make: makeInit, programs: []program{own("init", "boot", "boot/guest"), own("service", "boot", "boot/guest", "boot/guest/task")}},
		{name: "runc", debs: []string{"runc"}, make: makeRunc},
		{name: "crun", debs: []string{"crun"}, make: makeCrun},
		{name: "containerd", make: makeContainerd, programs: []program{
			containerdProgram("containerd", containerdTags), containerdProgram("containerd-shim-runc-v2", shimTags), containerdProgram("ctr", containerdTags)}},
		{name: "busybox", debs: busybox, make: makeBusybox, config: v1.Config{Cmd: []string{"/bin/sh"}, Env: searchPath}},
		{name: "getty", debs: busybox, make: makeGetty, config: v1.Config{
			Cmd: []string{"/usr/bin/getty.sh"}, Env: searchPath, Labels: setup(`{
"capabilities": ["all"], "net": "host", "pid": "host",
"devices": [{"path": "all", "type": "c", "mode": "0666"}],
"binds": ["/dev:/dev", "/run:/run", "/tmp:/tmp", "/etc:/hostroot/etc", "/containers:/containers", "/var/log:/var/log",
 "/usr/bin/ctr:/usr/bin/ctr", "/usr/bin/containerd:/usr/bin/containerd"]}`)}},
		{name: "web", debs: busybox, make: makeWeb, config: v1.Config{
			Cmd: []string{"/bin/httpd", "-f", "-p", "80", "-h", "/www"}, Env: searchPath,
			Labels: setup(`{"capabilities": ["CAP_NET_BIND_SERVICE"], "net": "host", "readonly": true}`)}},
		efiRecipe(),
		formatRecipe(),
		mountRecipe(),
		{name: "sysctl", debs: busybox, make: makeSysctl, config: v1.Config{
			Cmd: []string{"/usr/bin/sysctl.sh"}, Env: searchPath, Labels: setup(`{
"capabilities": ["CAP_SYS_ADMIN", "CAP_NET_ADMIN"], "net": "host", "ipc": "host", "uts": "host",
"binds": ["/etc:/hostroot/etc:ro"]}`)}},
		{name: "dhcp", debs: busybox, make: makeDHCP, config: v1.Config{
			Cmd: []string{"/usr/bin/dhcp.sh"}, Env: searchPath, Labels: setup(`{
"capabilities": ["CAP_NET_ADMIN", "CAP_NET_BIND_SERVICE", "CAP_NET_RAW"], "net": "host",
"binds": ["/run:/run"]}`)}},
	}
}

var searchPath = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}

func makeInit(k *kitchen) ([]file, error) {
	initProgram, err := k.compile(k.recipe.programs[0])
	if err != nil {
		return nil, err
	}
	service, err := k.compile(k.recipe.programs[1])
	if err != nil {
		return nil, err
	}
	files := []file{
		// The kernel follows the link: /init need not be a second copy.
		{name: "init", mode: 0o777, link: "sbin/init"},
		{name: "sbin/init", mode: 0o755, data: initProgram},
		{name: "usr/bin/service", mode: 0o755, data: service},
	}
	// PID 1 makes what this leads to, when it is ready to be the kernel's helper.
	files = append(files, file{name: "sbin/modprobe", mode: 0o777, link: "/run/modprobe"})
	for _, name := range []string{"poweroff", "reboot", "halt", "usermode-helper"} {
		files = append(files, file{name: "sbin/" + name, mode: 0o777, link: "init"})
	}
	return files, nil
}

func makeContainerd(k *kitchen) ([]file, error) {
	var files []file
	for _, p := range k.recipe.programs {
		b, err := k.compile(p)
		if err != nil {
			return nil, err
		}
		files = append(files, file{name: "usr/bin/" + path.Base(p.pkg), mode: 0o755, data: b})
	}
	config := "version = 4\nroot = \"/var/lib/containerd\"\nstate = \"/run/containerd\"\n"
	return append(files, file{name: "etc/containerd/config.toml", mode: 0o644, data: []byte(config)}), nil
}

// makeRunc takes runc and the shared libraries it needs, and no others: the
// packages carry locales, converters and manuals as well.
func makeRunc(k *kitchen) ([]file, error) {
	return k.dynamic(map[string]string{"usr/sbin/runc": "usr/bin/runc"})
}

// makeCrun is makeRunc for crun, which knows runc's command line and is far less
// work under emulation: it is C, and does not start itself anew for each
// container. Init and the shim call it by runc's name.
func makeCrun(k *kitchen) ([]file, error) {
	files, err := k.dynamic(map[string]string{"usr/bin/crun": "usr/bin/crun"})
	return append(files, file{name: "usr/bin/runc", mode: 0o777, link: "crun"}), err
}

// dynamic takes programs out of the packages, each to where the map says, with
// the shared libraries they need.
func (k *kitchen) dynamic(programs map[string]string) ([]file, error) {
	all, err := k.files(func(name string) bool {
		for at := range programs {
			if merged(at) == merged(name) {
				return true
			}
		}
		return strings.Contains(path.Base(name), ".so")
	})
	if err != nil {
		return nil, err
	}
	out := map[string]file{}
	for at, to := range programs {
		p, err := pick(all, at)
		if err != nil {
			return nil, err
		}
		p.name = to
		needed, err := libraries(p, all)
		if err != nil {
			return nil, err
		}
		for _, f := range append(needed, p) {
			out[f.name] = f
		}
	}
	var files []file
	for _, f := range out {
		files = append(files, f)
	}
	return files, nil
}

// libraries follows an ELF file's needed entries, and its loader's path,
// through the files at hand. A link is resolved to a copy of what it names.
func libraries(program file, all []file) ([]file, error) {
	byBase := map[string]file{}
	for _, f := range all {
		if len(f.data) > 0 || f.link != "" && byBase[path.Base(f.name)].name == "" {
			byBase[path.Base(f.name)] = f
		}
	}
	var out []file
	seen := map[string]bool{}
	var follow func(file) error
	add := func(by file, library, at string) error {
		if seen[library] {
			return nil
		}
		seen[library] = true
		lib, ok := resolve(byBase, library)
		if !ok {
			return fmt.Errorf("%s needs %s, which is in none of the packages", by.name, library)
		}
		lib.name = at
		out = append(out, lib)
		return follow(lib)
	}
	follow = func(f file) error {
		e, err := elf.NewFile(bytes.NewReader(f.data))
		if err != nil {
			return nil // a linker script or the like needs nothing
		}
		if p := e.Section(".interp"); p != nil {
			b, err := p.Data()
			if err != nil {
				return fmt.Errorf("%s: %w", f.name, err)
			}
			loader := strings.TrimRight(string(b), "\x00")
			if err := add(f, path.Base(loader), strings.TrimPrefix(loader, "/")); err != nil {
				return err
			}
		}
		needed, err := e.ImportedLibraries()
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		for _, n := range needed {
			if err := add(f, n, "usr/lib/"+n); err != nil {
				return err
			}
		}
		return nil
	}
	return out, follow(program)
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
sort uniq cut tr find xargs tee which vi more less getty login stty tty sync poweroff reboot halt top od hexdump md5sum sha256sum
dd mktemp readlink sysctl udhcpc nslookup`)

func makeBusybox(k *kitchen) ([]file, error) {
	found, err := k.files(func(name string) bool { return path.Base(name) == "busybox" })
	if err != nil {
		return nil, err
	}
	program, err := pick(found, "bin/busybox")
	if err != nil {
		return nil, err
	}
	files := []file{program}
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
		file{name: "usr/bin/autologin", mode: 0o755, data: []byte("#!/bin/sh\n# login gives back SIGINT, which a shell takes from what it runs in the background.\nexec /bin/login -f root\n")}), err
}

func makeWeb(k *kitchen) ([]file, error) {
	files, err := makeBusybox(k)
	return append(files, file{name: "www/index.html", mode: 0o644, data: []byte("seatrial web\n")}), err
}

//go:embed sysctl.sh
var sysctlScript []byte

func makeSysctl(k *kitchen) ([]file, error) {
	files, err := makeBusybox(k)
	return append(files, file{name: "usr/bin/sysctl.sh", mode: 0o755, data: sysctlScript}), err
}

//go:embed dhcp.sh
var dhcpScript []byte

//go:embed lease.sh
var leaseScript []byte

func makeDHCP(k *kitchen) ([]file, error) {
	files, err := makeBusybox(k)
	return append(files, file{name: "usr/bin/dhcp.sh", mode: 0o755, data: dhcpScript},
		file{name: "usr/bin/lease.sh", mode: 0o755, data: leaseScript}), err
}

// The programs of the disk components tell file systems apart by util-linux's
// blkid, the most complete tool there is for it.
var diskPrograms = []string{"libblkid1", "libc6", "util-linux"}

func formatRecipe() recipe {
	packages := append([]string{"e2fsprogs", "libext2fs2", "libcom-err2", "libuuid1"}, diskPrograms...)
	return recipe{
		name: "format", debs: []string{"e2fsprogs", "util-linux"},
		wants:    func(name string) bool { return slices.Contains(packages, name) },
		programs: []program{own("format", "boot/guest/disk")},
		make: func(k *kitchen) ([]file, error) {
			return k.disk("format", map[string]string{"sbin/mke2fs": "sbin/mke2fs", "sbin/blkid": "sbin/blkid"}, "etc/mke2fs.conf")
		},
		config: v1.Config{Entrypoint: nil, Cmd: []string{"/usr/bin/format"}, Env: searchPath, Labels: setup(`{
"capabilities": ["CAP_SYS_ADMIN", "CAP_MKNOD"], "net": "new", "ipc": "new", "binds": ["/dev:/dev"],
"devices": [{"path": "all", "type": "b"}], "readonly": true}`)},
	}
}

func mountRecipe() recipe {
	return recipe{
		name: "mount", debs: []string{"util-linux"},
		wants:    func(name string) bool { return slices.Contains(diskPrograms, name) },
		programs: []program{own("mountie", "boot/guest/disk")},
		make: func(k *kitchen) ([]file, error) {
			return k.disk("mountie", map[string]string{"sbin/blkid": "sbin/blkid"})
		},
		config: v1.Config{Cmd: []string{"/usr/bin/mountie", "/var/lib/state"}, Env: searchPath, Labels: setup(`{
"capabilities": ["CAP_SYS_ADMIN"], "net": "new", "ipc": "new", "rootfsPropagation": "shared",
"binds": ["/dev:/dev", "/var:/var:rshared,rbind"], "devices": [{"path": "all", "type": "b"}]}`)},
	}
}

// disk makes the files of a disk component: our program, those of Debian that
// it calls, and their configuration.
func (k *kitchen) disk(name string, programs map[string]string, config ...string) ([]file, error) {
	files, err := k.dynamic(programs)
	if err != nil {
		return nil, err
	}
	b, err := k.compile(k.recipe.programs[0])
	if err != nil {
		return nil, err
	}
	more, err := k.files(func(name string) bool { return slices.Contains(config, name) })
	return append(append(files, more...), file{name: "usr/bin/" + name, mode: 0o755, data: b}), err
}

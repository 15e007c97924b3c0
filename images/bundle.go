package images

import (
	"encoding/json"
	"fmt"
	"os"
	"path"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/seatrial/seatrial/boot"
)

// bundle is an OCI bundle in the image, and what stands around it.
type bundle struct {
	path   string // absolute, in the guest
	config []byte // config.json
	table  []byte // runtime.json
	shared string // where the container's files are: in this bundle or an earlier one
}

// bundlePath is where the i-th container of a kind has its bundle.
func bundlePath(kind string, i int, name string) string {
	switch kind {
	case "onboot":
		return path.Join(boot.OnbootDir, fmt.Sprintf("%03d-%s", i, name))
	case "onshutdown":
		return path.Join(boot.OnshutdownDir, fmt.Sprintf("%03d-%s", i, name))
	}
	return path.Join(boot.ServicesDir, name)
}

// newBundle describes the bundle of a container with sound settings. The files
// of an image that an earlier bundle holds already are at shared; otherwise
// shared is empty, and they go into this bundle, to where the result's shared says.
func newBundle(at string, settings Settings, image v1.Config, shared string, known names) (*bundle, error) {
	config, err := ociConfig(settings, image, known)
	if err != nil {
		return nil, err
	}
	b := &bundle{path: at, shared: shared}
	if shared == "" {
		b.shared = path.Join(at, "lower")
		if isTrue(settings.Readonly) {
			b.shared = path.Join(at, "rootfs")
		}
	}
	if b.config, err = encode(config); err != nil {
		return nil, err
	}
	b.table, err = encode(runtimeTable(b, settings))
	return b, err
}

// runtimeTable is the bundle's runtime.json: first the mounts that make its
// rootfs, then those of the settings. A read-only container sees its files
// through a bind; a writable one through an overlay whose changes go to a
// tmpfs, private so that no other mount namespace sees the layers.
func runtimeTable(b *bundle, s Settings) boot.Runtime {
	rootfs, tmp := path.Join(b.path, "rootfs"), path.Join(b.path, "tmp")
	var r boot.Runtime
	if isTrue(s.Readonly) {
		r.Mounts = []boot.RuntimeMount{{Destination: rootfs, Source: b.shared, Type: "bind", Options: []string{"bind"}}}
	} else {
		r.Mounts = []boot.RuntimeMount{
			{Destination: tmp, Source: "tmpfs", Type: "tmpfs"},
			{Destination: tmp, Options: []string{"remount", "private"}},
			{Destination: rootfs, Source: "overlay", Type: "overlay", Options: []string{
				"lowerdir=" + b.shared, "upperdir=" + path.Join(tmp, "upper"), "workdir=" + path.Join(tmp, "work"),
			}},
		}
	}
	if s.Runtime == nil {
		return r
	}
	for _, m := range s.Runtime.Mounts {
		r.Mounts = append(r.Mounts, boot.RuntimeMount{Destination: m.Destination, Type: m.Type, Source: m.Source, Options: m.Options})
	}
	r.Mkdir = s.Runtime.Mkdir
	r.Namespace = str(s.Runtime.Namespace)
	r.Cgroups = s.Runtime.Cgroups
	for _, n := range s.Runtime.Interfaces {
		r.Interfaces = append(r.Interfaces, boot.RuntimeInterface{Name: n.Name, Add: str(n.Add), Peer: str(n.Peer), CreateInRoot: isTrue(n.CreateInRoot)})
	}
	if b := s.Runtime.BindNS; b != nil {
		r.BindNS = boot.RuntimeNamespaces{
			Cgroup: str(b.Cgroup), Ipc: str(b.IPC), Mnt: str(b.Mnt), Net: str(b.Net),
			Pid: str(b.PID), User: str(b.User), Uts: str(b.UTS),
		}
	}
	return r
}

// encode writes JSON for people to read, with a newline at its end.
func encode(v any) ([]byte, error) {
	text, err := json.MarshalIndent(v, "", "  ")
	return append(text, '\n'), err
}

// place puts the bundle into the machine's root; files are the container's,
// nil when an earlier bundle holds them.
func (b *bundle) place(root, files *tree) error {
	for _, d := range []string{"rootfs", "tmp"} {
		if err := root.put(b.path[1:]+"/"+d, newDir(0o755)); err != nil {
			return err
		}
	}
	if files != nil {
		to := b.shared[1:]
		if err := root.put(to, files.root.bare()); err != nil {
			return err
		}
		if err := root.overlay(to, files.root); err != nil {
			return err
		}
	}
	if err := root.put(b.path[1:]+"/config.json", newFile(0o644, string(b.config))); err != nil {
		return err
	}
	return root.put(b.path[1:]+"/runtime.json", newFile(0o644, string(b.table)))
}

func fileMode(m uint32) *os.FileMode {
	mode := os.FileMode(m & 0o777)
	return &mode
}

package component

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"fmt"
	"path"
	"slices"
	"sort"
	"strings"
)

// wanted are the modules a virtual machine needs; what they depend on is added.
// Debian's cloud kernel has serial, devtmpfs and ext4 built in.
var wanted = []string{
	"virtio_pci", "virtio_blk", "virtio_net", "virtio_console", "virtio_rng", "virtio_balloon", "virtio_scsi",
	"overlay", "squashfs", "isofs", "vfat", "nls_ascii", "nls_cp437", "loop", "af_packet", "fuse", "ext4", "efivarfs", "tpm_tis",
	"vsock", "vmw_vsock_virtio_transport", "qemu_fw_cfg", "sd_mod", "sr_mod", "ahci", "e1000", "veth", "bridge", "tun", "dummy",
	"button", "evdev", // the power button
	"virtio_input", // a keyboard, for a board that has none
}

// module is a kernel module with what its .modinfo section says
// (include/linux/module.h, MODULE_INFO).
type module struct {
	file
	name    string
	depends []string
	aliases []string
}

func parseModule(f file) (module, error) {
	m := module{file: f, name: moduleName(f.name)}
	e, err := elf.NewFile(bytes.NewReader(f.data))
	if err != nil {
		return m, fmt.Errorf("%s: %w", f.name, err)
	}
	section := e.Section(".modinfo")
	if section == nil {
		return m, fmt.Errorf("%s: no .modinfo section", f.name)
	}
	data, err := section.Data()
	if err != nil {
		return m, fmt.Errorf("%s: %w", f.name, err)
	}
	m.depends, m.aliases = parseModinfo(data)
	return m, nil
}

// parseModinfo reads KEY=VALUE strings, each ended by a zero byte.
func parseModinfo(data []byte) (depends, aliases []string) {
	for _, entry := range strings.Split(string(data), "\x00") {
		key, value, _ := strings.Cut(entry, "=")
		switch key {
		case "depends":
			for _, d := range strings.Split(value, ",") {
				if d != "" {
					depends = append(depends, strings.ReplaceAll(d, "-", "_"))
				}
			}
		case "alias":
			aliases = append(aliases, value)
		}
	}
	return depends, aliases
}

func moduleName(p string) string {
	return strings.ReplaceAll(strings.TrimSuffix(path.Base(p), ".ko"), "-", "_")
}

// closure returns the wanted modules that exist as files, with everything they
// depend on, sorted by path.
func closure(all map[string]module, names []string) ([]module, error) {
	picked := map[string]module{}
	var pick func(name string) error
	pick = func(name string) error {
		m, ok := all[name]
		if _, done := picked[name]; done || !ok {
			return nil // built in
		}
		picked[name] = m
		for _, d := range m.depends {
			if _, ok := all[d]; !ok {
				return fmt.Errorf("module %s depends on %s, which is not in the package", name, d)
			}
			if err := pick(d); err != nil {
				return err
			}
		}
		return nil
	}
	for _, n := range names {
		if err := pick(n); err != nil {
			return nil, err
		}
	}
	var out []module
	for _, m := range picked {
		out = append(out, m)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].file.name < out[j].file.name })
	return out, nil
}

// index writes modules.dep and modules.alias as depmod does (depmod(8)): a
// module's line lists all it needs; they load from the last to the first.
func index(root string, modules []module) (dep, alias string) {
	byName := map[string]module{}
	for _, m := range modules {
		byName[m.name] = m
	}
	rel := func(m module) string { return strings.TrimPrefix(m.file.name, root+"/") }
	var d, a strings.Builder
	for _, m := range modules {
		d.WriteString(rel(m) + ":")
		needs := prerequisites(m, byName)
		for _, n := range slices.Backward(needs) {
			d.WriteString(" " + rel(n))
		}
		d.WriteByte('\n')
		for _, x := range m.aliases {
			fmt.Fprintf(&a, "alias %s %s\n", x, m.name)
		}
	}
	return d.String(), a.String()
}

// prerequisites are all that a module needs, in an order in which they load.
func prerequisites(m module, byName map[string]module) []module {
	var out []module
	seen := map[string]bool{}
	var visit func(module)
	visit = func(m module) {
		for _, name := range m.depends {
			if !seen[name] {
				seen[name] = true
				visit(byName[name])
				out = append(out, byName[name])
			}
		}
	}
	visit(m)
	return out
}

// makeKernel makes /kernel and /kernel.tar of Debian's cloud kernel.
func makeKernel(k *kitchen) ([]file, error) {
	found, err := k.files(func(name string) bool {
		return strings.HasPrefix(name, "boot/vmlinuz-") || strings.HasSuffix(name, ".ko") || path.Base(name) == "modules.builtin"
	})
	if err != nil {
		return nil, err
	}
	var out, keep []file
	all := map[string]module{}
	root := ""
	for _, f := range found {
		switch {
		case strings.HasPrefix(f.name, "boot/vmlinuz-"):
			out = append(out, file{name: "kernel", mode: 0o644, data: f.data})
			root = "lib/modules/" + strings.TrimPrefix(f.name, "boot/vmlinuz-")
		case strings.HasSuffix(f.name, ".ko"):
			m, err := parseModule(f)
			if err != nil {
				return nil, err
			}
			all[m.name] = m
		default:
			keep = append(keep, f)
		}
	}
	modules, err := closure(all, wanted)
	if err != nil {
		return nil, err
	}
	for _, m := range modules {
		keep = append(keep, m.file)
	}
	dep, alias := index(root, modules)
	keep = append(keep, file{name: root + "/modules.dep", mode: 0o644, data: []byte(dep)},
		file{name: root + "/modules.alias", mode: 0o644, data: []byte(alias)})
	packed, err := pack(keep)
	if err != nil {
		return nil, err
	}
	return append(out, file{name: "kernel.tar", mode: 0o644, data: packed}), nil
}

// pack writes files as a tar archive, the same bytes for the same files.
func pack(files []file) ([]byte, error) {
	var b bytes.Buffer
	t := tar.NewWriter(&b)
	sort.Slice(files, func(i, j int) bool { return files[i].name < files[j].name })
	for _, f := range files {
		h := &tar.Header{Name: f.name, Mode: int64(f.mode), Size: int64(len(f.data)), Typeflag: tar.TypeReg, ModTime: epoch}
		if f.link != "" {
			h.Typeflag, h.Linkname, h.Size = tar.TypeSymlink, f.link, 0
		}
		if err := t.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := t.Write(f.data); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), t.Close()
}

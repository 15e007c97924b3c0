package images

import (
	"archive/tar"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"
)

// attributes are the extended attributes of a file, by name; nil: none.
type attributes map[string][]byte

// paxAttribute is what tar archives put before an attribute's name
// (star's extension, which all tools know).
const paxAttribute = "SCHILY.xattr."

// Limits of the kernel (include/uapi/linux/limits.h), and what all attributes
// of one image may take in memory.
const (
	maxAttributeName  = 255
	maxAttributeValue = 64 << 10
	maxAttributes     = 64 << 20
)

// attributesOf are a tar entry's attributes: those that mean the same on any
// machine, file capabilities (security.capability) above all. The others are
// those of the file system or the overlay that the image was made on, such as
// trusted.overlay.opaque, and would hide files here; they are counted in left.
func (f *flattener) attributesOf(h *tar.Header) (attributes, error) {
	var kept attributes
	for _, key := range slices.Sorted(maps.Keys(h.PAXRecords)) {
		name, ok := strings.CutPrefix(key, paxAttribute)
		if !ok {
			continue
		}
		value := h.PAXRecords[key]
		portable := strings.HasPrefix(name, "security.") || strings.HasPrefix(name, "user.") && !strings.HasPrefix(name, "user.overlay.")
		switch {
		case !portable:
			f.left++
			continue
		case len(name) > maxAttributeName || len(value) > maxAttributeValue:
			return nil, fmt.Errorf("attribute %.40q has a name of %d and a value of %d bytes; the kernel takes %d and %d", name, len(name), len(value), maxAttributeName, maxAttributeValue)
		}
		if f.attributeBytes += len(name) + len(value); f.attributeBytes > maxAttributes {
			return nil, fmt.Errorf("more than %d bytes of attributes in one image", maxAttributes)
		}
		if kept == nil {
			kept = attributes{}
		}
		kept[name] = []byte(value)
	}
	return kept, nil
}

// pax are the attributes as a tar header holds them.
func (a attributes) pax() map[string]string {
	if len(a) == 0 {
		return nil
	}
	records := map[string]string{}
	for name, value := range a {
		records[paxAttribute+name] = string(value)
	}
	return records
}

// attributesFile keeps the attributes of an image's files beside the initramfs,
// which cannot hold them, for the media that can. An image without any has none.
const attributesFile = "attributes.json"

// attributes of all files of the tree, by name; of hard links by the first.
func (t *tree) attributes() (map[string]attributes, error) {
	all, seen := map[string]attributes{}, map[*inode]bool{}
	return all, t.walk(func(name string, e *entry) error {
		if len(e.xattrs) > 0 && !seen[e.inode] {
			all[name] = e.xattrs
		}
		seen[e.inode] = true
		return nil
	})
}

// setAttributes is the reverse of attributes.
func (t *tree) setAttributes(all map[string]attributes) error {
	for name, a := range all {
		e := t.find(name)
		if e == nil {
			return fmt.Errorf("there are attributes of %s, but no such file", name)
		}
		e.xattrs = a
	}
	return nil
}

// readAttributes reads the attributes of an image from its folder.
func readAttributes(dir string) (map[string]attributes, error) {
	raw, err := os.ReadFile(filepath.Join(dir, attributesFile))
	if err != nil {
		return nil, err
	}
	var kept map[string]attributes
	if err := json.Unmarshal(raw, &kept); err != nil {
		return nil, err
	}
	return renamed(kept, func(key string) string {
		if name, err := hex.DecodeString(strings.TrimPrefix(key, "/")); err == nil && strings.HasPrefix(key, "/") {
			return string(name)
		}
		return key
	}), nil
}

// writeAttributes is the reverse.
func writeAttributes(w io.Writer, all map[string]attributes) error {
	// JSON has no place for what is not UTF-8, and a name here never begins with
	// a slash: one that does is written in hexadecimal.
	text, err := json.Marshal(renamed(all, func(name string) string {
		if utf8.ValidString(name) {
			return name
		}
		return "/" + hex.EncodeToString([]byte(name))
	})) // sorted
	if err == nil {
		_, err = w.Write(text)
	}
	return err
}

// renamed is a copy with the names of files and of attributes changed.
func renamed(all map[string]attributes, change func(string) string) map[string]attributes {
	out := map[string]attributes{}
	for file, list := range all {
		copied := attributes{}
		for name, value := range list {
			copied[change(name)] = value
		}
		out[change(file)] = copied
	}
	return out
}

// Lost tells which extended attributes a medium of the image cannot hold, in
// words, with a remedy; empty if it holds all there are. An initramfs holds
// none, so that a program with file capabilities runs without them.
func (im *Image) Lost(f Format) string {
	row, err := f.row()
	if err != nil || row.attributes || len(im.attributes) == 0 {
		return ""
	}
	first := slices.Min(slices.Collect(maps.Keys(im.attributes)))
	names := strings.Join(slices.Sorted(maps.Keys(im.attributes[first])), ", ")
	return fmt.Sprintf("%s: %s is an initramfs, which cannot hold extended attributes: %s of /%s is lost (%d in all); %s holds them",
		im.Name, f, names, first, len(im.attributes), KernelSquashfs)
}

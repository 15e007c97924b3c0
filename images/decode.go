package images

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// maxYAML bounds the text: a spec is written by hand, and with aliases a
// larger one could be made to grow beyond measure.
const maxYAML = 1 << 20

// maxNodes bounds the values that are looked at: with aliases a short text can
// stand for a very long one.
const maxNodes = 100_000

// ignored is the type of a key that is accepted and has no effect: a blank
// field of it with a yaml tag tells the decoder.
type ignored struct{}

// decoder fills structs from YAML nodes and collects everything that does not
// fit. The library's own decoding stops being strict at scalars: it would take
// the number 0644 for a string field, as "0644" or as "420".
type decoder struct {
	file     string
	at       map[string]place
	problems []Problem
	broken   map[string]bool // paths of values that could not be read
	nodes    int
}

// parse returns the root of the text's only document; nil after a problem.
func (d *decoder) parse(src []byte) *yaml.Node {
	if len(src) > maxYAML {
		d.misplaced(d.placeAt(src, maxYAML), "", fmt.Sprintf("the text has more than %d bytes, the last of them here", maxYAML), "move long contents into files and name them with source")
		return nil
	}
	if i := notUTF8(src); i >= 0 {
		d.misplaced(d.placeAt(src, i), "", fmt.Sprintf("the byte 0x%02x is not UTF-8", src[i]), "save the file as UTF-8, and put binary data into a file that is named with source")
		return nil
	}
	if strings.TrimSpace(string(src)) == "" {
		d.misplaced(place{}, "", "the file is empty", "a spec needs at least a kernel")
		return nil
	}
	var doc yaml.Node
	if err := yaml.Load(src, &doc); err != nil {
		d.syntax(src, err)
		return nil
	}
	if len(doc.Content) != 1 || doc.Content[0].ShortTag() == "!!null" {
		d.problem("", "the file holds only comments", "a spec needs at least a kernel")
		return nil
	}
	return doc.Content[0]
}

// placeAt is where a byte of the text stands.
func (d *decoder) placeAt(src []byte, i int) place {
	line := src[:i]
	if start := bytes.LastIndexByte(line, '\n'); start >= 0 {
		line = line[start+1:]
	}
	return place{d.file, bytes.Count(src[:i], []byte("\n")) + 1, utf8.RuneCount(line) + 1}
}

// notUTF8 is the index of the first byte that is not, or -1. Texts in UTF-16 are
// told by their byte order mark, and taken.
func notUTF8(src []byte) int {
	if bytes.HasPrefix(src, []byte("\xff\xfe")) || bytes.HasPrefix(src, []byte("\xfe\xff")) {
		return -1
	}
	for i := 0; i < len(src); {
		r, n := utf8.DecodeRune(src[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return -1
}

// syntax notes an error of the YAML library, with its place if it tells one.
func (d *decoder) syntax(src []byte, err error) {
	p := Problem{File: d.file, Text: "not YAML: " + err.Error(), Hint: "check the indentation and the quotes around here"}
	var e *yaml.LoadError
	if !errors.As(err, &e) {
		d.problems = append(d.problems, p)
		return
	}
	p.Line, p.Column = e.Mark.Line, e.Mark.Column
	p.Text = "not YAML: " + e.Message
	if e.ContextMark.Line > 0 {
		p.Text += fmt.Sprintf(" (%s that began in line %d)", e.ContextMsg, e.ContextMark.Line)
	}
	switch {
	case strings.Contains(e.Message, "no documents"):
		p.Text, p.Hint = "the file holds only comments", "a spec needs at least a kernel"
	case strings.Contains(e.Message, "found multiple"):
		p.Line, p.Column = secondDocument(src), 1
		p.Text, p.Hint = "the file holds more than one document", `remove the line "---" and what follows it`
	case strings.Contains(e.Message, "unknown anchor"):
		p.Hint = "put & and its name before the value that is meant, further up"
	}
	d.problems = append(d.problems, p)
}

// secondDocument is the number of the line that begins the text's second
// document, which the YAML library does not tell.
func secondDocument(src []byte) int {
	number, begun := 0, false
	for line := range bytes.Lines(src) {
		number++
		text := bytes.TrimSpace(line)
		switch marker := bytes.HasPrefix(line, []byte("---")) || bytes.HasPrefix(line, []byte("...")); {
		case marker && begun:
			return number
		case len(text) > 0 && text[0] != '#' && text[0] != '%':
			begun = true
		}
	}
	return number
}

// decodeStruct fills the struct that v points to from the document's root.
func (d *decoder) decodeStruct(n *yaml.Node, v any) { d.decode(n, reflect.ValueOf(v).Elem(), "") }

func (d *decoder) decode(n *yaml.Node, v reflect.Value, path string) {
	d.at[path] = place{d.file, n.Line, n.Column}
	if d.nodes++; d.nodes > maxNodes || len(d.problems) >= maxProblems {
		if d.nodes == maxNodes+1 {
			d.problem(path, fmt.Sprintf("is the value number %d", d.nodes), "that is more than any machine needs: is something repeated through aliases (*)?")
		}
		return
	}
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.ShortTag() == "!!null" {
		d.unreadable(path, "has no value", "give it one, or remove it")
		return
	}
	if tag := n.ShortTag(); n.Kind == yaml.MappingNode && tag != "!!map" || n.Kind == yaml.SequenceNode && tag != "!!seq" {
		d.unreadable(path, "has the tag "+tag+", which means nothing here", "remove the tag")
		return
	}
	if id, ok := v.Addr().Interface().(*ID); ok {
		d.id(n, id, path)
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.decode(n, v.Elem(), path)
	case reflect.Struct:
		d.mapping(n, path, func(key *yaml.Node, value *yaml.Node) { d.field(key, value, v, path) })
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		d.mapping(n, path, func(key *yaml.Node, value *yaml.Node) {
			e := reflect.New(v.Type().Elem()).Elem()
			d.decode(value, e, join(path, key.Value))
			v.SetMapIndex(reflect.ValueOf(key.Value), e)
		})
	case reflect.Slice:
		if n.Kind != yaml.SequenceNode {
			d.unreadable(path, "must be a list, but is "+describe(n), "write it as [a, b] or one item a line with a dash before each")
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
		for i, item := range n.Content {
			d.decode(item, v.Index(i), fmt.Sprintf("%s[%d]", path, i))
		}
	default:
		d.scalar(n, v, path)
	}
}

// mapping calls f for each pair of a mapping; keys that come twice are noted.
func (d *decoder) mapping(n *yaml.Node, path string, f func(key, value *yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		d.unreadable(path, "must be a mapping of keys to values, but is "+describe(n), "write it as {key: value} or one key: value a line")
		return
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content) && len(d.problems) < maxProblems; i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		here := place{d.file, key.Line, key.Column}
		if key.Kind != yaml.ScalarNode || key.ShortTag() == "!!merge" {
			d.misplaced(here, path, "this key is not a plain word", "merge keys (<<) and keys that are lists or mappings are not supported: write the fields out")
			continue
		}
		if line, twice := seen[key.Value]; twice {
			d.misplaced(here, join(path, key.Value), fmt.Sprintf("is given twice, first in line %d", line), "remove one of them")
			continue
		}
		seen[key.Value] = key.Line
		f(key, value)
	}
}

// field decodes one key of a struct, or says why there is no such key. A tag
// may list several spellings of a key; the first one is its name.
func (d *decoder) field(key, value *yaml.Node, v reflect.Value, path string) {
	here := place{d.file, key.Line, key.Column}
	if len(d.problems) >= maxProblems {
		return
	}
	var known []string
	for _, f := range taggedFields(v.Type()) {
		spellings := strings.Split(f.Tag.Get("yaml"), ",")
		known = append(known, spellings[0])
		if !slices.Contains(spellings, key.Value) {
			continue
		}
		inner := join(path, spellings[0])
		if first, twice := d.at[inner]; twice {
			d.misplaced(here, inner, fmt.Sprintf("is given twice, first in line %d", first.line), "remove one of them")
			return
		}
		if f.Type != reflect.TypeFor[ignored]() {
			d.decode(value, v.FieldByIndex(f.Index), inner)
		}
		return
	}
	d.misplaced(here, path, fmt.Sprintf("unknown key %q", key.Value), didYouMean(key.Value, known))
}

// taggedFields are the fields of a struct that stand for keys, those of
// embedded structs and blank ones included.
func taggedFields(t reflect.Type) []reflect.StructField {
	var fields []reflect.StructField
	for i := range t.NumField() {
		f := t.Field(i)
		switch {
		case f.Tag.Get("yaml") != "":
			fields = append(fields, f)
		case f.Anonymous:
			for _, inner := range taggedFields(f.Type) {
				inner.Index = append([]int{i}, inner.Index...)
				fields = append(fields, inner)
			}
		}
	}
	return fields
}

const outOfRange = "write a decimal number in range, not negative unless the field allows it"

func (d *decoder) scalar(n *yaml.Node, v reflect.Value, path string) {
	want := map[reflect.Kind]string{reflect.String: "!!str", reflect.Bool: "!!bool"}[v.Kind()]
	if want == "" {
		want = "!!int"
	}
	if n.Kind != yaml.ScalarNode || n.ShortTag() != want {
		d.wrongType(n, v, path)
		return
	}
	var err error
	switch v.Kind() {
	case reflect.String:
		v.SetString(n.Value)
		if dir, ok := strings.CutPrefix(n.Value, pkgPrefix); ok {
			d.template(v, dir, path)
		}
		if strings.ContainsRune(n.Value, 0) {
			d.problem(path, "holds a NUL", "remove it; binary data may be in a file that is named with source")
		}
	case reflect.Bool:
		v.SetBool(strings.EqualFold(n.Value, "true"))
	case reflect.Uint16, reflect.Uint32, reflect.Uint64:
		var u uint64
		if u, err = strconv.ParseUint(n.Value, 10, v.Type().Bits()); err == nil {
			v.SetUint(u)
		}
	default:
		var i int64
		if i, err = strconv.ParseInt(n.Value, 10, v.Type().Bits()); err == nil {
			v.SetInt(i)
		}
	}
	if err != nil {
		d.problem(path, fmt.Sprintf("%s does not fit", n.Value), outOfRange)
	}
}

// template replaces a text that stands for a package's source by its image.
func (d *decoder) template(v reflect.Value, dir, path string) {
	dir, err := hostPath(d.file, dir)
	if err == nil {
		var name string
		if name, err = packageImage(dir); err == nil {
			v.SetString(name)
			return
		}
	}
	text, hint := split(err, "name the folder with the package's build.yml, from this file's folder on, or write the image's name itself")
	d.problem(path, "no image's name can be made of the package's source: "+text, hint)
}

// id decodes a number or the name of a container.
func (d *decoder) id(n *yaml.Node, id *ID, path string) {
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!str" && n.Value != "" {
		id.Name = n.Value
		return
	}
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!int" {
		d.problem(path, "must be a number or the name of a container, but is "+describe(n), "write one of them")
		return
	}
	if len(n.Value) > 1 && n.Value[0] == '0' && strings.Trim(n.Value, "0123456789") == "" {
		hint := "write it in decimal without the zero"
		if octal, err := strconv.ParseUint(n.Value, 8, 32); err == nil {
			hint = fmt.Sprintf("write %d if it is octal, or the decimal number without the zero", octal)
		}
		d.problem(path, fmt.Sprintf("%s begins with a zero, which some take for octal and others do not", n.Value), hint)
		return
	}
	d.scalar(n, reflect.ValueOf(&id.Number).Elem(), path)
}

func (d *decoder) wrongType(n *yaml.Node, v reflect.Value, path string) {
	number := v.Kind() != reflect.String && v.Kind() != reflect.Bool
	switch {
	case n.Kind == yaml.ScalarNode && !slices.Contains([]string{"!!str", "!!int", "!!float", "!!bool"}, n.ShortTag()) && n.Style&yaml.TaggedStyle != 0:
		d.problem(path, "has the tag "+n.ShortTag()+", which means nothing here", "remove the tag")
	case number && n.ShortTag() == "!!float" && strings.Trim(n.Value, "+-0123456789") == "":
		d.problem(path, fmt.Sprintf("%s does not fit", n.Value), outOfRange)
	case v.Kind() == reflect.String && n.Kind == yaml.ScalarNode:
		d.problem(path, "must be a string, but is "+describe(n), fmt.Sprintf("quote it: %q", n.Value))
	case v.Kind() == reflect.String:
		d.problem(path, "must be a string, but is "+describe(n), "write one text, in quotes if need be")
	case v.Kind() == reflect.Bool:
		d.problem(path, "must be true or false, but is "+describe(n), "write true or false, without quotes")
	default:
		d.problem(path, "must be a whole number, but is "+describe(n), "write it in decimal, without quotes")
	}
}

func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	text := n.Value
	if text == "" && n.ShortTag() == "!!str" {
		return "an empty string"
	}
	if len(text) > 40 {
		text = text[:40] + "..."
	}
	kind := map[string]string{"!!str": "string", "!!int": "number", "!!float": "number", "!!bool": "truth value", "!!timestamp": "date"}[n.ShortTag()]
	return strings.TrimSpace(fmt.Sprintf("the %s %s", kind, text))
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

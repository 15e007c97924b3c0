package images

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v4"
)

// Metadata is the spec as it was merged, without what was not given, in the
// format "yaml" or "json". Keys are sorted and have their first spelling.
func (s *Spec) Metadata(format string) ([]byte, error) {
	value := plain(reflect.ValueOf(*s))
	switch format {
	case "yaml":
		return yaml.Marshal(value)
	case "json":
		text, err := json.Marshal(value)
		return append(text, '\n'), err
	}
	return nil, fmt.Errorf("unknown format %q of metadata: yaml and json are known", format)
}

// plain turns a value of a spec into maps, lists and scalars; nil for what was
// not given.
func plain(v reflect.Value) any {
	if id, ok := v.Interface().(ID); ok {
		if id.Name != "" {
			return id.Name
		}
		return id.Number
	}
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return nil
		}
		return plain(v.Elem())
	case reflect.Slice:
		if v.IsNil() {
			return nil
		}
		list := make([]any, v.Len())
		for i := range list {
			list[i] = plain(v.Index(i))
		}
		return list
	case reflect.Map:
		if v.IsNil() {
			return nil
		}
		return v.Interface()
	case reflect.Struct:
		fields := map[string]any{}
		for _, f := range taggedFields(v.Type()) {
			if f.Type == reflect.TypeFor[ignored]() || v.FieldByIndex(f.Index).IsZero() {
				continue
			}
			name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
			fields[name] = plain(v.FieldByIndex(f.Index))
		}
		return fields
	}
	return v.Interface()
}

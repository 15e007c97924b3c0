//go:build linux

package guest

import "strings"

// kernelWords is /proc/cmdline in words.
type kernelWords []string

// has reports whether the exact word is present.
func (w kernelWords) has(word string) bool {
	for _, x := range w {
		if x == word {
			return true
		}
	}
	return false
}

// last returns the value of the last word that starts with prefix.
func (w kernelWords) last(prefix string) (value string, ok bool) {
	for _, x := range w {
		if v, found := strings.CutPrefix(x, prefix); found {
			value, ok = v, true
		}
	}
	return value, ok
}

// consoles returns the terminals of all console= words without their options,
// each once, in order.
func (w kernelWords) consoles() []string {
	var names []string
	for _, x := range w {
		v, found := strings.CutPrefix(x, "console=")
		if !found {
			continue
		}
		v, _, _ = strings.Cut(v, ",")
		if v != "" && !kernelWords(names).has(v) {
			names = append(names, v)
		}
	}
	return names
}

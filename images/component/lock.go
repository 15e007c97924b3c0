package component

import (
	"bytes"
	"cmp"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// LockPath is where the lock file is in this repository.
const LockPath = "images/component/lock.json"

//go:embed lock.json
var lockFile []byte

// Arches are the architectures for which inputs are locked.
var arches = []string{"amd64", "arm64"}

// Lock says, by architecture, of which foreign inputs the components are to be
// made: Debian packages and Go modules, each with name, version and digest,
// and never with an address. The list is sorted. This repository's own sources
// are not in it: the commit that holds the lock holds them too.
type Lock map[string][]Input

// Locked is the lock that was compiled in.
func Locked() (Lock, error) { return ParseLock(lockFile) }

// ParseLock reads a lock file. Unknown keys, unknown kinds, missing fields and
// an input that is listed twice are errors.
func ParseLock(text []byte) (Lock, error) {
	var l Lock
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&l); err != nil {
		return nil, fmt.Errorf("lock file: %w", err)
	}
	var errs []error
	for arch, list := range l {
		if !slices.Contains(arches, arch) {
			errs = append(errs, fmt.Errorf("lock file: unknown architecture %q", arch))
		}
		seen := map[string]bool{}
		for _, in := range list {
			switch {
			case in.Component == "" || in.Name == "" || in.Version == "" || in.Digest == "":
				errs = append(errs, fmt.Errorf("lock file: %s: an input without component, name, version or digest: %+v", arch, in))
			case in.Kind != kindDeb && in.Kind != kindGo:
				errs = append(errs, fmt.Errorf("lock file: %s: %s of %s is of the unknown kind %q", arch, in.Name, in.Component, in.Kind))
			case seen[in.id()]:
				errs = append(errs, fmt.Errorf("lock file: %s: %s of %s is listed twice", arch, in.Name, in.Component))
			}
			seen[in.id()] = true
		}
	}
	return l, errors.Join(errs...)
}

// Encode writes the lock as it is kept: one input a line, so that a change of
// one input is a change of one line.
func (l Lock) Encode() ([]byte, error) {
	var b bytes.Buffer
	b.WriteString("{")
	for i, arch := range slices.Sorted(maps.Keys(l)) {
		if i > 0 {
			b.WriteString(",")
		}
		fmt.Fprintf(&b, "\n%q: [", arch)
		for j, in := range sortInputs(l[arch]) {
			line, err := json.Marshal(in)
			if err != nil {
				return nil, err
			}
			if j > 0 {
				b.WriteString(",")
			}
			fmt.Fprintf(&b, "\n  %s", line)
		}
		b.WriteString("\n]")
	}
	b.WriteString("\n}\n")
	return b.Bytes(), nil
}

// of is what is locked for a component, of one kind or, with "", of all.
func (l Lock) of(arch, component, kind string) []Input {
	var out []Input
	for _, in := range l[arch] {
		if in.Component == component && (kind == "" || in.Kind == kind) {
			out = append(out, in)
		}
	}
	return out
}

// id is what an input is known by, whatever its version.
func (in Input) id() string { return in.Component + " " + in.Kind + " " + in.Name }

func sortInputs(list []Input) []Input {
	return slices.SortedFunc(slices.Values(list), func(a, b Input) int { return cmp.Compare(a.id(), b.id()) })
}

// Change is a difference between two locks.
type Change struct {
	Arch     string
	Old, New Input // Old is zero for what was added, New for what was removed
}

// What is "added", "changed" or "removed".
func (c Change) What() string {
	switch {
	case c.Old.Name == "":
		return "added"
	case c.New.Name == "":
		return "removed"
	}
	return "changed"
}

// String is the change in one line.
func (c Change) String() string {
	in := c.New
	if c.What() == "removed" {
		in = c.Old
	}
	line := fmt.Sprintf("%s %s: %s %s", c.Arch, in.Component, c.What(), in.Name)
	switch {
	case c.What() != "changed":
		return line + " " + in.Version
	case c.Old.Version == c.New.Version:
		return fmt.Sprintf("%s %s: other contents under the same version: %s, was %s", line, in.Version, c.New.Digest, c.Old.Digest)
	}
	return fmt.Sprintf("%s %s -> %s", line, c.Old.Version, c.New.Version)
}

// Diff lists what changed from one lock to another, sorted.
func Diff(old, new Lock) []Change {
	var out []Change
	for _, arch := range arches {
		was, is := byID(old[arch]), byID(new[arch])
		for _, id := range slices.Sorted(maps.Keys(is)) {
			if was[id] != is[id] {
				out = append(out, Change{Arch: arch, Old: was[id], New: is[id]})
			}
		}
		for _, id := range slices.Sorted(maps.Keys(was)) {
			if _, ok := is[id]; !ok {
				out = append(out, Change{Arch: arch, Old: was[id]})
			}
		}
	}
	return out
}

func byID(list []Input) map[string]Input {
	m := map[string]Input{}
	for _, in := range list {
		m[in.id()] = in
	}
	return m
}

// drift compares what a component was made of with what is locked for it and
// notes every difference in the inputs' Drift. An input that is locked but was
// not used is no input, so it is noted in the returned list alone. The error
// is for what must never be: the locked version with another digest.
func drift(locked, used []Input) (noted []Input, missing []string, err error) {
	want := byID(locked)
	for _, in := range used {
		w, ok := want[in.id()]
		delete(want, in.id())
		switch {
		case in.Kind != kindDeb && in.Kind != kindGo:
		case !ok:
			in.Drift = fmt.Sprintf("not locked, used %s", in.Version)
		case w.Version != in.Version:
			in.Drift = fmt.Sprintf("locked %s, used %s", w.Version, in.Version)
		case w.Digest != in.Digest:
			err = errors.Join(err, fmt.Errorf("%s %s has the digest %s, but %s is locked: it was replaced under its version, or damaged on its way; "+
				"remove the cache folder and try again, and if it stays so find out who changed it before you refresh the lock", in.Name, in.Version, in.Digest, w.Digest))
		}
		noted = append(noted, in)
	}
	for _, id := range slices.Sorted(maps.Keys(want)) {
		missing = append(missing, fmt.Sprintf("%s: locked %s, not used", want[id].Name, want[id].Version))
	}
	return noted, missing, err
}

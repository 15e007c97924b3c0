package images

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// ID is a user or group id: a number, or the name of a container, which stands
// for a number of its own.
type ID struct {
	Number uint32
	Name   string // of a container; empty: Number counts
}

// firstID is upstream's id of the first container; ids below belong to what
// distributions put into /etc/passwd.
const firstID = 100

// ids are the numbers of the containers' names, counted over onboot,
// onshutdown and services. The last of several of the same name has it.
func (s *Spec) ids() map[string]uint32 {
	numbers := map[string]uint32{}
	next := uint32(firstID)
	for _, l := range s.lists() {
		for _, c := range l.items {
			numbers[c.Name] = next
			next++
		}
	}
	return numbers
}

// number is the id as the kernel wants it; nil is 0.
func (id *ID) number(ids map[string]uint32) (uint32, error) {
	if id == nil {
		return 0, nil
	}
	if id.Name == "" {
		if id.Number > maxID {
			return 0, advisedf(fmt.Sprintf("write a number up to %d", uint64(maxID)), "%d is no id: the kernel takes it for the one that is there already", id.Number)
		}
		return id.Number, nil
	}
	n, ok := ids[id.Name]
	if !ok {
		if strings.Trim(id.Name, "0123456789") == "" {
			return 0, advisedf("write it without quotes if it is a number", "%q is no container", id.Name)
		}
		return 0, advisedf("write a number, or a container's name: "+didYouMean(id.Name, slices.Sorted(maps.Keys(ids))), "%q is no container", id.Name)
	}
	return n, nil
}

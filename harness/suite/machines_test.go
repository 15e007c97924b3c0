package suite

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/seatrial/seatrial/harness"
)

// Two specs, each of a process of its own, have a machine each, which fill the
// host, and need another each: both get it. A spec without a machine waits.
func TestSpecsDoNotWaitForOneAnother(t *testing.T) {
	host := world{Admission: harness.Admission{Dir: t.TempDir(), MemoryMiB: 512, CPUs: 4}}
	plan := harness.Plan{MemoryMiB: 256}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var first, all sync.WaitGroup
	first.Add(2)
	full := make(chan struct{})
	for range 2 {
		all.Go(func() {
			s := &Suite{world: host}
			a, err := s.admit(ctx, plan, false)
			first.Done()
			if err != nil {
				t.Error(err)
				return
			}
			<-full
			b, err := s.admit(ctx, plan, false)
			if err != nil {
				t.Errorf("waits for the other: %v", err)
				return
			}
			if err := errors.Join(b.Release(), a.Release()); err != nil || s.rooms.Load() != 0 {
				t.Errorf("%v, %d rooms left", err, s.rooms.Load())
			}
		})
	}
	first.Wait()
	brief, stop := context.WithTimeout(ctx, 20*time.Millisecond)
	defer stop()
	if _, err := (&Suite{world: host}).admit(brief, plan, false); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a full host let in a spec without a machine: %v", err)
	}
	close(full)
	all.Wait()
}

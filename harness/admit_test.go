package harness

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seatrial/seatrial/reports"
)

func TestAdmission(t *testing.T) {
	a := Admission{Dir: t.TempDir(), MemoryMiB: 1024, CPUs: 3}
	admit := func(limit time.Duration, p Plan, fork bool) (*Admitted, error) {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		return a.Admit(ctx, p, fork)
	}
	half, err := admit(time.Minute, Plan{MemoryMiB: 512}, false)
	if err != nil {
		t.Fatal(err)
	}
	// A fork of a big machine takes a quarter of it; then the host is full.
	fork, err := admit(time.Minute, Plan{MemoryMiB: 2048}, true)
	if err != nil {
		t.Fatal(err)
	}
	var f *Failure
	if _, err := admit(20*time.Millisecond, Plan{MemoryMiB: 1}, false); !errors.As(err, &f) || f.Class != reports.Infra || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a full host let one in: %v", err)
	}
	if err := errors.Join(half.Release(), half.Release()); err != nil {
		t.Fatal(err)
	}
	if _, err := admit(20*time.Millisecond, Plan{MemoryMiB: 1, CPUs: 3}, false); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("three CPUs of two were given out: %v", err)
	}
	// What was refused holds nothing.
	again, err := admit(time.Minute, Plan{MemoryMiB: 512, CPUs: 2}, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(again.Release(), fork.Release()); err != nil {
		t.Fatal(err)
	}
	for _, p := range []Plan{{MemoryMiB: 1025}, {MemoryMiB: 64, CPUs: 4}} {
		if _, err := admit(time.Minute, p, false); !errors.As(err, &f) || f.Class != reports.Misuse || !strings.Contains(f.Title, "all machines together") {
			t.Errorf("%+v: %v", p, err)
		}
	}
}

// However many ask, there are never more than fit, and all are served.
func TestAdmissionOfMany(t *testing.T) {
	a := Admission{Dir: t.TempDir(), MemoryMiB: 1024, CPUs: 100}
	var now, most atomic.Int32
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			room, err := a.Admit(t.Context(), Plan{MemoryMiB: 300}, false) // two tokens of four
			if err != nil {
				t.Error(err)
				return
			}
			if n := now.Add(1); n > most.Load() {
				most.Store(n)
			}
			time.Sleep(time.Millisecond) // what a machine does with its room
			now.Add(-1)
			if err := room.Release(); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := most.Load(); n != 2 {
		t.Errorf("at most %d at once, want 2", n)
	}
}

// A further machine takes what is free, goes on without the rest, and gives back
// what it took; what can never be is refused.
func TestAdmitFurther(t *testing.T) {
	a := Admission{Dir: t.TempDir(), MemoryMiB: 512, CPUs: 1}
	further, err := a.AdmitFurther(Plan{MemoryMiB: 256}, false)
	if err != nil {
		t.Fatal(err)
	}
	beyond, err := a.AdmitFurther(Plan{MemoryMiB: 512}, false)
	if err != nil || len(further.tokens) != 2 || len(beyond.tokens) != 1 {
		t.Fatalf("%v; tokens %d and %d, want memory and a CPU, and the rest of the memory", err, len(further.tokens), len(beyond.tokens))
	}
	if err := errors.Join(further.Release(), beyond.Release()); err != nil {
		t.Fatal(err)
	}
	all, err := a.Admit(t.Context(), Plan{MemoryMiB: 512}, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := all.Release(); err != nil {
		t.Fatal(err)
	}
	var f *Failure
	if _, err := a.AdmitFurther(Plan{MemoryMiB: 513}, false); !errors.As(err, &f) || f.Class != reports.Misuse {
		t.Errorf("more than there is: %v", err)
	}
}

func TestHostAdmission(t *testing.T) {
	a, err := HostAdmission("dir")
	if err != nil || a.MemoryMiB < 64 || a.CPUs < cpuShare || a.Dir != "dir" {
		t.Errorf("%+v, %v", a, err)
	}
}

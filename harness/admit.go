package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seatrial/seatrial/reports"
)

// Admission lets machines start only as long as the host has room for them, in
// whatever process they are started. Room is counted in tokens: files that are
// locked by whoever has them. The kernel gives a lock back when its holder
// ends, however that comes about.
type Admission struct {
	Dir       string // of the tokens; the same for all processes, made if missing
	MemoryMiB int    // that machines may have in all
	CPUs      int    // that they may have in all
}

// memoryToken is the grain in which memory is given out, in MiB.
const memoryToken = 256

// cpuShare is how many virtual processors a real one may carry: most machines
// of a suite wait for something at any time.
const cpuShare = 8

// memoryShare is the part of the host's memory that machines may have.
const memoryShare = 0.75

// HostAdmission gives out three quarters of the host's memory, or of what the
// control group allows, and eight virtual processors for each real one.
func HostAdmission(dir string) (Admission, error) {
	var info syscall.Sysinfo_t
	if err := syscall.Sysinfo(&info); err != nil {
		return Admission{}, fmt.Errorf("the host's memory: %w", err)
	}
	total := info.Totalram * uint64(info.Unit)
	// Without control groups, or with "max" in the file, there is no limit.
	if b, err := os.ReadFile("/sys/fs/cgroup/memory.max"); err == nil {
		if limit, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64); err == nil {
			total = min(total, limit)
		}
	}
	return Admission{Dir: dir, MemoryMiB: int(float64(total>>20) * memoryShare), CPUs: cpuShare * runtime.NumCPU()}, nil
}

// Admitted is the room of one machine.
type Admitted struct{ tokens []*os.File }

// Release gives the room back. It may be called again.
func (a *Admitted) Release() error {
	var errs []error
	for _, f := range a.tokens {
		errs = append(errs, f.Close())
	}
	a.tokens = nil
	return errors.Join(errs...)
}

// Admit waits until there is room for the plan's machine. A fork shares most
// of its memory and is counted with a quarter of it. Who asks first is served
// first, so that a big machine is not overtaken for ever by small ones.
//
// Whoever has a machine already and needs another at the same time asks
// AdmitFurther instead.
//
// An error is a *Failure: misuse, if the host will never have the room, infra
// if ctx ends first.
func (a Admission) Admit(ctx context.Context, p Plan, fork bool) (*Admitted, error) {
	memory, cpus, wanted, err := a.wants(p, fork)
	if err != nil {
		return nil, err
	}
	got, err := a.take(ctx, wanted)
	if err != nil {
		return nil, noRoom(p, reports.Infra, fmt.Errorf("no room for %d MiB and %d CPUs: %w", memory, cpus, err))
	}
	return got, nil
}

// AdmitFurther lets in, at once, the machine of a plan for somebody who has one
// already. It takes what is free of the room and goes on without the rest.
//
// Two who each have a machine and each wait for the room of a second one wait
// for one another, for ever. So nobody waits who has something: the host may
// carry more than it gives out, by the further machines of those that are let
// in at one time, and becomes slower; it does not come to a standstill.
//
// An error is a *Failure, as Admit's.
func (a Admission) AdmitFurther(p Plan, fork bool) (*Admitted, error) {
	_, _, wanted, err := a.wants(p, fork)
	if err == nil {
		err = os.MkdirAll(a.Dir, 0o700)
	}
	got := &Admitted{}
	for kind, n := range wanted {
		if err == nil {
			_, err = got.free(filepath.Join(a.Dir, kind), n[0], n[1])
		}
	}
	if err != nil {
		return nil, errors.Join(noRoom(p, reports.Infra, err), got.Release())
	}
	return got, nil
}

// wants says how many tokens of each kind the plan's machine needs, and out of
// how many.
func (a Admission) wants(p Plan, fork bool) (memory, cpus int, wanted map[string][2]int, err error) {
	memory, cpus = p.MemoryMiB, max(p.CPUs, 1)
	if memory == 0 {
		memory = defaultMemory
	}
	if fork {
		memory /= 4
	}
	if memory > a.MemoryMiB || cpus > a.CPUs {
		return memory, cpus, nil, noRoom(p, reports.Misuse, fmt.Errorf("no room for %d MiB and %d CPUs: all machines together may have %d MiB and %d CPUs", memory, cpus, a.MemoryMiB, a.CPUs))
	}
	return memory, cpus, map[string][2]int{
		"memory": {(memory + memoryToken - 1) / memoryToken, a.MemoryMiB / memoryToken},
		"cpu":    {cpus, a.CPUs},
	}, nil
}

// noRoom is the verdict about a machine that is not let in. One that there is
// already stays.
func noRoom(p Plan, class reports.Class, err error) error {
	var f *Failure
	if errors.As(err, &f) {
		return err
	}
	return &Failure{Class: class, Title: err.Error(), Wanted: "room for the machine", Machine: p.Name, Dir: p.Dir, Err: err}
}

// take takes, of each kind, the first number of tokens out of the second. Only
// one at a time takes, so nobody holds a part of what two wait for.
func (a Admission) take(ctx context.Context, wanted map[string][2]int) (*Admitted, error) {
	if err := os.MkdirAll(a.Dir, 0o700); err != nil {
		return nil, err
	}
	queue, err := lockFile(ctx, filepath.Join(a.Dir, "queue"), unix.LOCK_EX)
	if err != nil {
		return nil, err
	}
	defer queue.Close()
	got := &Admitted{}
	for kind, n := range wanted {
		if err := got.some(ctx, filepath.Join(a.Dir, kind), n[0], n[1]); err != nil {
			return nil, errors.Join(err, got.Release())
		}
	}
	return got, nil
}

// some takes n of the tokens with the name, of which there are so many.
func (a *Admitted) some(ctx context.Context, name string, n, of int) error {
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, 200*time.Millisecond) {
		taken, err := a.free(name, n, of)
		if n -= taken; n == 0 || err != nil {
			return err
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("other machines have it: %w", context.Cause(ctx))
		}
	}
}

// free takes those of the tokens that nobody has, n at most.
func (a *Admitted) free(name string, n, of int) (taken int, err error) {
	for i := 0; i < of && taken < n; i++ {
		f, err := tryLock(fmt.Sprintf("%s-%d", name, i), unix.LOCK_EX)
		if errors.Is(err, errLocked) {
			continue
		}
		if err != nil {
			return taken, err
		}
		a.tokens = append(a.tokens, f)
		taken++
	}
	return taken, nil
}

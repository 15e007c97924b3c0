package main

import (
	"context"
	"errors"
	"testing"

	"github.com/seatrial/seatrial/harness"
	"github.com/seatrial/seatrial/reports"
)

// A machine waits until there is room for it, and the user is told; one that
// would never fit is refused at once.
func TestAdmit(t *testing.T) {
	o := &options{cache: t.TempDir()}
	silent := func(text string) { t.Errorf("said %q", text) }
	all, err := harness.HostAdmission("")
	if err != nil {
		t.Fatal(err)
	}
	_, err = o.admit(t.Context(), harness.Plan{MemoryMiB: all.MemoryMiB + 1}, silent)
	var f *harness.Failure
	if !errors.As(err, &f) || f.Class != reports.Misuse {
		t.Errorf("more than there is: %v", err)
	}
	room, err := o.admit(t.Context(), harness.Plan{CPUs: all.CPUs}, silent)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	told := make(chan string, 1)
	_, err = o.admit(ctx, harness.Plan{}, func(text string) {
		told <- text
		cancel()
	})
	if !errors.As(err, &f) || f.Class != reports.Infra {
		t.Errorf("no room: %v", err)
	}
	select {
	case <-told:
	default:
		t.Error("nobody was told")
	}
	if err := room.Release(); err != nil {
		t.Error(err)
	}
	again, err := o.admit(t.Context(), harness.Plan{CPUs: all.CPUs}, silent)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Release(); err != nil {
		t.Error(err)
	}
}

//go:build linux

package guest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/seatrial/seatrial/boot"
)

func TestHold(t *testing.T) {
	tm := newTestMachine(t)
	tm.file(t, "/run/there", "", 0o644)
	tm.words = kernelWords{boot.HoldWord + "containerd"}
	tm.hold(boot.Mounts)
	tm.hold(boot.Onboot) // not its place
	if tm.kmsg.String() != "" {
		t.Fatalf("held at the wrong place: %s", tm.kmsg)
	}
	gone := make(chan struct{})
	go func() { defer close(gone); tm.hold(boot.Containerd) }()
	path := filepath.Join(tm.root, boot.HoldPath)
	awaitText(t, tm.kmsg, `"state":"held"`)
	select {
	case <-gone:
		t.Fatal("went on by itself")
	default:
	}
	if err := os.WriteFile(path, []byte("\n"), 0); err != nil {
		t.Fatal(err)
	}
	<-gone
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("the FIFO is left: %v", err)
	}
}

func TestHoldEndsWithTheMachine(t *testing.T) {
	tm := newTestMachine(t)
	tm.file(t, "/run/there", "", 0o644)
	tm.words = kernelWords{boot.HoldWord + "services"}
	gone := make(chan struct{})
	go func() { defer close(gone); tm.hold(boot.Services) }()
	awaitText(t, tm.kmsg, `"state":"held"`)
	tm.cancel()
	<-gone
	if strings.Contains(tm.kmsg.String(), "warned") {
		t.Errorf("a stop is no mistake: %s", tm.kmsg)
	}
}

func TestHoldThatCannotBeIsSaid(t *testing.T) {
	tm := newTestMachine(t)
	tm.words = kernelWords{boot.HoldWord + "modules"}
	tm.hold(boot.Mounts)
	tm.hold(boot.Modules) // the agent is not there yet: nobody could let it go on
	if !strings.Contains(tm.console.String(), "seatrial.hold=modules: a machine can be held before") {
		t.Errorf("said %q", tm.console)
	}
	tm.words = kernelWords{boot.HoldWord + "onboot"}
	tm.hold(boot.Onboot) // no /run to hold in
	if !strings.Contains(tm.console.String(), "not held before onboot") {
		t.Errorf("said %q", tm.console)
	}
}

// awaitText waits until text was written.
func awaitText(t *testing.T, b *syncBuffer, text string) {
	t.Helper()
	for limit := time.Now().Add(10 * time.Second); !strings.Contains(b.String(), text); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("%q was never written, but %q", text, b)
		}
	}
}

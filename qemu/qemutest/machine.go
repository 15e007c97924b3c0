package qemutest

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// Play is a machine that the stand-in can be.
type Play struct {
	// Guest is what runs in the machine, from its first resumption on, in the
	// stand-in's process. The machine goes on when it returns.
	Guest func(*Machine)
	// Refuse returns why a command is refused, in QEMU's words; empty: it is
	// not. nil: none is.
	Refuse func(m *Machine, command, arguments string) string
	// Fail returns what to say on standard error before ending with status 1,
	// at once; empty, or nil: nothing.
	Fail func(m *Machine) string
}

// Plays are the machines a test binary can be, by name.
type Plays map[string]Play

// prefix begins the name under which the test binary is the stand-in.
const prefix = "qemutest-"

// Main runs the package's tests or, if the process is to be the stand-in, the
// play. It does not return.
func Main(m *testing.M, plays Plays) {
	name, ok := strings.CutPrefix(filepath.Base(os.Args[0]), prefix)
	if !ok {
		// A program built with the race detector waits a second before it ends,
		// for reports of other threads. Every stand-in is such a program.
		if err := os.Setenv("GORACE", strings.TrimSpace(os.Getenv("GORACE")+" atexit_sleep_ms=0")); err != nil {
			fmt.Fprintf(os.Stderr, "qemutest: %v\n", err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	play, known := plays[name]
	if !known {
		fmt.Fprintf(os.Stderr, "qemutest: no play %q\n", name)
		os.Exit(1)
	}
	if err := perform(play, os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "qemutest: %v\n", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Binary returns the path of a QEMU that performs the named play of Main.
func Binary(t testing.TB, play string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), prefix+play)
	if err := os.Symlink(self, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// Machine is the stand-in's machine, as its guest sees it.
type Machine struct {
	Args   []string // of QEMU's command line
	Serial *os.File // the first serial line
	Agent  *os.File // the second one; nil without it
	Loaded bool     // it goes on from a saved machine

	mu     sync.Mutex
	memory []byte
	end    chan string // why it ended
	ended  sync.Once
}

// Has reports whether the argument after flag, any of them, contains text.
func (m *Machine) Has(flag, text string) bool {
	for i, a := range m.Args[:len(m.Args)-1] {
		if a == flag && strings.Contains(m.Args[i+1], text) {
			return true
		}
	}
	return false
}

// field finds the value of "key=" in the first argument after flag that
// contains text.
func (m *Machine) field(flag, text, key string) (string, bool) {
	for i, a := range m.Args[:len(m.Args)-1] {
		if a != flag || !strings.Contains(m.Args[i+1], text) {
			continue
		}
		for field := range strings.SplitSeq(m.Args[i+1], ",") {
			if v, ok := strings.CutPrefix(field, key+"="); ok {
				return v, true
			}
		}
	}
	return "", false
}

// Memory is the guest's memory: what SetMemory left there, in this machine or
// in the one it goes on from.
func (m *Machine) Memory() []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]byte(nil), m.memory...)
}

// SetMemory changes the guest's memory.
func (m *Machine) SetMemory(b []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.memory = append([]byte(nil), b...)
}

// End ends the machine for a reason of QEMU's SHUTDOWN event, such as
// "guest-shutdown".
func (m *Machine) End(reason string) {
	m.ended.Do(func() { m.end <- reason })
}

// storeMemory writes the memory to the file it lies in, with its length before
// it.
func (m *Machine) storeMemory(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "%d\n%s", len(m.memory), m.memory)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

func parseMemory(b []byte) ([]byte, error) {
	size, rest, ok := strings.Cut(string(b), "\n")
	n, err := strconv.Atoi(size)
	if !ok || err != nil || n > len(rest) {
		return nil, fmt.Errorf("load of migration failed: the memory is not that of the saved machine")
	}
	return []byte(rest[:n]), nil
}

// ramFile is the file the memory lies in; private: it is only read.
func (m *Machine) ramFile() (path string, private bool) {
	path, _ = m.field("-object", "memory-backend-file", "mem-path")
	share, _ := m.field("-object", "memory-backend-file", "share")
	return path, share == "off"
}

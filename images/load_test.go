package images

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// A pipe is read; the wait for one that nobody writes into ends with the context.
func TestLoadPipe(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo.yml")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	written := make(chan error, 1)
	go func() { written <- os.WriteFile(fifo, []byte(machine), 0) }()
	if s, err := LoadSpec(t.Context(), fifo); err != nil || s.Name != "fifo" {
		t.Errorf("%+v, %v", s, err)
	}
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := LoadSpec(over, fifo); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	silent, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	defer writer.Close()
	old := os.Stdin
	os.Stdin = silent
	defer func() { os.Stdin = old }()
	if _, err := LoadSpec(over, "-"); !errors.Is(err, context.Canceled) {
		t.Errorf("standard input: %v", err)
	}
}

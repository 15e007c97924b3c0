package images

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Whatever the pieces it is written in, a file has all of it and its digest.
func TestCreate(t *testing.T) {
	random := rand.NewChaCha8([32]byte{1})
	for _, size := range []int{0, 1, pieceSize - 1, pieceSize, pieceSize + 1, 5*pieceSize + 7} {
		want := make([]byte, size)
		if _, err := io.ReadFull(random, want); err != nil {
			t.Fatal(err)
		}
		for _, piece := range []int{1000, pieceSize, 3 * pieceSize} {
			path := filepath.Join(t.TempDir(), "f")
			digest, err := create(t.Context(), path, func(w io.Writer) error {
				scratch := make([]byte, piece) // whoever writes may use it again
				for rest := want; len(rest) > 0; {
					n := copy(scratch, rest)
					rest = rest[n:]
					if got, err := w.Write(scratch[:n]); err != nil || got != n {
						return fmt.Errorf("%d of %d written: %w", got, n, err)
					}
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if want := fmt.Sprintf("sha256:%x", sha256.Sum256(want)); digest != want {
				t.Errorf("%d bytes by %d: %s, not %s", size, piece, digest, want)
			}
			if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes by %d: %d bytes, %v", size, piece, len(got), err)
			}
		}
	}
}

// full takes so many bytes.
type full int

func (f *full) Write(p []byte) (int, error) {
	if *f -= full(len(p)); *f < 0 {
		return 0, errors.New("no space left on device")
	}
	return len(p), nil
}

// A failed write is told, once, wherever in the file it was, and nobody waits.
func TestBackgroundError(t *testing.T) {
	for pieces := range 6 {
		limit := full(pieces * pieceSize)
		var all bytes.Buffer
		b := newBackground(&limit, &all)
		var err error
		for i := 0; i < 5 && err == nil; i++ {
			_, err = b.Write(make([]byte, pieceSize))
		}
		late := b.close()
		if pieces == 5 {
			if err != nil || late != nil || all.Len() != 5*pieceSize {
				t.Errorf("enough room: %v, %v, %d bytes", err, late, all.Len())
			}
			continue
		}
		if late == nil || err != nil && err.Error() != late.Error() {
			t.Errorf("room for %d: %v, %v", pieces, err, late)
		}
	}
}

func TestCreateFails(t *testing.T) {
	dir := t.TempDir()
	if _, err := create(t.Context(), filepath.Join(dir, "none", "f"), func(io.Writer) error { return nil }); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no folder: %v", err)
	}
	if _, err := create(t.Context(), filepath.Join(dir, "a"), func(io.Writer) error { return errors.New("no content") }); err == nil || err.Error() != "no content" {
		t.Errorf("no content: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err := create(ctx, filepath.Join(dir, "b"), func(w io.Writer) error {
		cancel()
		_, err := io.Copy(w, strings.NewReader("late"))
		return err
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := create(t.Context(), "/dev/full", func(w io.Writer) error { _, err := io.WriteString(w, "x"); return err }); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a file that exists: %v", err)
	}
}

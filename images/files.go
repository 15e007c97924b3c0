package images

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// writeFile writes a file under a temporary name "tmp-*" beside it and renames
// it, so that it is never seen half-written. On an error nothing is left.
func writeFile(path string, r io.Reader) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "tmp-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	if _, err := io.Copy(f, r); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := errors.Join(f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// writeVerified is writeFile for contents whose digest is known.
func writeVerified(path string, r io.Reader, want v1.Hash) error {
	h, err := v1.Hasher(want.Algorithm)
	if err != nil {
		return err
	}
	return writeFile(path, &checked{r: io.TeeReader(r, h), sum: func() error {
		if got := fmt.Sprintf("%x", h.Sum(nil)); got != want.Hex {
			return fmt.Errorf("its contents have the digest sha256:%s instead", got)
		}
		return nil
	}})
}

// checked turns the end of a reader into an error if its sum is wrong.
type checked struct {
	r   io.Reader
	sum func() error
}

func (c *checked) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if errors.Is(err, io.EOF) {
		if bad := c.sum(); bad != nil {
			return n, bad
		}
	}
	return n, err
}

// escapeGlob quotes a folder's name for filepath.Glob.
func escapeGlob(dir string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(dir)
}

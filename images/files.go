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

// sized reads what was declared to have a number of bytes, and fails at the
// first one too many, or at the end if some are missing. What lies in a file is
// known to be too long or short before anything is read.
func sized(r io.Reader, want int64) (io.Reader, error) {
	wrong := func(have string) error {
		return fmt.Errorf("has %s bytes, its descriptor in the manifest says %d: the image is damaged or forged; get it again", have, want)
	}
	if want < 0 {
		return nil, wrong("0 or more")
	}
	if f, ok := r.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode().IsRegular() && info.Size() != want {
			return nil, wrong(fmt.Sprint(info.Size()))
		}
	}
	var have int64
	return readerFunc(func(p []byte) (int, error) {
		n, err := r.Read(p)
		if have += int64(n); have > want {
			return n - int(have-want), wrong("more than " + fmt.Sprint(want))
		}
		if errors.Is(err, io.EOF) && have < want {
			err = wrong("only " + fmt.Sprint(have))
		}
		return n, err
	}), nil
}

// escapeGlob quotes a folder's name for filepath.Glob.
func escapeGlob(dir string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(dir)
}

package harness

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// nextData finds the file's next range that is no hole, from an offset on; at
// its end, from is the file's size.
func nextData(f *os.File, at, size int64) (from, to int64, err error) {
	if at >= size {
		return size, size, nil
	}
	from, err = unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return size, size, nil // only a hole is left
	}
	if err == nil {
		to, err = unix.Seek(int(f.Fd()), from, unix.SEEK_HOLE)
	}
	return from, to, err
}

// copySparse copies a file and its holes. The kernel shares the blocks where
// the file system can (copy_file_range(2)).
func copySparse(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = copyRanges(out, in, info.Size())
	return errors.Join(err, out.Close())
}

func copyRanges(out, in *os.File, size int64) error {
	if err := out.Truncate(size); err != nil {
		return err
	}
	for at := int64(0); ; {
		from, to, err := nextData(in, at, size)
		if err != nil || from == size {
			return err
		}
		if _, err := in.Seek(from, io.SeekStart); err != nil {
			return err
		}
		if _, err := out.Seek(from, io.SeekStart); err != nil {
			return err
		}
		if _, err := io.CopyN(out, in, to-from); err != nil {
			return err
		}
		at = to
	}
}

// digestBlock is how finely zeros are left out of a digest.
const digestBlock = 64 << 10

// digestFile is the digest of a file's size and of those of its blocks that
// are not zero, each with its place: holes, of which guest memory is full,
// cost nothing.
func digestFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	h := sha256.New()
	fmt.Fprintf(h, "%d\n", info.Size())
	block, zero := make([]byte, digestBlock), make([]byte, digestBlock)
	for at := int64(0); ; at += digestBlock {
		from, _, err := nextData(f, at, info.Size())
		if err != nil {
			return "", err
		}
		if from == info.Size() {
			return hex.EncodeToString(h.Sum(nil)), nil
		}
		at = from / digestBlock * digestBlock
		n, err := f.ReadAt(block, at)
		if err != nil && !errors.Is(err, io.EOF) {
			return "", err
		}
		if !bytes.Equal(block[:n], zero[:n]) {
			fmt.Fprintf(h, "%d\n", at)
			h.Write(block[:n])
		}
	}
}

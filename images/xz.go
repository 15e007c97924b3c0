package images

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"io"

	"github.com/ulikunitz/xz/lzma"
)

// xzReader unpacks the streams of an xz file (The .xz File Format, 2 to 5). The
// library's own reader takes memory for any dictionary up to 4 GiB that one of
// the blocks asks for; nothing outside can tell where it takes a block to begin,
// so the blocks are found here, and the library unpacks what is in them.
type xzReader struct {
	r      *bufio.Reader
	read   int64     // bytes of r so far: parts are padded to four
	block  io.Reader // nil: between two blocks
	check  hash.Hash // of the block; nil: the stream has none
	kind   byte      // of the stream's checks
	inside bool      // a stream
	blocks uint64    // of the stream so far
}

func unxz(r *bufio.Reader) (io.ReadCloser, error) {
	z := &xzReader{r: r}
	err := z.next()
	return io.NopCloser(z), err
}

func (z *xzReader) Read(p []byte) (int, error) {
	for z.block == nil {
		if err := z.next(); err != nil {
			return 0, err
		}
	}
	n, err := z.block.Read(p)
	if z.check != nil {
		z.check.Write(p[:n])
	}
	if errors.Is(err, io.EOF) {
		err = z.endBlock()
	}
	return n, err
}

// ReadByte reads what the library and the numbers of the index take.
func (z *xzReader) ReadByte() (byte, error) {
	b, err := z.r.ReadByte()
	if err == nil {
		z.read++
	}
	return b, err
}

// packed is the bytes of the file, as the library wants them.
type packed struct{ *xzReader }

func (p packed) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	p.xzReader.read += int64(n)
	return n, err
}

// take is the next bytes, which must be there.
func (z *xzReader) take(n int64) ([]byte, error) {
	b := make([]byte, n)
	if _, err := io.ReadFull(packed{z}, b); errors.Is(err, io.EOF) {
		return nil, io.ErrUnexpectedEOF
	} else if err != nil {
		return nil, err
	}
	return b, nil
}

// next goes to the next block, past one header or index on the way; io.EOF at
// the end, which is behind a stream.
func (z *xzReader) next() error {
	head, err := z.r.Peek(1)
	if errors.Is(err, io.EOF) && z.inside {
		err = io.ErrUnexpectedEOF
	}
	switch {
	case err != nil:
		return err
	case z.inside && head[0] == 0:
		return z.index()
	case z.inside:
		return z.beginBlock()
	case head[0] == 0: // streams may be followed by zeros
		_, err := z.take(4)
		return err
	}
	return z.stream()
}

func (z *xzReader) stream() error {
	head, err := z.take(12)
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(head, []byte("\xfd7zXZ\x00\x00")) || !hasSum(head[6:8], head[8:]) {
		return errors.New("the header of a stream is damaged")
	}
	z.kind, z.inside, z.blocks = head[7], true, 0
	return nil
}

// hasSum reports whether bytes have the checksum that stands behind them.
func hasSum(b, sum []byte) bool { return crc32.ChecksumIEEE(b) == binary.LittleEndian.Uint32(sum) }

// xzChecks are the checks that there are, by the number in a stream's header.
var xzChecks = map[byte]func() hash.Hash{
	0:  func() hash.Hash { return nil },
	1:  func() hash.Hash { return crc32.NewIEEE() },
	4:  func() hash.Hash { return crc64.New(crc64.MakeTable(crc64.ECMA)) },
	10: sha256.New,
}

func (z *xzReader) beginBlock() error {
	size, err := z.r.Peek(1)
	if err != nil {
		return err
	}
	head, err := z.take((int64(size[0]) + 1) * 4)
	if err != nil {
		return err
	}
	end := len(head) - 4
	if !hasSum(head[:end], head[end:]) {
		return errors.New("the header of a block is damaged")
	}
	dictionary, err := xzDictionary(head[:end])
	if err != nil {
		return err
	}
	if dictionary > maxWindow {
		return advisedf("pack it anew with a smaller one, such as xz -6", "a block's dictionary of %d bytes is larger than the limit of %d", dictionary, maxWindow)
	}
	newCheck := xzChecks[z.kind]
	if newCheck == nil {
		return advisedf("pack it anew with xz -6", "its check %d is not known here", z.kind)
	}
	z.check = newCheck()
	z.blocks++
	z.block, err = lzma.Reader2Config{DictCap: int(dictionary)}.NewReader2(packed{z})
	return err
}

// xzDictionary is the size of the dictionary that a block's LZMA2 filter names
// (3.1 and 5.3.1).
func xzDictionary(head []byte) (int64, error) {
	flags, rest := head[1], head[2:]
	for _, given := range []byte{0x40, 0x80} { // sizes of the block, packed and unpacked
		if flags&given == 0 {
			continue
		}
		_, n := binary.Uvarint(rest)
		if n <= 0 {
			return 0, errors.New("the header of a block is damaged")
		}
		rest = rest[n:]
	}
	if flags&^0xc0 != 0 || len(rest) < 3 || rest[0] != 0x21 || rest[1] != 1 || rest[2] > 40 {
		return 0, advisedf("pack it anew with xz -6", "a block has another filter than LZMA2")
	}
	return (2 | int64(rest[2]&1)) << (rest[2]/2 + 11), nil
}

// endBlock reads what follows a block: padding and its check.
func (z *xzReader) endBlock() error {
	z.block = nil
	if _, err := z.take(padding(z.read)); err != nil || z.check == nil {
		return err
	}
	want, err := z.take(int64(z.check.Size()))
	if err != nil {
		return err
	}
	have := z.check.Sum(nil)
	if z.kind != 10 { // numbers are little-endian, and Go's are not
		for i, j := 0, len(have)-1; i < j; i, j = i+1, j-1 {
			have[i], have[j] = have[j], have[i]
		}
	}
	if !bytes.Equal(have, want) {
		return errors.New("the check of a block is wrong")
	}
	return nil
}

// index reads the index and the footer, which end a stream. All that they tell
// is known but the number of blocks, which shows whether some were lost.
func (z *xzReader) index() error {
	if _, err := z.take(1); err != nil {
		return err
	}
	blocks, err := binary.ReadUvarint(z)
	if err == nil && blocks != z.blocks {
		return fmt.Errorf("a stream has %d blocks, its index says %d", z.blocks, blocks)
	}
	for range 2 * blocks {
		if err == nil {
			_, err = binary.ReadUvarint(z)
		}
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return err
	}
	end, err := z.take(padding(z.read) + 4 + 12) // a checksum and the footer
	if err == nil && string(end[len(end)-2:]) != "YZ" {
		err = errors.New("the footer of a stream is damaged")
	}
	z.inside = false
	return err
}

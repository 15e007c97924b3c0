package qemu

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"syscall"
)

// volatile is a disk whose write cache can be lost. QEMU reaches it over NBD, by
// a descriptor that it inherits: what it has flushed, and in which order it
// wrote the rest, is known here and nowhere else. QEMU's own blklogwrites does
// not do: killed with requests under way it leaves holes in its log, behind
// which flushed writes cannot be found again.
//
// The file always holds all that was written. The cache is what must be undone.
type volatile struct {
	file  *os.File
	size  int64
	conn  *net.UnixConn
	in    *bufio.Reader // of conn
	out   *bufio.Writer
	ended chan struct{}
	err   error   // what came over conn was no NBD
	cache []write // since the last flush, in order
	held  int     // bytes of the cache
	room  int     // bytes that it may hold
}

// write is one that was not flushed.
type write struct {
	at       int64
	old, new []byte
}

// cacheSize is what a disk's cache holds, old content and new: what does not fit
// is as good as flushed, the oldest first. The caches of disks are about as big.
const cacheSize = 256 << 20

// Loss is what a power cut did to the machine's disks.
type Loss struct {
	Unflushed int // writes that the guest had not flushed
	Lost      int // of these
}

// openVolatile serves the file until the far end of the connection, which it
// returns, is closed.
func openVolatile(path string) (*volatile, *os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	conn, far, err := socketPair("disk")
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	d := &volatile{file: f, size: info.Size(), conn: conn, in: bufio.NewReader(conn), out: bufio.NewWriter(conn), ended: make(chan struct{}), room: cacheSize}
	go func() {
		defer close(d.ended)
		// That the connection ends is not an error: it ends with QEMU.
		if err := d.serve(); errors.Is(err, errNoNBD) {
			d.err = fmt.Errorf("disk %s: %w", path, err)
		}
		d.conn.Close()
	}()
	return d, far, nil
}

// stop ends the service, if QEMU's end has not, and says how it went.
func (d *volatile) stop() error {
	d.conn.Close()
	<-d.ended
	return d.err
}

// close also frees the file.
func (d *volatile) close() error { return errors.Join(d.stop(), d.file.Close()) }

// lose ends the service and takes back a part of what was not flushed.
func (d *volatile) lose(part float64, fates *rand.Rand) (Loss, error) {
	if err := d.stop(); err != nil {
		return Loss{}, err
	}
	loss := Loss{Unflushed: len(d.cache)}
	for i := len(d.cache) - 1; i >= 0; i-- {
		if _, err := d.file.WriteAt(d.cache[i].old, d.cache[i].at); err != nil {
			return loss, err
		}
	}
	for _, w := range d.cache {
		if fates.Float64() < part {
			loss.Lost++
		} else if _, err := d.file.WriteAt(w.new, w.at); err != nil {
			return loss, err
		}
	}
	d.flush()
	return loss, nil
}

// flush makes all that was written permanent, as far as a power cut goes.
func (d *volatile) flush() { d.cache, d.held = nil, 0 }

// write writes to the file and keeps what it takes to undo it.
func (d *volatile) write(data []byte, at int64) error {
	old := make([]byte, len(data))
	if _, err := d.file.ReadAt(old, at); err != nil {
		return err
	}
	if _, err := d.file.WriteAt(data, at); err != nil {
		return err
	}
	d.cache = append(d.cache, write{at, old, data})
	for d.held += 2 * len(data); d.held > d.room; d.cache = d.cache[1:] {
		d.held -= 2 * len(d.cache[0].new)
	}
	return nil
}

// The parts of the NBD protocol that QEMU needs
// (https://github.com/NetworkBlockDevice/nbd, doc/proto.md).
const (
	nbdMagic    = 0x4e42444d41474943 // "NBDMAGIC"
	nbdOption   = 0x49484156454f5054 // "IHAVEOPT"
	nbdAnswer   = 0x3e889045565a9
	nbdRequest  = 0x25609513
	nbdReply    = 0x67446698
	nbdFixed    = 1 | 2 // handshake flags: fixed newstyle, no zeroes
	nbdExport   = 1 | 4 // transmission flags: has flags, takes flushes
	nbdGo       = 7
	nbdAck      = 1
	nbdInfo     = 3
	nbdUnknown  = 1<<31 + 1
	nbdRead     = 0
	nbdWrite    = 1
	nbdEnd      = 2
	nbdFlush    = 3
	nbdMaxBytes = 32 << 20 // of one request: what every client may rely on, and QEMU does
)

type nbdOptionHead struct {
	Magic  uint64
	Option uint32
	Length uint32
}

type nbdOptionReply struct {
	Magic  uint64
	Option uint32
	Type   uint32
	Length uint32
}

type nbdExportInfo struct {
	Type  uint16 // 0: NBD_INFO_EXPORT
	Size  uint64
	Flags uint16
}

type nbdRequestHead struct {
	Magic  uint32
	Flags  uint16
	Type   uint16
	Handle uint64
	Offset uint64
	Length uint32
}

type nbdReplyHead struct {
	Magic  uint32
	Error  uint32
	Handle uint64
}

// errNoNBD is what a far end that speaks something else leads to.
var errNoNBD = errors.New("QEMU does not speak NBD")

func (d *volatile) say(parts ...any) error {
	for _, p := range parts {
		if err := binary.Write(d.out, binary.BigEndian, p); err != nil {
			return err
		}
	}
	return d.out.Flush()
}

func (d *volatile) hear(into any) error { return binary.Read(d.in, binary.BigEndian, into) }

// serve speaks NBD until the far end is closed, or says that it will be.
func (d *volatile) serve() error {
	if err := d.greet(); err != nil {
		return err
	}
	for {
		var r nbdRequestHead
		if err := d.hear(&r); err != nil {
			return err
		}
		if r.Magic != nbdRequest || r.Length > nbdMaxBytes {
			return fmt.Errorf("%w: request %+v", errNoNBD, r)
		}
		if r.Type == nbdEnd {
			return nil
		}
		if err := d.obey(r); err != nil {
			return err
		}
	}
}

// greet negotiates: every option but the one that begins is unknown here.
func (d *volatile) greet() error {
	var flags uint32
	if err := d.say(uint64(nbdMagic), uint64(nbdOption), uint16(nbdFixed)); err != nil {
		return err
	}
	if err := d.hear(&flags); err != nil {
		return err
	}
	for {
		var o nbdOptionHead
		if err := d.hear(&o); err != nil {
			return err
		}
		if o.Magic != nbdOption || o.Length > nbdMaxBytes {
			return fmt.Errorf("%w: option %+v", errNoNBD, o)
		}
		if _, err := io.CopyN(io.Discard, d.in, int64(o.Length)); err != nil { // there is one export
			return err
		}
		if o.Option == nbdGo {
			info := nbdExportInfo{Size: uint64(d.size), Flags: nbdExport}
			return d.say(nbdOptionReply{nbdAnswer, o.Option, nbdInfo, uint32(binary.Size(info))}, info, nbdOptionReply{nbdAnswer, o.Option, nbdAck, 0})
		}
		if err := d.say(nbdOptionReply{nbdAnswer, o.Option, nbdUnknown, 0}); err != nil {
			return err
		}
	}
}

// obey does what a request asks for. A request that cannot be fulfilled is an
// input/output error of the guest's.
func (d *volatile) obey(r nbdRequestHead) error {
	var data []byte
	var failed error
	switch r.Type {
	case nbdRead:
		data = make([]byte, r.Length)
		_, failed = d.file.ReadAt(data, int64(r.Offset))
	case nbdWrite:
		written := make([]byte, r.Length)
		if _, err := io.ReadFull(d.in, written); err != nil {
			return err
		}
		failed = d.write(written, int64(r.Offset))
	case nbdFlush:
		d.flush()
	default:
		return fmt.Errorf("%w: request %+v was not offered", errNoNBD, r)
	}
	reply := nbdReplyHead{Magic: nbdReply, Handle: r.Handle}
	if failed != nil {
		reply.Error, data = uint32(syscall.EIO), nil
	}
	return d.say(reply, data)
}

// problemOfVolatile says why the disk cannot lose writes; empty: it can.
func (d Disk) problemOfVolatile() string {
	switch {
	case !d.Volatile:
	case d.ReadOnly || d.Snapshot:
		return "volatile, but nothing is written to it"
	case nonEmpty(d.Format, "raw") != "raw":
		return "volatile, but of format " + d.Format + "; only raw disks can be"
	case d.Error != nil:
		return "both volatile and failing on demand; give the machine two disks"
	default:
		return oddSize(d.Path)
	}
	return ""
}

// oddSize says that a file does not end with a whole block. QEMU rounds the
// disk's size up, and the guest waits for ever for the block that is not there.
func oddSize(path string) string {
	info, err := os.Stat(path)
	if err != nil || info.Size()%512 == 0 { // what cannot be read is said elsewhere
		return ""
	}
	return fmt.Sprintf("volatile, but %s has %d bytes, which is no multiple of 512; make it bigger: truncate -s %%512 %s", path, info.Size(), quote(path))
}

// openDisks opens the machine's volatile disks and returns what QEMU must
// inherit for them, in order.
func (v *VM) openDisks(c Config) (far []*os.File, err error) {
	for i, d := range c.Disks {
		if !d.Volatile {
			continue
		}
		disk, f, err := openVolatile(d.Path)
		if err != nil {
			return far, fmt.Errorf("disk %d: %w", i, err)
		}
		v.disks, far = append(v.disks, disk), append(far, f)
	}
	return far, nil
}

func (v *VM) closeDisks() error {
	var errs []error
	for _, d := range v.disks {
		errs = append(errs, d.close())
	}
	return errors.Join(errs...)
}

// PowerCut ends the machine as if its power failed: QEMU is killed, and each of
// its volatile disks loses a part, from 0 to 1, of what the guest had written
// and not flushed. A write is lost as a whole or not at all; which are is
// decided by the seed and their order. The disks' files are then what a machine
// finds when the power comes back.
//
// A disk that is written to and not volatile would lose nothing: with one, it
// is an error, and the machine goes on.
func (v *VM) PowerCut(part float64, seed uint64) (Loss, error) {
	var loss Loss
	if !(part >= 0 && part <= 1) {
		return loss, fmt.Errorf("qemu: a loss of %v; give a part from 0 to 1", part)
	}
	for i, d := range v.config.Disks {
		if !d.Volatile && !d.ReadOnly && !d.Snapshot {
			return loss, fmt.Errorf("qemu: disk %d would lose nothing in a power cut: make it Disk.Volatile", i)
		}
	}
	v.mu.Lock()
	running, again := !v.isDone(), v.cut
	v.cut = v.cut || running // how the machine ended stays so, whoever asks again
	v.mu.Unlock()
	if again {
		return loss, errors.New("qemu: the machine's power was cut already; it has ended, or ends now")
	}
	if !running {
		return loss, fmt.Errorf("qemu: the power of a machine that has ended cannot be cut: %s", v.Exit())
	}
	v.signal(syscall.SIGKILL)
	<-v.done
	for i, d := range v.disks {
		l, err := d.lose(part, rand.New(rand.NewPCG(seed, uint64(i))))
		if err != nil {
			return loss, fmt.Errorf("qemu: power cut: %w", err)
		}
		loss.Unflushed += l.Unflushed
		loss.Lost += l.Lost
	}
	return loss, nil
}

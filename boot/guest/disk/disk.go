//go:build linux

// Package disk finds a machine's disks and says what is on them. It is what
// the programs of the format and mount images share.
//
// A disk is empty only if it holds no format that blkid(8) knows and nothing
// but zeros where every file system, partition table and volume manager keeps
// its mark: in its first and its last megabytes. Everything else holds
// something, known or not, and is not to be formatted unasked.
package disk

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Disk is a block device that can hold a file system: a disk or a partition.
type Disk struct {
	Path      string // in /dev
	Size      int64  // bytes
	Partition bool
	ReadOnly  bool
}

// pseudo are the beginnings of the names of devices that are no disks: in
// memory, on other devices, or with a medium to be changed.
var pseudo = []string{"loop", "ram", "zram", "sr", "fd", "dm-", "md", "nbd", "mtdblock"}

// List reads the disks out of a folder like /sys/class/block, sorted by name.
// A device without a size, such as an empty card reader, is left out.
func List(sys string) ([]Disk, error) {
	entries, err := os.ReadDir(sys)
	if err != nil {
		return nil, err
	}
	var out []Disk
	for _, e := range entries {
		if isPseudo(e.Name()) {
			continue
		}
		at := filepath.Join(sys, e.Name())
		sectors, err := number(filepath.Join(at, "size"))
		if err != nil {
			return nil, err
		}
		if sectors == 0 {
			continue
		}
		readOnly, err := number(filepath.Join(at, "ro"))
		if err != nil {
			return nil, err
		}
		_, err = os.Stat(filepath.Join(at, "partition"))
		// The kernel counts in sectors of 512 bytes whatever the disk's own are.
		out = append(out, Disk{
			Path: "/dev/" + strings.ReplaceAll(e.Name(), "!", "/"), Size: sectors * 512,
			Partition: err == nil, ReadOnly: readOnly != 0,
		})
	}
	return out, nil
}

func isPseudo(name string) bool {
	for _, p := range pseudo {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}

func number(file string) (int64, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
}

// Content is what a device holds.
type Content struct {
	Type    string // of a file system or a volume: "ext4", "crypto_LUKS"
	Label   string // of the file system; may be empty
	Mounts  bool   // Type is a file system, which can be mounted
	Table   string // of partitions: "dos", "gpt"
	Several bool   // the marks of more than one format
	First   int64  // place of the first byte that is not zero; -1: none was seen
}

// Empty says that there is nothing that could be lost.
func (c Content) Empty() bool { return c.Type == "" && c.Table == "" && !c.Several && c.First < 0 }

// String is the content in words, for "DEVICE holds ...".
func (c Content) String() string {
	switch {
	case c.Several:
		return "the marks of several formats at once"
	case c.Type != "" && c.Label != "":
		return fmt.Sprintf("%s labelled %q", c.Type, c.Label)
	case c.Type != "":
		return c.Type + " without a label"
	case c.Table != "":
		return "a partition table (" + c.Table + ")"
	case c.First >= 0:
		return fmt.Sprintf("data of no known format, the first at byte %d", c.First)
	}
	return "nothing"
}

// Inspect finds out what a device, or a file, holds.
func Inspect(ctx context.Context, path string) (Content, error) {
	first, err := firstByte(path)
	if err != nil {
		return Content{}, err
	}
	c := Content{First: first}
	cmd := exec.CommandContext(ctx, "blkid", "-p", "-o", "export", path)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		switch exit.ExitCode() {
		case 2: // blkid(8): nothing known was found
			return c, nil
		case 8: // more than one format was found
			c.Several = true
			return c, nil
		}
	}
	if err != nil {
		return c, fmt.Errorf("blkid %s: %w: %s", path, err, strings.TrimSpace(stderr.String()))
	}
	c.parse(string(out))
	return c, nil
}

// parse reads blkid's KEY=VALUE lines, in which a backslash protects a
// character from the shell.
func (c *Content) parse(text string) {
	for s := bufio.NewScanner(strings.NewReader(text)); s.Scan(); {
		key, value, _ := strings.Cut(s.Text(), "=")
		var plain strings.Builder
		for i := 0; i < len(value); i++ {
			if value[i] == '\\' && i+1 < len(value) {
				i++
			}
			plain.WriteByte(value[i])
		}
		switch key {
		case "TYPE":
			c.Type = plain.String()
		case "LABEL":
			c.Label = plain.String()
		case "USAGE":
			c.Mounts = plain.String() == "filesystem"
		case "PTTYPE":
			c.Table = plain.String()
		}
	}
}

// edge is how much of a device's beginning and end is read. Farthest from the
// edges are the marks of VMFS, 2 MiB from the beginning, and the old labels of
// ZFS, 512 KiB before the end.
const edge = 4 << 20

// firstByte is the place of the first byte that is not zero at the edges of a
// device, or -1.
func firstByte(path string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, err
	}
	head := min(size, edge)
	tail := max(head, size-edge)
	at, err := nonZero(io.NewSectionReader(f, 0, head))
	if err != nil || at >= 0 {
		return at, err
	}
	if at, err = nonZero(io.NewSectionReader(f, tail, size-tail)); at >= 0 {
		at += tail
	}
	return at, err
}

// nonZero is the place of the first byte that is not zero, or -1.
func nonZero(r io.Reader) (int64, error) {
	// Comparing blocks is many times faster than looking at bytes, which a
	// machine that is emulated feels.
	buf, zeros := make([]byte, 64<<10), make([]byte, 64<<10)
	var at int64
	for {
		n, err := r.Read(buf)
		if !bytes.Equal(buf[:n], zeros[:n]) {
			return at + int64(slices.IndexFunc(buf[:n], func(b byte) bool { return b != 0 })), nil
		}
		at += int64(n)
		if errors.Is(err, io.EOF) {
			return -1, nil
		}
		if err != nil {
			return 0, err
		}
	}
}

// Await asks again and again until the answer is yes or the time is over:
// disks on some buses are found while the machine boots on, and nothing in a
// container can be told when they are all there.
func Await(ctx context.Context, limit time.Duration, ask func() (bool, error)) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if ok, err := ask(); ok || err != nil {
			return ok, err
		}
		select {
		case <-ctx.Done():
			return false, nil
		case <-tick.C:
		}
	}
}

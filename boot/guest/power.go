//go:build linux

package guest

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Codes of linux/input-event-codes.h.
const (
	evKey    = 1
	keyPower = 116
)

// inputEventSize is sizeof(struct input_event) on 64-bit machines: two longs of
// time, type, code and value (linux/input.h).
const inputEventSize = 24

// watchPowerButton stops the machine when its power button is pressed, which
// the kernel reports as a key, or as an edge of a line, and does nothing about.
func (m *machine) watchPowerButton() error {
	if m.index != nil {
		if _, known := m.index.Find("evdev"); known {
			if err := m.index.Modprobe(m.sys, "evdev", ""); err != nil {
				return err
			}
		}
	}
	names, err := filepath.Glob(filepath.Join(m.root, "/sys/class/input/event*"))
	if err != nil {
		return err
	}
	var problems []error
	for _, name := range names {
		keys, err := os.ReadFile(filepath.Join(name, "device/capabilities/key"))
		if err != nil || !hasBit(string(keys), keyPower) {
			continue
		}
		path := filepath.Join(m.root, "/dev/input", filepath.Base(name))
		// O_NONBLOCK makes os.File wait by polling, so that Close ends a Read.
		f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			problems = append(problems, err) // another may be there
			continue
		}
		m.watchButton(f, pressed)
	}
	if b, found := findGPIOButton(m.root); found {
		f, err := b.open()
		switch {
		case err == nil:
			m.watchButton(f, rose)
		case !errors.Is(err, errLineTaken):
			problems = append(problems, err)
		}
	}
	return errors.Join(problems...)
}

// watchButton stops the machine when what is read from f says so.
func (m *machine) watchButton(f *os.File, pressed func(io.Reader) bool) {
	m.supervise(func() { <-m.ctx.Done(); f.Close() })
	m.supervise(func() {
		if pressed(f) && m.ctx.Err() == nil {
			m.speak.Say("init: power button")
			if err := m.sys.Kill(1, unix.SIGUSR2); err != nil {
				m.speak.Say("init: power button: %v", err)
			}
		}
	})
}

// pressed reads input events until one says that the power key went down.
func pressed(events io.Reader) bool {
	b := make([]byte, inputEventSize)
	for {
		if _, err := io.ReadFull(events, b); err != nil {
			return false
		}
		kind, code := binary.NativeEndian.Uint16(b[16:]), binary.NativeEndian.Uint16(b[18:])
		if value := binary.NativeEndian.Uint32(b[20:]); kind == evKey && code == keyPower && value == 1 {
			return true
		}
	}
}

// hasBit reports whether bit n is set in a bitmap as sysfs prints it: 64-bit
// words in hexadecimal, the highest first.
func hasBit(bitmap string, n int) bool {
	words := strings.Fields(bitmap)
	i := len(words) - 1 - n/64
	if i < 0 {
		return false
	}
	w, err := strconv.ParseUint(words[i], 16, 64)
	return err == nil && w>>(n%64)&1 == 1
}

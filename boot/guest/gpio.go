//go:build linux

package guest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// gpioButton is a power button that is a line of a GPIO controller. The device
// tree describes it (kernel, Documentation/devicetree/bindings/input/gpio-keys.yaml);
// of Debian's cloud kernels none has the driver for it (CONFIG_KEYBOARD_GPIO),
// so PID 1 watches the line itself.
type gpioButton struct {
	chip string // its device file
	line uint32
	low  bool // pressed is low
}

// findGPIOButton looks for the power button in the device tree.
func findGPIOButton(root string) (b gpioButton, found bool) {
	keys, _ := filepath.Glob(filepath.Join(root, "/sys/firmware/devicetree/base/gpio-keys/*/linux,code")) // the pattern is good
	for _, name := range keys {
		if code, ok := cells(name, 1); !ok || code[0] != keyPower {
			continue
		}
		// The controller's phandle, the line's number there, its flags: bit 0 is
		// GPIO_ACTIVE_LOW (include/dt-bindings/gpio/gpio.h).
		at, ok := cells(filepath.Join(filepath.Dir(name), "gpios"), 3)
		if !ok {
			continue
		}
		chips, _ := filepath.Glob(filepath.Join(root, "/sys/bus/gpio/devices/gpiochip*"))
		i := slices.IndexFunc(chips, func(chip string) bool {
			handle, ok := cells(filepath.Join(chip, "of_node/phandle"), 1)
			return ok && handle[0] == at[0]
		})
		if i >= 0 {
			return gpioButton{filepath.Join(root, "/dev", filepath.Base(chips[i])), at[1], at[2]&1 != 0}, true
		}
	}
	return gpioButton{}, false
}

// cells reads a property of the device tree that is n numbers.
func cells(file string, n int) ([]uint32, bool) {
	b, err := os.ReadFile(file)
	if err != nil || len(b) != 4*n {
		return nil, false
	}
	out := make([]uint32, n)
	for i := range out {
		out[i] = binary.BigEndian.Uint32(b[4*i:])
	}
	return out, true
}

// Flags of a line's request (linux/gpio.h).
const (
	gpioActiveLow  = 1 << 1
	gpioInput      = 1 << 2
	gpioEdgeRising = 1 << 4 // from inactive to active
)

// open asks the kernel for the line's events. A line that a driver of the
// kernel has is not to be had: then its input device is watched.
func (b gpioButton) open() (*os.File, error) {
	chip, err := os.Open(b.chip)
	if err != nil {
		return nil, err
	}
	defer chip.Close()
	request := unix.GPIOV2LineRequest{Num_lines: 1}
	request.Offsets[0] = b.line
	copy(request.Consumer[:], "power button")
	request.Config.Flags = gpioInput | gpioEdgeRising
	if b.low {
		request.Config.Flags |= gpioActiveLow
	}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, chip.Fd(), unix.GPIO_V2_GET_LINE_IOCTL, uintptr(unsafe.Pointer(&request)))
	switch {
	case errno == unix.EBUSY:
		return nil, errLineTaken
	case errno != 0:
		return nil, fmt.Errorf("line %d of %s: %w", b.line, b.chip, errno)
	}
	if err := unix.SetNonblock(int(request.Fd), true); err != nil { // os.File then waits by polling, so that Close ends a Read
		unix.Close(int(request.Fd))
		return nil, err
	}
	return os.NewFile(uintptr(request.Fd), b.chip), nil
}

// errLineTaken is a line that somebody else has.
var errLineTaken = errors.New("taken")

// lineEventSize is sizeof(struct gpio_v2_line_event) (linux/gpio.h).
const lineEventSize = 48

// rose waits for an event of a line that was opened for its rising edge alone.
func rose(events io.Reader) bool {
	_, err := io.ReadFull(events, make([]byte, lineEventSize))
	return err == nil
}

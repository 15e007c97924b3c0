//go:build linux

package guest

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The device tree of QEMU's virt board: two keys on one of two controllers.
func TestFindGPIOButton(t *testing.T) {
	const tree = "/sys/firmware/devicetree/base/gpio-keys/"
	good := map[string]string{
		tree + "other/linux,code": "\x00\x00\x00\x8f", tree + "other/gpios": "\x00\x00\x80\x05\x00\x00\x00\x02\x00\x00\x00\x00",
		tree + "poweroff/linux,code": "\x00\x00\x00\x74", tree + "poweroff/gpios": "\x00\x00\x80\x05\x00\x00\x00\x03\x00\x00\x00\x01",
		"/sys/bus/gpio/devices/gpiochip0/of_node/phandle": "\x00\x00\x80\x01", "/sys/bus/gpio/devices/gpiochip1/of_node/phandle": "\x00\x00\x80\x05",
	}
	for name, c := range map[string]struct {
		file, content string // differs from good; no content: is not there
		want          bool
	}{
		"as it is":                 {"", "", true},
		"no such key":              {tree + "poweroff/linux,code", "\x00\x00\x00\x75", false},
		"a key without a code":     {tree + "poweroff/linux,code", "", false},
		"a code that is no number": {tree + "poweroff/linux,code", "116", false},
		"no line":                  {tree + "poweroff/gpios", "", false},
		"half a line":              {tree + "poweroff/gpios", "\x00\x00\x80\x05", false},
		"another controller":       {"/sys/bus/gpio/devices/gpiochip1/of_node/phandle", "\x00\x00\x80\x06", false},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for file, content := range good {
				if file == c.file {
					if content = c.content; content == "" {
						continue
					}
				}
				if err := os.MkdirAll(filepath.Dir(filepath.Join(root, file)), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(root, file), []byte(content), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			got, found := findGPIOButton(root)
			if want := (gpioButton{root + "/dev/gpiochip1", 3, true}); found != c.want || found && got != want {
				t.Errorf("%+v, %v", got, found)
			}
		})
	}
}

// What the ioctl takes is as the kernel has it, whose number holds the size.
func TestGPIORequest(t *testing.T) {
	if size := unsafe.Sizeof(unix.GPIOV2LineRequest{}); size != unix.GPIO_V2_GET_LINE_IOCTL>>16&0x3fff {
		t.Errorf("%d bytes", size)
	}
	if _, err := (gpioButton{chip: "/dev/null"}).open(); err == nil {
		t.Error("a line of /dev/null")
	}
	if !rose(bytes.NewReader(make([]byte, lineEventSize))) || rose(strings.NewReader("half an event")) {
		t.Error("an edge is one whole event")
	}
}

package qemu

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
)

// channelArgs make one virtio-serial controller with a port for each name.
func (c Config) channelArgs() (args []string, inherits []inherited) {
	if len(c.Channels) == 0 {
		return nil, nil
	}
	args = []string{"-device", "virtio-serial-pci,id=channels"}
	for i, name := range c.Channels {
		id := fmt.Sprintf("channel%d", i)
		far := inherited{placeholder: "@" + id + "@", option: "socket,id=" + id + ",fd=@" + id + "@", byHand: "null,id=" + id}
		args = append(args, "-chardev", far.option, "-device", "virtserialport,bus=channels.0,chardev="+id+",name="+escape(name))
		inherits = append(inherits, far)
	}
	return args, inherits
}

// maxChannels is what a controller has room for: 31 ports (QEMU,
// include/hw/virtio/virtio-serial.h), of which the first is a console's.
const maxChannels = 30

func (c Config) checkChannels(bad func(format string, args ...any)) {
	if len(c.Channels) > maxChannels {
		bad("%d channels; a machine can have %d", len(c.Channels), maxChannels)
	}
	for i, name := range c.Channels {
		switch {
		case name == "" || strings.ContainsAny(name, "\n\x00"):
			bad("channel %d: %q is no name", i, name)
		case slices.Contains(c.Channels[:i], name):
			bad("channel %d: there is a channel %q already", i, name)
		}
	}
}

// openChannels makes the host's ends and returns QEMU's, in order.
func (v *VM) openChannels(c Config) (far []*os.File, err error) {
	for _, name := range c.Channels {
		ours, theirs, err := socketPair("channel " + name)
		if err != nil {
			return far, err
		}
		v.channels, far = append(v.channels, ours), append(far, theirs)
	}
	return far, nil
}

func (v *VM) closeChannels() error {
	var errs []error
	for _, c := range v.channels {
		if err := c.Close(); !errors.Is(err, net.ErrClosed) { // the user may close it
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Channel is the host's end of the virtio-serial port with a name of
// Config.Channels. In the guest it is /dev/vport1p1 and on, with its name in
// /sys/class/virtio-ports. What is written waits until a program of the guest
// opens the port; a guest that writes waits for a host that does not read. The
// connection is always the same one, and ends with the machine.
func (v *VM) Channel(name string) (net.Conn, error) {
	i := slices.Index(v.config.Channels, name)
	if i < 0 {
		return nil, fmt.Errorf("qemu: there is no channel %q; there are %q", name, v.config.Channels)
	}
	return v.channels[i], nil
}

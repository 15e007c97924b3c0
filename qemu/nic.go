package qemu

import (
	"context"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"
)

// NIC is a network card. Without a Network it is on one of its own, which QEMU
// itself makes: it hands out the address 10.0.2.15 and needs no rights on the
// host.
type NIC struct {
	MAC      string   // empty: QEMU's default, the same in every machine
	Open     bool     // the guest reaches the host's network, through a router at 10.0.2.2; otherwise nothing
	Forwards []int    // TCP ports of the guest that are to be reached from this host; see VM.Forwarded
	Network  *Network `json:",omitempty"` // of several machines; leads nowhere else, so neither Open nor Forwards go with it
}

// args makes the card. Its option ROM would only cost the firmware seconds:
// who boots over the network asks for that in Config.Extra.
func (n NIC) args(i int) []string {
	id := nicID(i)
	restrict := "on"
	if n.Open {
		restrict = "off"
	}
	netdev := "user,id=" + id + ",restrict=" + restrict
	if n.Network != nil {
		netdev = n.inherit(i).option
	}
	for _, port := range n.Forwards {
		// Port 0: the kernel picks a free one, and nobody can take it in between.
		netdev += fmt.Sprintf(",hostfwd=tcp:127.0.0.1:0-:%d", port)
	}
	device := "virtio-net-pci,romfile=,netdev=" + id
	if n.MAC != "" {
		device += ",mac=" + n.MAC
	}
	return []string{"-netdev", netdev, "-device", device}
}

// inherit is the card's cable to a network of machines.
func (n NIC) inherit(i int) inherited {
	placeholder := fmt.Sprintf("@network%d@", i)
	return inherited{
		placeholder: placeholder,
		option:      "stream,id=" + nicID(i) + ",server=off,addr.type=fd,addr.str=" + placeholder,
		byHand:      "hubport,hubid=0,id=" + nicID(i),
	}
}

func nicID(i int) string { return "net" + strconv.Itoa(i) }

// problem says what is wrong with the card; empty: nothing.
func (n NIC) problem() string {
	if mac, err := net.ParseMAC(n.MAC); n.MAC != "" && (err != nil || len(mac) != 6 || mac[0]&1 == 1) {
		return fmt.Sprintf("%q is no address of one card; one is 52:54:00:00:00:01", n.MAC)
	}
	if n.Network != nil && (n.Open || len(n.Forwards) > 0) {
		return "a network of machines leads nowhere else: it can be neither open nor forwarded; give the machine a second card"
	}
	for _, port := range n.Forwards {
		if port < 1 || port > 65535 {
			return fmt.Sprintf("there is no TCP port %d to forward to", port)
		}
	}
	return ""
}

// forward is a line of QEMU's "info usernet": state, descriptor, source and
// destination.
var forward = regexp.MustCompile(`^\s*TCP\[HOST_FORWARD\]\s+\d+\s+(\S+)\s+(\d+)\s+\S+\s+(\d+)\s`)

// Forwarded is the address on this host behind which the guest's port of the
// n-th card (from 0) answers.
func (v *VM) Forwarded(ctx context.Context, nic, port int) (string, error) {
	var text string
	if err := v.qmp.Do(ctx, "human-monitor-command", map[string]any{"command-line": "info usernet"}, &text); err != nil {
		return "", err
	}
	return forwarded(text, nic, port)
}

func forwarded(text string, nic, port int) (string, error) {
	ours := false
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "Hub ") {
			ours = strings.Contains(line, "("+nicID(nic)+")")
		}
		if m := forward.FindStringSubmatch(line); ours && m != nil && m[3] == strconv.Itoa(port) {
			return net.JoinHostPort(m[1], m[2]), nil
		}
	}
	return "", fmt.Errorf("qemu: port %d of network card %d is not forwarded", port, nic)
}

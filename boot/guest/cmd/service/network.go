//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/seatrial/seatrial/boot"
	"github.com/vishvananda/netlink"
)

// attachInterfaces gives the network interfaces of a runtime.json to the
// container whose first process is pid, in their order.
func attachInterfaces(list []boot.RuntimeInterface, pid int, say io.Writer) error {
	for _, i := range list {
		if err := attachInterface(i, pid, say); err != nil {
			return fmt.Errorf("interface %s: %w", i.Name, err)
		}
	}
	return nil
}

func attachInterface(i boot.RuntimeInterface, pid int, say io.Writer) error {
	kind := i.Add
	if kind == "" && i.Peer != "" {
		kind = "veth"
	}
	if i.Name == "" {
		return errors.New("it has no name")
	}
	if kind == "veth" && i.Peer == "" {
		return errors.New("a veth needs a peer")
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = i.Name
	if kind == "" {
		link, err := netlink.LinkByName(i.Name)
		if err != nil {
			return err
		}
		return moveInterface(link, pid, say)
	}
	// A veth keeps one end here, so both are made here and one is moved.
	inRoot := i.CreateInRoot || kind == "veth"
	if !inRoot {
		attrs.Namespace = netlink.NsPid(pid)
	}
	var link netlink.Link = &netlink.GenericLink{LinkAttrs: attrs, LinkType: kind}
	if kind == "veth" {
		link = &netlink.Veth{LinkAttrs: attrs, PeerName: i.Peer}
	}
	if err := netlink.LinkAdd(link); err != nil {
		return fmt.Errorf("making it, of type %s: %w", kind, err)
	}
	fmt.Fprintf(say, "Created interface %s type %s\n", i.Name, kind)
	if !inRoot {
		return nil
	}
	made, err := netlink.LinkByName(i.Name)
	if err != nil {
		return err
	}
	return moveInterface(made, pid, say)
}

func moveInterface(link netlink.Link, pid int, say io.Writer) error {
	if err := netlink.LinkSetNsPid(link, pid); err != nil {
		return fmt.Errorf("moving it to process %d: %w", pid, err)
	}
	fmt.Fprintf(say, "Moved interface %s to pid %d\n", link.Attrs().Name, pid)
	return nil
}

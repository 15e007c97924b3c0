package qemu

import (
	"net"
	"strings"
	"testing"
	"time"
)

// Two cards that forward the same port have a port of the host each, on the
// loopback interface alone; what is not forwarded is an error.
func TestForwarded(t *testing.T) {
	c := counting(t, "amd64")
	c.NICs = []NIC{{Forwards: []int{80, 22}}, {MAC: "52:54:00:00:00:01", Open: true, Forwards: []int{80}}}
	v := start(t, c)
	seen := map[string]bool{}
	for _, want := range []struct{ nic, port int }{{0, 80}, {0, 22}, {1, 80}} {
		addr, err := v.Forwarded(t.Context(), want.nic, want.port)
		if err != nil || seen[addr] || !strings.HasPrefix(addr, "127.0.0.1:") {
			t.Errorf("%+v: %q, %v", want, addr, err)
		}
		seen[addr] = true
		conn, err := net.DialTimeout("tcp", addr, 10*time.Second)
		if err != nil {
			t.Errorf("%+v: %v", want, err)
			continue
		}
		conn.Close()
	}
	for _, not := range []struct{ nic, port int }{{1, 22}, {2, 80}, {0, 8}} {
		if addr, err := v.Forwarded(t.Context(), not.nic, not.port); err == nil {
			t.Errorf("%+v is forwarded to %s", not, addr)
		}
	}
}

func TestNICArguments(t *testing.T) {
	c := config(t)
	c.NICs = []NIC{{}, {MAC: "52:54:00:00:00:01", Open: true}}
	cmd, err := c.Command()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range [][]string{
		{"-netdev", "user,id=net0,restrict=on", "-device", "virtio-net-pci,romfile=,netdev=net0"},
		{"-netdev", "user,id=net1,restrict=off", "-device", "virtio-net-pci,romfile=,netdev=net1,mac=52:54:00:00:00:01"},
	} {
		if !has(cmd.Args, want...) {
			t.Errorf("%q is missing in %q", want, cmd.Args)
		}
	}
	for _, bad := range []NIC{{MAC: "52:54"}, {MAC: "53:54:00:00:00:01"}, {Forwards: []int{0}}, {Forwards: []int{65536}}} {
		c.NICs = []NIC{bad}
		if _, err := c.Command(); err == nil || !strings.Contains(err.Error(), "network card 0") {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

package qemu

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestChannelsAndCDsAreChecked(t *testing.T) {
	c := config(t)
	c.Channels, c.CDs = []string{"a", "", "a"}, []string{"", "/nowhere/cd.iso"}
	_, err := c.Command()
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{`channel 1: "" is no name`, `channel 2: there is a channel "a" already`, "CD 1: open /nowhere/cd.iso"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
	c.Channels, c.CDs = nil, make([]string, maxCDs+1)
	for i := range maxChannels + 1 {
		c.Channels = append(c.Channels, fmt.Sprint(i))
	}
	if _, err = c.Command(); err == nil || !strings.Contains(err.Error(), "31 channels; a machine can have 30") || !strings.Contains(err.Error(), "256 CDs") {
		t.Error(err)
	}
}

// A real QEMU takes as many as are allowed, and lets CDs be changed; the line
// for a shell has none of this process's descriptors in it.
func TestChannelsAndCDs(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64"} {
		t.Run(arch, func(t *testing.T) {
			c := counting(t, arch)
			iso := filepath.Join(t.TempDir(), "c,d.iso")
			if err := os.WriteFile(iso, make([]byte, 4096), 0o600); err != nil {
				t.Fatal(err)
			}
			c.CDs = []string{iso, ""}
			for i := range maxChannels {
				c.Channels = append(c.Channels, fmt.Sprintf("channel,%d", i))
			}
			command, err := c.Command()
			if err != nil {
				t.Fatal(err)
			}
			if line := command.String(); !strings.Contains(line, "null,id=channel29") || strings.Contains(line, "@channel") {
				t.Errorf("by hand: %s", line)
			}
			vm := start(t, c)
			for i, path := range []string{"", iso} {
				if err := vm.ChangeCD(t.Context(), i, path); err != nil {
					t.Error(err)
				}
			}
			if err := vm.ChangeCD(t.Context(), 1, filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("a CD that is not there: %v", err)
			}
			conn, err := vm.Channel("channel,29")
			if err != nil {
				t.Fatal(err)
			}
			if err := vm.Close(); err != nil {
				t.Error(err)
			}
			if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil {
				t.Errorf("after the end: %d, %v", n, err)
			}
		})
	}
}

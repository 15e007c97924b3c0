//go:build linux

package main

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"

	"github.com/seatrial/seatrial/boot/guest/disk"
)

// info is mountinfo as a container of the mount image sees it (proc(5)).
const info = `22 1 0:20 / / rw shared:1 - overlay overlay rw
23 22 0:21 / /dev rw master:2 - devtmpfs devtmpfs rw
24 22 0:22 / /var rw,relatime shared:7 - tmpfs tmpfs rw
25 22 0:23 / /srv rw shared:9 master:3 - tmpfs tmpfs rw
26 22 0:24 / /opt rw - tmpfs tmpfs rw
`

func TestVisible(t *testing.T) {
	for _, path := range []string{"/var", "/var/lib/state"} {
		if err := visible(info, path); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	for _, path := range []string{"/state", "/variable", "/dev/x", "/srv/x", "/opt/x"} {
		if err := visible(info, path); err == nil || !strings.Contains(err.Error(), path+" would be seen in this container alone") {
			t.Errorf("%s: %v", path, err)
		}
	}
	if err := visible(info+"27 24 0:25 / /var/lib rw - tmpfs tmpfs rw\n", "/var/lib/state"); err == nil {
		t.Error("a private mount below a shared one must be noticed")
	}
}

func TestRun(t *testing.T) {
	disks := []disk.Disk{{Path: "/dev/vda"}, {Path: "/dev/vda1", Partition: true}, {Path: "/dev/vdb"}}
	table := disk.Content{Table: "dos"}
	swap := disk.Content{Type: "swap", Label: "swap"}
	state := disk.Content{Type: "ext4", Label: "state", Mounts: true}
	for _, c := range []struct {
		name, args    string
		part, b       disk.Content
		mounted, want string
	}{
		{"by label", "-label state /var/x", swap, state, "/dev/vdb /var/x ext4", ""},
		{"by device", "/dev/vda1 /var/x", state, state, "/dev/vda1 /var/x ext4", ""},
		{"by the flag for a device", "-device /dev/vdb /var/x", state, state, "/dev/vdb /var/x ext4", ""},
		{"the first there is", "/var/x", swap, state, "/dev/vdb /var/x ext4", ""},
		{"no such label", "-wait 1ms -label other /var/x", swap, state, "", `no file system is labelled "other"; there is: /dev/vda with a partition table (dos), /dev/vda1 with swap`},
		{"two of a label", "-label state /var/x", state, state, "", `both /dev/vda1 and /dev/vdb are labelled "state"`},
		{"no such device", "-wait 1ms /dev/vdx /var/x", swap, state, "", "there is no disk /dev/vdx"},
		{"a device without a file system", "/dev/vda1 /var/x", swap, state, "", `/dev/vda1 holds swap labelled "swap", which cannot be mounted`},
		{"no file system at all", "-wait 1ms /var/x", swap, table, "", "no disk holds a file system"},
		{"a path nobody else sees", "/dev/vdb /state", swap, state, "", "in this container alone"},
	} {
		r, err := parse(strings.Fields(c.args), io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		mounted := ""
		contents := map[string]disk.Content{"/dev/vda": table, "/dev/vda1": c.part, "/dev/vdb": c.b}
		h := host{
			list:      func() ([]disk.Disk, error) { return disks, nil },
			inspect:   func(_ context.Context, path string) (disk.Content, error) { return contents[path], nil },
			mount:     func(device, path, kind string) error { mounted = device + " " + path + " " + kind; return nil },
			mountinfo: func() (string, error) { return info, nil },
			out:       &out,
		}
		err = h.run(context.Background(), r)
		if mounted != c.mounted || (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: mounted %q, %v; want %q, %q", c.name, mounted, err, c.mounted, c.want)
		}
		if (mounted == "") != (out.Len() == 0) {
			t.Errorf("%s: said %q", c.name, &out)
		}
	}
}

func TestParse(t *testing.T) {
	for args, want := range map[string]string{
		"":                      "one PATH",
		"a b c":                 "one PATH",
		"-label x /dev/vda /v":  "not both",
		"-device /dev/vda /a /": "one PATH",
		"state":                 "not absolute",
	} {
		if _, err := parse(strings.Fields(args), io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", args, err, want)
		}
	}
}

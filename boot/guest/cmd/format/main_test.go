//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/seatrial/seatrial/boot/guest/disk"
)

// machine is a machine with these disks, on which a device becomes what a
// request asks for when it is formatted.
func machine(disks map[string]disk.Content, order ...disk.Disk) (host, *bytes.Buffer, *[]string) {
	var out bytes.Buffer
	var formatted []string
	return host{
		list:    func() ([]disk.Disk, error) { return order, nil },
		inspect: func(_ context.Context, path string) (disk.Content, error) { return disks[path], nil },
		mkfs: func(_ context.Context, r request, path string) error {
			formatted = append(formatted, path)
			disks[path] = disk.Content{Type: r.kind, Label: r.label, Mounts: true}
			return nil
		},
		out: &out,
	}, &out, &formatted
}

func TestFormat(t *testing.T) {
	blank := disk.Content{First: -1}
	data := disk.Content{First: 7}
	state := disk.Content{Type: "ext4", Label: "state", Mounts: true, First: 1024}
	photos := disk.Content{Type: "ext4", Label: "photos", Mounts: true, First: 1024}
	table := disk.Content{Table: "gpt", First: 510}
	several := disk.Content{Several: true, First: 0}
	a, b := disk.Disk{Path: "/dev/vda"}, disk.Disk{Path: "/dev/vdb"}
	for _, c := range []struct {
		name      string
		args      string
		a, b      disk.Content
		formatted string
		said      string // on standard output
		err       string
	}{
		{"the first empty disk", "-label state", blank, blank, "/dev/vda", "/dev/vda was formatted", ""},
		{"an empty disk behind a full one", "-label state", data, blank, "/dev/vdb", "/dev/vdb was formatted", ""},
		{"the label is there already", "-label state", blank, state, "", "/dev/vdb holds ext4 labelled \"state\" already", ""},
		{"another label is not ours", "-label state", photos, table, "", "", `no empty disk: /dev/vda holds ext4 labelled "photos", /dev/vdb holds a partition table (gpt)`},
		{"without a label any ext4 will do", "", photos, blank, "", "/dev/vda holds ext4", ""},
		{"several formats", "-label state", several, data, "", "", "the marks of several formats at once"},
		{"a named disk", "-label state /dev/vdb", blank, blank, "/dev/vdb", "/dev/vdb was formatted", ""},
		{"a named disk that holds something", "-label state /dev/vdb", blank, table, "", "", "/dev/vdb holds a partition table (gpt); it is left as it is (-force erases it)"},
		{"a named disk with another label", "-label state /dev/vda", photos, blank, "", "", `/dev/vda holds ext4 labelled "photos"; it is left`},
		{"a named disk that is ours", "-label state /dev/vda", state, blank, "", "already", ""},
		{"force", "-force -label state /dev/vdb", blank, table, "/dev/vdb", "/dev/vdb was formatted", ""},
		{"a disk that is not there", "-wait 1ms /dev/vdx", blank, blank, "", "", "there is no disk /dev/vdx; there are: /dev/vda /dev/vdb"},
	} {
		r, err := parse(strings.Fields(c.args), io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		h, out, formatted := machine(map[string]disk.Content{"/dev/vda": c.a, "/dev/vdb": c.b}, a, b)
		err = h.format(context.Background(), r)
		if strings.Join(*formatted, " ") != c.formatted {
			t.Errorf("%s: formatted %v, want %q", c.name, *formatted, c.formatted)
		}
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: error %v, want %q", c.name, err, c.err)
		}
		if !strings.Contains(out.String(), c.said) || (c.said == "") != (out.Len() == 0) {
			t.Errorf("%s: said %q, want %q", c.name, out, c.said)
		}
	}
}

func TestFormatLeavesAlone(t *testing.T) {
	blank := disk.Content{First: -1}
	r := request{kind: "ext4", wait: 1}
	for name, d := range map[string]disk.Disk{"a read-only disk": {Path: "/dev/vda", ReadOnly: true}, "a partition": {Path: "/dev/vda", Partition: true}} {
		h, _, formatted := machine(map[string]disk.Content{"/dev/vda": blank}, d)
		if err := h.format(context.Background(), r); err == nil || len(*formatted) > 0 {
			t.Errorf("%s was formatted unasked: %v %v", name, *formatted, err)
		}
	}
	h, _, _ := machine(nil)
	if err := h.format(context.Background(), r); err == nil || err.Error() != "the machine has no disk" {
		t.Errorf("no disk: %v", err)
	}
	// A disk that cannot be read is not an empty one.
	h, _, formatted := machine(map[string]disk.Content{"/dev/vda": blank}, disk.Disk{Path: "/dev/vda"})
	h.inspect = func(context.Context, string) (disk.Content, error) {
		return disk.Content{First: -1}, errors.New("cannot be read")
	}
	if err := h.format(context.Background(), r); err == nil || len(*formatted) > 0 {
		t.Errorf("%v %v", *formatted, err)
	}
	// A file system that is not there afterwards was not made.
	h, _, _ = machine(map[string]disk.Content{"/dev/vda": blank}, disk.Disk{Path: "/dev/vda"})
	h.mkfs = func(context.Context, request, string) error { return nil }
	if err := h.format(context.Background(), r); err == nil || !strings.Contains(err.Error(), "after it was formatted") {
		t.Errorf("%v", err)
	}
}

func TestParse(t *testing.T) {
	r, err := parse(strings.Fields("-type ext4 -label x -force /dev/vda"), io.Discard)
	if err != nil || r.label != "x" || !r.force || r.device != "/dev/vda" {
		t.Errorf("%+v %v", r, err)
	}
	for args, want := range map[string]string{
		"/dev/vda /dev/vdb":        "one device at most",
		"-type xfs":                "only ext4 can be made",
		"-label 12345678901234567": "holds 16 bytes, this has 17",
		"-force":                   "name the DEVICE",
		"-frob":                    "not defined: -frob",
	} {
		if _, err := parse(strings.Fields(args), io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", args, err, want)
		}
	}
}

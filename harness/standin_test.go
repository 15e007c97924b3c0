package harness

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seatrial/seatrial/boot"
	"github.com/seatrial/seatrial/images"
	"github.com/seatrial/seatrial/qemu"
	"github.com/seatrial/seatrial/qemu/qemutest"
)

func TestMain(m *testing.M) {
	qemutest.Main(m, qemutest.Plays{
		"linux": {Guest: linux},
		"old": {Guest: linux, Refuse: func(_ *qemutest.Machine, command, arguments string) string {
			if strings.Contains(arguments, "x-ignore-shared") {
				return "Invalid parameter 'x-ignore-shared'"
			}
			return ""
		}},
		"blocked": {Guest: linux, Refuse: func(_ *qemutest.Machine, command, arguments string) string {
			if command == "migrate" {
				return "State blocked by non-migratable device 'nvme'"
			}
			return ""
		}},
		"unloadable": {Guest: linux, Refuse: func(_ *qemutest.Machine, command, arguments string) string {
			if command == "migrate-incoming" {
				return "no such thing"
			}
			return ""
		}},
		"amnesiac": {Guest: func(m *qemutest.Machine) {
			if m.Loaded {
				m.SetMemory([]byte(`{"mark":"another"}`))
			}
			linux(m)
		}},
		"panics": {Guest: func(m *qemutest.Machine) {
			noteBoot()
			fmt.Fprint(m.Serial, "[    0.0] Linux version 6.1\r\n[    1.0] Kernel panic - not syncing: it is broken\r\n")
			m.End(qemu.ReasonReset)
		}},
	})
}

// noteBoot counts a boot in a file beside the stand-in.
func noteBoot() {
	f, err := os.OpenFile(os.Args[0]+".boots", os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = f.WriteString("x")
	}
	if err != nil {
		panic(err)
	}
}

func boots(t *testing.T, h Host) int {
	t.Helper()
	b, err := os.ReadFile(h.Binary + ".boots")
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return len(b)
}

// linux is a guest that comes up and has an agent, whose files are its memory.
func linux(m *qemutest.Machine) {
	files := map[string]string{}
	if m.Loaded {
		if err := json.Unmarshal(m.Memory(), &files); err != nil {
			panic(err)
		}
		fmt.Fprint(m.Serial, " and goes on\r\n")
	} else {
		noteBoot()
		records, held := mustRecords(boot.Ready), ""
		if m.Has("-append", boot.HoldWord+"containerd") {
			records, held = mustRecords(boot.Onboot), record(boot.Event{Speaker: "init", Seq: 6, At: boot.Containerd, State: boot.Held})
		}
		fmt.Fprint(m.Serial, "[    0.0] Linux version 6.1\r\n"+records+held+"login:")
	}
	if m.Agent == nil {
		return
	}
	if !m.Loaded {
		reply(m, boot.Reply{Hello: "stand-in"})
	}
	for in := bufio.NewReader(m.Agent); ; {
		text, err := in.ReadBytes('\n')
		if err != nil {
			return
		}
		var r boot.Request
		if err := boot.ParseFrame(text, &r); err != nil {
			panic(err)
		}
		code := 0
		switch r.Argv[0] {
		case "@append":
			files[r.Argv[1]] += r.Argv[2]
			if r.Argv[1] == boot.HoldPath {
				fmt.Fprint(m.Serial, "\r\n"+record(boot.Event{Speaker: "init", Seq: 7, At: boot.Ready, State: boot.Done}))
			}
		case "@cat":
			reply(m, boot.Reply{ID: r.ID, Stream: 1, Data: []byte(files[r.Argv[1]])})
		case "@mac":
			files["mac"] = r.Argv[1] + " " + r.Argv[2]
		case "@mark":
			files["mark"] = r.Argv[1]
		case "@wake":
			files["entropy"], files["clock"] = r.Argv[1], r.Argv[2]
			reply(m, boot.Reply{ID: r.ID, Stream: 1, Data: []byte(files["mark"])})
		default:
			code = 127
		}
		b, err := json.Marshal(files)
		if err != nil {
			panic(err)
		}
		m.SetMemory(b)
		reply(m, boot.Reply{ID: r.ID, Exit: &code})
	}
}

func mustRecords(to boot.Milestone) string {
	records, err := recordsTo(to, "ttyS0")
	if err != nil {
		panic(err)
	}
	return records
}

func record(e boot.Event) string {
	b, err := e.AppendText(nil)
	if err != nil {
		panic(err)
	}
	return string(b) + "\r\n"
}

func reply(m *qemutest.Machine, r boot.Reply) {
	frame, err := boot.AppendFrame(nil, r)
	if err == nil {
		_, err = m.Agent.Write(frame)
	}
	if err != nil {
		panic(err)
	}
}

// standIn is a host whose QEMU performs the play, and an image for it.
func standIn(t *testing.T, play string) (Host, *images.Image) {
	t.Helper()
	kernel := filepath.Join(t.TempDir(), "kernel")
	if err := os.WriteFile(kernel, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	h := Host{Arch: "amd64", Binary: qemutest.Binary(t, play), Version: "7.2.22", Accel: qemu.Accel{Name: "tcg", CPU: "max"}, Scale: 1}
	return h, &images.Image{Name: "linux", Arch: "amd64", Digest: "sha256:1", KernelPath: kernel, Cmdline: "console=ttyS0"}
}

const exclusive = unix.LOCK_EX

func regexpOf(re string) *regexp.Regexp { return regexp.MustCompile(re) }

func readOnly(path string) qemu.Disk { return qemu.Disk{Path: path, ReadOnly: true} }

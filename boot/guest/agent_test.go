//go:build linux

package guest

import (
	"bufio"
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/seatrial/seatrial/boot"
	"golang.org/x/sys/unix"
)

// host is the other end of an agent's line.
type host struct {
	t    *testing.T
	line net.Conn
	in   *bufio.Reader
	id   uint64
}

func newHost(t *testing.T) *host {
	t.Helper()
	near, far := net.Pipe()
	done := make(chan error, 1)
	go func() { done <- ServeAgent(context.Background(), far) }()
	h := &host{t: t, line: near, in: bufio.NewReaderSize(near, boot.MaxFrame+16)}
	if err := near.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		near.Close()
		if err := <-done; err != nil && err != io.ErrClosedPipe {
			t.Errorf("agent ended with %v", err)
		}
	})
	if r := h.read(); r.Hello == "" {
		t.Errorf("first frame %+v is no hello", r)
	}
	return h
}

func (h *host) send(r boot.Request) {
	h.t.Helper()
	frame, err := boot.AppendFrame(nil, r)
	if err != nil {
		h.t.Fatal(err)
	}
	if _, err := h.line.Write(frame); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) read() boot.Reply {
	h.t.Helper()
	line, err := h.in.ReadSlice('\n')
	if err != nil {
		h.t.Fatal(err)
	}
	var r boot.Reply
	if err := boot.ParseFrame(line, &r); err != nil {
		h.t.Fatal(err)
	}
	if len(r.Data) > boot.MaxChunk {
		h.t.Errorf("chunk of %d bytes", len(r.Data))
	}
	return r
}

// run runs one command to its end.
func (h *host) run(argv ...string) (stdout, stderr string, last boot.Reply) {
	h.t.Helper()
	h.id++
	h.send(boot.Request{ID: h.id, Argv: argv, Env: []string{"EXTRA=e"}, Stdin: []byte("in")})
	for {
		r := h.read()
		if r.ID != h.id {
			h.t.Fatalf("reply for %d, not %d: %+v", r.ID, h.id, r)
		}
		switch {
		case r.Exit != nil || r.Error != "":
			return stdout, stderr, r
		case r.Stream == 1:
			stdout += string(r.Data)
		case r.Stream == 2:
			stderr += string(r.Data)
		}
	}
}

func TestAgentRuns(t *testing.T) {
	h := newHost(t)
	out, errs, last := h.run("sh", "-c", "cat; echo $EXTRA; pwd; echo bad >&2; exit 3")
	if out != "ine\n/\n" || errs != "bad\n" || last.Exit == nil || *last.Exit != 3 {
		t.Errorf("%q %q %+v", out, errs, last)
	}
	out, _, last = h.run("sh", "-c", "head -c 100000 /dev/zero")
	if len(out) != 100000 || *last.Exit != 0 {
		t.Errorf("%d bytes, %+v", len(out), last)
	}
	if _, _, last = h.run("sh", "-c", "kill -9 $$"); last.Exit == nil || *last.Exit != 137 || last.Signal != "SIGKILL" {
		t.Errorf("%+v", last)
	}
	if _, _, last = h.run("/nonexistent"); last.Error == "" || last.Exit != nil {
		t.Errorf("%+v", last)
	}
	began := time.Now()
	if _, _, last = h.run("sh", "-c", "sleep 30 &"); *last.Exit != 0 || time.Since(began) > 10*time.Second {
		t.Errorf("a child left behind held the command for %v", time.Since(began))
	}
}

func TestAgentCancelAndParallel(t *testing.T) {
	h := newHost(t)
	h.send(boot.Request{ID: 1000, Argv: []string{"sleep", "30"}})
	h.send(boot.Request{ID: 1000, Argv: []string{"true"}})
	if r := h.read(); r.Error == "" || r.ID != 1000 {
		t.Errorf("an ID in use must be refused: %+v", r)
	}
	h.send(boot.Request{ID: 1001, Argv: []string{CmdLs, "/"}})
	for {
		if r := h.read(); r.ID != 1001 {
			t.Errorf("the second must not wait for the first: %+v", r)
		} else if r.Exit != nil {
			break
		}
	}
	h.send(boot.Request{ID: 4711, Cancel: true}) // unknown: no reply
	h.send(boot.Request{ID: 1000, Cancel: true})
	if r := h.read(); r.ID != 1000 || r.Exit == nil || *r.Exit != 137 {
		t.Errorf("cancelled: %+v", r)
	}
}

func TestAgentFindsItsWayBack(t *testing.T) {
	h := newHost(t)
	for _, damage := range []string{"rubbish\n", "00000000 {}\n", strings.Repeat("x", boot.MaxFrame+100) + "\n"} {
		go func() { _, _ = io.WriteString(h.line, damage) }()
		if r := h.read(); r.ID != 0 || r.Error == "" {
			t.Errorf("damage %.20q: %+v", damage, r)
		}
		h.id++
		h.send(boot.Request{ID: h.id})
		if r := h.read(); r.ID != h.id || r.Hello == "" {
			t.Errorf("after damage %.20q: %+v", damage, r)
		}
	}
}

func TestBuiltins(t *testing.T) {
	h := newHost(t)
	name := filepath.Join(t.TempDir(), "f")
	if _, errs, last := h.run(CmdAppend, name, "one\n"); *last.Exit != 0 {
		t.Fatal(errs)
	}
	if _, errs, last := h.run(CmdAppend, name, "two\n"); *last.Exit != 0 {
		t.Fatal(errs)
	}
	if out, _, _ := h.run(CmdCat, name); out != "one\ntwo\n" {
		t.Errorf("cat %q", out)
	}
	if err := os.Chmod(name, 0o4640|os.ModeSetuid); err != nil {
		t.Fatal(err)
	}
	if out, _, _ := h.run(CmdStat, name); !strings.HasPrefix(out, "4640 ") || !strings.HasSuffix(out, " 8 file\n") {
		t.Errorf("stat %q", out)
	}
	if out, _, _ := h.run(CmdLs, filepath.Dir(name)); out != "f\n" {
		t.Errorf("ls %q", out)
	}
	if out, _, _ := h.run(CmdPs); !strings.Contains(out, "\n") || !strings.HasPrefix(out, "1 0 ") {
		t.Errorf("ps %.200q", out)
	}
	for _, bad := range [][]string{{CmdCat}, {CmdCat, name + "x"}, {CmdStat, name + "x"}, {CmdLs, name}, {CmdKill, "NONE", "1"}, {CmdKill, "TERM", "-1"}, {"@nonesuch"}, {CmdPs, "x"}} {
		if _, errs, last := h.run(bad...); last.Exit == nil || *last.Exit != 1 || errs == "" {
			t.Errorf("%v: %q %+v", bad, errs, last)
		}
	}
}

// A line that blocks would hold up the commands that come over it on a machine
// with one processor.
func TestOpenRaw(t *testing.T) {
	f, err := openRaw("/dev/ptmx") // a new terminal's near side
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	conn, err := f.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err = conn.Control(func(fd uintptr) {
		flags, err := unix.FcntlInt(fd, unix.F_GETFL, 0)
		if err != nil || flags&unix.O_NONBLOCK == 0 {
			t.Errorf("it blocks: flags %#x, %v", flags, err)
		}
		state, err := unix.IoctlGetTermios(int(fd), unix.TCGETS)
		if err != nil || state.Lflag&(unix.ECHO|unix.ICANON) != 0 || state.Oflag != 0 {
			t.Errorf("it is not raw: %+v, %v", state, err)
		}
	})
	if err != nil {
		t.Error(err)
	}
	if f, err := openRaw("/dev/null"); err == nil {
		f.Close()
		t.Error("/dev/null is a terminal")
	}
}

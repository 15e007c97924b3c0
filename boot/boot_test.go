package boot

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestEventRoundTrip(t *testing.T) {
	want := Event{
		Speaker: "init", Seq: 7, Up: 1204 * time.Millisecond, At: Services, State: Failed, Unit: "web",
		Detail: "exit status 3 \"quoted\"\nsecond line", Facts: map[string]string{FactStatus: "3"},
	}
	b, err := want.AppendText(nil)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.ContainsAny(b, "\r\n") {
		t.Errorf("a record must be one line: %q", b)
	}
	for _, prefix := range []string{"", "[    1.234567] ", "[    1.234567][    T1] "} {
		got, found, err := ParseEvent([]byte(prefix + string(b) + "\r\n"))
		if err != nil || !found {
			t.Fatalf("prefix %q: found %v, err %v", prefix, found, err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("prefix %q: (-want +got)\n%s", prefix, d)
		}
	}
}

func TestParseEventRefusesDamage(t *testing.T) {
	b, err := Event{Speaker: "init", Seq: 1, At: Init, State: Done, Detail: "hello"}.AppendText(nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := len("seatrial[") + 3; i < len(b); i++ {
		broken := bytes.Clone(b)
		broken[i] ^= 0x01
		if _, found, err := ParseEvent(broken); found && err == nil {
			t.Errorf("byte %d flipped and not noticed: %q", i, broken)
		}
	}
	for n := len("seatrial["); n < len(b); n++ {
		if _, found, err := ParseEvent(b[:n]); !found || err == nil {
			t.Errorf("cut after %d bytes: found %v, err %v", n, found, err)
		}
	}
	if _, found, err := ParseEvent([]byte("[    0.1] nothing of ours")); found || err != nil {
		t.Errorf("ordinary line: found %v, err %v", found, err)
	}
	other := strings.Replace(string(b), "[1]", "[2]", 1)
	if _, _, err := ParseEvent([]byte(other)); err == nil || !strings.Contains(err.Error(), "vocabulary") {
		t.Errorf("another vocabulary version must be refused by name, got %v", err)
	}
}

func TestLongDetailIsCut(t *testing.T) {
	e := Event{Speaker: "init", Seq: 1, At: Init, State: Failed, Detail: strings.Repeat("ü\"", 2000)}
	b, err := e.AppendText(nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(b) > MaxRecord {
		t.Errorf("record of %d bytes, limit %d", len(b), MaxRecord)
	}
	if got, _, err := ParseEvent(b); err != nil || !strings.HasSuffix(got.Detail, "…") {
		t.Errorf("got %q, err %v", got.Detail, err)
	}
	e.Detail, e.Unit = "", strings.Repeat("u", MaxRecord)
	if _, err := e.AppendText(nil); err == nil {
		t.Error("a record that cannot be cut must be an error")
	}
}

func TestTrace(t *testing.T) {
	var tr Trace
	for i, m := range []Milestone{Init, Mounts} {
		if missed := tr.Add(Event{Speaker: "init", Seq: uint64(i + 1), At: m, State: Done}); missed != 0 {
			t.Errorf("missed %d at %s", missed, m)
		}
	}
	if missed := tr.Add(Event{Speaker: "init", Seq: 5, At: Containerd, State: Running, Unit: "containerd"}); missed != 2 {
		t.Errorf("missed %d, want 2", missed)
	}
	if missed := tr.Add(Event{Speaker: "service", Seq: 1, At: Services, State: Running, Unit: "web"}); missed != 0 {
		t.Errorf("speakers count apart, missed %d", missed)
	}
	if _, ok := tr.Reached(Mounts); !ok {
		t.Error("mounts was reached")
	}
	if _, ok := tr.Reached(Containerd); ok {
		t.Error("a unit's event must not end its milestone")
	}
	if got := tr.Last(); got != Mounts {
		t.Errorf("last %s, want %s", got, Mounts)
	}
	if e, ok := tr.Unit("web"); !ok || e.State != Running {
		t.Errorf("unit web: %+v, %v", e, ok)
	}
	if _, ok := tr.Unit("getty"); ok {
		t.Error("no event was about getty")
	}
}

func TestMilestoneOrder(t *testing.T) {
	if !Init.Before(Ready) || Ready.Before(Init) || Ready.Before(Ready) {
		t.Error("order of milestones")
	}
	if Milestone("lunch").Valid() || !Off.Valid() {
		t.Error("validity of milestones")
	}
}

func TestFrames(t *testing.T) {
	code := 3
	want := Reply{ID: 9, Stream: 2, Data: []byte("a\nb\x00"), Exit: &code}
	b, err := AppendFrame(nil, want)
	if err != nil {
		t.Fatal(err)
	}
	var got Reply
	if err := ParseFrame(b, &got); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	b[12] ^= 1
	if err := ParseFrame(b, &got); err == nil {
		t.Error("a damaged frame must be refused")
	}
	if _, err := AppendFrame(nil, Reply{Data: make([]byte, MaxFrame)}); err == nil {
		t.Error("an oversized frame must be refused")
	}
}

func FuzzParseEvent(f *testing.F) {
	b, _ := Event{Speaker: "init", Seq: 1, At: Init, State: Done}.AppendText(nil)
	f.Add(b)
	f.Add([]byte("seatrial[1] init 1 {} 00000000"))
	f.Fuzz(func(t *testing.T, line []byte) {
		e, found, err := ParseEvent(line)
		if !found || err != nil {
			return
		}
		if _, err := e.AppendText(nil); err != nil && len(line) < MaxRecord/2 {
			t.Errorf("parsed but cannot be written: %v", err)
		}
	})
}

package qemu

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// card is QEMU's end of a cable.
type card struct {
	net.Conn
	t *testing.T
}

// plugged puts a card on the network until the test ends.
func plugged(t *testing.T, n *Network, machine string) card {
	t.Helper()
	p, far, err := n.plug(machine)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.FileConn(far)
	if err != nil {
		t.Fatal(err)
	}
	far.Close()
	t.Cleanup(func() {
		conn.Close()
		if err := p.unplug(); err != nil {
			t.Error(err)
		}
	})
	return card{conn, t}
}

func (c card) send(text string) {
	c.t.Helper()
	frame := binary.BigEndian.AppendUint32(nil, uint32(len(text)))
	if _, err := c.Write(append(frame, text...)); err != nil {
		c.t.Fatal(err)
	}
}

// receive returns the next frame.
func (c card) receive() string {
	c.t.Helper()
	c.SetReadDeadline(time.Now().Add(30 * time.Second))
	length := make([]byte, lengthSize)
	if _, err := io.ReadFull(c, length); err != nil {
		c.t.Fatal(err)
	}
	text := make([]byte, binary.BigEndian.Uint32(length))
	if _, err := io.ReadFull(c, text); err != nil {
		c.t.Fatal(err)
	}
	return string(text)
}

// upTo returns the frames that come before the one with the text.
func (c card) upTo(text string) []string {
	c.t.Helper()
	var got []string
	for {
		frame := c.receive()
		if frame == text {
			return got
		}
		got = append(got, frame)
	}
}

// A frame reaches everyone else on the network, nobody of another one, and not
// its sender.
func TestNetwork(t *testing.T) {
	n, other := &Network{}, &Network{}
	a, b, c, stranger := plugged(t, n, "a"), plugged(t, n, "b"), plugged(t, n, "c"), plugged(t, other, "d")
	a.send("hello")
	b.send("")
	a.send(strings.Repeat("x", 9000))
	if got := c.receive() + c.receive() + c.receive(); len(got) != len("hello")+9000 {
		t.Errorf("c got %d bytes", len(got)) // of two senders, in whatever order
	}
	if got := a.receive(); got != "" {
		t.Errorf("a got %q", got)
	}
	if got := b.receive(); got != "hello" {
		t.Errorf("b got %q", got)
	}
	if got := b.receive(); len(got) != 9000 {
		t.Errorf("b got %d bytes", len(got))
	}
	plugged(t, other, "e").send("end")
	if got := stranger.upTo("end"); len(got) != 0 {
		t.Errorf("another network got %q", got)
	}
}

func TestPartition(t *testing.T) {
	n := &Network{}
	a, b, c := plugged(t, n, "a"), plugged(t, n, "b"), plugged(t, n, "c")
	for want, groups := range map[string][][]string{
		`no machine "x" is on the network; there are: a, b, c`: {{"a"}, {"x"}},
		`machine "a" is in two parts`:                          {{"a"}, {"b", "a"}},
	} {
		if err := n.Partition(groups...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v", groups, err)
		}
	}
	if err := n.Partition([]string{"a", "b"}); err != nil { // and c sees nobody
		t.Fatal(err)
	}
	a.send("to b")
	if got := b.receive(); got != "to b" {
		t.Errorf("b got %q", got)
	}
	if err := n.Partition([]string{"a", "c"}, []string{"b"}); err != nil {
		t.Fatal(err)
	}
	a.send("to c")
	if got := c.receive(); got != "to c" { // and nothing of what was sent before
		t.Errorf("c got %q", got)
	}
	n.Heal()
	a.send("to all")
	if got := b.upTo("to all"); len(got) != 0 {
		t.Errorf("b got %q", got)
	}
}

// survivors sends numbered frames and returns those that were not lost.
func survivors(t *testing.T, seed uint64) []string {
	t.Helper()
	n := &Network{}
	a, b := plugged(t, n, "a"), plugged(t, n, "b")
	if err := n.Lose(0.3, seed); err != nil {
		t.Fatal(err)
	}
	for i := range 200 {
		a.send(fmt.Sprint(i))
	}
	for range 20 { // one of them comes through
		a.send("end")
	}
	return b.upTo("end")
}

func TestLoseIsRepeatable(t *testing.T) {
	got, again, other := survivors(t, 1), survivors(t, 1), survivors(t, 2)
	if !slices.Equal(got, again) || slices.Equal(got, other) {
		t.Errorf("seed 1: %d and %d frames came through, seed 2: %d", len(got), len(again), len(other))
	}
	if len(got) < 110 || len(got) > 170 { // 140, give or take five standard deviations
		t.Errorf("%d of 200 came through", len(got))
	}
	for _, rate := range []float64{-0.1, 1.1} {
		if err := new(Network).Lose(rate, 0); err == nil {
			t.Errorf("a loss of %v is taken", rate)
		}
	}
}

func TestDelay(t *testing.T) {
	n := &Network{}
	a, b := plugged(t, n, "a"), plugged(t, n, "b")
	if err := n.Delay(100 * time.Millisecond); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	a.send("1")
	a.send("2")
	if got := b.receive() + b.receive(); got != "12" || time.Since(began) < 100*time.Millisecond {
		t.Errorf("%q after %v", got, time.Since(began))
	}
	if err := n.Delay(time.Hour); err != nil {
		t.Fatal(err)
	}
	a.send("never") // and unplugging does not wait for it
	if err := n.Delay(-1); err == nil {
		t.Error("a delay of less than nothing is taken")
	}
}

// A card that takes nothing loses frames; nobody waits for it.
func TestNetworkDoesNotWaitForACard(t *testing.T) {
	n := &Network{}
	a, b := plugged(t, n, "a"), plugged(t, n, "b")
	plugged(t, n, "deaf")
	go func() {
		for range 3 * queued {
			a.Write(append(binary.BigEndian.AppendUint32(nil, 1000), make([]byte, 1000)...))
		}
		a.Write([]byte{0, 0, 0, 3, 'e', 'n', 'd'})
	}()
	b.upTo("end")
}

// What is no frame ends the cable it came through, and no other.
func TestNetworkRefusesWhatIsNoFrame(t *testing.T) {
	n := &Network{}
	a, b, c := plugged(t, n, "a"), plugged(t, n, "b"), plugged(t, n, "c")
	if _, err := a.Write(binary.BigEndian.AppendUint32(nil, maxFrame+1)); err != nil {
		t.Fatal(err)
	}
	b.send("still here")
	if got := c.receive(); got != "still here" {
		t.Errorf("c got %q", got)
	}
}

// QEMU's cards are on the network from the start to the end: each announces
// itself when told to.
func TestNetworkOfQEMU(t *testing.T) {
	n := &Network{}
	observer := plugged(t, n, "observer")
	c := counting(t, "amd64")
	c.Name, c.NICs = "m", []NIC{{}, {MAC: "52:54:00:00:00:07", Network: n}, {MAC: "52:54:00:00:00:08", Network: n}}
	v := start(t, c)
	if err := v.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	args := map[string]any{"initial": 1, "max": 1, "rounds": 1, "step": 1}
	if err := v.QMP().Do(t.Context(), "announce-self", args, nil); err != nil {
		t.Fatal(err)
	}
	var senders []string
	for range 2 {
		frame := observer.receive()
		if !bytes.Equal([]byte(frame[12:14]), []byte{0x80, 0x35}) { // EtherType of RARP
			t.Errorf("no RARP frame: %x", frame)
		}
		senders = append(senders, net.HardwareAddr(frame[6:12]).String())
	}
	slices.Sort(senders)
	if !slices.Equal(senders, []string{c.NICs[1].MAC, c.NICs[2].MAC}) {
		t.Errorf("senders: %q", senders)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	if len(n.ports) != 1 {
		t.Errorf("%d cards are on the network after the end", len(n.ports))
	}
	if entries, err := os.ReadDir(c.Dir); err != nil || slices.ContainsFunc(entries, func(e os.DirEntry) bool { return e.Type()&os.ModeSocket != 0 }) {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

package boot

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Version is the vocabulary version written in every record. A reader refuses
// records of another version: host and guest were built from different trees.
const Version = 1

// MaxRecord is the longest record in bytes. The kernel cuts a /dev/kmsg line
// at 1024 bytes less its prefix (LOG_LINE_MAX, kernel/printk/printk.c); 900
// leaves room for the prefix, the time and the caller field on the console.
const MaxRecord = 900

const sentinel = "seatrial["

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Event is one thing that a program in the machine says about the boot.
type Event struct {
	Speaker string            `json:"-"`                // who says it: "init" or "service"
	Seq     uint64            `json:"-"`                // the speaker's own count, from 1
	Up      time.Duration     `json:"-"`                // since the kernel started; written in whole milliseconds
	At      Milestone         `json:"at"`               // the milestone it belongs to
	State   State             `json:"state"`            // what is said of it
	Unit    string            `json:"unit,omitempty"`   // a container, or "containerd"; empty: the milestone itself
	Detail  string            `json:"detail,omitempty"` // for people, one line
	Facts   map[string]string `json:"facts,omitempty"`  // for programs; see the Fact constants
}

// Keys of Event.Facts.
const (
	FactConsole = "console" // on Init: the terminal behind /dev/console, e.g. "ttyS0"
	FactBuild   = "build"   // on Init: build id of the program that speaks
	FactStatus  = "status"  // on a unit's Exited or Failed: exit status, or "signal: killed"
	FactFile    = "file"    // on Warned or Failed: the configuration file at fault
	FactKey     = "key"     // on Warned or Failed: the key in that file at fault
	FactReason  = "reason"  // on Shutdown: "poweroff", "reboot" or "halt"
)

type wire struct {
	Event
	UpMillis int64 `json:"up"`
}

// AppendText appends the record to b, without a newline. A Detail that makes
// the record longer than [MaxRecord] is cut; other fields that do are an error.
func (e Event) AppendText(b []byte) ([]byte, error) {
	if e.Speaker == "" || strings.ContainsAny(e.Speaker, " \n") {
		return b, fmt.Errorf("boot: event speaker %q must be one word", e.Speaker)
	}
	for {
		body, err := json.Marshal(wire{Event: e, UpMillis: e.Up.Milliseconds()})
		if err != nil {
			return b, err
		}
		text := fmt.Sprintf("[%d] %s %d %s", Version, e.Speaker, e.Seq, body)
		record := fmt.Sprintf("seatrial%s %08x", text, crc32.Checksum([]byte(text), castagnoli))
		over := len(record) - MaxRecord
		if over <= 0 {
			return append(b, record...), nil
		}
		if e.Detail == "" {
			return b, fmt.Errorf("boot: event of %s is %d bytes, the limit is %d", e.Speaker, len(record), MaxRecord)
		}
		// JSON may need six bytes for one (\u0000), so cut a sixth and look again.
		e.Detail = shorten(e.Detail, over/6+1)
	}
}

// shorten drops at least over bytes from the end of s, on a rune border.
func shorten(s string, over int) string {
	s = strings.TrimSuffix(s, "…")
	n := max(len(s)-over, 0)
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	if n == 0 {
		return ""
	}
	return s[:n] + "…"
}

// ParseEvent looks for a record in a console line. found says whether the line
// holds one; found with an error means that it is damaged or of another
// vocabulary version.
func ParseEvent(line []byte) (e Event, found bool, err error) {
	at := bytes.Index(line, []byte(sentinel))
	if at < 0 {
		return Event{}, false, nil
	}
	text := bytes.TrimRight(line[at+len("seatrial"):], " \r\n")
	version, _, ok := bytes.Cut(text[1:], []byte("] "))
	if !ok {
		return Event{}, true, fmt.Errorf("boot: damaged event record: %q", line)
	}
	if v, err := strconv.Atoi(string(version)); err != nil || v != Version {
		return Event{}, true, fmt.Errorf("boot: event record of vocabulary %q, this program speaks %d: rebuild the image", version, Version)
	}
	cut := bytes.LastIndexByte(text, ' ')
	sum, err := strconv.ParseUint(string(text[cut+1:]), 16, 32)
	if err != nil || uint32(sum) != crc32.Checksum(text[:cut], castagnoli) {
		return Event{}, true, fmt.Errorf("boot: damaged event record (checksum): %q", line)
	}
	fields := bytes.SplitN(text[:cut], []byte(" "), 4)
	if len(fields) != 4 {
		return Event{}, true, fmt.Errorf("boot: damaged event record (fields): %q", line)
	}
	w := wire{}
	if err := json.Unmarshal(fields[3], &w); err != nil {
		return Event{}, true, fmt.Errorf("boot: damaged event record: %w", err)
	}
	e = w.Event
	e.Speaker = string(fields[1])
	e.Up = time.Duration(w.UpMillis) * time.Millisecond
	if e.Seq, err = strconv.ParseUint(string(fields[2]), 10, 64); err != nil {
		return Event{}, true, fmt.Errorf("boot: damaged event record (sequence): %q", line)
	}
	return e, true, nil
}

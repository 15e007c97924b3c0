//go:build linux

package guest

import (
	"bytes"
	"strconv"
	"strings"
	"testing"
	"time"
)

// What changes the machine's clock is not run here: it would be this host's.
func TestClockTells(t *testing.T) {
	var out bytes.Buffer
	before := time.Now().UnixNano()
	if err := (&agent{}).builtin(&out, []string{CmdClock}); err != nil {
		t.Fatal(err)
	}
	got, err := strconv.ParseInt(strings.TrimSpace(out.String()), 10, 64)
	if err != nil || got < before || got > time.Now().UnixNano() {
		t.Errorf("%q, %v", out.String(), err)
	}
}

func TestWakeRefuses(t *testing.T) {
	enough := strings.Repeat("00", minEntropy)
	for _, argv := range [][]string{
		{CmdClock, "yesterday"}, {CmdClock, "-1"}, {CmdClock, "1", "2"},
		{CmdReseed}, {CmdReseed, "no digits"}, {CmdReseed, enough[2:]}, {CmdReseed, strings.Repeat("00", 513)},
		{CmdMAC, "02:00:00:00:00:01"}, {CmdMAC, "x", "02:00:00:00:00:01"}, {CmdMAC, "02:00:00:00:00:01", "x"},
		{CmdMAC, "02:00:00:00:00:01", "02:00:00:00:00:02"}, // there is none
		{CmdWake, enough[2:], "0"}, {CmdWake, enough}, {CmdMark},
	} {
		var out bytes.Buffer
		if err := (&agent{}).builtin(&out, argv); err == nil || out.Len() > 0 {
			t.Errorf("%q: %v, said %q", argv, err, out.String())
		}
	}
}

//go:build linux

package guest

import (
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/seatrial/seatrial/boot"
)

// KmsgPath is where events go.
const KmsgPath = "/dev/kmsg"

// kmsgPriority is KERN_ERR: the least urgent level that "quiet" lets through
// to the console (its limit is 4, and lower numbers are printed).
const kmsgPriority = "<3>"

// Speaker says things twice over: lines for people on the console, events for
// the host on /dev/kmsg. It is safe for concurrent use.
type Speaker struct {
	name    string
	console io.Writer
	uptime  func() time.Duration

	mu   sync.Mutex
	kmsg io.Writer
	seq  uint64
}

// NewSpeaker returns a speaker whose events carry name. kmsg must take a whole
// record in one Write, as /dev/kmsg does.
func NewSpeaker(name string, console, kmsg io.Writer, uptime func() time.Duration) *Speaker {
	return &Speaker{name: name, console: console, kmsg: kmsg, uptime: uptime}
}

// Say writes one line to the console. Line ends inside it become "; ", so that
// a reader of lines sees who speaks in each.
func (s *Speaker) Say(format string, args ...any) {
	// The console is the only place a failure to write to it could be told.
	_, _ = io.WriteString(s.console, oneLine(fmt.Sprintf(format, args...))+"\n")
}

// Event stamps e with speaker, number and time and writes it. Failure is told
// on the console: a host that counts numbers would otherwise blame the line.
func (s *Speaker) Event(e boot.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seq++
	e.Speaker, e.Seq, e.Up, e.Detail = s.name, s.seq, s.uptime(), oneLine(e.Detail)
	record, err := e.AppendText([]byte(kmsgPriority))
	if err == nil {
		_, err = s.kmsg.Write(append(record, '\n'))
	}
	if err != nil {
		s.Say("%s: event %d (%s %s) is lost: %v", s.name, e.Seq, e.At, e.State, err)
	}
}

func oneLine(s string) string {
	return strings.NewReplacer("\r\n", "; ", "\n", "; ").Replace(strings.TrimSpace(s))
}

// OpenKmsg opens the kernel log for events and lifts its rate limit, which the
// kernel otherwise applies when printk.devkmsg=on is not on its command line.
func OpenKmsg() (*os.File, error) {
	// Refused when the command line has fixed it; then the user has chosen.
	_ = os.WriteFile("/proc/sys/kernel/printk_devkmsg", []byte("on\n"), 0)
	return os.OpenFile(KmsgPath, os.O_WRONLY, 0)
}

// Build names the build of the running program: the revision it was made from,
// or what the Go tool recorded instead.
func Build() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return info.Main.Version + " " + info.GoVersion
}

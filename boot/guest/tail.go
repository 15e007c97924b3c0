//go:build linux

package guest

import (
	"io"
	"strings"
	"sync"
)

// tailSize is how much of a stream's end is remembered: a few lines.
const tailSize = 4 << 10

// tail passes a stream on and remembers its end.
type tail struct {
	to   io.Writer
	done chan struct{} // closed at the end of the stream

	mu  sync.Mutex
	end []byte
}

func newTail(to io.Writer) *tail { return &tail{to: to, done: make(chan struct{})} }

// copy passes on all of r. It reads on when the destination fails (a full
// disk), because the writer at the other end must not be held up or killed.
func (t *tail) copy(r io.Reader) {
	defer close(t.done)
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			_, _ = t.to.Write(buf[:n])
			t.mu.Lock()
			t.end = append(t.end, buf[:n]...)
			if over := len(t.end) - tailSize; over > 0 {
				t.end = append(t.end[:0], t.end[over:]...)
			}
			t.mu.Unlock()
		}
		if err != nil {
			return
		}
	}
}

// lines are the last n lines that are not blank, fewer if there are no more.
func (t *tail) lines(n int) []string {
	t.mu.Lock()
	text := strings.ToValidUTF8(string(t.end), "?")
	t.mu.Unlock()
	var out []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			out = append(out, line)
		}
	}
	return out[max(len(out)-n, 0):]
}

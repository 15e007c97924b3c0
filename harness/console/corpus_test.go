package console

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// corpus are serial lines of real machines and what is to be made of each:
// every fault of at least warning severity, in order.
var corpus = map[string][]string{
	"ready-and-shell":   nil,
	"power-off":         nil,
	"halted":            {"the machine halted: it stands still, and does not power itself off"},
	"sysrq-crash":       {"kernel panic: sysrq triggered crash"},
	"init-exits":        {"init died: PID 1 exited with status 1"},
	"init-missing":      {"no root file system: the kernel was given neither an initramfs nor root= (unknown-block(0,0))"},
	"no-initramfs":      {"no root file system: the kernel was given neither an initramfs nor root= (unknown-block(0,0))"},
	"too-little-memory": {"out of memory: the kernel found nothing to kill; give the machine more memory"},
	"containerd-exits":  {"containerd failed: ended before its socket answered: exit status 4; its last line: no room for me"},
	"service-crashes":   {"service crash failed: exit status 3"},
	"onboot-fails":      {"onboot 000-fails failed: exit status 5"},
	"console-order":     {"console order: /dev/console is tty0, not ttyS0"},
	"options-wrong-types": {
		"line 1, column 1: cliopts: must be a string, not an array",
		"line 2, column 1: stderr: must be a string, not an integer",
		"line 3, column 1: stdout: must be a string, not a boolean",
	},
	"options-not-toml": {"line 2, column"},
}

func TestCorpus(t *testing.T) {
	files, err := filepath.Glob("testdata/corpus/*.log")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != len(corpus) {
		t.Errorf("%d transcripts, %d expectations", len(files), len(corpus))
	}
	for _, path := range files {
		name := strings.TrimSuffix(filepath.Base(path), ".log")
		t.Run(name, func(t *testing.T) {
			want, known := corpus[name]
			if !known {
				t.Fatal("nothing is expected of this transcript")
			}
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			l := read(t, text)
			got := l.Faults(Warning)
			for i := range max(len(got), len(want)) {
				switch {
				case i >= len(got):
					t.Errorf("not recognised: %s", want[i])
				case i >= len(want):
					// What follows from a failure may be faults of its own.
					if len(want) == 0 || got[i].Severity != Fatal {
						t.Errorf("not expected: %s", got[i].Title)
					}
				case !strings.HasPrefix(got[i].Title, want[i]):
					t.Errorf("got %q, want %q", got[i].Title, want[i])
				}
			}
			laws(t, text, l)
		})
	}
}

// laws hold for every transcript.
func laws(t *testing.T, text []byte, whole *Log) {
	t.Helper()
	titles := func(l *Log) (out []string) {
		for _, f := range l.Faults(Note) {
			out = append(out, f.Rule+": "+f.Title)
		}
		return out
	}
	for _, size := range []int{1, 7, 4096} {
		l := NewLog(Options{Console: "ttyS0"})
		for rest := text; len(rest) > 0; rest = rest[min(size, len(rest)):] {
			if _, err := l.Write(rest[:min(size, len(rest))]); err != nil {
				t.Fatal(err)
			}
		}
		l.Close()
		if d := cmp.Diff(titles(whole), titles(l)); d != "" {
			t.Errorf("in pieces of %d: %s", size, d)
		}
	}
	bare := read(t, bytes.ReplaceAll(text, []byte("\r"), nil))
	if d := cmp.Diff(titles(whole), titles(bare)); d != "" {
		t.Errorf("without CR: %s", d)
	}
	var shown []byte
	for _, line := range whole.Lines() {
		shown = append(append(shown, line.Text...), '\n')
	}
	if d := cmp.Diff(titles(whole), titles(read(t, shown))); d != "" {
		t.Errorf("as shown: %s", d)
	}
	for _, f := range whole.Faults(Note) {
		if f.Title == "" || len(f.Lines) == 0 || f.Lines[0] != whole.Lines()[f.First-1].Text {
			t.Errorf("a fault must show its lines: %+v", f)
		}
	}
}

func read(t *testing.T, text []byte) *Log {
	t.Helper()
	l, err := Replay(bytes.NewReader(text), Options{Console: "ttyS0"})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

//go:build linux

package guest

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
	"golang.org/x/sys/unix"
)

// The keys of /etc/containerd/runtime-config.toml.
const (
	KeyCliopts = "cliopts"
	KeyStderr  = "stderr"
	KeyStdout  = "stdout"
)

// RuntimeOptions is how containerd is to be started.
type RuntimeOptions struct {
	Args   []string // arguments, one per word of cliopts
	Stderr Sink     // where its standard error goes
	Stdout Sink     // where its standard output goes
}

// Sink names where a stream goes: empty for the stream of the same name of
// PID 1, "stderr" or "stdout" for that stream of PID 1, else the absolute path
// of a file that is appended to.
type Sink string

// ConfigProblem is one thing wrong with the file. The key it belongs to was
// treated as absent.
type ConfigProblem struct {
	Key          string // empty: the file as a whole
	Line, Column int    // from 1; 0: not known
	Reason       string
	Instead      string // what is done instead
}

// String is the problem as one line without the name of the file.
func (p ConfigProblem) String() string {
	var b strings.Builder
	if p.Line > 0 {
		fmt.Fprintf(&b, "line %d, column %d: ", p.Line, p.Column)
	}
	if p.Key != "" {
		key := p.Key
		if quoted := strconv.Quote(key); len(quoted) != len(key)+2 || len(key) > 80 {
			key = fmt.Sprintf("%.80q", key)
		}
		fmt.Fprintf(&b, "%s: ", key)
	}
	fmt.Fprintf(&b, "%s; %s", p.Reason, p.Instead)
	return b.String()
}

// utf8Mark is what some editors begin a file with.
var utf8Mark = []byte("\xef\xbb\xbf")

// ParseRuntimeConfig reads the options for containerd. Whatever the input, the
// options returned can be used: a key that is wrong has its default and a
// problem that says so, and a file that is no TOML has all defaults.
//
// A file that is not TOML and starts with "-" is the short form: its whole
// content is taken as the value of cliopts. cliopts is cut at white space and
// knows no quoting.
func ParseRuntimeConfig(src []byte) (RuntimeOptions, []ConfigProblem) {
	src = bytes.TrimPrefix(src, utf8Mark)
	values := map[string]any{}
	if err := toml.Unmarshal(src, &values); err != nil {
		if text := strings.TrimSpace(string(src)); strings.HasPrefix(text, "-") && !strings.ContainsRune(text, 0) {
			return RuntimeOptions{Args: strings.Fields(text)}, nil
		}
		p := ConfigProblem{Reason: "not TOML: " + err.Error(), Instead: "containerd is started without options, its output is on the console"}
		if d := (*toml.DecodeError)(nil); errors.As(err, &d) {
			p.Line, p.Column = d.Position()
		}
		return RuntimeOptions{}, []ConfigProblem{p}
	}
	r := configReader{values: values, src: src}
	o := RuntimeOptions{
		Args:   strings.Fields(r.text(KeyCliopts, "containerd is started without options")),
		Stderr: r.sink(KeyStderr),
		Stdout: r.sink(KeyStdout),
	}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if key != KeyCliopts && key != KeyStderr && key != KeyStdout {
			r.problem(key, "unknown key, known are cliopts, stderr and stdout", "it is ignored")
		}
	}
	return o, r.problems
}

type configReader struct {
	values   map[string]any
	src      []byte
	problems []ConfigProblem
}

// problem notes that a key is wrong, with the place of its first mention.
func (r *configReader) problem(key, reason, instead string) {
	line, column := keyPosition(r.src, key)
	r.problems = append(r.problems, ConfigProblem{Key: key, Line: line, Column: column, Reason: reason, Instead: instead})
}

// text returns the string value of key, empty if absent or wrong.
func (r *configReader) text(key, instead string) string {
	v, ok := r.values[key]
	if !ok {
		return ""
	}
	s, ok := v.(string)
	if !ok {
		r.problem(key, fmt.Sprintf("must be a string, not %s", tomlKind(v)), instead)
		return ""
	}
	if strings.ContainsRune(s, 0) {
		r.problem(key, "holds a NUL character", instead)
		return ""
	}
	return s
}

func (r *configReader) sink(key string) Sink {
	instead := fmt.Sprintf("containerd's %s is on the console", key)
	s := strings.TrimSpace(r.text(key, instead))
	switch {
	case s == "" || s == KeyStderr || s == KeyStdout || strings.HasPrefix(s, "/"):
		return Sink(s)
	case strings.Contains(s, "/") || strings.Contains(s, "."):
		r.problem(key, fmt.Sprintf("%.200q is not an absolute path", s), instead)
	default:
		r.problem(key, fmt.Sprintf("%.200q is none of stderr, stdout and an absolute path", s), instead)
	}
	return ""
}

// tomlKind names the type of a decoded value in TOML's words.
func tomlKind(v any) string {
	switch v.(type) {
	case int64:
		return "an integer"
	case float64:
		return "a float"
	case bool:
		return "a boolean"
	case []any:
		return "an array"
	case map[string]any:
		return "a table"
	}
	return "a date or time"
}

// keyPosition finds where a top-level key is first mentioned, as a key or as
// the first part of a table's name.
func keyPosition(src []byte, key string) (line, column int) {
	var p unstable.Parser
	p.Reset(src)
	inTable := false
	for p.NextExpression() {
		e := p.Expression()
		switch e.Kind {
		case unstable.Table, unstable.ArrayTable:
			inTable = true
		case unstable.KeyValue:
			if inTable {
				continue
			}
		default:
			continue
		}
		if it := e.Key(); it.Next() && string(it.Node().Data) == key {
			at := p.Shape(it.Node().Raw).Start
			return at.Line, at.Column
		}
	}
	return 0, 0
}

// Open opens the file of a sink for appending, with the directories above it.
// It must be called for a path only.
func (s Sink) Open() (*os.File, error) {
	name := string(s)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return nil, err
	}
	// O_NONBLOCK: a FIFO nobody reads must be refused, not waited for.
	flags := unix.O_WRONLY | unix.O_APPEND | unix.O_CREAT | unix.O_CLOEXEC | unix.O_NOCTTY | unix.O_NONBLOCK
	fd, err := unix.Open(name, flags, 0o644)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		unix.Close(fd)
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// ReadRuntimeConfig reads the file name. An absent file gives the defaults.
func ReadRuntimeConfig(name string) (RuntimeOptions, []ConfigProblem) {
	instead := "containerd is started without options, its output is on the console"
	info, err := os.Stat(name)
	if errors.Is(err, os.ErrNotExist) {
		return RuntimeOptions{}, nil
	}
	if err == nil && !info.Mode().IsRegular() {
		return RuntimeOptions{}, []ConfigProblem{{Reason: "not a regular file", Instead: instead}}
	}
	if err == nil && info.Size() > maxRuntimeConfig {
		return RuntimeOptions{}, []ConfigProblem{{Reason: fmt.Sprintf("%d bytes, the limit is %d", info.Size(), maxRuntimeConfig), Instead: instead}}
	}
	src, err := os.ReadFile(name)
	if err != nil {
		return RuntimeOptions{}, []ConfigProblem{{Reason: "cannot be read: " + err.Error(), Instead: instead}}
	}
	return ParseRuntimeConfig(src)
}

// maxRuntimeConfig is Linux's limit for one argument (MAX_ARG_STRLEN); no
// option could be longer.
const maxRuntimeConfig = 128 << 10

//go:build linux

package guest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestParseRuntimeConfig(t *testing.T) {
	tests := []struct {
		name, src string
		want      RuntimeOptions
		problems  []string // "key line:column start of the reason"
	}{
		{name: "empty"},
		{name: "comments", src: "# cliopts=\"--x\"\n\n  # more\n"},
		{name: "blank values", src: "cliopts=\"\"\nstderr=\"\"\nstdout=\"  \"\n"},
		{name: "faq", src: "cliopts=\"--log-level debug\"\nstderr=\"/var/log/containerd.out.log\"\nstdout=\"stdout\"\n",
			want: RuntimeOptions{Args: []string{"--log-level", "debug"}, Stderr: "/var/log/containerd.out.log", Stdout: "stdout"}},
		{name: "crossed", src: `stderr="stdout"` + "\n" + `stdout="stderr"`, want: RuntimeOptions{Stderr: "stdout", Stdout: "stderr"}},
		{name: "all white space", src: "cliopts=\"\"\"\n--a\t b\u00a0c\n\nd\"\"\"", want: RuntimeOptions{Args: []string{"--a", "b", "c", "d"}}},
		{name: "no quoting", src: `cliopts="--arg 'abcd def'"`, want: RuntimeOptions{Args: []string{"--arg", "'abcd", "def'"}}},
		{name: "bom and crlf", src: "\xef\xbb\xbfcliopts=\"-l debug\"\r\nstdout=\"stderr\"\r\n", want: RuntimeOptions{Args: []string{"-l", "debug"}, Stdout: "stderr"}},
		{name: "short form", src: "\n  --log-level debug\n--x\n", want: RuntimeOptions{Args: []string{"--log-level", "debug", "--x"}}},
		{name: "short form with =", src: "--log-level=debug", want: RuntimeOptions{Args: []string{"--log-level=debug"}}},
		{name: "no short form without dash", src: "log-level debug", problems: []string{" 1:11 not TOML"}},
		{name: "unclosed string", src: "stdout=\"stderr\"\ncliopts=\"--x\n", problems: []string{" 2:13 not TOML"}},
		{name: "twice", src: "cliopts=\"a\"\ncliopts=\"b\"\n", problems: []string{" 2:1 not TOML"}},
		{name: "wrong types", src: "cliopts=[\"a\"]\n stderr=1\nstdout=true\n",
			problems: []string{"cliopts 1:1 must be a string, not an array", "stderr 2:2 must be a string, not an integer", "stdout 3:1 must be a string, not a boolean"}},
		{name: "one wrong key does not spoil another", src: "cliopts=1.5\nstderr=\"/a\"\n",
			want: RuntimeOptions{Stderr: "/a"}, problems: []string{"cliopts 1:1 must be a string, not a float"}},
		{name: "table", src: "[stderr]\nx=1\n", problems: []string{"stderr 1:2 must be a string, not a table"}},
		{name: "date", src: "stdout=2020-01-01\n", problems: []string{"stdout 1:1 must be a string, not a date or time"}},
		{name: "relative", src: "stderr=\"log/x\"\nstdout=\"x.log\"\n",
			problems: []string{"stderr 1:1 \"log/x\" is not an absolute path", "stdout 2:1 \"x.log\" is not an absolute path"}},
		{name: "word", src: "stdout=\"STDOUT\"\n", problems: []string{"stdout 1:1 \"STDOUT\" is none of"}},
		{name: "unknown", src: "cliopts=\"-x\"\ncliopt=\"-y\"\n[t]\ncliopts=\"z\"\n", want: RuntimeOptions{Args: []string{"-x"}},
			problems: []string{"cliopt 2:1 unknown key", "t 3:2 unknown key"}},
		{name: "case of keys", src: "Cliopts=\"-x\"\n", problems: []string{"Cliopts 1:1 unknown key"}},
		{name: "nul", src: "cliopts=\"a\\u0000b\"\nstderr=\"/a\\u0000\"", problems: []string{"cliopts 1:1 holds a NUL", "stderr 2:1 holds a NUL"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, problems := ParseRuntimeConfig([]byte(tt.src))
			if len(got.Args) == 0 {
				got.Args = nil
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
			if len(problems) != len(tt.problems) {
				t.Fatalf("got problems %v, want %v", problems, tt.problems)
			}
			for i, want := range tt.problems {
				key, rest, _ := strings.Cut(want, " ")
				place, reason, _ := strings.Cut(rest, " ")
				p := problems[i]
				if p.Key != key || !strings.HasPrefix(p.Reason, reason) || p.Instead == "" {
					t.Errorf("got %+v, want %q", p, want)
				}
				contains(t, p.String(), "line "+strings.Replace(place, ":", ", column ", 1)+": ")
				lacks(t, p.String(), "\n")
			}
		})
	}
}

func FuzzParseRuntimeConfig(f *testing.F) {
	for _, s := range []string{"", "cliopts=\"--x\"", "--log-level debug", "stderr=1\n[a.b]\n", "\"\\u0000\"=1", "a.b=1\n[[c]]"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		o, problems := ParseRuntimeConfig(src)
		for _, a := range o.Args {
			if a == "" || strings.ContainsAny(a, " \t\n\x00") {
				t.Errorf("argument %q", a)
			}
		}
		for _, s := range []Sink{o.Stderr, o.Stdout} {
			if s != "" && s != KeyStderr && s != KeyStdout && s[0] != '/' {
				t.Errorf("sink %q", s)
			}
		}
		for _, p := range problems {
			if p.Reason == "" || p.Instead == "" {
				t.Errorf("problem %+v", p)
			}
		}
	})
}

func TestReadRuntimeConfig(t *testing.T) {
	dir := t.TempDir()
	if o, p := ReadRuntimeConfig(filepath.Join(dir, "none")); len(p) != 0 || len(o.Args) != 0 {
		t.Errorf("absent file: %v %v", o, p)
	}
	if _, p := ReadRuntimeConfig(dir); len(p) != 1 || !strings.Contains(p[0].Reason, "not a regular file") {
		t.Errorf("directory: %v", p)
	}
	big := filepath.Join(dir, "big")
	writeFile(t, big, strings.Repeat("#", maxRuntimeConfig+1), 0o644)
	if _, p := ReadRuntimeConfig(big); len(p) != 1 || !strings.Contains(p[0].Reason, "limit") {
		t.Errorf("too big: %v", p)
	}
	ok := filepath.Join(dir, "ok")
	writeFile(t, ok, "--x", 0o644)
	if o, p := ReadRuntimeConfig(ok); len(p) != 0 || len(o.Args) != 1 {
		t.Errorf("good file: %v %v", o, p)
	}
}

func TestSinkOpen(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "a/b/c.log")
	a, err := Sink(name).Open()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := Sink(name).Open() // both streams to one file
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	for _, f := range []*os.File{a, b, a} {
		if _, err := f.WriteString("line\n"); err != nil {
			t.Fatal(err)
		}
	}
	again, err := Sink(name).Open()
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
	got, err := os.ReadFile(name)
	if err != nil || string(got) != "line\nline\nline\n" {
		t.Errorf("got %q, %v", got, err)
	}
	if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{dir, filepath.Join(name, "below-a-file"), fifo} {
		if f, err := Sink(bad).Open(); err == nil {
			f.Close()
			t.Errorf("%s was opened", bad)
		}
	}
}

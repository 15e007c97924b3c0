package qemutest

import (
	"bufio"
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

//go:embed testdata/save.jsonl testdata/load.jsonl
var recordings embed.FS

// line is any line of a recorded dialogue.
type line struct {
	Execute   string          `json:"execute,omitempty"`
	Arguments json.RawMessage `json:"arguments,omitempty"`
	ID        json.RawMessage `json:"id,omitempty"`
	Event     string          `json:"event,omitempty"`
	Data      json.RawMessage `json:"data,omitempty"`
	Return    json.RawMessage `json:"return,omitempty"`
}

// dialogue is, by command, what QEMU said from it to the next one.
type dialogue map[string][]json.RawMessage

// record reads dialogues; what a command leads to in the first that has it counts.
func record(names ...string) (dialogue, error) {
	all := dialogue{}
	for _, name := range names {
		d, err := recordOne(name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		for command, said := range d {
			if _, ok := all[command]; !ok {
				all[command] = said
			}
		}
	}
	return all, nil
}

func recordOne(name string) (dialogue, error) {
	b, err := recordings.ReadFile("testdata/" + name)
	if err != nil {
		return nil, err
	}
	d := dialogue{}
	command := ""
	for raw := range bytes.Lines(b) {
		var l line
		if err := json.Unmarshal(raw, &l); err != nil {
			return nil, err
		}
		if l.Execute != "" {
			command = l.Execute
			delete(d, command) // the last time it was given counts
			continue
		}
		d[command] = append(d[command], bytes.Clone(raw))
	}
	return d, nil
}

// monitor is the stand-in's end of the QMP connection.
type monitor struct {
	m       *Machine
	play    Play
	conn    *net.UnixConn
	answers dialogue
	passed  *os.File // by getfd
	without bool     // x-ignore-shared
	resumed bool
}

// state is what the stand-in sends for the state of its devices.
const state = "device state\n"

// perform is the stand-in's whole life.
func perform(play Play, args []string) error {
	if len(args) == 1 && args[0] == "--version" {
		fmt.Println("QEMU emulator version 7.2.22 (stand-in)")
		return nil
	}
	m := &Machine{Args: args, end: make(chan string, 1)}
	if play.Fail != nil {
		if text := play.Fail(m); text != "" {
			return errors.New(text)
		}
	}
	if err := m.openLines(); err != nil {
		return err
	}
	q := &monitor{m: m, play: play}
	fd, _ := m.field("-chardev", "id=monitor", "fd")
	n, err := strconv.Atoi(fd)
	if err != nil {
		return fmt.Errorf("no monitor among %q", args)
	}
	conn, err := net.FileConn(os.NewFile(uintptr(n), "monitor"))
	if err != nil {
		return err
	}
	q.conn = conn.(*net.UnixConn)
	recordings := []string{"save.jsonl", "load.jsonl"}
	if m.Has("-incoming", "defer") {
		slices.Reverse(recordings)
	}
	if q.answers, err = record(recordings...); err != nil {
		return err
	}
	gone := make(chan error, 1)
	go func() { gone <- q.serve() }()
	select {
	case err := <-gone:
		return err
	case reason := <-m.end:
		guest := strings.HasPrefix(reason, "guest-")
		return q.say(map[string]any{"event": "SHUTDOWN", "data": map[string]any{"guest": guest, "reason": reason},
			"timestamp": map[string]any{"seconds": 0, "microseconds": 0}})
	}
}

func (m *Machine) openLines() (err error) {
	for name, f := range map[string]**os.File{"serial": &m.Serial, "agent": &m.Agent} {
		path, ok := m.field("-chardev", "serial,id="+name, "path")
		if !ok {
			continue
		}
		if *f, err = os.OpenFile(path, os.O_RDWR|syscall.O_NOCTTY, 0); err != nil {
			return err
		}
	}
	return nil
}

func (q *monitor) say(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = q.conn.Write(append(b, '\n'))
	return err
}

// serve answers commands until the connection ends or "quit" is among them.
func (q *monitor) serve() error {
	for in := bufio.NewReader(q); ; {
		text, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		var l line
		if err := json.Unmarshal(text, &l); err != nil {
			return err
		}
		if err := q.answer(l); err != nil || l.Execute == "quit" {
			return err
		}
	}
}

// Read reads from the connection and keeps the file that may come with it.
func (q *monitor) Read(p []byte) (int, error) {
	oob := make([]byte, syscall.CmsgSpace(4))
	n, oobn, _, _, err := q.conn.ReadMsgUnix(p, oob)
	if oobn > 0 {
		messages, err := syscall.ParseSocketControlMessage(oob[:oobn])
		if err != nil {
			return n, err
		}
		fds, err := syscall.ParseUnixRights(&messages[0])
		if err != nil {
			return n, err
		}
		q.passed = os.NewFile(uintptr(fds[0]), "passed")
	}
	if n == 0 && err == nil {
		err = io.EOF
	}
	return n, err
}

func (q *monitor) answer(l line) error {
	desc := ""
	if q.play.Refuse != nil {
		desc = q.play.Refuse(q.m, l.Execute, string(l.Arguments))
	}
	said, known := q.answers[l.Execute]
	if !known && desc == "" {
		desc = "the stand-in has no recorded answer to " + l.Execute
	}
	if desc != "" {
		return q.say(map[string]any{"id": l.ID, "error": map[string]any{"class": "GenericError", "desc": desc}})
	}
	if err := q.act(l); err != nil {
		return err
	}
	for _, raw := range said {
		var r line
		if err := json.Unmarshal(raw, &r); err != nil {
			return err
		}
		if r.Return != nil {
			if err := q.say(map[string]any{"return": r.Return, "id": l.ID}); err != nil {
				return err
			}
			continue
		}
		if _, err := q.conn.Write(raw); err != nil {
			return err
		}
	}
	if l.Execute == "cont" && !q.resumed && q.play.Guest != nil {
		q.resumed = true // and not before: QEMU answers before its guest can end
		go q.play.Guest(q.m)
	}
	return nil
}

// act does what a command is there for.
func (q *monitor) act(l line) error {
	m := q.m
	m.mu.Lock()
	defer m.mu.Unlock()
	switch l.Execute {
	case "migrate-set-capabilities":
		q.without = strings.Contains(string(l.Arguments), "x-ignore-shared")
	case "migrate":
		return q.save()
	case "migrate-incoming":
		return q.load()
	}
	return nil
}

func (q *monitor) save() error {
	text := state
	if path, _ := q.m.ramFile(); q.without && path != "" {
		if err := q.m.storeMemory(path); err != nil {
			return err
		}
	} else {
		text += fmt.Sprintf("%d\n%s", len(q.m.memory), q.m.memory)
	}
	_, err := io.WriteString(q.passed, text)
	return errors.Join(err, q.passed.Close())
}

func (q *monitor) load() error {
	b, err := io.ReadAll(q.passed)
	if err := errors.Join(err, q.passed.Close()); err != nil {
		return err
	}
	memory, ok := bytes.CutPrefix(b, []byte(state))
	if !ok {
		return errors.New("load of migration failed: Invalid argument")
	}
	if path, _ := q.m.ramFile(); q.without && path != "" {
		if memory, err = os.ReadFile(path); err != nil {
			return err
		}
	}
	q.m.memory, err = parseMemory(memory)
	q.m.Loaded = true
	return err
}

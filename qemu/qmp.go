package qemu

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"

	"github.com/digitalocean/go-qemu/qmp"
)

// QMP is the machine's monitor. It implements go-qemu's qmp.Monitor with a
// transport of its own: every command has an id and a context, every reply its
// own memory, and an event reader that stops holds up nobody.
//
// go-qemu's own socket monitor hands out its scanner's buffer, which damaged
// most replies under a load of events, and fails above 64 KiB.
type QMP struct {
	conn   *net.UnixConn
	record io.Writer // every line in both directions; may be nil
	gone   chan struct{}

	mu     sync.Mutex // guards the fields below and writing to conn
	nextID uint64
	calls  map[uint64]chan reply
	events []qmp.Event
	more   chan struct{} // closed and replaced when events grows
}

type reply struct {
	raw json.RawMessage
	err error
}

// ErrMonitorGone is what a command ends with when QEMU closes the monitor.
var ErrMonitorGone = errors.New("qemu: the monitor is gone")

// CommandError is QEMU's refusal of a command.
type CommandError struct {
	Class string // "GenericError", "CommandNotFound" and others (QEMU, qapi/error.json)
	Desc  string // for people
}

// Error gives QEMU's own words.
func (e *CommandError) Error() string { return fmt.Sprintf("qemu: %s: %s", e.Class, e.Desc) }

var _ qmp.Monitor = (*QMP)(nil)

// newQMP reads from conn in a goroutine that ends when conn does; Disconnect
// ends it and waits for it.
func newQMP(conn *net.UnixConn, record io.Writer) *QMP {
	q := &QMP{
		conn: conn, record: record, gone: make(chan struct{}),
		calls: map[uint64]chan reply{}, more: make(chan struct{}),
	}
	go q.listen()
	return q
}

// message is any line that QEMU sends (QEMU, docs/interop/qmp-spec.txt).
type message struct {
	ID     *uint64         `json:"id"`
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	} `json:"error"`
	Event string `json:"event"`
}

func (q *QMP) listen() {
	defer close(q.gone)
	in := bufio.NewReader(q.conn)
	for {
		line, err := in.ReadBytes('\n')
		if len(line) > 0 {
			q.note(line)
			q.take(line)
		}
		if err != nil {
			return
		}
	}
}

func (q *QMP) take(line []byte) {
	var m message
	if json.Unmarshal(line, &m) != nil {
		return // not QMP; whoever waits is told by its context
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case m.Event != "":
		var e qmp.Event
		if json.Unmarshal(line, &e) == nil {
			q.events = append(q.events, e)
			close(q.more)
			q.more = make(chan struct{})
		}
	case m.ID != nil:
		r := reply{raw: bytes.Clone(line)}
		if m.Error != nil {
			r.err = &CommandError{Class: m.Error.Class, Desc: m.Error.Desc}
		}
		if c := q.calls[*m.ID]; c != nil {
			delete(q.calls, *m.ID)
			c <- r
		}
	}
}

func (q *QMP) note(line []byte) {
	if q.record != nil {
		// The record is evidence; a machine does not fail because its disk is full.
		q.record.Write(line)
	}
}

// Do runs a command and decodes what it returns into result, which may be nil.
func (q *QMP) Do(ctx context.Context, command string, args, result any) error {
	request := map[string]any{"execute": command}
	if args != nil {
		request["arguments"] = args
	}
	raw, err := q.send(ctx, request, nil)
	if err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	var m message
	if err := json.Unmarshal(raw, &m); err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	if result == nil {
		return nil
	}
	return json.Unmarshal(m.Return, result)
}

// PassFile gives QEMU a copy of an open file, which commands then find by name.
func (q *QMP) PassFile(ctx context.Context, name string, f *os.File) error {
	request := map[string]any{"execute": "getfd", "arguments": map[string]any{"fdname": name}}
	if _, err := q.send(ctx, request, syscall.UnixRights(int(f.Fd()))); err != nil {
		return fmt.Errorf("getfd: %w", err)
	}
	return nil
}

// send writes a request, with rights as its ancillary data, and waits for the
// reply.
func (q *QMP) send(ctx context.Context, request map[string]any, rights []byte) (json.RawMessage, error) {
	answer := make(chan reply, 1)
	q.mu.Lock()
	q.nextID++
	id := q.nextID
	request["id"] = id
	line, err := json.Marshal(request)
	if err == nil {
		q.calls[id] = answer
		line = append(line, '\n')
		q.note(line)
		if werr := q.write(line, rights); werr != nil {
			err = ErrMonitorGone
		}
	}
	q.mu.Unlock()
	defer q.forget(id)
	if err != nil {
		return nil, err
	}
	select {
	case r := <-answer:
		return r.raw, r.err
	case <-q.gone:
		select {
		case r := <-answer:
			return r.raw, r.err
		default:
			return nil, ErrMonitorGone
		}
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (q *QMP) write(line, rights []byte) error {
	if rights == nil {
		_, err := q.conn.Write(line)
		return err
	}
	_, _, err := q.conn.WriteMsgUnix(line, rights, nil)
	return err
}

func (q *QMP) forget(id uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.calls, id)
}

// Connect is part of qmp.Monitor; the connection is made when the machine is.
func (q *QMP) Connect() error { return nil }

// Disconnect closes the connection and waits until nothing reads it any more.
func (q *QMP) Disconnect() error {
	err := q.conn.Close()
	<-q.gone
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// Run sends a raw command, without a deadline, and returns the raw reply.
func (q *QMP) Run(command []byte) ([]byte, error) {
	request := map[string]any{}
	if err := json.Unmarshal(command, &request); err != nil {
		return nil, fmt.Errorf("qemu: not a QMP command: %w", err)
	}
	return q.send(context.Background(), request, nil)
}

// Events delivers every event, from the first one on, until ctx or the monitor
// ends.
func (q *QMP) Events(ctx context.Context) (<-chan qmp.Event, error) {
	out := make(chan qmp.Event)
	go func() {
		defer close(out)
		for next := 0; ; next++ {
			e, ok := q.event(ctx, next)
			if !ok {
				return
			}
			select {
			case out <- e:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out, nil
}

// event waits for the n-th event of the machine's life.
func (q *QMP) event(ctx context.Context, n int) (qmp.Event, bool) {
	for {
		q.mu.Lock()
		more := q.more
		if n < len(q.events) {
			defer q.mu.Unlock()
			return q.events[n], true
		}
		q.mu.Unlock()
		select {
		case <-more:
		case <-q.gone:
			q.mu.Lock()
			defer q.mu.Unlock()
			if n < len(q.events) {
				return q.events[n], true
			}
			return qmp.Event{}, false
		case <-ctx.Done():
			return qmp.Event{}, false
		}
	}
}

// past returns the events so far.
func (q *QMP) past() []qmp.Event {
	q.mu.Lock()
	defer q.mu.Unlock()
	return append([]qmp.Event(nil), q.events...)
}

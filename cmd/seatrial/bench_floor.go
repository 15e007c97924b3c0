package main

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
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/term"

	"github.com/seatrial/seatrial/boot"
	"github.com/seatrial/seatrial/qemu"
)

// floor is what a fork costs without seatrial: QEMU started by hand with the
// same arguments, given the same state, asked one thing over the same line.
// It shares no code with packages qemu and harness, which it is the measure of,
// but the opening of terminals; huge pages are as they are for forks.
type floor struct {
	argv  []string // of a fork's QEMU
	state string   // path of the template's state
}

// floorOf takes the arguments of a running fork.
func floorOf(pid int, state string) (floor, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return floor{}, err
	}
	return floor{strings.Split(strings.TrimRight(string(b), "\x00"), "\x00"), state}, nil
}

// byHand is a QEMU started by hand.
type byHand struct {
	cmd           *exec.Cmd
	monitor       *net.UnixConn
	in            *bufio.Reader
	serial, agent *os.File
}

// answer measures the time from the start of QEMU to the answer.
func (f floor) answer(ctx context.Context) (took time.Duration, err error) {
	began := time.Now()
	q := &byHand{}
	defer func() { err = errors.Join(err, q.end()) }()
	if err := q.start(ctx, f.argv); err != nil {
		return 0, err
	}
	if err := q.load(f.state); err != nil {
		return 0, err
	}
	frame, err := boot.AppendFrame(nil, boot.Request{ID: 1, Argv: []string{"@clock"}})
	if err != nil {
		return 0, err
	}
	if _, err := q.agent.Write(frame); err != nil {
		return 0, err
	}
	for in := bufio.NewReader(q.agent); ; {
		text, err := in.ReadBytes('\n')
		if err != nil {
			return 0, err
		}
		var r boot.Reply
		if err := boot.ParseFrame(text, &r); err == nil && r.Exit != nil {
			return time.Since(began), nil
		}
	}
}

func (q *byHand) start(ctx context.Context, argv []string) error {
	open := func(master **os.File) (string, *os.File, error) {
		m, s, err := qemu.OpenTerminal()
		if err != nil {
			return "", nil, err
		}
		*master = m
		_, err = term.MakeRaw(int(s.Fd()))
		return s.Name(), s, err
	}
	serial, s1, err := open(&q.serial)
	if err != nil {
		return err
	}
	defer s1.Close()
	agent, s2, err := open(&q.agent)
	if err != nil {
		return err
	}
	defer s2.Close()
	near, far, err := pair()
	if err != nil {
		return err
	}
	defer far.Close()
	q.monitor, q.in = near, bufio.NewReader(near)
	var args []string
	for _, a := range argv[1:] {
		for prefix, path := range map[string]string{"serial,id=serial,path=": serial, "serial,id=agent,path=": agent} {
			if strings.HasPrefix(a, prefix) {
				a = prefix + path
			}
		}
		args = append(args, a)
	}
	q.cmd = exec.CommandContext(ctx, argv[0], args...)
	q.cmd.ExtraFiles = []*os.File{far}
	if err := q.cmd.Start(); err != nil {
		return err
	}
	go io.Copy(io.Discard, q.serial) // ends when end closes the line
	return nil
}

// pair is a connection and the file of its far side.
func pair() (*net.UnixConn, *os.File, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	near, far := os.NewFile(uintptr(fds[0]), "near"), os.NewFile(uintptr(fds[1]), "far")
	conn, err := net.FileConn(near)
	if err := errors.Join(err, near.Close()); err != nil {
		far.Close()
		return nil, nil, err
	}
	return conn.(*net.UnixConn), far, nil
}

// load gives the machine its state and lets it run.
func (q *byHand) load(path string) error {
	state, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	near, far, err := pair()
	if err != nil {
		return err
	}
	defer near.Close()
	defer far.Close()
	if _, err := q.in.ReadBytes('\n'); err != nil { // the greeting
		return err
	}
	if err := q.say(`{"execute":"qmp_capabilities"}`, nil, `"return"`); err != nil {
		return err
	}
	caps := `{"execute":"migrate-set-capabilities","arguments":{"capabilities":[{"capability":"events","state":true},{"capability":"x-ignore-shared","state":true}]}}`
	if err := q.say(caps, nil, `"return"`); err != nil {
		return err
	}
	if err := q.say(`{"execute":"getfd","arguments":{"fdname":"state"}}`, syscall.UnixRights(int(far.Fd())), `"return"`); err != nil {
		return err
	}
	sent := make(chan error, 1)
	go func() {
		_, err := io.Copy(near, bytes.NewReader(state))
		sent <- errors.Join(err, near.CloseWrite())
	}()
	if err := q.say(`{"execute":"migrate-incoming","arguments":{"uri":"fd:state"}}`, nil, `"completed"`); err != nil {
		return err
	}
	if err := <-sent; err != nil {
		return err
	}
	return q.say(`{"execute":"cont"}`, nil, `"return"`)
}

// say gives a command and waits for a line that contains text.
func (q *byHand) say(command string, rights []byte, text string) error {
	if _, _, err := q.monitor.WriteMsgUnix([]byte(command+"\n"), rights, nil); err != nil {
		return err
	}
	for {
		line, err := q.in.ReadBytes('\n')
		if err != nil {
			return fmt.Errorf("%s: %w", command, err)
		}
		var reply struct {
			Error json.RawMessage `json:"error"`
		}
		if err := json.Unmarshal(line, &reply); err != nil || reply.Error != nil {
			return fmt.Errorf("%s: %s", command, line)
		}
		if bytes.Contains(line, []byte(text)) {
			return nil
		}
	}
}

func (q *byHand) end() error {
	var errs []error
	if q.cmd != nil && q.cmd.Process != nil {
		errs = append(errs, q.cmd.Process.Kill())
		_ = q.cmd.Wait() // it was killed, and says so
	}
	if q.monitor != nil {
		errs = append(errs, q.monitor.Close())
	}
	for _, f := range []*os.File{q.serial, q.agent} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

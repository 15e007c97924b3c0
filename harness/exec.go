package harness

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/seatrial/seatrial/boot"
	"github.com/seatrial/seatrial/reports"
)

// Result is what a command inside the machine left.
type Result struct {
	Argv   []string
	Stdout string
	Stderr string
	Exit   int    // exit status; 128+n if killed by signal n
	Signal string // its name, if killed
	Took   time.Duration
}

// String shows the command and how it ended, for failure messages.
func (r *Result) String() string {
	return fmt.Sprintf("%s: exit status %d\nstdout:\n%s\nstderr:\n%s", strings.Join(r.Argv, " "), r.Exit, r.Stdout, r.Stderr)
}

// Exec runs a command as root in the machine's root name space and returns
// what it wrote and how it ended. An exit status other than 0 is a result, not
// an error; an error means that the command did not run to its end.
func (m *Machine) Exec(ctx context.Context, argv ...string) (*Result, error) {
	return m.ExecInput(ctx, "", argv...)
}

// ExecInput is Exec with standard input of at most boot.MaxChunk bytes.
func (m *Machine) ExecInput(ctx context.Context, stdin string, argv ...string) (*Result, error) {
	wanted := "command " + strings.Join(argv, " ")
	began := time.Now()
	if m.agent == nil {
		return nil, m.failure(reports.Misuse, "the machine was booted without its agent (Plan.NoAgent)", wanted, nil)
	}
	call, err := m.agent.call(boot.Request{Argv: argv, Stdin: []byte(stdin)}, func() error {
		return m.awaitOr(ctx, "the agent inside", m.patience.Quiet, m.agent.greeted, m.agent.met)
	})
	if err != nil {
		return nil, err
	}
	defer m.agent.forget(call)
	timer := time.NewTimer(m.patience.Exec)
	defer timer.Stop()
	for {
		changed := m.log.Changed()
		if f := m.judgeNow(wanted); f != nil && !call.ended() {
			return nil, f
		}
		select {
		case <-call.done:
			if err := m.awaitProof(ctx); err != nil {
				return nil, err
			}
			r, err := call.result()
			if err != nil {
				return nil, m.failure(reports.Misuse, err.Error(), wanted, err)
			}
			r.Took = time.Since(began)
			return r, nil
		case <-changed:
		case <-m.agent.gone:
			<-m.vm.Done()
			m.work.Wait()
			if call.ended() {
				continue
			}
			if f := m.judgeNow(wanted); f != nil {
				return nil, f
			}
			return nil, m.failure(reports.Guest, "the machine ended while the command ran", wanted, nil)
		case <-timer.C:
			cancelErr := m.agent.cancel(call)
			title := fmt.Sprintf("no end of %q after %v", strings.Join(argv, " "), m.patience.Exec)
			return nil, m.failure(reports.Stalled, title, wanted, cancelErr)
		case <-ctx.Done():
			cancelErr := m.agent.cancel(call)
			return nil, errors.Join(m.interrupted(ctx, wanted), cancelErr)
		}
	}
}

// agent is the host's end of the line to the agent inside.
type agent struct {
	line io.ReadWriter
	gone chan struct{} // the line has ended
	met  chan struct{} // the agent has said hello

	mu     sync.Mutex // guards the fields below and writing to line
	hello  string
	nextID uint64
	calls  map[uint64]*call
}

// call is one command under way.
type call struct {
	id     uint64
	argv   []string
	done   chan struct{}
	mu     sync.Mutex
	stdout bytes.Buffer
	stderr bytes.Buffer
	last   boot.Reply
}

func newAgent(line io.ReadWriter) *agent {
	return &agent{line: line, gone: make(chan struct{}), met: make(chan struct{}), calls: map[uint64]*call{}}
}

// listen reads replies until the line ends. A damaged frame is dropped: its
// command then ends by its deadline, which says so.
func (a *agent) listen() {
	defer close(a.gone)
	in := bufio.NewReaderSize(a.line, boot.MaxFrame*2)
	for {
		line, err := in.ReadBytes('\n')
		var r boot.Reply
		if boot.ParseFrame(line, &r) == nil {
			a.take(r)
		}
		if err != nil {
			return
		}
	}
}

func (a *agent) take(r boot.Reply) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if r.Hello != "" {
		a.meet(r.Hello)
	}
	if c := a.calls[r.ID]; c != nil {
		c.take(r)
	}
}

func (a *agent) greeted() bool {
	return a.build() != ""
}

// greet notes what the agent said before this line was its line.
func (a *agent) greet(hello string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.meet(hello)
}

func (a *agent) meet(hello string) {
	if a.hello == "" {
		close(a.met)
	}
	a.hello = hello
}

// build is what the agent said it is; empty: it has said nothing.
func (a *agent) build() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.hello
}

// call sends a request once the agent has said hello.
func (a *agent) call(r boot.Request, awaitHello func() error) (*call, error) {
	if !a.greeted() {
		if err := awaitHello(); err != nil {
			return nil, err
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.nextID++
	r.ID = a.nextID
	frame, err := boot.AppendFrame(nil, r)
	if err != nil {
		return nil, err
	}
	c := &call{id: r.ID, argv: r.Argv, done: make(chan struct{})}
	a.calls[r.ID] = c
	if _, err := a.line.Write(frame); err != nil {
		delete(a.calls, r.ID)
		return nil, fmt.Errorf("sending a command to the agent: %w", err)
	}
	return c, nil
}

func (a *agent) cancel(c *call) error {
	frame, err := boot.AppendFrame(nil, boot.Request{ID: c.id, Cancel: true})
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	_, err = a.line.Write(frame)
	return err
}

func (a *agent) forget(c *call) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.calls, c.id)
}

func (c *call) take(r boot.Reply) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch r.Stream {
	case 1:
		c.stdout.Write(r.Data)
	case 2:
		c.stderr.Write(r.Data)
	}
	if r.Exit != nil || r.Error != "" {
		c.last = r
		close(c.done)
	}
}

func (c *call) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

func (c *call) result() (*Result, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last.Error != "" {
		return nil, fmt.Errorf("the agent could not start %q: %s", strings.Join(c.argv, " "), c.last.Error)
	}
	return &Result{Argv: c.argv, Stdout: c.stdout.String(), Stderr: c.stderr.String(), Exit: *c.last.Exit, Signal: c.last.Signal}, nil
}

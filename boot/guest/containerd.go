//go:build linux

package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/seatrial/seatrial/boot"
	"golang.org/x/sys/unix"
)

// containerdTries is how often containerd may end before its socket answers
// until the boot goes on without it.
const containerdTries = 3

// The pause between two starts of something that keeps dying grows from
// minBackOff to maxBackOff; a life longer than steadyTime begins it anew.
const (
	minBackOff = 100 * time.Millisecond
	maxBackOff = 10 * time.Second
	steadyTime = time.Minute
)

// lastWords is how many of containerd's last lines are shown on the console
// when they went elsewhere before.
const lastWords = 10

// containerd is the daemon as a supervised unit.
type containerd struct {
	m      *machine
	args   []string
	stdout *os.File
	stderr *os.File
	first  chan struct{} // closed when it has answered for the first time
	grace  time.Duration // that its next life has for its first answer

	mu      sync.Mutex
	current *run
}

// run is one life of containerd.
type run struct {
	proc *Process
	tail *tail
}

// bringUpContainerd starts containerd and waits for its first answer. One that
// will not come up is tried again beside the rest of the boot, for as long as
// the machine runs.
func (m *machine) bringUpContainerd() error {
	if _, err := os.Stat(filepath.Join(m.root, boot.ContainerdPath)); err != nil {
		bundles, _ := ReadBundles(filepath.Join(m.root, boot.ServicesDir))
		if len(bundles) == 0 {
			return nil // an image without services needs none
		}
		return fmt.Errorf("no %s in the image; add the containerd image to the list under init", boot.ContainerdPath)
	}
	c := m.configureContainerd()
	m.containerd = c
	m.services.start(false)
	for tries := 1; ; {
		err := c.launch()
		if err == nil {
			m.supervise(func() { c.keep(true) })
			return nil
		}
		if m.ctx.Err() != nil {
			return err
		}
		if len(c.args) > 0 {
			c.blameOptions(err)
			continue
		}
		c.fell(err)
		if tries == containerdTries || errors.Is(err, errMute) {
			m.supervise(func() { c.keep(false) })
			return said(err.Error())
		}
		if m.pause(time.Duration(tries) * 100 * time.Millisecond) {
			return err
		}
		tries++
	}
}

// answered reports whether containerd has ever answered.
func (c *containerd) answered() bool {
	select {
	case <-c.first:
		return true
	default:
		return false
	}
}

// configureContainerd reads the options file and opens the streams. Problems
// are said, and the default stands in for what is wrong.
func (m *machine) configureContainerd() *containerd {
	options, problems := ReadRuntimeConfig(filepath.Join(m.root, boot.RuntimeConfig))
	for _, p := range problems {
		m.warnConfig(p)
	}
	c := &containerd{m: m, args: options.Args, first: make(chan struct{}), grace: m.patience.socket}
	c.stderr = m.openSink(KeyStderr, options.Stderr, os.Stderr)
	c.stdout = m.openSink(KeyStdout, options.Stdout, os.Stdout)
	return c
}

func (m *machine) warnConfig(p ConfigProblem) {
	facts := map[string]string{boot.FactFile: boot.RuntimeConfig}
	if p.Key != "" {
		facts[boot.FactKey] = p.Key
	}
	if p.Key != "" && p.Line == 0 { // found out by trying, when nobody read the file any more
		if src, err := os.ReadFile(filepath.Join(m.root, boot.RuntimeConfig)); err == nil {
			p.Line, p.Column = keyPosition(bytes.TrimPrefix(src, utf8Mark), p.Key)
		}
	}
	m.warn(boot.Event{At: boot.Containerd, Unit: "containerd", Detail: p.String(), Facts: facts},
		"containerd: %s: %s", boot.RuntimeConfig, p)
}

func (m *machine) openSink(key string, s Sink, standard *os.File) *os.File {
	switch s {
	case "":
		return standard
	case KeyStderr:
		return os.Stderr
	case KeyStdout:
		return os.Stdout
	}
	f, err := (Sink(m.root) + s).Open()
	if err != nil {
		m.warnConfig(ConfigProblem{Key: key, Reason: err.Error(), Instead: fmt.Sprintf("containerd's %s is on the console", key)})
		return standard
	}
	return f
}

// blameOptions says that containerd would not run with the options given to it
// and drops them.
func (c *containerd) blameOptions(why error) {
	c.showLastWords()
	c.m.warnConfig(ConfigProblem{
		Key:     KeyCliopts,
		Reason:  fmt.Sprintf("containerd does not run with %q: %v", strings.Join(c.args, " "), why),
		Instead: "containerd is started without options",
	})
	c.args = nil
}

// errMute is a containerd that lives but never answered.
var errMute = errors.New("no answer")

// maxGrace is the longest that containerd is waited for before it is taken for
// stuck and started again.
const maxGrace = 16 * time.Minute

// launch starts containerd and returns once it answers, or once it never will.
func (c *containerd) launch() error {
	r, err := c.start()
	if err != nil {
		return err
	}
	answer := make(chan struct{})
	c.m.guard(func() {
		if c.awaitAnswer(r.proc) {
			close(answer)
		}
	})
	grace := c.grace
	deadline, late := time.NewTimer(grace), time.NewTimer(c.m.patience.late)
	defer deadline.Stop()
	defer late.Stop()
	for {
		select {
		case <-answer:
			c.m.speak.Event(boot.Event{At: boot.Containerd, State: boot.Running, Unit: "containerd"})
			if !c.answered() {
				close(c.first)
			}
			return nil
		case <-r.proc.Done():
			return r.death("ended before its socket answered")
		case <-late.C:
			c.m.warn(boot.Event{At: boot.Containerd, Unit: "containerd", Detail: fmt.Sprintf("no answer yet after %v", c.m.patience.late)},
				"containerd: no answer on %s yet after %v; it has %v in all", boot.ContainerdSocket, c.m.patience.late, grace)
		case <-deadline.C:
			_ = c.m.reaper.Signal(c.m.sys, r.proc, unix.SIGKILL)
			<-r.proc.Done() // SIGKILL cannot be refused
			// Slow or stuck: the longer it may take, the less a slow one is hindered.
			// The boot waits for the first grace only.
			c.grace = min(2*grace, maxGrace)
			return fmt.Errorf("%w on %s for %v", errMute, boot.ContainerdSocket, grace)
		case <-c.m.ctx.Done():
			return context.Cause(c.m.ctx)
		}
	}
}

// awaitAnswer asks the socket until it answers; false when p has ended or the
// machine is to stop. It is apart from launch because one question may take
// [answerTime], and the end of p must be noticed at once.
func (c *containerd) awaitAnswer(p *Process) bool {
	poll := time.NewTicker(c.m.patience.poll)
	defer poll.Stop()
	for {
		select {
		case <-p.Done():
			return false
		case <-c.m.ctx.Done():
			return false
		case <-poll.C:
			if Answers(filepath.Join(c.m.root, boot.ContainerdSocket)) == nil {
				return true
			}
		}
	}
}

// start starts the process. Its standard error goes through a pipe, so that
// its last words are known, and on to where they belong.
func (c *containerd) start() (*run, error) {
	err := os.Remove(filepath.Join(c.m.root, boot.ContainerdSocket))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	stdin, err := os.Open(filepath.Join(c.m.root, "/dev/null"))
	if err != nil {
		return nil, err
	}
	defer stdin.Close()
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer write.Close()
	argv := append([]string{filepath.Join(c.m.root, boot.ContainerdPath)}, c.args...)
	p, err := c.m.reaper.Start(argv, c.m.env, "/", stdin, c.stdout, write)
	if err != nil {
		read.Close()
		return nil, err
	}
	r := &run{proc: p, tail: newTail(c.stderr)}
	c.m.guard(func() { defer read.Close(); r.tail.copy(read) })
	c.mu.Lock()
	c.current = r
	c.mu.Unlock()
	return r, nil
}

// life is the newest life of containerd; nil if there was none.
func (c *containerd) life() *run {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.current
}

// death is how a life ended, with the last line it wrote.
func (r *run) death(what string) error {
	// Its children may hold the pipe open for ever; its own words are in it.
	select {
	case <-r.tail.done:
	case <-time.After(time.Second):
	}
	e := exitError{r.proc.Exit().String()}
	if last := r.tail.lines(1); len(last) > 0 {
		return fmt.Errorf("%s: %w; its last line: %s", what, e, last[0])
	}
	return fmt.Errorf("%s: %w", what, e)
}

// keep restarts containerd whenever it ends, until the machine is to stop. It
// is up already, or has ended and been told of. Services do not end with it:
// each has a shim of its own.
func (c *containerd) keep(up bool) {
	wait := minBackOff
	if !up {
		wait = time.Second // several starts have failed already
	}
	for {
		if up {
			r, began := c.life(), time.Now()
			select {
			case <-c.m.ctx.Done():
				return
			case <-r.proc.Done():
			}
			if c.m.ctx.Err() != nil {
				return
			}
			c.fell(r.death("ended"))
			if time.Since(began) > steadyTime {
				wait = minBackOff
			}
		}
		if c.m.pause(wait) {
			return
		}
		wait = min(2*wait, maxBackOff)
		err := c.launch()
		up = err == nil
		switch {
		case up:
			c.m.speak.Say("containerd: started again")
		case c.m.ctx.Err() != nil:
			return
		default:
			c.fell(err)
		}
	}
}

// fell says that a life has ended, why, and that another begins.
func (c *containerd) fell(err error) {
	c.showLastWords()
	c.m.speak.Say("containerd: %v; it is started again", err)
	c.m.speak.Event(boot.Event{At: boot.Containerd, State: boot.Failed, Unit: "containerd", Detail: err.Error(), Facts: statusFact(err)})
}

// showLastWords puts the end of containerd's standard error on the console if
// it went to a file: that may be gone with the machine.
func (c *containerd) showLastWords() {
	r := c.life()
	if r == nil || c.stderr == os.Stderr || c.stderr == os.Stdout {
		return
	}
	for _, line := range r.tail.lines(lastWords) {
		c.m.speak.Say("containerd: | %s", line)
	}
}

// http2Preface opens an HTTP/2 connection, on which gRPC runs: the magic and
// an empty SETTINGS frame (RFC 9113, 3.4).
const http2Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"

// answerTime is how long a server may take to answer a connection.
const answerTime = 2 * time.Second

// Answers reports, as nil, that a gRPC server answers on a Unix socket. A
// socket that exists, or takes connections, may have no server behind it yet.
func Answers(socket string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	limit := unix.NsecToTimeval(answerTime.Nanoseconds())
	for _, o := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} { // connect heeds SNDTIMEO
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, o, &limit); err != nil {
			return err
		}
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: socket}); err != nil {
		return err
	}
	if err := unix.Sendto(fd, []byte(http2Preface), unix.MSG_NOSIGNAL, nil); err != nil {
		return err
	}
	frame := make([]byte, 9)
	n, err := unix.Read(fd, frame)
	if err != nil {
		return err
	}
	const settings = 4
	if n < len(frame) || frame[3] != settings {
		return fmt.Errorf("%s: not a gRPC server", socket)
	}
	return nil
}

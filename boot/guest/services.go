//go:build linux

package guest

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/seatrial/seatrial/boot"
	"golang.org/x/sys/unix"
)

// ReportFd is the descriptor on which the service tool sends its
// [ServicesReport], as one JSON text, when it has tried to start every service.
const ReportFd = 3

// ServicesReport is how the services came up.
type ServicesReport struct {
	Started []string          `json:"started,omitempty"`
	Failed  map[string]string `json:"failed,omitempty"` // name -> why
	Err     string            `json:"err,omitempty"`    // nothing could be tried; why
}

// services is the service tool as a supervised unit.
type services struct {
	m      *machine
	report ServicesReport

	mu      sync.Mutex
	proc    *Process
	problem error // why there is no proc
	ready   *os.File
	answer  *os.File
}

// start starts the tool, which waits on its standard input for a byte: its
// start takes time that containerd's start need not wait for. adopt tells it
// to leave what runs as it is.
func (s *services) start(adopt bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.proc, s.problem = nil, nil
	path := filepath.Join(s.m.root, boot.ServicePath)
	if _, err := os.Stat(path); err != nil {
		s.problem = fmt.Errorf("no %s in the image", boot.ServicePath)
		return
	}
	stdin, ready, err := os.Pipe()
	if err != nil {
		s.problem = err
		return
	}
	defer stdin.Close()
	answer, report, err := os.Pipe()
	if err != nil {
		ready.Close()
		s.problem = err
		return
	}
	defer report.Close()
	argv := []string{path, "system"}
	if adopt {
		argv = append(argv, "--adopt")
	}
	s.proc, s.problem = s.m.reaper.Start(argv, s.m.env, "/", stdin, os.Stdout, os.Stderr, report)
	s.ready, s.answer = ready, answer
}

// process is the tool that runs or ran last; nil if there was none.
func (s *services) process() *Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proc
}

// bringUpServices lets the tool go and waits for its report.
func (m *machine) bringUpServices() error {
	s := m.services
	bundles, unread := ReadBundles(filepath.Join(m.root, boot.ServicesDir))
	if m.containerd == nil {
		s.dismiss()
		if len(bundles) == 0 {
			return nil
		}
		return fmt.Errorf("no containerd, %d services not started", len(bundles))
	}
	if len(bundles) == 0 && len(unread) > 0 {
		return unread[0]
	}
	if err := s.await(); err != nil {
		return err
	}
	m.supervise(s.keep)
	if s.report.Err != "" {
		return said(s.report.Err)
	}
	if len(s.report.Failed) > 0 {
		var texts []string
		for _, name := range slices.Sorted(maps.Keys(s.report.Failed)) {
			texts = append(texts, name+": "+s.report.Failed[name])
		}
		return said(strings.Join(texts, "; "))
	}
	return nil
}

// dismiss ends a tool that is not needed: it exits at the end of its input.
func (s *services) dismiss() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil {
		return
	}
	s.ready.Close()
	s.answer.Close()
	s.proc = nil
}

// await tells the tool to go and reads its report.
func (s *services) await() error {
	if s.problem != nil {
		return s.problem
	}
	defer s.answer.Close()
	_, err := s.ready.Write([]byte("\n"))
	s.ready.Close()
	if err != nil {
		return fmt.Errorf("%s: %w", boot.ServicePath, err)
	}
	if err := s.answer.SetReadDeadline(time.Now().Add(s.m.patience.services)); err != nil {
		return err
	}
	// The machine's stop must not wait for the report.
	stop := make(chan struct{})
	defer close(stop)
	s.m.guard(func() {
		select {
		case <-s.m.ctx.Done():
			_ = s.answer.SetReadDeadline(time.Now())
		case <-stop:
		}
	})
	text, err := io.ReadAll(s.answer)
	if err != nil {
		return fmt.Errorf("%s: no report: %w", boot.ServicePath, err)
	}
	if err := json.Unmarshal(text, &s.report); err != nil {
		return fmt.Errorf("%s ended without a report", boot.ServicePath)
	}
	return nil
}

// keep restarts the tool whenever it ends, until the machine is to stop.
func (s *services) keep() {
	for wait := 500 * time.Millisecond; ; wait = min(2*wait, maxBackOff) {
		p := s.process()
		select {
		case <-s.m.ctx.Done():
			return
		case <-p.Done():
		}
		if s.m.ctx.Err() != nil {
			return
		}
		s.m.warn(boot.Event{At: boot.Services, Detail: fmt.Sprintf("%s system: %v; it is started again", boot.ServicePath, p.Exit())},
			"init: %s system: %v; it is started again", boot.ServicePath, p.Exit())
		if s.m.pause(wait) {
			return
		}
		s.start(true)
		if err := s.await(); err != nil {
			s.m.speak.Say("init: %v", err)
		}
		if s.process() == nil {
			return // it is gone from the image: nothing to restart
		}
	}
}

// summary is what the machine is up with.
func (s *services) summary() string {
	switch n := len(s.report.Started); n {
	case 0:
		return "no services"
	case 1:
		return "1 service"
	default:
		return fmt.Sprintf("%d services", n)
	}
}

// stop asks the tool to stop every service and waits for its end.
func (s *services) stop() {
	p := s.process()
	if p == nil {
		return
	}
	if s.m.reaper.Signal(s.m.sys, p, unix.SIGTERM) != nil {
		return
	}
	t := time.NewTimer(s.m.patience.stop)
	defer t.Stop()
	select {
	case <-p.Done():
	case <-t.C:
		s.m.speak.Say("init: the services were not stopped within %v", s.m.patience.stop)
	}
}

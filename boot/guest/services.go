//go:build linux

package guest

import (
	"context"
	"encoding/json"
	"errors"
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
	m *machine

	mu      sync.Mutex
	proc    *Process
	problem error // why there is no proc
	ready   *os.File
	answer  *os.File
	report  ServicesReport // of the first run
	bundles int            // in the image
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
	if s.proc, err = s.m.reaper.Start(argv, s.m.env, "/", stdin, os.Stdout, os.Stderr, report); err != nil {
		ready.Close()
		answer.Close()
		s.problem = err
		return
	}
	s.ready, s.answer = ready, answer
}

// process is the tool that runs or ran last, or why there is none.
func (s *services) process() (*Process, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proc, s.problem
}

// bringUpServices lets the tool go and waits for its report. Without
// containerd it does so beside the rest of the boot, if that ever answers.
func (m *machine) bringUpServices() error {
	s := m.services
	bundles, unread := ReadBundles(filepath.Join(m.root, boot.ServicesDir))
	s.expect(len(bundles))
	if m.containerd == nil {
		if len(bundles) == 0 {
			return nil
		}
		return fmt.Errorf("no containerd, %d services not started", len(bundles))
	}
	if len(bundles) == 0 && len(unread) > 0 {
		return unread[0]
	}
	if !m.containerd.answered() {
		m.supervise(s.late)
		return fmt.Errorf("no containerd yet, %d services not started", len(bundles))
	}
	err := s.bringUp()
	m.supervise(s.keep)
	return err
}

// expect notes how many services there are to start.
func (s *services) expect(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bundles = n
}

// late starts the services once containerd has answered after all.
func (s *services) late() {
	select {
	case <-s.m.ctx.Done():
		return
	case <-s.m.containerd.first:
	}
	err := s.bringUp()
	if s.m.ctx.Err() != nil {
		return
	}
	if err != nil && !errors.Is(err, errSaid) {
		s.m.speak.Say("init: services: %v", err)
	}
	s.m.speak.Say("init: %s, late", s.summary())
	s.keep()
}

// bringUp tells the tool to go and turns its report into an error.
func (s *services) bringUp() error {
	report, err := s.await()
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.report = report
	s.mu.Unlock()
	if report.Err != "" {
		return said(report.Err)
	}
	var texts []string
	for _, name := range slices.Sorted(maps.Keys(report.Failed)) {
		texts = append(texts, name+": "+report.Failed[name])
	}
	if len(texts) > 0 {
		return said(strings.Join(texts, "; "))
	}
	return nil
}

// await tells the tool to go and reads its report.
func (s *services) await() (report ServicesReport, err error) {
	s.mu.Lock()
	ready, answer, problem := s.ready, s.answer, s.problem
	s.mu.Unlock()
	if problem != nil {
		return report, problem
	}
	defer answer.Close()
	_, err = ready.Write([]byte("\n"))
	ready.Close()
	if err != nil {
		return report, fmt.Errorf("%s: %w", boot.ServicePath, err)
	}
	if err := answer.SetReadDeadline(time.Now().Add(s.m.patience.services)); err != nil {
		return report, err
	}
	// The machine's stop must not wait for the report.
	release := context.AfterFunc(s.m.ctx, func() { _ = answer.SetReadDeadline(time.Now()) })
	defer release()
	text, err := io.ReadAll(answer)
	if err != nil {
		return report, fmt.Errorf("%s: no report: %w", boot.ServicePath, err)
	}
	if err := json.Unmarshal(text, &report); err != nil {
		return report, fmt.Errorf("%s ended without a report", boot.ServicePath)
	}
	return report, nil
}

// keep restarts the tool whenever it ends, until the machine is to stop. What
// it looked after runs on meanwhile.
func (s *services) keep() {
	for wait := minBackOff; ; wait = min(2*wait, maxBackOff) {
		p, err := s.process()
		if err == nil {
			began := time.Now()
			select {
			case <-s.m.ctx.Done():
				return
			case <-p.Done():
			}
			if s.m.ctx.Err() != nil {
				return
			}
			err = errors.New(p.Exit().String())
			if time.Since(began) > steadyTime {
				wait = minBackOff
			}
		}
		text := fmt.Sprintf("%s system: %v; it is started again", boot.ServicePath, err)
		s.m.warn(boot.Event{At: boot.Services, Detail: text}, "init: %s", text)
		if s.m.pause(wait) {
			return
		}
		s.start(true)
		if _, err := s.await(); err != nil && s.m.ctx.Err() == nil {
			s.m.speak.Say("init: %v", err)
		}
	}
}

// summary is what the machine is up with. What could not even be tried counts
// as failed.
func (s *services) summary() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	started := len(s.report.Started)
	failed := max(len(s.report.Failed), s.bundles-started)
	switch {
	case started+failed == 0:
		return "no services"
	case started+failed == 1 && failed == 0:
		return "1 service started, 0 failed"
	case started+failed == 1:
		return "0 services started, 1 failed"
	}
	return fmt.Sprintf("%d services started, %d failed", started, failed)
}

// stop asks the tool to stop every service and waits for its end. A tool that
// still waits for containerd ends at once.
func (s *services) stop() {
	p, err := s.process()
	if p == nil || err != nil {
		return
	}
	s.mu.Lock()
	if s.ready != nil {
		s.ready.Close() // closed before, unless the tool still waits for it
	}
	s.mu.Unlock()
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

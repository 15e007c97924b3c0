package harness

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	"github.com/seatrial/seatrial/boot"
	"github.com/seatrial/seatrial/harness/console"
	"github.com/seatrial/seatrial/qemu"
	"github.com/seatrial/seatrial/reports"
)

// Machine is a running, or ended, virtual machine.
type Machine struct {
	plan     Plan
	host     Host
	patience Patience
	vm       *qemu.VM
	log      *console.Log
	agent    *agent
	command  string
	began    time.Time // the zero of its clock: QEMU was resumed; of a fork: the template's life earlier
	resumed  time.Time
	fork     *reports.Fork // how it came up, if it was to be a fork
	work     sync.WaitGroup
	files    []io.Closer

	mu       sync.Mutex
	verdict  *Failure // the first one judged; later waits fail with the same
	asked    bool     // the end of the machine was asked for
	ended    time.Time
	closed   bool
	released bool   // from its hold
	proof    *proof // of a fork, until it has come
	lost     error  // the evidence of the serial line is incomplete
}

// Boot starts a machine and returns as soon as it runs. The caller must Close
// it. An error is a *Failure: a QEMU that cannot start is of class infra, a
// plan that cannot be is misuse.
func Boot(ctx context.Context, h Host, p Plan) (*Machine, error) {
	return launch(ctx, h, p, nil, nil)
}

// launch starts a machine that boots or, with a template, goes on from it. It
// takes over the template's lock. vary, which may be nil, changes what cannot
// be seen from inside.
func launch(ctx context.Context, h Host, p Plan, vary func(*qemu.Config), t *template) (*Machine, error) {
	m := &Machine{plan: p, host: h, patience: p.Patience.scaled(h.Scale)}
	if t != nil {
		m.files = append(m.files, t.lock)
	}
	fail := func(class reports.Class, err error) (*Machine, error) {
		err = errors.Join(err, m.Close())
		return nil, &Failure{Class: class, Title: err.Error(), Wanted: "to start", Machine: p.Name, Command: m.command, Dir: p.Dir, Err: err}
	}
	config, err := p.config(h)
	if err != nil {
		return fail(reports.Misuse, err)
	}
	command, err := config.Command()
	if err != nil {
		return fail(reports.Misuse, err)
	}
	if err := h.provides(ctx, command); err != nil {
		return fail(reports.Infra, err)
	}
	m.command = command.String() // a fork's too: by hand, it boots
	if vary != nil {
		vary(&config)
	}
	if err := os.MkdirAll(p.Dir, 0o755); err != nil {
		return fail(reports.Infra, fmt.Errorf("evidence folder: %w", err))
	}
	if err := m.start(ctx, config, t); err != nil {
		return fail(reports.Infra, err)
	}
	return m, nil
}

// start opens the evidence, starts QEMU, attaches everything and resumes.
func (m *Machine) start(ctx context.Context, config qemu.Config, t *template) error {
	if err := writeFile(filepath.Join(m.plan.Dir, fileCommand), []byte(m.command+"\n")); err != nil {
		return err
	}
	b, err := json.MarshalIndent(config, "", " ")
	if err != nil {
		return err
	}
	if err := writeFile(filepath.Join(m.plan.Dir, FileMachine), b); err != nil {
		return err
	}
	raw, err := m.create(fileSerial)
	if err != nil {
		return err
	}
	stamped, err := m.create(fileStamped)
	if err != nil {
		return err
	}
	if m.vm, err = qemu.Start(ctx, config); err != nil {
		return err
	}
	m.began = time.Now()
	m.log = console.NewLog(console.Options{
		Rules:   m.plan.Rules,
		Clock:   func() time.Duration { return time.Since(m.began) },
		Console: m.terminal(),
		Stamped: stamped,
	})
	m.log.Expect(m.plan.Expect...)
	if !m.plan.NoAgent {
		m.agent = newAgent(m.vm.AgentLine())
	}
	if t != nil {
		if err := m.goOn(ctx, t, raw); err != nil {
			return err
		}
		m.began = time.Now().Add(-t.At)
	}
	m.resumed = time.Now()
	m.work.Go(func() { m.listen(raw) })
	if m.agent != nil {
		m.work.Go(m.agent.listen)
	}
	if m.plan.Notify != nil {
		m.work.Go(m.notify)
	}
	return m.vm.Resume(ctx)
}

func (m *Machine) create(name string) (*os.File, error) {
	f, err := os.Create(filepath.Join(m.plan.Dir, name))
	if err != nil {
		return nil, fmt.Errorf("evidence: %w", err)
	}
	m.files = append(m.files, f)
	return f, nil
}

// listen copies the serial line into the log and the evidence until QEMU is
// gone. It never stops reading for any other reason: a line nobody drains
// stops the guest at its next character.
func (m *Machine) listen(raw io.Writer) {
	// If the evidence cannot be written any more, the line must still be read.
	if _, err := io.Copy(io.MultiWriter(m.log, raw, &echo{m.plan.Echo}), m.vm.Serial()); err != nil {
		m.mu.Lock()
		m.lost = err
		m.mu.Unlock()
		if _, err := io.Copy(m.log, m.vm.Serial()); err != nil {
			<-m.vm.Done()
		}
	}
	<-m.vm.Done()
	m.mu.Lock()
	m.ended = time.Now()
	m.mu.Unlock()
	m.log.Close()
}

// echo passes bytes on to a writer for as long as it takes them. That it does
// not is the listener's affair: the machine and its evidence go on.
type echo struct{ to io.Writer }

func (e *echo) Write(p []byte) (int, error) {
	if e.to != nil {
		if _, err := e.to.Write(p); err != nil {
			e.to = nil
		}
	}
	return len(p), nil
}

// notify tells the plan's listener of every event, as it comes.
func (m *Machine) notify() {
	told := 0
	for {
		changed := m.log.Changed()
		marks := m.log.Marks()
		for _, mark := range marks[told:] {
			if mark.Inherited {
				continue
			}
			m.plan.Notify(Progress{Machine: m.plan.Name, At: mark.At, State: mark.State, Unit: mark.Unit, Detail: mark.Detail})
		}
		told = len(marks)
		if m.log.Closed() {
			return
		}
		<-changed
	}
}

// terminal is the guest's name of the line the harness listens on.
func (m *Machine) terminal() string {
	name, _, _ := m.plan.terminals(m.host.Arch)
	return name
}

// Console is the machine's console log.
func (m *Machine) Console() *console.Log { return m.log }

// Name is the machine's name, as its plan gives it.
func (m *Machine) Name() string { return m.plan.Name }

// Dir is the folder with the machine's evidence.
func (m *Machine) Dir() string { return m.plan.Dir }

// PID is the process id of QEMU.
func (m *Machine) PID() int { return m.vm.PID() }

// QMP is the machine's monitor.
func (m *Machine) QMP() *qemu.QMP { return m.vm.QMP() }

// Forwarded is the address on this host behind which a TCP port of the machine
// answers; the plan must forward it on the n-th network card (from 0).
func (m *Machine) Forwarded(ctx context.Context, nic, port int) (string, error) {
	addr, err := m.vm.Forwarded(ctx, nic, port)
	if err != nil {
		return "", fmt.Errorf("machine %s: %w", m.plan.Name, err)
	}
	return addr, nil
}

// Channel is the host's end of the virtio-serial port that the plan gives this
// name. It is the machine's own, also of a fork, and ends with it.
func (m *Machine) Channel(name string) (net.Conn, error) {
	conn, err := m.vm.Channel(name)
	if err != nil {
		return nil, fmt.Errorf("machine %s: %w", m.plan.Name, err)
	}
	return conn, nil
}

// Done is closed when QEMU is gone.
func (m *Machine) Done() <-chan struct{} { return m.vm.Done() }

// Alive reports whether the machine runs and nothing fatal was seen of it.
func (m *Machine) Alive() bool {
	return !m.log.Closed() && m.judgeNow("to run") == nil
}

// Await waits until the machine has passed the milestone, well or badly; a
// milestone that was passed badly is a fault and fails the wait unless the
// plan expects it.
func (m *Machine) Await(ctx context.Context, at boot.Milestone) error {
	return m.await(ctx, string(at), m.patience.Boot, func() bool {
		_, ok := m.log.Milestone(at)
		return ok
	})
}

// AwaitUnit waits until the named unit was said to be in the given state.
func (m *Machine) AwaitUnit(ctx context.Context, unit string, state boot.State) error {
	return m.await(ctx, fmt.Sprintf("unit %s %s", unit, state), m.patience.Boot, func() bool {
		for _, mark := range m.log.Marks() {
			if mark.Unit == unit && mark.State == state {
				return true
			}
		}
		return false
	})
}

// AwaitLine waits for a console line that matches, from the first line of the
// boot on, and returns it.
func (m *Machine) AwaitLine(ctx context.Context, re *regexp.Regexp) (console.Line, error) {
	var found console.Line
	next := 0
	err := m.await(ctx, fmt.Sprintf("a line matching %q", re), m.patience.Boot, func() bool {
		lines := m.log.Lines()
		for ; next < len(lines); next++ {
			if re.MatchString(lines[next].Text) {
				found = lines[next]
				return true
			}
		}
		return false
	})
	return found, err
}

// AwaitFault waits for a fault of the named rule and returns it complete: the
// rest of an oops is let in before it is judged.
func (m *Machine) AwaitFault(ctx context.Context, rule string) (console.Fault, error) {
	var found console.Fault
	m.log.Expect(rule)
	err := m.await(ctx, "fault "+rule, m.patience.Boot, func() bool {
		for _, f := range m.log.Faults(console.Note) {
			if f.Rule == rule && !f.Open {
				found = f
				return true
			}
		}
		return false
	})
	return found, err
}

// AwaitEnd waits until QEMU is gone, however that came about.
func (m *Machine) AwaitEnd(ctx context.Context) error {
	m.mu.Lock()
	m.asked = true
	m.mu.Unlock()
	return m.await(ctx, "the end", m.patience.Stop, m.log.Closed)
}

// Attend waits until the machine ends, without patience: somebody works at its
// console. It succeeds if the machine powered itself off and nothing fatal was
// seen of it; a reset, a panic or a killed QEMU is a verdict.
func (m *Machine) Attend(ctx context.Context) error {
	const wanted = "a clean power off"
	select {
	case <-m.Done():
	case <-ctx.Done():
		return m.interrupted(ctx, wanted)
	}
	m.work.Wait() // what was left on the line belongs to the verdict
	if m.vm.Exit().Reason == qemu.ReasonShutdown {
		m.mu.Lock()
		m.asked = true
		m.mu.Unlock()
	}
	if f := m.judgeNow(wanted); f != nil {
		return f
	}
	return nil
}

// Type sends text to the machine's console, as a keyboard would.
func (m *Machine) Type(text string) error {
	if _, err := io.WriteString(m.vm.Serial(), text); err != nil {
		return fmt.Errorf("machine %s: typing on the console: %w", m.plan.Name, err)
	}
	return nil
}

// Say types a line on the machine's console, where a shell listens, and returns
// the text from there on, up to the first match. The text begins with the
// line's own echo, so until should match what only the answer can hold, such
// as the next prompt. An unfinished last line is looked at as well: a prompt
// has no line end.
func (m *Machine) Say(ctx context.Context, line string, until *regexp.Regexp) (string, error) {
	from := m.log.Text(1)
	if err := m.Type(line + "\n"); err != nil {
		return "", err
	}
	var text string
	err := m.await(ctx, fmt.Sprintf("an answer matching %q to %q", until, line), m.patience.Exec, func() bool {
		text = m.log.Text(1)
		text = text[min(len(from), len(text)):]
		at := until.FindStringIndex(text)
		if at != nil {
			text = text[:at[1]]
		}
		return at != nil
	})
	return text, err
}

// PowerOff asks PID 1 for a clean end and proves that it came: the milestones
// Shutdown and Off, both good, and a machine that powered itself off.
func (m *Machine) PowerOff(ctx context.Context) error {
	m.mu.Lock()
	m.asked = true
	m.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, m.patience.Stop)
	defer cancel()
	if _, err := m.Exec(ctx, boot.PoweroffPath); err != nil && !m.ending() {
		return err
	}
	if err := m.await(ctx, "power off", m.patience.Stop, m.log.Closed); err != nil {
		return err
	}
	if e, ok := m.log.Milestone(boot.Off); !ok || e.State != boot.Done {
		return m.failure(reports.Guest, "the machine ended without a clean shutdown", "power off", nil)
	}
	if exit := m.vm.Exit(); exit.Reason != qemu.ReasonShutdown {
		return m.failure(reports.Guest, "the machine did not power itself off: "+exit.String(), "power off", nil)
	}
	return nil
}

// ending reports whether the machine has begun to stop.
func (m *Machine) ending() bool {
	_, ok := m.log.Milestone(boot.Shutdown)
	return ok || m.log.Closed()
}

// closeGrace is how long Close waits for QEMU to obey before it is killed.
const closeGrace = 5 * time.Second

// Close ends the machine if it still runs, waits for everything that belongs
// to it and completes the evidence. It may be called more than once.
func (m *Machine) Close() error {
	m.mu.Lock()
	again := m.closed
	m.closed, m.asked = true, true
	m.mu.Unlock()
	if again {
		return nil
	}
	var errs []error
	if m.vm != nil {
		ctx, cancel := context.WithTimeout(context.Background(), closeGrace)
		defer cancel()
		errs = append(errs, m.lastProof(ctx), m.vm.Quit(ctx), m.vm.Close())
		m.work.Wait()
		m.log.Close()
		errs = append(errs, m.lost, m.writeEvidence())
	}
	for _, f := range m.files {
		errs = append(errs, f.Close())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("machine %s: %w", m.plan.Name, err)
	}
	return nil
}

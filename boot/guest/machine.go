//go:build linux

package guest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/seatrial/seatrial/boot"
	"golang.org/x/sys/unix"
)

// childPath is PATH of everything PID 1 starts.
const childPath = "/usr/bin:/usr/sbin:/bin:/sbin"

// machine is PID 1's view of the machine it brings up.
type machine struct {
	sys    System
	root   string // "" in the real machine; a directory in tests
	speak  *Speaker
	reaper *Reaper
	words  kernelWords
	env    []string
	index  *Modules

	modulesDir string          // where the running kernel's modules are
	patience   patience        // how long things may take
	ctx        context.Context // ends when the machine is to stop
	cancel     context.CancelFunc
	helpers    sync.WaitGroup // supervisors; all end with ctx
	failed     []string       // milestones that failed, with their reasons
	facts      map[string]string

	containerd *containerd
	services   *services
}

// patience holds every deadline. They are long because emulated machines on
// busy hosts are slow: nothing waits for one unless something is wrong.
type patience struct {
	socket   time.Duration // from containerd's start to its first answer
	services time.Duration // from there to the last service's start
	late     time.Duration // until it is said that something is still awaited
	phases   time.Duration // for a step to stop when the machine is to stop
	script   time.Duration // for an entry of init.d or shutdown.d
	farewell time.Duration // for one onshutdown container
	stop     time.Duration // for the service tool to stop all services
	daemon   time.Duration // for containerd to end after SIGTERM
	others   time.Duration // for everything else after SIGTERM, and again after SIGKILL
	sync     time.Duration // for dirty pages to reach disks
	poll     time.Duration // between two looks at something that cannot notify
}

func defaultPatience() patience {
	return patience{
		socket: time.Minute, services: 10 * time.Minute, late: 20 * time.Second, phases: 2 * time.Second,
		script: time.Minute, farewell: 5 * time.Minute, stop: 20 * time.Second, daemon: 10 * time.Second, others: 3 * time.Second,
		sync: 30 * time.Second, poll: 20 * time.Millisecond,
	}
}

// step is one thing to be done; its error is said under its name.
type step struct {
	name string
	do   func() error
}

// phase is the way to a milestone.
type phase struct {
	at    boot.Milestone
	steps []step
}

// phases is the boot. Speech and PID 1's own mounts come first, then what
// LinuxKit's init does, in its order.
func (m *machine) phases() []phase {
	return []phase{
		{boot.Init, []step{{"mounts", m.mountForSpeech}, {"console", m.openConsole}, {"facts", m.learn}}},
		{boot.Mounts, []step{
			{"root", m.rootReadOnly},
			{"mounts", func() error { return mountAll(m.sys, m.root, earlyMounts) }},
			{"directories", func() error { return populate(m.root) }},
			{"control groups", m.mountCgroups},
			{"device nodes", m.makeNodes},
			{"propagation", m.shareRoot},
		}},
		{boot.Modules, []step{{"index", m.readModules}, {"mounts", m.mountRest}, {"devices", m.coldplug}, {"modules-load.d", m.loadListed}, {"power button", m.watchPowerButton}, {"agent", m.startAgent}}},
		{boot.System, []step{
			{"clock", m.setClock},
			{"limits", func() error { return setLimits(m.sys) }},
			{"hostname", func() error { return nameMachine(m.sys, m.root) }},
			{"loopback", func() error { return m.sys.LinkUp("lo") }},
			{"resolv.conf", func() error { return resolvConf(m.root) }},
			{"init.d", func() error { return m.runScripts(initDir, "", volumesEntry) }},
			{"volumes", m.mountVolumes},
			{"init.d", func() error { return m.runScripts(initDir, volumesEntry, onbootEntry) }},
		}},
		{boot.Onboot, []step{
			{"onboot", func() error { return m.runBundles(m.ctx, boot.Onboot, "onboot", boot.OnbootDir, 0) }},
			{"init.d", func() error { return m.runScripts(initDir, onbootEntry, containerdEntry) }},
		}},
		{boot.Containerd, []step{{"containerd", m.bringUpContainerd}}},
		{boot.Services, []step{
			{"services", m.bringUpServices},
			{"init.d", func() error { return m.runScripts(initDir, containerdEntry, "") }},
		}},
	}
}

// up takes the machine through its phases until one is left undone because the
// machine is to stop.
func (m *machine) up() {
	for _, p := range m.phases() {
		if m.ctx.Err() != nil {
			return
		}
		m.hold(p.at)
		m.run(p)
	}
	if m.ctx.Err() != nil {
		return
	}
	e := boot.Event{At: boot.Ready, State: boot.Done, Detail: m.services.summary()}
	if len(m.failed) > 0 {
		e.State, e.Detail = boot.Failed, strings.Join(m.failed, "; ")
	}
	line := m.services.summary()
	if e.State == boot.Failed {
		line += "; " + e.Detail
	}
	m.speak.Say("init: ready after %.1f s: %s", m.sys.Uptime().Seconds(), line)
	m.speak.Event(e)
}

func (m *machine) run(p phase) {
	var problems []string
	for _, s := range p.steps {
		if m.ctx.Err() != nil {
			return
		}
		err := s.do()
		switch {
		case err == nil || m.ctx.Err() != nil:
		case errors.Is(err, errSaid):
			problems = append(problems, strings.TrimSuffix(err.Error(), errSaid.Error()))
		default:
			m.speak.Say("init: %s: %v", s.name, err)
			text := oneLine(err.Error())
			if s.name != string(p.at) {
				text = s.name + ": " + text
			}
			problems = append(problems, text)
		}
	}
	if m.ctx.Err() != nil {
		return
	}
	e := boot.Event{At: p.at, State: boot.Done}
	if p.at == boot.Init {
		e.Facts = m.facts
	}
	if len(problems) > 0 {
		e.State, e.Detail = boot.Failed, strings.Join(problems, "; ")
		m.failed = append(m.failed, string(p.at)+": "+e.Detail)
	}
	m.speak.Event(e)
}

// errStopping is why what was under way was left undone.
var errStopping = errors.New("the machine is to stop")

// errSaid marks an error whose lines are on the console already.
var errSaid = errors.New("")

// said is an error with text that run does not say again.
func said(text string) error { return fmt.Errorf("%s%w", text, errSaid) }

func (m *machine) mountForSpeech() error { return mountAll(m.sys, m.root, speechMounts) }

// openConsole makes /dev/console standard input, output and error, if it is
// not: the kernel could not open it when the initramfs has no node for it.
func (m *machine) openConsole() error {
	f, err := os.OpenFile(filepath.Join(m.root, "/dev/console"), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return fmt.Errorf("%w: nothing will be seen of containers and containerd; name a console the machine has on the kernel command line", err)
	}
	defer f.Close()
	if m.root != "" {
		return nil
	}
	freeRunning(int(f.Fd()))
	for fd := range 3 {
		if err := unix.Dup3(int(f.Fd()), fd, 0); err != nil {
			return err
		}
	}
	return nil
}

// freeRunning switches off the flow control of a terminal, if it is one. A
// Ctrl-S on the serial line, or noise that looks like it, would otherwise stop
// whoever writes to the console, PID 1 included, until somebody types Ctrl-Q.
// Switching it off also lets go what it has stopped (n_tty_set_termios).
func freeRunning(fd int) {
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil || t.Iflag&unix.IXON == 0 {
		return // no terminal, or nothing to do
	}
	t.Iflag &^= unix.IXON
	_ = unix.IoctlSetTermios(fd, unix.TCSETS, t) // then it stays as it is
}

func (m *machine) learn() error {
	src, err := os.ReadFile(filepath.Join(m.root, "/proc/cmdline"))
	m.words = strings.Fields(string(src))
	m.facts = map[string]string{boot.FactBuild: Build(), boot.FactConsole: activeConsole(m.root)}
	greet(m.root, m.words)
	m.speak.Say("init: PID 1, build %s, console %s", m.facts[boot.FactBuild], m.facts[boot.FactConsole])
	return err
}

// rootReadOnly makes the root read-only. Not every root can be: then it stays.
func (m *machine) rootReadOnly() error {
	_ = m.sys.Mount("", m.root+"/", "", unix.MS_REMOUNT|unix.MS_RDONLY|unix.MS_BIND, "")
	return nil
}

func (m *machine) shareRoot() error {
	return m.sys.Mount("", m.root+"/", "", unix.MS_SHARED|unix.MS_REC, "")
}

func (m *machine) readModules() error {
	index, err := ReadModules(filepath.Join(m.root, m.modulesDir))
	if err != nil {
		return err
	}
	m.index = index
	return nil
}

func (m *machine) coldplug() error {
	if m.index == nil {
		return nil // said by the step before
	}
	// A driver that will not load is worth a line; what needs it will fail by name.
	if err := m.index.Coldplug(m.sys, filepath.Join(m.root, "/sys")); err != nil {
		m.warn(boot.Event{At: boot.Modules, Detail: err.Error()}, "init: %v", err)
	}
	return nil
}

func (m *machine) loadListed() error {
	if m.index == nil {
		return nil
	}
	return m.index.LoadListed(m.sys, filepath.Join(m.root, "/etc/modules-load.d"))
}

// warn says a line and an event with State Warned.
func (m *machine) warn(e boot.Event, format string, args ...any) {
	m.speak.Say(format, args...)
	e.State = boot.Warned
	m.speak.Event(e)
}

// pause waits for d, or until the machine is to stop, which it reports.
func (m *machine) pause(d time.Duration) (stopping bool) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return false
	case <-m.ctx.Done():
		return true
	}
}

// requests maps the signals that stop the machine to what is then done. They
// are those of busybox's init, which other programs know.
var requests = map[os.Signal]string{
	unix.SIGUSR1: "halt", unix.SIGUSR2: "poweroff", unix.SIGTERM: "reboot", unix.SIGINT: "reboot",
}

// serve is the life of PID 1 after it has a root it can keep. It returns only
// when the machine could not be stopped.
func (m *machine) serve() error {
	children := make(chan os.Signal, 1) // signals merge anyway; Reap takes all
	stop := make(chan os.Signal, 1)
	signal.Notify(children, unix.SIGCHLD)
	signal.Notify(stop, unix.SIGUSR1, unix.SIGUSR2, unix.SIGTERM, unix.SIGINT)
	shield()
	// Ctrl-Alt-Del becomes SIGINT to PID 1. Refused outside a real machine.
	_ = m.sys.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF)

	up := make(chan struct{})
	down := make(chan error, 1)
	m.guard(func() { m.up(); close(up) })
	for {
		select {
		case <-children:
			m.reaper.Reap()
		case sig := <-stop:
			stop = nil // a second request changes nothing
			reason := requests[sig]
			m.guard(func() { down <- m.down(reason, up) })
		case err := <-down:
			return err
		}
	}
}

// shield keeps the signals away that have no meaning for PID 1 and on which Go
// would end the program, or throw. Ignoring them would make the children ignore
// them too; caught and never looked at, they do nothing. SIGURG is Go's own.
func shield() {
	nobody := make(chan os.Signal, 1)
	signal.Notify(nobody, unix.SIGHUP, unix.SIGQUIT, unix.SIGILL, unix.SIGTRAP, unix.SIGABRT, unix.SIGBUS, unix.SIGFPE,
		unix.SIGSEGV, unix.SIGPIPE, unix.SIGALRM, unix.SIGSTKFLT, unix.SIGCONT, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU,
		unix.SIGXCPU, unix.SIGXFSZ, unix.SIGVTALRM, unix.SIGPROF, unix.SIGWINCH, unix.SIGIO, unix.SIGPWR, unix.SIGSYS)
}

// guard runs f beside the caller. A bug in it must not end PID 1 without a word.
func (m *machine) guard(f func()) {
	go func() {
		defer func() {
			if v := recover(); v != nil {
				m.die(fmt.Errorf("bug in PID 1: %v", v))
			}
		}()
		f()
	}()
}

// supervise runs f beside the caller until it returns, which it must when the
// machine is to stop.
func (m *machine) supervise(f func()) {
	m.helpers.Add(1)
	m.guard(func() { defer m.helpers.Done(); f() })
}

// die says why PID 1 gives up, saves what it can and exits: the kernel then
// panics, and does what its panic= word asks for.
func (m *machine) die(why error) {
	m.speak.Say("init: giving up: %v", why)
	m.within(m.patience.sync, m.sys.Sync)
	os.Exit(1)
}

// within runs f and waits for its end, at most d; it reports whether f ended.
func (m *machine) within(d time.Duration, f func()) bool {
	done := make(chan struct{})
	m.guard(func() { f(); close(done) })
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-done:
		return true
	case <-t.C:
		return false
	}
}

// newMachine is the real machine.
func newMachine() *machine {
	sys := Linux{}
	m := &machine{
		sys: sys, reaper: &Reaper{}, patience: defaultPatience(),
		env: []string{"PATH=" + childPath, "HOME=/root", "TERM=linux"},
	}
	m.speak = NewSpeaker("init", os.Stderr, &lazyKmsg{}, sys.Uptime)
	ctx, cancel := context.WithCancelCause(context.Background())
	m.ctx, m.cancel = ctx, func() { cancel(errStopping) }
	m.services = &services{m: m}
	return m
}

// lazyKmsg opens /dev/kmsg when it is first written to, which is after /dev is
// mounted.
type lazyKmsg struct{ f io.WriteCloser }

func (l *lazyKmsg) Write(b []byte) (int, error) {
	if l.f == nil {
		f, err := OpenKmsg()
		if err != nil {
			return 0, err
		}
		l.f = f
	}
	return l.f.Write(b)
}

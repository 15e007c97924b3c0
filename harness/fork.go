package harness

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/seatrial/seatrial/boot"
	"github.com/seatrial/seatrial/qemu"
	"github.com/seatrial/seatrial/reports"
)

// entropySize is what every fork gets of the host's random numbers, in bytes:
// the kernel's whole pool (POOL_BITS, drivers/char/random.c).
const entropySize = 32

// Fork gives a machine of the plan that is up, or held where the plan says, in a
// fraction of a second: a copy of one that was booted once and kept. It is as
// pristine as a booted one; its console log begins with what the template
// printed, marked as inherited; its random numbers and its clock are its own.
//
// That it is a copy, and not another machine or a reboot, is proved by a nonce
// that only the template's memory has: no command's answer is handed on before
// that proof has come, and Close fails if it never did. A template that does not
// exist yet is made first, which takes a boot. Where a machine cannot be kept,
// every one boots; Report says which way was gone, and why.
//
// Disks that are not read-only are copies as well: they hold what the template
// wrote on its way up, and what the fork writes is gone with it. The plan's own
// files are read and never written; who wants to see them written uses Boot.
//
// An error is a *Failure. The caller must Close the machine.
func (s *Templates) Fork(ctx context.Context, h Host, p Plan) (*Machine, error) {
	if why := s.Unforkable(p); why != "" {
		return bootUp(ctx, h, p, why)
	}
	t, err := s.hold(ctx, h, p)
	if full := fullError(""); err != nil && errors.As(err, &full) && s.o.Rung == "" {
		return bootUp(ctx, h, p, full.Error())
	}
	if err != nil {
		return nil, err
	}
	if t.Rung == RungCold {
		return bootUp(ctx, h, p, errors.Join(errors.New(t.Why), t.lock.Close()).Error())
	}
	began := time.Now()
	ram := qemu.RAM{Private: true}
	if t.Rung == RungRAM {
		ram.File = t.path(fileRAM)
	}
	m, err := launch(ctx, h, p, func(c *qemu.Config) {
		c.RAM, c.Incoming, c.Disks = ram, true, t.disks(c.Disks, true)
	}, t)
	if err != nil {
		return nil, err
	}
	if err := m.wake(ctx, t, began); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

// Unforkable says why machines of the plan cannot be forks, as far as that is
// known before one was tried; empty: they can. Fork boots such machines, each
// with all of its memory.
func (s *Templates) Unforkable(p Plan) string {
	if s.o.Rung == RungCold {
		return "cold boots were demanded"
	}
	if p.NoAgent {
		return "without an agent inside nobody can tell a fork from a reboot"
	}
	if p.TPM != "" {
		return "a TPM is one machine's alone, and cannot be copied with it"
	}
	if p.Vars != "" {
		return "UEFI variables in a file are one machine's alone"
	}
	if p.Vsock != 0 {
		return "a vsock context id is one machine's alone"
	}
	if p.RTC != "" {
		return "its hardware clock is set, and a fork's clock is set to the host's"
	}
	for i, d := range p.Disks {
		if why := unforkableDisk(d); why != "" {
			return fmt.Sprintf("disk %d %s", i, why)
		}
	}
	return unforkableExtra(p.Extra)
}

// unforkableDisk says what about a disk keeps its machine from being forked.
func unforkableDisk(d qemu.Disk) string {
	switch {
	case d.Error != nil:
		return "fails on demand, and an overlay would hide it"
	case d.Volatile:
		return "is volatile, and an overlay would keep what it loses"
	case d.Format == "qcow2" && hasBacking(d.Path):
		return "is the overlay of another file, which is neither frozen nor compared"
	}
	return ""
}

// hasBacking reports whether a qcow2 file needs another one below it (QEMU,
// docs/interop/qcow2.txt: backing_file_offset). A file that cannot be read is
// refused later, by name.
func hasBacking(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	header := make([]byte, 16)
	_, err = io.ReadFull(f, header)
	return err == nil && binary.BigEndian.Uint64(header[8:]) != 0
}

// fileOptions are QEMU's options that give a machine files of their own.
var fileOptions = []string{
	"drive", "blockdev", "hda", "hdb", "hdc", "hdd", "cdrom", "fda", "fdb", "sd", "pflash", "mtdblock", "fsdev", "virtfs",
}

// unforkableExtra says which of the further arguments names a file: forks would
// write to one file, and a template would not notice that it changes.
func unforkableExtra(extra []string) string {
	for i, arg := range extra {
		name, dashed := strings.CutPrefix(arg, "-")
		name = strings.TrimPrefix(name, "-") // QEMU takes both
		if !dashed {
			continue
		}
		if slices.Contains(fileOptions, name) || name == "object" && i+1 < len(extra) && strings.Contains(extra[i+1], "memory-backend-file") {
			return fmt.Sprintf("the argument %s brings a file of its own, which is neither frozen nor compared", arg)
		}
	}
	return ""
}

// bootUp is the last rung: it boots a machine and waits until it is up, or held.
func bootUp(ctx context.Context, h Host, p Plan, why string) (*Machine, error) {
	began := time.Now()
	m, err := Boot(ctx, h, p)
	if err != nil {
		return nil, err
	}
	m.fork = &reports.Fork{How: string(RungCold), Why: why}
	if err := m.awaitUp(ctx); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	m.fork.Took = time.Since(began)
	return m, nil
}

// goOn gives a machine that was started with nothing the template's state and
// what it had printed.
func (m *Machine) goOn(ctx context.Context, t *template, serial io.Writer) error {
	m.fork = &reports.Fork{How: string(t.Rung), Why: t.Why, Template: t.Key, At: t.At}
	said, lines, partial, err := t.lines()
	if err != nil {
		return err
	}
	if _, err := serial.Write(said); err != nil {
		return err
	}
	state, err := os.Open(t.path(fileState))
	if err != nil {
		return err
	}
	defer state.Close()
	if err := m.vm.Load(ctx, state, t.Rung == RungRAM); err != nil {
		return fmt.Errorf("template %s: %w", t.Key, err)
	}
	m.agent.greet(t.Hello)
	return m.log.Inherit(lines, partial)
}

// proof is the answer that shows a fork to be its template's copy. It may still
// be on its way.
type proof struct {
	answer   *call
	template *template
	began    time.Time // of the fork
}

// wake asks the machine to prove that it is the template's copy, and makes it
// another machine than all other copies. One request does it all, and what is
// asked next does not wait for its answer: a round trip through an emulated
// UART costs tens of milliseconds. The agent does it before anything else, and
// nothing that the machine answers is handed on before the proof has come; see
// proven.
func (m *Machine) wake(ctx context.Context, t *template, began time.Time) error {
	entropy := make([]byte, entropySize)
	if _, err := rand.Read(entropy); err != nil {
		return m.failure(reports.Infra, err.Error(), wantedWake, err)
	}
	now := strconv.FormatInt(time.Now().UnixNano(), 10)
	answer, err := m.agent.call(boot.Request{Argv: []string{"@wake", hex.EncodeToString(entropy), now}}, nil)
	if err != nil {
		return m.failure(reports.Infra, err.Error(), wantedWake, err)
	}
	m.mu.Lock()
	m.proof = &proof{answer: answer, template: t, began: began}
	m.mu.Unlock()
	for i, nic := range m.plan.nics() {
		m.fork.MACs = append(m.fork.MACs, nic.MAC)
		if nic.MAC == t.MACs[i] {
			continue // the plan gives it, and every machine has it
		}
		if r, err := m.Exec(ctx, "@mac", t.MACs[i], nic.MAC); err != nil {
			return err
		} else if r.Exit != 0 {
			return m.failure(reports.Infra, fmt.Sprintf("network card %d keeps the template's address: %s", i, r.Stderr), wantedWake, nil)
		}
	}
	return nil
}

const wantedWake = "to wake up as a fork"

// awaitProof waits until the fork's proof has come and holds, or until it never
// will: then it returns the verdict.
func (m *Machine) awaitProof(ctx context.Context) error {
	m.mu.Lock()
	p := m.proof
	m.mu.Unlock()
	if p == nil {
		return nil
	}
	if err := m.awaitOr(ctx, wantedWake, m.patience.Exec, p.answer.ended, p.answer.done); err != nil {
		return err
	}
	if f := m.proven(wantedWake); f != nil {
		return f
	}
	return nil
}

// lastProof is awaitProof for a machine that is about to be closed. One that
// has ended, or has a verdict already, has nothing left to prove.
func (m *Machine) lastProof(ctx context.Context) error {
	m.mu.Lock()
	judged := m.verdict != nil
	m.mu.Unlock()
	if judged || m.log.Closed() {
		return nil
	}
	return m.awaitProof(ctx)
}

// proven looks at the fork's proof once it has come; nil: there is nothing to
// hold against the machine so far.
func (m *Machine) proven(wanted string) *Failure {
	m.mu.Lock()
	p := m.proof
	m.mu.Unlock()
	if p == nil || !p.answer.ended() {
		return nil
	}
	r, err := p.answer.result()
	switch {
	case err != nil:
		return m.judged(reports.Infra, err.Error(), wanted, nil)
	case r.Exit != 0 || r.Stdout != p.template.Nonce:
		title := fmt.Sprintf("this is no copy of template %s: its nonce is %q, not %q; %s", p.template.Key, r.Stdout, p.template.Nonce, r.Stderr)
		return m.judged(reports.Infra, title, wanted, nil)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.proof != nil {
		m.proof, m.fork.Took = nil, time.Since(p.began)
		m.agent.forget(p.answer)
	}
	return nil
}

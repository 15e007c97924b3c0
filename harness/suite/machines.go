package suite

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	"github.com/onsi/gomega/format"

	"github.com/seatrial/seatrial/boot"
	"github.com/seatrial/seatrial/harness"
	"github.com/seatrial/seatrial/images"
)

// tracked is a machine with the scope of specs it belongs to.
type tracked struct {
	*harness.Machine
	scope []string // texts of the containers around its maker
	room  room
}

// Close also gives back the machine's room on this host.
func (t *tracked) Close() error { return errors.Join(t.Machine.Close(), t.room.Release()) }

// room is a machine's room on this host, and counts for its suite until it is
// given back.
type room struct {
	*harness.Admitted
	rooms *atomic.Int32
}

// Release may be called once.
func (r room) Release() error {
	r.rooms.Add(-1)
	return r.Admitted.Release()
}

// admit lets a machine in. A process runs one spec at a time, so whoever has a
// machine in it is this spec, or the container around it: it needs both at once
// and must not wait for the second behind others that do the same. One that
// starts several at once waits for the first of them only.
func (s *Suite) admit(ctx context.Context, plan harness.Plan, fork bool) (room, error) {
	s.admitting.Lock()
	defer s.admitting.Unlock()
	let := s.world.Admission.Admit
	if s.rooms.Load() > 0 {
		let = func(_ context.Context, p harness.Plan, fork bool) (*harness.Admitted, error) {
			return s.world.Admission.AdmitFurther(p, fork)
		}
	}
	got, err := let(ctx, plan, fork)
	if err == nil {
		s.rooms.Add(1)
	}
	return room{got, &s.rooms}, err
}

// Tweak changes a plan before it is booted.
type Tweak func(*harness.Plan)

// entryMachine is the name of the report entries that tie a spec to the
// machines it used.
const entryMachine = "machine"

// Boot starts a pristine machine. It is closed when the spec ends, or the
// ordered container if it is called from BeforeAll.
func (s *Suite) Boot(ctx ginkgo.SpecContext, im *images.Image, tweaks ...Tweak) *harness.Machine {
	return s.start(ctx, im, tweaks, false)
}

// BootReady is Boot, and waits until the machine is up.
func (s *Suite) BootReady(ctx ginkgo.SpecContext, im *images.Image, tweaks ...Tweak) *harness.Machine {
	m := s.Boot(ctx, im, tweaks...)
	gomega.EventuallyWithOffset(1, m, ctx).Should(Reach(boot.Ready))
	return m
}

// Fork gives the spec a pristine machine of its own that is up already: a copy
// of one that was booted once, in a fraction of a second. Where machines
// cannot be copied it boots one; the report says which, and why. Use Boot for
// specs about booting.
//
// The template is made when first needed and kept between runs. Tweaks that
// change the machine (memory, command line) lead to another template.
func (s *Suite) Fork(ctx ginkgo.SpecContext, im *images.Image, tweaks ...Tweak) *harness.Machine {
	return s.start(ctx, im, tweaks, true)
}

// start starts a machine as soon as this host has room for it, and closes it
// when the scope that asked for it ends.
func (s *Suite) start(ctx ginkgo.SpecContext, im *images.Image, tweaks []Tweak, fork bool) *harness.Machine {
	now := ginkgo.CurrentSpecReport()
	s.mu.Lock()
	s.count++
	name := fmt.Sprintf("%s-%d.%d", slug(now.LeafNodeText), ginkgo.GinkgoParallelProcess(), s.count)
	s.mu.Unlock()
	plan := harness.Plan{
		Name: name, Image: im, Dir: filepath.Join(s.world.Run, "machines", name),
		Notify: func(p harness.Progress) { s.tell(harness.Note{Machine: &p}) },
	}
	for _, t := range tweaks {
		t(&plan)
	}
	// A plan that cannot be forked boots, with all of its memory.
	room, err := s.admit(ctx, plan, fork && s.templates.Unforkable(plan) == "")
	gomega.ExpectWithOffset(2, err).NotTo(gomega.HaveOccurred())
	make := harness.Boot
	if fork {
		make = s.templates.Fork
	}
	m, err := make(ctx, s.world.Host, plan)
	if err != nil {
		err = errors.Join(err, room.Release())
	}
	gomega.ExpectWithOffset(2, err).NotTo(gomega.HaveOccurred())
	t := &tracked{Machine: m, scope: now.ContainerHierarchyTexts, room: room}
	s.mu.Lock()
	s.open = append(s.open, t)
	s.mu.Unlock()
	attach(t)
	ginkgo.DeferCleanup(func() {
		s.drop(t)
		gomega.Expect(t.Close()).To(gomega.Succeed())
	})
	return m
}

// attach ties the machine to the running spec in the report.
func attach(m *tracked) {
	ginkgo.AddReportEntry(entryMachine, m.Name(), ginkgo.ReportEntryVisibilityNever)
}

func (s *Suite) drop(m *tracked) {
	s.tell(harness.Note{Closed: m.Name()})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = slices.DeleteFunc(s.open, func(o *tracked) bool { return o == m })
}

// tell appends to the progress file. It is a courtesy to the display: if it
// cannot be written the run goes on and says so once per line in its log.
func (s *Suite) tell(n harness.Note) {
	n.Time = time.Now()
	b, err := json.Marshal(n)
	if err == nil {
		var f *os.File
		f, err = os.OpenFile(filepath.Join(s.world.Run, harness.FileProgress), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		if err == nil {
			_, err = f.Write(append(b, '\n'))
			err = errors.Join(err, f.Close())
		}
	}
	if err != nil {
		fmt.Fprintf(ginkgo.GinkgoWriter, "progress: %v\n", err)
	}
}

// beginSpec ties the machines of an ordered container to each of its specs.
func (s *Suite) beginSpec(context.Context) {
	now := ginkgo.CurrentSpecReport()
	s.tell(harness.Note{Case: now.FullText(), State: harness.CaseBegan})
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.open {
		if m.scope != nil && slices.Equal(m.scope, now.ContainerHierarchyTexts) {
			attach(m)
		}
	}
}

// gomegaFormatLimit lets a failure's whole text through.
func gomegaFormatLimit() { format.MaxLength = 0 }

package cases

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/seatrial/seatrial/boot"
	"github.com/seatrial/seatrial/harness"
	"github.com/seatrial/seatrial/harness/suite"
	"github.com/seatrial/seatrial/images"
	"github.com/seatrial/seatrial/qemu"
	"github.com/seatrial/seatrial/reports"
)

// stateFile is a file on the state disk of disk.yml.
const stateFile = "/var/lib/state/log"

// What the kernel says of an ext4 file system that is taken away, and of one
// that was not before the machine ended.
const (
	unmounted = `EXT4-fs \(vda\): unmounting filesystem`
	recovered = `EXT4-fs \(vda\): recovery complete`
)

// blankDisk makes a disk of zeros and returns its path.
func blankDisk() string {
	GinkgoHelper()
	f, err := os.CreateTemp(GinkgoT().TempDir(), "disk-*.img")
	Expect(err).NotTo(HaveOccurred())
	Expect(f.Truncate(64 << 20)).To(Succeed())
	Expect(f.Close()).To(Succeed())
	return f.Name()
}

// foreignDisk makes a disk that holds these bytes at that place.
func foreignDisk(at int64, data []byte) string {
	GinkgoHelper()
	path := blankDisk()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	Expect(err).NotTo(HaveOccurred())
	_, err = f.WriteAt(data, at)
	Expect(err).NotTo(HaveOccurred())
	Expect(f.Close()).To(Succeed())
	return path
}

// foreignDisks makes disks that hold something that is not ours, each of
// another kind, and returns their paths with what is to be said of them.
func foreignDisks() (paths, words []string) {
	GinkgoHelper()
	labelled := blankDisk()
	out, err := exec.Command("mkfs.ext4", "-q", "-L", "photos", labelled).CombinedOutput()
	Expect(err).NotTo(HaveOccurred(), string(out))
	// One partition of type Linux from sector 2048 (the classical MBR: entries
	// of 16 bytes from byte 446, the mark 55 aa at 510).
	table := make([]byte, 512)
	copy(table[446:], []byte{0, 0, 0, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 0x80, 0, 0})
	copy(table[510:], []byte{0x55, 0xaa})
	paths = []string{labelled, foreignDisk(0, table), foreignDisk(3<<20, []byte("a note")), foreignDisk(64<<20-512, []byte("the end"))}
	words = []string{
		`/dev/vda holds ext4 labelled "photos"`, `/dev/vdb holds a partition table \(dos\)`,
		`/dev/vdc holds data of no known format, the first at byte 3145728`, `/dev/vdd holds data of no known format, the first at byte 67108352`,
	}
	return paths, words
}

// withDisks attaches disks to a machine, in order.
func withDisks(paths ...string) suite.Tweak {
	return func(p *harness.Plan) {
		for _, path := range paths {
			p.Disks = append(p.Disks, qemu.Disk{Path: path})
		}
	}
}

// expecting lets a spec see a machine in which onboot containers fail.
func expecting(p *harness.Plan) { p.Expect = []string{"unit-failed", "milestone-failed"} }

func sum(path string) string {
	GinkgoHelper()
	b, err := os.ReadFile(path)
	Expect(err).NotTo(HaveOccurred())
	return fmt.Sprintf("%x", sha256.Sum256(b))
}

func off(ctx SpecContext, vm *harness.Machine) {
	GinkgoHelper()
	Expect(vm.PowerOff(ctx)).To(Succeed())
	Expect(vm.Close()).To(Succeed()) // the file is free for the next machine
}

// ready waits until the machine is up, well or badly.
func ready(ctx SpecContext, vm *harness.Machine) {
	GinkgoHelper()
	awaitLine(ctx, vm, `^init: ready`)
}

// update is the next version of an image: other files, one more container.
func update(s *images.Spec) {
	for i := range s.Files {
		if s.Files[i].Path == "/etc/seatrial-version" {
			two := "2\n"
			s.Files[i].Contents = &two
		}
	}
	s.Onboot = append(s.Onboot, images.Container{Name: "news", Image: "seatrial/busybox",
		Settings: images.Settings{Command: []string{"/bin/echo", "news: this is version 2"}}})
}

var _ = Describe("a state disk", func() {
	It("keeps its data across an image update, and when it is attached to a new machine", func(ctx SpecContext) {
		disk := blankDisk()

		vm := trial.BootReady(ctx, build(ctx, "disk.yml"), withDisks(disk))
		Expect(vm).To(suite.Print(`^format: /dev/vda was formatted: ext4 labelled "state"`))
		Expect(vm).To(suite.Print(`^mountie: /dev/vda, ext4 labelled "state", is on /var/lib/state`))
		Expect(run(ctx, vm, "@cat", "/etc/seatrial-version")).To(Equal("1\n"))
		run(ctx, vm, "@append", stateFile, "written by version 1\n")
		Expect(vm).NotTo(suite.Print(unmounted))
		off(ctx, vm)
		Expect(vm).To(suite.Print(unmounted))

		vm = trial.BootReady(ctx, build(ctx, "disk.yml", update), withDisks(disk))
		Expect(run(ctx, vm, "@cat", "/etc/seatrial-version")).To(Equal("2\n"))
		Expect(vm).To(suite.Print(`^format: /dev/vda holds ext4 labelled "state" already`))
		Expect(vm).NotTo(suite.Print(`was formatted`))
		Expect(vm).NotTo(suite.Print(recovered))
		Expect(run(ctx, vm, "@cat", stateFile)).To(Equal("written by version 1\n"))
		run(ctx, vm, "@append", stateFile, "written by version 2\n")
		off(ctx, vm)

		// A new machine: more of everything, and the disk in another place.
		vm = trial.BootReady(ctx, build(ctx, "disk.yml", update), withDisks(blankDisk(), disk), func(p *harness.Plan) {
			p.CPUs, p.MemoryMiB = 2, 1536
		})
		Expect(vm).To(suite.Print(`^mountie: /dev/vdb, ext4 labelled "state", is on /var/lib/state`))
		Expect(vm).NotTo(suite.Print(`was formatted`))
		Expect(run(ctx, vm, "@cat", stateFile)).To(Equal("written by version 1\nwritten by version 2\n"))
		off(ctx, vm)
	}, SpecTimeout(10*time.Minute))

	It("is missed by name when the machine has no disk, and nothing is kept", func(ctx SpecContext) {
		vm := trial.Boot(ctx, build(ctx, "disk.yml", func(s *images.Spec) {
			hidden := s.Onboot[1]
			hidden.Name, hidden.Command = "hidden", []string{"/usr/bin/mountie", "-label", "state", "/srv/state"}
			s.Onboot = append(s.Onboot, hidden)
			for i := range s.Onboot { // no disk will come: each would be waited for
				program, args := s.Onboot[i].Command[:1:1], s.Onboot[i].Command[1:]
				s.Onboot[i].Command = append(append(program, "-wait", "100ms"), args...)
			}
		}), expecting)
		ready(ctx, vm)
		Expect(vm).To(suite.Print(`^format: the machine has no disk`))
		Expect(vm).To(suite.Print(`^onboot 000-format: exit status 1`))
		Expect(vm).To(suite.Print(`^mountie: no file system is labelled "state"; there is: no disk at all`))
		// What only the container would see is not even looked for.
		Expect(vm).To(suite.Print(`^mountie: what is mounted on /srv/state would be seen in this container alone: choose a path below /var`))
		r, err := vm.Exec(ctx, "@cat", stateFile)
		Expect(err).NotTo(HaveOccurred())
		Expect(r.Exit).NotTo(BeZero())
	}, SpecTimeout(5*time.Minute))
})

var _ = Describe("a disk that holds something", func() {
	It("is never formatted: the refusal names the disk and what it holds", func(ctx SpecContext) {
		disks, words := foreignDisks()
		var before []string
		for _, d := range disks {
			before = append(before, sum(d))
		}
		vm := trial.Boot(ctx, build(ctx, "disk.yml"), withDisks(disks...))
		Expect(vm.Await(ctx, boot.Ready)).To(suite.BeVerdict(reports.Guest, `^onboot 000-format failed: exit status 1`))
		for _, w := range words {
			Expect(vm).To(suite.Print(`^format: no empty disk: .*` + w))
		}
		Expect(vm).NotTo(suite.Print(`was formatted`))
		Expect(vm.Close()).To(Succeed())
		for i, d := range disks {
			Expect(sum(d)).To(Equal(before[i]), "disk %d was written to", i)
		}
	}, SpecTimeout(5*time.Minute))

	It("is passed over for an empty one, on which no other disk's data is", func(ctx SpecContext) {
		disks, _ := foreignDisks()
		var before []string
		for _, d := range disks {
			before = append(before, sum(d))
		}
		empty := blankDisk()
		blank := sum(empty)
		vm := trial.BootReady(ctx, build(ctx, "disk.yml"), withDisks(append(disks, empty)...))
		Expect(vm).To(suite.Print(`^format: /dev/vde was formatted: ext4 labelled "state"`))
		Expect(vm).To(suite.Print(`^mountie: /dev/vde, ext4 labelled "state", is on /var/lib/state`))
		Expect(run(ctx, vm, "@ls", "/var/lib/state")).To(Equal("lost+found/\n"))
		off(ctx, vm)
		for i, d := range disks {
			Expect(sum(d)).To(Equal(before[i]), "disk %d was written to", i)
		}
		Expect(sum(empty)).NotTo(Equal(blank))
	}, SpecTimeout(5*time.Minute))

	It("is formatted when its device is named with -force", func(ctx SpecContext) {
		disk := foreignDisk(1<<20, bytes.Repeat([]byte("precious"), 64))
		vm := trial.BootReady(ctx, build(ctx, "disk.yml", func(s *images.Spec) {
			s.Onboot[0].Command = []string{"/usr/bin/format", "-label", "state", "-force", "/dev/vda"}
		}), withDisks(disk))
		Expect(vm).To(suite.Print(`^format: /dev/vda was formatted: ext4 labelled "state"`))
		Expect(vm).To(suite.Print(`^mountie: /dev/vda, ext4 labelled "state", is on /var/lib/state`))
		off(ctx, vm)
	}, SpecTimeout(5*time.Minute))
})

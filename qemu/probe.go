package qemu

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// Accel is an accelerator that has run a guest on this host.
type Accel struct {
	Name string        `json:"name"` // "tcg" or "kvm"
	CPU  string        `json:"cpu"`  // the CPU model it was tried with, and is to be used with
	Why  string        `json:"why"`  // why this one
	Took time.Duration `json:"took"` // the trial guest's time, from exec to its end
}

// ProbeOptions says what to probe.
type ProbeOptions struct {
	Binary string
	Arch   string        // of the guest
	Accel  string        // "tcg" or "kvm": the one that is demanded, and no other is tried; empty: the better one
	Dir    string        // an empty folder for the trial guest's file
	Device string        // empty: /dev/kvm
	Limit  time.Duration // for one trial under KVM; 0: 5 s. The guest needs milliseconds
}

// probeGuest is, by architecture, a guest that writes "OK\n" to the first UART
// and resets the board.
var probeGuest = map[string][]byte{"amd64": probeAMD64, "arm64": probeARM64}

// probeARM64 is raw code, which QEMU starts 512 KiB into the memory of the virt
// board. Its PL011 is at 0x09000000; PSCI takes calls by HVC (QEMU,
// hw/arm/virt.c; Arm DEN 0022, SYSTEM_RESET).
var probeARM64 = []byte{
	0x01, 0x20, 0xa1, 0xd2, // movz x1, #0x900, lsl #16
	0xe0, 0x09, 0x80, 0x52, 0x20, 0x00, 0x00, 0xb9, // mov w0, 'O'; str w0, [x1]
	0x60, 0x09, 0x80, 0x52, 0x20, 0x00, 0x00, 0xb9,
	0x40, 0x01, 0x80, 0x52, 0x20, 0x00, 0x00, 0xb9,
	0x20, 0x01, 0x80, 0x52, 0x00, 0x80, 0xb0, 0x72, // mov w0, 0x84000009
	0x02, 0x00, 0x00, 0xd4, // hvc #0
	0x00, 0x00, 0x00, 0x14, // b .
}

// probeAMD64 is a multiboot image (Multiboot Specification 0.6.96, 3.1.1); it
// resets through the keyboard controller.
var probeAMD64 = []byte{
	0x02, 0xb0, 0xad, 0x1b, // magic
	0x00, 0x00, 0x01, 0x00, // flags: addresses follow
	0xfe, 0x4f, 0x51, 0xe4, // checksum: magic + flags + this = 0
	0x00, 0x00, 0x10, 0x00, // header address: 1 MiB
	0x00, 0x00, 0x10, 0x00, // load address
	0x00, 0x00, 0x00, 0x00, // load end: whole file
	0x00, 0x00, 0x00, 0x00, // no bss
	0x20, 0x00, 0x10, 0x00, // entry: after this header
	0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8 (COM1)
	0xb0, 'O', 0xee, // mov al, 'O'; out dx, al
	0xb0, 'K', 0xee,
	0xb0, '\n', 0xee,
	0xb0, 0xfe, 0xe6, 0x64, // mov al, 0xfe; out 0x64, al (reset)
	0xf4, 0xeb, 0xfd, // hlt; jmp to it
}

// bootID is new with every boot of a host, and no two hosts share it (random(4)).
const bootID = "/proc/sys/kernel/random/boot_id"

// Key names everything a probe's answer depends on, for whoever keeps it. A
// cache folder may be another host's, or come back after a restart with another
// kernel, hypervisor or setting of KVM: the answer holds for one boot of one
// host, and costs one trial after each.
func (o ProbeOptions) Key() string {
	id, err := os.ReadFile(bootID)
	if err != nil { // without /proc: no answer is found again
		id = []byte(rand.Text())
	}
	device := "no device"
	if info, err := os.Stat(o.device()); err == nil {
		device = info.Mode().String()
	}
	binary := ""
	if info, err := os.Stat(o.Binary); err == nil {
		binary = info.ModTime().UTC().Format(time.RFC3339)
	}
	return strings.Join([]string{"4", o.Binary, binary, o.Arch, o.Accel, strings.TrimSpace(string(id)), device}, "|")
}

func (o ProbeOptions) device() string { return nonEmpty(o.Device, "/dev/kvm") }

// Probe decides by running a guest. A device node proves nothing: there are
// hosts where /dev/kvm opens, creates machines, and then hangs or aborts them.
// KVM is used only if the guest ran under it, with the CPU model that will be
// used, and faster than under TCG. An accelerator that is demanded must have run
// the guest as well, and there is no other in its place.
func Probe(ctx context.Context, o ProbeOptions) (Accel, error) {
	if probeGuest[o.Arch] == nil {
		return Accel{}, fmt.Errorf("qemu: unknown architecture %q; known are amd64 and arm64", o.Arch)
	}
	if o.Accel == "kvm" {
		return o.forcedKVM(ctx)
	}
	tcg, err := o.try(ctx, "tcg", time.Minute)
	if err != nil {
		return Accel{}, fmt.Errorf("the trial guest does not run under TCG: %w", err)
	}
	if o.Accel == "tcg" {
		tcg.Why = "it was forced, and KVM was not tried"
		return tcg, nil
	}
	if runtime.GOARCH != o.Arch {
		tcg.Why = fmt.Sprintf("an %s guest on an %s host is emulated", o.Arch, runtime.GOARCH)
		return tcg, nil
	}
	if _, err := os.Stat(o.device()); err != nil {
		tcg.Why = fmt.Sprintf("no KVM: %v", err)
		return tcg, nil
	}
	kvm, err := o.try(ctx, "kvm", o.limit())
	return choose(tcg, kvm, err, o.device()), nil
}

func (o ProbeOptions) limit() time.Duration {
	if o.Limit == 0 {
		return 5 * time.Second
	}
	return o.Limit
}

// ProblemOfAccel says why no host of this architecture can give guests of arch
// the accelerator that was demanded; empty: one can.
func ProblemOfAccel(accel, arch string) string {
	switch {
	case accel != "" && accel != "tcg" && accel != "kvm":
		return fmt.Sprintf("unknown accelerator %q; known are tcg and kvm, and nothing lets a trial guest find out", accel)
	case accel == "kvm" && arch != runtime.GOARCH:
		return fmt.Sprintf("KVM was forced, but an %s guest on an %s host can only be emulated; force tcg, or nothing", arch, runtime.GOARCH)
	}
	return ""
}

// forcedKVM is KVM or an error, whatever TCG would have done.
func (o ProbeOptions) forcedKVM(ctx context.Context) (Accel, error) {
	if problem := ProblemOfAccel(o.Accel, o.Arch); problem != "" {
		return Accel{}, errors.New(problem)
	}
	kvm, err := o.try(ctx, "kvm", o.limit())
	if err != nil {
		return Accel{}, fmt.Errorf("KVM was forced, but the trial guest does not run under it: %w; force tcg, or nothing, to have the machines emulated", err)
	}
	kvm.Why = fmt.Sprintf("it was forced; the trial guest took %v under it", kvm.Took.Round(time.Millisecond))
	return kvm, nil
}

// choose decides between the trials; err is why the one under KVM failed.
func choose(tcg, kvm Accel, err error, device string) Accel {
	switch {
	case err != nil:
		tcg.Why = fmt.Sprintf("%s is there, but the trial guest does not run under it: %v", device, err)
		return tcg
	case kvm.Took >= tcg.Took:
		tcg.Why = fmt.Sprintf("KVM works, but the trial guest took %v under it and %v emulated",
			kvm.Took.Round(time.Millisecond), tcg.Took.Round(time.Millisecond))
		return tcg
	}
	kvm.Why = fmt.Sprintf("the trial guest took %v under KVM and %v emulated",
		kvm.Took.Round(time.Millisecond), tcg.Took.Round(time.Millisecond))
	return kvm
}

// trialGrace is how long a trial guest's QEMU may take to obey: one that hangs
// has nothing to lose.
const trialGrace = 200 * time.Millisecond

// try runs the trial guest once.
func (o ProbeOptions) try(ctx context.Context, accel string, limit time.Duration) (a Accel, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no end in %v", limit))
	defer cancel()
	kernel := filepath.Join(o.Dir, "trial-"+accel)
	if err := os.WriteFile(kernel, probeGuest[o.Arch], 0o644); err != nil {
		return Accel{}, err
	}
	began := time.Now()
	a = Accel{Name: accel, CPU: DefaultCPU(o.Arch, accel)}
	v, err := Start(ctx, Config{Name: "trial", Binary: o.Binary, Arch: o.Arch, Accel: accel, CPU: a.CPU, MemoryMiB: 64, Kernel: kernel, Grace: trialGrace})
	if err != nil {
		return Accel{}, err
	}
	said := make(chan string, 1)
	go func() {
		// A line that ends early is an empty answer, which is judged below.
		text, _ := bufio.NewReader(v.Serial()).ReadString('\n')
		said <- text
	}()
	err = v.Resume(ctx)
	if err == nil {
		select {
		case <-v.Done():
			a.Took = time.Since(began)
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
	}
	err = errors.Join(err, v.Close())
	text := <-said
	if err == nil && strings.TrimSpace(text) != "OK" {
		err = fmt.Errorf("it said %q, not OK; %s", text, v.Exit())
	}
	return a, err
}

package qemu

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// DiskError is a fault of a disk: requests of one kind that fail. All of the
// machine's are counted: those of the firmware, of the boot loader and of the
// loader that is packed with a kernel for amd64, which reads every disk once
// (edd=off on the kernel's command line keeps it from that).
type DiskError struct {
	Write bool          // writes fail; otherwise reads
	After int           // how many succeed before; 0: none
	Once  bool          // one fails; otherwise all from there on
	Errno syscall.Errno // 0: EIO. ENOSPC is a disk that is full
}

// countless is a disk's geometry, as every disk of more than 8 GB says it
// (ATA/ATAPI-5, 6.2.1). QEMU would otherwise guess one from the disk's first
// block, and that read would count, and fail, before the machine has started.
const countless = ",cyls=16383,heads=16,secs=63"

// zeroless keeps the guest from writing by requests that are no writes to
// blkdebug's rules: a file system would zero and discard blocks of a disk that
// is to fail every write, and succeed.
const zeroless = ",discard=off,write-zeroes=off"

// maxErrorAfter bounds DiskError.After: QEMU is told of every request that
// succeeds before, in its command line.
const maxErrorAfter = 1000

func (e DiskError) problem() string {
	if e.After < 0 || e.After > maxErrorAfter {
		return fmt.Sprintf("an error after %d requests; 0 to %d can be counted", e.After, maxErrorAfter)
	}
	return ""
}

// options are blkdebug's (QEMU, docs/devel/blkdebug.rst): a state machine that
// counts requests, from state 1 on, and one rule that fails them.
func (e DiskError) options(prefix string) string {
	event, kind := "read_aio", "read" // a rule that its event has made active counts for requests of all kinds, if none is named
	if e.Write {
		event, kind = "write_aio", "write"
	}
	errno := e.Errno
	if errno == 0 {
		errno = syscall.EIO
	}
	var b strings.Builder
	for i := range e.After {
		fmt.Fprintf(&b, ",%sset-state.%d.event=%s,%sset-state.%d.state=%d,%sset-state.%d.new_state=%d", prefix, i, event, prefix, i, i+1, prefix, i, i+2)
	}
	once := "off"
	if e.Once {
		once = "on"
	}
	fmt.Fprintf(&b, ",%sinject-error.0.event=%s,%sinject-error.0.state=%d,%sinject-error.0.errno=%d,%sinject-error.0.once=%s,%sinject-error.0.immediately=off,%sinject-error.0.iotype=%s",
		prefix, event, prefix, e.After+1, prefix, int(errno), prefix, once, prefix, prefix, kind)
	return b.String()
}

// Reset presses the reset button. Machines are started with -no-reboot, so it
// ends QEMU, for ReasonButton; now and then before QEMU has answered.
func (v *VM) Reset(ctx context.Context) error {
	err := v.qmp.Do(ctx, "system_reset", nil, nil)
	if errors.Is(err, ErrMonitorGone) {
		select {
		case <-v.done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if v.Exit().Reason == ReasonButton {
			return nil
		}
	}
	return err
}

// PowerButton presses the power button, which a guest with ACPI may heed.
func (v *VM) PowerButton(ctx context.Context) error {
	return v.qmp.Do(ctx, "system_powerdown", nil, nil)
}

// NMI sends every processor a non-maskable interrupt.
func (v *VM) NMI(ctx context.Context) error { return v.qmp.Do(ctx, "inject-nmi", nil, nil) }

// CtrlAltDel presses these keys together. Only the amd64 board has a keyboard.
func (v *VM) CtrlAltDel(ctx context.Context) error {
	var keys []map[string]string
	for _, k := range []string{"ctrl", "alt", "delete"} {
		keys = append(keys, map[string]string{"type": "qcode", "data": k})
	}
	return v.qmp.Do(ctx, "send-key", map[string]any{"keys": keys}, nil)
}

// Link pulls the cable of the n-th network card (from 0), or puts it back.
func (v *VM) Link(ctx context.Context, nic int, up bool) error {
	return v.qmp.Do(ctx, "set_link", map[string]any{"name": nicID(nic), "up": up}, nil)
}

// LeaveMemory leaves the guest so much of its memory, in MiB, by inflating its
// balloon, which must be in the configuration; all of it, by deflating it. The
// guest's driver obeys as fast as it can find free pages.
func (v *VM) LeaveMemory(ctx context.Context, mib int) error {
	if !v.config.Balloon {
		return errors.New("qemu: the machine has no balloon to take its memory away with: set Balloon")
	}
	if all := v.config.memory(); mib < 1 || mib > all {
		return fmt.Errorf("qemu: the machine has %d MiB of memory, and cannot be left with %d", all, mib)
	}
	return v.qmp.Do(ctx, "balloon", map[string]any{"value": int64(mib) << 20}, nil)
}

// disk is the n-th disk's configuration.
func (v *VM) disk(n int) (Disk, error) {
	if n < 0 || n >= len(v.config.Disks) {
		return Disk{}, fmt.Errorf("qemu: there is no disk %d; there are %d, from 0", n, len(v.config.Disks))
	}
	return v.config.Disks[n], nil
}

// Pull takes the n-th disk (from 0) away from the running machine. Its requests
// fail from then on. A removable one also vanishes from the guest, and Pull
// waits until the guest has let go of it.
func (v *VM) Pull(ctx context.Context, n int) error {
	d, err := v.disk(n)
	if err != nil {
		return err
	}
	var refusal string // the command for people is the only one that takes a disk that is in use
	if err := v.qmp.Do(ctx, "human-monitor-command", map[string]any{"command-line": "drive_del " + diskID(n)}, &refusal); err != nil {
		return err
	}
	if refusal != "" {
		return fmt.Errorf("qemu: disk %d: %s", n, strings.TrimSpace(refusal))
	}
	if !d.Removable {
		return nil
	}
	if err := v.qmp.Do(ctx, "device_del", map[string]any{"id": removableID(n)}, nil); err != nil {
		return err
	}
	for i := 0; ; i++ {
		e, ok := v.qmp.event(ctx, i)
		if !ok {
			return fmt.Errorf("qemu: disk %d: the guest does not let go of it: %w", n, cmp.Or(context.Cause(ctx), ErrMonitorGone))
		}
		if e.Event == "DEVICE_DELETED" && e.Data["device"] == removableID(n) {
			return nil
		}
	}
}

// Resize makes the n-th disk (from 0) of the running machine bigger, in bytes,
// and tells the guest. Its file grows, unless it is a snapshot. A size that is
// no multiple of 512 or would cut off data is an error.
func (v *VM) Resize(ctx context.Context, n int, size int64) error {
	d, err := v.disk(n)
	if err != nil {
		return err
	}
	if d.Volatile || d.ReadOnly {
		return fmt.Errorf("qemu: disk %d is volatile or read-only, and keeps its size", n)
	}
	var blocks []struct {
		Device   string `json:"device"`
		Inserted *struct {
			Image struct {
				Size int64 `json:"virtual-size"`
			} `json:"image"`
		} `json:"inserted"`
	}
	if err := v.qmp.Do(ctx, "query-block", nil, &blocks); err != nil {
		return err
	}
	for _, b := range blocks {
		if b.Device != diskID(n) || b.Inserted == nil {
			continue
		}
		if now := b.Inserted.Image.Size; size < now || size%512 != 0 {
			return fmt.Errorf("qemu: disk %d has %d bytes; it can get more, a multiple of 512, not %d", n, now, size)
		}
		return v.qmp.Do(ctx, "block_resize", map[string]any{"device": diskID(n), "size": size}, nil)
	}
	return fmt.Errorf("qemu: disk %d was pulled", n)
}

// inherit is the volatile disk's connection to this process.
func (d Disk) inherit(i int) inherited {
	placeholder := fmt.Sprintf("@disk%d@", i)
	return inherited{
		placeholder: placeholder,
		option:      "file.driver=nbd,file.server.type=fd,file.server.str=" + placeholder,
		byHand:      d.Source(),
	}
}

// file is how QEMU reaches the disk's file: through blkdebug, if it must fail,
// and through this process, if it must lose writes.
func (d Disk) file(i int) string {
	if d.Volatile {
		return d.inherit(i).option
	}
	if d.Error == nil {
		return d.Source()
	}
	return "file.driver=blkdebug,file.image." + strings.Replace(d.Source(), "file=", "filename=", 1) + ",file.image.driver=file" +
		d.Error.options("file.") + ",werror=report,rerror=report"
}

// throttle is the disk's speed limit, as options.
func (d Disk) throttle() string {
	if d.BytesPerSecond == 0 {
		return ""
	}
	return ",throttling.bps-total=" + strconv.Itoa(d.BytesPerSecond)
}

// StoppedByFullHost is the file of the disk for whose writes the host had no
// room; empty: there was none. QEMU has stopped the machine then, and says so on
// its monitor only (QEMU, qapi/block-core.json, BLOCK_IO_ERROR): to whoever
// watches the machine it has gone silent.
func (v *VM) StoppedByFullHost() string {
	for _, e := range v.qmp.past() {
		if e.Event != "BLOCK_IO_ERROR" || e.Data["nospace"] != true || e.Data["action"] != "stop" {
			continue
		}
		for i, d := range v.config.Disks {
			switch {
			case e.Data["device"] != diskID(i):
			case d.Snapshot:
				return fmt.Sprintf("a temporary overlay of %s, in %s", d.Path, os.TempDir())
			default:
				return d.Path
			}
		}
		return fmt.Sprintf("drive %v", e.Data["device"])
	}
	return ""
}

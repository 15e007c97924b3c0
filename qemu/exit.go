package qemu

import (
	"fmt"
	"strings"
	"syscall"
)

// Reasons of QEMU's SHUTDOWN event (QEMU, qapi/run-state.json, ShutdownCause).
const (
	ReasonShutdown = "guest-shutdown"        // the guest powered itself off
	ReasonReset    = "guest-reset"           // the guest reset: a reboot, or a panic with panic=-1
	ReasonPanic    = "guest-panic"           // a pvpanic device said so
	ReasonButton   = "host-qmp-system-reset" // VM.Reset
	ReasonQuit     = "host-qmp-quit"         // a monitor command
	ReasonSignal   = "host-signal"           // SIGTERM, SIGINT or SIGHUP from the host
)

// Exit is how QEMU ended.
type Exit struct {
	Status    int    // exit status; -1 if it was killed by a signal
	Signal    string // "SIGKILL" and the like, if it was killed
	Reason    string // of the last SHUTDOWN event; empty: there was none
	Stderr    string // the end of what QEMU said
	Requested bool   // Quit or Close asked for it
	PowerCut  bool   // PowerCut did it
}

// Exit says how QEMU ended. It is meaningful only after Done.
func (v *VM) Exit() Exit {
	v.mu.Lock()
	e := Exit{Stderr: v.stderr.String(), Requested: v.requested, PowerCut: v.cut}
	state := v.ended
	v.mu.Unlock()
	if state != nil {
		e.Status = state.ExitCode()
		if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			e.Signal = signalName(ws.Signal())
		}
		// The process has ended, and its reason may still lie in the socket.
		<-v.qmp.gone
	}
	for _, event := range v.qmp.past() {
		if event.Event == "SHUTDOWN" {
			e.Reason, _ = event.Data["reason"].(string)
		}
	}
	return e
}

func signalName(s syscall.Signal) string {
	names := map[syscall.Signal]string{
		syscall.SIGKILL: "SIGKILL", syscall.SIGTERM: "SIGTERM", syscall.SIGSEGV: "SIGSEGV",
		syscall.SIGABRT: "SIGABRT", syscall.SIGBUS: "SIGBUS", syscall.SIGILL: "SIGILL", syscall.SIGFPE: "SIGFPE", syscall.SIGTRAP: "SIGTRAP",
		syscall.SIGINT: "SIGINT", syscall.SIGHUP: "SIGHUP",
	}
	if name, ok := names[s]; ok {
		return name
	}
	return fmt.Sprintf("signal %d", int(s))
}

// ByGuest reports whether the guest itself ended the machine.
func (e Exit) ByGuest() bool {
	return e.Signal == "" && e.Status == 0 && (e.Reason == ReasonShutdown || e.Reason == ReasonReset || e.Reason == ReasonPanic)
}

// killed puts a signal into words: some a program sends itself when it breaks.
func killed(signal string) string {
	switch signal {
	case "SIGABRT", "SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGTRAP":
		return "QEMU crashed with " + signal
	}
	return "QEMU was killed by " + signal + " from outside"
}

// String puts the end into words.
func (e Exit) String() string {
	switch {
	case e.Signal != "" && e.PowerCut:
		return "the power was cut"
	case e.Signal != "" && e.Requested:
		return "QEMU was ended by the harness with " + e.Signal
	case e.Signal != "":
		return killed(e.Signal)
	case e.Status != 0:
		return strings.TrimRight(fmt.Sprintf("QEMU exited with status %d: %s", e.Status, strings.TrimSpace(e.Stderr)), ": ")
	}
	switch e.Reason {
	case ReasonShutdown:
		return "the machine powered itself off"
	case ReasonReset:
		return "the machine reset (a reboot, or a panic)"
	case ReasonPanic:
		return "the kernel panicked"
	case ReasonButton:
		return "the reset button was pressed"
	}
	if e.Requested {
		return "QEMU was ended by the harness"
	}
	switch e.Reason {
	case ReasonQuit, ReasonSignal:
		return "QEMU was told to end from outside (" + e.Reason + ")"
	}
	return "QEMU ended without giving a reason"
}

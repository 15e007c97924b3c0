// Package harness boots a machine from a plan, listens to its console, judges
// how it fares and keeps the evidence.
//
// The engine knows nothing of test frameworks: package suite adapts it to
// Ginkgo, the command-line tool uses it as it is.
//
// # A verdict names its cause
//
// Nothing in this package reports a bare timeout. A wait for a milestone, a
// text or a command ends in one of these ways, each within seconds of the
// thing happening:
//
//   - it came;
//   - a fatal fault was recognised on the console: the fault is the cause;
//   - QEMU ended: by itself, by the guest, or killed from outside;
//   - the machine made no progress for Patience.Quiet: it has stalled, and the
//     verdict says after which milestone and what it printed last;
//   - the caller's context ended.
//
// The answer is a [*Failure]. Its Class says whose fault it is: the guest's
// (the thing under test), ours (infra), nobody's that can be shown (stalled)
// or the spec's (misuse).
//
// # Life of a machine
//
// [Boot] starts QEMU paused, attaches to the serial line and to QMP, and then
// lets it run, so that not even the first byte is lost. [Machine.Await] waits
// for milestones, [Machine.Exec] runs commands inside through the agent,
// [Machine.PowerOff] asks for a clean end and proves it, [Machine.Close] ends
// whatever is left and completes the evidence. Close must always be called.
package harness

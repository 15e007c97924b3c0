package console

import "regexp"

// Severity says what a fault means for the machine.
type Severity int

// The severities.
const (
	Note    Severity = iota // worth keeping
	Warning                 // wrong, and survived
	Fatal                   // the machine cannot be trusted any more
)

// Blame says whose fault it is, in the words of reports.Class.
type Blame string

// The parties.
const (
	Guest  Blame = "guest"
	Infra  Blame = "infra"
	Misuse Blame = "misuse"
)

// Rule recognises one kind of fault by a console line.
type Rule struct {
	Name     string
	Literal  string           // must be in the line; looked for first, because it is cheap
	Match    *regexp.Regexp   // must match the line
	Except   []*regexp.Regexp // must not match it
	Title    string           // with $1 and so on from Match
	Severity Severity
	Lines    int            // how many lines belong to it at most, its own included; 0: 1
	End      *regexp.Regexp // its last line
}

// Rule names that code refers to.
const (
	RulePanic        = "panic"
	RuleInitDied     = "init-died"
	RuleNoRoot       = "no-root"
	RuleReset        = "reset"
	RuleConsoleOrder = "console-order"
	RuleHalted       = "halted"
	RuleUnit         = "unit-failed"
	RuleMilestone    = "milestone-failed"
	RuleWarned       = "warned"
	RuleDamaged      = "event-damaged"
	RuleMissed       = "event-missed"
	RuleVersion      = "event-version"
)

var endOfTrace = regexp.MustCompile(`---\[ end (trace|Kernel panic)`)

// Rules returns the rules for Linux and what runs on it. A line is judged by
// the first that matches.
func Rules() []Rule {
	rule := func(name, literal, match, title string, s Severity, lines int) Rule {
		return Rule{Name: name, Literal: literal, Match: regexp.MustCompile(match), Title: title, Severity: s, Lines: lines}
	}
	trace := func(name, literal, match, title string, s Severity) Rule {
		r := rule(name, literal, match, title, s, 60)
		r.End = endOfTrace
		return r
	}
	return []Rule{
		trace(RuleNoRoot, "Kernel panic", `Kernel panic - not syncing: VFS: Unable to mount root fs on (unknown-block\(0,0\).*)`,
			"no root file system: the kernel was given neither an initramfs nor root= ($1)", Fatal),
		trace(RuleNoRoot, "Kernel panic", `Kernel panic - not syncing: VFS: Unable to mount root fs on (.*)`,
			"no root file system: the kernel cannot mount $1", Fatal),
		trace(RuleNoRoot, "Kernel panic", `Kernel panic - not syncing: No working init found`,
			"no init: the kernel found no program to run as PID 1", Fatal),
		trace(RuleInitDied, "Attempted to kill init!", `Attempted to kill init! exitcode=0x([0-9a-f]{8})`,
			"init died: PID 1 ended (exitcode 0x$1)", Fatal),
		trace("oom", "Kernel panic", `Kernel panic - not syncing: System is deadlocked on memory`,
			"out of memory: the kernel found nothing to kill; give the machine more memory", Fatal),
		trace(RulePanic, "Kernel panic", `Kernel panic - not syncing: (.*)`, "kernel panic: $1", Fatal),
		trace("oops", "BUG: ", `BUG: (unable to handle .*|kernel NULL pointer .*)`, "kernel oops: $1", Fatal),
		trace("oops", "kernel BUG at", `kernel BUG at (\S+)!`, "kernel BUG at $1", Fatal),
		trace("oops", "general protection fault", `general protection fault.*`, "kernel oops: $0", Fatal),
		trace("oops", "Unable to handle kernel", `(Unable to handle kernel .*)`, "kernel oops: $1", Fatal),
		trace("oops", "Internal error", `Internal error: (.*)`, "kernel oops: $1", Fatal),
		trace("lockup", "lockup", `BUG: soft lockup - (CPU#\d+ stuck for \S+)`, "soft lockup: $1", Warning),
		trace("lockup", "LOCKUP", `hard LOCKUP on (cpu \d+)`, "hard lockup on $1", Fatal),
		trace("rcu-stall", "rcu", `rcu\S*: INFO: \S+ (self-)?detected stall.*`, "RCU stall", Warning),
		trace("hung-task", "blocked for more than", `INFO: task (\S+) blocked for more than (\d+) seconds`, "task $1 hangs for more than $2 s", Warning),
		trace("warning", "WARNING: ", `WARNING: CPU: \d+ PID: \d+ at (\S+)`, "kernel warning at $1", Warning),
		rule("oom", "Out of memory", `Out of memory: Killed process \d+ \(([^)]+)\)`, "out of memory: the kernel killed $1", Fatal, 1),
		rule("cgroup-oom", "Memory cgroup out of memory", `Memory cgroup out of memory: Killed process \d+ \(([^)]+)\)`, "out of its cgroup's memory: the kernel killed $1", Warning, 1),
		rule("initramfs", "Initramfs unpacking failed", `Initramfs unpacking failed: (.*)`, "the initramfs could not be unpacked: $1", Fatal, 1),
		rule("segfault", "segfault at", `(\S+)\[\d+\]: segfault at`, "$1 crashed with a segmentation fault", Warning, 2),
		rule("io-error", "I/O error", `I/O error, dev (\S+)`, "I/O error on $1", Warning, 1),
		// It answers no more, and nothing outside tells: QEMU goes on (reboot(2), kernel_halt).
		rule(RuleHalted, "System halted", `reboot: System halted`, "the machine halted: it stands still, and does not power itself off", Fatal, 1),
		rule("no-boot-device", "No bootable device", `No bootable device`, "the firmware found nothing to boot", Fatal, 1),
		rule("go-panic", "goroutine 1 [", `^goroutine \d+ \[.*\]:`, "a Go program panicked", Warning, 30),
		rule("containerd-fatal", "level=fatal", `level=fatal msg="?([^"]*)`, "containerd gave up: $1", Warning, 1),
	}
}

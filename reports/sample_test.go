package reports

import (
	"fmt"
	"strings"
	"time"

	"github.com/seatrial/seatrial/boot"
)

// The samples are fixed in every byte: golden files are made from them.

var sampleStart = time.Date(2026, time.March, 14, 9, 26, 53, 0, time.UTC)

func ms(n int) time.Duration { return time.Duration(n) * time.Millisecond }

// bootScript plays a boot: it writes console lines and marks as time goes by.
type bootScript struct {
	b       Boot
	now     time.Duration
	seq     uint64
	lag     time.Duration // of the guest's clock
	unheard bool          // events happen, but are not on the console
}

func newScript(id string) *bootScript {
	return &bootScript{lag: ms(1850), b: Boot{
		ID: id, Image: "default", Digest: "sha256:5f3c0a9e6d1b27c84e9f0b3d5a7c6e8f9012ab34cd56ef7890a1b2c3d4e5f607", Arch: "amd64",
		Cmdline: "console=tty0 console=ttyS0 printk.devkmsg=on seatrial.agent=ttyS1 panic=5",
		Command: "qemu-system-x86_64 -name " + id + " -machine q35,accel=tcg -cpu max -smp 2 -m 1024 -nodefaults -no-user-config -display none \\\n  -kernel default-kernel -initrd default-initrd.img \\\n  -append 'console=tty0 console=ttyS0 printk.devkmsg=on seatrial.agent=ttyS1 panic=5' -serial stdio -no-reboot",
		Began:   sampleStart,
		Evidence: []Artifact{
			{"serial.log", "machines/" + id + "/serial.log"}, {"console.jsonl", "machines/" + id + "/console.jsonl"},
			{"qemu.stderr", "machines/" + id + "/qemu.stderr"}, {"qmp.jsonl", "machines/" + id + "/qmp.jsonl"},
		},
	}}
}

func (s *bootScript) line(after time.Duration, text string) *bootScript {
	s.now += after
	s.b.Console = append(s.b.Console, Line{N: len(s.b.Console) + 1, Host: s.now, Text: text})
	return s
}

// raw adds a line with escape sequences.
func (s *bootScript) raw(after time.Duration, text, raw string) *bootScript {
	s.line(after, text)
	s.b.Console[len(s.b.Console)-1].Raw = raw
	return s
}

func (s *bootScript) kernel(after time.Duration, text string) *bootScript {
	return s.line(after, fmt.Sprintf("[%12.6f] %s", (s.now+after-s.lag).Seconds(), text))
}

func (s *bootScript) event(after time.Duration, at boot.Milestone, unit string, state boot.State, detail string) *bootScript {
	s.now += after
	s.seq++
	guest := s.now - s.lag
	s.b.Marks = append(s.b.Marks, Mark{At: at, Unit: unit, State: state, Detail: detail, Guest: guest, Host: s.now})
	if unit == "" && state != boot.Began {
		s.b.Reached = at
	}
	if s.unheard {
		return s
	}
	record, err := boot.Event{Speaker: "init", Seq: s.seq, Up: guest, At: at, Unit: unit, State: state, Detail: detail}.AppendText(nil)
	if err != nil {
		panic(err)
	}
	return s.kernel(0, string(record))
}

func (s *bootScript) fault(rule string, class Class, title string, fatal bool, lines int) *bootScript {
	n := len(s.b.Console)
	f := Fault{Rule: rule, Class: class, Title: title, Line: n - lines + 1, Host: s.b.Console[n-lines].Host, Fatal: fatal}
	for _, l := range s.b.Console[n-lines:] {
		f.Lines = append(f.Lines, l.Text)
	}
	s.b.Faults = append(s.b.Faults, f)
	return s
}

func (s *bootScript) end(after time.Duration, how string) Boot {
	s.b.Took, s.b.End = s.now+after, how
	return s.b
}

// firmware and kernel up to PID 1.
func (s *bootScript) toInit() *bootScript {
	s.raw(ms(640), "SeaBIOS (version 1.16.2-debian-1.16.2-1)", "\x1bc\x1b[?7l\x1b[2J\x1b[0mSeaBIOS (version 1.16.2-debian-1.16.2-1)\r")
	s.raw(ms(310), "Booting from ROM..", "\x1b[1mBooting from ROM\x1b[0m..\r")
	s.now = s.lag
	s.b.Marks = append(s.b.Marks, Mark{At: boot.Kernel, State: boot.Done, Host: s.now + ms(20), Implied: true})
	s.b.Reached = boot.Kernel
	s.kernel(ms(20), "Linux version 6.1.0-41-cloud-amd64 (gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0, GNU ld 2.40) #1 SMP PREEMPT_DYNAMIC")
	s.kernel(0, "Command line: "+s.b.Cmdline)
	for i, t := range []string{
		"BIOS-provided physical RAM map:", "BIOS-e820: [mem 0x0000000000000000-0x000000000009fbff] usable", "NX (Execute Disable) protection: active",
		"SMBIOS 3.0.0 present.", "tsc: Fast TSC calibration using PIT", "Zone ranges:", "smpboot: Allowing 2 CPUs, 0 hotplug CPUs",
		"Kernel command line: " + s.b.Cmdline, "Memory: 912340K/1048052K available (14342K kernel code, 2377K rwdata, 8916K rodata)",
		"rcu: Hierarchical RCU implementation.", "printk: console [tty0] enabled", "printk: console [ttyS0] enabled",
		"smpboot: CPU0: QEMU TCG CPU version 2.5+ (family: 0x6, model: 0x6, stepping: 0x3)", "Trying to unpack rootfs image as initramfs...",
		"Freeing initrd memory: 118212K", "serial8250: ttyS0 at I/O 0x3f8 (irq = 4, base_baud = 115200) is a 16550A", "Freeing unused kernel image (initmem) memory: 2796K",
	} {
		s.kernel(ms(90+i*23%160), t)
	}
	s.kernel(ms(700), "Run /init as init process")
	return s.event(ms(160), boot.Init, "", boot.Done, "build 5f3c0a9e, console ttyS0")
}

func (s *bootScript) toMounts() *bootScript {
	s.event(ms(12), boot.Mounts, "", boot.Began, "")
	return s.event(ms(180), boot.Mounts, "", boot.Done, "")
}

func (s *bootScript) toOnboot() *bootScript {
	s.event(ms(15), boot.Modules, "", boot.Began, "")
	s.kernel(ms(210), "virtio_blk virtio1: 2/0/0 default/read/poll queues")
	s.kernel(ms(90), "virtio_net virtio0 eth0: renamed from eth0")
	s.event(ms(620), boot.Modules, "", boot.Done, "14 modules")
	s.event(ms(55), boot.System, "", boot.Done, "host name linuxkit")
	s.event(ms(10), boot.Onboot, "", boot.Began, "")
	s.event(ms(30), boot.Onboot, "000-sysctl", boot.Began, "")
	s.event(ms(480), boot.Onboot, "000-sysctl", boot.Exited, "")
	s.event(ms(20), boot.Onboot, "001-dhcpcd", boot.Began, "")
	s.line(ms(400), "eth0: soliciting a DHCP lease")
	s.line(ms(380), "eth0: leased 10.0.2.15 for 86400 seconds")
	s.event(ms(70), boot.Onboot, "001-dhcpcd", boot.Exited, "")
	return s.event(ms(5), boot.Onboot, "", boot.Done, "2 containers")
}

func (s *bootScript) toReady() *bootScript {
	s.event(ms(10), boot.Containerd, "", boot.Began, "")
	s.event(ms(40), boot.Containerd, "containerd", boot.Running, "pid 312")
	s.raw(ms(610), `INFO[0000] starting containerd  revision=4a1b7cd version=v2.4.2`, "\x1b[36mINFO\x1b[0m[0000] starting containerd  \x1b[36mrevision\x1b[0m=4a1b7cd \x1b[36mversion\x1b[0m=v2.4.2\r")
	s.raw(ms(110), `WARN[0000] failed to load plugin  error="no aufs support"`, "\x1b[33mWARN\x1b[0m[0000] failed to load plugin  \x1b[33merror\x1b[0m=\"no aufs support\"\r")
	s.raw(ms(90), `INFO[0000] containerd successfully booted in 0.204s`, "\x1b[36mINFO\x1b[0m[0000] containerd successfully booted in 0.204s\r")
	s.event(ms(170), boot.Containerd, "", boot.Done, "")
	s.event(ms(5), boot.Services, "", boot.Began, "")
	s.event(ms(330), boot.Services, "getty", boot.Running, "pid 401")
	s.event(ms(120), boot.Services, "web", boot.Running, "pid 433")
	s.event(ms(20), boot.Services, "", boot.Done, "2 of 2 services run")
	s.event(ms(4), boot.Ready, "", boot.Done, "")
	s.line(ms(40), "").line(0, "Welcome to LinuxKit").line(0, "").line(ms(10), "linuxkit login: root (automatic login)")
	return s.raw(ms(130), "(ns: getty) linuxkit-0242ac110002:~# ", "\x1b[32m(ns: getty)\x1b[0m \x1b[1;34mlinuxkit-0242ac110002\x1b[0m:~# ")
}

func goodBoot(id string) Boot {
	s := newScript(id).toInit().toMounts().toOnboot().toReady()
	s.kernel(ms(24000), "clocksource: timekeeping watchdog on CPU1: Marking clocksource 'tsc' as unstable because the skew is too large:")
	s.kernel(0, "clocksource: 'hpet' wd_nsec: 512004810 wd_now: 1fe23aa9 wd_last: 1f2adc31 mask: ffffffff")
	s.fault("clocksource", Infra, "the TSC was found unstable: this host is overloaded", false, 2)
	for i := range 12 {
		s.line(ms(2900+i*170), fmt.Sprintf("web: 10.0.2.2 GET /index.html 200 %d", 21+i))
	}
	s.event(ms(61000), boot.Shutdown, "", boot.Done, "poweroff")
	s.event(ms(900), boot.Off, "", boot.Done, "")
	s.kernel(ms(60), "reboot: Power down")
	return s.end(ms(80), "powered off by the guest")
}

func panicBoot(id string) Boot {
	s := newScript(id).toInit()
	s.kernel(ms(220), "Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100")
	for _, t := range []string{
		"CPU: 0 PID: 1 Comm: init Not tainted 6.1.0-41-cloud-amd64 #1  Debian 6.1.158-1", "Hardware name: QEMU Standard PC (Q35 + ICH9, 2009), BIOS 1.16.2-debian-1.16.2-1 04/01/2014",
		"Call Trace:", " <TASK>", " dump_stack_lvl+0x44/0x5c", " panic+0x118/0x2ed", " do_exit.cold+0x15/0x15", " do_group_exit+0x2d/0x90",
		" __x64_sys_exit_group+0x14/0x20", " do_syscall_64+0x59/0xb0", " entry_SYSCALL_64_after_hwframe+0x6e/0xd8", " </TASK>",
		"Kernel Offset: 0x2c00000 from 0xffffffff81000000", "---[ end Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100 ]---",
	} {
		s.kernel(ms(3), t)
	}
	s.fault("init-killed", Guest, "kernel panic: init exited with status 1", true, 15)
	b := s.end(ms(5000), "reset by the guest (panic)")
	b.Class, b.Verdict, b.Wanted = Guest, "kernel panic: init exited with status 1", boot.Ready
	return b
}

func silentBoot(id string) Boot {
	b := newScript(id).toInit().toMounts().end(ms(60000), "stopped by the harness")
	b.Class, b.Verdict, b.Wanted = Stalled, "no progress for 1m0s after mounts", boot.Ready
	return b
}

func brokenContainerd(id string) Boot {
	s := newScript(id).toInit().toMounts().toOnboot()
	s.event(ms(10), boot.Containerd, "", boot.Began, "")
	s.event(ms(40), boot.Containerd, "containerd", boot.Running, "pid 312")
	s.raw(ms(300), `ERRO[0000] failed to create TTRPC connection  error="listen unix: address already in use"`, "\x1b[31mERRO\x1b[0m[0000] failed to create TTRPC connection  \x1b[31merror\x1b[0m=\"listen unix: address already in use\"\r")
	s.line(ms(4), "containerd: failed to load TOML: /etc/containerd/config.toml: (12, 3): unexpected token")
	s.fault("containerd-fatal", Guest, "containerd exited with status 1 before its socket answered", true, 2)
	s.event(ms(30), boot.Containerd, "containerd", boot.Failed, "exit status 1")
	s.event(ms(5), boot.Containerd, "", boot.Failed, "containerd exited with status 1: failed to load TOML")
	s.event(ms(5), boot.Services, "", boot.Failed, "containerd is down")
	s.event(ms(5), boot.Ready, "", boot.Failed, "services are down")
	b := s.end(ms(2100), "stopped by the harness")
	b.Class, b.Verdict = Guest, "containerd exited with status 1 before its socket answered"
	return b
}

// sampleRun is a run with all sorts of cases.
func sampleRun() Run {
	r := Run{
		ID: "20260314-092653", Title: "LinuxKit default image", Began: sampleStart, Took: 4*time.Minute + ms(12345), Boots: map[string]Boot{},
		Host: Host{OS: "Debian GNU/Linux 12", Arch: "amd64", CPUs: 2, MemoryMiB: 7953, QEMU: "7.2.22", Guest: "amd64", Accelerator: "tcg",
			AccelWhy: "/dev/kvm opens, but the probe guest printed nothing under it in 3s", Scale: "1.4, from a probe that took 182ms"},
		Inputs: []Input{
			{"kernel", "deb", "linux-image-6.1.0-41-cloud-amd64", "6.1.158-1", "sha256:" + strings.Repeat("1a2b3c4d", 8), ""},
			{"containerd", "go", "github.com/containerd/containerd/v2", "v2.4.2", "h1:kJq2bqGdTt1mO4vQ0yX8c3YB1pWm7Zq0n9Vx4u1k2aE=", ""},
			{"runc", "deb", "runc", "1.1.5+ds1-1+deb12u1", "sha256:" + strings.Repeat("5e6f7a8b", 8), ""},
		},
	}
	for i, b := range []Boot{goodBoot("default"), panicBoot("init-exits"), silentBoot("no-modules"), brokenContainerd("bad-config"), goodBoot("state-disk")} {
		b.Began = sampleStart.Add(time.Duration(i) * 31 * time.Second)
		r.Boots[b.ID] = b
	}
	add := func(topic, name string, took time.Duration, machine string, labels ...string) *Case {
		c := Case{Path: []string{topic, name}, Where: fmt.Sprintf("cases/%s_test.go:%d", strings.Fields(topic)[0], 20+len(r.Cases)*9),
			Labels: labels, Outcome: Passed, Began: sampleStart.Add(time.Duration(len(r.Cases)) * time.Second), Took: took, BootIDs: []string{machine}}
		c.Evidence = r.Boots[machine].Evidence
		r.Cases = append(r.Cases, c)
		return &r.Cases[len(r.Cases)-1]
	}
	fail := func(c *Case, class Class, title, awaited, text string) {
		c.Outcome, c.Class, c.Title, c.Awaited, c.Failure = Failed, class, title, awaited, text
	}
	add("init", "is the shipped one and PID 1", ms(210), "default", "faq-1")
	add("init", "needs no disk at all", ms(95), "default", "faq-1")
	fail(add("init", "keeps the machine up when a child dies", ms(11400), "init-exits", "faq-1", "negative"), Guest,
		"kernel panic: init exited with status 1", "ready", "guest: kernel panic: init exited with status 1\nmachine init-exits reached init, awaited ready")
	fail(add("init", "loads the modules of the present devices", ms(66000), "no-modules"), Stalled, "no progress for 1m0s after mounts", "ready", "")
	add("console", "shows init and containerd with ttyS0 last", ms(130), "default", "faq-2")
	add("console", "names the order as the cause with tty0 last", ms(17200), "default", "faq-2", "negative")
	add("containerd", "takes --log-level from cliopts", ms(14100), "default", "faq-4")
	fail(add("containerd", "survives a broken config.toml", ms(9800), "bad-config", "faq-7"), Guest,
		"containerd exited with status 1 before its socket answered", "the service web", "guest: containerd exited with status 1 before its socket answered")
	fail(add("containerd", "names file, line and column of the mistake", ms(40), "bad-config", "faq-7"), Guest,
		"containerd exited with status 1 before its socket answered", "a console line with config.toml:12:3", "")
	for i, s := range []string{"getty", "web"} {
		add("services", "lists "+s+" as RUNNING with a live PID", ms(300+i*77), "default", "faq-10")
	}
	fail(add("services", "serves the index page", ms(900), "default", "faq-10"), Guest, "Expected <string>: seatrial wbe", "",
		"Expected\n    <string>: seatrial wbe\nto contain substring\n    <string>: seatrial web\nat cases/services_test.go:118")
	add("services", "gives a shell with tasks exec --tty", ms(1400), "default", "faq-12")
	add("state disk", "keeps its data across an image update", ms(31000), "state-disk", "faq-14", "slow")
	skipped := add("state disk", "keeps its data on a new machine", 0, "state-disk", "faq-14")
	skipped.Outcome, skipped.Title, skipped.BootIDs = Skipped, "the spec before it in this ordered group failed", nil
	r.Planned = len(r.Cases)
	r.Judge()
	return r
}

// passedRun is the smallest run that proves anything.
func passedRun() Run {
	r := sampleRun()
	r.Cases, r.Planned, r.Failure = r.Cases[:2], 2, ""
	r.Boots = map[string]Boot{"default": r.Boots["default"]}
	r.Judge()
	return r
}

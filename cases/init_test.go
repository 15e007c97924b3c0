package cases

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/seatrial/seatrial/boot"
	"github.com/seatrial/seatrial/harness"
	"github.com/seatrial/seatrial/harness/suite"
	"github.com/seatrial/seatrial/images"
	"github.com/seatrial/seatrial/reports"
)

// failing lets a machine whose containers fail on purpose go on.
func failing(p *harness.Plan) { p.Expect = []string{"unit-failed", "milestone-failed", "warned"} }

// inOrder asserts that from the first console line that starts with the first
// text on, lines that start with the others came in this order.
func inOrder(vm *harness.Machine, starts ...string) {
	GinkgoHelper()
	var got []string
	for _, l := range vm.Console().Lines() {
		for _, s := range starts {
			if strings.HasPrefix(l.Text, s) && !slices.Contains(got, s) && (len(got) > 0 || s == starts[0]) {
				got = append(got, s)
			}
		}
	}
	Expect(got).To(Equal(starts))
}

var _ = Describe("the shipped init", Ordered, func() {
	var vm *harness.Machine

	BeforeAll(func(ctx SpecContext) {
		vm = trial.Boot(ctx, build(ctx, "init.yml"), failing)
		Expect(vm.Await(ctx, boot.Ready)).To(Succeed())
	}, NodeTimeout(5*time.Minute))

	It("names an onboot container that fails with status, signal or runc's reason, and goes on", func() {
		Expect(vm).To(suite.Print(`^onboot 000-fails: exit status 3\b`))
		Expect(vm).To(suite.Print(`^onboot 001-killed: signal: killed\b`))
		Expect(vm).To(suite.Print(`^onboot 002-no-program: runc: .*/nonesuch.*(?i:no such file)`))
		Expect(vm).To(suite.Print(`^onboot 005-nowhere: runtime\.json mkdir: .*/srv.*: read-only file system\b`))
		Expect(vm).NotTo(suite.Print(`^must not run|^onboot 003-wired: (exit|runc|signal)`))
		inOrder(vm, "onboot 000-fails: from /containers/onboot/000-fails", "onboot 001-killed: from", "onboot 002-no-program: from", "onboot 003-wired: from", "onboot 004-shelf: from", "onboot 005-nowhere: from")
		e, ok := vm.Console().Milestone(boot.Onboot)
		Expect(ok).To(BeTrue())
		Expect(e.State).To(Equal(boot.Failed))
		Expect(e.Detail).To(And(ContainSubstring("000-fails: exit status 3"), Not(ContainSubstring("003-wired"))))
	})

	It("keeps an onboot container's output in files and shows it when it has ended", func(ctx SpecContext) {
		inOrder(vm, "onboot 000-fails: from", "to the one", "to the other", "onboot 000-fails: exit status 3")
		Expect(run(ctx, vm, "@cat", "/run/log/onboot/onboot.000-fails.out.log")).To(Equal("to the one\n"))
		Expect(run(ctx, vm, "@cat", "/var/log/onboot/onboot.000-fails.log")).To(Equal("to the other\n"))
		Expect(run(ctx, vm, "runc", "list", "-q")).To(BeEmpty())   // each was deleted
		Expect(vm).To(suite.Print(`^onboot 000-fails: running\b`)) // linuxkit.runc_debug=1
	}, SpecTimeout(2*time.Minute))

	It("carries out the whole runtime.json", func(ctx SpecContext) {
		Expect(vm).To(suite.Print(`^Created interface dummy7 type dummy\b`))
		Expect(vm).To(suite.Print(`^Created interface moved7 type dummy\b`))
		for _, moved := range []string{"inside7", "moved7", "dummy0"} {
			Expect(count(vm, `^Moved interface `+moved+` to pid \d+\b`)).To(Equal(1), moved)
		}
		Expect(vm).NotTo(suite.Print(`^Created interface dummy0|^Moved interface dummy7`))
		Expect(run(ctx, vm, "@cat", "/run/log/onboot/onboot.003-wired.out.log")).To(And(
			ContainSubstring("dummy7\n"), ContainSubstring("inside7\n"), ContainSubstring("moved7\n"), ContainSubstring("dummy0\n"),
			ContainSubstring("inside\n"), Not(ContainSubstring("outside7"))))
		Expect(run(ctx, vm, "@cat", "/proc/self/mounts")).To(And(
			MatchRegexp(`(?m)^nsfs /run/netns/wired nsfs `), MatchRegexp(`(?m)^tmpfs /run/made tmpfs rw,nodev,relatime,size=1024k`),
			Not(ContainSubstring(" /containers/onboot/003-wired/rootfs ")))) // a mount of its own is gone with it
		Expect(run(ctx, vm, "@ls", "/sys/fs/cgroup")).To(ContainSubstring("named-group/"))
		// The container has gone; its namespace lives by its name, and the veth with it.
		Expect(run(ctx, vm, "@ls", "/sys/class/net")).To(And(ContainSubstring("outside7"), Not(ContainSubstring("dummy7"))))
	}, SpecTimeout(2*time.Minute))

	It("runs the entries of other images in init.d at their place, and its own phases once", func() {
		inOrder(vm, "script early", "onboot 000-fails: from", "script between", "init: /etc/init.d/015-between: exit status 4", "service web: running", "script late", "init: ready")
		Expect(vm).NotTo(suite.Print(`010-onboot`))
		Expect(count(vm, `^onboot 000-fails: from`)).To(Equal(1))
	})

	It("says one line per service and the counts at the end of the boot", func() {
		Expect(count(vm, `^service web: running, pid \d+\b`)).To(Equal(1))
		Expect(vm).To(suite.Print(`^service broken: starting the task: .*/nonesuch|^service broken: creating the task: .*/nonesuch`))
		Expect(vm).NotTo(suite.Print(`^service broken: running`))
		e, ok := vm.Console().Milestone(boot.Services)
		Expect(ok).To(BeTrue())
		Expect(e.Detail).To(And(ContainSubstring("broken: "), Not(ContainSubstring("web"))))
		Expect(vm).To(suite.Print(`^init: ready after .*6 services started, 1 failed`))
	})

	It("starts a service again as its annotation says, and no other", func(ctx SpecContext) {
		awaitLine(ctx, vm, `^service flaky: exit status 9; started again in 200ms \(restart on-failure\)`)
		Expect(count(vm, `^service flaky: running`)).To(BeNumerically(">=", 2))
		Expect(vm).To(suite.Print(`^service content: exit status 0\b`))
		Expect(count(vm, `^service content: running`)).To(Equal(1))
		run(ctx, vm, "service", "stop", "flaky")
		Expect(run(ctx, vm, "ctr", "-n", "services.linuxkit", "container", "ls", "-q")).NotTo(ContainSubstring("flaky"))
	}, SpecTimeout(3*time.Minute))

	It("stops, starts and restarts services, ended ones too, and leaves no mounts", func(ctx SpecContext) {
		before := mounts(ctx, vm)
		Expect(run(ctx, vm, "service", "stop", "web")).To(Equal("Stopping service: \"web\"\n"))
		Expect(mounts(ctx, vm)).To(BeNumerically("<", before))
		Expect(refused(ctx, vm, "@cat", "/sys/fs/cgroup/web/cgroup.procs")).To(ContainSubstring("no such file"))
		Expect(run(ctx, vm, "service", "start", "web")).To(Equal("Starting service: \"web\"\n"))
		Expect(refused(ctx, vm, "service", "start", "web")).To(ContainSubstring("is there already"))
		Expect(run(ctx, vm, "service", "-q", "restart", "content")).To(BeEmpty())
		Expect(run(ctx, vm, "service", "-v", "restart", "web")).To(And(ContainSubstring("creating the task"),
			HavePrefix("Stopping service: \"web\"\n"), ContainSubstring("Starting service: \"web\"\n")))
		Expect(mounts(ctx, vm)).To(Equal(before))
		Expect(refused(ctx, vm, "service", "restart", "nonesuch")).To(ContainSubstring(`no service "nonesuch"`))
		Expect(refused(ctx, vm, "service", "-q", "-v", "stop", "web")).To(ContainSubstring("exclude each other"))
		Expect(refused(ctx, vm, "service", "start", "--sock", "/run/nowhere.sock", "web")).To(ContainSubstring("containerd does not answer on /run/nowhere.sock"))
		Expect(refused(ctx, vm, "service", "system-init", "surplus")).To(ContainSubstring(`unexpected argument "surplus"`))
		Expect(run(ctx, vm, "ctr", "-n", "services.linuxkit", "task", "ls")).To(MatchRegexp(`(?m)^web\s+\d+\s+RUNNING`))
	}, SpecTimeout(3*time.Minute))

	It("gives a service that is to stop SIGTERM, ten seconds, and then SIGKILL", func(ctx SpecContext) {
		run(ctx, vm, "service", "stop", "polite")
		awaitLine(ctx, vm, `^service polite: stopped on request, exit status 0\b`)
		Expect(run(ctx, vm, "@cat", "/var/log/polite.out.log")).To(Equal("bye\n"))
		began := uptime(ctx, vm)
		run(ctx, vm, "service", "stop", "stubborn")
		Expect(uptime(ctx, vm) - began).To(BeNumerically(">=", 10))
		awaitLine(ctx, vm, `^service stubborn: stopped on request, exit status 137 \(SIGKILL\)`)
		Expect(run(ctx, vm, "@cat", "/var/log/stubborn.out.log")).To(Equal("heard\n"))
		// The first process of a PID namespace that does not handle SIGTERM never sees it.
		began = uptime(ctx, vm)
		run(ctx, vm, "service", "restart", "talker")
		Expect(uptime(ctx, vm) - began).To(BeNumerically("<", 10))
	}, SpecTimeout(3*time.Minute))

	It("gives a service neither input nor a terminal", func(ctx SpecContext) {
		pid := pidOf(ctx, vm, "/bin/httpd")
		Expect(run(ctx, vm, "readlink", "/proc/"+pid+"/fd/0")).To(Equal("/dev/null\n"))
		_, rest, _ := strings.Cut(run(ctx, vm, "@cat", "/proc/"+pid+"/stat"), ") ")
		Expect(strings.Fields(rest)[4]).To(Equal("0")) // tty_nr of proc(5)
	}, SpecTimeout(time.Minute))

	It("writes what services say to fresh files in /var/log", func(ctx SpecContext) {
		Expect(run(ctx, vm, "@cat", "/var/log/talker.out.log")).To(Equal("spoken\n"))
		Expect(run(ctx, vm, "@cat", "/var/log/talker.log")).To(Equal("shouted\n"))
		Expect(run(ctx, vm, "@stat", "/var/log/talker.log")).To(Equal("0644 0 0 8 file\n"))
		run(ctx, vm, "service", "restart", "talker")
		Eventually(ctx, func() string { return run(ctx, vm, "@cat", "/var/log/talker.out.log") }).Should(Equal("spoken\n"))
		Expect(vm).NotTo(suite.Print(`^spoken`))
	}, SpecTimeout(2*time.Minute))

	It("mounts what LinuxKit's init does, as it does", func(ctx SpecContext) {
		table := run(ctx, vm, "@cat", "/proc/self/mounts")
		for _, mount := range []string{
			`proc /proc proc rw,nosuid,nodev,noexec,relatime `, `\S+ /run tmpfs rw,nosuid,nodev,relatime,.*mode=755`, `\S+ /tmp tmpfs rw,nosuid,nodev,relatime,`,
			`\S+ /var tmpfs rw,nosuid,nodev,relatime,.*mode=755`, `\S+ /dev devtmpfs rw,nosuid,noexec,relatime,size=10240k,nr_inodes=248418,mode=755`,
			`devpts /dev/pts devpts .*gid=5,mode=620`, `tmpfs /dev/shm tmpfs rw,nosuid,nodev,noexec`,
			`mqueue /dev/mqueue mqueue rw,nosuid,nodev,noexec`, `sysfs /sys sysfs rw,nosuid,nodev,noexec`, `cgroup2 /sys/fs/cgroup cgroup2`, `\S+ / \S+ ro`,
			`securityfs /sys/kernel/security `, `debugfs /sys/kernel/debug `, `pstore /sys/fs/pstore `, `bpf /sys/fs/bpf bpf rw,nodev,relatime`,
		} {
			Expect(table).To(MatchRegexp(`(?m)^` + mount))
		}
		// Kernels without SELinux have none, and nobody is told; this one has no fuse before it is asked for.
		Expect(table).NotTo(Or(ContainSubstring(" cgroup rw"), ContainSubstring("selinuxfs")))
		Expect(vm).NotTo(suite.Print(`^init: mounts: `))
		memory := number(run(ctx, vm, "@cat", "/proc/meminfo"), `MemTotal:\s+(\d+) kB`)
		for dir, percent := range map[string]int{"/run": 10, "/tmp": 10, "/var": 50} {
			Expect(number(run(ctx, vm, "df", "-k", dir), `tmpfs +(\d+) `)).To(BeNumerically("~", memory*percent/100, memory/100), dir)
		}
		info := run(ctx, vm, "@cat", "/proc/self/mountinfo")
		for _, shared := range []string{"/ ro", "/proc rw", "/sys rw", "/dev rw", "/var rw"} { // mounted before it was made so, and with it
			Expect(info).To(MatchRegexp(`(?m) / ` + shared + `.* shared:`))
		}
		for _, dir := range []string{"/var", "/run", "/tmp"} { // what the image had there is below
			Expect(refused(ctx, vm, "@stat", dir+"/hidden")).To(ContainSubstring("no such file"))
		}
		Expect(run(ctx, vm, "@ls", "/var")).To(Equal("cache/\nempty/\nlib/\nlocal/\nlock/\nlog/\nopt/\nrun\nspool/\ntmp/\n"))
		for path, mode := range map[string]string{"/var/tmp": "1777", "/var/empty": "0555", "/var/log": "0755", "/tmp": "1777", "/run": "0755", "/dev/shm": "1777"} {
			Expect(run(ctx, vm, "@stat", path)).To(HavePrefix(mode+" 0 0 "), path)
		}
	}, SpecTimeout(2*time.Minute))

	It("sets up the system as LinuxKit's does", func(ctx SpecContext) {
		Expect(run(ctx, vm, "@cat", "/proc/sys/kernel/hostname")).To(Equal("trial\n"))
		limits := run(ctx, vm, "@cat", "/proc/1/limits")
		Expect(limits).To(MatchRegexp(`Max open files\s+1048576\s+1048576`))
		Expect(limits).To(MatchRegexp(`Max processes\s+unlimited\s+unlimited`))
		Expect(run(ctx, vm, "ip", "addr", "show", "lo")).To(And(ContainSubstring("127.0.0.1/8"), ContainSubstring("UP")))
		Expect(run(ctx, vm, "@cat", "/proc/net/fib_trie")).To(MatchRegexp(`(?s)127\.0\.0\.0\n[^\n]*/8 host LOCAL`))
		for node, mode := range map[string]string{"console": "0600", "tty1": "06[02]0", "tty": "0666", "null": "0666", "kmsg": "06[46][04]"} { // devtmpfs has them
			Expect(run(ctx, vm, "@stat", "/dev/"+node)).To(MatchRegexp(`^` + mode + ` .* char\n$`))
		}
		for link, target := range map[string]string{
			"/dev/fd": "/proc/self/fd", "/dev/stdin": "/proc/self/fd/0", "/dev/stdout": "/proc/self/fd/1", "/dev/stderr": "/proc/self/fd/2",
			"/dev/kcore": "/proc/kcore", "/var/run": "/run", "/etc/resolv.conf": "/run/resolvconf/resolv.conf",
		} {
			Expect(run(ctx, vm, "readlink", link)).To(Equal(target + "\n"))
		}
		Expect(run(ctx, vm, "@cat", "/etc/resolv.conf")).To(BeEmpty())
		// What other images are for, it does not do.
		Expect(run(ctx, vm, "@cat", "/etc/sysctl.d/10-image.conf")).To(Equal("vm.swappiness=44\n"))
		Expect(run(ctx, vm, "@cat", "/proc/sys/vm/swappiness")).To(Equal("60\n"))
	}, SpecTimeout(2*time.Minute))

	It("mounts volumes before onboot: what one container writes the next one sees, and nobody writes to a read-only one", func(ctx SpecContext) {
		inOrder(vm, "init: Volume empty is read-write", "init: Volume fixed is read-only", "init: Volume loose is read-write", "onboot 000-fails: from")
		const volumes, page = "/containers/volumes/", "/merged/www/index.html"
		original := run(ctx, vm, "@cat", volumes+"fixed"+page)
		Expect(original).To(ContainSubstring("seatrial web"))
		Expect(run(ctx, vm, "@cat", volumes+"loose/merged/copied")).To(Equal(original))
		Expect(run(ctx, vm, "@cat", volumes+"loose"+page)).To(Equal("changed\n"))
		Expect(vm).To(suite.Print(`^onboot 004-shelf: exit status 1\b`)) // the last thing it tried
		// Not only the container's bind is read-only: the volume itself is.
		Expect(refused(ctx, vm, "@append", volumes+"fixed"+page, "x")).To(ContainSubstring("read-only file system"))
		Expect(refused(ctx, vm, "@append", volumes+"fixed/lower/www/index.html", "x")).To(ContainSubstring("read-only file system"))
		run(ctx, vm, "@append", volumes+"empty/merged/file", "x")
		Expect(run(ctx, vm, "@ls", volumes+"empty/merged")).To(Equal("file\n"))
		Expect(refused(ctx, vm, "@stat", volumes+"fixed/tmp")).To(ContainSubstring("no such file"))
	}, SpecTimeout(2*time.Minute))

	It("loads what the kernel asks for, also by way of the one helper of a kernel that knows no other", func(ctx SpecContext) {
		// The kernel asks for a file system it does not know, by running the program
		// that this file names with the file's text as its name. A kernel with a
		// static usermode helper runs /sbin/usermode-helper under that name.
		const helper = "/proc/sys/kernel/modprobe"
		wants := func(fs, module string) bool {
			_, err := vm.Exec(ctx, "mount", "-t", fs, "none", "/tmp") // there is no such device
			Expect(err).NotTo(HaveOccurred())
			return strings.Contains("\n"+run(ctx, vm, "@cat", "/proc/modules"), "\n"+module+" ")
		}
		Expect(run(ctx, vm, "@cat", helper)).To(Equal("/sbin/modprobe\n"))
		Expect(run(ctx, vm, "@cat", "/proc/modules")).NotTo(MatchRegexp(`(?m)^(isofs|vfat) `))
		Expect(wants("iso9660", "isofs")).To(BeTrue())
		for _, name := range []string{"other", "modprobe"} {
			run(ctx, vm, "ln", "-s", "/sbin/usermode-helper", "/dev/"+name)
			run(ctx, vm, "sh", "-c", "echo /dev/"+name+" > "+helper)
			Expect(wants("vfat", "vfat")).To(Equal(name == "modprobe"), name)
		}
	}, SpecTimeout(2*time.Minute))

	It("cannot be ended or stopped by signals that mean nothing to it", func(ctx SpecContext) {
		for _, sig := range []string{"HUP", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "SEGV", "PIPE", "ALRM", "SYS", "PWR", "TSTP", "STOP", "KILL", "35"} {
			run(ctx, vm, "@kill", sig, "1")
		}
		Expect(run(ctx, vm, "@cat", "/proc/1/status")).To(MatchRegexp(`(?m)^State:\s+S`))
		before := ticks(run(ctx, vm, "@cat", "/proc/1/stat"))
		run(ctx, vm, "sleep", "2")
		Expect(ticks(run(ctx, vm, "@cat", "/proc/1/stat")) - before).To(BeNumerically("<=", 5)) // of 200: it does not spin
	}, SpecTimeout(2*time.Minute))

	It("keeps the keys of the console from whatever runs, and is not stopped by them", func(ctx SpecContext) {
		// The line discipline makes signals of Ctrl-C, Ctrl-\ and Ctrl-Z, and Ctrl-S would stop whoever writes next.
		Expect(run(ctx, vm, "stty", "-a", "-F", "/dev/console")).To(And(MatchRegexp(`(^|\s)isig\b`), MatchRegexp(`\s-ixon\b`)))
		programs := func() []string {
			return []string{pidOf(ctx, vm, boot.ContainerdPath), pidOf(ctx, vm, boot.ServicePath), pidOf(ctx, vm, "/bin/httpd")}
		}
		before := programs()
		Expect(vm.Type("\x03\x1c\x1a\x13 keys\n")).To(Succeed())
		awaitLine(ctx, vm, `\^S keys\b`) // the echo of the last: each of the others drops what was to be shown before it
		Expect(programs()).To(Equal(before))
		said := count(vm, `^service content: running`)
		run(ctx, vm, "service", "-q", "restart", "content")
		Eventually(ctx, func() int { return count(vm, `service content: running`) }).Should(BeNumerically(">", said))
	}, SpecTimeout(2*time.Minute))

	It("reaps orphans however many die at once", func(ctx SpecContext) {
		run(ctx, vm, "sh", "-c", `(i=0; while [ $i -lt 300 ]; do sleep 0 & i=$((i+1)); done) & wait`)
		Eventually(ctx, func() string { return run(ctx, vm, "sh", "-c", `grep -l '^State:.Z' /proc/[0-9]*/status; true`) }).Should(BeEmpty())
	}, SpecTimeout(3*time.Minute))

	It("notices the death of containerd at once, starts it again and keeps the services", func(ctx SpecContext) {
		pid := pidOf(ctx, vm, boot.ContainerdPath)
		web := func() string {
			found := regexp.MustCompile(`(?m)^web\s+(\d+)\s+RUNNING`).FindStringSubmatch(run(ctx, vm, "ctr", "-n", "services.linuxkit", "task", "ls"))
			Expect(found).To(HaveLen(2))
			return found[1]
		}
		before := web()
		run(ctx, vm, "@kill", "KILL", pid)
		awaitLine(ctx, vm, `^containerd: ended: signal: killed; its last line: .*; it is started again`)
		awaitLine(ctx, vm, `^containerd: started again`)
		Expect(pidOf(ctx, vm, boot.ContainerdPath)).NotTo(Equal(pid))
		Expect(web()).To(Equal(before))
		run(ctx, vm, "service", "restart", "web")
		Expect(web()).NotTo(Equal(before))
	}, SpecTimeout(3*time.Minute))

	It("runs onshutdown while the services live, then ends everything in order", func(ctx SpecContext) {
		run(ctx, vm, "@kill", "USR2", "1")
		_, _ = vm.Exec(ctx, "@kill", "TERM", "1") // a second request changes nothing; the agent may have gone
		awaitLine(ctx, vm, `reboot: Power down`)
		inOrder(vm, "init: poweroff: stopping the machine", "script before farewell", "shutdown 000-farewell: from", "web lives: ",
			"shutdown 000-farewell: exit status 6", "service web: stopped on request")
		Expect(vm).To(suite.Print(`^web lives: [1-9]`))
		Expect(count(vm, `^init: .*: stopping the machine`)).To(Equal(1))
		Expect(vm).NotTo(suite.Print(`reboot: Restarting`))
	}, SpecTimeout(2*time.Minute))
})

var _ = Describe("the shipped init, asked on the kernel's command line", func() {
	It("uses control groups v1 and shows containers as they speak, and the power button stops it", func(ctx SpecContext) {
		image := build(ctx, "small.yml", withContainer(onboot, "speaks", "echo spoken at once"))
		vm := trial.BootReady(ctx, image, func(p *harness.Plan) {
			p.Cmdline = "cryptomgr.notests init_on_alloc=0 norandmaps console=ttyS0 linuxkit.unified_cgroup_hierarchy=0 linuxkit.runc_console=1 hostname=given"
		})
		table := run(ctx, vm, "@cat", "/proc/self/mounts")
		Expect(table).To(And(ContainSubstring(" /sys/fs/cgroup/memory cgroup rw"), ContainSubstring("name=systemd")))
		Expect(table).NotTo(ContainSubstring("cgroup2"))
		Expect(run(ctx, vm, "@cat", "/sys/fs/cgroup/memory/memory.use_hierarchy")).To(Equal("1\n"))
		Expect(vm).To(suite.Print(`^onboot: Using cgroup v1\b`))
		Expect(vm).To(suite.Print(`^spoken at once`))
		Expect(refused(ctx, vm, "@stat", "/run/log/onboot/onboot.000-speaks.out.log")).To(ContainSubstring("no such file"))
		Expect(run(ctx, vm, "@cat", "/proc/sys/kernel/hostname")).To(Equal("given\n"))
		serves(ctx, vm)
		Expect(vm).NotTo(suite.Print(`^init: power button`))
		Expect(vm.PowerButton(ctx)).To(Succeed())
		awaitLine(ctx, vm, `reboot: Power down`)
		Expect(vm).To(suite.Print(`^init: power button\b`))
		Expect(vm).To(suite.Print(`^init: poweroff: stopping the machine\b`))
	}, SpecTimeout(5*time.Minute))

	It("reboots on Ctrl-Alt-Del, and a service without containerd is named", func(ctx SpecContext) {
		image := build(ctx, "small.yml", func(s *images.Spec) { s.Init = []string{"seatrial/init", "seatrial/crun"} })
		vm := trial.Boot(ctx, image, failing, withKeyboard)
		Expect(vm.Await(ctx, boot.Ready)).To(Succeed())
		Expect(vm).To(suite.Print(`^init: containerd: no /usr/bin/containerd in the image; add the containerd image`))
		Expect(vm).To(suite.Print(`^init: ready after .*no containerd, 1 services not started`))
		Expect(vm.CtrlAltDel(ctx)).To(Succeed())
		awaitLine(ctx, vm, `reboot: Restarting system`)
		Expect(vm).To(suite.Print(`^init: reboot: stopping the machine\b`))
		Expect(vm).NotTo(suite.Print(`reboot: Power down`))
	}, SpecTimeout(5*time.Minute))
})

var _ = Describe("the shipped init, with an entry of init.d that does not end,", Label("devices"), func() {
	It("names it, leaves it to itself and runs what comes after it", func(ctx SpecContext) {
		vm := held(ctx, failing)
		run(ctx, vm, busybox, "sh", "-c", `set -e; b=`+busybox+`
			$b mount -o remount,bind,rw /
			$b mkdir -p /etc/init.d
			cd /etc/init.d
			echo "#!$b sh
				echo script hangs; exec $b sleep 86400" > 030-hangs
			echo "#!$b sh
				echo script later" > 031-later
			$b chmod 755 030-hangs 031-later
			$b mount -o remount,bind,ro /`)
		goesOn(ctx, vm, boot.Ready)
		inOrder(vm, "service web: running", "script hangs", "init: /etc/init.d/030-hangs: still running after 2",
			"init: /etc/init.d/030-hangs: still running after 1m0s, and left to itself", "script later", "init: ready")
		Expect(vm).NotTo(suite.Print(`031-later: `))
		Expect(run(ctx, vm, "@ps")).To(ContainSubstring(" sleep 86400"))
		Expect(vm.PowerOff(ctx)).To(Succeed()) // it does not hold up the end either
	}, SpecTimeout(5*time.Minute))
})

var _ = Describe("the shipped init, whose containerd dies when it has answered,", Label("devices"), func() {
	DescribeTable("starts the services all the same, when that is", func(ctx SpecContext, begun bool) {
		vm := trial.Fork(ctx, build(ctx, "services.yml"), failing, func(p *harness.Plan) { p.Hold = boot.Services })
		pid := pidOf(ctx, vm, boot.ContainerdPath)
		if begun {
			Expect(vm.Release(ctx)).To(Succeed())
			awaitLine(ctx, vm, `connecting to shim`)
		}
		run(ctx, vm, "@kill", "KILL", pid)
		if !begun {
			Expect(vm.Release(ctx)).To(Succeed())
		}
		ready(ctx, vm)
		Expect(vm).To(suite.Print(`^containerd: ended: signal: killed; `))
		Expect(vm).To(suite.Print(`^init: ready after .*: 2 services started, 0 failed\b`))
		Expect(vm).NotTo(suite.Print(`^service (brief|family): (creating|starting)`))
		Expect(run(ctx, vm, "ctr", "-n", "services.linuxkit", "task", "ls")).To(MatchRegexp(`(?m)^family\s+\d+\s+RUNNING`))
		Expect(pidOf(ctx, vm, boot.ContainerdPath)).NotTo(Equal(pid))
	},
		Entry("before the first is begun", false, SpecTimeout(5*time.Minute)),
		Entry("while they are made", true, SpecTimeout(5*time.Minute)),
	)
})

var _ = Describe("the shipped init, asked to end", func() {
	It("reboots after it has stopped everything", func(ctx SpecContext) {
		vm := trial.Fork(ctx, build(ctx, "small.yml"))
		_, _ = vm.Exec(ctx, "reboot") // the agent may end before it has answered
		awaitLine(ctx, vm, `reboot: Restarting system`)
		inOrder(vm, "init: reboot: stopping the machine", "service web: stopped on request")
		e, ok := vm.Console().Milestone(boot.Off)
		Expect(ok).To(BeTrue())
		Expect(e.Facts).To(HaveKeyWithValue(boot.FactReason, "reboot"))
		Expect(vm).NotTo(suite.Print(`reboot: (Power down|System halted)`))
		Expect(vm).NotTo(suite.Print(`^init: .* within `)) // nothing had to be waited for to its limit
	}, SpecTimeout(5*time.Minute))

	It("waits for what hears SIGTERM and not for what cannot, names what it kills, and unmounts what lies upon a disk before the disk", Label("devices"), func(ctx SpecContext) {
		vm := trial.BootReady(ctx, build(ctx, "disk.yml", withTools), withDisks(blankDisk()))
		run(ctx, vm, "sh", "-c", `cd /var/lib/state
			mkdir a b; mount -t tmpfs t a; mkdir a/c; mount -t tmpfs t a/c; mount --bind b a/c
			(trap 'echo heard >/dev/console' TERM; while :; do sleep 0.1; done) >/dev/null 2>&1 &
			(trap '' TERM; cd a/c; exec sleep 86400) >/dev/null 2>&1 &
			sleep 1`)
		_, _ = vm.Exec(ctx, "poweroff") // the agent may end before it has answered
		awaitLine(ctx, vm, `reboot: Power down`)
		Expect(vm).To(suite.Print(`^heard\b`))
		Expect(vm).To(suite.Print(`^init: not ended within 3s of SIGTERM, and killed: sh \(\d+\)`))
		Expect(vm).NotTo(suite.Print(`still there after SIGKILL|^init: unmount `))
		Expect(vm).To(suite.Print(unmounted))
	}, SpecTimeout(5*time.Minute))

	It("halts: it stops everything and leaves the machine standing, which the verdict says", func(ctx SpecContext) {
		vm := trial.Fork(ctx, build(ctx, "small.yml"))
		serves(ctx, vm)
		_, _ = vm.Exec(ctx, "halt") // the agent may end before it has answered
		Expect(vm.Await(ctx, boot.Off)).To(Succeed())
		_, err := vm.AwaitLine(ctx, never)
		Expect(err).To(suite.BeVerdict(reports.Guest, `^the machine halted: it stands still, and does not power itself off$`))
		inOrder(vm, "init: halt: stopping the machine", "service web: stopped on request")
		Expect(vm).To(suite.Print(`reboot: System halted`))
		Expect(vm).NotTo(suite.Print(`reboot: (Power down|Restarting)`))
		Expect(vm.Done()).NotTo(BeClosed()) // the processor waits for ever, and QEMU with it
	}, SpecTimeout(5*time.Minute))
})

// withOwnInit makes /init the program that ships, which is a link to /sbin/init
// otherwise, so that /sbin/init may be another.
func withOwnInit(ctx SpecContext, at images.File) change {
	GinkgoHelper()
	program, _, err := build(ctx, "small.yml").ReadFile(boot.InitPath)
	Expect(err).NotTo(HaveOccurred())
	file := filepath.Join(GinkgoT().TempDir(), "init")
	Expect(os.WriteFile(file, program, 0o755)).To(Succeed())
	at.Path = boot.InitPath
	return func(s *images.Spec) {
		s.Init = append(s.Init, "seatrial/busybox")
		s.Files = append(s.Files, images.File{Path: "/init", Source: file, Mode: "0755"}, at)
	}
}

var _ = Describe("an image with a /sbin/init of its own", func() {
	It("has it started as PID 1, with the environment, on a root that containers can leave", func(ctx SpecContext) {
		// It is not started as the kernel's helper, which would be waited for.
		script := "#!/bin/sh\n" + `[ $$ = 1 ] || exec sleep 86400
			mount -t proc proc /proc
			echo "own init: pid $$, word $word, root $(awk '$5 == "/" { print ($1 == $2) ? "of the kernel" : "of its own" }' /proc/self/mountinfo)"
			exec sleep 86400` + "\n"
		vm := trial.Boot(ctx, build(ctx, "small.yml", withoutServices, withOwnInit(ctx, images.File{Contents: &script, Mode: "0755"})),
			func(p *harness.Plan) { p.Cmdline = p.Image.Cmdline + " word=given" })
		awaitLine(ctx, vm, `^own init: pid 1, word given, root of its own\b`)
		Expect(vm).NotTo(suite.Print(`^init: `))
	}, SpecTimeout(5*time.Minute))

	It("that leads nowhere is told of: PID 1 says why it gives up, and ends with status 1, on which the kernel panics", func(ctx SpecContext) {
		vm := trial.Boot(ctx, build(ctx, "small.yml", withoutServices, withOwnInit(ctx, images.File{Symlink: "/sbin/nonesuch"})))
		Expect(vm.Await(ctx, boot.Ready)).To(suite.BeVerdict(reports.Guest, `^init died: PID 1 exited with status 1`))
		Expect(vm).To(suite.Print(`^init: giving up: .*/sbin/init: no such file or directory: the image has no /sbin/init, or the initramfs was cut off`))
		Expect(vm).To(suite.Print(`Attempted to kill init! exitcode=0x00000100`))
	}, SpecTimeout(5*time.Minute))
})

// withKeyboard gives a machine a keyboard if its board has none.
func withKeyboard(p *harness.Plan) {
	if p.Image.Arch == "arm64" {
		p.Extra = append(p.Extra, "-device", "virtio-keyboard-pci")
	}
}

// count is the number of console lines that match.
func count(vm *harness.Machine, re string) (n int) {
	match := regexp.MustCompile(re)
	for _, l := range vm.Console().Lines() {
		if match.MatchString(l.Text) {
			n++
		}
	}
	return n
}

// mounts is the number of mounts in the root's name space.
func mounts(ctx SpecContext, vm *harness.Machine) int {
	GinkgoHelper()
	return strings.Count(run(ctx, vm, "@cat", "/proc/1/mountinfo"), "\n")
}

// pidOf is the process whose first argument is program.
func pidOf(ctx SpecContext, vm *harness.Machine, program string) string {
	GinkgoHelper()
	for line := range strings.Lines(run(ctx, vm, "@ps")) {
		if f := strings.Fields(line); len(f) > 3 && f[3] == program {
			return f[0]
		}
	}
	Fail("no " + program + " runs")
	return ""
}

// uptime is how long the machine has been running, in seconds.
func uptime(ctx SpecContext, vm *harness.Machine) float64 {
	GinkgoHelper()
	seconds, err := strconv.ParseFloat(strings.Fields(run(ctx, vm, "@cat", "/proc/uptime"))[0], 64)
	Expect(err).NotTo(HaveOccurred())
	return seconds
}

// number is what the group of re matches in text.
func number(text, re string) int {
	GinkgoHelper()
	found := regexp.MustCompile(re).FindStringSubmatch(text)
	Expect(found).To(HaveLen(2), re+" in:\n"+text)
	n, err := strconv.Atoi(found[1])
	Expect(err).NotTo(HaveOccurred())
	return n
}

// ticks is the processor time of a process, in hundredths of a second, from
// the text of /proc/PID/stat (proc(5)).
func ticks(stat string) (n int) {
	GinkgoHelper()
	_, rest, ok := strings.Cut(stat, ") ")
	Expect(ok).To(BeTrue(), stat)
	f := strings.Fields(rest)
	for _, i := range []int{11, 12} { // user and system time
		v, err := strconv.Atoi(f[i])
		Expect(err).NotTo(HaveOccurred())
		n += v
	}
	return n
}

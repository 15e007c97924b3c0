package images

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	sound     = "kernel: {image: test/kernel, cmdline: \"console=tty0 console=ttyS0\"}\ninit: [test/init, test/runc, test/containerd]\n"
	tomlFile  = sound + "files:\n  - path: /etc/containerd/runtime-config.toml\n    mode: \"0644\"\n    contents: '"
	container = sound + "services:\n  - name: web\n    image: test/web\n    "
)

// Each text has one trap; what differs from it only in being right has none.
func TestLint(t *testing.T) {
	for name, c := range map[string]struct{ trap, want, right string }{
		"no console":      {strings.Replace(sound, "console=tty0 console=ttyS0", "quiet", 1), "x.yml:1:39: kernel.cmdline: has no console=; add console=ttyS0", sound},
		"order":           {strings.Replace(sound, "console=tty0 console=ttyS0", "console=ttyS0 console=tty0", 1), "kernel.cmdline: the last console is tty0; put console=ttyS0 last", sound},
		"other UART":      {strings.Replace(sound, "ttyS0", "ttyAMA0", 1), "has no console=ttyS0, which is the serial line of amd64", sound},
		"no cmdline":      {strings.Replace(sound, ", cmdline: \"console=tty0 console=ttyS0\"", "", 1), "x.yml:1:9: kernel.cmdline: has no console=", sound},
		"no init":         {sound[:strings.Index(sound, "init:")], "x.yml:1:1: init: names no image", sound},
		"no containerd":   {strings.Replace(container, ", test/containerd", "", 1) + "net: new\n", "x.yml:4:3: services: no image of init is called containerd; add one, such as seatrial/containerd", container + "net: new\n"},
		"no runc":         {strings.Replace(sound, "test/runc, ", "", 1) + "onboot: [{name: a, image: b}]\n", "onboot: no image of init is called runc", sound + "onboot: [{name: a, image: b}]\n"},
		"no mode":         {sound + "files:\n  - {path: /etc/a, contents: x}\n", "x.yml:4:5: files[0]: /etc/a has no mode; it becomes 0600", sound + "files:\n  - {path: /etc/a, contents: x, mode: \"0644\"}\n"},
		"no folder mode":  {sound + "files:\n  - {path: /etc/a, directory: true}\n", `it becomes 0700, and upstream's builder closes a parent that it makes too, for everyone but root: write mode: "0755"`, sound + "files:\n  - {path: /etc/a, symlink: /b}\n"},
		"hidden":          {sound + "files:\n  - {path: var/lib/a, contents: x, mode: \"0644\"}\n", "x.yml:4:12: files[0].path: /var/lib/a is hidden: the machine mounts a file system over /var", sound + "files:\n  - {path: /variable, contents: x, mode: \"0644\"}\n"},
		"twice":           {sound + "files:\n  - {path: /a, symlink: b}\n  - {path: /b/../a, symlink: c}\n", "files[1].path: /a is written by files[0] already", sound + "files:\n  - {path: /a, directory: true, mode: \"0755\"}\n  - {path: /a, directory: true, mode: \"0700\"}\n"},
		"quotes":          {tomlFile + "cliopts = \"--root \\\"/a b\\\"\"'\n", `files[0].contents: the quotes in cliopts = "--root \"/a b\"" reach containerd`, tomlFile + "cliopts = \"--root /a\"'\n"},
		"list of options": {tomlFile + "cliopts = [\"-l\"]'\n", "cliopts must be a string; upstream's init panics", tomlFile + "cliopts = \"\"'\n"},
		"relative log":    {tomlFile + "stderr = \"a.log\"'\n", `stderr = "a.log" is not an absolute path`, tomlFile + "stderr = \"/a.log\"'\n"},
		"blank log":       {tomlFile + "stdout = \"\"'\n", "stdout is blank", tomlFile + "stdout = \"stderr\"'\n"},
		"no TOML":         {tomlFile + "--log-level debug'\n", "is not TOML: ", tomlFile + "# nothing'\n"},
		"table":           {tomlFile + "[a]'\n", "the table [a] is ignored", tomlFile + "'\n"},
		"wrong key":       {tomlFile + "cliOpts = \"\"'\n", `the key "cliOpts" is ignored; did you mean "cliopts"?`, tomlFile + "'\n"},
		"mkdir":           {container + "runtime: {mkdir: [/srv/x]}\n", "x.yml:6:23: services[0].runtime.mkdir[0]: /srv/x cannot be made", container + "runtime: {mkdir: [/var/x, y]}\n"},
		"open quote":      {strings.Replace(sound, "console=ttyS0", "console=ttyS0 a='\\\"b'", 1), "x.yml:1:39: kernel.cmdline: has a quote that nothing closes", strings.Replace(sound, "console=ttyS0", "a=\\\"b c\\\" console=ttyS0", 1)},
		"mounted twice":   {container + "tmpfs: [/b]\n    binds: [\"/a:/b/\"]\n", "x.yml:7:13: services[0].binds[0]: takes the place of services[0].tmpfs[0], which is on /b too; keep one", container + "tmpfs: [/b]\n    binds: [\"/a:/b/c\", \"/dev:/dev\"]\n"},
		"dropped bind":    {container + "binds: []\n    binds.add: [\"/a:/b\"]\n", "x.yml:7:16: services[0].binds.add: is dropped: the binds beside it", container + "binds.add: [\"/a:/b\"]\n"},
		"dropped right":   {container + "capabilities: [CAP_CHOWN]\n    capabilities.add: [CAP_KILL]\n", "x.yml:7:23: services[0].capabilities.add: is dropped: the capabilities beside it", container + "capabilities: [CAP_CHOWN, CAP_KILL]\n    capabilities.add: []\n"},
		"ambient":         {container + "capabilities: [CAP_CHOWN]\n    ambient: [CAP_CHOWN, CAP_KILL]\n", "x.yml:7:14: services[0].ambient: CAP_KILL is not among capabilities: the process does not get it; add them", container + "capabilities: [all]\n    ambient: [CAP_KILL]\n"},
		"whose id":        {container + "uid: web\nonboot: [{name: web, image: b}]\n", `x.yml:6:10: services[0].uid: "web" is the name of onboot[0] and services[0], and the id of the last one is taken: 101; give them`, container + "uid: web\nonboot: [{name: other, image: b}, {name: other, image: b}]\n"},
		"whose file":      {container + "net: new\nonboot: [{name: web, image: b}]\nfiles: [{path: /a, symlink: b, gid: web}]\n", "x.yml:8:37: files[0].gid: \"web\" is the name of", container + "net: new\nonboot: [{name: web, image: b}]\nfiles: [{path: /a, symlink: b, gid: 101}]\n"},
		"bound twice":     {container + "runtime: {bindNS: {net: /run/netns/a}}\nonboot: [{name: a, image: b, runtime: {bindNS: {net: /run/netns/a}}}]\n", "x.yml:6:29: services[0].runtime.bindNS.net: /run/netns/a is where onboot[0].runtime.bindNS.net is bound too, which this hides; bind each", container + "runtime: {bindNS: {net: /run/netns/a, uts: /run/uts/a}}\nonboot: [{name: a, image: b, net: /run/netns/a, runtime: {bindNS: {net: /run/netns/b}}}]\n"},
		"version 1":       {container + "resources: {memory: {kernelTCP: 1}}\n", "x.yml:6:37: services[0].resources.memory.kernelTCP: is a limit of cgroup v1: under v2 crun refuses to start the container, and runc ignores it; remove it, or boot with", container + "resources: {memory: {limit: 1}}\n"},
		"version 1 asked": {container + "resources: {memory: {kernel: 1}}\n", "services[0].resources.memory.kernel: is", strings.Replace(container, "console=tty0", "linuxkit.unified_cgroup_hierarchy=0 console=tty0", 1) + "resources: {memory: {kernel: 1}}\n"},
		"swappiness":      {container + "resources: {memory: {swappiness: 1}}\n", "resources.memory.swappiness: is", container + "resources: {memory: {reservation: 1}}\n"},
		"OOM killer":      {container + "resources: {memory: {disableOOMKiller: true}}\n", "crun refuses", container + "resources: {memory: {disableOOMKiller: false}}\n"},
		"realtime":        {container + "resources: {cpu: {realtimePeriod: 1}}\n", "cpu.realtimePeriod: is a limit of cgroup v1", container + "resources: {cpu: {realtimeRuntime: 0, quota: 1000}}\n"},
		"leaf weight":     {container + "resources: {blockio: {leafweight: 1}}\n", "x.yml:6:39: services[0].resources.blockIO.leafWeight: is a limit", container + "resources: {blockio: {weight: 100}}\n"},
		"device's leaf":   {container + "resources: {blockIO: {weightDevice: [{major: 8, minor: 0, leafWeight: 1}]}}\n", "blockIO.weightDevice[0].leafWeight: has no effect under cgroup v2", container + "resources: {blockIO: {weightDevice: [{major: 8, minor: 0, weight: 10}]}}\n"},
		"network class":   {container + "resources: {network: {classID: 1}}\n", "resources.network: is a limit", container + "resources: {pids: {limit: 1}}\n"},
		"swap alone":      {container + "resources: {memory: {swap: 2}}\n", "resources.memory.swap: counts", container + "resources: {memory: {swap: 2, limit: 2}}\n"},
		"little swap":     {container + "resources: {memory: {swap: 2, limit: 3}}\n", "resources.memory.swap: counts", container + "resources: {memory: {swap: -1}}\n"},
	} {
		t.Run(name, func(t *testing.T) {
			lint := func(text string) []Problem {
				s, err := ParseSpec("x.yml", []byte(text))
				if err != nil {
					t.Fatal(err)
				}
				return s.Lint("amd64")
			}
			found := lint(c.trap)
			if len(found) != 1 || !strings.Contains(found[0].String(), c.want) {
				t.Errorf("got %v\nwant %s", found, c.want)
			}
			if found := lint(c.right); len(found) > 0 {
				t.Errorf("what is right is blamed: %v", found)
			}
		})
	}
}

func TestLintDefault(t *testing.T) {
	s, err := ParseSpec("default.yml", Default())
	if err != nil {
		t.Fatal(err)
	}
	if found := s.Lint("amd64"); len(found) > 0 {
		t.Errorf("the image that ships: %v", found)
	}
}

// Files of the host are looked for, and containerd's options are read from them.
func TestLintSources(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"bad.toml": "cliOpts = \"\"\n", "good.toml": "cliopts = \"\"\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for entry, want := range map[string]string{
		"{path: /etc/containerd/runtime-config.toml, mode: \"0644\", source: bad.toml}":  `files[0].source: the key "cliOpts" is ignored; did you mean "cliopts"?`,
		"{path: /etc/containerd/runtime-config.toml, mode: \"0644\", source: good.toml}": "",
		"{path: /etc/other.toml, mode: \"0644\", source: bad.toml}":                      "",
		"{path: /etc/containerd/runtime-config.toml, mode: \"0644\", source: .}":         "is not a regular file",
		"{path: /etc/containerd/runtime-config.toml, mode: \"0644\", source: gone}":      "gone does not exist; make it, or add optional: true",
		"{path: /a, mode: \"0644\", source: gone, optional: true}":                       "",
	} {
		s, err := ParseSpec(filepath.Join(dir, "x.yml"), []byte(sound+"files:\n  - "+entry+"\n"))
		if err != nil {
			t.Fatal(err)
		}
		found := s.Lint("amd64")
		if want == "" && len(found) > 0 || want != "" && (len(found) != 1 || !strings.Contains(found[0].String(), want)) {
			t.Errorf("%s: got %v, want %q", entry, found, want)
		}
	}
}

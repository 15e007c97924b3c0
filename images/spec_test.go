package images

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

const head = "kernel: {image: test/kernel}\n" // line 1

// Each text has one mistake, or those listed; each is told with its place.
func TestSpecErrors(t *testing.T) {
	service := head + "services:\n  - name: web\n    image: test/web\n    " // line 5, column 5
	for name, c := range map[string]struct {
		text string
		want []string // "line:col: text; hint", each a part of the line
	}{
		"empty":              {"", []string{"x.yml: the file is empty; "}},
		"only comments":      {"# nothing\n", []string{"x.yml: the file holds only comments; "}},
		"two documents":      {head + "---\na: 1\n", []string{"more than one document; remove the line"}},
		"not YAML":           {head + "init: [a\nfiles: 1", []string{":3:6: not YAML: did not find expected ',' or ']' (while parsing a flow sequence that began in line 2)"}},
		"not UTF-8":          {head + "init: [é, a\xff]\n", []string{"x.yml:2:12: the byte 0xff is not UTF-8; save the file as UTF-8"}},
		"tab":                {"kernel:\n\timage: x\n", []string{":2:1: not YAML: "}},
		"a list":             {"- a\n", []string{":1:1: must be a mapping of keys to values, but is a list; write it as"}},
		"no kernel":          {"init: [a]\n", []string{":1:1: kernel.image: is missing; a machine needs a kernel"}},
		"unknown key":        {head + "servces: []\n", []string{`:2:1: unknown key "servces"; did you mean "services"?`}},
		"far from any key":   {head + "xylophone: 1\n", []string{`:2:1: unknown key "xylophone"; known are: kernel, init, onboot`}},
		"wrong case":         {service + "noNewPrivilegs: true\n", []string{`:5:5: services[0]: unknown key "noNewPrivilegs"; did you mean "noNewPrivileges"?`}},
		"interface name":     {service + "runtime: {interfaces: [{add: dummy}]}\n", []string{":5:28: services[0].runtime.interfaces[0].name: is missing"}},
		"long interface":     {service + "runtime: {interfaces: [{name: abcdefghijklmnop}]}\n", []string{`interfaces[0].name: "abcdefghijklmnop" cannot name an interface; the kernel takes 1 to 15 bytes`}},
		"interface ..":       {service + "runtime: {interfaces: [{name: .., add: veth, peer: a/b}]}\n", []string{`:5:35: services[0].runtime.interfaces[0].name: ".." cannot name`, `interfaces[0].peer: "a/b" cannot name an interface`}},
		"device numbers":     {service + "devices: [{path: /dev/x, type: c, major: -1, minor: 1048576, mode: \"0600\"}, {path: /dev/y, type: c, major: 4095, minor: 1048575, mode: \"0600\"}, {path: all, type: b, major: -1}]\n", []string{":5:46: services[0].devices[0].major: -1 is out of range; 0 to 4095 is", ":5:57: services[0].devices[0].minor: 1048576 is out of range; 0 to 1048575"}},
		"limits of devices":  {service + "resources: {devices: [{allow: true, major: -2, minor: -1}], blockIO: {weightDevice: [{major: -8, minor: 0}], throttleReadIOPSDevice: [{major: 8, minor: -1}]}}\n", []string{"resources.devices[0].major: -2 is out of range; write the number, or leave it out", "resources.blockIO.weightDevice[0].major: -8 is", "resources.blockIO.throttleReadIOPSDevice[0].minor: -1 is"}},
		"long command line":  {"kernel: {image: k, cmdline: \"" + strings.Repeat("a ", 1024) + "b\"}\n", []string{":1:29: kernel.cmdline: has 2049 bytes, and the kernel cuts off what is beyond 2047; shorten it"}},
		"unreadable parts":   {head + "init: ~\nfiles: [~, {path: [a], contents: x}]\nonboot: [null, a, {name: ~, image: {}}]\n", []string{":2:7: init: has no value; give it one, or remove it", ":3:9: files[0]: has no value", ":3:19: files[1].path: must be a string, but is a list", ":4:10: onboot[0]: has no value", ":4:16: onboot[1]: must be a mapping", ":4:26: onboot[2].name: has no value", ":4:36: onboot[2].image: must be a string, but is a mapping"}},
		"no kernel at all":   {"kernel: ~\n", []string{":1:9: kernel: has no value"}},
		"unreadable inside":  {service + "runtime: {mounts: [x], interfaces: [{name: 1}]}\n", []string{":5:24: services[0].runtime.mounts[0]: must be a mapping", `:5:48: services[0].runtime.interfaces[0].name: must be a string, but is the number 1; quote it: "1"`}},
		"no such anchor":     {head + "init: [*a]\n", []string{":2:8: not YAML: unknown anchor 'a' referenced; put & and its name before"}},
		"more documents":     {"--- # first\n" + head + "...\n---\na: 1\n", []string{"x.yml:3:1: the file holds more than one document"}},
		"tags":               {head + "init: !list [a]\nservices: [{name: !!binary YQ==, image: !!str b}]\n", []string{":2:7: init: has the tag !list, which means nothing here; remove the tag", ":3:19: services[0].name: has the tag !!binary"}},
		"huge number":        {service + "oomScoreAdj: 99999999999999999999\n", []string{":5:18: services[0].oomScoreAdj: 99999999999999999999 does not fit"}},
		"all beside others":  {service + "capabilities: [all, CAP_CHOWN]\n    ambient: [cap_chown]\n", []string{`services[0].capabilities: "all" stands beside others; keep it alone`, `services[0].ambient: unknown capability "cap_chown"; write CAP_CHOWN`}},
		"blank in reference": {head + "init: [\"a:1 \"]\n", []string{`:2:8: init[0]: "a:1 " begins or ends with a blank; remove the blank`}},
		"terminal's words":   {head + "files: [{path: \"/a\\n\\e[2J\\u202e\"}]\n", []string{`:2:9: files[0]: /a\n\x1b[2J\u202e has no content`}},
		"veth alone":         {service + "runtime: {interfaces: [{name: a, add: veth}]}\n", []string{"interfaces[0].peer: is missing; a veth is a pair"}},
		"dummy with peer":    {service + "runtime: {interfaces: [{name: a, add: dummy, peer: b}]}\n", []string{":5:56: services[0].runtime.interfaces[0].peer: an interface of kind dummy has none"}},
		"climbing cgroup":    {service + "runtime: {cgroups: [../x]}\n", []string{`:5:25: services[0].runtime.cgroups[0]: "../x" climbs out`}},
		"relative ns":        {service + "runtime: {bindNS: {net: a}}\n", []string{`:5:29: services[0].runtime.bindNS.net: "a" is not absolute`}},
		"no id":              {service + "uid: 4294967295\n    gid: 4294967294\n    additionalGids: [4294967295]\nfiles: [{path: /a, contents: x, uid: 4294967295}]\n", []string{":5:10: services[0].uid: 4294967295 is no id: the kernel takes it for the one that is there already; write a number up to 4294967294", ":7:22: services[0].additionalGids[0]: 4294967295 is no id", ":8:38: files[0].uid: 4294967295 is no id"}},
		"mappings too far":   {service + "userns: new\n    uidMappings: [{containerID: 4294967290, hostID: 0, size: 6}, {containerID: 0, hostID: 1, size: 4294967295}]\n    gidMappings: [{containerID: 0, hostID: 0, size: 4294967295}]\n    mounts: [{destination: /x, type: bind, source: /x, uidMappings: [{containerID: 1, hostID: 4294967294, size: 2}]}]\n", []string{":6:62: services[0].uidMappings[0].size: 6 ids from containerID 4294967290 on end at 4294967295, and the last id is 4294967294; lower one of them", ":6:66: services[0].uidMappings[1]: maps a containerID that uidMappings[0] maps already", ":6:100: services[0].uidMappings[1].size: 4294967295 ids from hostID 1 on end at 4294967295", ":8:113: services[0].mounts[0].uidMappings[0].size: 2 ids from hostID 4294967294 on"}},
		"mappings overlap":   {service + "userns: new\n    uidMappings: [{containerID: 0, hostID: 0, size: 10}, {containerID: 10, hostID: 9, size: 1}, {containerID: 11, hostID: 10, size: 5}]\n", []string{":6:58: services[0].uidMappings[1]: maps a hostID that uidMappings[0] maps already; let each id be in one mapping only"}},
		"many mappings":      {service + "userns: new\n    uidMappings: [" + mappingList(341) + "]\n    gidMappings: [" + mappingList(340) + "]\n", []string{":6:18: services[0].uidMappings: has 341 mappings, and the kernel takes 340; join neighbours"}},
		"interfaces twice":   {service + "net: new\n    runtime: {interfaces: [{name: a, add: dummy}, {name: b, add: veth, peer: a}, {name: a}, {name: c, add: veth, peer: a}]}\n", []string{`:6:89: services[0].runtime.interfaces[2].name: "a" is that of runtime.interfaces[0] already; give each interface a name of its own`, `:6:120: services[0].runtime.interfaces[3].peer: "a" is that of runtime.interfaces[1] already`}},
		"long host name":     {service + "uts: new\n    hostname: " + strings.Repeat("h", 65) + "\n  - {name: b, image: b, uts: new, hostname: " + strings.Repeat("h", 64) + "}\n", []string{":6:15: services[0].hostname: has 65 bytes, and the kernel takes 64; shorten it"}},
		"climbing cgroups":   {service + "cgroupsPath: ../../x\n  - {name: b, image: b, cgroupsPath: /x/y}\n", []string{`:5:18: services[0].cgroupsPath: "../../x" climbs out of the root; write the path below`}},
		"limits of CPUs":     {service + "resources: {cpu: {shares: 1, period: 999, quota: 999, cpus: \"0-\", mems: x}}\n  - {name: b, image: b, resources: {cpu: {shares: 2, period: 1000, quota: 1000, cpus: \"0-3,5,6-20:2/4\"}}}\n  - {name: c, image: b, resources: {cpu: {shares: 262145, period: 1000001, quota: -1, cpus: \"\"}}}\n", []string{":5:31: services[0].resources.cpu.shares: 1 is out of range; 2 to 262144", ":5:42: services[0].resources.cpu.period: 999 is", ":5:54: services[0].resources.cpu.quota: 999 is too little; write 1000", `:5:65: services[0].resources.cpu.cpus: "0-" is not a list of numbers; write it as 0-3,5`, `:5:77: services[0].resources.cpu.mems: "x" is not`, "services[2].resources.cpu.shares: 262145 is", "services[2].resources.cpu.period: 1000001 is"}},
		"limits of memory":   {service + "resources: {memory: {limit: -2, reservation: -1, swap: -3}, blockIO: {weight: 9, weightDevice: [{major: 8, minor: 0, weight: 1001}]}}\n  - {name: b, image: b, resources: {memory: {limit: -1}, blockIO: {weight: 10}}}\n", []string{":5:33: services[0].resources.memory.limit: -2 is out of range; write the bytes, or -1", "services[0].resources.memory.swap: -3 is", "services[0].resources.blockIO.weight: 9 is out of range; 10 to 1000", "services[0].resources.blockIO.weightDevice[0].weight: 1001 is"}},
		"mapping of none":    {service + "userns: new\n    uidMappings: [{containerID: 0, hostID: 1}]\n", []string{":6:19: services[0].uidMappings[0].size: maps nothing"}},
		"two spellings":      {service + "resources: {memory: {kernelTCP: 1, kerneltcp: 1}}\n", []string{":5:40: services[0].resources.memory.kernelTCP: is given twice, first in line 5"}},
		"swappiness":         {service + "resources: {memory: {swappiness: 101}}\n", []string{":5:38: services[0].resources.memory.swappiness: is above 100"}},
		"device access":      {service + "resources: {devices: [{allow: true, access: rwx}]}\n", []string{`:5:49: services[0].resources.devices[0].access: "rwx" holds more than`}},
		"metadata":           {head + "files:\n  - {path: /a, metadata: toml}\n", []string{`:3:26: files[0].metadata: "toml" is no format; write yaml or json`}},
		"metadata twice":     {head + "files:\n  - {path: /a, metadata: yaml, contents: x}\n", []string{":3:5: files[0]: /a is given as contents and metadata"}},
		"unknown id":         {service + "uid: wbe\n", []string{`:5:10: services[0].uid: "wbe" is no container; write a number, or a container's name: did you mean "web"?`}},
		"unknown file id":    {head + "files:\n  - {path: /a, contents: x, gid: nobody}\n", []string{`:3:34: files[0].gid: "nobody" is no container; write a number, or a container's name: known are: `}},
		"no program":         {service + "command: [\"\", x]\n  - {name: b, image: b, command: [x, \"\"]}\n", []string{":5:15: services[0].command[0]: is empty; name the program"}},
		"quoted id":          {service + "gid: \"5\"\n    uid: \"\"\n", []string{`:5:10: services[0].gid: "5" is no container; write it without quotes if it is a number`, ":6:10: services[0].uid: must be a number or the name of a container, but is an empty string"}},
		"id of a wrong type": {service + "gid: [1]\n", []string{":5:10: services[0].gid: must be a number or the name of a container, but is a list"}},
		"unknown volume":     {service + "binds: [\"vol:/x\"]\n", []string{`:5:13: services[0].binds[0]: there is no volume "vol"; add one to volumes; a path begins`}},
		"near volume":        {service + "mounts: [{type: bind, source: dat, destination: /x}]\nvolumes: [{name: data}]\n", []string{`:5:14: services[0].mounts[0]: there is no volume "dat"; did you mean "data"?`}},
		"read-only volume":   {service + "binds: [\"vol:/x\", \"vol:/y:ro\"]\nvolumes: [{name: vol, readonly: true}]\n", []string{`:5:13: services[0].binds[0]: volume vol is read-only, and bound to be written; add :ro`}},
		"bind source":        {service + "binds: [\"a/b:/x\"]\n", []string{`the source of "a/b:/x" is neither an absolute path nor the name of a volume`}},
		"volume names":       {head + "volumes: [{name: a}, {name: a}, {name: \"A\"}, {}]\n", []string{`:2:29: volumes[1].name: the volume name "a" is already used by volumes[0]`, `:2:40: volumes[2].name: "A" cannot name a volume`, ":2:46: volumes[3].name: is missing"}},
		"volume formats":     {head + "volumes: [{name: a, format: oci}, {name: b, format: zip}, {name: c, platforms: [linux/amd64]}, {name: d, image: i, format: oci, platforms: [plan9/amd64]}]\n", []string{`volumes[0].image: is missing; format oci needs`, `volumes[1].format: "zip" is no format`, `volumes[2].platforms: has no effect`, `volumes[3].platforms[0]: "plan9/amd64" is not a platform of Linux`}},
		"template":           {head + "init: [\"@pkg:../pkg/init\"]\n", []string{`:2:8: init[0]: no image's name can be made of the package's source: stat ../pkg/init/build.yml: no such file or directory; name the folder`}},
		"duplicate key":      {head + "init: []\nkernel: {}\n", []string{":3:1: kernel: is given twice, first in line 1; remove one"}},
		"merge key":          {"kernel: &k {image: a}\ninit:\n  - <<: *k\n", []string{":3:5: init[0]: must be a string, but is a mapping"}},
		"merge in mapping":   {head + "services:\n  - <<: {name: a}\n    image: b\n    name: c\n", []string{":3:5: services[0]: this key is not a plain word; merge keys"}},
		"null":               {head + "init:\n", []string{":2:6: init: has no value; give it one"}},
		"unquoted mode":      {head + "files:\n  - {path: /a, contents: x, mode: 0644}\n", []string{`:3:35: files[0].mode: must be a string, but is the number 0644; quote it: "0644"`}},
		"bad mode":           {head + "files:\n  - {path: /a, contents: x, mode: \"0999\"}\n", []string{`:3:35: files[0].mode: "0999" is not a file mode; write it in octal`}},
		"huge mode":          {head + "files:\n  - {path: /a, contents: x, mode: \"100644\"}\n", []string{`files[0].mode: "100644" is not a file mode`}},
		"number as string":   {service + "sysctl: {net.ipv4.ip_forward: 1}\n", []string{`services[0].sysctl.net.ipv4.ip_forward: must be a string, but is the number 1; quote it: "1"`}},
		"string as bool":     {service + "readonly: yes\n", []string{":5:15: services[0].readonly: must be true or false, but is the string yes; write true or false"}},
		"float as int":       {service + "oomScoreAdj: 1.5\n", []string{":5:18: services[0].oomScoreAdj: must be a whole number, but is the number 1.5"}},
		"octal uid":          {service + "uid: 0100\n", []string{":5:10: services[0].uid: 0100 begins with a zero, which some take for octal and others do not; write 64 if it is octal"}},
		"negative uid":       {service + "uid: -1\n", []string{":5:10: services[0].uid: -1 does not fit; write a decimal"}},
		"octal int":          {service + "gid: 0o17\n", []string{":5:10: services[0].gid: 0o17 does not fit"}},
		"string as list":     {service + "command: /bin/sh\n", []string{":5:14: services[0].command: must be a list, but is the string /bin/sh; write it as [a, b]"}},
		"missing name":       {head + "onboot:\n  - image: a\n", []string{":3:5: onboot[0].name: is missing; name the container"}},
		"missing image":      {head + "onboot:\n  - name: a\n", []string{":3:5: onboot[0].image: is missing; name the image"}},
		"climbing name":      {head + "onboot:\n  - {name: ../x, image: a}\n", []string{`:3:12: onboot[0].name: "../x" cannot name a container`}},
		"duplicate service":  {service + "net: new\n  - name: web\n    image: b\n", []string{`:6:11: services[1].name: the service name "web" is already used by services[0]; give each`}},
		"bad reference":      {head + "init: [\"Not A Ref\"]\n", []string{`:2:8: init[0]: "Not A Ref" is not an image reference; write it as`}},
		"bad capability":     {service + "capabilities: [CAP_FLY]\n", []string{`:5:19: services[0].capabilities: unknown capability "CAP_FLY"; write the full name`}},
		"bind of one part":   {service + "binds: [/dev]\n", []string{`:5:13: services[0].binds[0]: "/dev" is not of the form SOURCE:DESTINATION`}},
		"tmpfs":              {service + "tmpfs: [\"/a:b:c\"]\n", []string{`:5:13: services[0].tmpfs[0]: "/a:b:c" is not of the form`}},
		"rlimit":             {service + "rlimits: [\"nofiles,1,1\"]\n", []string{`:5:15: services[0].rlimits[0]: "nofiles,1,1" names no limit; did you mean "NOFILE"?`}},
		"rlimit order":       {service + "rlimits: [\"nofile,2,1\"]\n", []string{"the soft limit is above the hard one"}},
		"device mode":        {service + "devices: [{path: /dev/x, type: c, major: 1, minor: 3}]\n", []string{`:5:15: services[0].devices[0]: device /dev/x needs a mode`}},
		"device type":        {service + "devices: [{path: all, type: x}]\n", []string{`:5:15: services[0].devices[0]: the type "x" of device "all" is none of b, c, u, p`}},
		"mount type":         {service + "mounts: [{destination: /x, source: y}]\n", []string{`:5:14: services[0].mounts[0]: the mount on "/x" has no type`}},
		"net":                {service + "net: bridge\n", []string{`:5:10: services[0].net: "bridge" is not a namespace; write host, new`}},
		"none is for net":    {service + "pid: none\n", []string{`:5:10: services[0].pid: "none" is not a namespace`}},
		"cwd":                {service + "cwd: a/b\n", []string{`:5:10: services[0].cwd: "a/b" is not absolute`}},
		"env":                {service + "env: [A]\n", []string{`:5:11: services[0].env[0]: "A" is not of the form NAME=VALUE`}},
		"onboot namespace":   {head + "onboot:\n  - {name: a, image: b, runtime: {namespace: x}}\n", []string{":3:46: onboot[0].runtime.namespace: has no effect here"}},
		"cmdline":            {"kernel: {image: k, cmdline: \"a\\nb\"}\n", []string{":1:29: kernel.cmdline: holds a line break"}},
		"file without path":  {head + "files:\n  - contents: x\n", []string{":3:5: files[0].path: is missing"}},
		"file, no content":   {head + "files:\n  - path: /a\n", []string{":3:5: files[0]: /a has no content; give it one of"}},
		"file, two ways":     {head + "files:\n  - {path: /a, contents: x, source: y}\n", []string{":3:5: files[0]: /a is given as contents and source; keep one"}},
		"climbing file":      {head + "files:\n  - {path: /a/../../b, contents: x}\n", []string{`:3:12: files[0].path: "/a/../../b" climbs out of the root`}},
		"optional contents":  {head + "files:\n  - {path: /a, contents: x, optional: true}\n", []string{":3:39: files[0].optional: has no effect without source"}},
		"all at once": {head + "init: 1\nservices:\n  - nam: web\n    readonly: 1\nfoo: 2\n", []string{
			`:2:7: init: must be a list`, `:4:5: services[0]: unknown key "nam"; did you mean "name"?`, `:4:5: services[0].image: is missing`,
			`:4:5: services[0].name: is missing`, `:5:15: services[0].readonly: must be true or false`, `:6:1: unknown key "foo"`,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseSpec("x.yml", []byte(c.text))
			var wrong *SpecError
			if !errors.As(err, &wrong) {
				t.Fatalf("no SpecError, but %v", err)
			}
			lines := strings.Split(err.Error(), "\n")
			if len(lines) != len(c.want) {
				t.Errorf("%d problems, want %d", len(lines), len(c.want))
			}
			for i, want := range c.want {
				if i < len(lines) && !strings.Contains(lines[i], want) {
					t.Errorf("got  %s\nwant %s", lines[i], want)
				}
			}
			if t.Failed() {
				t.Log("\n" + err.Error())
			}
		})
	}
}

// mappingList is a number of mappings that do not touch.
func mappingList(n int) string {
	var list []string
	for i := range n {
		list = append(list, fmt.Sprintf("{containerID: %d, hostID: %d, size: 1}", 2*i, 2*i))
	}
	return strings.Join(list, ", ")
}

func TestSpecTooLarge(t *testing.T) {
	_, err := ParseSpec("x.yml", []byte(head+strings.Repeat("#", maxYAML)))
	if err == nil || !strings.HasPrefix(err.Error(), "x.yml:2:") || !strings.Contains(err.Error(), "the text has more than 1048576 bytes, the last of them here; move long") {
		t.Errorf("got %v", err)
	}
	if _, err := ParseSpec("x.yml", []byte(head+strings.Repeat("#", maxYAML-len(head)))); err != nil {
		t.Errorf("as long as may be: %v", err)
	}
	if _, err := ParseSpec("x.yml", []byte("\xff\xfek\x00e\x00r\x00n\x00e\x00l\x00:\x00 \x00{\x00i\x00m\x00a\x00g\x00e\x00:\x00 \x00x\x00}\x00")); err != nil {
		t.Errorf("UTF-16: %v", err)
	}
}

// The longest command line is taken, and blanks that are not passed on do not count.
func TestLongestCmdline(t *testing.T) {
	for _, line := range []string{strings.Repeat("a ", 1023) + "b", strings.Repeat("a   ", 1023) + "b"} {
		if _, err := ParseSpec("x.yml", []byte("kernel: {image: k, cmdline: \""+line+"\"}\n")); err != nil {
			t.Error(err)
		}
	}
}

// Texts that are short and mean very much, or are wrong all over.
func TestSpecBombs(t *testing.T) {
	t.Parallel()
	many := func(item string, n int) string { return strings.TrimSuffix(strings.Repeat(item+",", n), ",") }
	for name, c := range map[string]struct{ text, want string }{
		"aliases":      {head + "onboot: [&c {name: a, image: b, command: [" + many("x", 5000) + "]}," + many("*c", 5000) + "]\n", "repeated through aliases"},
		"unknown keys": {strings.Repeat("xxxxxxxxxxxx: 1\n", 5000), "these are the first 100 problems"},
		"wrong items":  {head + "init: [" + many("1", 20000) + "]\n", "these are the first 100 problems"},
		"no services":  {head + "services: [" + many("{}", 20000) + "]\n", "these are the first 100 problems"},
		"deep":         {strings.Repeat("[", 500000), "not YAML"},
		"itself":       {"kernel: &k {image: a, binary: *k}\n", "must be a string"},
	} {
		_, err := ParseSpec("x.yml", []byte(c.text))
		if err == nil || !strings.Contains(err.Error(), c.want) || len(err.Error()) > 1<<16 {
			t.Errorf("%s: %.300v", name, err)
		}
	}
}

// What is right must not be refused.
func TestSpecFull(t *testing.T) {
	s, err := ParseSpec("dir/full.yml", []byte(`
trust: {org: [linuxkit]}
kernel: {image: "test/kernel@sha256:`+strings.Repeat("a", 64)+`", cmdline: "", binary: bzImage, tar: none}
init: [a, b/c:1, "localhost:5000/d"]
onboot: [{name: x, image: a}, {name: x, image: a}]
services:
  - name: all
    image: test/all
    command: [a]
    env: ["A=b=c"]
    cwd: /
    capabilities: [all]
    capabilities.add: [CAP_BPF]
    ambient: [none]
    binds: ["/a:/b", "/a:/c:ro"]
    binds.add: []
    mounts: [{type: mqueue}, {destination: /dev}, {type: bind, source: /x, destination: /y, options: [rbind]}]
    tmpfs: [/t, "/u:size=1m"]
    devices: [{path: all, type: b}, {path: /dev/console, type: c, major: 5, minor: 1, mode: "0666"}]
    net: none
    ipc: new
    uts: /proc/1/ns/uts
    pid: host
    hostname: h
    readonly: true
    uid: 1
    gid: 4294967294
    additionalGids: [2, x]
    noNewPrivileges: true
    oomScoreAdj: -1000
    rootfsPropagation: shared
    cgroupsPath: x
    resources: {memory: {limit: 1048576, reservation: 1, swap: 2, kernel: 3, kernelTCP: 4, swappiness: 5, disableOOMKiller: true}, cpu: {shares: 2, quota: 3000, period: 4000, cpus: "0-1", mems: "0", realtimeruntime: 1, realtimePeriod: 2}, pids: {limit: 5}, blockio: {weight: 10, leafweight: 5, weightDevice: [{major: 8, minor: 0, weight: 17}], throttlereadbpsdevice: [{major: 8, minor: 0, rate: 9}], throttleWriteIOPSDevice: [{major: 8, minor: 1, rate: 3}]}, hugepageLimits: [{pageSize: 2MB, limit: 1}], network: {classid: 6, priorities: [{name: eth0, priority: 1}]}, devices: [{allow: false, access: rwm}]}
    sysctl: {a.b: "1"}
    rlimits: ["nofile,10,20", "RLIMIT_CORE, 0, unlimited"]
    maskedPaths: [/x]
    readonlyPaths: [/y]
    annotations: {k: v}
    runtime: {mounts: [{type: tmpfs, destination: /z}], mkdir: [w], namespace: n, cgroups: [systemreserved], interfaces: [{name: wg0, add: wireguard, createInRoot: true}, {name: v0, add: veth, peer: v1}, {name: eth1}], bindNS: {net: /run/netns/x, uts: /run/u}}
    userns: new
    uidMappings: [{containerID: 0, hostID: 1000, size: 10}]
    gidMappings: [{containerid: 1, hostid: 1001, size: 11}]
files:
  - {path: a, contents: ""}
  - {path: /, directory: true, mode: "0755"}
  - {path: b, source: sub/b}
  - {path: c, source: /abs/c, optional: true}
`))
	if err != nil {
		t.Fatal(err)
	}
	if s.Name != "full" || s.Files[2].Source != filepath.Join("dir", "sub", "b") || s.Files[3].Source != "/abs/c" {
		t.Errorf("name %q, sources %q %q", s.Name, s.Files[2].Source, s.Files[3].Source)
	}
	if d := cmp.Diff([]ID{{Number: 2}, {Name: "x"}}, s.Services[0].AdditionalGids); d != "" {
		t.Error(d)
	}
	if c := s.Services[0]; c.BindsAdd == nil || c.Sysctl["a.b"] != "1" || c.GID.Number != 4294967294 || *c.OOMScoreAdj != -1000 || *c.Resources.CPU.Quota != 3000 {
		t.Errorf("%+v", c)
	}
	if s.Onboot[0].Command != nil || s.Onboot[0].Readonly != nil {
		t.Error("absent is not the same as empty")
	}
	if at := placeOf(s.at, "services[0].pid").prefix(); at != "dir/full.yml:23:10: " {
		t.Errorf("pid stands at %s", at)
	}
}

func TestDefault(t *testing.T) {
	s, err := ParseSpec("default.yml", Default())
	if err != nil {
		t.Fatal(err)
	}
	consoles := ParseCmdline(s.Kernel.Cmdline).Consoles()
	if len(consoles) == 0 || consoles[len(consoles)-1] != "ttyS0" {
		t.Errorf("ttyS0 must be the last console, not %q", consoles)
	}
	for _, ref := range s.references("amd64") {
		if !strings.HasPrefix(ref.ref, Own) {
			t.Errorf("%s: %s would need a registry", ref.path, ref.ref)
		}
	}
}

func TestLoadSpecMissing(t *testing.T) {
	if _, err := LoadSpec(t.Context(), filepath.Join(t.TempDir(), "none.yml")); err == nil || !strings.Contains(err.Error(), "none.yml") {
		t.Errorf("got %v", err)
	}
}

func FuzzParseSpec(f *testing.F) {
	f.Add([]byte(machine))
	f.Add(Default())
	f.Add([]byte("a: &a [*a]\nkernel: *a\n"))
	f.Add([]byte("kernel: &k {image: a, binary: *k}"))
	f.Add([]byte("? [a]\n: b\n\xff"))
	f.Fuzz(func(t *testing.T, src []byte) {
		s, err := ParseSpec("fuzz.yml", src)
		var wrong *SpecError
		switch {
		case err == nil && s.Kernel.Image == "":
			t.Error("accepted without a kernel")
		case err != nil && !errors.As(err, &wrong):
			t.Errorf("not a SpecError: %v", err)
		case err != nil:
			for _, p := range wrong.Problems {
				if p.Text == "" || p.Line < 0 || p.Line > 0 && p.Column < 1 {
					t.Errorf("a problem without text or place: %+v", p)
				}
			}
		default:
			for i, c := range s.Services {
				if strings.Contains(bundlePath("services", i, c.Name), "..") {
					t.Errorf("service %q has a bundle elsewhere", c.Name)
				}
				if _, err := newBundle("/b", c.over(Settings{}), v1.Config{}, "", s.names()); err != nil {
					t.Errorf("accepted, but has no bundle: %v", err)
				}
			}
		}
	})
}

func TestCmdline(t *testing.T) {
	for line, want := range map[string]string{
		"":                           "",
		" a  b\t\nc ":                "a b c",
		`a="x y"  b`:                 `a="x y" b`,
		`"dyndbg=file a.c +p" quiet`: `"dyndbg=file a.c +p" quiet`,
	} {
		c := ParseCmdline(line)
		if got := c.String(); got != want {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
		if d := cmp.Diff(c, ParseCmdline(c.String())); d != "" {
			t.Errorf("%q does not survive a round: %s", line, d)
		}
	}
	c := ParseCmdline("console=tty0 quiet console=ttyS0,115200n8 panic=1 -- console=init")
	if d := cmp.Diff([]string{"tty0", "ttyS0"}, c.Consoles()); d != "" {
		t.Error(d)
	}
	if got := c.With("panic=-1", "console=ttyS0,115200n8", "x").String(); got != "console=tty0 quiet console=ttyS0,115200n8 panic=-1 x -- console=init" {
		t.Errorf("With: %s", got)
	}
	if got := c.With("console=hvc0").Consoles(); len(got) != 3 || got[2] != "hvc0" {
		t.Errorf("a console is added, never replaced: %q", got)
	}
	if v, ok := c.Value("panic"); v != "1" || !ok {
		t.Errorf("With changed its receiver: %s", fmt.Sprint(c))
	}
	if _, ok := c.Value("root"); ok {
		t.Error("a word that is not there")
	}
}

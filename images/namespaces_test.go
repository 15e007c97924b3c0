package images

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// What runtimes refuse for a namespace is refused here, when image, label and
// YAML are together, by lint and build alike; its neighbour that works is not.
func TestNamespaceFaults(t *testing.T) {
	s := lintShelf(t)
	s["label/own"] = image(t, "amd64", v1.Config{Cmd: []string{"x"}, Labels: map[string]string{label: `{"userns": "new", "net": "new",
"uidMappings": [{"containerID": 0, "hostID": 0, "size": 9}], "gidMappings": [{"containerID": 0, "hostID": 0, "size": 9}]}`}})
	s["label/sysctl"] = image(t, "amd64", v1.Config{Cmd: []string{"x"}, Labels: map[string]string{label: `{"sysctl": {"net.ipv4.ip_forward": "1"}}`}})
	one := "[{containerID: 0, hostID: 0, size: 9}]"
	maps := ", uidMappings: " + one + ", gidMappings: " + one
	own := "userns: new" + maps
	for what, c := range map[string]struct {
		bad, want, good string
	}{
		"no groups":        {"net: new, userns: new, uidMappings: " + one, `services[0].userns: is "new" with 1 mappings of users and 0 of groups; a new user namespace needs uidMappings and gidMappings`, "net: new, " + own},
		"no mappings":      {"net: new, userns: new", `services[0].userns: is "new" with 0 mappings`, "net: new"},
		"mappings alone":   {"net: new" + maps, `services[0].userns: is "host" with 2 mappings`, "net: new, " + own},
		"no root":          {"net: new, uid: 5, userns: new, uidMappings: [{containerID: 5, hostID: 0, size: 9}], gidMappings: " + one, "services[0].uidMappings: does not map the container's id 0, which sets the container up; add a mapping with containerID: 0", "net: new, uid: 5, userns: new, uidMappings: [{containerID: 5, hostID: 0, size: 9}, {containerID: 0, hostID: 50, size: 1}], gidMappings: " + one},
		"uid":              {"net: new, uid: 9, " + own, "services[0].uid: 9 is not mapped in the container's user namespace; map it in uidMappings, or choose", "net: new, uid: 8, " + own},
		"gid by name":      {"net: new, gid: web, " + own, "services[0].gid: 100 is not mapped in the container's user namespace; map it in gidMappings", "net: new, gid: 0, " + own},
		"groups":           {"net: new, additionalGids: [1, 10], " + own, "services[0].additionalGids[1]: 10 is not mapped", "net: new, additionalGids: [1, 8], " + own},
		"sysfs":            {own, "services[0].userns: is new, and does not own the host's net namespace that the sysfs on /sys shows; add net: new, or put a bind of the machine's own in its place: /sys:/sys", "binds: [\"/sys:/sys\"], " + own},
		"proc":             {"net: none, pid: host, " + own, "services[0].userns: is new, and does not own the host's pid namespace that the proc on /proc shows", "net: none, pid: host, binds: [\"/proc:/proc\"], " + own},
		"mqueue":           {"net: new, mounts: [{source: mqueue, destination: /mq}], " + own, "services[0].userns: is new, and does not own the host's ipc namespace that the mqueue on /mq shows", "net: new, ipc: new, mounts: [{source: mqueue, destination: /mq}], " + own},
		"net":              {"sysctl: {net.ipv4.ip_forward: \"1\"}", "services[0].sysctl.net.ipv4.ip_forward: belongs to the net namespace, which is the host's; add net: new, or set it for the machine with seatrial/sysctl", "net: new, sysctl: {net.ipv4.ip_forward: \"1\"}"},
		"net with slashes": {"net: host, sysctl: {net/ipv4/ip_forward: \"1\"}", "services[0].sysctl.net/ipv4/ip_forward: belongs to the net namespace", "net: /run/netns/x, sysctl: {net/ipv4/ip_forward: \"1\"}"},
		"ipc":              {"sysctl: {kernel.shmmax: \"1\"}", "services[0].sysctl.kernel.shmmax: belongs to the ipc namespace", "ipc: new, sysctl: {kernel.shmmax: \"1\", fs.mqueue.msg_max: \"1\"}"},
		"uts":              {"sysctl: {kernel.domainname: x}", "services[0].sysctl.kernel.domainname: belongs to the uts namespace", "uts: new, sysctl: {kernel.domainname: x}"},
		"host name":        {"uts: new, sysctl: {kernel.hostname: x}", "services[0].sysctl.kernel.hostname: is not taken by runtimes; write hostname, with uts: new", "uts: new, hostname: x"},
		"machine":          {"net: new, ipc: new, uts: new, sysctl: {vm.swappiness: \"1\"}", "services[0].sysctl.vm.swappiness: is of the whole machine, and no container's; set it for the machine with seatrial/sysctl", "net: new, sysctl: {}"},
	} {
		t.Run(what, func(t *testing.T) {
			refused(t, s, "test/web, "+c.bad, c.want)
			refused(t, s, "test/web, "+c.good, "")
		})
	}
	refused(t, s, "label/own, uid: 9", "services[0].uid: 9 is not mapped")
	refused(t, s, "label/own, net: host", "services[0].image: image label/own, label org.mobyproject.config: userns: is new, and does not own the host's net namespace")
	refused(t, s, "label/own, uid: 8", "")
	refused(t, s, "label/own, userns: new, uid: 9, uidMappings: [{containerID: 0, hostID: 0, size: 10}]", "") // one of both from the label
	refused(t, s, "label/sysctl", "services[0].image: image label/sysctl, label org.mobyproject.config: sysctl.net.ipv4.ip_forward: belongs to the net")
	refused(t, s, "label/sysctl, net: new", "")
}

// refused builds and lints a service, and wants one problem; none if it is empty.
func refused(t *testing.T, s shelf, service, want string) {
	t.Helper()
	y := spec(t, sound+"services:\n  - {name: web, image: "+service+"}\n")
	b := Builder{Source: s, Arch: "amd64", Dir: t.TempDir()}
	found, _, err := b.Lint(t.Context(), y)
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.Build(t.Context(), y)
	var wrong *SpecError
	if errors.As(err, &wrong); wrong == nil {
		wrong = &SpecError{}
		if err != nil {
			t.Fatal(err)
		}
	}
	if d := cmp.Diff(found, wrong.Problems); d != "" {
		t.Errorf("%s: lint and build differ: %s", service, d)
	}
	if want == "" && len(found) > 0 || want != "" && (len(found) != 1 || !strings.Contains(found[0].String(), "machine.yml:4:") || !strings.Contains(found[0].String(), want)) {
		t.Errorf("%s: got %v, want %q", service, found, want)
	}
}

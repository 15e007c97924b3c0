package qemu

import (
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// SpareHugePages turns transparent huge pages off for this process and all that
// it starts, where they cost more than they give, and says whether it did: a
// kernel or sandbox that does not let it only costs time.
//
// QEMU asks for huge pages for the guest's memory and for translated code. On a
// host that is a virtual machine itself and gives what it frees back to its
// hypervisor, every huge page has to be fetched from there, which takes
// milliseconds: an emulated boot touches 450 MB, and spends a tenth to an eighth
// of its time so. Small pages come from memory that the host has kept. Only an
// emulated guest is better off: KVM translates addresses by the page.
func SpareHugePages() bool {
	return returnsFreeMemory("/sys/bus/virtio/devices") &&
		unix.Prctl(unix.PR_SET_THP_DISABLE, 1, 0, 0, 0) == nil // children inherit it, prctl(2)
}

// Of the memory balloon (virtio specification 1.2, 5 and 5.5.3): its device
// number, and the feature that reports free pages to the hypervisor.
const (
	balloonDevice    = "0x0005"
	balloonReporting = 5
)

// returnsFreeMemory says whether one of the virtio devices below a folder of
// sysfs is a balloon that reports free pages.
func returnsFreeMemory(devices string) bool {
	names, err := filepath.Glob(filepath.Join(devices, "*", "device"))
	if err != nil {
		return false
	}
	for _, name := range names {
		kind, err := os.ReadFile(name)
		if err != nil || strings.TrimSpace(string(kind)) != balloonDevice {
			continue
		}
		bits, err := os.ReadFile(filepath.Join(filepath.Dir(name), "features")) // a digit per feature, the first is number 0
		if err == nil && len(bits) > balloonReporting && bits[balloonReporting] == '1' {
			return true
		}
	}
	return false
}

package cases

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/seatrial/seatrial/boot"
	"github.com/seatrial/seatrial/harness"
	"github.com/seatrial/seatrial/harness/suite"
	"github.com/seatrial/seatrial/images"
	"github.com/seatrial/seatrial/reports"
)

// mediumTime is for firmware that reads the whole image through an emulated
// controller, on a busy host.
const mediumTime = SpecTimeout(8 * time.Minute)

// fromMedium boots from a medium of an image.
func fromMedium(m *images.Media) suite.Tweak {
	return func(p *harness.Plan) { p.Media = m }
}

// bootable are the entries of the table below that the suite's architecture has.
func bootable() []TableEntry {
	loader, other := `EFI stub: Loaded initrd`, `BOOT_IMAGE=`
	// The size of the initramfs in memory tells whether it is packed.
	packed, whole := `Freeing initrd memory: [1-4]\d{4}K`, `Freeing initrd memory: [5-9]\d{4}K`
	list := []TableEntry{
		Entry("kernel+initrd-gzip", mediumTime, images.KernelGzip, packed, whole),
		Entry("kernel+initrd-zstd", mediumTime, images.KernelZstd, packed, whole),
		Entry("kernel+squashfs", mediumTime, images.KernelSquashfs, `ommand line: .*root=/dev/vda`, `EFI v`),
		Entry("iso-efi", mediumTime, images.ISOEFI, loader, other),
		Entry("raw-efi", mediumTime, images.RawEFI, loader, other),
		Entry("qcow2-efi", mediumTime, images.QcowEFI, loader, other),
	}
	if trial.Arch() == "arm64" { // no BIOS, and UEFI loads GRUB, not iPXE
		return append(list, Entry("netboot", mediumTime, images.Netboot, `ommand line: BOOT_IMAGE=/kernel`, loader))
	}
	return append(list,
		Entry("iso-bios", mediumTime, images.ISOBIOS, `Command line: BOOT_IMAGE=/kernel`, `EFI v`),
		Entry("raw-bios", mediumTime, images.RawBIOS, `Command line: BOOT_IMAGE=/kernel`, `EFI v`),
		Entry("qcow2-bios", mediumTime, images.QcowBIOS, `Command line: BOOT_IMAGE=/kernel`, `EFI v`),
		Entry("netboot", mediumTime, images.Netboot, `Command line: .*initrd=initrd.img`, `EFI v`),
	)
}

// The image that ships comes up from every medium with all its services, and
// cleanly goes down again. The first lines show that the machine was really
// booted from it: what loaded the kernel leaves its trace.
var _ = Describe("the image that ships, booted from", Label("media"), func() {
	DescribeTable("a medium", func(ctx SpecContext, format images.Format, trace, other string) {
		im := trial.Default(ctx)
		vm := trial.BootReady(ctx, im, fromMedium(trial.Media(ctx, im, format)))
		Expect(vm).To(suite.Print(trace))
		Expect(vm).NotTo(suite.Print(other))
		Expect(vm).To(suite.Print(`^init: ready`))
		Expect(vm).To(suite.BeFaultFree())
		Expect(run(ctx, vm, "@cat", "/proc/1/cmdline")).To(MatchRegexp(`^(/sbin)?/init\x00`)) // /init is a link to it
		Expect(run(ctx, vm, "ctr", "-n", "services.linuxkit", "task", "ls")).To(MatchRegexp(`(?m)^web\s+\d+\s+RUNNING`))
		if format != images.ISOEFI {
			Expect(vm.PowerOff(ctx)).To(Succeed())
			return
		}
		// UEFI describes the power button by ACPI, on both architectures.
		Expect(vm).NotTo(suite.Print(`init: power button`))
		Expect(vm.PowerButton(ctx)).To(Succeed())
		Expect(vm.Await(ctx, boot.Off)).To(Succeed())
		Expect(vm).To(suite.Print(`init: power button\b`)) // behind the prompt of the shell on the console
	}, bootable())

	It("a squashfs root is read-only, and one that is not there is named", func(ctx SpecContext) {
		im := trial.Default(ctx)
		m := trial.Media(ctx, im, images.KernelSquashfs)
		vm := trial.BootReady(ctx, im, fromMedium(m))
		Expect(run(ctx, vm, "@cat", "/proc/mounts")).To(MatchRegexp(`(?m)^/dev/vda / squashfs ro`))

		gone := *m
		gone.Disk = ""
		lost := trial.Boot(ctx, im, fromMedium(&gone))
		Expect(lost.Await(ctx, boot.Ready)).To(suite.BeVerdict(reports.Guest, `init died`))
		Expect(lost).To(suite.Print(`^init: giving up: root=/dev/vda: there is no such device after 10s; there are: `))
	}, mediumTime)

	It("a file capability works where the root is a squashfs, and is lost in an initramfs", func(ctx SpecContext) {
		spec := trial.DefaultSpec()
		keep := true
		spec.Onboot = append(spec.Onboot, images.Container{Name: "ping", Image: capable(ctx), Settings: images.Settings{
			Command: []string{"/bin/ping", "-c", "1", "127.0.0.1"}, UID: &images.ID{Number: 1000}, Capabilities: []string{"CAP_NET_RAW"}, Readonly: &keep,
		}})
		im := trial.Build(ctx, spec)
		Expect(im.Lost(images.KernelInitrd)).To(ContainSubstring("security.capability of /containers/onboot/001-ping/rootfs/bin/ping is lost"))
		vm := trial.BootReady(ctx, im, fromMedium(trial.Media(ctx, im, images.KernelSquashfs)))
		Expect(vm).To(suite.Print(`^1 packets transmitted, 1 packets received`))

		lost := trial.Boot(ctx, im, failing)
		Expect(lost.Await(ctx, boot.Ready)).To(Succeed())
		Expect(lost).To(suite.Print(`^ping: permission denied`))
		Expect(lost).NotTo(suite.Print(`packets received`))
	}, mediumTime)
})

// capable puts an image into the suite's store that holds a ping with the
// capability that it needs when it is not root's, and returns its name. The
// program is the busybox of the image that ships.
func capable(ctx SpecContext) string {
	GinkgoHelper()
	const ref = "cases/capable:1"
	program, _, err := trial.Default(ctx).ReadFile("/containers/onboot/000-hello/rootfs/bin/busybox")
	Expect(err).NotTo(HaveOccurred())
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	// CAP_NET_RAW, number 13, permitted and effective (VFS_CAP_REVISION_2).
	capability := "\x01\x00\x00\x02\x00\x20\x00\x00" + strings.Repeat("\x00", 12)
	Expect(w.WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg, Name: "bin/ping", Mode: 0o755, Size: int64(len(program)),
		PAXRecords: map[string]string{"SCHILY.xattr.security.capability": capability},
	})).To(Succeed())
	_, err = w.Write(program)
	Expect(errors.Join(err, w.Close())).To(Succeed())
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(archive.Bytes())), nil })
	Expect(err).NotTo(HaveOccurred())
	im, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{OS: "linux", Architecture: trial.Arch(), RootFS: v1.RootFS{Type: "layers"}})
	Expect(err).NotTo(HaveOccurred())
	im, err = mutate.AppendLayers(im, layer)
	Expect(err).NotTo(HaveOccurred())
	store, err := images.OpenStore(filepath.Join(trial.Cache(), "store"))
	Expect(err).NotTo(HaveOccurred())
	Expect(store.Put(ctx, ref, im)).To(Succeed())
	return ref
}

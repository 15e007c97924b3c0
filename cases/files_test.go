package cases

import (
	"os"
	"path/filepath"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

const filesYAML = `
kernel:
  image: seatrial/kernel
  cmdline: "console=ttyS0"
init:
  - seatrial/init
files:
  - path: /etc/probe/from-source
    source: given.txt
    mode: "0640"
  - path: /etc/probe/tool
    source: given.txt
    mode: "4755"
  - path: /etc/probe/no-mode
    contents: "inline"
  - path: /etc/probe/absent
    source: nowhere.txt
    optional: true
  - path: /etc/probe/link
    symlink: /etc/probe/from-source
  - path: /etc/probe/dir
    directory: true
    mode: "0711"
  - path: /
    directory: true
    mode: "0751"
    gid: 8
`

var _ = Describe("files", func() {
	It("are placed with path, source and mode", func(ctx SpecContext) {
		dir := GinkgoT().TempDir()
		Expect(os.WriteFile(filepath.Join(dir, "given.txt"), []byte("from the host\n"), 0o600)).To(Succeed())
		Expect(os.WriteFile(filepath.Join(dir, "files.yml"), []byte(filesYAML), 0o600)).To(Succeed())
		vm := trial.BootReady(ctx, build(ctx, filepath.Join(dir, "files.yml")))
		Expect(run(ctx, vm, "@cat", "/etc/probe/from-source")).To(Equal("from the host\n"))
		Expect(run(ctx, vm, "@stat", "/etc/probe/from-source")).To(Equal("0640 0 0 14 file\n"))
		Expect(run(ctx, vm, "@stat", "/etc/probe/tool")).To(HavePrefix("4755 "))
		Expect(run(ctx, vm, "@stat", "/etc/probe/no-mode")).To(Equal("0600 0 0 6 file\n"))
		Expect(run(ctx, vm, "@stat", "/etc/probe/link")).To(HaveSuffix(" link\n"))
		Expect(run(ctx, vm, "@stat", "/etc/probe/dir")).To(And(HavePrefix("0711 "), HaveSuffix(" directory\n")))
		Expect(refused(ctx, vm, "@stat", "/etc/probe/absent")).To(ContainSubstring("no such file"))
		// The root itself takes owner and mode, and nothing below it does.
		Expect(run(ctx, vm, "@stat", "/")).To(And(HavePrefix("0751 0 8 "), HaveSuffix(" directory\n")))
		Expect(run(ctx, vm, "@stat", "/etc")).To(HavePrefix("0755 0 0 "))
		// An entry without a mode must not close the folders above it.
		Expect(run(ctx, vm, "@stat", "/etc")).To(HavePrefix("0755 "))
		Expect(run(ctx, vm, "@stat", "/etc/probe")).To(HavePrefix("0755 "))
	}, SpecTimeout(5*time.Minute))
})

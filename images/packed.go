package images

import (
	"errors"
	"io"
	"os"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// packer compresses what is written to it. What it writes must not depend on
// how many processors there are.
type packer func(io.Writer) (io.WriteCloser, error)

func gzipPacker(w io.Writer) (io.WriteCloser, error) {
	return gzip.NewWriterLevel(w, gzip.DefaultCompression)
}

func zstdPacker(w io.Writer) (io.WriteCloser, error) {
	return zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedDefault))
}

// pack writes the image's initramfs compressed. The microcode before it stays
// as it is: the kernel looks for it before it can decompress anything.
func (m *mastering) pack(name string, with packer) (err error) {
	in, err := os.Open(m.image.InitrdPath)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	_, err = create(m.ctx, m.path(name), func(w io.Writer) error {
		if _, err := io.CopyN(w, in, m.image.UcodeSize); err != nil {
			return err
		}
		z, err := with(w)
		if err != nil {
			return err
		}
		_, err = io.Copy(z, in)
		return errors.Join(err, z.Close())
	})
	return err
}

// packedInitrd is pack for firmware and boot loaders, which read slowly.
func (m *mastering) packedInitrd(name string) error { return m.pack(name, zstdPacker) }

func (m *mastering) kernelGzip() error { return m.kernelPacked("-initrd.gz", gzipPacker) }
func (m *mastering) kernelZstd() error { return m.kernelPacked("-initrd.zst", zstdPacker) }

// kernelPacked is kernel+initrd with a packed initramfs.
func (m *mastering) kernelPacked(suffix string, with packer) error {
	m.media.Kernel, m.media.Initrd = "kernel", "initrd.img"
	m.add("kernel", "-kernel")
	m.add("initrd.img", suffix)
	return errors.Join(m.copyFile(m.image.KernelPath, "kernel"), m.pack("initrd.img", with))
}

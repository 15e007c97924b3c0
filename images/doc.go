// Package images turns a LinuxKit YAML file into an image that QEMU can boot:
// a kernel, an initramfs and a command line.
//
// Everything is a value. [ParseSpec] makes a [Spec] of a YAML text, or says all
// that is wrong with it at once, each problem with its line and column. A
// [Builder] makes an [Image] of a Spec. Between the two stands a [Source] of
// component images: [Resolve] looks into a local OCI layout (a [Store]) first
// and asks registries only for what is not there.
//
//	spec, err := images.LoadSpec(ctx, "machine.yml")
//	store, err := images.OpenStore("cache/oci")
//	b := images.Builder{Source: images.Resolve(store), Arch: "amd64", Dir: "cache/images"}
//	im, err := b.Build(ctx, spec)
//	files, err := im.Export(".", "machine")
//
// # What is promised
//
// The same spec, component images and file sources give the same bytes, in any
// folder, under any umask, clock and locale; [Image].Digest names them. A
// build whose inputs did not change is found again in Builder.Dir.
//
// A component image is never unpacked on the host: its layers are read as
// streams, kept as a tree in memory with the file contents in one nameless
// temporary file, and written out as a cpio archive. A layer may hold whatever
// it likes in names and links; none of it is ever a path on the host.
//
// Nothing half-written is ever visible: results appear by a rename, and what a
// killed build left behind is removed by the next one.
//
// # Where it differs from upstream
//
// Fields of the YAML that are known but not built yet are errors, never
// ignored. Parents of a files: entry that are missing are made with mode 0755;
// upstream gives them the file's own mode, so that one entry without a mode
// closes /etc for everyone but root. An entry of a later image below a
// directory that an earlier image made a symbolic link follows the link, so
// that images with and without a merged /usr can be put together.
package images

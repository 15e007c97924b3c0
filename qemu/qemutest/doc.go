// Package qemutest is a stand-in for QEMU: a program that takes its command
// line, answers its monitor as a recorded QEMU did, and plays a guest on its
// serial lines, all in milliseconds. Tests use it for what a real QEMU does not
// do on demand: to be of another version, to refuse a command, to have KVM.
//
// The stand-in is the test binary itself, run again under a name that [Main]
// knows:
//
//	func TestMain(m *testing.M) {
//		qemutest.Main(m, qemutest.Plays{"hello": {Guest: func(m *qemutest.Machine) {
//			fmt.Fprintln(m.Serial, "hello")
//			m.End("guest-shutdown")
//		}}})
//	}
//
//	binary := qemutest.Binary(t, "hello") // for qemu.Config.Binary
//
// What it says on the monitor is taken from testdata, two dialogues with QEMU
// 7.2.22 as package qemu records them: a machine that is saved, and one that
// goes on from there. What a test shows with the stand-in holds for QEMU as far
// as these go; the same calls are tested with QEMU itself in package qemu.
package qemutest

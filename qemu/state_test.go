package qemu

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// counter is, by architecture, a guest with a digit in its memory: every byte
// on its serial line makes the digit one higher and is answered by it.
var counter = map[string][]byte{
	"amd64": append(slices.Clone(probeAMD64[:32]),
		0x66, 0xba, 0xfd, 0x03, // wait: mov dx, 0x3fd (line status)
		0xec, 0xa8, 0x01, 0x74, 0xfb, // in al, dx; test al, 1; jz: nothing came
		0x66, 0xba, 0xf8, 0x03, 0xec, // mov dx, 0x3f8; in al, dx
		0xfe, 0x05, 0x3c, 0x00, 0x10, 0x00, // inc byte [digit]
		0xa0, 0x3c, 0x00, 0x10, 0x00, // mov al, [digit]
		0xee, 0xeb, 0xe4, // out dx, al; jmp wait
		'0',
	),
	"arm64": {
		0x01, 0x20, 0xa1, 0xd2, // movz x1, #0x900, lsl #16 (PL011)
		0x22, 0x01, 0x00, 0x10, // adr x2, digit
		0x20, 0x18, 0x40, 0xb9, // wait: ldr w0, [x1, #0x18] (flags)
		0xe0, 0xff, 0x27, 0x37, // tbnz w0, #4, wait: nothing came
		0x23, 0x00, 0x40, 0xb9, // ldr w3, [x1]
		0x40, 0x00, 0x40, 0x39, // ldrb w0, [x2]
		0x00, 0x04, 0x00, 0x11, // add w0, w0, #1
		0x40, 0x00, 0x00, 0x39, // strb w0, [x2]
		0x20, 0x00, 0x00, 0xb9, // str w0, [x1]
		0xf9, 0xff, 0xff, 0x17, // b wait
		'0',
	},
}

// count sends one byte and returns the digit that answers it.
func count(t *testing.T, v *VM) string {
	t.Helper()
	if _, err := v.Serial().Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	answer := make(chan string, 1)
	go func() {
		b := make([]byte, 1)
		_, err := io.ReadFull(v.Serial(), b)
		if err != nil {
			b = []byte(err.Error())
		}
		answer <- string(b)
	}()
	select {
	case s := <-answer:
		return s
	case <-time.After(30 * time.Second):
		t.Fatal("no answer from the guest")
		return ""
	}
}

func start(t *testing.T, c Config) *VM {
	t.Helper()
	v, err := Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	})
	return v
}

func counting(t *testing.T, arch string) Config {
	t.Helper()
	binary, _, err := Find(arch)
	if err != nil {
		t.Skip("needs QEMU: ", err)
	}
	kernel := filepath.Join(t.TempDir(), "kernel")
	if err := os.WriteFile(kernel, counter[arch], 0o644); err != nil {
		t.Fatal(err)
	}
	return Config{Binary: binary, Arch: arch, Kernel: kernel, MemoryMiB: 64, Dir: t.TempDir()}
}

// saved is the state of a machine whose digit is 2.
func saved(t *testing.T, c Config, withoutRAM bool) []byte {
	t.Helper()
	v := start(t, c)
	if err := v.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"1", "2"} {
		if got := count(t, v); got != want {
			t.Fatalf("the digit is %s, not %s", got, want)
		}
	}
	var state bytes.Buffer
	if err := v.Save(t.Context(), &state, withoutRAM); err != nil {
		t.Fatal(err)
	}
	return state.Bytes()
}

// Machines continue from the saved one, each with a memory of its own, in both
// ways of saving and on both architectures.
func TestSaveAndLoad(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64"} {
		for _, withoutRAM := range []bool{true, false} {
			name := arch + " stream"
			if withoutRAM {
				name = arch + " file"
			}
			t.Run(name, func(t *testing.T) {
				c := counting(t, arch)
				if withoutRAM {
					c.RAM.File = filepath.Join(t.TempDir(), "ram,file")
				}
				disk := filepath.Join(t.TempDir(), "disk")
				if err := os.WriteFile(disk, make([]byte, 1<<20), 0o600); err != nil {
					t.Fatal(err)
				}
				c.Disks = []Disk{{Path: disk}}
				state := saved(t, c, withoutRAM)
				c.Incoming, c.RAM.Private, c.Disks[0].Snapshot = true, true, true
				for range 2 { // the second proves that the first wrote nothing into the file
					v := start(t, c)
					if err := v.Load(t.Context(), bytes.NewReader(state), withoutRAM); err != nil {
						t.Fatal(err)
					}
					if err := v.Resume(t.Context()); err != nil {
						t.Fatal(err)
					}
					for _, want := range []string{"3", "4"} {
						if got := count(t, v); got != want {
							t.Errorf("the digit is %s, not %s", got, want)
						}
					}
				}
			})
		}
	}
}

// A state that is cut short, or of another machine, is an error with QEMU's
// reason, not a machine that stands still.
func TestLoadRefuses(t *testing.T) {
	c := counting(t, "amd64")
	c.RAM.File = filepath.Join(t.TempDir(), "ram")
	state := saved(t, c, true)
	c.Incoming, c.RAM.Private = true, true
	for name, bad := range map[string][]byte{"cut": state[:len(state)/2], "empty": nil, "noise": bytes.Repeat([]byte("noise"), 1000)} {
		t.Run(name, func(t *testing.T) {
			v := start(t, c)
			err := v.Load(t.Context(), bytes.NewReader(bad), true)
			if err == nil || !strings.Contains(err.Error(), "migration") {
				t.Errorf("got %v", err)
			}
		})
	}
	c.RAM.File = filepath.Join(t.TempDir(), "empty")
	v := start(t, c)
	if err := v.Load(t.Context(), bytes.NewReader(state), true); err == nil {
		t.Error("a state was taken without its memory")
	}
	c.RAM, c.MemoryMiB = RAM{}, 128
	v = start(t, c)
	if err := v.Load(t.Context(), bytes.NewReader(state), true); err == nil {
		t.Error("a state of a machine with 64 MiB was taken by one with 128")
	}
}

// What blocks a migration blocks a save, by name, and leaves the machine alive.
func TestSaveRefused(t *testing.T) {
	c := counting(t, "amd64")
	c.Extra = []string{"-drive", "if=none,id=x,file=null-co://,format=raw", "-device", "nvme,serial=x,drive=x"}
	v := start(t, c)
	err := v.Save(t.Context(), io.Discard, true)
	if !errors.Is(err, ErrNotSaveable) {
		t.Fatalf("got %v", err)
	}
	if err := v.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := count(t, v); got != "1" {
		t.Errorf("the digit is %s", got)
	}
}

package qemu

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// swtpm is the program that is a machine's TPM.
const swtpm = "swtpm"

// phTPM is the descriptor number of the TPM's control channel.
const phTPM = "@tpm@"

// tpmArgs attach a TPM 2.0. The amd64 board's is a CRB, whose driver Debian's
// kernels have built in; the arm64 board takes a TIS only.
func tpmArgs(arch string) []string {
	device := "tpm-crb"
	if arch == "arm64" {
		device = "tpm-tis-device"
	}
	return []string{"-chardev", tpmChannel.option, "-tpmdev", "emulator,id=tpm,chardev=tpm", "-device", device + ",tpmdev=tpm"}
}

var tpmChannel = inherited{placeholder: phTPM, option: "socket,id=tpm,fd=" + phTPM}

// tpm is a running TPM. It ends with this process, whatever ends that.
type tpm struct {
	cmd    *exec.Cmd
	stderr tail
	done   chan error
}

// startTPM starts a TPM with its state in a folder and returns the end of its
// channel that QEMU must get.
func startTPM(dir string) (*tpm, *os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("TPM: %w", err)
	}
	far, own, err := filePair("tpm")
	if err != nil {
		return nil, nil, err
	}
	t := &tpm{done: make(chan error, 1)}
	t.cmd = exec.Command(swtpm, "socket", "--tpm2", "--tpmstate", "dir="+dir+",mode=0600", "--ctrl", "type=unixio,clientfd=3")
	t.cmd.ExtraFiles, t.cmd.Stderr = []*os.File{own}, &t.stderr
	started := startChild(t.cmd, func(err error) { t.done <- err })
	if err := errors.Join(started, own.Close()); err != nil {
		far.Close()
		return nil, nil, fmt.Errorf("TPM: %w", err)
	}
	return t, far, nil
}

// close ends the TPM, whose state is on disk. A QEMU that ends well has told it
// to end already. One that does not obey in that time, because it was stopped,
// say, is killed, and the error says so.
func (t *tpm) close(grace time.Duration) error {
	_ = t.cmd.Process.Signal(syscall.SIGTERM) // how it ended is looked at
	var err error
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case err = <-t.done:
	case <-timer.C:
		_ = t.cmd.Process.Kill() // likewise
		err = fmt.Errorf("it did not end in %v: %w", grace, cmp.Or(<-t.done, errors.New("it has now")))
	}
	if text := strings.TrimSpace(t.stderr.String()); err != nil {
		return fmt.Errorf("the machine's TPM: %w: %s", err, cmp.Or(text, "it said nothing"))
	}
	return nil
}

func (v *VM) startTPM(c Config) ([]*os.File, error) {
	if c.TPM == "" {
		return nil, nil
	}
	t, far, err := startTPM(c.TPM)
	if err != nil {
		return nil, err
	}
	v.tpm = t
	return []*os.File{far}, nil
}

func (v *VM) closeTPM() error {
	if v.tpm == nil {
		return nil
	}
	return v.tpm.close(v.grace)
}

// checkTPM says what is missing for a TPM.
func (c Config) checkTPM(bad func(format string, args ...any)) {
	if c.TPM == "" {
		return
	}
	if _, err := exec.LookPath(swtpm); err != nil {
		bad("no %s in PATH, which is the machine's TPM; on Debian and Ubuntu: apt-get install %s", swtpm, swtpm)
	}
	if strings.Contains(c.TPM, ",") {
		bad("the folder of the TPM's state, %q, has a comma in its name, which %s takes for an end", c.TPM, swtpm)
	}
}

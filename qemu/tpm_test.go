package qemu

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A machine has the TPM it was given, whose state outlives it; no process does.
func TestTPM(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64"} {
		c := counting(t, arch)
		c.TPM = filepath.Join(t.TempDir(), "state", "of tpm")
		v := start(t, c)
		var models []string
		if err := v.QMP().Do(t.Context(), "query-tpm-models", nil, &models); err != nil {
			t.Fatal(err)
		}
		var tpms []struct{ ID, Model string }
		if err := v.QMP().Do(t.Context(), "query-tpm", nil, &tpms); err != nil || len(tpms) != 1 || tpms[0].ID != "tpm" {
			t.Errorf("%s: %+v of %q, %v", arch, tpms, models, err)
		}
		pid := v.tpm.cmd.Process.Pid
		if err := v.Close(); err != nil {
			t.Errorf("%s: %v", arch, err)
		}
		if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
			t.Errorf("%s: the TPM lives on: %v", arch, err)
		}
		if kept, err := filepath.Glob(filepath.Join(c.TPM, "tpm2-*.permall")); err != nil || len(kept) != 1 {
			t.Errorf("%s: state: %q, %v", arch, kept, err)
		}
	}
}

// A TPM that ends on its own is noticed, and so is a QEMU that does not start
// beside one.
func TestTPMEndsAlone(t *testing.T) {
	c := counting(t, "amd64")
	c.TPM = t.TempDir()
	v := start(t, c)
	if err := v.tpm.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	err := <-v.tpm.done
	v.tpm.done <- err
	if err := v.Close(); err == nil || !strings.Contains(err.Error(), "TPM: signal: killed") {
		t.Error(err)
	}
	v.closed = nil // it was looked at
	c.Extra = []string{"-device", "nonesuch"}
	if _, err := Start(t.Context(), c); err == nil || !strings.Contains(err.Error(), "nonesuch") {
		t.Error(err)
	}
}

// A TPM that was stopped does not keep the machine from being closed.
func TestTPMIsStopped(t *testing.T) {
	c := counting(t, "amd64")
	c.TPM, c.Grace = t.TempDir(), 200*time.Millisecond
	v := start(t, c)
	if err := v.tpm.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := v.Close(); err == nil || !strings.Contains(err.Error(), "it did not end in 200ms: signal: killed") {
		t.Error(err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("closing took %v", took)
	}
	v.closed = nil // it was looked at
}

func TestTPMIsMissed(t *testing.T) {
	c := config(t)
	c.TPM = "a,b"
	t.Setenv("PATH", t.TempDir())
	_, err := c.Command()
	for _, want := range []string{"no swtpm in PATH", "apt-get install swtpm", "comma"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	if _, err := os.Stat("a,b"); err == nil {
		t.Error("the folder was made all the same")
	}
}

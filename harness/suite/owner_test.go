package suite

import (
	"bufio"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// ownedFolder, in the environment of this test binary, makes it a process of a
// suite whose run somebody else owns.
const ownedFolder = "SEATRIAL_TEST_OWNED"

func TestMain(m *testing.M) {
	if dir := os.Getenv(ownedFolder); dir != "" {
		if err := endWithOwner(dir); err != nil {
			os.Exit(1)
		}
		os.Stdout.WriteString("up\n")
		select {}
	}
	os.Exit(m.Run())
}

// A process of the suite lives as long as the run's folder is locked, and ends
// when the lock goes, as it does with its holder.
func TestEndWithOwner(t *testing.T) {
	dir := t.TempDir()
	owner, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer owner.Close()
	if err := syscall.Flock(int(owner.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), ownedFolder+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "up\n" {
		t.Fatalf("%q, %v", line, err)
	}
	if err := cmd.Process.Signal(syscall.Signal(0)); err != nil {
		t.Fatalf("ended while the folder was locked: %v", err)
	}
	if err := owner.Close(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // its status is looked at
	if got := cmd.ProcessState.ExitCode(); got != 3 {
		t.Errorf("status %d, want 3", got)
	}
	if err := endWithOwner(dir + "/none"); err == nil {
		t.Error("no error where no folder is")
	}
}

package qemu

import (
	"io"
	"os"
	"testing"

	"github.com/creack/pty"
)

// The far side is the master's, even if the library opened another terminal's.
func TestOpenTerminal(t *testing.T) {
	other, wrong, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	mistaken := func() (*os.File, *os.File, error) {
		master, slave, err := pty.Open()
		if err != nil {
			return nil, nil, err
		}
		return master, wrong, slave.Close()
	}
	for name, open := range map[string]func() (*os.File, *os.File, error){"sound": pty.Open, "mistaken": mistaken} {
		master, slave, err := openTerminal(open)
		if err != nil {
			t.Fatal(name, err)
		}
		if _, err := io.WriteString(slave, name); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(name))
		if n, err := master.Read(got); string(got[:n]) != name {
			t.Errorf("%s: the master reads %q, %v", name, got[:n], err)
		}
		if slave.Name() == wrong.Name() {
			t.Errorf("%s: is called %s as another", name, slave.Name())
		}
		master.Close()
		slave.Close()
	}
}

package qemu

import (
	"os"
	"path/filepath"
	"testing"
)

func TestReturnsFreeMemory(t *testing.T) {
	for name, c := range map[string]struct {
		device, features string
		want             bool
	}{
		"reporting balloon": {"0x0005\n", "0110010100000000000000000000000010000000\n", true},
		"other balloon":     {"0x0005\n", "0110000100000000000000000000000010000000\n", false},
		"disk":              {"0x0002\n", "0010011001100100000000000000010010010000\n", false},
		"cut short":         {"0x0005\n", "01", false},
	} {
		dir := t.TempDir()
		device := filepath.Join(dir, "virtio0")
		if err := os.Mkdir(device, 0o755); err != nil {
			t.Fatal(err)
		}
		for file, text := range map[string]string{"device": c.device, "features": c.features} {
			if err := os.WriteFile(filepath.Join(device, file), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got := returnsFreeMemory(dir); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if returnsFreeMemory(filepath.Join(t.TempDir(), "none")) {
		t.Error("no virtio bus, and a balloon on it")
	}
}

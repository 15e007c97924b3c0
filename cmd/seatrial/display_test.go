package main

import (
	"io"
	"strings"
	"testing"

	"github.com/charmbracelet/x/ansi"
	"github.com/creack/pty"
	"github.com/seatrial/seatrial/qemu"
)

// screen is what a terminal shows after the text: it knows what display uses.
func screen(text string) []string {
	lines := []string{""}
	y := 0
	for text != "" {
		seq, _, n, _ := ansi.DecodeSequence(text, ansi.NormalState, nil)
		text = text[n:]
		switch {
		case seq == "\n":
			y++
			if y == len(lines) {
				lines = append(lines, "")
			}
		case seq == "\r":
		case seq == ansi.EraseScreenBelow:
			lines = append(lines[:y:y], "")
		case strings.HasPrefix(seq, "\x1b[") && strings.HasSuffix(seq, "A"):
			for i := 1; i <= 9; i++ {
				if seq == ansi.CursorUp(i) {
					y -= i
				}
			}
		default:
			lines[y] += seq
		}
	}
	return lines
}

// On a terminal what is under way stands below what is over, and goes away
// with it; a guest's text cannot move the cursor; NO_COLOR takes colours away.
func TestDisplayOnTerminal(t *testing.T) {
	t.Setenv("TERM", "xterm")
	t.Setenv("NO_COLOR", "1")
	master, slave, err := qemu.OpenTerminal()
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	if err := pty.Setsize(slave, &pty.Winsize{Rows: 10, Cols: 40}); err != nil {
		t.Fatal(err)
	}
	text := make(chan string)
	go func() {
		b, _ := io.ReadAll(master) // ends with EIO when the other side closes
		text <- string(b)
	}()
	d := newDisplay(slave)
	if !d.live || d.colour {
		t.Errorf("live %v, colour %v", d.live, d.colour)
	}
	d.set("machine a", "init\x1b[2J\r\nfake line that is much too long for this terminal")
	d.set("machine b", "ready")
	d.say("kept")
	d.state("1 of 2")
	d.drop("machine b")
	d.say("before the end")
	d.close()
	slave.Close()
	got := <-text
	if strings.Contains(got, "\x1b[2J") || strings.Contains(got, "\x1b[1m") {
		t.Errorf("sequences of the guest's, or colours: %q", got)
	}
	if !strings.Contains(got, "machine a  init") || !strings.Contains(got, "1 of 2") {
		t.Errorf("what is under way is not shown: %q", got)
	}
	for _, line := range strings.Split(ansi.Strip(got), "\r\n") {
		if ansi.StringWidth(line) > 40 {
			t.Errorf("longer than the terminal is wide: %q", line)
		}
	}
	if shown := strings.Join(screen(got), "|"); shown != "kept|before the end|" {
		t.Errorf("left on the screen: %q", shown)
	}
}

func TestDisplayInFile(t *testing.T) {
	d, shown := plainDisplay(t)
	d.set("a", "one")
	d.state("not shown")
	d.say("two\x1b[31m")
	d.drop("a")
	d.close()
	if got := shown(); got != "a: one\ntwo\n" {
		t.Errorf("%q", got)
	}
}

//go:build linux

// Command init is PID 1 of the machine, and under other names the small
// programs that belong to it; see package guest.
package main

import (
	"os"

	"github.com/seatrial/seatrial/boot/guest"
)

func main() { os.Exit(guest.Main(os.Args)) }

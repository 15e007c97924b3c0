// Package seatrial carries the sources of the programs that go into an image,
// so that the command-line tool can build them wherever it runs: it needs a Go
// toolchain, but no checkout of this repository.
package seatrial

import "embed"

// Source holds the module's go.mod and go.sum and the packages of which the
// guest's programs are made, at the paths they have in the repository.
//
//go:embed go.mod go.sum boot
var Source embed.FS

// Package console turns the bytes of a serial line into lines, marks (events
// of the boot) and faults. The same code reads a running machine and a saved
// log.
//
// Bytes go into an append-only [Log]; any number of readers look at it without
// disturbing each other. Carriage returns, escape sequences and other control
// bytes are taken out of a line's text, in which rules look; the raw bytes are
// kept beside it.
//
// Faults are recognised by data: a [Rule] has a cheap literal, a regular
// expression, a title made from it, and exceptions. They are looked for while
// the machine runs, and the lines after a fault's first belong to it until its
// last line or its number of lines is reached: until then it is open, because
// an oops is not yet understood when its headline comes.
package console

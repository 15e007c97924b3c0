// Package reports is the memory of a run: one model, [Run], and every format a
// pure function of it.
//
//	run.Judge()                       // what the cases prove, and what they do not
//	err := reports.WriteAll(dir, run) // run.json, junit.xml, report.html, summary.txt
//	run, err := reports.ReadRun(dir)  // back again, to print, merge or compare
//
// Nothing here listens, registers or looks at the machine: whoever ran the
// cases fills in a Run and hands it over, so a report can be made again from
// run.json long after the machines are gone, and two runs can be laid side by
// side with [Compare].
//
// # What is in a run
//
// A [Case] is one spec with its outcome; a failed one carries a [Class], which
// says whose fault it was, and a one-line Title, which names the cause. A
// [Boot] is one machine, with its console, the milestones it passed and the
// faults seen in it. Cases name the boots they used; many may share one. All
// times of a boot count from the moment its QEMU was resumed.
//
// # What is shown first
//
// Every format answers in the order in which an engineer asks: class and title;
// milestone reached and awaited; the fault with its lines; the last 40 console
// lines; the command that starts the machine again; where the evidence lies.
//
// # Foreign text
//
// Console text is whatever a broken guest sent. No format passes on a control
// character, a character that reorders text, or a byte that is not UTF-8: they
// appear as \x1b or \u202e. Colours on the page are made from the escape
// sequences, never by them.
package reports

// Package jobspecs holds the job files of the kinds of runtimes, embedded, and evaluates them without a Nomad agent.
//
// The files are what operators run with `nomad job run`. A [Job] gives the [Task] that such a file describes for given variables, so
// that what is started without Nomad is exactly what the file says. It never talks to Nomad, and it imports nothing else of ours.
package jobspecs

import (
	_ "embed"
)

//go:embed shared.nomad.hcl
var shared []byte

// Shared is the job of a shared runtime.
var Shared = Job{file: "shared.nomad.hcl", source: shared}

// Job is one job file.
type Job struct {
	file   string
	source []byte
}

// File is the name of the job file.
func (j Job) File() string { return j.file }

// Source is the text of the job file.
func (j Job) Source() string { return string(j.source) }

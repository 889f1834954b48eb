// Package scheduler holds what decides where a submission runs: the catalog of live instances (package catalog), the choice among
// them (package choose), and the gateway that people and pipelines speak to (package gateway).
//
// Nomad places runtimes on nodes; what is here only chooses among the instances that Nomad runs.
package scheduler

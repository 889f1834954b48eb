// Package fidelity runs flows on this project's runtime and on prompt flow's own executor, and compares what both made of them:
// outputs, statuses, bypasses, inputs, logs and errors of every node, metrics, and the classes and messages of errors.
//
// The flows are those of the folder flows, small and our own, one folder each with a cases.yaml beside the flow; to add a flow is to
// add a folder. Both sides get the very same cases and connections, whose endpoint is package openai's. What differs on purpose is in
// differences.yaml with the reason; a difference that is not there fails the suite, and so does one that is there and is
// none. With PROMPTFLOW_FLOWS=folder the flows of other people are compared instead, and a table is printed.
//
// Start with [Flow] and [Case], what is run; [Ours] and [Theirs] run it; [Compare] says what differs.
package fidelity

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/nomad-promptflow/nomad-promptflow/runtime/flow/document"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// casesFile is what a flow's folder has beside the flow.
const casesFile = "cases.yaml"

// Flow is a folder with a flow, and what to run it with.
type Flow struct {
	Name   string
	Dir    string
	File   string   // of the flow, where a folder holds several; otherwise empty
	Covers []string // rows of coverage.yaml
	Cases  []Case
}

// Case is one submission: Inputs (one line), Lines (a batch) or Node (one node alone). The zero value is a line without inputs.
type Case struct {
	Inputs *value.Dict
	Lines  []any
	Node   string
	// Dependencies are the outputs of the nodes that Node refers to.
	Dependencies *value.Dict
	Setup        Setup
}

// Setup is what a flow is loaded with.
type Setup struct {
	Environment *value.Dict // texts
	Variant     string      // ${node.variant}
	Init        *value.Dict // of a flex flow's class
	LineTimeout int64       // seconds
}

// key tells setups apart.
func (s Setup) key() string { return string(value.Encode(s.dict())) }

func (s Setup) dict() *value.Dict {
	d := value.NewDict()
	set(d, "environment", s.Environment)
	if s.Variant != "" {
		d.Set("variant", s.Variant)
	}
	set(d, "init", s.Init)
	if s.LineTimeout > 0 {
		d.Set("line_timeout_sec", s.LineTimeout)
	}
	return d
}

func set(d *value.Dict, name string, v *value.Dict) {
	if v != nil {
		d.Set(name, v)
	}
}

// Load reads the flows below dir that have cases, in the order of their names.
func Load(dir string) ([]Flow, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read flows: %w", err)
	}
	var flows []Flow
	for _, e := range entries {
		f := Flow{Name: e.Name(), Dir: filepath.Join(dir, e.Name())}
		switch err := f.readCases(); {
		case errors.Is(err, fs.ErrNotExist) && !e.IsDir():
			continue
		case err != nil:
			return nil, fmt.Errorf("read flow %s: %w", f.Name, err)
		}
		flows = append(flows, f)
	}
	return flows, nil
}

// readCases reads cases.yaml: {covers: [row, …], cases: [{inputs | lines | node …}, …]}.
func (f *Flow) readCases() error {
	d, err := readYAML(filepath.Join(f.Dir, casesFile))
	if err != nil {
		return err
	}
	r := reader{d: d}
	for _, row := range r.list("covers") {
		f.Covers = append(f.Covers, value.Str(row))
	}
	f.File = r.text("file")
	for i, c := range r.list("cases") {
		fields, ok := c.(*value.Dict)
		if !ok {
			return fmt.Errorf("case %d is not a mapping", i)
		}
		parsed, err := parseCase(fields)
		if err != nil {
			return fmt.Errorf("case %d: %w", i, err)
		}
		f.Cases = append(f.Cases, parsed)
	}
	if len(f.Cases) == 0 {
		f.Cases = []Case{{}} // the flow is to fail when it is loaded
	}
	return r.end()
}

func parseCase(d *value.Dict) (Case, error) {
	r := reader{d: d}
	c := Case{
		Inputs: r.dict("inputs"), Lines: r.list("lines"), Node: r.text("node"), Dependencies: r.dict("dependency_outputs"),
		Setup: Setup{Environment: r.dict("environment"), Variant: r.text("variant"), Init: r.dict("init"), LineTimeout: field[int64](&r, "line_timeout")},
	}
	return c, r.end()
}

func readYAML(path string) (*value.Dict, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	d, err := parseYAML(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Base(path), err)
	}
	return d, nil
}

func parseYAML(text []byte) (*value.Dict, error) {
	node, err := document.Parse(text)
	if err != nil {
		return nil, err
	}
	v, err := node.Value()
	if err != nil {
		return nil, err
	}
	d, ok := v.(*value.Dict)
	if !ok {
		return nil, errors.New("is not a mapping")
	}
	return d, nil
}

// reader takes the fields of a mapping, so that a misspelt one is not passed over.
type reader struct {
	d     *value.Dict
	known []string
	err   error
}

func field[T any](r *reader, name string) T {
	r.known = append(r.known, name)
	var none T
	v, ok := r.d.Get(name)
	if !ok {
		return none
	}
	t, ok := v.(T)
	if !ok && r.err == nil {
		r.err = fmt.Errorf("%s is of type %s", name, value.TypeName(v))
	}
	return t
}

func (r *reader) text(name string) string      { return field[string](r, name) }
func (r *reader) list(name string) []any       { return field[[]any](r, name) }
func (r *reader) dict(name string) *value.Dict { return field[*value.Dict](r, name) }

// end returns the first mistake.
func (r *reader) end() error {
	if r.err != nil {
		return r.err
	}
	for _, name := range r.d.Keys() {
		if !slices.Contains(r.known, name) {
			return fmt.Errorf("the field %q is unknown", name)
		}
	}
	return nil
}

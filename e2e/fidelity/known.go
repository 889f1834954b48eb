package fidelity

import (
	"fmt"
	"path"
	"strings"

	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// Known is a deliberate difference.
type Known struct {
	Flow   string // its name, with * for any characters
	Path   string // of the difference, with * for any characters
	Reason string
	used   bool
}

// Differences are the deliberate differences of the suite.
type Differences struct {
	known   []*Known
	pending []*Known
}

// LoadDifferences reads differences.yaml: {differences: [{flow, path, reason}, …], pending: [{flow, reason}, …]}.
func LoadDifferences(file string) (*Differences, error) {
	d, err := readYAML(file)
	if err != nil {
		return nil, err
	}
	r := reader{d: d}
	all := &Differences{}
	if all.known, err = readKnown(r.list("differences"), true); err != nil {
		return nil, fmt.Errorf("%s: differences: %w", file, err)
	}
	if all.pending, err = readKnown(r.list("pending"), false); err != nil {
		return nil, fmt.Errorf("%s: pending: %w", file, err)
	}
	return all, r.end()
}

func readKnown(items []any, places bool) ([]*Known, error) {
	var all []*Known
	for i, item := range items {
		fields, _ := item.(*value.Dict)
		r := reader{d: fields}
		k := &Known{Flow: r.text("flow"), Path: r.text("path"), Reason: r.text("reason")}
		if err := r.end(); err != nil {
			return nil, fmt.Errorf("entry %d: %w", i, err)
		}
		if k.Flow == "" || k.Reason == "" || places != (k.Path != "") {
			return nil, fmt.Errorf("entry %d: needs a flow and a reason, and a difference a path", i)
		}
		all = append(all, k)
	}
	return all, nil
}

// Pending returns why a flow is known not to run as it should yet, nil when it is to.
func (all *Differences) Pending(flow string) *Known {
	for _, k := range all.pending {
		if matches(k.Flow, flow) {
			return k
		}
	}
	return nil
}

// Find returns the deliberate difference that d is, nil when it is none, and remembers that there is one.
func (all *Differences) Find(d Difference) *Known {
	for _, k := range all.known {
		if matches(k.Flow, d.Flow) && matches(k.Path, d.Path) {
			k.used = true
			return k
		}
	}
	return nil
}

// Without returns the differences that are not deliberate.
func (all *Differences) Without(found []Difference) []Difference {
	var left []Difference
	for _, d := range found {
		if all.Find(d) == nil {
			left = append(left, d)
		}
	}
	return left
}

// Unused returns the deliberate differences that were found nowhere.
func (all *Differences) Unused() []*Known {
	var unused []*Known
	for _, k := range all.known {
		if !k.used {
			unused = append(unused, k)
		}
	}
	return unused
}

// matches compares with *, which stands for any characters here, dots and brackets included.
func matches(pattern, text string) bool {
	escape := strings.NewReplacer("[", "\x01", "]", "\x02", "/", "\x03", "\\", "\x04", "?", "\x05")
	ok, err := path.Match(escape.Replace(pattern), escape.Replace(text))
	return err == nil && ok
}

package flow

import (
	"io/fs"

	"github.com/nomad-promptflow/nomad-promptflow/runtime/flow/document"
)

// Draft is a flow as far as it can be read, with everything that is wrong with it: what validation starts from.
type Draft struct {
	File     string         // name of the YAML file; empty when the folder has none, or more than one
	Document *document.Node // nil when the file is no YAML
	Flow     *Flow          // nil when the document is no flow; its graph is not checked
	Variants []Variant
	Errors   []error // in the order in which they were met; the first is what Load fails with
}

// Variant is one body of a node that has several.
type Variant struct {
	ID      string
	Default bool
	Node    *Node
}

// Inspect reads the flow of a folder past its mistakes; of the options only the file counts.
func Inspect(dir fs.FS, o Options) *Draft {
	d := &Draft{}
	note := func(err error) { d.Errors = append(d.Errors, err) }
	var err error
	if d.File, err = pick(dir, o.File); err != nil {
		note(err)
		return d
	}
	l := loader{file: d.File, report: note}
	if d.Flow, d.Document, err = l.load(dir); err != nil {
		note(err)
	}
	if d.Flow != nil && d.Flow.Form == DAG {
		d.Variants = l.allVariants(d.Document)
	}
	return d
}

// allVariants reads the variants of all nodes in the document's order; what is wrong with them has been said before.
func (l loader) allVariants(root *document.Node) []Variant {
	l.report = func(error) {}
	bodies, _ := l.variants(root)
	var all []Variant
	for _, f := range fieldsOf(root.Get("node_variants")) {
		v := bodies[f.Key]
		for _, body := range fieldsOf(f.Value.Get("variants")) {
			if n := v.nodes[body.Key]; n != nil {
				all = append(all, Variant{ID: body.Key, Default: body.Key == v.defaultID, Node: n})
			}
		}
	}
	return all
}

func fieldsOf(f *document.Field) []document.Field {
	if f == nil {
		return nil
	}
	return f.Value.Fields
}

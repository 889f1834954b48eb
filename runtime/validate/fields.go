package validate

import (
	"github.com/nomad-promptflow/nomad-promptflow/runtime/flow"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/flow/document"
)

// fields finds the places of a mapping's keys and values.
type fields struct{ node *document.Node }

// value returns the place of a key's value, or otherwise.
func (f fields) value(file, key string, otherwise flow.Place) flow.Place {
	if field := f.node.Get(key); field != nil && field.Value.Line > 0 {
		return flow.Place{File: file, Line: field.Value.Line, Column: field.Value.Column}
	}
	return otherwise
}

// key returns the place of a key, or otherwise.
func (f fields) key(file, key string, otherwise flow.Place) flow.Place {
	if field := f.node.Get(key); field != nil {
		return flow.Place{File: file, Line: field.Line, Column: field.Column}
	}
	return otherwise
}

// below returns the mapping under a key.
func (f fields) below(key string) fields {
	if field := f.node.Get(key); field != nil {
		return fields{field.Value}
	}
	return fields{}
}

// has reports whether the mapping has a key.
func (f fields) has(key string) bool { return f.node.Get(key) != nil }

// list returns the fields of the mapping.
func (f fields) list() []document.Field {
	if f.node == nil {
		return nil
	}
	return f.node.Fields
}

// nodeFields returns the mappings of the flow's nodes, without the bodies of variants.
func (c *checking) nodeFields() []fields {
	nodes := c.draft.Document.Get("nodes")
	if nodes == nil {
		return nil
	}
	var all []fields
	for _, n := range nodes.Value.Items {
		if n.Kind == document.Mapping {
			all = append(all, fields{n})
		}
	}
	return all
}

// nodesByPlace finds the mapping of each node and variant by its place.
func nodesByPlace(d *flow.Draft) map[flow.Place]*document.Node {
	found := map[flow.Place]*document.Node{}
	note := func(n *document.Node) { found[flow.Place{File: d.File, Line: n.Line, Column: n.Column}] = n }
	if nodes := d.Document.Get("nodes"); nodes != nil {
		for _, n := range nodes.Value.Items {
			note(n)
		}
	}
	for _, v := range (fields{d.Document}).below("node_variants").list() {
		for _, body := range (fields{v.Value}).below("variants").list() {
			if n := body.Value.Get("node"); n != nil {
				note(n.Value)
			}
		}
	}
	return found
}

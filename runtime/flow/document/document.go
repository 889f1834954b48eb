// Package document reads YAML as prompt flow does (ruamel.yaml, YAML 1.2) and keeps for every key and value where it stands.
//
// It knows nothing of flows. A [Node] is a scalar, a mapping or a sequence with its line and column, counted from 1; [Parse]
// makes one from text, [Node.Value] turns it into the plain values of package value. Duplicate keys are errors, sizes and
// depths are bounded, and what JSON cannot carry (dates, keys that are no strings, own tags) is refused with its place.
package document

import (
	"fmt"

	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// The bounds of one document.
const (
	MaxBytes = 1 << 20 // of text
	maxDepth = 200     // of mappings and sequences inside each other
	maxNodes = 100_000 // after aliases are followed
)

// Kind says what a node is.
type Kind int

// The kinds of nodes.
const (
	Scalar Kind = iota
	Mapping
	Sequence
)

// Node is a place in a document. The zero of Line means that it stands nowhere (a value the document left out).
type Node struct {
	Kind         Kind
	Line, Column int
	Fields       []Field // of a mapping, in order
	Items        []*Node // of a sequence

	scalar any    // plain value of a scalar; nil for null
	date   string // the text of an unquoted date, which is no plain value
	tag    string // a tag that is not YAML's own
}

// Field is a key of a mapping and its value.
type Field struct {
	Key          string
	Line, Column int // of the key
	Value        *Node
	notText      string // type of a key that is no string: int, bool …
}

// Error is a mistake in a document with its place.
type Error struct {
	Message      string
	Line, Column int
}

// Error implements error.
func (e *Error) Error() string {
	return fmt.Sprintf("line %d, column %d: %s", e.Line, e.Column, e.Message)
}

func (n *Node) errorf(format string, args ...any) *Error {
	return &Error{Message: fmt.Sprintf(format, args...), Line: n.Line, Column: n.Column}
}

// Get returns the field named key of a mapping, nil when there is none.
func (n *Node) Get(key string) *Field {
	if n == nil {
		return nil
	}
	for i := range n.Fields {
		if f := &n.Fields[i]; f.Key == key && f.notText == "" {
			return f
		}
	}
	return nil
}

// IsNull reports whether the node is absent or null.
func (n *Node) IsNull() bool {
	return n == nil || n.Kind == Scalar && n.scalar == nil && n.date == "" && n.tag == ""
}

// CheckKeys reports the first key of a mapping that is no string.
func (n *Node) CheckKeys() error {
	for _, f := range n.Fields {
		if f.notText != "" {
			return &Error{Message: fmt.Sprintf("the key %s is of type %s: only strings can be keys, put it in quotes", f.Key, f.notText), Line: f.Line, Column: f.Column}
		}
	}
	return nil
}

// Value returns the node as a plain value. It fails, with the place, for what plain values cannot hold.
func (n *Node) Value() (any, error) {
	switch {
	case n == nil:
		return nil, nil
	case n.tag != "":
		return nil, n.errorf("the tag %s is not supported: write the value without it", n.tag)
	case n.date != "":
		return nil, n.errorf("the unquoted date %s is not supported: put it in quotes", n.date)
	case n.Kind == Mapping:
		return n.dict()
	case n.Kind == Sequence:
		list := make([]any, 0, len(n.Items))
		for _, item := range n.Items {
			v, err := item.Value()
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		return list, nil
	default:
		return n.scalar, nil
	}
}

// DatesAsText makes texts of unquoted days (2024-06-01), also deeper inside: what str() gives of Python's date. Other dates stay.
func (n *Node) DatesAsText() {
	if n == nil {
		return
	}
	if len(n.date) == len("2006-01-02") {
		n.scalar, n.date = n.date, ""
	}
	for _, f := range n.Fields {
		f.Value.DatesAsText()
	}
	for _, item := range n.Items {
		item.DatesAsText()
	}
}

func (n *Node) dict() (any, error) {
	if err := n.CheckKeys(); err != nil {
		return nil, err
	}
	dict := value.NewDictSize(len(n.Fields))
	for _, f := range n.Fields {
		v, err := f.Value.Value()
		if err != nil {
			return nil, err
		}
		dict.Set(f.Key, v)
	}
	return dict, nil
}

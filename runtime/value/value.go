// Package value is Python's plain data in Go: what flow inputs, node inputs and node outputs are made of.
//
// A value is one of: nil (None), bool, int64 or *big.Int (int), float64 (float), string (str), []any (list), *Dict (dict with
// str keys, in insertion order), *Image and *Text (prompt flow's own), *Stream and *Ref (anything else, which lives in the worker process that
// made it). Conversions and
// texts follow CPython (str, repr, ==, json), because flows can see them.
package value

import "encoding/json"

// Ref is a Python object that JSON cannot carry without loss (an instance, a tuple, a generator, a str subclass). It stays in
// the worker process and lives as long as the session that made it.
type Ref struct {
	ID   uint64 // unique in its session
	Type string // Python type name, "module.Class"
	// Record is the object as prompt flow serializes it into run records and flow outputs; nil when it cannot be
	// (prompt flow records the repr then).
	Record json.RawMessage
	// Repr is Python's repr, cut to 1 KiB.
	Repr string
	// Stream is true for iterators and async iterators.
	Stream bool
}

// Dict is an insertion-ordered map with string keys, as Python's dict is.
type Dict struct {
	keys   []string
	values map[string]any
}

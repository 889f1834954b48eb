package flow

import (
	"strings"

	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// Kind says what a reference refers to.
type Kind int

// The kinds of references.
const (
	Literal    Kind = iota // the value itself
	FlowInput              // ${inputs.name}
	NodeOutput             // ${node.output.property}
)

// Reference is where a value comes from.
type Reference struct {
	Kind     Kind
	Literal  any    // of a literal
	Name     string // of the flow input or the node
	Section  string // of a node reference; "output" is the only one there is
	Property string // of a node reference; empty: the whole output
}

// ParseReference reads a value of a flow file. Only a whole string of the form ${…} is a reference: everything behind
// "inputs." (or the legacy "flow.") is the input's name; a node reference is cut at its first two dots.
func ParseReference(v any) Reference {
	text, ok := v.(string)
	if !ok || len(text) < 3 || !strings.HasPrefix(text, "${") || !strings.HasSuffix(text, "}") {
		return Reference{Kind: Literal, Literal: v}
	}
	text = text[2 : len(text)-1]
	for _, prefix := range []string{"flow.", "inputs."} {
		if name, ok := strings.CutPrefix(text, prefix); ok {
			return Reference{Kind: FlowInput, Name: name}
		}
	}
	node, rest, ok := strings.Cut(text, ".")
	if !ok {
		return Reference{Kind: NodeOutput, Name: node, Section: "output"}
	}
	section, property, _ := strings.Cut(rest, ".")
	return Reference{Kind: NodeOutput, Name: node, Section: section, Property: property}
}

// String returns the reference as prompt flow serializes it; a literal is its str().
func (r Reference) String() string {
	switch {
	case r.Kind == FlowInput:
		return "${flow." + r.Name + "}"
	case r.Kind == NodeOutput && r.Property != "":
		return "${" + r.Name + "." + r.Section + "." + r.Property + "}"
	case r.Kind == NodeOutput:
		return "${" + r.Name + "." + r.Section + "}"
	default:
		return value.Str(r.Literal)
	}
}

// Package flow is the model of a prompt flow: a flow.dag.yaml, flow.flex.yaml or prompty file read, with the place of every
// node, input and output, and checked by prompt flow's rules.
//
// [Load] reads a flow folder and refuses, by name and line, what this runtime does not support. [Flow.Check] checks the
// graph; prompt flow loads the tools between the two, so that tool errors win over errors of the graph. [Flow.Inputs]
// converts a line's inputs. The package runs nothing and touches no network: it sees files through fs.FS alone. Errors are
// *api.Error with prompt flow's classes and texts.
package flow

import (
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// Form says what a flow is made of.
type Form int

// The forms of flows.
const (
	DAG     Form = iota // a graph of nodes
	Flex                // a Python function or class
	Prompty             // one prompt with its model
)

// Flow is a flow, of a DAG with its variants applied.
type Flow struct {
	Form    Form
	File    string // path of the flow's file in the flow folder
	ID      string // "default_flow_id" unless the file says otherwise
	Name    string // empty unless the file says otherwise
	Inputs  []*Input
	Outputs []*Output
	Nodes   []*Node  // as written; Check returns the flow with them in executable order
	Entry   string   // of a flex flow: module:function or module:class
	Init    []*Input // what a flex flow's class is made with, as far as the file says it
	Code    string   // folder of a flex flow's code, relative to the flow folder; empty: the folder itself
	Card    *Card    // of a prompty file
	// MessageFormat is how images are spelled, as the file says it; empty means basic.
	MessageFormat MessageFormat

	environment *value.Dict
}

// Place is where something stands in a flow's file; lines and columns count from 1.
type Place struct {
	File         string
	Line, Column int
}

// MessageFormat is the key message_format and its place.
type MessageFormat struct {
	Name string
	Place
}

// Input is a flow input's definition.
type Input struct {
	Name          string
	Type          string
	Default       any // nil: the input is required
	Description   string
	Enum          []any // the values it is meant to take; never enforced
	IsChatInput   bool
	IsChatHistory bool
	// MarksHistory is is_chat_history as the file says it; nil when it does not.
	MarksHistory *bool
	Place
}

// Output is a flow output's definition. Its type is never enforced.
type Output struct {
	Name           string
	Type           string
	Description    string
	Reference      Reference
	EvaluationOnly bool
	IsChatOutput   bool
	Where          Place // of the reference
	Place
}

// The types of nodes that run here.
const (
	Python    = "python"
	LLM       = "llm"
	CustomLLM = "custom_llm"
	Prompt    = "prompt"
)

// Node is a step of a flow.
type Node struct {
	Name        string
	Type        string
	Tool        string // legacy tool name
	Source      *Source
	Inputs      []NodeInput
	API         string // of an llm node: chat or completion
	Provider    string
	Module      string
	Connection  string
	Aggregation bool
	Activate    *Activate
	Raw         *value.Dict // the node's mapping as written, with its variant applied and its name in it
	Place
}

// Source says where a node's code or template is.
type Source struct {
	Type string // code, package, package_with_prompt
	Path string // relative to the flow folder; empty when the file says none
	Tool string // id of a package tool
	Place
}

// NodeInput is an input of a node.
type NodeInput struct {
	Name string
	Reference
	Where Place // of the value
	Place
}

// Activate is a node's condition: the node runs when the value of When equals Is.
type Activate struct {
	When  Reference
	Is    any
	Where Place // of the condition
	Place
}

// Input returns the definition of the flow input named name, nil when there is none.
func (f *Flow) Input(name string) *Input {
	for _, in := range f.Inputs {
		if in.Name == name {
			return in
		}
	}
	return nil
}

// Output returns the definition of the flow output named name, nil when there is none.
func (f *Flow) Output(name string) *Output {
	for _, out := range f.Outputs {
		if out.Name == name {
			return out
		}
	}
	return nil
}

// Node returns the node named name, nil when there is none.
func (f *Flow) Node(name string) *Node {
	for _, n := range f.Nodes {
		if n.Name == name {
			return n
		}
	}
	return nil
}

// Streams reports whether a node may answer piece by piece when the flow's caller wants it to: an output of the flow refers to the node,
// and no other node does.
func (f *Flow) Streams(n *Node) bool {
	refers := func(r Reference) bool { return r.Kind == NodeOutput && r.Name == n.Name }
	for _, other := range f.Nodes {
		for _, in := range other.Inputs {
			if refers(in.Reference) {
				return false
			}
		}
	}
	for _, out := range f.Outputs {
		if refers(out.Reference) {
			return true
		}
	}
	return false
}

// HasAggregation reports whether any node runs after all lines.
func (f *Flow) HasAggregation() bool {
	for _, n := range f.Nodes {
		if n.Aggregation {
			return true
		}
	}
	return false
}

// Environment returns the flow's environment variables as prompt flow sets them: lists and mappings as JSON, everything else
// as str().
func (f *Flow) Environment() map[string]string {
	env := make(map[string]string, f.environment.Len())
	for k, v := range f.environment.All() {
		switch v.(type) {
		case []any, *value.Dict:
			env[k] = value.Dumps(v)
		default:
			env[k] = value.Str(v)
		}
	}
	return env
}

// AggregationReferences returns the references of aggregation nodes to normal nodes, serialized, in the order in which they are
// met and each once.
func (f *Flow) AggregationReferences() []Reference {
	normal := map[string]bool{}
	for _, n := range f.Nodes {
		normal[n.Name] = !n.Aggregation
	}
	var refs []Reference
	seen := map[string]bool{}
	for _, n := range f.Nodes {
		if !n.Aggregation {
			continue
		}
		for _, in := range n.Inputs {
			if in.Kind != NodeOutput || !normal[in.Reference.Name] || seen[in.String()] {
				continue
			}
			seen[in.String()] = true
			refs = append(refs, in.Reference)
		}
	}
	return refs
}

package command

import (
	"fmt"
	"strings"

	"github.com/nomad-promptflow/nomad-promptflow/runtime/flow"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// nodeInputs makes the submission that of one node. What was given becomes flow inputs and outputs of other nodes, as "pf flow test --node"
// has it.
func (s *submission) nodeInputs(name string, warn func(text string)) error {
	s.request.Node = name
	if s.flow == nil || s.flow.Node(name) == nil {
		return nil // the runtime says what is wrong
	}
	given, err := value.DecodeDict(s.request.Inputs)
	if err != nil {
		return err
	}
	inputs, outputs := divide(s.flow.Node(name), given)
	for _, unknown := range given.Keys() {
		warn(fmt.Sprintf("node %q has no input %q, which is left out", name, unknown))
	}
	s.request.Inputs, s.request.NodeOutputs = value.Encode(inputs), value.Encode(outputs)
	return nil
}

// divide takes out of given what a node's inputs refer to. An input may be given by its name, or by what it refers to.
func divide(n *flow.Node, given *value.Dict) (inputs, outputs *value.Dict) {
	inputs, outputs = value.NewDict(), value.NewDict()
	for _, in := range n.Inputs {
		r := in.Reference
		switch r.Kind {
		case flow.FlowInput:
			if v, ok := take(given, "inputs."+r.Name, in.Name); ok {
				inputs.Set(r.Name, v)
			}
		case flow.NodeOutput:
			v, ok := take(given, strings.TrimSuffix(strings.Join([]string{r.Name, r.Section, r.Property}, "."), "."), in.Name)
			if ok {
				outputs.Set(r.Name, withProperty(outputs, r, v))
			}
		default:
			_, _ = take(given, in.Name)
		}
	}
	return inputs, outputs
}

func take(given *value.Dict, names ...string) (any, bool) {
	for _, name := range names {
		if v, ok := given.Get(name); ok {
			given.Delete(name)
			return v, true
		}
	}
	return nil, false
}

// withProperty is the output of a node of which v was given: all of it, or the property that the reference names. A node whose output is
// referred to by several properties gets them all.
func withProperty(outputs *value.Dict, r flow.Reference, v any) any {
	if r.Property == "" {
		return v
	}
	if whole, ok := v.(*value.Dict); ok && whole.Has(r.Property) {
		v, _ = whole.Get(r.Property)
	}
	before, _ := outputs.Get(r.Name)
	output, ok := before.(*value.Dict)
	if !ok {
		output = value.NewDict()
	}
	output.Set(r.Property, v)
	return output
}

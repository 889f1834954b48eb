package graph

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/flow"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// Input is the value of a node's input. When Value is a *value.Ref, Property is the part of the reference's property that is
// left to follow in its worker.
type Input struct {
	Name     string
	From     flow.Reference
	Value    any
	Property string
}

// Inputs returns a ready node's inputs in the order of the flow file. An input that refers to a bypassed node is left out when
// its parameter has a default, else it is None with a warning.
func (g *Graph) Inputs(n *flow.Node, hasDefault func(name string) bool) (inputs []Input, warnings []string, err error) {
	for _, in := range n.Inputs {
		if v, ok := g.given[in.String()]; ok && in.Kind == flow.NodeOutput {
			inputs = append(inputs, Input{Name: in.Name, From: in.Reference, Value: v})
			continue
		}
		if g.refersToBypassed(in.Reference) {
			if hasDefault(in.Name) {
				continue
			}
			warnings = append(warnings, fmt.Sprintf("The node '%s' referenced by the input '%s' of the current node '%s' has been bypassed, and no default value is set. Will use 'None' as the value for this input.",
				in.Reference.Name, in.Name, n.Name))
			inputs = append(inputs, Input{Name: in.Name, From: in.Reference})
			continue
		}
		v, rest, err := g.lookup(in.Reference)
		if err != nil {
			return nil, warnings, err
		}
		inputs = append(inputs, Input{Name: in.Name, From: in.Reference, Value: v, Property: rest})
	}
	return inputs, warnings, nil
}

// Value returns what a reference refers to. A bypassed node's output is None.
func (g *Graph) Value(ctx context.Context, r flow.Reference) (any, error) {
	v, rest, err := g.lookup(r)
	if err != nil || rest == "" {
		return v, err
	}
	return g.objects.Property(ctx, v.(*value.Ref), r.Name, rest)
}

// lookup follows a reference as far as plain values go.
func (g *Graph) lookup(r flow.Reference) (v any, rest string, err error) {
	switch r.Kind {
	case flow.Literal:
		return r.Literal, "", nil
	case flow.FlowInput:
		v, ok := g.inputs.Get(r.Name)
		if !ok {
			return nil, "", flow.Fail(flow.InputNotFound, flow.TargetExecutor,
				"Flow execution failed. The input '{input_name}' is not found from flow inputs '{flow_input_keys}'. Please check the input name and try again.",
				"input_name", r.Name, "flow_input_keys", strings.Join(g.inputs.Keys(), ", "))
		}
		return v, "", nil
	}
	if r.Section != "output" {
		return nil, "", flow.Fail(flow.UnsupportedReference, flow.TargetUnknown,
			"Flow execution failed. The section '{reference_section}' of reference is currently unsupported. Please specify the output part of the node '{reference_node_name}'.",
			"reference_section", r.Section, "reference_node_name", r.Name)
	}
	v, ok := g.outputs[r.Name]
	if !ok && !g.bypassed[r.Name] {
		return nil, "", g.missingOutput(r.Name)
	}
	return flow.Property(r.Name, v, r.Property)
}

// missingOutput is prompt flow's error for a reference to a node of another stage.
func (g *Graph) missingOutput(name string) error {
	var names []any
	for _, n := range slices.Sorted(maps.Keys(g.outputs)) {
		names = append(names, n)
	}
	return flow.Fail(flow.Class{api.SystemError, "InputNotFoundFromAncestorNodeOutput"}, flow.TargetUnknown,
		"Flow execution failed. The input '{input_name}' is not found from ancestor node outputs {node_output_keys}. Please check the node name and try again.",
		"input_name", name, "node_output_keys", value.Repr(names))
}

package flow

import (
	"slices"
	"strings"

	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// Check checks the graph in prompt flow's order: node names, references to flow inputs, references to nodes, cycles, outputs.
// It returns a copy of the flow with its nodes in executable order and without outputs that refer to aggregation nodes;
// dropped names those.
func (f *Flow) Check() (checked *Flow, dropped []*Output, err error) {
	for _, check := range []func() error{f.checkNames, f.checkInputReferences} {
		if err := check(); err != nil {
			return nil, nil, err
		}
	}
	dependencies, err := f.dependencies()
	if err != nil {
		return nil, nil, err
	}
	c := *f
	if c.Nodes, err = f.order(dependencies); err != nil {
		return nil, nil, err
	}
	c.Outputs, dropped, err = f.checkOutputs()
	return &c, dropped, err
}

func (f *Flow) checkNames() error {
	seen := map[string]bool{}
	for _, n := range f.Nodes {
		if seen[n.Name] {
			return n.At(Fail(DuplicateNodeName, TargetExecutor,
				"Invalid node definitions found in the flow graph. Node with name '{node_name}' appears more than once in the node definitions in your flow, which is not allowed. To address this issue, please review your flow and either rename or remove nodes with identical names.",
				"node_name", n.Name))
		}
		seen[n.Name] = true
	}
	return nil
}

func (f *Flow) checkInputReferences() error {
	for _, n := range f.Nodes {
		for _, in := range n.Inputs {
			if in.Kind == FlowInput && f.Input(in.Reference.Name) == nil {
				return in.At(Fail(InputReferenceNotFound, TargetExecutor,
					"Invalid node definitions found in the flow graph. Node '{node_name}' references flow input '{flow_input_name}' which is not defined in your flow. To resolve this issue, please review your flow, ensuring that you either add the missing flow inputs or adjust node reference to the correct flow input.",
					"node_name", n.Name, "flow_input_name", in.Reference.Name))
			}
		}
	}
	return nil
}

// dependencies returns the nodes that each node refers to.
func (f *Flow) dependencies() (map[string][]string, error) {
	all := make(map[string][]string, len(f.Nodes))
	for _, n := range f.Nodes {
		all[n.Name] = nil
	}
	for _, n := range f.Nodes {
		refs, err := f.nodeReferences(n)
		if err != nil {
			return nil, err
		}
		for _, in := range refs {
			if _, ok := all[in.Reference.Name]; !ok {
				return nil, in.At(Fail(NodeReferenceNotFound, TargetExecutor,
					"Invalid node definitions found in the flow graph. Node '{node_name}' references a non-existent node '{reference_node_name}' in your flow. Please review your flow to ensure that the node name is accurately specified.",
					"node_name", n.Name, "reference_node_name", in.Reference.Name))
			}
			all[n.Name] = append(all[n.Name], in.Reference.Name)
		}
		if err := f.checkReferencesToAggregation(n, refs); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// nodeReferences returns a node's references to nodes, the condition last.
func (f *Flow) nodeReferences(n *Node) ([]NodeInput, error) {
	var refs []NodeInput
	for _, in := range n.Inputs {
		if in.Kind == NodeOutput {
			refs = append(refs, in)
		}
	}
	if n.Activate == nil || n.Activate.When.Kind != NodeOutput {
		return refs, nil
	}
	if n.Aggregation && !f.isAggregation(n.Activate.When.Name) {
		return nil, n.Activate.At(Fail(InvalidNodeReference, TargetExecutor,
			"Invalid node definitions found in the flow graph. Non-aggregation node '{invalid_reference}' cannot be referenced in the activate config of the aggregation node '{node_name}'. Please review and rectify the node reference.",
			"invalid_reference", n.Activate.When.Name, "node_name", n.Name))
	}
	return append(refs, NodeInput{Name: "activate", Reference: n.Activate.When, Place: n.Activate.Place}), nil
}

func (f *Flow) isAggregation(name string) bool {
	n := f.Node(name)
	return n != nil && n.Aggregation
}

func (f *Flow) checkReferencesToAggregation(n *Node, refs []NodeInput) error {
	if n.Aggregation {
		return nil
	}
	var names []string
	place := n.Place
	for _, in := range refs {
		if f.isAggregation(in.Reference.Name) && !slices.Contains(names, in.Reference.Name) {
			if len(names) == 0 {
				place = in.Place
			}
			names = append(names, in.Reference.Name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	slices.Sort(names)
	set := strings.TrimSuffix(strings.TrimPrefix(reprList(names), "["), "]")
	return place.At(Fail(InvalidNodeReference, TargetExecutor,
		"Invalid node definitions found in the flow graph. Non-aggregate node '{node_name}' cannot reference aggregate nodes {invalid_reference}. Please review and rectify the node reference.",
		"node_name", n.Name, "invalid_reference", "{"+set+"}"))
}

func reprList(names []string) string {
	list := make([]any, len(names))
	for i, name := range names {
		list[i] = name
	}
	return value.Repr(list)
}

// order sorts the nodes so that each stands behind what it refers to, taking the first available one each time.
func (f *Flow) order(dependencies map[string][]string) ([]*Node, error) {
	sorted := make([]*Node, 0, len(f.Nodes))
	picked := make(map[string]bool, len(f.Nodes))
	available := func(n *Node) bool {
		return !picked[n.Name] && !slices.ContainsFunc(dependencies[n.Name], func(d string) bool { return !picked[d] })
	}
	for range f.Nodes {
		i := slices.IndexFunc(f.Nodes, available)
		if i < 0 {
			return nil, f.circular(picked)
		}
		sorted = append(sorted, f.Nodes[i])
		picked[f.Nodes[i].Name] = true
	}
	return sorted, nil
}

func (f *Flow) circular(picked map[string]bool) error {
	var left []string
	var first *Node
	for _, n := range f.Nodes {
		if picked[n.Name] {
			continue
		}
		if first == nil {
			first = n
		}
		left = append(left, n.Name)
	}
	slices.Sort(left)
	return first.At(Fail(NodeCircularDependency, TargetExecutor,
		"Invalid node definitions found in the flow graph. Node circular dependency has been detected among the nodes in your flow. Kindly review the reference relationships for the nodes {remaining_nodes} and resolve the circular reference issue in the flow.",
		"remaining_nodes", reprList(left)))
}

func (f *Flow) checkOutputs() (kept, dropped []*Output, err error) {
	for _, out := range f.Outputs {
		if err := f.checkOutput(out); err != nil {
			return nil, nil, err
		}
		if out.Reference.Kind == NodeOutput && f.isAggregation(out.Reference.Name) {
			dropped = append(dropped, out)
			continue
		}
		kept = append(kept, out)
	}
	return kept, dropped, nil
}

func (f *Flow) checkOutput(out *Output) error {
	switch r := out.Reference; {
	case r.Kind == Literal && r.Literal == "":
		return out.At(Fail(EmptyOutputReference, TargetExecutor,
			"The output '{output_name}' for flow is incorrect. The reference is not specified for the output '{output_name}' in the flow. To rectify this, ensure that you accurately specify the reference in the flow.",
			"output_name", out.Name))
	case r.Kind == FlowInput && f.Input(r.Name) == nil:
		return out.At(Fail(OutputReferenceNotFound, TargetExecutor,
			"The output '{output_name}' for flow is incorrect. The output '{output_name}' references non-existent flow input '{flow_input_name}' in your flow. Please carefully review your flow and correct the reference definition for the output in question.",
			"output_name", out.Name, "flow_input_name", r.Name))
	case r.Kind == NodeOutput && f.Node(r.Name) == nil:
		return out.At(Fail(OutputReferenceNotFound, TargetExecutor,
			"The output '{output_name}' for flow is incorrect. The output '{output_name}' references non-existent node '{node_name}' in your flow. To resolve this issue, please carefully review your flow and correct the reference definition for the output in question.",
			"output_name", out.Name, "node_name", r.Name))
	default:
		return nil
	}
}

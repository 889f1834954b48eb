package flow

import (
	"slices"
	"strings"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// Check checks the graph in prompt flow's order: node names, references to flow inputs, references to nodes, cycles, outputs.
// It returns a copy of the flow with its nodes in executable order and without outputs that refer to aggregation nodes;
// dropped names those.
func (f *Flow) Check() (checked *Flow, dropped []*Output, err error) {
	c := &check{flow: f}
	c.run()
	if len(c.problems) > 0 {
		return nil, nil, c.problems[0]
	}
	out := *f
	out.Nodes, out.Outputs = c.sorted, c.kept
	return &out, c.dropped, nil
}

// Problems returns everything that is wrong with the graph; the first is what Check fails with.
func (f *Flow) Problems() []*api.Error {
	c := &check{flow: f}
	c.run()
	return c.problems
}

// check goes through a flow's graph and notes what it finds.
type check struct {
	flow         *Flow
	problems     []*api.Error
	dependencies map[string][]string // node -> the nodes that it refers to
	sorted       []*Node
	kept         []*Output
	dropped      []*Output
}

func (c *check) run() {
	c.names()
	c.inputReferences()
	c.nodeReferences()
	c.order()
	c.outputs()
}

func (c *check) add(p Place, class Class, format string, params ...string) {
	c.problems = append(c.problems, p.At(Fail(class, TargetExecutor, format, params...)))
}

func (c *check) names() {
	seen := map[string]bool{}
	for _, n := range c.flow.Nodes {
		if seen[n.Name] {
			c.add(n.Place, DuplicateNodeName,
				"Invalid node definitions found in the flow graph. Node with name '{node_name}' appears more than once in the node definitions in your flow, which is not allowed. To address this issue, please review your flow and either rename or remove nodes with identical names.",
				"node_name", n.Name)
		}
		seen[n.Name] = true
	}
}

func (c *check) inputReferences() {
	for _, n := range c.flow.Nodes {
		for _, in := range n.Inputs {
			if in.Kind == FlowInput && c.flow.Input(in.Reference.Name) == nil {
				c.add(in.Where, InputReferenceNotFound,
					"Invalid node definitions found in the flow graph. Node '{node_name}' references flow input '{flow_input_name}' which is not defined in your flow. To resolve this issue, please review your flow, ensuring that you either add the missing flow inputs or adjust node reference to the correct flow input.",
					"node_name", n.Name, "flow_input_name", in.Reference.Name)
			}
		}
	}
}

// nodeReferences checks what nodes say of other nodes and notes the dependencies.
func (c *check) nodeReferences() {
	c.dependencies = make(map[string][]string, len(c.flow.Nodes))
	for _, n := range c.flow.Nodes {
		c.dependencies[n.Name] = nil
	}
	for _, n := range c.flow.Nodes {
		refs := c.referencesOf(n)
		for _, in := range refs {
			if _, ok := c.dependencies[in.Reference.Name]; !ok {
				c.add(in.Where, NodeReferenceNotFound,
					"Invalid node definitions found in the flow graph. Node '{node_name}' references a non-existent node '{reference_node_name}' in your flow. Please review your flow to ensure that the node name is accurately specified.",
					"node_name", n.Name, "reference_node_name", in.Reference.Name)
				continue
			}
			c.dependencies[n.Name] = append(c.dependencies[n.Name], in.Reference.Name)
		}
		c.referencesToAggregation(n, refs)
	}
}

// referencesOf returns a node's references to nodes, the condition last.
func (c *check) referencesOf(n *Node) []NodeInput {
	var refs []NodeInput
	for _, in := range n.Inputs {
		if in.Kind == NodeOutput {
			refs = append(refs, in)
		}
	}
	if n.Activate == nil || n.Activate.When.Kind != NodeOutput {
		return refs
	}
	if n.Aggregation && !c.flow.isAggregation(n.Activate.When.Name) {
		c.add(n.Activate.Where, InvalidNodeReference,
			"Invalid node definitions found in the flow graph. Non-aggregation node '{invalid_reference}' cannot be referenced in the activate config of the aggregation node '{node_name}'. Please review and rectify the node reference.",
			"invalid_reference", n.Activate.When.Name, "node_name", n.Name)
		return refs
	}
	return append(refs, NodeInput{Name: "activate", Reference: n.Activate.When, Place: n.Activate.Place, Where: n.Activate.Where})
}

func (f *Flow) isAggregation(name string) bool {
	n := f.Node(name)
	return n != nil && n.Aggregation
}

func (c *check) referencesToAggregation(n *Node, refs []NodeInput) {
	if n.Aggregation {
		return
	}
	var names []string
	place := n.Place
	for _, in := range refs {
		if c.flow.isAggregation(in.Reference.Name) && !slices.Contains(names, in.Reference.Name) {
			if len(names) == 0 {
				place = in.Where
			}
			names = append(names, in.Reference.Name)
		}
	}
	if len(names) == 0 {
		return
	}
	slices.Sort(names)
	set := strings.TrimSuffix(strings.TrimPrefix(reprList(names), "["), "]")
	c.add(place, InvalidNodeReference,
		"Invalid node definitions found in the flow graph. Non-aggregate node '{node_name}' cannot reference aggregate nodes {invalid_reference}. Please review and rectify the node reference.",
		"node_name", n.Name, "invalid_reference", "{"+set+"}")
}

func reprList(names []string) string {
	list := make([]any, len(names))
	for i, name := range names {
		list[i] = name
	}
	return value.Repr(list)
}

// order sorts the nodes so that each stands behind what it refers to, taking the first available one each time.
func (c *check) order() {
	left := slices.Clone(c.flow.Nodes)
	picked := make(map[string]bool, len(left))
	for len(left) > 0 {
		i := slices.IndexFunc(left, func(n *Node) bool {
			return !slices.ContainsFunc(c.dependencies[n.Name], func(d string) bool { return !picked[d] })
		})
		if i < 0 {
			c.circular(left)
			return
		}
		c.sorted = append(c.sorted, left[i])
		picked[left[i].Name] = true
		left = slices.Delete(left, i, i+1)
	}
}

// circular names the nodes that are left: those of cycles, and what refers to them.
func (c *check) circular(left []*Node) {
	names := make([]string, len(left))
	for i, n := range left {
		names[i] = n.Name
	}
	slices.Sort(names)
	c.add(left[0].Place, NodeCircularDependency,
		"Invalid node definitions found in the flow graph. Node circular dependency has been detected among the nodes in your flow. Kindly review the reference relationships for the nodes {remaining_nodes} and resolve the circular reference issue in the flow.",
		"remaining_nodes", reprList(names))
}

func (c *check) outputs() {
	for _, out := range c.flow.Outputs {
		switch {
		case c.output(out):
		case out.Reference.Kind == NodeOutput && c.flow.isAggregation(out.Reference.Name):
			c.dropped = append(c.dropped, out)
		default:
			c.kept = append(c.kept, out)
		}
	}
}

// output reports whether an output's reference is wrong.
func (c *check) output(out *Output) (wrong bool) {
	switch r := out.Reference; {
	case r.Kind == Literal && r.Literal == "":
		c.add(out.Where, EmptyOutputReference,
			"The output '{output_name}' for flow is incorrect. The reference is not specified for the output '{output_name}' in the flow. To rectify this, ensure that you accurately specify the reference in the flow.",
			"output_name", out.Name)
	case r.Kind == FlowInput && c.flow.Input(r.Name) == nil:
		c.add(out.Where, OutputReferenceNotFound,
			"The output '{output_name}' for flow is incorrect. The output '{output_name}' references non-existent flow input '{flow_input_name}' in your flow. Please carefully review your flow and correct the reference definition for the output in question.",
			"output_name", out.Name, "flow_input_name", r.Name)
	case r.Kind == NodeOutput && c.flow.Node(r.Name) == nil:
		c.add(out.Where, OutputReferenceNotFound,
			"The output '{output_name}' for flow is incorrect. The output '{output_name}' references non-existent node '{node_name}' in your flow. To resolve this issue, please carefully review your flow and correct the reference definition for the output in question.",
			"output_name", out.Name, "node_name", r.Name)
	default:
		return false
	}
	return true
}

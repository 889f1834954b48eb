package validate

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/flow"
)

// graph checks names, references and order: of the flow with its default variants, and of the flow with each other variant.
func (c *checking) graph() {
	c.graphOf(c.draft.Flow, nil)
	for _, u := range c.units {
		i := slices.IndexFunc(c.draft.Flow.Nodes, func(n *flow.Node) bool { return n.Name == u.Name })
		if u.variant == "" || i < 0 || c.draft.Flow.Nodes[i] == u.Node {
			continue
		}
		varied := *c.draft.Flow
		varied.Nodes = slices.Clone(varied.Nodes)
		varied.Nodes[i] = u.Node
		c.graphOf(&varied, u)
	}
}

// graphOf reports what is wrong with a graph; with a variant in it, what is wrong without it has been reported before.
func (c *checking) graphOf(f *flow.Flow, variant *unit) {
	for _, e := range f.Problems() {
		if variant != nil && e.Class() == flow.DuplicateNodeName[3] {
			continue
		}
		mend := c.mendGraph(f, e)
		if at := circle(f, e); at != nil {
			e = at.At(e)
		}
		c.report.failure(e, mend, c.unitAt(e.Location))
	}
}

// unitAt returns the node whose mapping a place is in, nil when it is in none.
func (c *checking) unitAt(at *api.Location) *unit {
	if at == nil {
		return nil
	}
	var found *unit
	for _, u := range c.units {
		before := u.Line < at.Line || u.Line == at.Line && u.Column <= at.Column
		if before && (found == nil || u.Line > found.Line || u.Line == found.Line && u.Column > found.Column) && u.holds(at.Line, at.Column) {
			found = u
		}
	}
	return found
}

// holds reports whether a place is that of something the node has.
func (u *unit) holds(line, column int) bool {
	at := flow.Place{File: u.File, Line: line, Column: column}
	if at == u.Place || u.Activate != nil && (at == u.Activate.Place || at == u.Activate.Where) {
		return true
	}
	return slices.ContainsFunc(u.Inputs, func(in flow.NodeInput) bool { return at == in.Place || at == in.Where })
}

// mendGraph says what to do about an error of the graph.
func (c *checking) mendGraph(f *flow.Flow, e *api.Error) string {
	parameter := func(name string) string { return e.MessageParameters[name] }
	switch e.Class() {
	case "DuplicateNodeName":
		first := f.Node(parameter("node_name"))
		return fmt.Sprintf("Rename one of the two nodes; the first stands in line %d.", first.Line)
	case "InputReferenceNotFound":
		return c.mendInput(f, parameter("flow_input_name"))
	case "OutputReferenceNotFound":
		if name, ok := e.MessageParameters["flow_input_name"]; ok {
			return c.mendInput(f, name)
		}
		return c.mendNode(f, parameter("node_name"), "")
	case "NodeReferenceNotFound":
		return c.mendNode(f, parameter("reference_node_name"), parameter("node_name"))
	case "EmptyOutputReference":
		if len(f.Nodes) == 0 {
			return "Give the output a reference, such as ${node.output}."
		}
		return "Give the output a reference, such as ${" + f.Nodes[len(f.Nodes)-1].Name + ".output}."
	case "NodeCircularDependency":
		if names := cycle(f); names != nil {
			return "Remove one of the references in " + strings.Join(names, " → ") + "."
		}
	case "InvalidNodeReference":
		if name, ok := e.MessageParameters["invalid_reference"]; ok && !strings.HasPrefix(name, "{") {
			return "Let the condition refer to a flow input or to an aggregation node: aggregation runs once after all lines, and '" + name + "' once for each."
		}
		return "Give node '" + parameter("node_name") + "' the key 'aggregation: true', so that it runs after all lines too, or take its value from another node."
	}
	return ""
}

// mendInput is the mend for a reference to a flow input that there is not.
func (c *checking) mendInput(f *flow.Flow, name string) string {
	if strings.Contains(name, "${") {
		return mendTwo
	}
	if head, _, ok := strings.Cut(name, "."); ok && f.Input(head) != nil {
		return "A flow input has no properties in a reference: write ${inputs." + head + "} and take the rest of it in the node."
	}
	names := make([]string, len(f.Inputs))
	for i, in := range f.Inputs {
		names[i] = in.Name
	}
	form := func(n string) string { return "${inputs." + n + "}" }
	if n := f.Node(name); n != nil {
		return "For the output of the node, write ${" + name + ".output}."
	}
	if len(names) == 0 {
		return "The flow has no inputs: add '" + name + "' under 'inputs' with its type."
	}
	return didYouMean(name, names, form, "Add '"+name+"' under 'inputs' with its type, or use one of "+listed(names)+".")
}

// mendTwo is the mend for a value that begins and ends with references.
const mendTwo = "A value is one whole reference or none: give each reference to an input of its own, and put them together in the node."

// mendNode is the mend for a reference to a node that there is not; from is the node that has it.
func (c *checking) mendNode(f *flow.Flow, name, from string) string {
	if strings.Contains(name, "${") {
		return mendTwo
	}
	inner := strings.Trim(name, "{} ")
	switch rest, isInput := strings.CutPrefix(inner, "input."); {
	case inner != name && strings.HasPrefix(inner, "inputs"), name == "inputs" || name == "input":
		return "For a flow input, write ${inputs.NAME}."
	case isInput && f.Input(rest) != nil:
		return "Write ${inputs." + rest + "}."
	case f.Input(name) != nil:
		return "For the flow input of that name, write ${inputs." + name + "}."
	}
	names := slices.DeleteFunc(nodeNames(f), func(n string) bool { return n == from })
	if len(names) == 0 {
		return "Add a node of that name."
	}
	form := func(n string) string { return "${" + n + ".output}" }
	return didYouMean(name, names, form, "Add a node of that name, or use one of "+listed(names)+".")
}

// circle is the place of a reference that closes a circle, nil when the error is about something else.
func circle(f *flow.Flow, e *api.Error) *flow.Place {
	if e.Class() != "NodeCircularDependency" {
		return nil
	}
	names := cycle(f)
	if names == nil {
		return nil
	}
	n := f.Node(names[0])
	for i, in := range n.Inputs {
		if in.Kind == flow.NodeOutput && in.Reference.Name == names[1] {
			return &n.Inputs[i].Where
		}
	}
	return &n.Activate.Where
}

// cycle returns the names along a circle of references, the first again at the end.
func cycle(f *flow.Flow) []string {
	next := map[string][]string{}
	for _, n := range f.Nodes {
		for _, in := range n.Inputs {
			if in.Kind == flow.NodeOutput {
				next[n.Name] = append(next[n.Name], in.Reference.Name)
			}
		}
		if n.Activate != nil && n.Activate.When.Kind == flow.NodeOutput {
			next[n.Name] = append(next[n.Name], n.Activate.When.Name)
		}
	}
	done := map[string]bool{}
	for _, n := range f.Nodes {
		if found := walk(next, done, nil, n.Name); found != nil {
			return found
		}
	}
	return nil
}

// walk follows references until one leads back to where it has been.
func walk(next map[string][]string, done map[string]bool, path []string, at string) []string {
	if i := slices.Index(path, at); i >= 0 {
		return append(slices.Clone(path[i:]), at)
	}
	if done[at] || len(path) > maxProblems {
		return nil
	}
	path = append(path, at)
	for _, n := range next[at] {
		if found := walk(next, done, path, n); found != nil {
			return found
		}
	}
	done[at] = true
	return nil
}

// references checks what the graph's check does not look at: sections, and texts that were meant as references.
func (c *checking) references() {
	for _, u := range c.units {
		for _, in := range u.Inputs {
			c.reference(in.Reference, in.Where, u)
			if text, ok := in.Literal.(string); ok && in.Kind == flow.Literal {
				c.embedded(text, in.Where, u)
			}
		}
		if u.Activate != nil {
			c.reference(u.Activate.When, u.Activate.Where, u)
			c.condition(u)
		}
	}
	for _, out := range c.draft.Flow.Outputs {
		c.reference(out.Reference, out.Where, nil)
	}
}

// reference checks the section and the property of a reference to a node.
func (c *checking) reference(r flow.Reference, at flow.Place, u *unit) {
	if r.Kind != flow.NodeOutput {
		return
	}
	n := c.draft.Flow.Node(r.Name)
	if n == nil {
		return // has been said
	}
	if r.Section != "output" {
		meant := "${" + r.Name + ".output}"
		if r.Section != "outputs" {
			meant = "${" + r.Name + ".output." + r.Section + "}"
		}
		c.report.err(flow.UnsupportedReference, at, u,
			"The section '"+r.Section+"' of node '"+r.Name+"' is not supported: a node has an 'output' only.", "Write "+meant+".")
		return
	}
	if r.Property != "" && n.Type == flow.Prompt {
		c.report.warn("InvalidReferenceProperty", at, u, "The output of prompt node '"+r.Name+"' is a text, which has no property '"+r.Property+"'.",
			"Write ${"+r.Name+".output}.")
	}
}

// condition finds conditions that compare what cannot change.
func (c *checking) condition(u *unit) {
	text, ok := u.Activate.When.Literal.(string)
	if !ok || u.Activate.When.Kind != flow.Literal {
		return
	}
	if embeddedReference.MatchString(text) {
		c.report.warn("EmbeddedReference", u.Activate.Where, u,
			"The condition "+short(text)+" is a text, not a reference: it never changes.",
			"Let 'when' be one whole reference, such as ${inputs.name} or ${node.output}, and compute what it is compared with in a node.")
	}
}

// embeddedReference is a reference in the middle of a text, where it means nothing.
var embeddedReference = regexp.MustCompile(`\$\{(?:inputs|flow)\.[^{}\s]+\}|\$\{[\w]+\.outputs?(?:\.[^{}\s]+)?\}`)

// embedded warns of references inside longer texts, which stay texts.
func (c *checking) embedded(text string, at flow.Place, u *unit) {
	found := embeddedReference.FindString(text)
	if found == "" {
		return
	}
	c.report.warn("EmbeddedReference", at, u, "The reference "+found+" stands inside a longer text, where it is text and nothing is put in its place.",
		"Make the whole value "+found+", and put the text together in the node.")
}

func short(text string) string {
	const most = 60
	runes := []rune(text)
	if len(runes) > most {
		text = string(runes[:most]) + "…"
	}
	return "'" + text + "'"
}

package flow

import (
	"slices"
	"strings"

	"github.com/nomad-promptflow/nomad-promptflow/runtime/flow/document"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

var toolTypes = []string{"llm", "python", "csharp", "prompt", "action", "custom_llm"}

func (l loader) nodes(root *document.Node) ([]*Node, error) {
	f := root.Get("nodes")
	if f == nil || f.Value.IsNull() {
		return nil, nil
	}
	if f.Value.Kind != document.Sequence {
		return nil, l.definition(l.key(f), "The value of 'nodes' is not a list. Please write each node as a list item.")
	}
	nodes := make([]*Node, 0, len(f.Value.Items))
	for _, item := range f.Value.Items {
		n, err := l.node(item, "")
		if l.stop(err) {
			return nil, err
		}
		if n != nil {
			nodes = append(nodes, n)
		}
	}
	return nodes, nil
}

// node reads one node; the body of a variant has its name from outside.
func (l loader) node(n *document.Node, name string) (*Node, error) {
	if n.Kind != document.Mapping {
		return nil, l.definition(l.at(n), "A node is not a mapping of keys to values. Please correct it in the flow file.")
	}
	node := &Node{Name: name, Place: l.at(n)}
	if err := l.nodeName(node, n); err != nil {
		return nil, err
	}
	for _, read := range []func(*Node, *document.Node) error{l.nodeInputs, l.nodeTexts, l.nodeSource, l.nodeType, l.nodeActivate, l.nodeRaw} {
		if err := read(node, n); l.stop(err) {
			return nil, err
		}
	}
	return node, nil
}

func (l loader) nodeName(node *Node, n *document.Node) error {
	if node.Name != "" {
		return nil
	}
	f := n.Get("name")
	name, err := l.value(f)
	if err != nil {
		return err
	}
	text, ok := name.(string)
	if !ok || text == "" {
		return l.definition(l.at(n), "A node has no name. Please give it a 'name' that is a string.")
	}
	node.Name = text
	return nil
}

func (l loader) nodeInputs(node *Node, n *document.Node) error {
	fields, err := l.mapping(n.Get("inputs"))
	if l.stop(err) {
		return err
	}
	for i := range fields {
		f := &fields[i]
		v, err := l.value(f)
		if l.stop(err) {
			return err
		}
		node.Inputs = append(node.Inputs, NodeInput{Name: f.Key, Reference: ParseReference(v), Place: l.key(f), Where: l.at(f.Value)})
	}
	return nil
}

func (l loader) nodeTexts(node *Node, n *document.Node) error {
	for _, key := range []struct {
		name string
		to   *string
	}{{"tool", &node.Tool}, {"api", &node.API}, {"provider", &node.Provider}, {"module", &node.Module}, {"connection", &node.Connection}} {
		text, err := l.text(n.Get(key.name))
		if l.stop(err) {
			return err
		}
		*key.to = text
	}
	for _, key := range []string{"aggregation", "reduce"} {
		flag, err := l.flag(n.Get(key))
		if l.stop(err) {
			return err
		}
		node.Aggregation = node.Aggregation || flag
	}
	return nil
}

func (l loader) nodeSource(node *Node, n *document.Node) error {
	f := n.Get("source")
	if f == nil {
		return nil
	}
	if f.Value.Kind != document.Mapping {
		return l.definition(l.key(f), "The source of node '%s' is not a mapping. Please give it a 'type' and a 'path'.", node.Name)
	}
	s := &Source{Type: "code", Place: l.key(f)}
	if t := f.Value.Get("type"); t != nil {
		v, err := l.text(t)
		if l.stop(err) {
			return err
		}
		s.Type = v
	}
	var err error
	if s.Tool, err = l.text(f.Value.Get("tool")); l.stop(err) {
		return err
	}
	path := f.Value.Get("path")
	if s.Path, err = l.text(path); l.stop(err) {
		return err
	}
	if path != nil {
		s.Place = l.key(path)
	}
	node.Source = s
	return nil
}

func (l loader) nodeType(node *Node, n *document.Node) error {
	f := n.Get("type")
	if f == nil {
		return nil
	}
	t, err := l.value(f)
	if err != nil {
		return err
	}
	name, ok := t.(string)
	if !ok || !slices.Contains(toolTypes, name) {
		return l.definition(l.at(f.Value), "%s is not a valid ToolType for node '%s'. Please use one of %s.", value.Repr(t), node.Name, strings.Join(toolTypes, ", "))
	}
	node.Type = name
	return nil
}

func (l loader) nodeActivate(node *Node, n *document.Node) error {
	f := n.Get("activate")
	if f == nil {
		return nil
	}
	when, is := f.Value.Get("when"), f.Value.Get("is")
	if f.Value.Kind != document.Mapping || when == nil || is == nil {
		return l.key(f).At(Fail(FlowDefinitionError, TargetUnknown,
			"The definition of activate config for node {node_name} is incorrect. Please check your flow yaml and resubmit.", "node_name", node.Name))
	}
	condition, err := l.value(when)
	if l.stop(err) {
		return err
	}
	node.Activate = &Activate{When: ParseReference(condition), Place: l.key(f), Where: l.at(when.Value)}
	node.Activate.Is, err = l.value(is)
	return err
}

func (l loader) nodeRaw(node *Node, n *document.Node) error {
	v, err := n.Value()
	if err != nil {
		node.Raw = value.NewDict()
		return l.plainError(err)
	}
	node.Raw = v.(*value.Dict)
	if !node.Raw.Has("name") {
		node.Raw.Set("name", node.Name)
	}
	return nil
}

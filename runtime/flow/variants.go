package flow

import (
	"regexp"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/flow/document"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// variants of one node.
type variants struct {
	defaultID  string
	hasDefault bool
	nodes      map[string]*Node
}

// applyVariants reads all variants, as prompt flow does, and puts the default one in the place of each node that uses them. A
// node whose variant is missing stays as it is, unless a variant is chosen.
func (l loader) applyVariants(f *Flow, root *document.Node) error {
	all, err := l.variants(root)
	if l.stop(err) {
		return err
	}
	if l.variant != "" {
		return chooseVariant(f, all, l.variant)
	}
	for i, n := range f.Nodes {
		if !usesVariants(n) {
			continue
		}
		v, ok := all[n.Name]
		if !ok {
			continue
		}
		if chosen, ok := v.nodes[v.defaultID]; ok {
			f.Nodes[i] = chosen
		}
	}
	return nil
}

func usesVariants(n *Node) bool {
	v, _ := n.Raw.Get("use_variants")
	return value.Truth(v)
}

var variantText = regexp.MustCompile(`(?s)^\$\{([^.]+).([^}]+)\}`)

// parseVariant reads "${node.variant}", in quotes or without.
func parseVariant(text string) (node, variant string, err error) {
	plain := text
	if n := len(text); n >= 2 && text[0] == text[n-1] && (text[0] == '"' || text[0] == '\'') {
		plain = text[1 : n-1]
	}
	m := variantText.FindStringSubmatch(plain)
	if m == nil {
		return "", "", api.NewError(user(), targetSDK, "Invalid variant format: %s, variant should be in format of ${TUNING_NODE.VARIANT}", text)
	}
	return m[1], m[2], nil
}

// chooseVariant puts a variant in the place of one node, and default variants in the places of the others, with the checks that
// prompt flow makes when a variant is chosen (overwrite_variant). A variant for a node that uses none has no effect, as there.
func chooseVariant(f *Flow, all map[string]variants, choice string) error {
	node, variant, err := parseVariant(choice)
	if err != nil {
		return err
	}
	if f.Node(node) == nil {
		return invalidVariant("Node %s not found in flow", node)
	}
	if _, ok := all[node].nodes[variant]; !ok {
		return invalidVariant("Variant %s not found for node %s", variant, node)
	}
	for i, n := range f.Nodes {
		if !usesVariants(n) {
			continue
		}
		v, ok := all[n.Name]
		if !ok {
			return n.At(invalidVariant("No variant for the node %s.", n.Name))
		}
		id := v.defaultID
		switch {
		case n.Name == node:
			id = variant
		case !v.hasDefault:
			return n.At(invalidVariant("Default variant id is not specified for %s.", n.Name))
		}
		if f.Nodes[i], ok = v.nodes[id]; !ok {
			return n.At(invalidVariant("Cannot find the variant %s for %s.", id, n.Name))
		}
	}
	return nil
}

func invalidVariant(format string, args ...any) *api.Error {
	return api.NewError(user("SDKError", "InvalidFlowError"), targetSDK, format, args...)
}

func (l loader) variants(root *document.Node) (map[string]variants, error) {
	fields, err := l.mapping(root.Get("node_variants"))
	if l.stop(err) {
		return nil, err
	}
	all := make(map[string]variants, len(fields))
	for i := range fields {
		v, err := l.variantsOf(&fields[i])
		if l.stop(err) {
			return nil, err
		}
		all[fields[i].Key] = v
	}
	return all, nil
}

func (l loader) variantsOf(f *document.Field) (variants, error) {
	list := f.Value.Get("variants")
	if f.Value.Kind != document.Mapping || list == nil {
		return variants{}, l.definition(l.key(f), "The node variants of '%s' have no 'variants'. Please add them.", f.Key)
	}
	bodies, err := l.mapping(list)
	if l.stop(err) {
		return variants{}, err
	}
	v := variants{nodes: make(map[string]*Node, len(bodies))}
	id := f.Value.Get("default_variant_id")
	v.hasDefault = id != nil
	if v.defaultID, err = l.text(id); l.stop(err) {
		return v, err
	}
	for _, body := range bodies {
		chosen, err := l.variantBody(f, &body)
		if l.stop(err) {
			return v, err
		}
		if chosen != nil {
			v.nodes[body.Key] = chosen
		}
	}
	return v, nil
}

func (l loader) variantBody(of, body *document.Field) (*Node, error) {
	n := body.Value.Get("node")
	if n == nil {
		return nil, l.definition(l.key(body), "The variant '%s' of node '%s' has no 'node'. Please add it.", body.Key, of.Key)
	}
	node, err := l.node(n.Value, of.Key)
	if err != nil {
		return nil, err
	}
	node.Raw.Set("name", of.Key)
	return node, nil
}

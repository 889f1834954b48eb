package graph

import (
	"context"
	"fmt"

	"github.com/nomad-promptflow/nomad-promptflow/runtime/flow"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// bypasses decides for a ready node, with the line that prompt flow logs. A condition alone decides where there is one; without
// one a node is bypassed when it refers to nodes and all of them are bypassed.
func (g *Graph) bypasses(ctx context.Context, n *flow.Node) (bool, string, error) {
	if n.Activate != nil {
		return g.inactive(ctx, n)
	}
	var names []any
	for _, in := range n.Inputs {
		if !g.isNodeInput(in.Reference) {
			continue
		}
		if !g.bypassed[in.Reference.Name] {
			return false, "", nil
		}
		names = append(names, in.Reference.Name)
	}
	if len(names) == 0 {
		return false, "", nil
	}
	return true, fmt.Sprintf("The node '%s' will be bypassed because all nodes %s it depends on are bypassed.", n.Name, value.Repr(names)), nil
}

func (g *Graph) inactive(ctx context.Context, n *flow.Node) (bool, string, error) {
	when := n.Activate.When
	if g.refersToBypassed(when) {
		return true, fmt.Sprintf("The node '%s' will be bypassed because it depends on the node '%s' which has already been bypassed in the activate config.", n.Name, when.Name), nil
	}
	v, err := g.Value(ctx, when)
	if err != nil {
		return false, "", err
	}
	met, err := g.equal(ctx, v, n.Activate.Is)
	if err != nil {
		return false, "", err
	}
	if met {
		return false, "", nil
	}
	return true, fmt.Sprintf("The node '%s' will be bypassed because the activate condition is not met, i.e. '%s' is not equal to '%s'.",
		n.Name, when, value.Str(n.Activate.Is)), nil
}

func (g *Graph) equal(ctx context.Context, v, is any) (bool, error) {
	if ref, ok := v.(*value.Ref); ok {
		return g.objects.Equal(ctx, ref, is)
	}
	return value.Equal(v, is), nil
}

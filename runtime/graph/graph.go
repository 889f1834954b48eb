// Package graph says which nodes of a flow are ready, which are bypassed and what their inputs are, while one line runs.
//
// It runs nothing. A [Graph] is one line's state: [Graph.Next] takes the nodes that became ready, [Graph.Complete] puts in what
// they gave. The rules of activation and bypassing are prompt flow's (its DAGManager). A Graph belongs to one goroutine.
package graph

import (
	"context"

	"github.com/nomad-promptflow/nomad-promptflow/runtime/flow"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// Objects answers what only the worker that holds a Python object knows of it.
type Objects interface {
	// Property follows a reference's property into the object.
	Property(ctx context.Context, ref *value.Ref, node, property string) (any, error)
	// Equal is Python's ref == v.
	Equal(ctx context.Context, ref *value.Ref, v any) (bool, error)
}

// Graph is the state of one line.
type Graph struct {
	nodes    []*flow.Node
	pending  []*flow.Node
	inputs   *value.Dict
	outputs  map[string]any
	bypassed map[string]bool
	given    map[string]any
	objects  Objects
}

// New returns the state before any node ran. The flow inputs are converted ones.
func New(nodes []*flow.Node, inputs *value.Dict, objects Objects) *Graph {
	return &Graph{
		nodes: nodes, pending: append([]*flow.Node(nil), nodes...), inputs: inputs, objects: objects,
		outputs: make(map[string]any, len(nodes)), bypassed: map[string]bool{},
	}
}

// NewAggregation returns the state of the aggregation, whose nodes refer to the normal nodes of all lines: given holds, by
// serialized reference ("${grade.output}"), what the lines gave. Such a reference is as good as a literal.
func NewAggregation(nodes []*flow.Node, inputs *value.Dict, given map[string]any, objects Objects) *Graph {
	g := New(nodes, inputs, objects)
	g.given = given
	return g
}

// isNodeInput reports whether an input waits for a node of this graph.
func (g *Graph) isNodeInput(r flow.Reference) bool {
	if r.Kind != flow.NodeOutput {
		return false
	}
	_, given := g.given[r.String()]
	return !given
}

// Bypass is a node that does not run, and why.
type Bypass struct {
	Node *flow.Node
	Log  string
}

// Next returns the nodes that can run now and have not been returned before, in the flow's order, and the nodes that were found
// to be bypassed. It fails when a condition refers to what is not there.
func (g *Graph) Next(ctx context.Context) (ready []*flow.Node, bypassed []Bypass, err error) {
	for {
		round, err := g.bypassRound(ctx)
		if err != nil {
			return nil, bypassed, err
		}
		bypassed = append(bypassed, round...)
		if len(round) == 0 {
			break
		}
	}
	left := g.pending[:0]
	for _, n := range g.pending {
		if g.isReady(n) {
			ready = append(ready, n)
		} else {
			left = append(left, n)
		}
	}
	g.pending = left
	return ready, bypassed, nil
}

// bypassRound bypasses nodes once through the list; a node bypassed in a round is seen by later nodes of the same round.
func (g *Graph) bypassRound(ctx context.Context) ([]Bypass, error) {
	var round []Bypass
	left := make([]*flow.Node, 0, len(g.pending))
	for _, n := range g.pending {
		bypass, log := false, ""
		if g.isReady(n) {
			var err error
			if bypass, log, err = g.bypasses(ctx, n); err != nil {
				return nil, err
			}
		}
		if !bypass {
			left = append(left, n)
			continue
		}
		g.bypassed[n.Name] = true
		round = append(round, Bypass{n, log})
	}
	g.pending = left
	return round, nil
}

// Complete puts in a node's output.
func (g *Graph) Complete(name string, output any) { g.outputs[name] = output }

// Done reports whether every node has completed or was bypassed.
func (g *Graph) Done() bool {
	return len(g.outputs)+len(g.bypassed) == len(g.nodes)
}

// IsBypassed reports whether a node was bypassed.
func (g *Graph) IsBypassed(name string) bool { return g.bypassed[name] }

func (g *Graph) isReady(n *flow.Node) bool {
	for _, in := range n.Inputs {
		if g.isNodeInput(in.Reference) && !g.isThere(in.Reference) {
			return false
		}
	}
	return n.Activate == nil || g.isThere(n.Activate.When)
}

func (g *Graph) isThere(r flow.Reference) bool {
	if r.Kind != flow.NodeOutput || g.bypassed[r.Name] {
		return true
	}
	_, ok := g.outputs[r.Name]
	return ok
}

func (g *Graph) refersToBypassed(r flow.Reference) bool {
	return r.Kind == flow.NodeOutput && g.bypassed[r.Name]
}

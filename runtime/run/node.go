package run

import (
	"context"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/flow"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/graph"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// singleNodeError is prompt flow's SingleNodeValidationError.
var singleNodeError = flow.Class{api.UserError, "SingleNodeValidationError"}

// selectNode leaves the flow with the one node that is to be loaded, when there is one.
func (x *Executor) selectNode() error {
	name := x.config.Node
	if name == "" {
		return nil
	}
	const failed = "Validation failed when attempting to execute the node. "
	n := x.flow.Node(name)
	if n == nil {
		return flow.Fail(singleNodeError, flow.TargetUnknown, failed+"Node '{node_name}' is not found in flow '{flow_file}'. "+
			"Please change node name or correct the flow file.", "node_name", name, "flow_file", x.flow.File)
	}
	if n.Source == nil || n.Type == "" {
		return n.At(flow.Fail(singleNodeError, flow.TargetUnknown, failed+"Properties 'source' or 'type' are not specified for Node '{node_name}' in flow '{flow_file}'. "+
			"Please make sure these properties are in place and try again.", "node_name", name, "flow_file", x.flow.File))
	}
	one := *x.flow
	one.Nodes = []*flow.Node{n}
	x.single, x.all, x.flow = n, x.flow.Nodes, &one
	return nil
}

// runNode runs the one node that was loaded, as prompt flow's FlowExecutor.load_and_exec_node does: with flow inputs, and with the
// outputs of the nodes that it refers to. Its condition does not count. An aggregation node takes them as if they were of one line.
func (x *Executor) runNode(ctx context.Context, request *api.RunRequest, result *api.RunResult, watcher Watcher) error {
	if request.Lines != nil {
		return invalidRequest("The submission has both 'node' and 'lines'. Please send the inputs of one line.")
	}
	inputs, err := decodeInputs(request.Inputs, "inputs")
	if err != nil {
		return err
	}
	outputs, err := decodeInputs(request.NodeOutputs, "dependency_nodes_outputs")
	if err != nil {
		return err
	}
	at := place{bounds: x.bounds(request, 0)}
	ctx, cancel := at.bound(ctx)
	defer cancel()
	s := &stage{
		x: x, runID: result.RunID, parentRunID: result.RunID, session: &session{python: x.python}, timeout: at.bounds.node, life: ctx,
		watcher: watcher, graph: graph.New([]*flow.Node{x.single}, nil, nil),
	}
	defer s.session.release()
	given, err := x.nodeInputs(ctx, s, inputs, outputs)
	if err != nil {
		return err
	}
	r := s.newRecord(x.single)
	s.records = append(s.records, r)
	o := s.step(ctx, make(chan struct{}, 1), x.steps[x.single.Name], r, given)
	_ = s.finish(ctx, finished{r, o}) // it is in the record
	result.NodeRuns = s.recorded()
	result.Status, result.Error = r.info.Status, r.info.Error
	result.Metrics = value.Encode(r.metrics)
	if r.info.Status == api.StatusCompleted {
		return x.nodeOutput(ctx, s, o.value, result)
	}
	return nil
}

// nodeOutput writes what the node gave; a stream is read to its end.
func (x *Executor) nodeOutput(ctx context.Context, s *stage, v any, result *api.RunResult) error {
	if source := streamOf(v, s); source != nil {
		text, err := source.join(ctx)
		if err != nil {
			result.Status, result.Error = api.StatusFailed, asError(ctx, err)
			return nil
		}
		v = text
	}
	result.Output = value.Encode(x.media.Format.Portable(v))
	return nil
}

// nodeInputs are the inputs of the one node.
func (x *Executor) nodeInputs(ctx context.Context, s *stage, inputs, outputs *value.Dict) ([]graph.Input, error) {
	converted, err := x.singleInputs(ctx, inputs)
	if err != nil {
		return nil, err
	}
	s.graph = graph.New([]*flow.Node{x.single}, converted, s.session)
	for name, v := range outputs.All() {
		loaded, err := x.media.Value(ctx, v)
		if err != nil {
			return nil, err
		}
		s.graph.Complete(name, loaded)
	}
	given, _, err := s.graph.Inputs(x.single, x.steps[x.single.Name].hasDefault)
	if err != nil || !x.single.Aggregation {
		return given, err
	}
	for i, in := range given {
		if in.From.Kind == flow.FlowInput || in.From.Kind == flow.NodeOutput && x.isNormal(in.From.Name) {
			given[i].Value = []any{in.Value}
		}
	}
	return given, nil
}

func (x *Executor) isNormal(name string) bool {
	for _, n := range x.all {
		if n.Name == name {
			return !n.Aggregation
		}
	}
	return false
}

// singleInputs converts the flow inputs that the one node refers to (FlowValidator.convert_flow_inputs_for_node).
func (x *Executor) singleInputs(ctx context.Context, inputs *value.Dict) (*value.Dict, error) {
	n, out := x.single, value.NewDict()
	var used []*flow.Input
	given := x.flow.WithDefaults(inputs)
	for _, in := range n.Inputs {
		if in.Kind != flow.FlowInput {
			continue
		}
		name := in.Reference.Name
		definition := x.flow.Input(name)
		if definition == nil {
			return nil, in.At(flow.Fail(flow.InputNotFound, flow.TargetUnknown, "The input for node is incorrect. Node input '{node_input_name}' is not found "+
				"from flow inputs of node '{node_name}'. Please review the node definition in your flow.", "node_input_name", name, "node_name", n.Name))
		}
		v, ok := given.Get(name)
		if !ok {
			return nil, in.At(flow.Fail(flow.InputNotFound, flow.TargetUnknown, "The input for node is incorrect. Node input '{node_input_name}' is not found "+
				"in input data for node '{node_name}'. Please verify the inputs data for the node.", "node_input_name", name, "node_name", n.Name))
		}
		converted, err := definition.Convert(v, nil)
		if err != nil {
			return nil, in.At(flow.Fail(flow.InputTypeError, flow.TargetUnknown, "The input for node is incorrect. Value for input '{input_name}' of node '{node_name}' "+
				"is not type '{expected_type}'. Please review and rectify the input data.", "input_name", in.Name, "node_name", n.Name, "expected_type", definition.Type))
		}
		out.Set(name, converted)
		used = append(used, definition)
	}
	return x.media.Inputs(ctx, used, out)
}

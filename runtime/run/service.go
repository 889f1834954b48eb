package run

import (
	"context"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/flow"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// A batch that somebody else drives: each line is a request of its own, and the aggregation another.

// BatchLine runs one line of a batch, with the batch's bound on time. What it gives to the aggregation is plain: it is to be sent away.
func (x *Executor) BatchLine(ctx context.Context, runID string, number int, inputs *value.Dict) (*Line, error) {
	l := x.line(ctx, place{runID: runID, number: &number, batch: true, bounds: x.bounds(&api.RunRequest{}, DefaultBatchLineTimeout)}, inputs)
	defer l.session.release()
	for _, r := range x.flow.AggregationReferences() {
		if ref, ok := l.given[r.String()].(*value.Ref); ok {
			v, err := plain(ref, r)
			if err != nil {
				return nil, err
			}
			l.given[r.String()] = v
		}
	}
	return l, nil
}

// OpenBatchLine is BatchLine that streams: Finish hands the pieces over.
func (x *Executor) OpenBatchLine(ctx context.Context, runID string, number int, inputs *value.Dict) *Opened {
	return x.open(ctx, place{runID: runID, number: &number, bounds: x.bounds(&api.RunRequest{}, 0), streaming: pieces}, inputs)
}

// Aggregation is what the nodes after all lines gave.
type Aggregation struct {
	Metrics *value.Dict
	Nodes   []api.NodeRunInfo
}

// Aggregate runs the aggregation over what lines gave: a list for every flow input, and for every reference that Line.Given has. An error
// is that of the lists; a node that fails is in the records only.
func (x *Executor) Aggregate(ctx context.Context, runID string, inputs, given *value.Dict) (Aggregation, error) {
	lines, err := checkLists(inputs, given)
	if err != nil {
		return Aggregation{}, err
	}
	converted, err := x.aggregationInputs(ctx, inputs, lines)
	if err != nil {
		return Aggregation{}, err
	}
	lists := make(map[string]any, given.Len())
	for name, v := range given.All() {
		if lists[name], err = x.media.Value(ctx, v); err != nil {
			return Aggregation{}, err
		}
	}
	s := x.aggregationStage(ctx, place{runID: runID, bounds: x.bounds(&api.RunRequest{}, 0)})
	defer s.session.release()
	a := x.reduceWith(ctx, s, converted, lists)
	return Aggregation{Metrics: a.metrics, Nodes: a.nodes}, nil
}

// checkLists returns how many lines the lists are of (FlowValidator._validate_aggregation_inputs).
func checkLists(inputs, given *value.Dict) (int, error) {
	class := flow.Class{api.SystemError, "InvalidAggregationInput"}
	lengths := value.NewDict()
	check := func(what, name string, v any) error {
		list, ok := v.([]any)
		if !ok {
			return flow.Fail(class, flow.TargetUnknown, "The input for aggregation is incorrect. The value for aggregated "+what+" input '{input_key}' should be a list, "+
				"but received {value_type}. Please adjust the input value to match the expected format.", "input_key", name, "value_type", value.TypeName(v))
		}
		lengths.Set(name, int64(len(list)))
		return nil
	}
	for name, v := range inputs.All() {
		if given.Has(name) {
			return 0, flow.Fail(class, flow.TargetUnknown, "The input for aggregation is incorrect. The input '{input_key}' appears in both "+
				"aggregated flow input and aggregated reference input. Please remove one of them and try the operation again.", "input_key", name)
		}
		if err := check("flow", name, v); err != nil {
			return 0, err
		}
	}
	for name, v := range given.All() {
		if err := check("reference", name, v); err != nil {
			return 0, err
		}
	}
	lines := int64(1)
	for i, name := range lengths.Keys() {
		n, _ := lengths.Get(name)
		if i > 0 && n != any(lines) {
			return 0, flow.Fail(class, flow.TargetUnknown, "The input for aggregation is incorrect. The length of all aggregated inputs should be the same. "+
				"Current input lengths are: {key_len}. Please adjust the input value in your input data.", "key_len", value.Repr(lengths))
		}
		lines = n.(int64)
	}
	return int(lines), nil
}

// HasAggregation reports whether any node runs after all lines.
func (x *Executor) HasAggregation() bool { return len(x.reduce) > 0 }

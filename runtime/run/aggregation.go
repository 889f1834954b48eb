package run

import (
	"context"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/flow"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/graph"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// aggregation is what the nodes after all lines gave.
type aggregation struct {
	metrics *value.Dict
	nodes   []api.NodeRunInfo
}

// aggregate runs the aggregation over completed lines with their inputs, which have one list per flow input. An error is that of
// the inputs; a node that fails is in the node records only.
func (x *Executor) aggregate(ctx context.Context, at place, inputs *value.Dict, lines []*Line) (aggregation, error) {
	s := x.aggregationStage(ctx, at)
	if len(lines) == 1 {
		s.session = lines[0].session
	}
	defer s.session.release()
	converted, err := x.aggregationInputs(ctx, inputs, len(lines))
	if err != nil {
		return aggregation{metrics: value.NewDict()}, err
	}
	given, err := x.transpose(ctx, s, lines)
	if err != nil {
		return aggregation{metrics: value.NewDict()}, err
	}
	return x.reduceWith(ctx, s, converted, given), nil
}

func (x *Executor) aggregationStage(ctx context.Context, at place) *stage {
	return &stage{x: x, runID: at.runID, parentRunID: at.runID, session: &session{python: x.python}, timeout: at.bounds.node, life: ctx, watcher: at.watcher}
}

// reduceWith runs the aggregation nodes.
func (x *Executor) reduceWith(ctx context.Context, s *stage, inputs *value.Dict, given map[string]any) aggregation {
	result := aggregation{metrics: value.NewDict()}
	s.graph = graph.NewAggregation(x.reduce, inputs, given, s.session)
	if err := s.run(ctx); err != nil {
		x.log.Warn("aggregation failed", "run", s.runID, "error", err)
	}
	result.nodes = s.recorded()
	for _, r := range s.records {
		for name, v := range r.metrics.All() {
			result.metrics.Set(name, v)
		}
	}
	return result
}

// aggregationInputs converts every value of every list; inputs the flow does not define are left out, absent ones get their
// default once per line.
func (x *Executor) aggregationInputs(ctx context.Context, inputs *value.Dict, lines int) (*value.Dict, error) {
	out := value.NewDict()
	for _, in := range x.flow.Inputs {
		v, ok := inputs.Get(in.Name)
		list, _ := v.([]any)
		if !ok {
			if in.Default == nil {
				continue
			}
			for range lines {
				list = append(list, in.Default)
			}
		}
		converted := make([]any, 0, len(list))
		for i, item := range list {
			c, err := in.Convert(item, &i)
			if err != nil {
				return nil, err
			}
			converted = append(converted, c)
		}
		loaded, err := x.media.Input(ctx, in, converted)
		if err != nil {
			return nil, err
		}
		out.Set(in.Name, loaded)
	}
	return out, nil
}

// transpose makes one list per reference of what the lines gave. An object of a worker can be passed on only while its session
// lives: the one line's does; of many lines the objects pass as JSON, as between prompt flow's own processes and executors of
// other languages.
func (x *Executor) transpose(ctx context.Context, s *stage, lines []*Line) (map[string]any, error) {
	given := map[string]any{}
	for _, r := range x.flow.AggregationReferences() {
		list := make([]any, 0, len(lines))
		for _, l := range lines {
			v := l.given[r.String()]
			if ref, ok := v.(*value.Ref); ok && l.session != s.session {
				var err error
				if v, err = plain(ref, r); err != nil {
					return nil, err
				}
			}
			list = append(list, v)
		}
		loaded, err := x.media.Value(ctx, list)
		if err != nil {
			return nil, err
		}
		given[r.String()] = loaded
	}
	return given, nil
}

func plain(ref *value.Ref, r flow.Reference) (any, error) {
	if ref.Record == nil {
		return nil, flow.Fail(flow.NotSupported, flow.TargetExecutor,
			"The output of node '{node}' is of type {type}, which cannot be passed to the aggregation of several lines. Please return values that JSON can carry.",
			"node", r.Name, "type", ref.Type)
	}
	return value.Decode(ref.Record)
}

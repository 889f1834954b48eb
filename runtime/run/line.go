package run

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/flow"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/graph"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/template"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// Line is what one line gave.
type Line struct {
	Output *value.Dict // nil unless the line completed
	Info   api.FlowRunInfo
	Nodes  []api.NodeRunInfo

	given   map[string]any // by serialized reference, for the aggregation
	session *session
}

// Completed reports whether the line completed.
func (l *Line) Completed() bool { return l.Info.Status == api.StatusCompleted }

// RunLine runs one line without the aggregation, as a served flow does: the inputs are without a line number.
func (x *Executor) RunLine(ctx context.Context, runID string, inputs *value.Dict) *Line {
	l := x.line(ctx, runID, nil, inputs, x.config.LineTimeout)
	l.session.release()
	return l
}

// line runs one line. Its session is left open for the aggregation.
func (x *Executor) line(ctx context.Context, runID string, number *int, inputs *value.Dict, timeout time.Duration) *Line {
	began := time.Now()
	if timeout > 0 {
		at := 0
		if number != nil {
			at = *number
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, timeout, &lineTimeout{at, timeout})
		defer cancel()
	}
	lineRunID := runID
	if number != nil {
		lineRunID += "_" + strconv.Itoa(*number)
	}
	l := &Line{session: &session{python: x.python}, Info: api.FlowRunInfo{
		RunID: lineRunID, ParentRunID: runID, RootRunID: runID, FlowID: x.flow.ID, Index: number, StartTime: stamp(began),
		Inputs: null, Output: null, Result: null, Metrics: null, MessageFormat: x.messageFormat(),
	}}
	s := &stage{x: x, runID: runID, parentRunID: lineRunID, number: number, session: l.session}
	err := x.runNodes(ctx, l, s, inputs)
	l.end(ctx, s, began, err)
	return l
}

// runNodes converts the inputs, runs the nodes and gathers the outputs.
func (x *Executor) runNodes(ctx context.Context, l *Line, s *stage, inputs *value.Dict) error {
	converted, err := x.flow.ConvertInputs(x.flow.WithDefaults(inputs), s.number)
	if err != nil {
		return err
	}
	if converted, err = x.media.Inputs(ctx, x.flow.Inputs, converted); err != nil {
		return err
	}
	l.Info.Inputs = value.Encode(converted)
	s.graph = graph.New(x.normal, converted, l.session)
	if err := s.run(ctx); err != nil {
		return err
	}
	if l.Output, err = x.outputs(ctx, s); err != nil {
		return err
	}
	l.given, err = x.aggregationValues(ctx, s.graph)
	return err
}

// end completes the records of a line.
func (l *Line) end(ctx context.Context, s *stage, began time.Time, err error) {
	ended := time.Now()
	l.Info.EndTime = stamp(ended)
	l.Info.Status = api.StatusCompleted
	if err != nil {
		l.fail(ctx, err)
	} else {
		l.Info.Output = value.Encode(l.Output)
		l.Info.Result = l.Info.Output
	}
	l.Info.SystemMetrics = lineMetrics(ended.Sub(began), s.records)
	l.Nodes = s.recorded()
}

func (l *Line) fail(ctx context.Context, err error) {
	l.Output, l.given = nil, nil
	e := asError(ctx, err)
	if ended := cause(ctx); ended != nil && e.Class() == "ToolCanceledError" {
		e = asError(ctx, ended)
	}
	l.Info.Error, l.Info.Status = e, api.StatusFailed
	if e.Class() == "ToolCanceledError" {
		l.Info.Status = api.StatusCanceled
	}
}

// outputs gathers the flow's outputs; streams are read to their end.
func (x *Executor) outputs(ctx context.Context, s *stage) (*value.Dict, error) {
	outputs := value.NewDictSize(len(x.flow.Outputs))
	for _, out := range x.flow.Outputs {
		if out.Reference.Kind == flow.NodeOutput && s.graph.IsBypassed(out.Reference.Name) {
			x.log.Warn("output refers to a bypassed node", "run", s.parentRunID, "output", out.Name, "node", out.Reference.Name)
		}
		r := out.Reference
		r.Section = "output" // prompt flow looks at the section of inputs only
		v, err := s.graph.Value(ctx, r)
		if err != nil {
			return nil, err
		}
		outputs.Set(out.Name, v)
	}
	return outputs, x.joinAndCheck(ctx, s, outputs)
}

// joinAndCheck replaces streams by their text and refuses what JSON cannot carry.
func (x *Executor) joinAndCheck(ctx context.Context, s *stage, outputs *value.Dict) error {
	for name, v := range outputs.All() {
		ref, ok := v.(*value.Ref)
		if !ok || !ref.Stream {
			continue
		}
		leased, err := s.session.get(ctx)
		if err != nil {
			return err
		}
		text, err := leased.Join(ctx, ref)
		if err != nil {
			return err
		}
		outputs.Set(name, text)
	}
	for name, v := range outputs.All() {
		if ref := unserializable(v); ref != nil {
			return flow.Fail(flow.FlowOutputUnserializable, flow.TargetFlowExecutor,
				"The output '{output_name}' for flow is incorrect. The output value is not JSON serializable. JSON dump failed: {error_type_and_message}. Please verify your flow output and make sure the value serializable.",
				"output_name", name, "error_type_and_message", whyUnserializable(ctx, s.session, ref))
		}
	}
	return nil
}

// unserializable returns the first object in a value that has no JSON form, nil when there is none.
func unserializable(v any) *value.Ref {
	switch v := v.(type) {
	case *value.Ref:
		if v.Record == nil {
			return v
		}
	case []any:
		for _, item := range v {
			if ref := unserializable(item); ref != nil {
				return ref
			}
		}
	case *value.Dict:
		for _, item := range v.All() {
			if ref := unserializable(item); ref != nil {
				return ref
			}
		}
	}
	return nil
}

// whyUnserializable returns json.dumps' complaint about an object. Jinja2's tojson filter is json.dumps, so the worker's renderer
// makes it: what is wrong may be deep inside of the object.
func whyUnserializable(ctx context.Context, r template.Renderer, ref *value.Ref) string {
	vars := value.NewDict()
	vars.Set("v", ref)
	_, err := r.Render(ctx, "{{ v | tojson }}", vars)
	var e *template.Error
	if errors.As(err, &e) {
		return "(" + e.Class + ") " + e.Message
	}
	return "(TypeError) Object of type " + value.TypeName(ref) + " is not JSON serializable"
}

// aggregationValues returns what the aggregation needs of a line.
func (x *Executor) aggregationValues(ctx context.Context, g *graph.Graph) (map[string]any, error) {
	given := map[string]any{}
	for _, r := range x.flow.AggregationReferences() {
		v, err := g.Value(ctx, r)
		if err != nil {
			return nil, err
		}
		given[r.String()] = v
	}
	return given, nil
}

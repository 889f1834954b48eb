package run

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/flow"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/graph"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/template"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/worker"
)

// Line is what one line gave.
type Line struct {
	Output *value.Dict // nil unless the line completed
	// Primitive says that a flex flow returned one value instead of an object; Output has it as "output".
	Primitive bool
	Info      api.FlowRunInfo
	Nodes     []api.NodeRunInfo

	given   map[string]any     // by serialized reference, for the aggregation
	script  *worker.LineResult // of a script, for the aggregation
	metrics json.RawMessage    // of a script, in place of the nodes'
	session *session
}

// Given returns what the aggregation needs of the line, by serialized reference ("${grade.output}").
func (l *Line) Given() *value.Dict {
	d := value.NewDictSize(len(l.given))
	for _, name := range slices.Sorted(maps.Keys(l.given)) {
		d.Set(name, l.given[name])
	}
	return d
}

// Completed reports whether the line completed.
func (l *Line) Completed() bool { return l.Info.Status == api.StatusCompleted }

// streaming says whether the nodes that can answer piece by piece do so (FlowExecutor.enable_streaming_for_llm_flow).
type streaming int

const (
	asWritten streaming = iota // as their inputs say: the lines of a batch
	whole                      // no
	pieces                     // yes
)

// RunLine runs one line without the aggregation, as a served flow does: the inputs are without a line number.
func (x *Executor) RunLine(ctx context.Context, runID string, inputs *value.Dict) *Line {
	o := x.OpenLine(ctx, runID, inputs, false)
	defer o.Close()
	return o.Finish(nil)
}

// OpenLine runs one line as far as it can be run before what it streams is read, without the aggregation, as a served flow does; Finish
// ends it. With stream, what can answer piece by piece does so, and Finish hands the pieces over.
func (x *Executor) OpenLine(ctx context.Context, runID string, inputs *value.Dict, stream bool) *Opened {
	at := place{runID: runID, bounds: bounds{x.config.LineTimeout, x.config.NodeTimeout}, streaming: whole}
	if stream {
		at.streaming = pieces
	}
	return x.open(ctx, at, inputs)
}

// place is which line of which run a line is, and how it is run.
type place struct {
	runID     string
	number    *int // nil: none
	batch     bool // it is one of a batch
	bounds    bounds
	streaming streaming
	watcher   Watcher // nil: nobody watches
}

// bound ends the context of a line in time.
func (p place) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	if p.bounds.line <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, p.bounds.line, &lineTimeout{max(p.index(), 0), p.bounds.line})
}

// index is the line's number, -1 when it has none.
func (p place) index() int {
	if p.number == nil {
		return -1
	}
	return *p.number
}

func (p place) lineRunID() string {
	if p.number == nil {
		return p.runID
	}
	return p.runID + "_" + strconv.Itoa(*p.number)
}

// line runs one line. Its session is left open for the aggregation.
func (x *Executor) line(ctx context.Context, at place, inputs *value.Dict) *Line {
	o := x.open(ctx, at, inputs)
	defer o.cancel()
	var emit func(string, any) error
	if at.streaming == pieces {
		emit = func(output string, item any) error { return at.watcher.Chunk(at.number, output, item) }
	}
	return o.Finish(emit)
}

// open runs a line as far as it can be run before what it streams is read.
func (x *Executor) open(ctx context.Context, at place, inputs *value.Dict) *Opened {
	began := time.Now()
	ctx, cancel := at.bound(ctx)
	l := &Line{session: &session{python: x.python}, Info: api.FlowRunInfo{
		RunID: at.lineRunID(), ParentRunID: at.runID, RootRunID: at.runID, FlowID: x.flow.ID, Index: at.number, StartTime: stamp(began),
		Inputs: null, Output: null, Result: null, Metrics: null, MessageFormat: x.messageFormat(),
	}}
	s := &stage{
		x: x, runID: at.runID, parentRunID: l.Info.RunID, number: at.number, session: l.session, timeout: at.bounds.node,
		streaming: at.streaming, life: ctx, watcher: at.watcher,
	}
	o := &Opened{x: x, line: l, stage: s, ctx: ctx, cancel: cancel, began: began}
	switch x.flow.Form {
	case flow.Prompty:
		o.err = x.runPrompty(ctx, l, at, inputs)
	case flow.Flex:
		o.err = x.runScript(ctx, l, at, inputs)
	default:
		o.err = x.runNodes(ctx, l, s, inputs)
	}
	return o
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
	l.Output, err = x.outputs(ctx, s)
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
	if l.metrics != nil {
		l.Info.SystemMetrics = l.metrics
	}
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

// outputs gathers the flow's outputs. Streams among them are not read yet, unless nobody takes their pieces.
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
	if s.streaming != pieces {
		if err := join(ctx, s, outputs); err != nil {
			return nil, err
		}
	}
	return outputs, checkOutputs(ctx, s, outputs)
}

// join replaces streams by their text.
func join(ctx context.Context, s *stage, outputs *value.Dict) error {
	for name, v := range outputs.All() {
		source := streamOf(v, s)
		if source == nil {
			continue
		}
		text, err := source.join(ctx)
		if err != nil {
			return err
		}
		outputs.Set(name, text)
	}
	return nil
}

// checkOutputs refuses what JSON cannot carry.
func checkOutputs(ctx context.Context, s *stage, outputs *value.Dict) error {
	for name, v := range outputs.All() {
		if streamOf(v, s) != nil {
			continue
		}
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

package run

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/flow"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// Run runs a submission: one line and the aggregation over it, or a batch. The error is that of the submission itself (not an
// object, an empty batch); a flow that fails is a result.
func (x *Executor) Run(ctx context.Context, request *api.RunRequest) (*api.RunResult, error) {
	return x.Follow(ctx, request, nil)
}

// Follow is Run with somebody who watches; the outputs of a single line stream then. A nil watcher is nobody.
func (x *Executor) Follow(ctx context.Context, request *api.RunRequest, watcher Watcher) (*api.RunResult, error) {
	began := time.Now()
	result := &api.RunResult{RunID: request.RunID, Flow: request.Flow, FlowRuns: []api.FlowRunInfo{}, NodeRuns: []api.NodeRunInfo{}}
	if result.RunID == "" {
		result.RunID = uuid.NewString()
	}
	run := x.runOne
	switch {
	case x.single != nil:
		run = x.runNode
	case request.Lines != nil:
		run = x.runBatch
	}
	if err := run(ctx, request, result, watcher); err != nil {
		return nil, err
	}
	result.Duration = time.Since(began).Seconds()
	return result, nil
}

func invalidRequest(format string, args ...any) *api.Error {
	return api.NewError([]string{api.UserError, "ValidationError", "InvalidRequest"}, flow.TargetExecutor, format, args...)
}

// decodeInputs reads a line's inputs, which must be an object.
func decodeInputs(data json.RawMessage, what string) (*value.Dict, error) {
	if len(data) == 0 {
		return value.NewDict(), nil
	}
	v, err := value.Decode(data)
	if err != nil {
		return nil, invalidRequest("The %s are not valid JSON: %v. Please send a JSON object of input names and values.", what, err)
	}
	switch v := v.(type) {
	case *value.Dict:
		return v, nil
	case nil:
		return value.NewDict(), nil
	default:
		return nil, invalidRequest("The %s are not a JSON object but %s. Please send an object of input names and values.", what, value.TypeName(v))
	}
}

// runOne runs one line as prompt flow's flow test does: it is line 0, and the aggregation runs over it when an aggregation node
// refers to a node of the line.
func (x *Executor) runOne(ctx context.Context, request *api.RunRequest, result *api.RunResult, watcher Watcher) error {
	inputs, err := decodeInputs(request.Inputs, "inputs")
	if err != nil {
		return err
	}
	number := 0
	at := place{runID: result.RunID, number: &number, bounds: x.bounds(request, 0), streaming: whole, watcher: watcher}
	if watcher != nil {
		at.streaming = pieces
	}
	line := x.line(ctx, at, inputs)
	defer line.session.release()
	result.Status, result.Error = line.Info.Status, line.Info.Error
	result.Metrics = json.RawMessage("{}")
	result.NodeRuns = line.Nodes
	if line.Completed() && len(line.given) > 0 {
		x.aggregateOne(ctx, at, inputs, line, result)
	}
	result.Output = line.Info.Output
	if value.HasMedia(line.Output) {
		result.Output = value.Encode(x.media.Format.Portable(line.Output))
	}
	result.FlowRuns = []api.FlowRunInfo{line.Info}
	return nil
}

func (x *Executor) aggregateOne(ctx context.Context, at place, inputs *value.Dict, line *Line, result *api.RunResult) {
	lists := value.NewDictSize(inputs.Len())
	for name, v := range inputs.All() {
		lists.Set(name, []any{v})
	}
	a, err := x.aggregate(ctx, at, lists, []*Line{line})
	if err != nil {
		result.Error, result.Status = asError(ctx, err), api.StatusFailed
	}
	result.NodeRuns = append(result.NodeRuns, a.nodes...)
	result.Metrics = value.Encode(a.metrics)
	line.Info.Metrics = result.Metrics
}

// runBatch runs many lines and the aggregation over those that completed. A batch completes even when lines fail.
func (x *Executor) runBatch(ctx context.Context, request *api.RunRequest, result *api.RunResult, watcher Watcher) error {
	if len(request.Inputs) > 0 {
		return invalidRequest("The submission has both 'inputs' and 'lines'. Please send one of them.")
	}
	inputs, err := x.batchInputs(request.Lines)
	if err != nil {
		return err
	}
	at := place{runID: result.RunID, batch: true, bounds: x.bounds(request, DefaultBatchLineTimeout), watcher: watcher}
	lines := x.runLines(ctx, at, inputs)
	defer func() {
		for _, l := range lines {
			l.session.release()
		}
	}()
	x.collect(lines, result)
	result.Metrics = json.RawMessage("{}")
	if err := cause(ctx); err != nil {
		result.Status, result.Error = api.StatusCanceled, asError(ctx, err)
		return nil
	}
	switch {
	case len(x.reduce) > 0:
		x.aggregateBatch(ctx, at, inputs, lines, result)
	case x.script != nil && x.script.Aggregates:
		x.aggregateScript(ctx, lines, result)
	}
	return nil
}

func (x *Executor) batchInputs(lines []json.RawMessage) ([]*value.Dict, error) {
	if len(x.flow.Inputs) == 0 && x.flow.Form == flow.DAG {
		return nil, flow.Fail(flow.InputNotFound, flow.TargetExecutor, "The input for flow cannot be empty in batch mode. Please review your flow and provide valid inputs.")
	}
	if len(lines) == 0 {
		return nil, api.NewError([]string{api.UserError, "EmptyInputsData"}, "Batch",
			"Couldn't find any inputs data at the given input paths. Please review the provided path and consider resubmitting.")
	}
	inputs := make([]*value.Dict, len(lines))
	for i, line := range lines {
		d, err := decodeInputs(line, fmt.Sprintf("inputs of line %d", i))
		if err != nil {
			return nil, err
		}
		inputs[i] = d
		if x.flow.Form == flow.DAG {
			inputs[i] = x.flow.WithDefaults(d)
		}
	}
	return inputs, nil
}

// runLines runs the lines, some at a time. It returns when all have ended.
func (x *Executor) runLines(ctx context.Context, at place, inputs []*value.Dict) []*Line {
	lines := make([]*Line, len(inputs))
	next := make(chan int)
	var wg sync.WaitGroup
	for range min(x.config.Lines, len(inputs)) {
		wg.Go(func() {
			for i := range next {
				at := at
				at.number = &i
				lines[i] = x.line(ctx, at, inputs[i])
				if !x.needsSession(lines[i], len(inputs)) {
					lines[i].session.release()
				}
				if at.watcher != nil {
					at.watcher.Line(lines[i].Info, lines[i].Output)
				}
			}
		})
	}
	for i := range inputs {
		next <- i
	}
	close(next)
	wg.Wait()
	return lines
}

// needsSession reports whether the aggregation may use the objects of a line; of many lines it takes their JSON.
func (x *Executor) needsSession(l *Line, lines int) bool {
	return lines == 1 && len(l.given) > 0
}

func (x *Executor) collect(lines []*Line, result *api.RunResult) {
	result.Status = api.StatusCompleted
	result.Outputs = []json.RawMessage{}
	for i, l := range lines {
		result.FlowRuns = append(result.FlowRuns, l.Info)
		result.NodeRuns = append(result.NodeRuns, l.Nodes...)
		if !l.Completed() {
			continue
		}
		out := value.NewDictSize(l.Output.Len() + 1)
		out.Set("line_number", int64(i))
		for name, v := range l.Output.All() {
			out.Set(name, v)
		}
		result.Outputs = append(result.Outputs, value.Encode(x.media.Format.Portable(out)))
	}
}

func (x *Executor) aggregateBatch(ctx context.Context, at place, inputs []*value.Dict, lines []*Line, result *api.RunResult) {
	var completed []*Line
	lists := value.NewDict()
	for _, in := range x.flow.Inputs {
		lists.Set(in.Name, []any{})
	}
	for i, l := range lines {
		if !l.Completed() {
			continue
		}
		completed = append(completed, l)
		for _, in := range x.flow.Inputs {
			list, _ := lists.Get(in.Name)
			v, _ := inputs[i].Get(in.Name)
			lists.Set(in.Name, append(list.([]any), v))
		}
	}
	a, err := x.aggregate(ctx, at, lists, completed)
	if err != nil {
		result.Error, result.Status = asError(ctx, err), api.StatusFailed
	}
	result.NodeRuns = append(result.NodeRuns, a.nodes...)
	result.Metrics = value.Encode(a.metrics)
}

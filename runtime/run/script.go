package run

import (
	"context"
	"encoding/json"
	"path/filepath"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/flow"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/worker"
)

// A script is a flow without nodes: a flex flow or a prompty file. Prompt flow's own executor runs it in a worker; here is what goes
// around it.

// scriptSpec says what workers load of a script. A file outside of the code's folder is named by its full path.
func scriptSpec(c Config, f *flow.Flow) *worker.ScriptSpec {
	s := &worker.ScriptSpec{File: f.File, Signature: !c.Serving, Init: c.Init}
	if f.Code != "" {
		s.File = filepath.Join(c.Dir, f.File)
	}
	return s
}

// prepareScript loads a script. Its inputs and outputs are then those that prompt flow learned of its file and code.
func (x *Executor) prepareScript(ctx context.Context) error {
	workers, err := x.python.flow(ctx)
	if err != nil {
		return err
	}
	x.script = workers.Script()
	learned := *x.flow
	if learned.Inputs, err = x.scriptInputs(); err != nil {
		return err
	}
	learned.Outputs = nil
	for _, o := range x.script.Outputs {
		out := &flow.Output{Name: o[0], Type: o[1]}
		if written := x.flow.Output(o[0]); written != nil {
			out = written
		}
		learned.Outputs = append(learned.Outputs, out)
	}
	x.flow = &learned
	return nil
}

func (x *Executor) scriptInputs() ([]*flow.Input, error) {
	inputs := make([]*flow.Input, 0, len(x.script.Inputs))
	for _, in := range x.script.Inputs {
		byDefault, err := value.Decode([]byte(in.Default))
		if err != nil {
			return nil, err
		}
		i := &flow.Input{Name: in.Name, Type: in.Type, Default: byDefault, IsChatInput: in.IsChatInput, IsChatHistory: in.IsChatHistory}
		if written := x.flow.Input(in.Name); written != nil {
			i.Place = written.Place
		}
		inputs = append(inputs, i)
	}
	return inputs, nil
}

// runScript runs one line of a script.
func (x *Executor) runScript(ctx context.Context, l *Line, at place, inputs *value.Dict) error {
	session, err := l.session.get(ctx)
	if err != nil {
		return err
	}
	r, err := session.Line(ctx, worker.Line{
		RunID: at.runID, Number: at.index(), Batch: at.batch, Inputs: inputs, Keep: at.batch && x.script != nil && x.script.Aggregates, Sample: x.takesSample(at),
		Stream: at.streaming == pieces,
	})
	if err != nil {
		return err
	}
	l.keep(r, inputs)
	if r.Error != nil {
		return r.Error
	}
	l.Output, l.Primitive = r.Output, r.Primitive
	return nil
}

// takesSample reports whether a prompty file's sample stands in for absent inputs, as it does in prompt flow's flow test.
func (x *Executor) takesSample(at place) bool {
	return x.flow.Form == flow.Prompty && !at.batch && !x.config.Serving
}

// keep takes the records of a script's line.
func (l *Line) keep(r *worker.LineResult, inputs *value.Dict) {
	l.script, l.metrics = r, r.SystemMetrics
	l.Info.Inputs = r.Inputs
	if r.Inputs == nil {
		l.Info.Inputs = value.Encode(inputs)
	}
	if r.Stdout != "" || r.Stderr != "" {
		l.Info.Logs = map[string]string{"stdout": r.Stdout, "stderr": r.Stderr}
	}
}

// aggregateScript runs a script's aggregation over the completed lines of a batch. As in prompt flow its failure leaves the batch
// completed, without metrics; here the result says why.
func (x *Executor) aggregateScript(ctx context.Context, lines []*Line, result *api.RunResult) {
	var outputs []*worker.LineResult
	for _, l := range lines {
		if l.Completed() {
			outputs = append(outputs, l.script)
		}
	}
	s := &session{python: x.python}
	defer s.release()
	metrics, err := x.aggregateOutputs(ctx, s, result.RunID, outputs)
	if err != nil {
		x.log.Warn("aggregation failed", "run", result.RunID, "error", err)
		result.Error = asError(ctx, err)
		return
	}
	result.Metrics = metrics
}

func (x *Executor) aggregateOutputs(ctx context.Context, s *session, runID string, outputs []*worker.LineResult) (json.RawMessage, error) {
	leased, err := s.get(ctx)
	if err != nil {
		return nil, err
	}
	return leased.Aggregate(ctx, runID, outputs)
}

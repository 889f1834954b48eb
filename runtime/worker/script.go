package worker

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// ScriptSpec says which flow without nodes to load: a flex flow or a prompty file. Prompt flow's own executors for them run in
// the workers.
type ScriptSpec struct {
	File string `json:"file"` // relative to the flow's folder
	// Signature completes what the YAML of a flex flow does not say of its inputs and init from the code, so that values are
	// converted by it. Prompt flow does so for tests and batches, and not when it serves.
	Signature bool `json:"signature"`
	// Init are the arguments of a flex flow's class, or what overrides a prompty file's front matter. Nil means none.
	Init *value.Dict `json:"-"`
}

func (s *ScriptSpec) init() []byte {
	if s.Init == nil {
		return []byte("{}")
	}
	return value.Encode(s.Init)
}

// Script is what prompt flow learned of a flow without nodes.
type Script struct {
	Async      bool          `json:"async"`
	Aggregates bool          `json:"aggregates"` // it has an __aggregate__
	Inputs     []ScriptInput `json:"inputs"`
	Outputs    [][2]string   `json:"outputs"` // names and types
}

// ScriptInput is an input of a script, as its YAML and its code say it.
type ScriptInput struct {
	Name          string `json:"name"`
	Type          string `json:"type"`
	Default       string `json:"default"` // JSON
	IsChatInput   bool   `json:"is_chat_input"`
	IsChatHistory bool   `json:"is_chat_history"`
}

// Line is one run of a script.
type Line struct {
	RunID  string // of the flow run
	Number int    // -1: none
	Batch  bool   // it is one of a batch
	Inputs *value.Dict
	// Sample takes a prompty file's sample for inputs that are empty.
	Sample bool
	// Stream leaves streams in the output as references; they live as long as the session. Otherwise they are read to their end.
	Stream bool
	// Keep asks for what the aggregation needs of the output beside its JSON.
	Keep bool
}

// LineResult is a line that ended. Error is nil for a completed one.
type LineResult struct {
	Output *value.Dict // values are plain data, or a *value.Ref of a stream
	// Primitive says that the script did not return an object but one value, which Output has as "output".
	Primitive     bool
	Error         *api.Error
	Inputs        json.RawMessage // as run records show them; nil when the line did not begin
	Stdout        string          // with prompt flow's timestamp before every write
	Stderr        string
	APICalls      json.RawMessage
	SystemMetrics json.RawMessage // duration and token counts; nil when the line did not begin
	Started       time.Time
	Duration      time.Duration

	pickle []byte // of an output that JSON changes
}

// Line runs a line of a script. What the script raises is in LineResult.Error, and so is a crash of the worker or a cancelled
// context, for which Line returns at once while the worker is asked to stop.
func (s *Session) Line(ctx context.Context, line Line) (*LineResult, error) {
	if s.flow.script == nil {
		return nil, fmt.Errorf("run line of flow %s: it is no script", s.flow.spec.ID)
	}
	head := map[string]any{"op": "line", "session": s.id, "run_id": line.RunID, "line": nil, "batch": line.Batch, "stream": line.Stream, "keep": line.Keep, "sample": line.Sample}
	doing := "the flow"
	if line.Number >= 0 {
		head["line"] = line.Number
		doing = fmt.Sprintf("line %d", line.Number)
	}
	inputs := line.Inputs
	if inputs == nil {
		inputs = value.NewDict()
	}
	result := &LineResult{Started: time.Now()}
	r, err := s.roundTrip(ctx, head, part{"inputs", value.Encode(inputs)})
	if err != nil {
		result.Duration = time.Since(result.Started)
		result.Error = asFailure(err, doing)
		return result, nil
	}
	result.fill(r)
	return result, nil
}

func (result *LineResult) fill(r *reply) {
	result.Stdout, result.Stderr = r.Stdout, r.Stderr
	result.Started = time.UnixMicro(int64(r.Started * 1e6))
	result.Duration = time.Duration(r.Duration * float64(time.Second))
	result.Inputs, result.SystemMetrics = r.parts["inputs"], r.parts["system_metrics"]
	result.APICalls = r.parts["api_calls"]
	if result.APICalls == nil {
		result.APICalls = json.RawMessage("[]")
	}
	if r.Error != nil {
		result.Error = finish(r.Error)
		return
	}
	var err error
	if result.Output, err = value.DecodeDict(r.parts["value"]); err != nil {
		result.Error = asFailure(err, "read result")
		return
	}
	for name, ref := range r.Streams {
		result.Output.Set(name, ref.ref())
	}
	result.Primitive, result.pickle = r.Primitive, r.parts["pickle"]
}

// Aggregate runs a script's __aggregate__ over the outputs of completed lines and returns the metrics, an object. The error of
// the function is an *api.Error.
func (s *Session) Aggregate(ctx context.Context, runID string, lines []*LineResult) (json.RawMessage, error) {
	outputs, primitive := make([]any, len(lines)), make([]bool, len(lines))
	var pickles []part
	for i, l := range lines {
		outputs[i], primitive[i] = l.Output, l.Primitive
		if l.pickle != nil {
			outputs[i] = nil
			pickles = append(pickles, part{"pickle " + strconv.Itoa(i), l.pickle})
		}
	}
	head := map[string]any{"op": "aggregate", "session": s.id, "run_id": runID, "primitive": primitive}
	r, err := s.roundTrip(ctx, head, append(pickles, part{"outputs", value.Encode(outputs)})...)
	if err == nil && r.Error != nil {
		return nil, finish(r.Error)
	}
	if err != nil {
		return nil, asFailure(err, "the aggregation")
	}
	return r.parts["metrics"], nil
}

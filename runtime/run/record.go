package run

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/google/uuid"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/flow"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/media"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

const timeFormat = "2006-01-02T15:04:05.000000Z07:00"

// messageFormat is the flow's message format as its records show it.
func (x *Executor) messageFormat() string {
	if x.flow.MessageFormat.Name == "" {
		return string(media.Basic)
	}
	return x.flow.MessageFormat.Name
}

func stamp(t time.Time) string { return t.UTC().Format(timeFormat) }

// null is what stands in a record for what there is not.
var null = json.RawMessage("null")

// record is a node's run.
type record struct {
	node      *flow.Node
	info      api.NodeRunInfo
	metrics   *value.Dict // logged by the tool
	tokens    *value.Dict
	duration  time.Duration
	unstarted bool
}

func (s *stage) newRecord(n *flow.Node) *record {
	now := stamp(time.Now())
	return &record{node: n, info: api.NodeRunInfo{
		Node: n.Name, FlowRunID: s.runID, ParentRunID: s.parentRunID, RunID: s.nodeRunID(n), Status: api.StatusRunning, Index: s.number,
		Inputs: null, Output: null, Result: null, Metrics: null, APICalls: null, SystemMetrics: null,
		StartTime: now, EndTime: now, MessageFormat: s.x.messageFormat(),
	}}
}

// nodeRunID is prompt flow's: by line, "reduce" for aggregation, and random for a run that is no line.
func (s *stage) nodeRunID(n *flow.Node) string {
	id := s.runID + "_" + n.Name + "_"
	switch {
	case n.Aggregation:
		return id + "reduce"
	case s.number == nil:
		return id + uuid.NewString()
	default:
		return id + value.Str(int64(*s.number))
	}
}

func (s *stage) bypassedRecord(n *flow.Node) *record {
	r := s.newRecord(n)
	r.info.Status = api.StatusBypassed
	r.info.APICalls = json.RawMessage("[]")
	return r
}

// complete fills the record of a node that ran.
func (r *record) complete(ctx context.Context, o outcome) {
	r.unstarted = o.unstarted
	if o.started.IsZero() {
		o.started = time.Now()
	}
	r.info.StartTime, r.info.EndTime = stamp(o.started), stamp(o.started.Add(o.duration))
	r.info.Logs = map[string]string{"stdout": o.stdout, "stderr": o.stderr}
	if o.inputs != nil {
		r.info.Inputs = o.inputs
	}
	r.info.APICalls = o.apiCalls
	if o.apiCalls == nil {
		r.info.APICalls = json.RawMessage("[]")
	}
	r.duration = o.duration
	r.count(o.systemMetrics)
	if len(o.metrics) > 0 {
		r.metrics, _ = value.DecodeDict(o.metrics) // made by our worker
	}
	r.info.Status = api.StatusCompleted
	if o.err != nil {
		r.fail(ctx, o.err)
		return
	}
	if o.value != nil {
		r.info.Output = value.Encode(o.value)
		r.info.Result = r.info.Output
	}
}

// count sets the tokens that the node used; nil when they are not known.
func (r *record) count(tokens *value.Dict) {
	r.tokens = tokens
	metrics := tokens.Clone()
	metrics.Set("duration", r.duration.Seconds())
	r.info.SystemMetrics = value.Encode(metrics)
}

func (r *record) fail(ctx context.Context, err *api.Error) {
	r.info.Status, r.info.Error = api.StatusFailed, err
	if err.Class() != "ToolCanceledError" {
		return
	}
	r.info.Status = api.StatusCanceled
	var t *lineTimeout
	if errors.As(context.Cause(ctx), &t) {
		r.info.Error = canceled("Line execution timeout after " + t.seconds() + " seconds")
	}
}

var tokenNames = []string{"prompt_tokens", "completion_tokens", "total_tokens"}

// lineMetrics sums the nodes' tokens, as prompt flow does for every line with a node that ran.
func lineMetrics(duration time.Duration, records []*record) json.RawMessage {
	metrics := value.NewDict()
	metrics.Set("duration", duration.Seconds())
	ran := false
	sums := make([]float64, len(tokenNames))
	for _, r := range records {
		if r.info.Status == api.StatusBypassed || r.unstarted {
			continue
		}
		ran = true
		for i, name := range tokenNames {
			v, _ := r.tokens.Get(name)
			if f, err := value.Float(v); err == nil {
				sums[i] += f
			}
		}
	}
	for i, name := range tokenNames {
		if ran {
			metrics.Set(name, int64(sums[i]))
		}
	}
	return value.Encode(metrics)
}

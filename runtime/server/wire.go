package server

import (
	"encoding/json"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// encodeResult writes a result as encoding/json does, but for values that are not finite: prompt flow's JSON has NaN and
// Infinity, and encoding/json refuses them.
func encodeResult(r *api.RunResult) []byte {
	o := object{}
	o.set("run_id", r.RunID)
	o.set("flow", r.Flow)
	o.set("status", r.Status)
	o.optional("output", r.Output)
	if r.Outputs != nil {
		o.raw("outputs", list(r.Outputs, func(v json.RawMessage) []byte { return v }))
	}
	o.optional("metrics", r.Metrics)
	if r.Error != nil {
		o.raw("error", encodeError(r.Error))
	}
	o.raw("flow_runs", list(r.FlowRuns, encodeFlowRun))
	o.raw("node_runs", list(r.NodeRuns, encodeNodeRun))
	o.set("duration", r.Duration)
	if r.Runtime != "" {
		o.set("runtime", r.Runtime)
	}
	if r.Instance != "" {
		o.set("instance", r.Instance)
	}
	return o.end()
}

// encodeFlowRun writes a line's record with all of prompt flow's fields (contracts/run_info.py, FlowRunInfo), also those that have
// nothing to say here.
func encodeFlowRun(r api.FlowRunInfo) []byte {
	o := object{}
	o.set("run_id", r.RunID)
	o.set("status", r.Status)
	o.raw("error", encodeError(r.Error))
	o.raw("inputs", r.Inputs)
	o.raw("output", r.Output)
	o.raw("metrics", r.Metrics)
	o.set("request", nil)
	o.set("parent_run_id", r.ParentRunID)
	o.set("root_run_id", r.RootRunID)
	o.set("source_run_id", nil)
	o.set("flow_id", r.FlowID)
	o.set("start_time", r.StartTime)
	o.set("end_time", r.EndTime)
	o.set("index", index(r.Index))
	o.set("api_calls", nil) // they are the nodes'
	o.set("name", r.Name)
	o.set("description", "")
	o.set("tags", nil)
	o.raw("system_metrics", r.SystemMetrics)
	o.raw("result", r.Result)
	o.set("upload_metrics", false)
	o.set("otel_trace_id", "")
	o.set("message_format", r.MessageFormat)
	o.optional("logs", encodeLogs(r.Logs))
	return o.end()
}

func encodeNodeRun(r api.NodeRunInfo) []byte {
	o := object{}
	o.set("node", r.Node)
	o.set("flow_run_id", r.FlowRunID)
	o.set("run_id", r.RunID)
	o.set("status", r.Status)
	o.raw("inputs", r.Inputs)
	o.raw("output", r.Output)
	o.raw("metrics", r.Metrics)
	o.raw("error", encodeError(r.Error))
	o.set("parent_run_id", r.ParentRunID)
	o.set("start_time", r.StartTime)
	o.set("end_time", r.EndTime)
	o.set("index", index(r.Index))
	o.raw("api_calls", r.APICalls)
	o.set("cached_run_id", nil)
	o.set("cached_flow_run_id", nil)
	o.raw("logs", encodeLogs(r.Logs))
	o.raw("system_metrics", r.SystemMetrics)
	o.raw("result", r.Result)
	o.set("message_format", r.MessageFormat)
	return o.end()
}

func index(i *int) any {
	if i == nil {
		return nil
	}
	return int64(*i)
}

func encodeLogs(logs map[string]string) []byte {
	if logs == nil {
		return nil
	}
	o := object{}
	o.set("stdout", logs["stdout"])
	o.set("stderr", logs["stderr"])
	return o.end()
}

// encodeError writes an error; details that encoding/json refuses are left out.
func encodeError(e *api.Error) []byte {
	if e == nil {
		return nil
	}
	data, err := json.Marshal(e)
	if err != nil {
		plain := *e
		plain.DebugInfo, plain.AdditionalInfo = nil, nil
		data, _ = json.Marshal(&plain)
	}
	return data
}

// object writes a JSON object field by field.
type object struct{ b []byte }

func (o *object) key(name string) {
	if len(o.b) == 0 {
		o.b = append(o.b, '{')
	} else {
		o.b = append(o.b, ',')
	}
	o.b = append(value.Append(o.b, name), ':')
}

func (o *object) set(name string, v any) {
	o.key(name)
	o.b = value.Append(o.b, v)
}

// raw writes a document; none is null.
func (o *object) raw(name string, document []byte) {
	o.key(name)
	if len(document) == 0 {
		document = []byte("null")
	}
	o.b = append(o.b, document...)
}

func (o *object) optional(name string, document []byte) {
	if len(document) > 0 {
		o.raw(name, document)
	}
}

func (o *object) end() []byte { return append(o.b, '}') }

func list[T any](items []T, encode func(T) []byte) []byte {
	b := []byte{'['}
	for i, item := range items {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, encode(item)...)
	}
	return append(b, ']')
}

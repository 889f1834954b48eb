package api

import (
	"encoding/json"
	"fmt"
)

// The statuses of a flow run and of a node run (prompt flow's).
const (
	StatusRunning   = "Running"
	StatusCompleted = "Completed"
	StatusFailed    = "Failed"
	StatusBypassed  = "Bypassed"
	StatusCanceled  = "Canceled"
)

// RunRequest is a submission: POST /v1/runs on a runtime, POST /v1/runtimes/{name}/runs on a gateway. Exactly one of
// Inputs (one line, and the aggregation over it) and Lines (a batch: many lines, then the aggregation) is used; both absent
// means no inputs. Values are raw JSON, so that key order and number spelling reach the flow; NaN and
// Infinity are accepted inside, as prompt flow does.
type RunRequest struct {
	Flow                 string            `json:"flow"` // bundle digest, "sha256:…"
	RunID                string            `json:"run_id,omitempty"`
	Inputs               json.RawMessage   `json:"inputs,omitempty"` // object
	Lines                []json.RawMessage `json:"lines,omitempty"`  // objects
	EnvironmentVariables map[string]string `json:"environment_variables,omitempty"`
	// Node is the one node to run, with the flow inputs in Inputs and, in NodeOutputs, an object of the outputs of the nodes that it refers
	// to. Its condition does not count.
	Node        string          `json:"node,omitempty"`
	NodeOutputs json.RawMessage `json:"dependency_nodes_outputs,omitempty"`
	// FlowFile is the path, inside of the bundle, of the flow's YAML or prompty file; empty: the one there is.
	FlowFile string `json:"flow_file,omitempty"`
	// Variant is "${node.variant}": the variant of one node that is run instead of its default.
	Variant string `json:"variant,omitempty"`
	// Init are the arguments of a flex flow's class, or what overrides a prompty file's front matter. An object.
	Init json.RawMessage `json:"init,omitempty"`
	// The seconds after which a line or a node is stopped and fails; 0: the runtime's own bounds, which these cannot lift.
	LineTimeout float64 `json:"line_timeout_sec,omitempty"`
	NodeTimeout float64 `json:"node_timeout_sec,omitempty"`
}

// RunResult is the answer to a submission that ran, also when the flow failed (Status says so). Output is an object (null for
// a failed run), or whatever a single node gave; for a batch Outputs holds one object per completed line, with its line_number.
type RunResult struct {
	RunID    string            `json:"run_id"`
	Flow     string            `json:"flow"`
	Status   string            `json:"status"`
	Output   json.RawMessage   `json:"output,omitempty"`
	Outputs  []json.RawMessage `json:"outputs,omitempty"`
	Metrics  json.RawMessage   `json:"metrics,omitempty"` // object
	Error    *Error            `json:"error,omitempty"`
	FlowRuns []FlowRunInfo     `json:"flow_runs"` // one per line
	NodeRuns []NodeRunInfo     `json:"node_runs"` // of all lines, then of the aggregation
	Duration float64           `json:"duration"`  // seconds, as measured in the runtime
	Runtime  string            `json:"runtime,omitempty"`
	Instance string            `json:"instance,omitempty"`
}

// FlowRunInfo is the record of one line, with prompt flow's field names (contracts/run_info.py, FlowRunInfo).
type FlowRunInfo struct {
	RunID         string          `json:"run_id"`
	Status        string          `json:"status"`
	Error         *Error          `json:"error"`
	Inputs        json.RawMessage `json:"inputs"`
	Output        json.RawMessage `json:"output"`
	Metrics       json.RawMessage `json:"metrics"`
	ParentRunID   string          `json:"parent_run_id"`
	RootRunID     string          `json:"root_run_id"`
	FlowID        string          `json:"flow_id"`
	StartTime     string          `json:"start_time"` // UTC, RFC 3339 with microseconds
	EndTime       string          `json:"end_time"`
	Index         *int            `json:"index"`
	Name          string          `json:"name"`
	SystemMetrics json.RawMessage `json:"system_metrics"` // {"duration": seconds, "prompt_tokens": n, …}
	Result        json.RawMessage `json:"result"`
	MessageFormat string          `json:"message_format"`
	// Logs holds "stdout" and "stderr" of a flow without nodes; prompt flow shows them in its own log only.
	Logs map[string]string `json:"logs,omitempty"`
}

// NodeRunInfo is the record of one node's run, with prompt flow's field names (contracts/run_info.py, RunInfo).
type NodeRunInfo struct {
	Node          string            `json:"node"`
	FlowRunID     string            `json:"flow_run_id"`
	RunID         string            `json:"run_id"`
	Status        string            `json:"status"`
	Inputs        json.RawMessage   `json:"inputs"`
	Output        json.RawMessage   `json:"output"`
	Metrics       json.RawMessage   `json:"metrics"`
	Error         *Error            `json:"error"`
	ParentRunID   string            `json:"parent_run_id"`
	StartTime     string            `json:"start_time"`
	EndTime       string            `json:"end_time"`
	Index         *int              `json:"index"`
	APICalls      json.RawMessage   `json:"api_calls"`
	Logs          map[string]string `json:"logs"` // "stdout", "stderr"
	SystemMetrics json.RawMessage   `json:"system_metrics"`
	Result        json.RawMessage   `json:"result"`
	MessageFormat string            `json:"message_format"`
}

// encode writes the request as it goes over the wire. Inputs, Lines and Init go as they are, since encoding/json refuses the NaN and
// Infinity that they may hold.
func (r RunRequest) encode() ([]byte, error) {
	inputs, lines, initial, outputs := r.Inputs, r.Lines, r.Init, r.NodeOutputs
	r.Inputs, r.Lines, r.Init, r.NodeOutputs = nil, nil, nil, nil
	out, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	out = out[:len(out)-1] // the flow is always there, so that a comma is right
	if inputs != nil {
		if err := CheckJSON(inputs); err != nil {
			return nil, fmt.Errorf("the inputs are not valid JSON: %w", err)
		}
		out = append(append(out, `,"inputs":`...), inputs...)
	}
	if outputs != nil {
		if err := CheckJSON(outputs); err != nil {
			return nil, fmt.Errorf("the outputs of nodes are not valid JSON: %w", err)
		}
		out = append(append(out, `,"dependency_nodes_outputs":`...), outputs...)
	}
	if initial != nil {
		if err := CheckJSON(initial); err != nil {
			return nil, fmt.Errorf("the init values are not valid JSON: %w", err)
		}
		out = append(append(out, `,"init":`...), initial...)
	}
	for i, line := range lines {
		if err := CheckJSON(line); err != nil {
			return nil, fmt.Errorf("line %d is not valid JSON: %w", i, err)
		}
		out = append(append(out, [...]string{`,"lines":[`, ","}[min(i, 1)]...), line...)
	}
	if len(lines) > 0 {
		out = append(out, ']')
	}
	return append(out, '}'), nil
}

package api

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
)

// The severities of a problem: an error keeps the flow, or what it is meant to do, from running; a warning does not.
const (
	SeverityError   = "error"
	SeverityWarning = "warning"
)

// The results of a validation (prompt flow's).
const (
	ResultSucceeded = "Succeeded"
	ResultFailed    = "Failed"
)

// ValidateRequest asks for the validation of a flow: POST /v1/validate on a runtime, POST /v1/runtimes/{name}/validate on a gateway.
// The flow is the bundle Flow, or that bundle with Files put in the place of its own, or Files alone.
type ValidateRequest struct {
	Flow                 string            `json:"flow,omitempty"` // bundle digest, "sha256:…"
	Files                []File            `json:"files,omitempty"`
	EnvironmentVariables map[string]string `json:"environment_variables,omitempty"`
	// FlowFile is the path, inside of the bundle, of the flow's YAML or prompty file; empty: the one there is.
	FlowFile string `json:"flow_file,omitempty"`
	// Tools asks for the metadata of the flow's tools too.
	Tools bool `json:"tools,omitempty"`
}

// File is a file of a flow folder. Path has forward slashes and is relative to the folder.
type File struct {
	Path    string `json:"path"`
	Content []byte `json:"content,omitempty"` // base64 on the wire
	Removed bool   `json:"removed,omitempty"` // there is no such file any more
}

// Validation is everything that was found. Result is Failed when a problem is an error.
type Validation struct {
	Flow     string    `json:"flow,omitempty"`
	Result   string    `json:"result"`
	Problems []Problem `json:"problems"` // by file, line and column
	// Unchecked says what could not be checked, and why; empty when everything was.
	Unchecked []string `json:"unchecked,omitempty"`
	// Tools is the metadata of the flow's tools, in the shape of prompt flow's flow.tools.json.
	Tools json.RawMessage `json:"tools,omitempty"`
	// ToolErrors says why sources are not among the tools.
	ToolErrors map[string]*Error `json:"tool_errors,omitempty"`
	// Reused counts the Python tools and templates whose last check still held, Checked those that were checked anew.
	Reused   int     `json:"reused"`
	Checked  int     `json:"checked"`
	Duration float64 `json:"duration"` // seconds, as measured in the runtime
	Runtime  string  `json:"runtime,omitempty"`
	Instance string  `json:"instance,omitempty"`
}

// Problem is one finding.
type Problem struct {
	Severity string `json:"severity"`
	// Code is prompt flow's error class where it would fail with one, else a name of our own; Codes is the class's chain.
	Code    string   `json:"code"`
	Codes   []string `json:"codes,omitempty"`
	Message string   `json:"message"`
	Mend    string   `json:"mend"` // what to do
	Location
	Text    string `json:"text,omitempty"`    // of the line
	Node    string `json:"node,omitempty"`    // the node that it is about
	Variant string `json:"variant,omitempty"` // of that node
}

// Failed reports whether the flow is wrong; strict counts warnings too.
func (v *Validation) Failed(strict bool) bool {
	return v.Count(SeverityError) > 0 || strict && len(v.Problems) > 0
}

// Count counts the problems of a severity.
func (v *Validation) Count(severity string) int {
	n := 0
	for _, p := range v.Problems {
		if p.Severity == severity {
			n++
		}
	}
	return n
}

// Validate asks a runtime directly (runtime empty), or the named runtime of a gateway. What is wrong with the flow is in the
// validation; the error is for what kept it from being checked.
func (c *Client) Validate(ctx context.Context, runtime string, request ValidateRequest) (*Validation, error) {
	body, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	path := "/v1/validate"
	if runtime != "" {
		path = "/v1/runtimes/" + url.PathEscape(runtime) + "/validate"
	}
	var v Validation
	if err := c.do(ctx, http.MethodPost, path, bytes.NewReader(body), "application/json", &v); err != nil {
		return nil, err
	}
	return &v, nil
}

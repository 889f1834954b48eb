// Package flows holds example flows of our own, in prompt flow's format, and what they give.
//
// Each runs unchanged on this project and on prompt flow's own tools; the test of this package runs them on prompt flow's own
// executor.
package flows

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nomad-promptflow/nomad-promptflow/e2e/harness"
)

// The example flows.
const (
	TicketTriage = "ticket-triage"
	ChatSupport  = "chat-support"
)

// Dir returns an example flow's folder.
func Dir(t testing.TB, name string) string {
	t.Helper()
	return filepath.Join(harness.Root(t), "e2e", "flows", name)
}

// UpstreamResult is what prompt flow's own executor makes of a flow: outputs, node statuses and errors by line, and metrics.
type UpstreamResult struct {
	Outputs  []map[string]any    `json:"outputs"`
	Statuses []map[string]string `json:"statuses"`
	Errors   []any               `json:"errors"`
	Metrics  map[string]float64  `json:"metrics"`
}

// RunUpstream runs a flow over a JSONL file on prompt flow's own executor. Connections are in its JSON form.
func RunUpstream(t testing.TB, flow, data, connections string) UpstreamResult {
	t.Helper()
	script := filepath.Join(harness.Root(t), "e2e", "flows", "testdata", "upstream.py")
	cmd := exec.CommandContext(t.Context(), harness.Python(t), script, Dir(t, flow), data)
	cmd.Stdin = strings.NewReader(connections)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("run %s on prompt flow's executor: %v\n%s", flow, err, stderr.String())
	}
	var r UpstreamResult
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("read the result of prompt flow's executor: %v", err)
	}
	for i, e := range r.Errors {
		if e != nil {
			t.Fatalf("line %d failed on prompt flow's executor: %v", i, e)
		}
	}
	return r
}

package server

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/e2e/harness"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/run"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/worker"
)

// batches are flows of the runs' tests, with data for the batch engine and the inputs that it maps.
var batches = []struct{ flow, mapped, lines string }{
	{"grade", `["answer","weight"]`, `[{"answer":"yes","weight":"2"},{"answer":"no","weight":"heavy"},{"answer":"yes","weight":0.5}]`},
	{"failures", `["how"]`, `[{"how":"ok"},{"how":"raise"},{"how":"user"}]`},
	{"activate", `["n"]`, `[{"n":1},{"n":2},{"n":3}]`},
	{"broken_aggregation", `["a"]`, `[{"a":1},{"a":2}]`},
	{"images", `["picture","gallery"]`, `[{"picture":"R0lGODlh","gallery":[{"data:image/gif;base64":"R0lG"}]},{"picture":"dot.gif","gallery":[]},{"picture":"gone.png","gallery":[]}]`},
}

// serviceServer is a server with Python whose executor service is open.
func serviceServer(t *testing.T) *httptest.Server {
	t.Helper()
	manager, err := worker.Start(t.Context(), worker.Config{Python: harness.Python(t), Dir: t.TempDir(), Workers: 1})
	must.NoError(t, err)
	t.Cleanup(func() { test.NoError(t, manager.Close()) })
	s, h := newServer(t, "", func(c *Config) { c.ExecutorService = true })
	s.flows.setWorkers(run.FromManager(manager))
	t.Cleanup(s.batch.close)
	return h
}

// TestExecutorService_isDrivenByPromptFlowsBatchEngine runs batches with prompt flow's own batch engine, on its own executor and on
// ours: results, outputs, metrics, records and errors are the same.
func TestExecutorService_isDrivenByPromptFlowsBatchEngine(t *testing.T) {
	harness.Integration(t)
	t.Parallel()
	h := serviceServer(t)
	var document []any
	for _, b := range batches {
		folder := copyFlow(t, filepath.Join("..", "run", "testdata", "flows", b.flow))
		mapped, err := value.Decode([]byte(b.mapped))
		must.NoError(t, err)
		lines, err := value.Decode([]byte(b.lines))
		must.NoError(t, err)
		document = append(document, members("folder", folder, "mapped", mapped, "lines", lines))
	}
	cmd := exec.CommandContext(t.Context(), harness.Python(t), "testdata/batch_engine.py", h.URL)
	cmd.Stdin = bytes.NewReader(value.Encode(document))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	must.NoError(t, err, must.Sprint(stderr.String()))
	v, err := value.Decode(out)
	must.NoError(t, err)
	for i, answer := range v.([]any) {
		theirs, _ := answer.(*value.Dict).Get("theirs")
		ours, _ := answer.(*value.Dict).Get("ours")
		for _, d := range serviceDifferences("", theirs, ours) {
			test.Eq(t, "", d, test.Sprint(batches[i].flow, batches[i].lines))
		}
	}
}

// copyFlow copies a flow's folder: prompt flow leaves files in it.
func copyFlow(t *testing.T, from string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), filepath.Base(from))
	must.NoError(t, os.CopyFS(dir, os.DirFS(from)))
	return dir
}

// serviceDifferences goes through both results together, so that a difference names its place.
func serviceDifferences(path string, theirs, ours any) []string {
	a, aDict := theirs.(*value.Dict)
	b, bDict := ours.(*value.Dict)
	if aDict && bDict {
		var all []string
		for _, k := range a.Keys() {
			x, _ := a.Get(k)
			y, _ := b.Get(k)
			all = append(all, serviceDifferences(path+"."+k, x, y)...)
		}
		for _, k := range b.Keys() {
			if !a.Has(k) {
				all = append(all, path+"."+k+": prompt flow has none")
			}
		}
		return all
	}
	x, xList := theirs.([]any)
	y, yList := ours.([]any)
	if xList && yList && len(x) == len(y) {
		var all []string
		for i := range x {
			all = append(all, serviceDifferences(fmt.Sprintf("%s[%d]", path, i), x[i], y[i])...)
		}
		return all
	}
	if string(value.Encode(theirs)) == string(value.Encode(ours)) {
		return nil
	}
	return []string{path + ": prompt flow has " + value.Repr(theirs) + ", we have " + value.Repr(ours)}
}

func TestExecutorService_isClosedByDefault(t *testing.T) {
	t.Parallel()
	_, h := newServer(t, "", nil)
	for _, path := range []string{"/initialize", "/execution", "/aggregation", "/finalize", "/execution/flow", "/execution/node", "/execution/cancel"} {
		a := ask(t, h, "POST", path, "{}")
		test.Eq(t, http.StatusNotFound, a.status, test.Sprint(path))
		test.StrContains(t, a.body, "PROMPTFLOW_EXECUTOR_SERVICE=on")
	}
}

func TestExecutorService_refuses(t *testing.T) {
	t.Parallel()
	dir := flowFolder(t, echoFlow)
	_, h := newServer(t, "", func(c *Config) { c.ExecutorService = true })
	base := `"output_dir":"out","connections":null`
	for _, tc := range []struct {
		path, body string
		status     int
		class      string
	}{
		{"/execution", `{"run_id":"r","line_number":0,"inputs":{}}`, 500, "UninitializedError"},
		{"/aggregation", `{"run_id":"r","aggregation_inputs":{}}`, 500, "UninitializedError"},
		{"/finalize", `{}`, 500, "UninitializedError"},
		{"/initialize", `{`, 400, "InvalidRequest"},
		{"/initialize", `{"working_dir":"/x"}`, 400, "InvalidRequest"},
		{"/initialize", `{"working_dir":"x","flow_file":"flow.dag.yaml",` + base + `}`, 400, "FlowFilePathInvalid"},
		{"/initialize", `{"working_dir":"/x","flow_file":"/flow.dag.yaml",` + base + `}`, 400, "FlowFilePathInvalid"},
		{"/initialize", `{"working_dir":"/x","flow_file":"../flow.dag.yaml",` + base + `}`, 400, "FlowFilePathInvalid"},
		{"/execution/flow", `{"working_dir":"` + dir + `","flow_file":"flow.dag.yaml",` + base + `}`, 400, "InvalidRequest"},
		{"/execution/node", `{"working_dir":"` + dir + `","flow_file":"flow.dag.yaml","run_id":"r","node_name":"z",` + base + `}`, 400, "SingleNodeValidationError"},
		{"/tool/retrieve_tool_func_result", `{}`, 501, "NotImplementedError"},
	} {
		a := ask(t, h, "POST", tc.path, tc.body)
		test.Eq(t, tc.status, a.status, test.Sprint(tc.path, a.body))
		test.Eq(t, tc.class, a.failure(t).Class(), test.Sprint(tc.path))
	}
	a := ask(t, h, "POST", "/execution", `{"run_id":"r","line_number":0,"inputs":{}}`)
	for _, field := range []string{`"correlation":null`, `"environment":null`, `"location":null`, `"componentName":"`, `"time":"`} {
		test.StrContains(t, a.body, field)
	}
}

func TestExecutorService_aBatchByHand(t *testing.T) {
	t.Parallel()
	dir := flowFolder(t, echoFlow)
	s, h := newServer(t, "", func(c *Config) { c.ExecutorService = true })
	initialize := `{"working_dir":"` + dir + `","flow_file":"flow.dag.yaml","output_dir":"out","connections":{"c":{"type":"OpenAIConnection","value":{"api_key":"k"}}},"environment_variables":{"A":"b"}}`
	a := ask(t, h, "POST", "/initialize", initialize)
	must.Eq(t, 200, a.status, must.Sprint(a.body))
	test.Eq(t, `{"inputs_definition":{"q":{"type":"object","default":null,"description":"","enum":[],"is_chat_input":false,"is_chat_history":null},`+
		`"n":{"type":"int","default":1,"description":"","enum":[],"is_chat_input":false,"is_chat_history":null}},"has_aggregation":false}`, a.body)
	test.Eq(t, 200, ask(t, h, "POST", "/initialize", initialize).status)
	left, err := os.ReadDir(s.flows.scratch)
	must.NoError(t, err)
	must.SliceLen(t, 1, left, must.Sprint("no connections are left on disk"))
	a = ask(t, h, "POST", "/execution", `{"run_id":"r","line_number":3,"inputs":{"q":[NaN]}}`)
	must.Eq(t, 200, a.status, must.Sprint(a.body))
	test.StrHasPrefix(t, `{"output":{"text":"n=1","q":[NaN],"secret":"n=1","line_number":3},"aggregation_inputs":{},"run_info":{"run_id":"r_3","status":"Completed",`, a.body)
	a = ask(t, h, "POST", "/execution", `{"run_id":"r","line_number":4,"inputs":{}}`)
	test.StrHasPrefix(t, `{"output":{},"aggregation_inputs":{},"run_info":{"run_id":"r_4","status":"Failed",`, a.body)
	a = ask(t, h, "POST", "/aggregation", `{"run_id":"r","batch_inputs":{"q":[1],"n":[1,2]},"aggregation_inputs":{}}`)
	test.Eq(t, "InvalidAggregationInput", a.failure(t).Class())
	a = ask(t, h, "POST", "/aggregation", `{"run_id":"r","batch_inputs":{"q":[1]},"aggregation_inputs":{}}`)
	test.Eq(t, `{"output":{},"metrics":{},"node_run_infos":{}}`, a.body)
	test.Eq(t, `{"status":"finalized"}`, ask(t, h, "POST", "/finalize", `{}`).body)
	test.Eq(t, "UninitializedError", ask(t, h, "POST", "/execution", `{"run_id":"r","line_number":3,"inputs":{}}`).failure(t).Class())

	a = ask(t, h, "POST", "/execution/flow", strings.TrimSuffix(initialize, "}")+`,"run_id":"f","inputs":{"q":1,"n":"5"}}`)
	test.StrHasPrefix(t, `{"output":{"text":"n=5","q":1,"secret":"n=5"},"aggregation_inputs":null,"run_info":{"run_id":"f_0",`, a.body)
	a = ask(t, h, "POST", "/execution/node", strings.TrimSuffix(initialize, "}")+`,"run_id":"f","node_name":"p","flow_inputs":{"n":"6"},"dependency_nodes_outputs":{}}`)
	test.StrHasPrefix(t, `{"node":"p",`, a.body)
	test.StrContains(t, a.body, `"output":"n=6"`)
	test.Eq(t, `{"status":"canceled"}`, ask(t, h, "POST", "/execution/cancel", `{"run_id":"gone"}`).body)
}

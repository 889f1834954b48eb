package server

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/api/bundle"
	"github.com/nomad-promptflow/nomad-promptflow/e2e/harness"
	"github.com/nomad-promptflow/nomad-promptflow/e2e/openai"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/run"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/worker"
)

// folderOf writes files into a folder of their own.
func folderOf(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		must.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		must.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	}
	return dir
}

// handIn packs a folder and hands it in.
func handIn(t *testing.T, h *httptest.Server, dir, file string) string {
	t.Helper()
	var body bytes.Buffer
	digest, _, err := bundle.PackWith(t.Context(), dir, bundle.Options{File: file}, &body)
	must.NoError(t, err)
	must.Eq(t, http.StatusCreated, ask(t, h, "PUT", "/v1/flows/"+digest, body.String()).status)
	return digest
}

func result(t *testing.T, a answer) *api.RunResult {
	t.Helper()
	must.Eq(t, http.StatusOK, a.status, must.Sprint(a.body))
	r := &api.RunResult{}
	must.NoError(t, json.Unmarshal([]byte(a.body), r), must.Sprint(a.body))
	return r
}

var counter = map[string]string{
	"flow.flex.yaml": "entry: counter:Counter\n",
	"counter.py": `class Counter:
    def __init__(self, start: int = 0):
        self.start = start

    def __call__(self, step: int):
        print("counting")
        if step < 0:
            raise ValueError("backwards")
        return self.start + step

    def __aggregate__(self, sums):
        return {"total": sum(sums)}
`,
}

// TestScripts runs flex flows and prompty files as a runtime with real workers does.
func TestScripts(t *testing.T) {
	harness.Integration(t)
	manager, err := worker.Start(t.Context(), worker.Config{Python: harness.Python(t), Dir: t.TempDir(), Workers: 1})
	must.NoError(t, err)
	t.Cleanup(func() { test.NoError(t, manager.Close()) })
	workers := run.FromManager(manager)

	t.Run("a served class answers with its value", func(t *testing.T) {
		s, h := newServer(t, "", func(c *Config) { c.Init = value.NewDict(); c.Init.Set("start", int64(40)) })
		s.flows.setWorkers(workers)
		s.served, err = s.flows.serve(t.Context(), folderOf(t, counter))
		must.NoError(t, err)
		test.Eq(t, "42", ask(t, h, "POST", "/score", `{"step": 2}`).body)
		a := ask(t, h, "POST", "/score", `{"step": -1}`)
		test.Eq(t, http.StatusBadRequest, a.status)
		test.Eq(t, `{"error":{"code":"UserError","message":"Execution failure in 'Counter.__call__': (ValueError) backwards"}}`, a.body)
		a = ask(t, h, "POST", "/score", `{}`)
		test.Eq(t, http.StatusBadRequest, a.status)
		test.StrContains(t, a.body, "Required input fields ['step'] are missing in request data {}")
		test.StrContains(t, ask(t, h, "POST", "/v1/runs", `{"init":{"start":1}}`).body, "Please send no init, or the digest of a flow.")
	})

	s, h := newServer(t, "", nil)
	s.flows.setWorkers(workers)
	t.Run("submissions say what the class is made with", func(t *testing.T) {
		digest := handIn(t, h, folderOf(t, counter), "")
		r := result(t, ask(t, h, "POST", "/v1/runs", `{"flow":"`+digest+`","inputs":{"step":"2"},"init":{"start":5}}`))
		test.Eq(t, `{"output":7}`, string(r.Output))
		test.Eq(t, api.StatusCompleted, r.Status)
		must.SliceLen(t, 1, r.FlowRuns)
		test.StrContains(t, r.FlowRuns[0].Logs["stdout"], "] counting\n")
		test.SliceEmpty(t, r.NodeRuns)
		r = result(t, ask(t, h, "POST", "/v1/runs", `{"flow":"`+digest+`","lines":[{"step":1},{"step":-1},{"step":3}]}`))
		test.Eq(t, `{"total":4}`, string(r.Metrics))
		must.SliceLen(t, 2, r.Outputs)
		test.Eq(t, `{"line_number":2,"output":3}`, string(r.Outputs[1]))
		test.Eq(t, "ScriptExecutionError", r.FlowRuns[1].Error.Class())
		a := ask(t, h, "POST", "/v1/runs", `{"flow":"`+digest+`","inputs":{"step":1},"init":{"begin":5}}`)
		test.Eq(t, http.StatusBadRequest, a.status)
		test.Eq(t, []string{"UserError", "FlowEntryInitializationError"}, a.failure(t).Chain())
	})
	t.Run("submissions name the file of the flow", func(t *testing.T) {
		_, url := openai.Start(t)
		prompty := "---\nmodel: {configuration: {type: openai, model: m, base_url: " + url + "/v1, api_key: " + openai.Key + "}, parameters: {}}\ninputs: {q: {type: string}}\n---\nuser:\n{{q}}\n"
		digest := handIn(t, h, folderOf(t, map[string]string{"flow.dag.yaml": "nodes: []\n", "a.prompty": prompty, "b.prompty": "---\n"}), "")
		r := result(t, ask(t, h, "POST", "/v1/runs", `{"flow":"`+digest+`","flow_file":"a.prompty","inputs":{"q":"hi"}}`))
		test.Eq(t, `{"output":"[1] user said: hi"}`, string(r.Output))
		a := ask(t, h, "POST", "/v1/runs", `{"flow":"`+digest+`","flow_file":"../a.prompty"}`)
		test.StrContains(t, a.failure(t).Message, "is outside of the flow folder")
	})
}

const variantFlow = `outputs: {o: {type: string, reference: "${p.output}"}}
nodes: [{name: p, use_variants: true}]
node_variants: {p: {default_variant_id: a, variants: {a: {node: {type: prompt, source: {type: code, path: a.jinja2}}}, b: {node: {type: prompt, source: {type: code, path: b.jinja2}}}}}}
`

func TestRuns_chooseAVariant(t *testing.T) {
	t.Parallel()
	_, h := newServer(t, "", nil)
	digest := handIn(t, h, folderOf(t, map[string]string{"flow.dag.yaml": variantFlow, "a.jinja2": "A", "b.jinja2": "B"}), "")
	for variant, want := range map[string]string{"": `{"o":"A"}`, "${p.b}": `{"o":"B"}`, "${p.a}": `{"o":"A"}`} {
		r := result(t, ask(t, h, "POST", "/v1/runs", `{"flow":"`+digest+`","variant":"`+variant+`"}`))
		test.Eq(t, want, string(r.Output), test.Sprint(variant))
	}
	a := ask(t, h, "POST", "/v1/runs", `{"flow":"`+digest+`","variant":"${p.c}"}`)
	test.Eq(t, http.StatusBadRequest, a.status)
	test.Eq(t, []string{"UserError", "SDKError", "InvalidFlowError"}, a.failure(t).Chain())
	test.Eq(t, "Variant c not found for node p", a.failure(t).Message)
}

func TestRuns_refuseFieldsOfTheWrongKind(t *testing.T) {
	t.Parallel()
	_, h := newServer(t, "", nil)
	for body, says := range map[string]string{
		`{"variant": 5}`:               "has a 'variant' of type int",
		`{"init": []}`:                 "has a 'init' of type list",
		`{"flow_file": {}}`:            "has a 'flow_file' of type dict",
		`{"line_timeout_sec": "5"}`:    "has a 'line_timeout_sec' of '5', which is no number of seconds",
		`{"node_timeout_sec": -1}`:     "has a 'node_timeout_sec' of -1",
		`{"node_timeout_sec": NaN}`:    "has a 'node_timeout_sec' of nan",
		`{"line_timeout_sec": 1e9}`:    "from 0 to 2592000",
		`{"environment_variables": 1}`: "has a 'environment_variables' of type int",
	} {
		a := ask(t, h, "POST", "/v1/runs", body)
		test.Eq(t, http.StatusBadRequest, a.status, test.Sprint(body))
		test.StrContains(t, a.failure(t).Message, says)
	}
}

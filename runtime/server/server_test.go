package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/shoenig/test"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/api/bundle"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/run"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/worker"
)

// noWorkers is a runtime without Python, which flows of simple prompts do not need.
type noWorkers struct{}

func (noWorkers) Open(context.Context, worker.FlowSpec) (run.FlowWorkers, error) {
	return nil, errors.New("no python in this test")
}

const echoFlow = `inputs:
  q: {type: object}
  n: {type: int, default: 1}
outputs:
  text: {type: string, reference: "${p.output}"}
  q: {type: object, reference: "${inputs.q}"}
  secret: {type: string, reference: "${p.output}", evaluation_only: true}
nodes:
- {name: p, type: prompt, source: {type: code, path: p.jinja2}, inputs: {n: "${inputs.n}"}}
`

func flowFolder(t *testing.T, yaml string) string {
	t.Helper()
	dir := t.TempDir()
	must.NoError(t, os.WriteFile(filepath.Join(dir, "flow.dag.yaml"), []byte(yaml), 0o600))
	must.NoError(t, os.WriteFile(filepath.Join(dir, "p.jinja2"), []byte("n={{ n }}"), 0o600))
	return dir
}

func packed(t *testing.T, yaml string) (digest string, body []byte) {
	t.Helper()
	var b bytes.Buffer
	digest, _, err := bundle.Pack(t.Context(), flowFolder(t, yaml), &b)
	must.NoError(t, err)
	return digest, b.Bytes()
}

// newServer is a ready server without Python, serving yaml when it is not empty.
func newServer(t *testing.T, yaml string, change func(*Config)) (*server, *httptest.Server) {
	t.Helper()
	c := Config{Data: t.TempDir(), Version: "1.2.3"}
	if change != nil {
		change(&c)
	}
	c = c.withDefaults()
	s := &server{config: c, log: hclog.NewNullLogger(), slots: make(chan struct{}, c.MaxConcurrency), why: "starting"}
	var err error
	s.trust, err = newTrust(c.Trust, s.log)
	must.NoError(t, err)
	s.flows, err = newFlows(c)
	must.NoError(t, err)
	s.flows.setWorkers(noWorkers{})
	s.measure()
	if yaml != "" {
		s.served, err = s.flows.serve(t.Context(), flowFolder(t, yaml))
		must.NoError(t, err)
	}
	s.ready.Store(true)
	h := httptest.NewServer(s.handler())
	t.Cleanup(func() { h.Close(); s.flows.closeExecutors(); s.flows.close() })
	return s, h
}

type answer struct {
	status int
	body   string
	header http.Header
}

func (a answer) failure(t *testing.T) *api.Error {
	t.Helper()
	var b api.ErrorBody
	must.NoError(t, json.Unmarshal([]byte(a.body), &b), must.Sprint(a.body))
	must.NotNil(t, b.Error, must.Sprint(a.body))
	return b.Error
}

func ask(t *testing.T, h *httptest.Server, method, path, body string, header ...string) answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, h.URL+path, strings.NewReader(body))
	must.NoError(t, err)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := h.Client().Do(r)
	must.NoError(t, err)
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	must.NoError(t, err)
	return answer{resp.StatusCode, string(data), resp.Header}
}

func TestAbout(t *testing.T) {
	t.Parallel()
	s, h := newServer(t, "", func(c *Config) {
		c.BuildInfo, c.Owner = `{"build_number": "77"}`, "ann"
		c.Environment, c.Digest, c.Instance = "default", "sha256:abc", "a1"
	})
	test.Eq(t, `{"status":"Healthy","version":"1.2.3"}`, ask(t, h, "GET", "/health", "").body)
	test.Eq(t, http.StatusOK, ask(t, h, "GET", "/ready", "").status)
	about := ask(t, h, "GET", "/version", "").body
	for _, part := range []string{`"environment":"default"`, `"environment_digest":"sha256:abc"`, `"instance":"a1"`, `"version":"77"`, `"owner":"ann"`, `"type":"shared"`, `"concurrency":32`} {
		test.StrContains(t, about, part)
	}
	s.ready.Store(false)
	s.notReady("python workers are starting")
	a := ask(t, h, "GET", "/ready", "")
	test.Eq(t, http.StatusServiceUnavailable, a.status)
	test.StrContains(t, a.body, "python workers are starting")
	a = ask(t, h, "POST", "/v1/runs", `{"flow":"sha256:`+strings.Repeat("0", 64)+`"}`)
	test.Eq(t, http.StatusServiceUnavailable, a.status)
	test.Eq(t, "1", a.header.Get("Retry-After"))
	s.ready.Store(true)
	s.draining.Store(true)
	test.StrContains(t, ask(t, h, "GET", "/ready", "").body, "Stopping")
	test.Eq(t, "Stopping", ask(t, h, "POST", "/v1/runs", `{}`).failure(t).Class())
	test.Eq(t, http.StatusNotFound, ask(t, h, "GET", "/nowhere", "").status)
}

func TestRuns_bundleThenRun(t *testing.T) {
	t.Parallel()
	_, h := newServer(t, "", nil)
	digest, body := packed(t, echoFlow)
	submission := `{"flow":"` + digest + `","run_id":"r1","inputs":{"q":{"x":NaN,"y":[Infinity,1e400]},"n":"7"}}`
	a := ask(t, h, "POST", "/v1/runs", submission)
	test.Eq(t, http.StatusFailedDependency, a.status)
	test.Eq(t, []string{"UserError", "FlowNotFound"}, a.failure(t).Chain())
	test.Eq(t, "r1", a.failure(t).RunID)
	test.Eq(t, http.StatusCreated, ask(t, h, "PUT", "/v1/flows/"+digest, string(body)).status)
	test.Eq(t, http.StatusOK, ask(t, h, "PUT", "/v1/flows/"+digest, string(body)).status)
	a = ask(t, h, "POST", "/v1/runs", submission)
	must.Eq(t, http.StatusOK, a.status, must.Sprint(a.body))
	test.StrContains(t, a.body, `"output":{"text":"n=7","q":{"x":NaN,"y":[Infinity,Infinity]},"secret":"n=7"}`)
	test.StrContains(t, a.body, `"runtime":"local"`)

	a = ask(t, h, "POST", "/v1/runs", `{"flow":"`+digest+`","lines":[{"q":1},{"n":2},{"q":3,"n":"x"}],"environment_variables":{"A":"1"}}`)
	must.Eq(t, http.StatusOK, a.status, must.Sprint(a.body))
	var result api.RunResult
	must.NoError(t, json.Unmarshal([]byte(a.body), &result))
	test.Eq(t, api.StatusCompleted, result.Status)
	must.SliceLen(t, 3, result.FlowRuns)
	test.Eq(t, "InputNotFound", result.FlowRuns[1].Error.Class())
	test.Eq(t, "The input for flow is incorrect. The value for flow input 'q' is not provided in line 1 of input data. Please review your input data or remove this input in your flow if it's no longer needed.", result.FlowRuns[1].Error.Message)
	test.SliceLen(t, 1, result.Outputs)
	test.Eq(t, digest, result.Flow)
}

func TestRuns_refuses(t *testing.T) {
	t.Parallel()
	_, h := newServer(t, "", func(c *Config) { c.MaxBody = 1000; c.MaxBundle = 1000 })
	digest, _ := packed(t, echoFlow)
	broken, brokenBody := packed(t, "nodes:\n- {name: p, type: prompt, source: {type: code, path: gone.jinja2}}\n")
	must.Eq(t, http.StatusCreated, ask(t, h, "PUT", "/v1/flows/"+broken, string(brokenBody)).status)
	cases := []struct {
		name, method, path, body string
		status                   int
		class, text              string
	}{
		{"no JSON", "POST", "/v1/runs", "{", 400, "InvalidRequest", "is not valid JSON: Expecting property name"},
		{"a list", "POST", "/v1/runs", "[]", 400, "InvalidRequest", "is not an object but list"},
		{"unknown field", "POST", "/v1/runs", `{"flow":"x","knot":"p"}`, 400, "InvalidRequest", "has the field 'knot', which this runtime does not know"},
		{"a node of a wrong type", "POST", "/v1/runs", `{"flow":"x","node":5}`, 400, "InvalidRequest", "has a 'node' of type int"},
		{"wrong type", "POST", "/v1/runs", `{"lines":{}}`, 400, "InvalidRequest", "has a 'lines' of type dict"},
		{"bad run id", "POST", "/v1/runs", `{"run_id":"../x"}`, 400, "InvalidRequest", "'run_id'"},
		{"bad variable", "POST", "/v1/runs", `{"environment_variables":{"A":1}}`, 400, "InvalidRequest", "'A'"},
		{"no flow", "POST", "/v1/runs", `{}`, 400, "FlowMissing", "names no flow"},
		{"bad digest", "POST", "/v1/runs", `{"flow":"abc"}`, 400, "InvalidDigest", "'sha256:' and 64"},
		{"too large", "POST", "/v1/runs", strings.Repeat(" ", 1001), 413, "RequestTooLarge", "more than 1000 bytes"},
		{"broken flow", "POST", "/v1/runs", `{"flow":"` + broken + `"}`, 400, "InvalidSource", "Node source path 'gone.jinja2' is invalid on node 'p'."},
		{"bundle digest", "PUT", "/v1/flows/abc", "x", 400, "InvalidDigest", "not the digest of a bundle"},
		{"no bundle", "PUT", "/v1/flows/" + digest, "not zstd", 400, "InvalidBundle", "The bundle is not valid"},
		{"other bundle", "PUT", "/v1/flows/" + digest, string(brokenBody), 400, "InvalidBundle", "send it again under its own name"},
		{"bundle too large", "PUT", "/v1/flows/" + digest, strings.Repeat("x", 1001), 413, "", ""},
	}
	for _, tc := range cases {
		a := ask(t, h, tc.method, tc.path, tc.body)
		if tc.name == "bundle too large" { // what is read first decides
			test.True(t, a.status == 413 || a.status == 400, test.Sprint(a.body))
			continue
		}
		test.Eq(t, tc.status, a.status, test.Sprint(tc.name, a.body))
		test.Eq(t, tc.class, a.failure(t).Class(), test.Sprint(tc.name))
		test.StrContains(t, a.failure(t).Message, tc.text, test.Sprint(tc.name))
	}
	a := ask(t, h, "POST", "/v1/runs", `{}`, "Accept", "text/html")
	test.Eq(t, http.StatusNotAcceptable, a.status)
}

func TestRuns_limitsConcurrency(t *testing.T) {
	t.Parallel()
	s, h := newServer(t, echoFlow, func(c *Config) { c.MaxConcurrency = 1 })
	s.slots <- struct{}{}
	for _, path := range []string{"/v1/runs", "/score"} {
		a := ask(t, h, "POST", path, `{"inputs":{"q":1}}`)
		test.Eq(t, http.StatusTooManyRequests, a.status)
		test.Eq(t, "1", a.header.Get("Retry-After"))
		test.StrContains(t, a.body, "runs 1 submissions already")
	}
	<-s.slots
	test.Eq(t, http.StatusOK, ask(t, h, "POST", "/v1/runs", `{"inputs":{"q":1}}`).status)
	test.Eq(t, http.StatusOK, ask(t, h, "POST", "/score", `{"q":1}`).status)
	test.Eq(t, 0, len(s.slots))
}

func TestScore(t *testing.T) {
	t.Parallel()
	_, h := newServer(t, echoFlow, nil)
	cases := []struct {
		name, body, accept string
		status             int
		want               string
	}{
		{"plain", `{"q":{"b":1,"a":NaN},"n":2}`, "", 200, `{"text":"n=2","q":{"b":1,"a":NaN}}`},
		{"any type", `{"q":1}`, "*/*", 200, `{"text":"n=1","q":1}`},
		{"application", `{"q":1}`, "application/*", 200, `{"text":"n=1","q":1}`},
		{"json with quality", `{"q":1}`, "text/html, application/json;q=0.5", 200, `{"text":"n=1","q":1}`},
		{"stream or json", `{"q":1}`, "text/event-stream, application/json", 200, `{"text":"n=1","q":1}`},
		{"stream only", `{"q":1}`, "text/event-stream", 406, `{"error":{"code":"UserError","message":"Media type text/event-stream in Accept header is not acceptable. Supported media type(s) - application/json"}}`},
		{"html only", `{"q":1}`, "text/html", 406, `{"error":{"code":"UserError","message":"Media type text/html in Accept header is not acceptable. Supported media type(s) - application/json"}}`},
		{"missing", `{"n":1,"z":"é"}`, "", 400, `{"error":{"code":"UserError","message":"Required input fields ['q'] are missing in request data {'n': 1, 'z': 'é'}"}}`},
		{"list", `[1]`, "", 400, `{"error":{"code":"UserError","message":"Required input fields ['q'] are missing in request data [1]"}}`},
		{"not json", `hello`, "", 400, `{"error":{"code":"UserError","message":"Promptflow executor received non json data, but there's more than 1 input fields, please use json request data instead."}}`},
		{"failed run", `{"q":1,"n":"x"}`, "", 400, `{"error":{"code":"UserError","message":"The input for flow is incorrect. The value for flow input 'n' does not match the expected type 'int'. Please change flow input type or adjust the input value in your input data."}}`},
	}
	for _, tc := range cases {
		a := ask(t, h, "POST", "/score", tc.body, "Accept", tc.accept)
		test.Eq(t, tc.status, a.status, test.Sprint(tc.name))
		test.Eq(t, tc.want, a.body, test.Sprint(tc.name))
		test.Eq(t, "*", a.header.Get("Access-Control-Allow-Origin"))
	}
	test.Eq(t, http.StatusOK, ask(t, h, "OPTIONS", "/score", "").status)
}

func TestScore_oneInputTakesText(t *testing.T) {
	t.Parallel()
	one := "inputs: {t: {type: string}}\noutputs: {t: {type: string, reference: \"${inputs.t}\"}}\n"
	_, h := newServer(t, one, nil)
	test.Eq(t, `{"t":"just text é"}`, ask(t, h, "POST", "/score", "just text é").body)
	test.Eq(t, `{"t":""}`, ask(t, h, "POST", "/score", "").body)
	_, none := newServer(t, "outputs: {c: {type: int, reference: 5}}\n", nil)
	test.Eq(t, `{"c":5}`, ask(t, none, "POST", "/score", "ignored").body)
	_, chosen := newServer(t, echoFlow, func(c *Config) { c.Included = []string{"secret"} })
	test.Eq(t, `{"secret":"n=1"}`, ask(t, chosen, "POST", "/score", `{"q":1}`).body)
	_, nothing := newServer(t, "", nil)
	test.Eq(t, http.StatusNotFound, ask(t, nothing, "POST", "/score", "{}").status)
}

func TestTrust(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "token")
	must.NoError(t, os.WriteFile(path, []byte("s3cret\n"), 0o600))
	_, h := newServer(t, echoFlow, func(c *Config) { c.Trust = "file:" + path })
	test.Eq(t, http.StatusOK, ask(t, h, "GET", "/health", "").status)
	test.Eq(t, http.StatusUnauthorized, ask(t, h, "POST", "/score", `{"q":1}`).status)
	test.Eq(t, http.StatusForbidden, ask(t, h, "POST", "/v1/runs", `{}`, "Authorization", "Bearer s3cre").status)
	test.Eq(t, http.StatusOK, ask(t, h, "POST", "/score", `{"q":1}`, "Authorization", "Bearer s3cret").status)
	must.NoError(t, os.Chmod(path, 0o644)) // as Nomad renders it
	test.Eq(t, http.StatusOK, ask(t, h, "POST", "/score", `{"q":1}`, "Authorization", "Bearer s3cret").status)
	must.NoError(t, os.Chmod(path, 0o620))
	test.Eq(t, http.StatusServiceUnavailable, ask(t, h, "POST", "/score", `{"q":1}`, "Authorization", "Bearer s3cret").status)
	_, err := newTrust("file:"+path, hclog.NewNullLogger())
	test.ErrorContains(t, err, "chmod go-w")
	must.NoError(t, os.Chmod(path, 0o600))
	must.NoError(t, os.WriteFile(path, []byte(" \n"), 0o600))
	_, err = newTrust("file:"+path, hclog.NewNullLogger())
	test.ErrorContains(t, err, "it is empty")
}

func TestPanicsAreSystemErrors(t *testing.T) {
	t.Parallel()
	s, _ := newServer(t, "", nil)
	h := httptest.NewServer(s.answer(func(http.ResponseWriter, *http.Request) error { panic("boom") }))
	defer h.Close()
	a := ask(t, h, "GET", "/", "")
	test.Eq(t, http.StatusInternalServerError, a.status)
	test.Eq(t, []string{"SystemError", "UnexpectedError"}, a.failure(t).Chain())
	test.StrNotContains(t, a.body, "boom")
}

func TestFlows_leastRecentlyUsedGoes(t *testing.T) {
	t.Parallel()
	s, h := newServer(t, "", func(c *Config) { c.MaxFlows = 2 })
	var digests []string
	for _, name := range []string{"one", "two", "three"} {
		digest, body := packed(t, "name: "+name+"\n"+echoFlow)
		digests = append(digests, digest)
		must.Eq(t, http.StatusCreated, ask(t, h, "PUT", "/v1/flows/"+digest, string(body)).status)
		must.Eq(t, http.StatusOK, ask(t, h, "POST", "/v1/runs", `{"flow":"`+digests[0]+`","inputs":{"q":1}}`).status)
	}
	s.flows.loading.Wait()
	test.Eq(t, http.StatusFailedDependency, ask(t, h, "POST", "/v1/runs", `{"flow":"`+digests[1]+`","inputs":{"q":1}}`).status)
	test.Eq(t, http.StatusOK, ask(t, h, "POST", "/v1/runs", `{"flow":"`+digests[2]+`","inputs":{"q":1}}`).status)
	entries, err := os.ReadDir(s.flows.dir)
	must.NoError(t, err)
	test.SliceLen(t, 2, entries)
	again, err := newFlows(s.config)
	must.NoError(t, err)
	defer again.close()
	test.True(t, again.has(digests[0]) && again.has(digests[2]) && !again.has(digests[1]))
}

func TestConfigFromEnv(t *testing.T) {
	t.Parallel()
	from := func(env map[string]string) (Config, error) {
		return ConfigFromEnv(func(name string) (string, bool) { v, ok := env[name]; return v, ok })
	}
	c, err := from(map[string]string{"PROMPTFLOW_LISTEN": "unix:/run/x.sock", "PROMPTFLOW_MAX_CONCURRENCY": "7", "PF_LINE_TIMEOUT_SEC": "5", "NOMAD_TASK_DIR": "/local", "PROMPTFLOW_RESPONSE_INCLUDED_FIELDS": `["a"]`})
	must.NoError(t, err)
	test.Eq(t, 7, c.MaxConcurrency)
	test.Eq(t, "/local/promptflow", c.Data)
	test.Eq(t, []string{"a"}, c.Included)
	test.Eq(t, 5.0, c.LineTimeout.Seconds())
	c, err = from(nil)
	must.NoError(t, err)
	test.Eq(t, "127.0.0.1:8080", c.Listen)
	_, err = from(map[string]string{
		"PROMPTFLOW_LISTEN": "8080", "PROMPTFLOW_WORKERS": "many", "PROMPTFLOW_RUNTIME_TYPE": "odd", "PROMPTFLOW_TRUST": "https://x", "PROMPTFLOW_RESPONSE_INCLUDED_FIELDS": "a",
	})
	for _, part := range []string{"PROMPTFLOW_LISTEN", "PROMPTFLOW_WORKERS", "PROMPTFLOW_RUNTIME_TYPE", "PROMPTFLOW_TRUST", "PROMPTFLOW_RESPONSE_INCLUDED_FIELDS"} {
		test.ErrorContains(t, err, part)
	}
}

func TestServe_bundleFile(t *testing.T) {
	t.Parallel()
	digest, body := packed(t, echoFlow)
	path := filepath.Join(t.TempDir(), "flow.tar.zst")
	must.NoError(t, os.WriteFile(path, body, 0o600))
	s, _ := newServer(t, "", nil)
	served, err := s.flows.serve(t.Context(), path)
	must.NoError(t, err)
	test.Eq(t, digest, served.name)
	_, err = s.flows.serve(t.Context(), filepath.Join(t.TempDir(), "gone"))
	test.ErrorContains(t, err, "PROMPTFLOW_FLOW")
}

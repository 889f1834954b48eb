package command

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"
	"github.com/shoenig/test/wait"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/api/bundle"
)

var found = api.Validation{
	Result: api.ResultFailed, Runtime: "team", Duration: 0.012, Reused: 2, Checked: 1,
	Problems: []api.Problem{
		{
			Severity: api.SeverityError, Code: "NodeReferenceNotFound", Codes: []string{"UserError", "NodeReferenceNotFound"}, Message: "no node 'b'", Mend: "Did you mean ${a.output}?",
			Location: api.Location{File: "flow.dag.yaml", Line: 3, Column: 7}, Text: "\tx: é ${b.output}", Node: "a",
		},
		{
			Severity: api.SeverityWarning, Code: "UnusedInput", Message: "nothing uses it", Mend: "Remove it.",
			Location: api.Location{File: "sub folder/a.jinja2", Line: 12, Column: 1}, Text: "{{ x }}", Node: "a", Variant: "v1",
		},
		{Severity: api.SeverityError, Code: "UserError", Message: "no flow", Mend: "Add one."},
	},
	Unchecked: []string{"connections: not known"},
}

const foundText = "flow.dag.yaml:3:7: error: no node 'b' (NodeReferenceNotFound)\n" +
	"    3 | \tx: é ${b.output}\n" +
	"      | \t     ^\n" +
	"      = Did you mean ${a.output}?\n\n" +
	"sub folder/a.jinja2:12:1: warning: nothing uses it (UnusedInput) [variant v1 of node a]\n" +
	"   12 | {{ x }}\n" +
	"      | ^\n" +
	"      = Remove it.\n\n" +
	"error: no flow (UserError)\n" +
	"      = Add one.\n\n" +
	"not checked: connections: not known\n\n" +
	"2 errors, 1 warning in "

func TestFlowValidate_handsTheFlowInAndPrintsWhatIsFound(t *testing.T) {
	t.Parallel()
	missing := api.ErrorBody{Error: api.NewError([]string{api.UserError, "FlowNotFound"}, "Runtime", "flow is not here")}
	server := newCanned(t, map[string][]answer{
		"GET /v1/runtimes":                {{200, []api.Runtime{{Name: "team"}}}},
		"POST /v1/runtimes/team/validate": {{http.StatusFailedDependency, missing}, {200, found}},
		"PUT /v1/flows":                   {{201, nil}},
	})
	dir := flowFolder(t)
	code, stdout, stderr := invoke("flow", "validate", dir, "-address", server.URL, "-env", "A=b")
	test.Eq(t, exitFailure, code)
	test.Eq(t, "", stderr)
	test.StrHasPrefix(t, foundText, strings.ReplaceAll(stdout, dir+"/", ""))
	test.StrHasSuffix(t, " (12.0 ms in runtime team; 1 of 3 tools and templates checked anew)\n", stdout)
	digest, err := bundle.Digest(t.Context(), dir)
	must.NoError(t, err)
	test.Eq(t, []string{"GET /v1/runtimes", "POST /v1/runtimes/team/validate", "PUT /v1/flows/" + digest, "POST /v1/runtimes/team/validate"}, server.calls())
	test.Eq(t, `{"flow":"`+digest+`","environment_variables":{"A":"b"}}`, string(server.asked[3].body))
}

func TestFlowValidate_exitCodes(t *testing.T) {
	t.Parallel()
	warned := api.Validation{Result: api.ResultSucceeded, Problems: found.Problems[1:2], Runtime: "team"}
	fine := api.Validation{Result: api.ResultSucceeded, Problems: []api.Problem{}, Runtime: "team"}
	tests := map[string]struct {
		v    api.Validation
		args []string
		code int
		says string
	}{
		"errors":                  {found, nil, exitFailure, "2 errors, 1 warning in "},
		"warnings":                {warned, nil, exitOK, "valid, with 1 warning in "},
		"warnings that count":     {warned, []string{"-strict"}, exitFailure, "valid, with 1 warning in "},
		"nothing":                 {fine, []string{"-strict"}, exitOK, "valid in "},
		"errors in JSON":          {found, []string{"-json"}, exitFailure, `"result": "Failed"`},
		"errors in SARIF":         {found, []string{"-format", "sarif"}, exitFailure, `"version": "2.1.0"`},
		"nothing, in SARIF":       {fine, []string{"-format=sarif"}, exitOK, `"results": []`},
		"warnings in SARIF":       {warned, []string{"-format=sarif"}, exitOK, `"level": "warning"`},
		"strict warnings in JSON": {warned, []string{"-format=json", "-strict"}, exitFailure, `"severity": "warning"`},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := newCanned(t, map[string][]answer{"POST /v1/validate": {{200, tc.v}}})
			code, stdout, stderr := invoke(append([]string{"flow", "validate", flowFolder(t), "-direct", "-address", server.URL}, tc.args...)...)
			test.Eq(t, tc.code, code)
			test.Eq(t, "", stderr)
			test.StrContains(t, stdout, tc.says)
		})
	}
}

func TestFlowValidate_refusesWrongUsage(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		args []string
		says string
	}{
		"no flow":        {nil, "nomad-promptflow flow validate: takes one argument, the flow's folder or file; got 0"},
		"a file":         {[]string{file(t, "flow.txt", "")}, "is not a flow; name the folder of one"},
		"a format":       {[]string{".", "-format", "xml"}, `format "xml": want text, json or sarif`},
		"SARIF for ever": {[]string{".", "-format=sarif", "-watch"}, "-watch goes without -format=sarif"},
		"a variable":     {[]string{".", "-env", "x", "-local"}, `-env "x": want NAME=VALUE`},
		"an address":     {[]string{".", "-address", "ftp://x"}, "must be http://HOST:PORT"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, stdout, stderr := invoke(append([]string{"flow", "validate"}, tc.args...)...)
			test.Eq(t, exitUsage, code)
			test.Eq(t, "", stdout)
			test.StrContains(t, stderr, tc.says)
		})
	}
}

func TestFlowValidate_withoutARuntime(t *testing.T) {
	t.Parallel()
	dir := filepath.Dir(file(t, "flow.dag.yaml", "nodes:\n- {name: a, type: python, source: {type: code, path: a.py}, inputs: {x: \"${b.output}\"}}\n"))
	code, stdout, stderr := invoke("flow", "validate", dir, "-local")
	test.Eq(t, exitFailure, code)
	test.Eq(t, "", stderr)
	test.StrContains(t, stdout, "flow.dag.yaml:2:73: error: ")
	test.StrContains(t, stdout, "(NodeReferenceNotFound)")
	test.StrContains(t, stdout, "not checked: 1 Python tool: ")
	test.StrContains(t, stdout, "2 errors in ")
	test.StrHasSuffix(t, ", without a runtime\n", stdout)

	// A gateway that was named must be there.
	code, _, stderr = invoke("flow", "validate", dir, "-address", "127.0.0.1:1")
	test.Eq(t, exitFailure, code)
	test.StrContains(t, stderr, "reach http://127.0.0.1:1")
	code, _, stderr = invoke("flow", "validate", t.TempDir(), "-direct", "-address", "127.0.0.1:1")
	test.Eq(t, exitFailure, code)
	test.StrContains(t, stderr, "looked for flow.dag.yaml")
}

// TestSARIF_hasWhatItsSchemaRequires checks the properties that the schema of SARIF 2.1.0 requires, and the kinds of their values.
func TestSARIF_hasWhatItsSchemaRequires(t *testing.T) {
	t.Parallel()
	data, err := json.Marshal(sarifLog(&found, func(name string) string { return "flows/mine/" + name }))
	must.NoError(t, err)
	var log map[string]any
	must.NoError(t, json.Unmarshal(data, &log))
	at := func(from any, path ...any) any {
		for _, step := range path {
			switch step := step.(type) {
			case string:
				object, ok := from.(map[string]any)
				must.True(t, ok, must.Sprint(step, from))
				from = object[step]
			case int:
				list, ok := from.([]any)
				must.True(t, ok && len(list) > step, must.Sprint(step, from))
				from = list[step]
			}
		}
		return from
	}
	test.Eq(t, any("2.1.0"), at(log, "version"))
	test.Eq(t, any("nomad-promptflow"), at(log, "runs", 0, "tool", "driver", "name"))
	test.Eq(t, any("unicodeCodePoints"), at(log, "runs", 0, "columnKind"))
	test.Eq(t, any(true), at(log, "runs", 0, "invocations", 0, "executionSuccessful"))
	test.Eq(t, any("not checked: connections: not known"), at(log, "runs", 0, "invocations", 0, "toolExecutionNotifications", 0, "message", "text"))
	for i, p := range found.Problems {
		result := at(log, "runs", 0, "results", i)
		test.Eq(t, any(p.Message+" "+p.Mend), at(result, "message", "text"))
		test.Eq(t, any(p.Severity), at(result, "level"))
		index, ok := at(result, "ruleIndex").(float64)
		must.True(t, ok)
		test.Eq(t, any(p.Code), at(log, "runs", 0, "tool", "driver", "rules", int(index), "id"))
		test.Eq(t, any(p.Code), at(result, "ruleId"))
	}
	first := at(log, "runs", 0, "results", 0, "locations", 0, "physicalLocation")
	test.Eq(t, any("flows/mine/flow.dag.yaml"), at(first, "artifactLocation", "uri"))
	test.Eq(t, any(3.0), at(first, "region", "startLine"))
	test.Eq(t, any(7.0), at(first, "region", "startColumn"))
	test.Eq(t, any("flows/mine/sub%20folder/a.jinja2"), at(log, "runs", 0, "results", 1, "locations", 0, "physicalLocation", "artifactLocation", "uri"))
	test.MapNotContainsKey(t, at(log, "runs", 0, "results", 2).(map[string]any), "locations")
}

// editor is a runtime that notes which files it is sent.
type editor struct {
	lock     sync.Mutex
	requests []api.ValidateRequest
}

func (e *editor) client(t *testing.T) *api.Client {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e.lock.Lock()
		defer e.lock.Unlock()
		var request api.ValidateRequest
		if json.NewDecoder(r.Body).Decode(&request) == nil {
			e.requests = append(e.requests, request)
		}
		_ = json.NewEncoder(w).Encode(api.Validation{Result: api.ResultSucceeded, Problems: []api.Problem{}})
	}))
	t.Cleanup(server.Close)
	client, err := api.NewClient(server.URL, "")
	must.NoError(t, err)
	return client
}

func (e *editor) last() api.ValidateRequest {
	e.lock.Lock()
	defer e.lock.Unlock()
	return e.requests[len(e.requests)-1]
}

func TestEdited_sendsOnlyWhatDiffersFromTheBundle(t *testing.T) {
	t.Parallel()
	dir := flowFolder(t)
	put := func(name, text string) {
		t.Helper()
		must.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
		must.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	put("a.py", "one")
	put("gone.py", "x")
	var runtime editor
	e := newEdited(dir, runtime.client(t), "", api.ValidateRequest{})
	files := func() map[string]string {
		t.Helper()
		_, err := e.check(t.Context())
		must.NoError(t, err)
		out := map[string]string{}
		for _, f := range runtime.last().Files {
			out[f.Path] = string(f.Content)
			if f.Removed {
				out[f.Path] = "(removed)"
			}
		}
		return out
	}
	test.Eq(t, map[string]string{}, files())
	base := runtime.last().Flow
	put("a.py", "two")
	test.Eq(t, map[string]string{"a.py": "two"}, files())
	put("sub/new.txt", "n")
	must.NoError(t, os.Remove(filepath.Join(dir, "gone.py")))
	put("__pycache__/a.pyc", "left out")
	test.Eq(t, map[string]string{"a.py": "two", "sub/new.txt": "n", "gone.py": "(removed)"}, files())
	put("a.py", "one") // as it was
	test.Eq(t, map[string]string{"sub/new.txt": "n", "gone.py": "(removed)"}, files())
	test.Eq(t, base, runtime.last().Flow)

	put("big.txt", strings.Repeat("x", maxChangedBytes+1))
	test.Eq(t, map[string]string{}, files()) // a new bundle is less
	test.NotEq(t, base, runtime.last().Flow)
	put("a.py", "three")
	test.Eq(t, map[string]string{"a.py": "three"}, files())
}

// TestWatch_validatesAfterEveryChange watches a folder as the command does, without a runtime.
func TestWatch_validatesAfterEveryChange(t *testing.T) {
	t.Parallel()
	dir := filepath.Dir(file(t, "flow.dag.yaml", "nodes: []\n"))
	var out, errs locked
	ctx, cancel := context.WithCancel(t.Context())
	o := &validateOptions{dir: dir, format: "text", watch: true, timeout: time.Minute}
	c := &flowValidateCommand{meta{stdout: &out, stderr: &errs}}
	ended := make(chan int, 1)
	go func() { ended <- c.watch(ctx, o, newEdited(dir, nil, "", api.ValidateRequest{})) }()
	shows := func(text string) {
		t.Helper()
		must.Wait(t, wait.InitialSuccess(wait.BoolFunc(func() bool { return strings.Contains(out.String()+errs.String(), text) }),
			wait.Timeout(10*time.Second), wait.Gap(5*time.Millisecond)), must.Sprint(out.String(), errs.String()))
	}
	shows("Watching " + dir)
	shows("valid in ")
	must.NoError(t, os.WriteFile(filepath.Join(dir, "flow.dag.yaml"), []byte("nodes: [{name: a}]\n"), 0o600))
	shows("1 error in ")
	shows("  flow.dag.yaml\n")
	must.NoError(t, os.Mkdir(filepath.Join(dir, "sub"), 0o755))
	shows("  sub\n")
	must.NoError(t, os.WriteFile(filepath.Join(dir, "sub", "deep.txt"), []byte("x"), 0o600))
	shows("sub/deep.txt")
	cancel()
	select {
	case code := <-ended:
		test.Eq(t, exitOK, code)
	case <-time.After(10 * time.Second):
		t.Fatal("watching did not end")
	}
}

// TestFlowValidate_withIncludes is a flow that includes files from outside of its folder: they are checked and named where they are, and
// what is missing is a problem like others.
func TestFlowValidate_withIncludes(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	put := func(name, text string) {
		t.Helper()
		must.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(top, name)), 0o755))
		must.NoError(t, os.WriteFile(filepath.Join(top, name), []byte(text), 0o600))
	}
	put("flow/flow.dag.yaml", `additional_includes:
- ../shared/prompt.jinja2
- ../nowhere
nodes:
- {name: p, type: prompt, source: {type: code, path: prompt.jinja2}}
`)
	put("shared/prompt.jinja2", "{{ x }}")
	code, stdout, stderr := invoke("flow", "validate", filepath.Join(top, "flow"), "-local")
	test.Eq(t, exitFailure, code)
	test.Eq(t, "", stderr)
	test.StrContains(t, stdout, top+"/shared/prompt.jinja2:1:4: warning: ")
	test.StrContains(t, stdout, top+"/flow/flow.dag.yaml:3:3: error: Unable to find additional include ../nowhere. (UserError)\n    3 | - ../nowhere\n")
	test.StrContains(t, stdout, "1 error, 1 warning in ")

	var runtime editor
	e := newEdited(filepath.Join(top, "flow"), runtime.client(t), "", api.ValidateRequest{})
	v, err := e.check(t.Context())
	must.NoError(t, err)
	test.Eq(t, api.ResultFailed, v.Result)
	must.SliceLen(t, 1, v.Problems)
	put("shared/prompt.jinja2", "{{ y }}")
	_, err = e.check(t.Context())
	must.NoError(t, err)
	test.Eq(t, []api.File{{Path: "prompt.jinja2", Content: []byte("{{ y }}")}}, runtime.last().Files)

	// Watching sees them change too.
	watcher, err := newWatcher(filepath.Join(top, "flow"))
	must.NoError(t, err)
	defer watcher.Close()
	watcher.follow(e.source)
	put("shared/other.txt", "no part of the flow")
	put("shared/prompt.jinja2", "{{ z }}")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	changed, _, err := watcher.next(ctx)
	must.NoError(t, err)
	test.Eq(t, []string{filepath.Join(top, "shared/prompt.jinja2")}, changed)
}

// locked is a buffer for a writer and a reader.
type locked struct {
	lock sync.Mutex
	text bytes.Buffer
}

func (l *locked) Write(data []byte) (int, error) {
	l.lock.Lock()
	defer l.lock.Unlock()
	return l.text.Write(data)
}

func (l *locked) String() string {
	l.lock.Lock()
	defer l.lock.Unlock()
	return l.text.String()
}

func TestFlowTools_printsThemAndTellsWhatIsMissing(t *testing.T) {
	t.Parallel()
	v := api.Validation{Result: api.ResultFailed, Problems: []api.Problem{}, Runtime: "team", Tools: json.RawMessage(`{"package":{},"code":{"a.py":{"type":"python"}}}`)}
	server := newCanned(t, map[string][]answer{"POST /v1/validate": {{200, v}}})
	code, stdout, stderr := invoke("flow", "tools", flowFolder(t), "-direct", "-address", server.URL)
	test.Eq(t, exitOK, code)
	test.Eq(t, "", stderr)
	test.Eq(t, "{\n    \"package\": {},\n    \"code\": {\n        \"a.py\": {\n            \"type\": \"python\"\n        }\n    }\n}\n", stdout)
	test.StrContains(t, string(server.asked[0].body), `"tools":true`)

	v.ToolErrors = map[string]*api.Error{"b.py": api.NewError([]string{api.UserError, "NoToolDefined"}, "", "No tool found")}
	server = newCanned(t, map[string][]answer{"POST /v1/validate": {{200, v}}})
	code, _, stderr = invoke("flow", "tools", flowFolder(t), "-direct", "-address", server.URL)
	test.Eq(t, exitFailure, code)
	test.Eq(t, "nomad-promptflow: b.py: No tool found (UserError/NoToolDefined)\n", stderr)

	v = found
	v.Tools = nil
	server = newCanned(t, map[string][]answer{"POST /v1/validate": {{200, v}}})
	code, _, stderr = invoke("flow", "tools", flowFolder(t), "-direct", "-address", server.URL)
	test.Eq(t, exitFailure, code)
	test.StrContains(t, stderr, "flow.dag.yaml:3:7: no node 'b' (NodeReferenceNotFound)")
}

package command

import (
	"encoding/json"
	"io"
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

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/api/bundle"
)

// flowFolder is a folder with the smallest flow that can be packed.
func flowFolder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	must.NoError(t, os.WriteFile(filepath.Join(dir, "flow.dag.yaml"), []byte("nodes: []\n"), 0o600))
	return dir
}

// answer is what a canned server says to one request.
type answer struct {
	status int
	body   any
}

// canned is a server with fixed answers, which remembers what it was asked. A path's answers are given in turn, the last one for ever.
type canned struct {
	*httptest.Server
	lock    sync.Mutex
	answers map[string][]answer
	asked   []asked
}

type asked struct {
	call, token string
	body        []byte
}

func newCanned(t *testing.T, answers map[string][]answer) *canned {
	t.Helper()
	c := &canned{answers: answers}
	c.Server = httptest.NewServer(c)
	t.Cleanup(c.Close)
	return c
}

// ServeHTTP implements http.Handler.
func (c *canned) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	call := r.Method + " " + r.URL.Path
	c.lock.Lock()
	defer c.lock.Unlock()
	c.asked = append(c.asked, asked{call: call, token: r.Header.Get("Authorization"), body: body})
	if strings.HasPrefix(call, "PUT /v1/flows/") {
		call = "PUT /v1/flows"
	}
	left := c.answers[call]
	if len(left) == 0 {
		http.NotFound(w, r)
		return
	}
	if len(left) > 1 {
		c.answers[call] = left[1:]
	}
	w.WriteHeader(left[0].status)
	_ = json.NewEncoder(w).Encode(left[0].body)
}

func (c *canned) calls() []string {
	c.lock.Lock()
	defer c.lock.Unlock()
	var calls []string
	for _, a := range c.asked {
		calls = append(calls, a.call)
	}
	return calls
}

// submission is the last run that the server was asked for.
func (c *canned) submission(t *testing.T) api.RunRequest {
	t.Helper()
	c.lock.Lock()
	defer c.lock.Unlock()
	var request api.RunRequest
	must.NoError(t, json.Unmarshal(c.asked[len(c.asked)-1].body, &request))
	return request
}

const runShared = "POST /v1/runtimes/shared/runs"

// shared answers submissions to a runtime called shared, the only one of the gateway.
func shared(runs ...answer) map[string][]answer {
	return map[string][]answer{"GET /v1/runtimes": {{200, []api.Runtime{{Name: "shared"}}}}, runShared: runs}
}

func index(i int) *int { return &i }

func completed() *api.RunResult {
	return &api.RunResult{
		RunID: "r1", Status: api.StatusCompleted, Output: json.RawMessage(`{"answer":"yes","score":0.5}`), Duration: 0.25, Runtime: "shared", Instance: "shared-0",
		FlowRuns: []api.FlowRunInfo{{RunID: "r1_0", Status: api.StatusCompleted, Index: index(0)}},
		NodeRuns: []api.NodeRunInfo{{Node: "ask", Status: api.StatusCompleted, Index: index(0), SystemMetrics: json.RawMessage(`{"duration":0.2}`)}},
	}
}

func userError(format string, args ...any) *api.Error {
	return api.NewError([]string{api.UserError, "ToolExecutionError"}, "Tool", format, args...)
}

func TestRun_submits_what_was_typed(t *testing.T) {
	t.Parallel()
	flow := flowFolder(t)
	digest, err := bundle.Digest(t.Context(), flow)
	must.NoError(t, err)
	inputs := file(t, "inputs.json", `{"a": 1, "b": "file"}`)
	initial := file(t, "init.json", `{"model": {"api": "chat"}, "n": 6}`)
	data := file(t, "data.jsonl", "{\"a\": 1}\n\n  {\"a\": 2.50}\r\n{\"a\": 3}")
	tests := map[string]struct {
		args []string
		want api.RunRequest
	}{
		"nothing":              {nil, api.RunRequest{Inputs: json.RawMessage(`{}`)}},
		"inputs":               {[]string{"-input", "a=x=y", "-input=b="}, api.RunRequest{Inputs: json.RawMessage(`{"a":"x=y","b":""}`)}},
		"a file of inputs":     {[]string{"-inputs", inputs}, api.RunRequest{Inputs: json.RawMessage(`{"a": 1, "b": "file"}`)}},
		"both, typed ones win": {[]string{"-inputs", inputs, "-input", "b=typed"}, api.RunRequest{Inputs: json.RawMessage(`{"a":1,"b":"typed"}`)}},
		"lines":                {[]string{"-data", data}, api.RunRequest{Lines: []json.RawMessage{[]byte(`{"a": 1}`), []byte(`{"a": 2.50}`), []byte(`{"a": 3}`)}}},
		"a variant":            {[]string{"-variant", "${n.v}"}, api.RunRequest{Inputs: json.RawMessage(`{}`), Variant: "${n.v}"}},
		"bounds":               {[]string{"-line-timeout=90s", "-node-timeout=500ms"}, api.RunRequest{Inputs: json.RawMessage(`{}`), LineTimeout: 90, NodeTimeout: 0.5}},
		"init": {
			[]string{"-init", "n=5", "-init", initial, "-init", "text=a b", "-init", `quoted="5"`, "-init", `list=[1, "x"]`},
			api.RunRequest{Inputs: json.RawMessage(`{}`), Init: json.RawMessage(`{"list":[1,"x"],"model":{"api":"chat"},"n":6,"quoted":"5","text":"a b"}`)},
		},
		"variables": {[]string{"-env", "KEY=v", "-env", "EMPTY="}, api.RunRequest{Inputs: json.RawMessage(`{}`), EnvironmentVariables: map[string]string{"KEY": "v", "EMPTY": ""}}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := newCanned(t, shared(answer{200, completed()}))
			code, _, stderr := invoke(append([]string{"run", flow, "-address", server.URL}, tc.args...)...)
			test.Eq(t, exitOK, code)
			test.Eq(t, "", stderr)
			tc.want.Flow = digest
			test.Eq(t, tc.want, server.submission(t))
		})
	}
}

func TestRun_refuses_what_it_cannot_read(t *testing.T) {
	t.Parallel()
	flow := flowFolder(t)
	empty := file(t, "empty.jsonl", "\n  \n")
	list := file(t, "list.jsonl", "{\"a\": 1}\n\n[1]\n")
	cut := file(t, "cut.jsonl", "{\"a\": 1}\n{\"a\": \n")
	array := file(t, "array.json", "[1]")
	null := file(t, "null.json", "null")
	broken := file(t, "broken.json", `{"a": x}`)
	nowhere := t.TempDir()
	tests := map[string]struct {
		args []string
		says string
	}{
		"a folder without a flow":           {[]string{nowhere}, "looked for flow.dag.yaml, flow.flex.yaml and *.prompty; name the folder that holds one"},
		"a folder that is not there":        {[]string{nowhere + "/none"}, "no such file or directory"},
		"a data file that is not there":     {[]string{flow, "-data", nowhere + "/none"}, "read data: open " + nowhere + "/none"},
		"a data file without lines":         {[]string{flow, "-data", empty}, "read data of " + empty + ": there is no line in it; write one JSON object of inputs per line"},
		"a line that is no object":          {[]string{flow, "-data", list}, "read inputs of " + list + ", line 3: must be a JSON object"},
		"a line that is cut":                {[]string{flow, "-data", cut}, "read inputs of " + cut + ", line 2: not valid JSON: unexpected end of JSON input"},
		"an inputs file that is not there":  {[]string{flow, "-inputs", nowhere + "/none"}, "read inputs: open " + nowhere + "/none"},
		"an inputs file that is an array":   {[]string{flow, "-inputs", array}, "read inputs of " + array + ": must be a JSON object"},
		"an array and an input":             {[]string{flow, "-inputs", array, "-input", "a=b"}, "read inputs of " + array + ": must be a JSON object"},
		"null and an input":                 {[]string{flow, "-inputs", null, "-input", "a=b"}, "read inputs of " + null + ": must be a JSON object"},
		"an inputs file that is broken":     {[]string{flow, "-inputs", broken}, "read inputs of " + broken + ": not valid JSON: invalid character 'x'"},
		"a broken inputs file and an input": {[]string{flow, "-inputs", broken, "-input", "a=b"}, "read inputs of " + broken + ": not valid JSON"},
		"a token file that is not there":    {[]string{flow, "-token-file", nowhere + "/none"}, "read token: open " + nowhere + "/none"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := newCanned(t, nil)
			code, stdout, stderr := invoke(append([]string{"run", "-address", server.URL}, tc.args...)...)
			test.Eq(t, exitFailure, code)
			test.Eq(t, "", stdout)
			test.StrHasPrefix(t, "nomad-promptflow: ", stderr)
			test.StrContains(t, stderr, tc.says)
			test.SliceEmpty(t, server.calls())
		})
	}
}

func TestRun_finds_the_gateway_and_its_runtime(t *testing.T) {
	t.Parallel()
	flow := flowFolder(t)
	t.Run("nobody at the address", func(t *testing.T) {
		t.Parallel()
		gone := httptest.NewServer(http.NotFoundHandler())
		gone.Close()
		code, _, stderr := invoke("run", flow, "-address", gone.URL)
		test.Eq(t, exitFailure, code)
		test.StrContains(t, stderr, "ask for runtimes: reach "+gone.URL+":")
		test.StrContains(t, stderr, "start one with 'nomad-promptflow dev', or name a gateway with -address")
	})
	t.Run("somebody else at the address", func(t *testing.T) {
		t.Parallel()
		server := newCanned(t, nil)
		code, _, stderr := invoke("run", flow, "-address", server.URL)
		test.Eq(t, exitFailure, code)
		test.StrContains(t, stderr, "answered 404 Not Found")
		test.StrContains(t, stderr, "or name a gateway with -address")
	})
	t.Run("no address", func(t *testing.T) {
		t.Parallel()
		code, _, stderr := invoke("run", flow, "-address", "ftp://host:1")
		test.Eq(t, exitUsage, code)
		test.StrContains(t, stderr, `address "ftp://host:1": must be http://HOST:PORT`)
	})
	for says, runtimes := range map[string][]api.Runtime{
		"the gateway has 0 runtimes ()":            {},
		"the gateway has 2 runtimes (ada, shared)": {{Name: "ada"}, {Name: "shared"}},
	} {
		t.Run(says, func(t *testing.T) {
			t.Parallel()
			server := newCanned(t, map[string][]answer{"GET /v1/runtimes": {{200, runtimes}}})
			code, _, stderr := invoke("run", flow, "-address", server.URL)
			test.Eq(t, exitUsage, code)
			test.StrContains(t, stderr, says)
			test.Eq(t, []string{"GET /v1/runtimes"}, server.calls())
		})
	}
	t.Run("a named one is not asked for", func(t *testing.T) {
		t.Parallel()
		server := newCanned(t, shared(answer{200, completed()}))
		code, _, _ := invoke("run", flow, "-address", server.URL, "-runtime", "shared")
		test.Eq(t, exitOK, code)
		test.Eq(t, []string{runShared}, server.calls())
	})
	t.Run("a runtime itself", func(t *testing.T) {
		t.Parallel()
		server := newCanned(t, map[string][]answer{"POST /v1/runs": {{200, completed()}}})
		code, _, _ := invoke("run", flow, "-address", server.URL, "-direct")
		test.Eq(t, exitOK, code)
		test.Eq(t, []string{"POST /v1/runs"}, server.calls())
	})
	t.Run("an unknown one", func(t *testing.T) {
		t.Parallel()
		unknown := api.NewError([]string{api.UserError, "RuntimeNotFound"}, "Gateway", `there is no runtime "shraed"; did you mean "shared"?`)
		server := newCanned(t, map[string][]answer{"POST /v1/runtimes/shraed/runs": {{404, api.ErrorBody{Error: unknown}}}})
		code, stdout, stderr := invoke("run", flow, "-address", server.URL, "-runtime", "shraed")
		test.Eq(t, exitFailure, code)
		test.Eq(t, "", stdout)
		test.Eq(t, "nomad-promptflow: there is no runtime \"shraed\"; did you mean \"shared\"? (UserError/RuntimeNotFound)\n", stderr)
	})
}

func TestRun_takes_runtime_address_and_token_from_the_environment(t *testing.T) {
	server := newCanned(t, shared(answer{200, completed()}))
	t.Setenv("PROMPTFLOW_ADDR", server.URL)
	t.Setenv("PROMPTFLOW_RUNTIME", "shared")
	t.Setenv("PROMPTFLOW_TOKEN_FILE", file(t, "token", "secret\n"))
	code, _, stderr := invoke("run", flowFolder(t))
	must.Eq(t, exitOK, code, must.Sprint(stderr))
	must.Eq(t, []string{runShared}, server.calls())
	test.Eq(t, "Bearer secret", server.asked[0].token)
}

func TestRun_hands_the_flow_in_where_it_is_missing(t *testing.T) {
	t.Parallel()
	flow := flowFolder(t)
	digest, err := bundle.Digest(t.Context(), flow)
	must.NoError(t, err)
	answers := shared(
		answer{424, api.ErrorBody{Error: api.NewError([]string{api.UserError, "FlowNotFound"}, "Runtime", "no flow %s", digest)}},
		answer{200, completed()},
	)
	answers["PUT /v1/flows"] = []answer{{201, nil}}
	server := newCanned(t, answers)
	code, _, stderr := invoke("run", flow, "-address", server.URL, "-token-file", file(t, "token", " secret \n"))
	test.Eq(t, exitOK, code)
	test.Eq(t, "", stderr)
	must.Eq(t, []string{"GET /v1/runtimes", runShared, "PUT /v1/flows/" + digest, runShared}, server.calls())
	for _, a := range server.asked {
		test.Eq(t, "Bearer secret", a.token)
	}
	name, err := bundle.Name(t.Context(), strings.NewReader(string(server.asked[2].body)), bundle.DefaultLimits)
	must.NoError(t, err)
	test.Eq(t, digest, name)
}

func TestRun_gives_up_after_its_timeout(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}))
	defer server.Close()
	code, _, stderr := invoke("run", flowFolder(t), "-address", server.URL, "-runtime", "shared", "-timeout", "50ms")
	test.Eq(t, exitFailure, code)
	test.StrContains(t, stderr, "reach "+server.URL+": context deadline exceeded")
}

func TestRun_says_how_a_run_failed(t *testing.T) {
	t.Parallel()
	flow := flowFolder(t)
	data := file(t, "data.jsonl", strings.Repeat("{}\n", 8))
	at := userError("Execution failure in 'ask': (KeyError) 'x'").At("ask.py", 4, 2)
	single := &api.RunResult{
		RunID: "r1", Status: api.StatusFailed, Error: at,
		FlowRuns: []api.FlowRunInfo{{Status: api.StatusFailed, Index: index(0), Error: at}},
		NodeRuns: []api.NodeRunInfo{{Node: "ask", Status: api.StatusFailed, Index: index(0), Error: at}},
	}
	batch := &api.RunResult{RunID: "r2", Status: api.StatusCompleted, Outputs: []json.RawMessage{[]byte(`{"line_number":0,"a":1}`)}, FlowRuns: []api.FlowRunInfo{
		{Status: api.StatusCompleted, Index: index(0)}, {Status: api.StatusFailed, Index: index(1), Error: at},
	}}
	none := &api.RunResult{RunID: "r3", Status: api.StatusFailed}
	for i := range 8 {
		none.FlowRuns = append(none.FlowRuns, api.FlowRunInfo{Status: api.StatusFailed, Index: index(i), Error: userError("no %d", i)})
	}
	aggregation := completed()
	aggregation.NodeRuns = append(aggregation.NodeRuns, api.NodeRunInfo{Node: "mean", Status: api.StatusFailed, Error: userError("no numbers")})
	whole := &api.RunResult{RunID: "r4", Status: api.StatusFailed, Error: userError("no worker")}
	canceled := &api.RunResult{RunID: "r5", Status: api.StatusCanceled}

	tests := map[string]struct {
		result *api.RunResult
		args   []string
		stderr string
		prints string
	}{
		"one run": {single, nil, "nomad-promptflow: ask.py:4:2: Execution failure in 'ask': (KeyError) 'x' (UserError/ToolExecutionError)\n", "Failed: answer after "},
		"a line":  {batch, []string{"-data", data}, "nomad-promptflow: line 1: ask.py:4:2: Execution failure in 'ask': (KeyError) 'x' (UserError/ToolExecutionError)\n", "1 of 2 lines completed"},
		"every line": {none, []string{"-data", data}, `nomad-promptflow: line 0: no 0 (UserError/ToolExecutionError)
nomad-promptflow: line 1: no 1 (UserError/ToolExecutionError)
nomad-promptflow: line 2: no 2 (UserError/ToolExecutionError)
nomad-promptflow: line 3: no 3 (UserError/ToolExecutionError)
nomad-promptflow: line 4: no 4 (UserError/ToolExecutionError)
… and 3 more
`, "0 of 8 lines completed"},
		"an aggregation":  {aggregation, nil, "nomad-promptflow: aggregation node \"mean\": no numbers (UserError/ToolExecutionError)\n", "answer: yes\n"},
		"the whole":       {whole, nil, "nomad-promptflow: no worker (UserError/ToolExecutionError)\n", "Failed: answer after "},
		"a cancelled run": {canceled, nil, "nomad-promptflow: run r5 ended with status Canceled\n", "Canceled: answer after "},
		"as JSON":         {single, []string{"-json"}, "nomad-promptflow: ask.py:4:2: Execution failure in 'ask': (KeyError) 'x' (UserError/ToolExecutionError)\n", `"status": "Failed"`},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := newCanned(t, shared(answer{200, tc.result}))
			code, stdout, stderr := invoke(append([]string{"run", flow, "-address", server.URL}, tc.args...)...)
			test.Eq(t, exitFailure, code)
			test.Eq(t, tc.stderr, stderr)
			test.StrContains(t, stdout, tc.prints)
		})
	}
}

func TestRun_prints_json_that_reads_back(t *testing.T) {
	t.Parallel()
	result := completed()
	result.Output = json.RawMessage(`{"z":1.50,"a":"ü<&>","big":12345678901234567890}`)
	server := newCanned(t, shared(answer{200, result}))
	code, stdout, stderr := invoke("run", flowFolder(t), "-address", server.URL, "-json")
	test.Eq(t, exitOK, code)
	test.Eq(t, "", stderr)
	var got api.RunResult
	must.NoError(t, json.Unmarshal([]byte(stdout), &got))
	object, err := members(got.Output)
	must.NoError(t, err)
	test.Eq(t, []string{"z", "a", "big"}, []string{object[0].name, object[1].name, object[2].name})
	test.Eq(t, []string{"1.50", "ü<&>", "12345678901234567890"}, []string{text(object[0].value), text(object[1].value), text(object[2].value)})
	test.Eq(t, "r1", got.RunID)
	test.Eq(t, "ask", got.NodeRuns[0].Node)
	test.Eq(t, 0, *got.FlowRuns[0].Index)
	test.EqJSON(t, `{"duration":0.2}`, string(got.NodeRuns[0].SystemMetrics))
}

func TestKeyValues(t *testing.T) {
	t.Parallel()
	values, err := keyValues("-x", []string{"a=1", "b=", "c=d=e", "a=2"})
	must.NoError(t, err)
	test.Eq(t, map[string]string{"a": "2", "b": "", "c": "d=e"}, values)
	values, err = keyValues("-x", nil)
	must.NoError(t, err)
	test.MapEmpty(t, values)
	for _, pair := range []string{"", "a", "=", "=1"} {
		_, err := keyValues("-x", []string{pair})
		test.ErrorIs(t, err, errUsage)
	}
}

func TestReadLines_keeps_lines_apart_and_takes_long_ones(t *testing.T) {
	t.Parallel()
	long := `{"text":"` + strings.Repeat("x", 1<<20) + `"}`
	lines, err := readLines(file(t, "data.jsonl", "{\"a\":1}\n"+long+"\n\t{\"b\":2}  \n"))
	must.NoError(t, err)
	must.Len(t, 3, lines)
	test.Eq(t, `{"a":1}`, string(lines[0]))
	test.True(t, long == string(lines[1]))
	test.Eq(t, `{"b":2}`, string(lines[2]))
}

func TestPrint_a_run(t *testing.T) {
	t.Parallel()
	node := func(name, status, metrics string) api.NodeRunInfo {
		return api.NodeRunInfo{Node: name, Status: status, SystemMetrics: json.RawMessage(metrics), Index: index(0)}
	}
	tests := map[string]struct {
		result *api.RunResult
		want   string
	}{
		"of one line": {&api.RunResult{
			RunID: "r1", Status: api.StatusCompleted, Duration: 1.5, Runtime: "shared", Instance: "shared-0",
			Output:  json.RawMessage(`{"poem":"one\ntwo\n","n":1.0,"none":null,"list":[1,"a"]}`),
			Metrics: json.RawMessage(`{"accuracy":0.5,"n":2}`),
			NodeRuns: []api.NodeRunInfo{
				node("ask", api.StatusCompleted, `{"duration":1.25}`), node("skip", api.StatusBypassed, `{"duration":0}`), node("odd", api.StatusCompleted, `null`),
			},
		}, `poem: 
  one
  two
n: 1.0
none: null
list: [1,"a"]

Metrics
  accuracy = 0.5
  n = 2

NODE  STATUS     MEDIAN  MAX
ask   Completed  1.25 s  1.25 s
skip  Bypassed   -       -
odd   Completed  -       -

Completed: answer after 2.00 s (1.50 s in the runtime), run r1 on runtime shared, instance shared-0
`},
		"of a batch": {&api.RunResult{
			RunID: "r2", Status: api.StatusCompleted, Duration: 0.02,
			Outputs:  []json.RawMessage{[]byte(`{"answer":"yes\nno","line_number":0}`), []byte(`{"answer":"` + strings.Repeat("ü", 60) + `","line_number":2}`)},
			FlowRuns: make([]api.FlowRunInfo, 3), Metrics: json.RawMessage(`{}`),
			NodeRuns: []api.NodeRunInfo{
				node("ask", api.StatusCompleted, `{"duration":0.003}`), node("ask", api.StatusFailed, `{"duration":0.001}`), node("ask", api.StatusCompleted, `{"duration":0.002}`),
				node("mean", api.StatusCompleted, `{"duration":0.1234}`),
			},
		}, `LINE  ANSWER
0     yes no
2     ` + strings.Repeat("ü", 47) + `…

NODE  STATUS                 MEDIAN  MAX
ask   2 Completed, 1 Failed  2.0 ms  3.0 ms
mean  Completed              123 ms  123 ms

Completed: answer after 2.00 s (20.0 ms in the runtime), 2 of 3 lines completed, run r2
`},
		"without anything": {&api.RunResult{RunID: "r3", Status: api.StatusFailed, Output: json.RawMessage(`null`)}, "\nFailed: answer after 2.00 s (0.0 ms in the runtime), run r3\n"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out strings.Builder
			c := &runCommand{meta: meta{stdout: &out, stderr: io.Discard}}
			c.printRun(tc.result, nil, 2*time.Second)
			test.Eq(t, tc.want, out.String())
		})
	}
}

func TestMembers_keeps_the_order_and_the_spelling(t *testing.T) {
	t.Parallel()
	got, err := members(json.RawMessage(` {"b": 1.50, "a": {"x": [1, 2]}, "b": null}`))
	must.NoError(t, err)
	test.Eq(t, []member{{"b", []byte("1.50")}, {"a", []byte(`{"x": [1, 2]}`)}, {"b", []byte("null")}}, got)
	for _, nothing := range []string{"", "null", "{}"} {
		got, err := members(json.RawMessage(nothing))
		test.NoError(t, err)
		test.SliceEmpty(t, got)
	}
	for _, bad := range []string{"[1]", `"a"`, `{"a"`, `{"a": x}`, `{"a": 1 "b"}`} {
		_, err := members(json.RawMessage(bad))
		test.Error(t, err, test.Sprint(bad))
	}
}

func TestText_cell_and_seconds(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]string{`"a\nb"`: "a\nb", `""`: "", `1.0`: "1.0", `null`: "null", `true`: "true", `{"a":1}`: `{"a":1}`} {
		test.Eq(t, want, text(json.RawMessage(value)))
	}
	full := strings.Repeat("x", maxCell)
	for value, want := range map[string]string{"": "", "a\tb\n\nc  d\n": "a b c d", full: full, full + "x": full[1:] + "…"} {
		test.Eq(t, want, cell(value))
	}
	for value, want := range map[float64]string{
		0: "0.0 ms", 0.00149: "1.5 ms", 0.0994: "99.4 ms", 0.0996: "100 ms", 0.5: "500 ms", 0.9994: "999 ms", 0.9996: "1.00 s", 1: "1.00 s", 75.123: "75.12 s",
	} {
		test.Eq(t, want, seconds(value))
	}
}

func TestNodeTimes_status(t *testing.T) {
	t.Parallel()
	tests := []struct {
		statuses map[string]int
		want     string
	}{
		{map[string]int{api.StatusFailed: 1}, "Failed"},
		{map[string]int{api.StatusCompleted: 3}, "3 Completed"},
		{map[string]int{api.StatusFailed: 1, api.StatusBypassed: 1, api.StatusCompleted: 12}, "1 Bypassed, 12 Completed, 1 Failed"},
	}
	for _, tc := range tests {
		test.Eq(t, tc.want, (&nodeTimes{statuses: tc.statuses}).status())
	}
}

package run

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/e2e/harness"
	"github.com/nomad-promptflow/nomad-promptflow/e2e/openai"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/flow"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/worker"
)

// TestScriptFidelity runs the flex flows of testdata here and on prompt flow's own executor.
func TestScriptFidelity(t *testing.T) {
	harness.Integration(t)
	files, err := filepath.Glob("testdata/flex/*/flow.flex.yaml")
	must.NoError(t, err)
	must.SliceNotEmpty(t, files)
	connections, err := filepath.Abs("testdata/flex/connections.json")
	must.NoError(t, err)
	rig := scriptRig{workers: startWorkers(t), connections: connections}
	theirs := rig.oracle(t, files...)
	for _, file := range files {
		t.Run(filepath.Base(filepath.Dir(file)), func(t *testing.T) {
			for _, c := range casesOf(t, filepath.Join(filepath.Dir(file), "cases.json")) {
				compare(t, theirs[0], rig.run(t, file, c))
				theirs = theirs[1:]
			}
		})
	}
}

// TestPromptyFidelity runs the prompty files of testdata here and with prompt flow's own class: what they give and what they ask the
// model must be the same.
func TestPromptyFidelity(t *testing.T) {
	harness.Integration(t)
	files, err := filepath.Glob("testdata/prompty/*.prompty")
	must.NoError(t, err)
	must.SliceNotEmpty(t, files)
	model, url := openai.Start(t)
	rig := promptyRig(t, url)
	rig.workers = startWorkers(t)
	rig.native = map[string]bool{}
	theirs, asked := rig.promptyOracle(t, model, files)
	for _, file := range files {
		name := filepath.Base(file)
		t.Run(strings.TrimSuffix(name, ".prompty"), func(t *testing.T) {
			before := len(model.Requests())
			model.Fail(failuresOf(name)...)
			for _, c := range casesOf(t, strings.TrimSuffix(file, ".prompty")+".json") {
				compare(t, theirs[name][0], rig.run(t, file, c))
				theirs[name] = theirs[name][1:]
			}
			test.Eq(t, asked[name], requestTexts(model.Requests()[before:]))
		})
	}
	var native []string
	for name := range rig.native {
		native = append(native, strings.TrimSuffix(name, ".prompty"))
	}
	slices.Sort(native)
	test.Eq(t, []string{ // the others, and single cases of these, are left to prompt flow's own class
		"azure", "basic", "completion", "default_connection", "fails", "functions", "inline_azure", "json_free", "json_object", "no_inputs", "reference", "roles",
		"sample", "signature", "tools", "wrong_template",
	}, native)
}

// promptyOracle returns, by file, what prompt flow gives for every case and what it asks the model.
func (r scriptRig) promptyOracle(t *testing.T, model *openai.Server, files []string) (map[string][]*value.Dict, map[string][]string) {
	t.Helper()
	failing := func(file string) bool { return failuresOf(filepath.Base(file)) != nil }
	calm := slices.DeleteFunc(slices.Clone(files), failing)
	results := r.oracle(t, calm...)
	rest := slices.DeleteFunc(slices.Clone(files), func(file string) bool { return !failing(file) })
	for _, file := range rest {
		model.Fail(append([]openai.Failure{{}}, failuresOf(filepath.Base(file))...)...) // the first is for the mark
	}
	results = append(results, r.oracle(t, rest...)...)
	theirs := map[string][]*value.Dict{}
	for _, file := range append(calm, rest...) {
		n := len(casesOf(t, strings.TrimSuffix(file, ".prompty")+".json"))
		theirs[filepath.Base(file)] = results[:n]
		results = results[n:]
	}
	asked := map[string][]string{}
	name := ""
	for _, request := range model.Requests() {
		if mark, ok := strings.CutPrefix(request.Path, "/mark/"); ok {
			name = mark
			continue
		}
		asked[name] = append(asked[name], requestTexts([]openai.Request{request})...)
	}
	return theirs, asked
}

// failuresOf are the model's answers to the requests of fails.prompty.
func failuresOf(name string) []openai.Failure {
	if name != "fails.prompty" {
		return nil
	}
	soon := map[string]string{"Retry-After": "0.01"}
	again := openai.Failure{Status: 422, Header: soon, Message: "unprocessable", Type: "x"}
	return []openai.Failure{
		{Status: 429, Header: soon, Message: "slow down"}, {Status: 500, Header: soon, Message: "oops"}, {}, // the last is an answer
		{Status: 400, Message: "bad request", Type: "invalid_request_error"}, {Status: 401, Message: "who are you"},
		again, again, again, {Status: 429, Message: "no money", Type: "insufficient_quota"},
	}
}

// requestTexts shows what a model was asked, but for what no two clients have in common.
func requestTexts(requests []openai.Request) []string {
	var texts []string
	for _, r := range requests {
		body, err := value.Decode(r.Body)
		text := r.Path
		for _, name := range []string{"Authorization", "Api-Key", "Ms-Azure-Ai-Promptflow-Called-From", "Openai-Organization"} {
			text += " " + name + "=" + r.Header.Get(name)
		}
		if d, ok := body.(*value.Dict); ok && err == nil {
			for _, name := range slices.Sorted(slices.Values(d.Keys())) {
				v, _ := d.Get(name)
				text += "\n" + name + "=" + string(value.Encode(v))
			}
		}
		texts = append(texts, text)
	}
	return texts
}

// scriptRig runs scripts, here and there, in the same surroundings.
type scriptRig struct {
	workers     Workers
	connections string // file
	environment map[string]string
	native      map[string]bool // the prompty files with a case that needed no Python; nil: nobody asks
}

func startWorkers(t *testing.T) Workers {
	t.Helper()
	manager, err := worker.Start(t.Context(), worker.Config{Python: harness.Python(t), Dir: t.TempDir(), Workers: 2})
	must.NoError(t, err)
	t.Cleanup(func() { test.NoError(t, manager.Close()) })
	return FromManager(manager)
}

// promptyRig has connections to a fake model, by name and by environment.
func promptyRig(t *testing.T, url string) scriptRig {
	t.Helper()
	connections := dict(
		"open", dict("type", "OpenAIConnection", "module", "promptflow.connections", "value", dict("api_key", openai.Key, "base_url", url+"/v1", "organization", "org")),
		"azure", dict("type", "AzureOpenAIConnection", "module", "promptflow.connections", "value", dict("api_key", openai.Key, "api_base", url, "api_version", "2024-03-01")),
		"box", dict("type", "CustomConnection", "module", "promptflow.connections", "value", dict("a", "b"), "secret_keys", []any{"a"}),
	)
	file := filepath.Join(t.TempDir(), "connections.json")
	must.NoError(t, os.WriteFile(file, value.Encode(connections), 0o600))
	return scriptRig{connections: file, environment: map[string]string{
		"PROMPTY_TEST_URL": url + "/v1", "PROMPTY_TEST_AZURE_URL": url, "PROMPTY_TEST_KEY": openai.Key, "OPENAI_API_KEY": openai.Key, "OPENAI_BASE_URL": url + "/v1",
		"AZURE_OPENAI_ENDPOINT": url, "AZURE_OPENAI_API_KEY": openai.Key, "SCRIPTS_MARK": url,
	}}
}

func casesOf(t *testing.T, file string) []*value.Dict {
	t.Helper()
	data, err := os.ReadFile(file)
	must.NoError(t, err)
	v, err := value.Decode(data)
	must.NoError(t, err)
	var cases []*value.Dict
	for _, c := range v.([]any) {
		cases = append(cases, c.(*value.Dict))
	}
	return cases
}

// oracle returns what prompt flow gives for every case of every file.
func (r scriptRig) oracle(t *testing.T, files ...string) []*value.Dict {
	t.Helper()
	args := []string{"testdata/scripts.py", r.connections}
	for _, file := range files {
		full, err := filepath.Abs(file)
		must.NoError(t, err)
		args = append(args, full)
	}
	cmd := exec.CommandContext(t.Context(), harness.Python(t), args...)
	cmd.Env = os.Environ()
	for name, text := range r.environment {
		cmd.Env = append(cmd.Env, name+"="+text)
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	must.NoError(t, err, must.Sprint(stderr.String()))
	var results []*value.Dict
	for line := range strings.Lines(string(out)) {
		d, err := value.DecodeDict([]byte(line))
		must.NoError(t, err, must.Sprint(stderr.String()))
		results = append(results, d)
	}
	return results
}

func (r scriptRig) run(t *testing.T, file string, c *value.Dict) *value.Dict {
	t.Helper()
	serving, _ := c.Get("serving")
	initial, _ := c.Get("init")
	config := Config{
		Digest: file, Dir: filepath.Dir(file), Flow: flow.Options{File: filepath.Base(file)}, Workers: r.workers, ConnectionsFile: r.connections,
		Environment: Overwriting(r.environment), LineTimeout: time.Minute, Lines: 1, Serving: value.Truth(serving),
	}
	config.Init, _ = initial.(*value.Dict)
	x, err := Load(t.Context(), config)
	if err != nil {
		var e *api.Error
		must.True(t, errors.As(err, &e), must.Sprintf("%v", err))
		return dict("failure", scriptFailure(t, e))
	}
	defer x.Close()
	if r.native != nil && x.prompty != nil {
		r.native[filepath.Base(file)] = true
	}
	inputs, _ := c.Get("inputs")
	if config.Serving {
		return dict("lines", []any{scriptLine(t, &x.RunLine(t.Context(), "run", inputs.(*value.Dict)).Info)}, "metrics", value.NewDict())
	}
	request := &api.RunRequest{RunID: "run", Inputs: value.Encode(inputs)}
	if lines, ok := c.Get("lines"); ok {
		request.Inputs, request.Lines = nil, []json.RawMessage{}
		for _, line := range lines.([]any) {
			request.Lines = append(request.Lines, value.Encode(line))
		}
	}
	result, err := x.Run(t.Context(), request)
	must.NoError(t, err)
	lines := []any{}
	for i := range result.FlowRuns {
		lines = append(lines, scriptLine(t, &result.FlowRuns[i]))
	}
	return dict("lines", lines, "metrics", decoded(t, result.Metrics))
}

func scriptLine(t *testing.T, info *api.FlowRunInfo) *value.Dict {
	t.Helper()
	return dict("status", info.Status, "output", decoded(t, info.Output), "error", scriptFailure(t, info.Error), "inputs", decoded(t, info.Inputs))
}

// providerWords are what each connection provider says in its own way.
var providerWords = regexp.MustCompile(`Available keys are .*`)

func scriptFailure(t *testing.T, e *api.Error) any {
	t.Helper()
	if e == nil {
		return nil
	}
	codes := []any{}
	for _, c := range e.Chain() {
		codes = append(codes, c)
	}
	out := dict("codes", codes, "message", providerWords.ReplaceAllString(e.Message, "…"), "type", nil, "detail", nil, "traceback", "")
	for _, info := range e.AdditionalInfo {
		if info.Type != "FlexFlowExecutionErrorDetails" {
			continue
		}
		d, err := value.DecodeDict(info.Info)
		must.NoError(t, err)
		for key, name := range map[string]string{"type": "type", "message": "detail"} {
			v, _ := d.Get(key)
			out.Set(name, providerWords.ReplaceAllString(value.Str(v), "…"))
		}
		traceback, _ := d.Get("traceback")
		lines := strings.Split(strings.TrimSpace(value.Str(traceback)), "\n")
		out.Set("traceback", providerWords.ReplaceAllString(lines[len(lines)-1], "…"))
	}
	return out
}

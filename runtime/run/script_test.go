package run

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/e2e/harness"
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
	theirs := scriptOracle(t, connections, files)
	manager, err := worker.Start(t.Context(), worker.Config{Python: harness.Python(t), Dir: t.TempDir(), Workers: 2})
	must.NoError(t, err)
	t.Cleanup(func() { test.NoError(t, manager.Close()) })
	for _, file := range files {
		t.Run(filepath.Base(filepath.Dir(file)), func(t *testing.T) {
			for _, c := range casesOf(t, filepath.Join(filepath.Dir(file), "cases.json")) {
				ours := runScriptCase(t, FromManager(manager), connections, file, c)
				compare(t, theirs[0], ours)
				theirs = theirs[1:]
			}
		})
	}
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

// scriptOracle returns what prompt flow gives for every case of every file.
func scriptOracle(t *testing.T, connections string, files []string) []*value.Dict {
	t.Helper()
	args := []string{"testdata/scripts.py", connections}
	for _, file := range files {
		full, err := filepath.Abs(file)
		must.NoError(t, err)
		args = append(args, full)
	}
	cmd := exec.CommandContext(t.Context(), harness.Python(t), args...)
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

func runScriptCase(t *testing.T, workers Workers, connections, file string, c *value.Dict) *value.Dict {
	t.Helper()
	serving, _ := c.Get("serving")
	initial, _ := c.Get("init")
	config := Config{
		Digest: file, Dir: filepath.Dir(file), Flow: flow.Options{File: filepath.Base(file)}, Workers: workers, ConnectionsFile: connections,
		Environment: Overwriting(nil), LineTimeout: time.Minute, Serving: value.Truth(serving),
	}
	config.Init, _ = initial.(*value.Dict)
	x, err := Load(t.Context(), config)
	if err != nil {
		var e *api.Error
		must.True(t, errors.As(err, &e), must.Sprintf("%v", err))
		return dict("failure", scriptFailure(t, e))
	}
	defer x.Close()
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

func scriptFailure(t *testing.T, e *api.Error) any {
	t.Helper()
	if e == nil {
		return nil
	}
	codes := []any{}
	for _, c := range e.Chain() {
		codes = append(codes, c)
	}
	// Each connection provider has its own words for what it has.
	message := regexp.MustCompile(`Available keys are .*`).ReplaceAllString(e.Message, "…")
	out := dict("codes", codes, "message", message, "type", nil, "detail", nil, "traceback", "")
	for _, info := range e.AdditionalInfo {
		if info.Type != "FlexFlowExecutionErrorDetails" {
			continue
		}
		d, err := value.DecodeDict(info.Info)
		must.NoError(t, err)
		for key, name := range map[string]string{"type": "type", "message": "detail"} {
			v, _ := d.Get(key)
			out.Set(name, v)
		}
		traceback, _ := d.Get("traceback")
		lines := strings.Split(strings.TrimSpace(value.Str(traceback)), "\n")
		out.Set("traceback", lines[len(lines)-1])
	}
	return out
}

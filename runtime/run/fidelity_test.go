package run

import (
	"bytes"
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
	"github.com/nomad-promptflow/nomad-promptflow/runtime/media"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/worker"
)

// TestFidelity runs the flows of testdata here and on prompt flow's own executor: outputs, statuses, records, metrics, error
// classes and messages must be the same.
func TestFidelity(t *testing.T) {
	harness.Integration(t)
	folders, err := filepath.Glob("testdata/[fw]*/*/flow.dag.yaml")
	must.NoError(t, err)
	must.SliceNotEmpty(t, folders)
	for i, f := range folders {
		folders[i], err = filepath.Abs(filepath.Dir(f))
		must.NoError(t, err)
	}
	theirs := oracle(t, folders)
	manager, err := worker.Start(t.Context(), worker.Config{Python: harness.Python(t), Dir: t.TempDir(), Workers: 2})
	must.NoError(t, err)
	t.Cleanup(func() { test.NoError(t, manager.Close()) })
	for i, folder := range folders {
		t.Run(filepath.Base(folder), func(t *testing.T) {
			ours := runFolder(t, FromManager(manager), folder, "")
			compare(t, theirs[i], ours)
		})
	}
}

func oracle(t *testing.T, folders []string) []*value.Dict {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), harness.Python(t), append([]string{"testdata/oracle.py"}, folders...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	must.NoError(t, err, must.Sprint(stderr.String()))
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	must.SliceLen(t, len(folders), lines, must.Sprint(stderr.String()))
	results := make([]*value.Dict, len(lines))
	for i, line := range lines {
		results[i], err = value.DecodeDict([]byte(line))
		must.NoError(t, err)
	}
	return results
}

// compare goes through both results together, so that a difference names its place.
func compare(t *testing.T, theirs, ours *value.Dict) {
	t.Helper()
	for _, d := range differences("", theirs, ours) {
		test.Eq(t, "", d)
	}
}

// address is where an object without a repr of its own lives, which differs from run to run.
var address = regexp.MustCompile(` at 0x[0-9a-f]+`)

func differences(path string, theirs, ours any) []string {
	a, aDict := theirs.(*value.Dict)
	b, bDict := ours.(*value.Dict)
	if aDict && bDict {
		var all []string
		keys := append(a.Keys(), b.Keys()...)
		slices.Sort(keys)
		for _, k := range slices.Compact(keys) {
			x, _ := a.Get(k)
			y, _ := b.Get(k)
			all = append(all, differences(path+"."+k, x, y)...)
		}
		return all
	}
	x, xList := theirs.([]any)
	y, yList := ours.([]any)
	if xList && yList && len(x) == len(y) {
		var all []string
		for i := range x {
			all = append(all, differences(path+"["+value.Str(int64(i))+"]", x[i], y[i])...)
		}
		return all
	}
	if address.ReplaceAllString(string(value.Encode(theirs)), "") == address.ReplaceAllString(string(value.Encode(ours)), "") {
		return nil
	}
	return []string{path + ": promptflow has " + value.Repr(theirs) + ", we have " + value.Repr(ours)}
}

func dict(pairs ...any) *value.Dict {
	d := value.NewDict()
	for i := 0; i < len(pairs); i += 2 {
		d.Set(pairs[i].(string), pairs[i+1])
	}
	return d
}

func runFolder(t *testing.T, workers Workers, folder, connections string) *value.Dict {
	t.Helper()
	x, err := Load(t.Context(), Config{Digest: filepath.Base(folder), Dir: folder, Workers: workers, Environment: Overwriting(nil), LineTimeout: time.Minute,
		ConnectionsFile: connections, Images: media.NewFetcher(media.PrivateAddresses)})
	if err != nil {
		var e *api.Error
		must.True(t, errors.As(err, &e), must.Sprintf("%v", err))
		test.NotNil(t, e.Location, test.Sprintf("no place: %s", e.Message))
		return dict("failure", failureOf(e))
	}
	defer x.Close()
	data, err := os.ReadFile(filepath.Join(folder, "cases.json"))
	must.NoError(t, err)
	v, err := value.Decode(data)
	must.NoError(t, err)
	var cases []any
	for _, c := range v.([]any) {
		cases = append(cases, runCase(t, x, c.(*value.Dict)))
	}
	return dict("cases", cases)
}

func runCase(t *testing.T, x *Executor, c *value.Dict) *value.Dict {
	t.Helper()
	request := &api.RunRequest{RunID: "run"}
	if lines, ok := c.Get("lines"); ok {
		request.Lines = []json.RawMessage{}
		for _, line := range lines.([]any) {
			request.Lines = append(request.Lines, value.Encode(line))
		}
	} else {
		inputs, _ := c.Get("inputs")
		request.Inputs = value.Encode(inputs)
	}
	result, err := x.Run(t.Context(), request)
	if err != nil {
		return dict("failure", failureOf(api.AsError(err)))
	}
	return summary(t, x, result, request.Lines != nil)
}

func summary(t *testing.T, x *Executor, result *api.RunResult, batch bool) *value.Dict {
	t.Helper()
	aggregated := value.NewDict()
	lines := []any{}
	for _, info := range result.FlowRuns {
		nodes := value.NewDict()
		for _, n := range result.NodeRuns {
			switch {
			case strings.HasSuffix(n.RunID, "_reduce"):
				aggregated.Set(n.Node, nodeOf(t, n))
			case n.ParentRunID == info.RunID && n.Status != api.StatusCanceled:
				nodes.Set(n.Node, nodeOf(t, n))
			}
		}
		metrics, err := value.DecodeDict(info.SystemMetrics)
		must.NoError(t, err)
		var names []any
		for _, name := range slices.Sorted(slices.Values(metrics.Keys())) {
			names = append(names, name)
		}
		var output any
		if info.Status == api.StatusCompleted {
			output = decoded(t, info.Output)
		}
		lines = append(lines, dict("status", info.Status, "run_id", info.RunID, "index", index(info.Index), "inputs", decoded(t, info.Inputs),
			"output", output, "error", failureOf(info.Error), "nodes", nodes, "metrics", names))
	}
	var aggregation any
	switch {
	case len(result.FlowRuns) > 0 && result.Error != nil && result.FlowRuns[0].Error == nil:
		aggregation = dict("failure", failureOf(result.Error))
	case aggregated.Len() > 0 || batch && x.flow.HasAggregation():
		aggregation = dict("nodes", aggregated, "metrics", decoded(t, result.Metrics))
	}
	return dict("lines", lines, "aggregation", aggregation)
}

func index(i *int) any {
	if i == nil {
		return nil
	}
	return int64(*i)
}

func decoded(t *testing.T, data json.RawMessage) any {
	t.Helper()
	v, err := value.Decode(data)
	must.NoError(t, err, must.Sprint(string(data)))
	return v
}

func nodeOf(t *testing.T, n api.NodeRunInfo) any {
	t.Helper()
	var stdout any
	if n.Logs != nil {
		stdout = n.Logs["stdout"]
		if _, text, ok := strings.Cut(n.Logs["stdout"], "] "); ok {
			stdout = text
		}
	}
	return dict("node", n.Node, "run_id", n.RunID, "status", n.Status, "inputs", decoded(t, n.Inputs), "output", decoded(t, n.Output),
		"error", failureOf(n.Error), "index", index(n.Index), "parent_run_id", n.ParentRunID, "flow_run_id", n.FlowRunID, "stdout", stdout,
		"api_calls", decoded(t, n.APICalls))
}

// providerText is what a connection provider says of a missing connection; each has its own words.
var providerText = regexp.MustCompile(`(?s)(Get connection '.*' for node '.*' error: ).*`)

func failureOf(e *api.Error) any {
	if e == nil {
		return nil
	}
	var typ, line any
	for _, info := range e.AdditionalInfo {
		if d, err := value.DecodeDict(info.Info); err == nil && info.Type == "ToolExecutionErrorDetails" {
			typ, _ = d.Get("type")
			line, _ = d.Get("lineno")
		}
	}
	var codes []any
	for _, c := range e.Chain() {
		codes = append(codes, c)
	}
	return dict("codes", codes, "message", providerText.ReplaceAllString(e.Message, "$1"), "type", typ, "line", line)
}

package run

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/e2e/harness"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/worker"
)

// singleNodes are nodes of the test flows, with inputs and outputs of other nodes.
var singleNodes = []struct{ folder, node, inputs, outputs string }{
	{"grade", "grade", `{"answer":"yes","truth":"yes"}`, `{}`},
	{"grade", "grade", `{}`, `{}`},
	{"grade", "maybe", `{"answer":"a","truth":"b"}`, `{}`},
	{"grade", "summary", `{"answer":"a"}`, `{"grade":{"verdict":"right"},"maybe":1}`},
	{"grade", "summary", `{"weight":"heavy"}`, `{"grade":{"verdict":"right"},"maybe":1}`},
	{"grade", "after", `{"answer":"a"}`, `{"summary":{"any":[1]}}`},
	{"grade", "nobody", `{}`, `{}`},
	{"properties", "use", `{}`, `{"thing":{"name":"n","tags":["a"]},"pair":[1,2]}`},
	{"properties", "use", `{}`, `{"thing":{"tags":["a"]},"pair":[1,2]}`},
	{"properties", "use", `{}`, `{"thing":{"name":"n","tags":["a"]}}`},
	{"failures", "fail", `{"how":"raise"}`, `{}`},
	{"failures", "fail", `{"how":"ok"}`, `{}`},
	{"failures", "after", `{}`, `{"fail":{"value":5}}`},
	{"failures", "after", `{}`, `{"fail":5}`},
	{"activate", "right", `{"n":1}`, `{"check":{"odd text":"o"}}`},
	{"activate", "join", `{}`, `{"left":null,"right":2,"check":{"a":[true,null]}}`},
	{"types", "show", `{"i":"7","d":"1e3","l":"[1]"}`, `{}`},
	{"types", "show", `{"i":"x"}`, `{}`},
	{"literals", "prompt", `{}`, `{"literal":{"a":1}}`},
	{"literals", "literal", `{}`, `{}`},
	{"images", "make", `{}`, `{}`},
	{"images", "make", `{"picture":"gone.png"}`, `{}`},
	{"images", "look", `{}`, `{"nest":{"list":[1,{"p":{"data:image/gif;path":"dot.gif"}}],"plain":1},"show":"text"}`},
	{"images", "show", `{"gallery":[{"data:image/gif;path":"dot.gif"}]}`, `{"make":{"data:image/gif;base64":"R0lG"},"nest":{"list":[]}}`},
	{"images", "count", `{"picture":"dot.gif"}`, `{"nest":{"list":[{"data:image/gif;path":"dot.gif"}]}}`},
	{"vision", "answer", `{"question":[{"type":"text","text":"hi"}]}`, `{"history":"text"}`},
}

// TestRunNode_isPromptFlows runs single nodes here and on prompt flow's own executor.
func TestRunNode_isPromptFlows(t *testing.T) {
	harness.Integration(t)
	t.Parallel()
	var document []any
	for _, c := range singleNodes {
		folder, err := filepath.Abs(filepath.Join("testdata/flows", c.folder))
		must.NoError(t, err)
		document = append(document, dict("folder", folder, "node", c.node, "inputs", decoded(t, json.RawMessage(c.inputs)), "outputs", decoded(t, json.RawMessage(c.outputs))))
	}
	cmd := exec.CommandContext(t.Context(), harness.Python(t), "testdata/oracle_node.py")
	cmd.Stdin = bytes.NewReader(value.Encode(document))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	must.NoError(t, err, must.Sprint(stderr.String()))
	theirs := decoded(t, out).([]any)
	manager, err := worker.Start(t.Context(), worker.Config{Python: harness.Python(t), Dir: t.TempDir(), Workers: 1})
	must.NoError(t, err)
	t.Cleanup(func() { test.NoError(t, manager.Close()) })
	completed := 0
	for i, c := range singleNodes {
		ours := oneNode(t, FromManager(manager), filepath.Join("testdata/flows", c.folder), c.node, c.inputs, c.outputs)
		if status, _ := ours.Get("status"); status == api.StatusCompleted {
			completed++
		}
		for _, d := range differences("", theirs[i], ours) {
			test.Eq(t, "", d, test.Sprintf("%+v", c))
		}
	}
	test.Greater(t, 9, completed)
}

func oneNode(t *testing.T, workers Workers, folder, node, inputs, outputs string) *value.Dict {
	t.Helper()
	folder, err := filepath.Abs(folder)
	must.NoError(t, err)
	x, err := Load(t.Context(), Config{Dir: folder, Workers: workers, Environment: Overwriting(nil), Node: node})
	if err != nil {
		return dict("failure", shortFailure(api.AsError(err)))
	}
	defer x.Close()
	result, err := x.Run(t.Context(), &api.RunRequest{RunID: "r", Node: node, Inputs: json.RawMessage(inputs), NodeOutputs: json.RawMessage(outputs)})
	if err != nil {
		return dict("failure", shortFailure(api.AsError(err)))
	}
	must.SliceLen(t, 1, result.NodeRuns)
	must.SliceEmpty(t, result.FlowRuns)
	n := result.NodeRuns[0]
	return dict("status", n.Status, "node", n.Node, "index", index(n.Index), "error", shortFailure(n.Error), "inputs", decoded(t, n.Inputs),
		"output", decoded(t, n.Output), "reduces", strings.HasSuffix(n.RunID, "_reduce"))
}

func shortFailure(e *api.Error) any {
	if e == nil {
		return nil
	}
	codes := []any{}
	for _, c := range e.Chain() {
		codes = append(codes, c)
	}
	return dict("codes", codes, "message", e.Message)
}

func TestRunNode_doesNotMindTheOtherNodes(t *testing.T) {
	t.Parallel()
	yaml := `inputs: {a: {type: int, default: 1}}
outputs: {o: {type: int, reference: "${gone.output}"}}
nodes:
- {name: p, type: prompt, source: {type: code, path: p.jinja2}, inputs: {a: "${inputs.a}", b: "${gone.output.x}"}, activate: {when: "${inputs.a}", is: 2}}
- {name: broken, type: prompt, source: {type: code, path: missing.jinja2}}
`
	x := loadPrompt(t, yaml, "a={{ a }} b={{ b }}", func(c *Config) { c.Node = "p" })
	result, err := x.Run(t.Context(), &api.RunRequest{Node: "p", NodeOutputs: json.RawMessage(`{"gone":{"x":5}}`)})
	must.NoError(t, err)
	test.Eq(t, api.StatusCompleted, result.Status)
	test.Eq(t, `"a=1 b=5"`, string(result.Output))
	_, err = x.Run(t.Context(), &api.RunRequest{Node: "p", NodeOutputs: json.RawMessage(`{}`)})
	test.Eq(t, "InputNotFoundFromAncestorNodeOutput", api.AsError(err).Class())
	_, err = x.Run(t.Context(), &api.RunRequest{Node: "p", Lines: []json.RawMessage{}})
	test.ErrorContains(t, err, "both 'node' and 'lines'")
}

// loadPrompt loads a flow with one template, p.jinja2.
func loadPrompt(t *testing.T, yaml, template string, change func(*Config)) *Executor {
	t.Helper()
	dir := t.TempDir()
	must.NoError(t, os.WriteFile(filepath.Join(dir, "flow.dag.yaml"), []byte(yaml), 0o600))
	must.NoError(t, os.WriteFile(filepath.Join(dir, "p.jinja2"), []byte(template), 0o600))
	c := Config{Dir: dir, Workers: &fakeWorkers{}, Environment: Overwriting(nil)}
	change(&c)
	x, err := Load(t.Context(), c)
	must.NoError(t, err)
	t.Cleanup(x.Close)
	return x
}

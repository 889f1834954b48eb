package run

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/e2e/harness"
	"github.com/nomad-promptflow/nomad-promptflow/e2e/openai"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/worker"
)

// BenchmarkPrompty runs a prompty file against an endpoint that answers at once: here, and by prompt flow's own class in a worker,
// which an input of the name timeout asks for.
func BenchmarkPrompty(b *testing.B) {
	harness.Integration(b)
	model, url := openai.Start(b)
	model.APIKey = ""
	manager, err := worker.Start(b.Context(), worker.Config{Python: harness.Python(b), Dir: b.TempDir()})
	must.NoError(b, err)
	b.Cleanup(func() { must.NoError(b, manager.Close()) })
	for name, input := range map[string]string{"here": "text", "worker": "timeout"} {
		b.Run(name, func(b *testing.B) {
			dir := b.TempDir()
			text := fmt.Sprintf("---\nmodel: {configuration: {type: openai, model: m, base_url: %s/v1, api_key: k}, parameters: {}}\ninputs: {%s: {type: double}}\n---\nuser:\n{{%s}}\n", url, input, input)
			must.NoError(b, os.WriteFile(filepath.Join(dir, "a.prompty"), []byte(text), 0o600))
			x, err := Load(b.Context(), Config{Digest: "sha256:bench", Dir: dir, Workers: FromManager(manager), Environment: Overwriting(nil)})
			must.NoError(b, err)
			defer x.Close()
			must.Eq(b, name == "here", x.prompty != nil)
			for b.Loop() {
				line := x.RunLine(b.Context(), "run", dict(input, 30.0))
				must.True(b, line.Completed(), must.Sprintf("%v", line.Info.Error))
			}
		})
	}
}

// BenchmarkFlex runs a function that does nothing: as a flex flow, and as the one node of a DAG.
func BenchmarkFlex(b *testing.B) {
	harness.Integration(b)
	manager, err := worker.Start(b.Context(), worker.Config{Python: harness.Python(b), Dir: b.TempDir()})
	must.NoError(b, err)
	b.Cleanup(func() { must.NoError(b, manager.Close()) })
	for name, files := range map[string]map[string]string{
		"sync":  {"flow.flex.yaml": "entry: f:f\n", "f.py": "def f(text: str):\n    return {'text': text}\n"},
		"async": {"flow.flex.yaml": "entry: f:f\n", "f.py": "async def f(text: str):\n    return {'text': text}\n"},
		"dag": {
			"flow.dag.yaml": "inputs: {text: {type: string}}\noutputs: {text: {type: string, reference: \"${f.output}\"}}\nnodes: [{name: f, type: python, source: {type: code, path: f.py}, inputs: {text: \"${inputs.text}\"}}]\n",
			"f.py":          "from promptflow.core import tool\n\n\n@tool\ndef f(text: str):\n    return text\n",
		},
	} {
		b.Run(name, func(b *testing.B) {
			dir := b.TempDir()
			for file, text := range files {
				must.NoError(b, os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600))
			}
			x, err := Load(b.Context(), Config{Digest: "sha256:bench", Dir: dir, Workers: FromManager(manager), Environment: Overwriting(nil)})
			must.NoError(b, err)
			defer x.Close()
			for b.Loop() {
				line := x.RunLine(b.Context(), "run", dict("text", "x"))
				must.True(b, line.Completed(), must.Sprintf("%v", line.Info.Error))
			}
		})
	}
}

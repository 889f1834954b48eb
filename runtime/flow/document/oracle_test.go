package document

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/e2e/harness"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

const readAll = `
import json, sys
from promptflow._utils.yaml_utils import load_yaml
for path in sys.argv[1:]:
    with open(path, encoding="utf-8") as f:
        print(json.dumps(load_yaml(f) or None))
`

// TestParse_readsWhatPromptFlowReads compares the corpus with the YAML reader of the real package.
func TestParse_readsWhatPromptFlowReads(t *testing.T) {
	harness.Integration(t)
	dir := t.TempDir()
	args := []string{"-c", readAll}
	var names []string
	for name, text := range corpus {
		must.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
		args = append(args, filepath.Join(dir, name))
		names = append(names, name)
	}
	out, err := exec.CommandContext(t.Context(), harness.Python(t), args...).CombinedOutput()
	must.NoError(t, err, must.Sprint(string(out)))
	lines := splitLines(out)
	must.SliceLen(t, len(names), lines)
	for i, name := range names {
		node, err := Parse([]byte(corpus[name]))
		must.NoError(t, err, must.Sprint(name))
		v, err := node.Value()
		must.NoError(t, err)
		test.Eq(t, lines[i], value.Dumps(v), test.Sprint(name))
	}
}

func splitLines(out []byte) []string {
	var lines []string
	start := 0
	for i, c := range out {
		if c == '\n' {
			lines = append(lines, string(out[start:i]))
			start = i + 1
		}
	}
	return lines
}

package run

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/e2e/harness"
)

// TestToolFidelity runs flows with package tools, custom llm tools, custom strong type connections, modules and assistants, here and on
// prompt flow's own executor. testdata/packages is an installed package with tools.
func TestToolFidelity(t *testing.T) {
	harness.Integration(t)
	packages, err := filepath.Abs("testdata/packages")
	must.NoError(t, err)
	t.Setenv("PYTHONPATH", packages)
	connections, err := filepath.Abs("testdata/tools/connections.json")
	must.NoError(t, err)
	text, err := os.ReadFile(connections)
	must.NoError(t, err)
	t.Setenv("ORACLE_CONNECTIONS", string(text))
	files, err := filepath.Glob("testdata/tools/*/flow.dag.yaml")
	must.NoError(t, err)
	must.SliceNotEmpty(t, files)
	folders := make([]string, len(files))
	for i, file := range files {
		folders[i], err = filepath.Abs(filepath.Dir(file))
		must.NoError(t, err)
	}
	theirs := oracle(t, folders)
	workers := startWorkers(t)
	for i, folder := range folders {
		t.Run(filepath.Base(folder), func(t *testing.T) {
			compare(t, theirs[i], runFolder(t, workers, folder, connections))
		})
	}
}

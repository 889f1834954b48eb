package worker

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/e2e/harness"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// within bounds a test's waits.
func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

var findPython sync.Once
var pythonPath string

// python returns the interpreter; looking for it imports prompt flow, so that is done once.
func python(t testing.TB) string {
	t.Helper()
	harness.Integration(t)
	findPython.Do(func() { pythonPath = harness.Python(t) })
	must.NotEq(t, "", pythonPath)
	return pythonPath
}

// startManager starts real Python with the packages of the lock file.
func startManager(t testing.TB, config Config) *Manager {
	t.Helper()
	config.Python = python(t)
	config.Dir = t.TempDir()
	config.Logger = hclog.New(&hclog.LoggerOptions{Level: hclog.Debug, Output: t.Output()})
	m, err := Start(within(t, time.Minute), config)
	must.NoError(t, err)
	t.Cleanup(func() { must.NoError(t, m.Close()) })
	return m
}

// node is a Python node of a script with inputs: pairs of name and literal or reference.
func node(name, path string, inputs ...any) *value.Dict {
	source := value.NewDict()
	source.Set("type", "code")
	source.Set("path", path)
	in := value.NewDict()
	for i := 0; i < len(inputs); i += 2 {
		in.Set(inputs[i].(string), inputs[i+1])
	}
	n := value.NewDict()
	n.Set("name", name)
	n.Set("type", "python")
	n.Set("source", source)
	n.Set("inputs", in)
	return n
}

// writeFlow writes files (name, content pairs) into a folder of its own.
func writeFlow(t testing.TB, files ...string) string {
	t.Helper()
	dir := t.TempDir()
	for i := 0; i < len(files); i += 2 {
		path := filepath.Join(dir, files[i])
		must.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must.NoError(t, os.WriteFile(path, []byte(files[i+1]), 0o644))
	}
	return dir
}

// open opens a flow and requires every node to load.
func open(t testing.TB, m *Manager, spec FlowSpec) *Flow {
	t.Helper()
	f, err := m.Open(within(t, time.Minute), spec)
	must.NoError(t, err)
	t.Cleanup(func() { must.NoError(t, f.Close()) })
	for _, tool := range f.Tools() {
		must.Nil(t, tool.Error)
	}
	return f
}

func lease(t testing.TB, f *Flow) *Session {
	t.Helper()
	s, err := f.Lease(within(t, time.Minute))
	must.NoError(t, err)
	t.Cleanup(s.Release)
	return s
}

// call runs a node with inputs (name, value pairs).
func call(t testing.TB, s *Session, nodeName string, inputs ...any) *Result {
	t.Helper()
	r, err := s.Call(within(t, time.Minute), callOf(nodeName, inputs...))
	must.NoError(t, err)
	return r
}

func callOf(nodeName string, inputs ...any) Call {
	c := Call{Node: nodeName, RunID: "run"}
	for i := 0; i < len(inputs); i += 2 {
		c.Inputs = append(c.Inputs, Input{Name: inputs[i].(string), Value: inputs[i+1]})
	}
	return c
}

const header = "from promptflow.core import tool, log_metric, ToolProvider\n"

// script is a Python file with the usual import.
func script(body string) string { return header + body }

// Package harness starts the real parts that integration tests run against (containerd, Python with prompt flow), each on
// loopback or a unix socket, in temporary folders, ended by process id when the test ends.
//
// It imports nothing else of ours, so that any package's tests may use it. A test that needs a real part calls [Integration]
// first: without PROMPTFLOW_INTEGRATION=1 in the environment it is skipped and says so; with it (as `make test` sets it) a missing
// part is a failure, never a skip.
package harness

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Integration skips the test unless integration tests were asked for.
func Integration(t testing.TB) {
	t.Helper()
	if os.Getenv("PROMPTFLOW_INTEGRATION") == "" {
		t.Skip("integration test: set PROMPTFLOW_INTEGRATION=1 (make test does)")
	}
}

// Root returns the repository's root folder.
func Root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatalf("harness: get working directory: %v", err)
	}
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := os.Stat(filepath.Join(d, "go.mod")); err == nil {
			return d
		}
		if d == filepath.Dir(d) {
			t.Fatalf("harness: no go.mod above %s", dir)
		}
	}
}

// Python returns an interpreter with the prompt flow packages of the lock file: PROMPTFLOW_PYTHON, else the one that
// `make bootstrap` made.
func Python(t testing.TB) string {
	t.Helper()
	python := os.Getenv("PROMPTFLOW_PYTHON")
	if python == "" {
		python = filepath.Join(Root(t), ".build", "venv", "bin", "python")
	}
	if err := exec.CommandContext(t.Context(), python, "-c", "import promptflow.core").Run(); err != nil {
		t.Fatalf("harness: %s cannot import promptflow.core: %v: run make bootstrap", python, err)
	}
	return python
}

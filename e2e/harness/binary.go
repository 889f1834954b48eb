package harness

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Binary returns the built program: PROMPTFLOW_BINARY, else the one that `make compile` made.
func Binary(t testing.TB) string {
	t.Helper()
	binary := os.Getenv("PROMPTFLOW_BINARY")
	if binary == "" {
		binary = filepath.Join(Root(t), ".build", "nomad-promptflow")
	}
	if err := exec.CommandContext(t.Context(), binary, "version").Run(); err != nil {
		t.Fatalf("harness: %s: %v: run make compile", binary, err)
	}
	return binary
}

// BaseCache is the folder of the base image's finished layers, which stays from one test run to the next.
func BaseCache(t testing.TB) string {
	t.Helper()
	return filepath.Join(Root(t), ".build", "base-cache")
}

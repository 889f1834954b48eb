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

// BinaryOfVersion builds the program with another version.
func BinaryOfVersion(t testing.TB, version string) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "nomad-promptflow")
	// As make compile builds it, so that only the linking is left to do.
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false",
		"-ldflags", "-s -w -X github.com/nomad-promptflow/nomad-promptflow/command.Version="+version, "-o", binary, ".")
	cmd.Dir = Root(t)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("harness: build version %s: %v\n%s", version, err, out)
	}
	return binary
}

// BaseCache is the folder of the base image's finished layers, which stays from one test run to the next.
func BaseCache(t testing.TB) string {
	t.Helper()
	return filepath.Join(Root(t), ".build", "base-cache")
}

package engine

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"
)

func TestRemoveDeadPipes(t *testing.T) {
	t.Parallel()
	ended := exec.CommandContext(t.Context(), "true")
	must.NoError(t, ended.Run())
	root := t.TempDir()
	for name, stays := range map[string]bool{
		strconv.Itoa(ended.Process.Pid): false, strconv.Itoa(os.Getpid()): true, "1": true, "0": true, "-1": true, "other": true,
	} {
		dir := filepath.Join(root, name)
		must.NoError(t, os.MkdirAll(filepath.Join(dir, "123"), 0o700))
		t.Cleanup(func() {
			_, err := os.Stat(dir)
			test.Eq(t, stays, err == nil, test.Sprint(name))
		})
	}
	removeDeadPipes(root)
	removeDeadPipes(filepath.Join(root, "missing"))
}

func TestShimBinary(t *testing.T) {
	t.Parallel()
	for runtime, want := range map[string]string{
		"io.containerd.runc.v2":  "containerd-shim-runc-v2",
		"io.containerd.runsc.v1": "containerd-shim-runsc-v1",
		"aws.firecracker":        "containerd-shim-aws-firecracker",
		"runc":                   "",
		".v2":                    "",
		"":                       "",
	} {
		test.Eq(t, want, shimBinary(runtime), test.Sprint(runtime))
	}
}

func TestHasShim(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	for name, mode := range map[string]os.FileMode{
		"bin/containerd-shim-runc-v2": 0o755, "bin/containerd-shim-plain-v1": 0o644, "opt/my-shim": 0o755,
	} {
		path := filepath.Join(root, name)
		must.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must.NoError(t, os.WriteFile(path, nil, mode))
	}
	must.NoError(t, os.Mkdir(filepath.Join(root, "bin/containerd-shim-folder-v1"), 0o755))
	for runtime, want := range map[string]bool{
		"io.containerd.runc.v2":   true,
		"io.containerd.plain.v1":  false,
		"io.containerd.folder.v1": false,
		"io.containerd.none.v1":   false,
		"/opt/my-shim":            true,
		"/opt/no-shim":            false,
		"nonsense":                false,
	} {
		test.Eq(t, want, hasShim(root, []string{"", "relative", "/sbin", "/bin"}, runtime), test.Sprint(runtime))
	}
}

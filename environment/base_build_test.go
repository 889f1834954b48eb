package environment

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/store"
)

// staticBinary builds a small static program; text makes it differ from others.
func staticBinary(t testing.TB, text string) string {
	t.Helper()
	dir := t.TempDir()
	source := fmt.Sprintf("package main\n\nfunc main() { println(%q) }\n", text)
	must.NoError(t, os.WriteFile(filepath.Join(dir, "main.go"), []byte(source), 0o644))
	binary := filepath.Join(dir, "program")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", binary, filepath.Join(dir, "main.go"))
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	out, err := cmd.CombinedOutput()
	must.NoError(t, err, must.Sprintf("%s", out))
	return binary
}

func TestOnlyAStaticBinaryForLinuxGetsIn(t *testing.T) {
	t.Parallel()
	script := filepath.Join(t.TempDir(), "script")
	must.NoError(t, os.WriteFile(script, []byte("#!/bin/sh\n"), 0o755))
	must.ErrorContains(t, checkBinary(script), "it must be a nomad-promptflow for Linux")
	must.ErrorContains(t, checkBinary("/bin/sh"), "it is dynamically linked (libc.so.6): build it with CGO_ENABLED=0")
	must.ErrorIs(t, checkBinary(filepath.Join(t.TempDir(), "none")), os.ErrNotExist)
	must.NoError(t, checkBinary(staticBinary(t, "x")))
}

func TestBadBinaryIsSaidBeforeAnythingIsMade(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, err := BuildBase(t.Context(), BaseOptions{Layout: filepath.Join(dir, "layout"), Cache: filepath.Join(dir, "cache"), Binary: "/bin/sh"})
	must.ErrorContains(t, err, "build base image: binary /bin/sh: it is dynamically linked")
	entries, err := os.ReadDir(dir)
	must.NoError(t, err)
	must.SliceEmpty(t, entries)
}

func TestMissingMmdebstrapIsSaidWithItsPackage(t *testing.T) {
	dir := t.TempDir()
	binary := staticBinary(t, "x")
	t.Setenv("PATH", dir)
	_, err := BuildBase(t.Context(), BaseOptions{Layout: filepath.Join(dir, "layout"), Cache: filepath.Join(dir, "cache"), Binary: binary})
	must.ErrorContains(t, err, "apt-get install mmdebstrap")
	mustLeaveNothing(t, filepath.Join(dir, "layout"), filepath.Join(dir, "cache"))
}

// mustLeaveNothing checks that a failed build left no tag, no layer, no temporary folder and no mount.
func mustLeaveNothing(t *testing.T, layout, cache string) {
	t.Helper()
	l, err := store.OpenLayout(layout)
	must.NoError(t, err)
	tags, err := l.Tags(t.Context())
	must.NoError(t, err)
	test.SliceEmpty(t, tags)
	for pattern, dir := range map[string]string{tempPrefix + "*": cache, "*": filepath.Join(layout, "ingest")} {
		left, err := filepath.Glob(filepath.Join(dir, pattern))
		must.NoError(t, err)
		test.SliceEmpty(t, left)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	must.NoError(t, err)
	test.StrNotContains(t, string(mounts), cache)
}

func TestRuntimeLayer(t *testing.T) {
	t.Parallel()
	binary := staticBinary(t, "x")
	b := &baseBuild{o: BaseOptions{Binary: binary}, reports: &reporter{}}
	s, err := b.runtimeStep()
	must.NoError(t, err)
	path := filepath.Join(t.TempDir(), "layer")
	_, _, err = s.make(t.Context(), path)
	must.NoError(t, err)
	var got []string
	want, err := os.ReadFile(binary)
	must.NoError(t, err)
	readLayer(t, path, func(h *tar.Header, r io.Reader) {
		got = append(got, fmt.Sprintf("%s %o %d:%d", h.Name, h.Mode, h.Uid, h.Gid))
		if h.Typeflag == tar.TypeReg {
			content, err := io.ReadAll(r)
			must.NoError(t, err)
			test.True(t, string(want) == string(content))
		}
	})
	test.Eq(t, []string{"usr/ 755 0:0", "usr/local/ 755 0:0", "usr/local/bin/ 755 0:0", "usr/local/bin/nomad-promptflow 755 0:0"}, got)

	// A binary that another build replaces meanwhile would be cached under the wrong key.
	must.NoError(t, os.WriteFile(binary, []byte("other"), 0o755))
	_, _, err = s.make(t.Context(), path)
	must.ErrorContains(t, err, "was replaced while it was packed")
}

func TestImageConfig(t *testing.T) {
	t.Parallel()
	layers := []Layer{
		{Stage: StageRootFS, DiffID: "sha256:1", Packages: map[string]string{"python3.11": "3.11.2-6+deb12u9"}},
		{Stage: StagePackages, DiffID: "sha256:2", Packages: map[string]string{"promptflow-core": "1.18.5", "numpy": "2"}},
	}
	image := imageConfig(layers, "1.2.3")
	test.Eq(t, []string{"/usr/local/bin/nomad-promptflow", "runtime", "serve"}, image.Config.Entrypoint)
	test.Eq(t, "1000:1000", image.Config.User)
	test.MapContainsKey(t, image.Config.ExposedPorts, "8080/tcp")
	test.Eq(t, "SIGTERM", image.Config.StopSignal)
	test.Eq(t, "/home/promptflow", image.Config.WorkingDir)
	test.SliceContains(t, image.Config.Env, "LANG=C.UTF-8")
	test.Nil(t, image.Created)
	test.Len(t, 2, image.RootFS.DiffIDs)
	test.Len(t, 2, image.History)
	test.Eq(t, "3.11.2", image.Config.Labels[labelPrefix+"python"])
	test.Eq(t, "1.18.5", image.Config.Labels[labelPrefix+"promptflow-core"])
	test.Eq(t, "1.2.3", image.Config.Labels["org.opencontainers.image.version"])
	test.MapNotContainsKey(t, image.Config.Labels, labelPrefix+"numpy")
}

func TestAdvise(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		err  error
		want string
	}{
		"full disk":        {fmt.Errorf("write: %w", syscall.ENOSPC), "make room and try again"},
		"full disk inside": {&commandError{tail: []string{"tar: write error: No space left on device"}, err: errors.New("exit status 2")}, "the disk is full"},
		"no mounts":        {&commandError{tail: []string{"unshare: unshare failed: Operation not permitted"}, err: errors.New("exit status 1")}, "--privileged"},
		"no Debian":        {&commandError{tail: []string{"E: Failed to fetch http://x  Could not connect"}, err: errors.New("exit status 25")}, "Debian's packages cannot be fetched"},
		"no PyPI":          {&commandError{tail: []string{"ERROR: No matching distribution found for numpy"}, err: errors.New("exit status 1")}, "PIP_INDEX_URL"},
		"other files":      {&commandError{tail: []string{"ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE."}, err: errors.New("exit status 1")}, "requirements.lock"},
		"unknown":          {errors.New("something else"), "something else"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := advise(tc.err, "/cache")
			must.ErrorIs(t, err, tc.err)
			must.ErrorContains(t, err, tc.want)
		})
	}
}

func TestLineDetail(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"I: installing essential packages...":               "installing essential packages",
		"stage: trimming":                                   "trimming",
		"Collecting numpy==2.4.6 (from -r /mnt/x (line 1))": "fetching numpy",
		"Installing collected packages: a, b, c":            "installing 3 packages",
		"  Downloading numpy-2.4.6.whl (16 MB)":             "",
		"":                                                  "",
	} {
		test.Eq(t, want, lineDetail(line))
	}
}

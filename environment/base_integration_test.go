package environment

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/shoenig/test"
	"github.com/shoenig/test/must"
	"golang.org/x/sys/unix"

	"github.com/nomad-promptflow/nomad-promptflow/e2e/harness"
	"github.com/nomad-promptflow/nomad-promptflow/store"
)

// maxUncompressed is what the base image may have unpacked: a third of upstream's 1.58 GB.
const maxUncompressed = 527e6

// sharedCache is where test runs keep finished layers, so that only the first one waits for Debian and PyPI.
func sharedCache(t testing.TB) string {
	return filepath.Join(harness.Root(t), ".build", "base-cache")
}

func build(t testing.TB, o BaseOptions) *Result {
	t.Helper()
	result, err := BuildBase(t.Context(), o)
	must.NoError(t, err)
	for _, layer := range result.Layers {
		t.Logf("%-16s %s %11d bytes, unpacked %11d, cached %-5v %6.1f s", layer.Stage, layer.Digest[:19], layer.Size, layer.Uncompressed,
			layer.Cached, layer.Seconds)
	}
	t.Logf("image %s, %d bytes unpacked, %.1f s", result.Digest, result.Uncompressed, result.Seconds)
	return result
}

// first makes sure that only one test builds what all share.
var first sync.Mutex

func sharedBuild(t testing.TB, o BaseOptions) *Result {
	t.Helper()
	first.Lock()
	defer first.Unlock()
	o.Cache = sharedCache(t)
	if o.Layout == "" {
		o.Layout = filepath.Join(t.TempDir(), "layout")
	}
	return build(t, o)
}

func TestBaseImageFromInside(t *testing.T) {
	harness.Integration(t)
	t.Parallel()
	result := sharedBuild(t, BaseOptions{Binary: staticBinary(t, "inside")})
	test.Less(t, int64(maxUncompressed), result.Uncompressed)
	root := t.TempDir()
	for _, layer := range result.Layers {
		blob := filepath.Join(result.Layout, "blobs", "sha256", strings.TrimPrefix(layer.Digest, "sha256:"))
		out, err := exec.CommandContext(t.Context(), "tar", "-xzpf", blob, "-C", root, "--numeric-owner").CombinedOutput()
		must.NoError(t, err, must.Sprintf("%s", out))
	}
	// The engine's own files come from the engine.
	for _, name := range []string{"etc/resolv.conf", "etc/hosts", "etc/hostname", "dev/null"} {
		_, err := os.Lstat(filepath.Join(root, name))
		test.ErrorIs(t, err, os.ErrNotExist, test.Sprint(name))
	}
	inputs := t.TempDir()
	must.NoError(t, writeBaseFiles(inputs))
	check, err := os.ReadFile("base/check_test.py")
	must.NoError(t, err)
	must.NoError(t, os.WriteFile(filepath.Join(inputs, "check.py"), check, 0o644))
	must.NoError(t, os.Chmod(inputs, 0o755))
	var lines []string
	box := &sandbox{inputs: inputs, temp: t.TempDir(), line: func(line string) { lines = append(lines, line) }}
	asUser := []string{"setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", "env", "HOME=/home/promptflow"}
	must.NoError(t, box.chroot(t.Context(), root, append(asUser, "python", "/mnt/check.py")...))
	test.SliceContains(t, lines, "checked")
	must.NoError(t, box.chroot(t.Context(), root, append(asUser, "pip", "check")...))
	test.SliceContains(t, lines, "No broken requirements found.")
	must.NoError(t, box.chroot(t.Context(), root, append(asUser, "/usr/local/bin/nomad-promptflow")...))
	test.SliceContains(t, lines, "inside")
	must.NoError(t, box.chroot(t.Context(), root, "dpkg", "--audit"))
}

func TestANewBinaryRemakesItsLayerOnly(t *testing.T) {
	harness.Integration(t)
	t.Parallel()
	layout, cache := filepath.Join(t.TempDir(), "layout"), t.TempDir()
	linkLayers(t, cache, "rootfs", "packages")
	binary := staticBinary(t, "one")
	one := build(t, BaseOptions{Layout: layout, Cache: cache, Binary: binary})
	var stages []Event
	again := build(t, BaseOptions{Layout: layout, Cache: cache, Binary: binary, Progress: func(e Event) {
		if e.Done {
			stages = append(stages, e)
		}
	}})
	test.Eq(t, one.Digest, again.Digest)
	must.Len(t, 4, stages)
	for i, stage := range []string{StageRootFS, StagePackages, StageRuntime, StageImage} {
		test.Eq(t, stage, stages[i].Stage)
		test.Eq(t, stage != StageImage, stages[i].Cached)
	}
	two := build(t, BaseOptions{Layout: layout, Cache: cache, Binary: staticBinary(t, "two")})
	test.NotEq(t, one.Digest, two.Digest)
	for i, cached := range []bool{true, true, false} {
		test.Eq(t, cached, two.Layers[i].Cached)
		test.Eq(t, cached, one.Layers[i].Digest == two.Layers[i].Digest)
	}
	l, err := store.OpenLayout(layout)
	must.NoError(t, err)
	desc, err := l.Resolve(t.Context(), "default:latest")
	must.NoError(t, err)
	test.Eq(t, two.Digest, desc.Digest.String())
	blobs, err := os.ReadDir(filepath.Join(layout, "blobs", "sha256"))
	must.NoError(t, err)
	test.Len(t, 5, blobs, test.Sprint("three layers, config and manifest; nothing of the image before"))
}

func TestADamagedCacheIsMended(t *testing.T) {
	harness.Integration(t)
	t.Parallel()
	cache := t.TempDir()
	linkLayers(t, cache, "rootfs", "packages")
	binary := staticBinary(t, "damaged")
	one := build(t, BaseOptions{Layout: filepath.Join(t.TempDir(), "layout"), Cache: cache, Binary: binary})
	layer := filepath.Join(cache, "runtime-"+one.Layers[2].Key[:32]+".tar.gz")
	f, err := os.OpenFile(layer, os.O_WRONLY, 0)
	must.NoError(t, err)
	_, err = f.WriteAt([]byte("rust"), 1000)
	must.NoError(t, err)
	must.NoError(t, f.Close())
	two := build(t, BaseOptions{Layout: filepath.Join(t.TempDir(), "layout"), Cache: cache, Binary: binary})
	test.Eq(t, one.Digest, two.Digest)
	test.False(t, two.Layers[2].Cached)
}

// linkLayers puts the shared cache's layers of the kinds into another cache.
func linkLayers(t testing.TB, cache string, kinds ...string) {
	t.Helper()
	sharedBuild(t, BaseOptions{Binary: staticBinary(t, "link")})
	for _, kind := range kinds {
		files, err := filepath.Glob(filepath.Join(sharedCache(t), kind+"-*"))
		must.NoError(t, err)
		must.SliceNotEmpty(t, files)
		for _, file := range files {
			raw, err := os.ReadFile(file)
			must.NoError(t, err)
			must.NoError(t, os.WriteFile(filepath.Join(cache, filepath.Base(file)), raw, 0o644))
		}
	}
}

// TestTwoBuildsAreEqual builds all layers a second time, from the network, in a minute or two.
func TestTwoBuildsAreEqual(t *testing.T) {
	harness.Integration(t)
	t.Parallel()
	binary := staticBinary(t, "equal")
	one := sharedBuild(t, BaseOptions{Binary: binary})
	two := build(t, BaseOptions{Layout: filepath.Join(t.TempDir(), "layout"), Cache: t.TempDir(), Binary: binary})
	if one.Layers[0].Cached && !equalPackages(one.Layers[0].Packages, two.Layers[0].Packages) {
		t.Log("Debian has changed since the shared layers were built: building them again")
		one = sharedBuild(t, BaseOptions{Binary: binary, Refresh: true})
	}
	for i := range one.Layers {
		test.Eq(t, one.Layers[i].DiffID, two.Layers[i].DiffID, test.Sprint(one.Layers[i].Stage))
		test.Eq(t, one.Layers[i].Digest, two.Layers[i].Digest, test.Sprint(one.Layers[i].Stage))
	}
	test.Eq(t, one.Digest, two.Digest)
}

func equalPackages(a, b map[string]string) bool {
	for name, version := range a {
		if b[name] != version {
			return false
		}
	}
	return len(a) == len(b)
}

func TestContainerdReadsTheArchive(t *testing.T) {
	harness.Integration(t)
	t.Parallel()
	archive := filepath.Join(t.TempDir(), "base.tar")
	result := sharedBuild(t, BaseOptions{Archive: archive, Binary: staticBinary(t, "archive")})
	client := harness.Containerd(t).Client("test")
	f, err := os.Open(archive)
	must.NoError(t, err)
	defer func() { _ = f.Close() }()
	images, err := client.Import(t.Context(), f, containerd.WithAllPlatforms(false))
	must.NoError(t, err)
	must.Len(t, 1, images)
	test.Eq(t, "promptflow.local/environment/default:latest", images[0].Name)
	test.Eq(t, result.Digest, images[0].Target.Digest.String())
	diffIDs, err := containerd.NewImage(client, images[0]).RootFS(t.Context())
	must.NoError(t, err)
	for i, diffID := range diffIDs {
		test.Eq(t, result.Layers[i].DiffID, diffID.String())
	}
}

func TestABuildThatCannotReachDebian(t *testing.T) {
	harness.Integration(t)
	t.Parallel()
	layout, cache := filepath.Join(t.TempDir(), "layout"), t.TempDir()
	// Nothing listens on port 1.
	_, err := BuildBase(t.Context(), BaseOptions{Layout: layout, Cache: cache, Binary: staticBinary(t, "x"),
		Mirror: Mirror{Archive: "http://127.0.0.1:1/debian", Security: "http://127.0.0.1:1/security"}})
	must.ErrorContains(t, err, "build base image: root file system: mmdebstrap: exit status")
	must.ErrorContains(t, err, "Debian's packages cannot be fetched: check the network and http_proxy")
	mustLeaveNothing(t, layout, cache)
}

func TestABuildThatCannotReachPyPI(t *testing.T) {
	harness.Integration(t)
	layout, cache := filepath.Join(t.TempDir(), "layout"), t.TempDir()
	linkLayers(t, cache, "rootfs")
	t.Setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
	t.Setenv("PIP_RETRIES", "0")
	_, err := BuildBase(t.Context(), BaseOptions{Layout: layout, Cache: cache, Binary: staticBinary(t, "x")})
	must.ErrorContains(t, err, "build base image: python packages: sh /mnt/packages.sh: exit status 1")
	must.ErrorContains(t, err, "Python packages cannot be fetched: check the network, https_proxy and PIP_INDEX_URL")
	mustLeaveNothing(t, layout, cache)
}

func TestACancelledBuildLeavesNothing(t *testing.T) {
	harness.Integration(t)
	t.Parallel()
	layout, cache := filepath.Join(t.TempDir(), "layout"), t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, err := BuildBase(ctx, BaseOptions{Layout: layout, Cache: cache, Binary: staticBinary(t, "x"), Progress: func(e Event) {
		// mmdebstrap says so when the root file system has its mounts and runs programs.
		if strings.HasPrefix(e.Detail, "installing essential packages") {
			cancel()
		}
	}})
	must.ErrorIs(t, err, context.Canceled)
	mustLeaveNothing(t, layout, cache)
}

func TestABuildOnAFullDiskLeavesNothing(t *testing.T) {
	harness.Integration(t)
	t.Parallel()
	disk := t.TempDir()
	must.NoError(t, unix.Mount("tmpfs", disk, "tmpfs", 0, "size=60m"))
	t.Cleanup(func() { must.NoError(t, unix.Unmount(disk, 0)) })
	layout, cache := filepath.Join(t.TempDir(), "layout"), filepath.Join(disk, "cache")
	_, err := BuildBase(t.Context(), BaseOptions{Layout: layout, Cache: cache, Binary: staticBinary(t, "x")})
	must.ErrorContains(t, err, "the disk is full: make room and try again")
	mustLeaveNothing(t, layout, cache)
}

package driver_test

import (
	"context"
	"crypto/rand"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/shoenig/test"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/e2e/harness"
	"github.com/nomad-promptflow/nomad-promptflow/plugin"
)

func TestEnvironment_importedOnceForManyTasks(t *testing.T) {
	r := newRig(t)
	var imports atomic.Int32
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- r.driver.TaskEvents(ctx, func(e plugin.TaskEvent) error {
			if strings.Contains(e.Message, "done") {
				imports.Add(1)
			}
			return nil
		})
	}()
	var wait sync.WaitGroup
	for range 8 {
		task := r.shell("exit 3")
		wait.Go(func() {
			started, err := r.driver.StartTask(t.Context(), task.TaskConfig)
			test.NoError(t, err)
			test.NotNil(t, started)
			result, err := r.driver.WaitTask(t.Context(), task.ID)
			test.NoError(t, err)
			test.Eq(t, 3, result.ExitCode)
			test.NoError(t, r.driver.DestroyTask(t.Context(), task.ID, true))
		})
	}
	wait.Wait()
	cancel()
	must.NoError(t, <-ended)
	must.MapEmpty(t, activeSnapshots(r))
}

func TestEnvironment_diskFull(t *testing.T) {
	harness.Integration(t)
	noise := make([]byte, 24<<20)
	_, err := rand.Read(noise)
	must.NoError(t, err)
	r := newRigOn(t, harness.ContainerdOnSmallDisk(t, 16<<20),
		harness.BusyboxImage{Tag: "default:latest", Config: ocispec.ImageConfig{Cmd: []string{"true"}}, Files: map[string][]byte{"big": noise}},
		harness.BusyboxImage{Tag: "small:1", Config: ocispec.ImageConfig{Cmd: []string{"true"}}})
	task := r.task(map[string]any{})
	_, err = r.driver.StartTask(t.Context(), task.TaskConfig)
	must.ErrorContains(t, err, "the disk that holds "+r.daemon.Root)
	test.ErrorContains(t, err, "is full: make room there")
	test.False(t, plugin.IsRecoverable(err))
	requireNothingLeft(r, task)

	ctx := namespaces.WithNamespace(t.Context(), "nomad")
	images, err := r.client().ListImages(ctx)
	must.NoError(t, err)
	test.SliceEmpty(t, images)
	var blobs []string
	must.NoError(t, r.client().ContentStore().Walk(ctx, func(info content.Info) error {
		blobs = append(blobs, info.Digest.String())
		return nil
	}))
	test.SliceEmpty(t, blobs)
	partial, err := r.client().ContentStore().ListStatuses(ctx)
	must.NoError(t, err)
	test.SliceEmpty(t, partial)

	// What fits still starts.
	small := r.task(map[string]any{"environment": "small:1"})
	r.start(small)
	test.Eq(t, 0, r.wait(small).ExitCode)
	r.destroy(small)
}

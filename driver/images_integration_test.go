package driver_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
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

// registry serves the images of a layout as a registry does, at 127.0.0.1/team/image:<tag>. It counts what is asked for.
type registry struct {
	*httptest.Server
	manifests, blobs atomic.Int32
	status           atomic.Int32 // when not 0 every answer has it
}

func newRegistry(t *testing.T, images ...harness.BusyboxImage) *registry {
	t.Helper()
	layout := harness.BusyboxLayout(t, images...)
	raw, err := os.ReadFile(filepath.Join(layout, "index.json"))
	must.NoError(t, err)
	var index ocispec.Index
	must.NoError(t, json.Unmarshal(raw, &index))
	r := &registry{}
	mux := http.NewServeMux()
	mux.HandleFunc("/v2/", func(w http.ResponseWriter, request *http.Request) {
		if status := r.status.Load(); status != 0 {
			w.WriteHeader(int(status))
		}
	})
	serve := func(w http.ResponseWriter, request *http.Request, desc ocispec.Descriptor) {
		w.Header().Set("Content-Type", desc.MediaType)
		w.Header().Set("Docker-Content-Digest", desc.Digest.String())
		http.ServeFile(w, request, filepath.Join(layout, "blobs", "sha256", desc.Digest.Encoded()))
	}
	mux.HandleFunc("/v2/team/image/manifests/{ref}", func(w http.ResponseWriter, request *http.Request) {
		if status := r.status.Load(); status != 0 {
			w.WriteHeader(int(status))
			return
		}
		r.manifests.Add(1)
		for _, m := range index.Manifests {
			if ref := request.PathValue("ref"); ref == m.Annotations[ocispec.AnnotationRefName] || ref == m.Digest.String() {
				serve(w, request, m)
				return
			}
		}
		http.NotFound(w, request)
	})
	mux.HandleFunc("/v2/team/image/blobs/{digest}", func(w http.ResponseWriter, request *http.Request) {
		r.blobs.Add(1)
		name := strings.TrimPrefix(request.PathValue("digest"), "sha256:")
		http.ServeFile(w, request, filepath.Join(layout, "blobs", "sha256", name))
	})
	r.Server = httptest.NewServer(mux)
	t.Cleanup(r.Close)
	return r
}

func (r *registry) image(tag string) string {
	return strings.TrimPrefix(r.URL, "http://") + "/team/image:" + tag
}

func TestImage_pulledByPolicy(t *testing.T) {
	r := newRig(t)
	hub := newRegistry(t, harness.BusyboxImage{Tag: "1", Config: ocispec.ImageConfig{Cmd: []string{"true"}, User: "worker"}})
	start := func(policy string) {
		t.Helper()
		task := r.task(map[string]any{"image": hub.image("1"), "image_pull_policy": policy})
		result := func() *plugin.ExitResult { r.start(task); return r.wait(task) }()
		test.Eq(t, 0, result.ExitCode)
		r.destroy(task)
	}
	absent := r.task(map[string]any{"image": hub.image("1"), "image_pull_policy": "never"})
	_, err := r.driver.StartTask(t.Context(), absent.TaskConfig)
	must.ErrorContains(t, err, "image_pull_policy is never")
	test.Eq(t, 0, hub.manifests.Load())

	start("if-not-present")
	pulled := hub.manifests.Load()
	test.Greater(t, 0, pulled)
	start("if-not-present")
	start("never")
	test.Eq(t, pulled, hub.manifests.Load())
	blobs := hub.blobs.Load()
	start("always")
	test.Greater(t, pulled, hub.manifests.Load())
	test.Eq(t, blobs, hub.blobs.Load(), test.Sprint("what is there is not fetched again"))
}

func TestImage_failuresSayWhatToDo(t *testing.T) {
	r := newRig(t)
	hub := newRegistry(t, harness.BusyboxImage{Tag: "1", Config: ocispec.ImageConfig{Cmd: []string{"true"}}})
	gone := newRegistry(t)
	gone.Close()
	for _, c := range []struct {
		name, image, want string
		status            int
		retry             bool
	}{
		{"no such tag", hub.image("2"), "image not found", 0, false},
		{"not a reference", "Not An Image", "not an image reference", 0, false},
		{"not allowed", hub.image("1"), "refuses access", http.StatusForbidden, false},
		{"too many requests", hub.image("1"), "may pass", http.StatusTooManyRequests, true},
		{"registry broken", hub.image("1"), "may pass", http.StatusBadGateway, true},
		{"registry away", gone.image("1"), "may pass", 0, true},
	} {
		hub.status.Store(int32(c.status))
		task := r.task(map[string]any{"image": c.image})
		_, err := r.driver.StartTask(t.Context(), task.TaskConfig)
		must.ErrorContains(t, err, c.want, must.Sprint(c.name))
		test.Eq(t, c.retry, plugin.IsRecoverable(err), test.Sprintf("%s: %v", c.name, err))
		requireNothingLeft(r, task)
	}
}

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

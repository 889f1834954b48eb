package driver_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/e2e/harness"
	"github.com/nomad-promptflow/nomad-promptflow/plugin"
)

// says is an image whose container prints a word.
func says(tag, word string) harness.BusyboxImage {
	return harness.BusyboxImage{Tag: tag, Config: ocispec.ImageConfig{Cmd: []string{"/bin/echo", word}}}
}

// withNoise gives an image a layer of so many bytes that cannot be compressed.
func withNoise(t testing.TB, image harness.BusyboxImage, size int) harness.BusyboxImage {
	t.Helper()
	noise := make([]byte, size)
	_, err := rand.Read(noise)
	must.NoError(t, err)
	image.Files = map[string][]byte{"noise": noise}
	return image
}

// newHub starts a real registry that has the images, each as team/image:<tag>.
func newHub(t *testing.T, options harness.RegistryOptions, images ...harness.BusyboxImage) *harness.RegistryServer {
	t.Helper()
	harness.Integration(t)
	hub := harness.Registry(t, options)
	publish(t, hub, images...)
	return hub
}

func publish(t *testing.T, hub *harness.RegistryServer, images ...harness.BusyboxImage) map[string]digest.Digest {
	t.Helper()
	layout := harness.BusyboxLayout(t, images...)
	digests := map[string]digest.Digest{}
	for _, image := range images {
		digests[image.Tag] = hub.Push(layout, image.Tag, "team/image", image.Tag)
	}
	return digests
}

// front stands before a real registry. It counts what is asked for, and lets a test meddle with it.
type front struct {
	Host             string
	manifests, blobs atomic.Int32
	server           *httptest.Server

	mu     sync.Mutex
	meddle func(w http.ResponseWriter, r *http.Request, registry http.Handler)
}

func newFront(t *testing.T, hub *harness.RegistryServer) *front {
	t.Helper()
	f := &front{}
	registry := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: hub.Host})
	registry.ErrorLog = log.New(io.Discard, "", 0) // clients that go away are part of the tests
	f.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.Contains(r.URL.Path, "/manifests/"):
			f.manifests.Add(1)
		case strings.Contains(r.URL.Path, "/blobs/"):
			f.blobs.Add(1)
		}
		f.mu.Lock()
		meddle := f.meddle
		f.mu.Unlock()
		if meddle != nil {
			meddle(w, r, registry)
			return
		}
		registry.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		f.server.CloseClientConnections()
		f.server.Close()
	})
	f.Host = strings.TrimPrefix(f.server.URL, "http://")
	return f
}

// with answers in the registry's stead until the next with.
func (f *front) with(meddle func(w http.ResponseWriter, r *http.Request, registry http.Handler)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.meddle = meddle
}

func (f *front) withStatus(status int) {
	f.with(func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { w.WriteHeader(status) })
}

func isBlob(r *http.Request) bool { return strings.Contains(r.URL.Path, "/blobs/") }

// biggestBlob is the digest of a layout's biggest blob: of an image with noise, the noise.
func biggestBlob(t *testing.T, root string) digest.Digest {
	t.Helper()
	var biggest string
	var size int64
	must.NoError(t, filepath.Walk(root, func(path string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() && info.Size() > size {
			biggest, size = path, info.Size()
		}
		return err
	}))
	// A registry has each blob in a folder of its digest.
	return digest.NewDigestFromEncoded(digest.SHA256, filepath.Base(filepath.Dir(biggest)))
}

// eventLog collects a node's task events.
type eventLog struct {
	mu     sync.Mutex
	events []plugin.TaskEvent
	grown  chan struct{}
}

func (n *node) events() *eventLog {
	n.t.Helper()
	log := &eventLog{grown: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(n.t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = n.TaskEvents(ctx, log.add) // it ends with the test
	}()
	n.t.Cleanup(func() { cancel(); <-ended })
	return log
}

func (l *eventLog) add(event plugin.TaskEvent) {
	l.mu.Lock()
	l.events = append(l.events, event)
	l.mu.Unlock()
	select {
	case l.grown <- struct{}{}:
	default:
	}
}

// of are the messages for a task.
func (l *eventLog) of(task *agentTask) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var messages []string
	for _, event := range l.events {
		if event.TaskID == task.ID {
			messages = append(messages, event.Message)
		}
	}
	return messages
}

// holdings are all that containerd holds of images, so that what a failed start leaves is seen.
func (m *machine) holdings(t *testing.T) []string {
	t.Helper()
	ctx := namespaces.WithNamespace(t.Context(), "nomad")
	client := m.daemon.Client("nomad")
	var held []string
	add := func(kind, name string) { held = append(held, kind+" "+name) }
	images, err := client.ImageService().List(ctx)
	must.NoError(t, err)
	for _, image := range images {
		add("image", image.Name+" "+image.Target.Digest.String())
	}
	must.NoError(t, client.ContentStore().Walk(ctx, func(info content.Info) error {
		add("blob", info.Digest.String())
		return nil
	}))
	statuses, err := client.ContentStore().ListStatuses(ctx)
	must.NoError(t, err)
	for _, status := range statuses {
		add("partial", status.Ref)
	}
	must.NoError(t, client.SnapshotService("overlayfs").Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		add("snapshot", info.Name)
		return nil
	}))
	leases, err := client.LeasesService().List(ctx)
	must.NoError(t, err)
	for _, lease := range leases {
		add("lease", lease.ID)
	}
	slices.Sort(held)
	return held
}

// images are the names of the stored images.
func (m *machine) images(t *testing.T) []string {
	t.Helper()
	ctx := namespaces.WithNamespace(t.Context(), "nomad")
	list, err := m.daemon.Client("nomad").ImageService().List(ctx)
	must.NoError(t, err)
	var names []string
	for _, image := range list {
		names = append(names, image.Name)
	}
	slices.Sort(names)
	return names
}

// runs starts the task, and checks what it prints.
func (a *agentTask) runs(word string) {
	a.node.t.Helper()
	must.NoError(a.node.t, a.start())
	must.Eq(a.node.t, plugin.ExitResult{}, *a.wait())
	a.destroy()
	must.Eq(a.node.t, word+"\n", a.output())
}

// fails starts the task, which must not start and leave nothing.
func (a *agentTask) fails(recoverable bool, wants ...string) {
	a.node.t.Helper()
	must.Error(a.node.t, a.failure(recoverable, wants...))
}

// failure is the error of fails.
func (a *agentTask) failure(recoverable bool, wants ...string) error {
	a.node.t.Helper()
	before := a.node.machine.holdings(a.node.t)
	err := a.start()
	for _, want := range wants {
		must.ErrorContains(a.node.t, err, want)
	}
	must.Eq(a.node.t, recoverable, plugin.IsRecoverable(err), must.Sprint(err))
	must.Eq(a.node.t, before, a.node.machine.holdings(a.node.t), must.Sprint(err))
	return err
}

func imageTask(image string, options ...string) string {
	return fmt.Sprintf("image = %q\n%s", image, strings.Join(options, "\n"))
}

func registryBlock(host string, options ...string) string {
	return fmt.Sprintf("registry %q {\n%s\n}\n", host, strings.Join(options, "\n"))
}

func authBlock(user, password string) string {
	return fmt.Sprintf("auth {\nusername = %q\npassword = %q\n}", user, password)
}

func encodeJSON(t *testing.T, value any) string {
	t.Helper()
	raw, err := json.Marshal(value)
	must.NoError(t, err)
	return string(raw)
}

package driver_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/hashicorp/go-hclog"
	"github.com/shoenig/test"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/driver"
	"github.com/nomad-promptflow/nomad-promptflow/driver/engine"
	"github.com/nomad-promptflow/nomad-promptflow/e2e/harness"
	"github.com/nomad-promptflow/nomad-promptflow/plugin"
)

const keepNothing = "gc {\nimage_delay = \"0s\"\n}\n"

// sleeper is an image task that runs until it is stopped.
func sleeper(image string) string {
	return imageTask(image, `entrypoint = ["/bin/sleep"]`, `args = ["1000"]`)
}

func (m *machine) has(t *testing.T, image string) bool {
	t.Helper()
	for _, name := range m.images(t) {
		if name == image {
			return true
		}
	}
	return false
}

// seen lets the plugin see its node, as an agent does when it begins.
func (n *node) seen() {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), bound)
	defer cancel()
	_ = n.Fingerprint(ctx, func(f plugin.Fingerprint) {
		if f.Health == plugin.Healthy {
			cancel()
		}
	})
	must.ErrorIs(n.t, ctx.Err(), context.Canceled, must.Sprint("the node is not healthy"))
}

func TestConformance_EnableImageGC(t *testing.T) {
	m := newMachine(t)
	hub := newHub(t, harness.RegistryOptions{}, says("1", "one"), says("2", "two"))
	n := m.launch(t, keepNothing)
	empty := m.holdings(t)
	one, two := hub.Image("team/image:1"), hub.Image("team/image:2")

	t.Run("Pull_Remove", func(t *testing.T) {
		first, second := n.task(sleeper(one)), n.task(sleeper(one))
		must.NoError(t, first.start())
		must.NoError(t, second.start())
		first.destroy()
		n.task(imageTask(two)).runs("two")
		eventually(t, "the other image is gone", func() bool { return !m.has(t, two) })
		test.True(t, m.has(t, one), test.Sprint("a task still uses it"))
		second.destroy()
		eventually(t, "everything of both is gone", func() bool { return len(m.holdings(t)) == len(empty) })
		test.Eq(t, empty, m.holdings(t))
	})
	t.Run("environments are images too", func(t *testing.T) {
		n.task("args = [\"echo hello\"]").runs("hello")
		eventually(t, "everything of it is gone", func() bool { return len(m.holdings(t)) == 0 })
		archive := harness.DockerArchive(t, harness.BusyboxLayout(t, says("x:1", "loaded")))
		n.task(`load = "image.tar"`).file("web/local/image.tar", archive).runs("loaded")
		eventually(t, "everything of it is gone", func() bool { return len(m.holdings(t)) == 0 })
	})
	t.Run("start that fails", func(t *testing.T) {
		task := n.task(imageTask(one, `entrypoint = ["/nowhere"]`))
		must.ErrorContains(t, task.start(), "the command is not in the image")
		eventually(t, "everything of it is gone", func() bool { return len(m.holdings(t)) == 0 })
	})
	t.Run("images of others", func(t *testing.T) {
		ctx := namespaces.WithNamespace(t.Context(), "nomad")
		_, err := m.daemon.Client("nomad").Pull(ctx, one, containerd.WithPullUnpack, containerd.WithResolver(docker.NewResolver(
			docker.ResolverOptions{Hosts: docker.ConfigureDefaultRegistries(docker.WithPlainHTTP(docker.MatchLocalhost))})))
		must.NoError(t, err)
		n.task(imageTask(one)).runs("one")
		n.task(imageTask(one, `image_pull_policy = "always"`)).runs("one")
		n.task(imageTask(two)).runs("two")
		eventually(t, "our image is gone", func() bool { return !m.has(t, two) })
		test.True(t, m.has(t, one), test.Sprint("it is not ours to remove"))
	})
}

func TestConformance_Remove_Cancel(t *testing.T) {
	m := newMachine(t)
	hub := newHub(t, harness.RegistryOptions{}, says("1", "one"), says("2", "two"))
	f := newFront(t, hub)
	n := m.launch(t, "gc {\nimage_delay = \"2s\"\n}\n")
	one, two := f.Host+"/team/image:1", f.Host+"/team/image:2"
	n.task(imageTask(one)).runs("one")
	n.task(imageTask(two)).runs("two")
	task := n.task(sleeper(one))
	must.NoError(t, task.start())
	eventually(t, "what nobody came back for is gone", func() bool { return !m.has(t, two) })
	test.True(t, m.has(t, one))
	asked := f.manifests.Load()
	task.destroy()
	n.task(imageTask(one)).runs("one")
	test.Eq(t, asked, f.manifests.Load(), test.Sprint("within the delay it is still here"))
	eventually(t, "it goes after its last task", func() bool { return !m.has(t, one) })
}

func TestConformance_DisableImageGC(t *testing.T) {
	m := newMachine(t)
	hub := newHub(t, harness.RegistryOptions{}, says("1", "one"), says("2", "two"))
	one, two := hub.Image("team/image:1"), hub.Image("team/image:2")
	off := m.launch(t, "gc {\nimage = false\nimage_delay = \"0s\"\n}\n")
	off.task(imageTask(one)).runs("one")
	off.seen()

	// Another driver that does collect shows that there was time enough, and that what was kept is found and goes.
	off.task(imageTask(two)).runs("two")
	test.True(t, m.has(t, one) && m.has(t, two))
	on := m.launch(t, keepNothing)
	on.seen()
	eventually(t, "both are gone", func() bool { return len(m.images(t)) == 0 })
}

// What only tasks used that ended while no driver was there is found again, and what running tasks use stays.
func TestConformance_imageGC_survivesTheDriver(t *testing.T) {
	m := newMachine(t)
	hub := newHub(t, harness.RegistryOptions{}, says("1", "one"), says("2", "two"), says("3", "three"))
	first := m.launch(t, "")
	running, gone := first.task(sleeper(hub.Image("team/image:1"))), first.task(imageTask(hub.Image("team/image:2")))
	handle, _, err := first.StartTask(t.Context(), running.TaskConfig)
	must.NoError(t, err)
	_, _, err = first.StartTask(t.Context(), gone.TaskConfig)
	must.NoError(t, err)
	must.NoError(t, first.DestroyTask(t.Context(), gone.ID, true))
	must.NoError(t, first.Kill())

	// The task is not recovered yet when the node is seen: its container counts.
	second := m.launch(t, keepNothing)
	second.seen()
	eventually(t, "what nobody uses is gone", func() bool { return !m.has(t, hub.Image("team/image:2")) })
	test.True(t, m.has(t, hub.Image("team/image:1")))
	must.NoError(t, second.RecoverTask(t.Context(), handle))
	second.task(imageTask(hub.Image("team/image:3"))).runs("three")
	eventually(t, "what nobody uses is gone", func() bool { return !m.has(t, hub.Image("team/image:3")) })
	test.True(t, m.has(t, hub.Image("team/image:1")))
	must.NoError(t, second.DestroyTask(t.Context(), running.ID, true))
	eventually(t, "the recovered task's image goes with it", func() bool { return len(m.images(t)) == 0 })
}

// A long fetch is reported to everybody who waits for it, at growing intervals.
func TestConformance_pullProgress(t *testing.T) {
	harness.Integration(t)
	hub := newHub(t, harness.RegistryOptions{}, withNoise(t, says("1", "one"), 4<<20))
	f := newFront(t, hub)
	r := newRig(t)
	d := driver.New(driver.Parts{
		Version: "0.1.0", Logger: testLogger(t), InitBinary: harness.Binary(t),
		OpenEngine: func(config driver.EngineConfig, logger hclog.Logger) (driver.Engine, error) {
			config.ReportInterval = 100 * time.Millisecond
			return engine.Open(config, logger)
		},
	})
	must.NoError(t, d.SetConfig(t.Context(), encode(t, r.config), nil))
	t.Cleanup(func() { shutDown(t, d) })

	var mu sync.Mutex
	seen := map[string][]string{}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- d.TaskEvents(ctx, func(event plugin.TaskEvent) error {
			mu.Lock()
			defer mu.Unlock()
			seen[event.TaskID] = append(seen[event.TaskID], event.Message)
			return nil
		})
	}()
	tasks := []*testTask{r.task(map[string]any{"image": f.Host + "/team/image:1"}), r.task(map[string]any{"image": f.Host + "/team/image:1"})}
	saying := func(task *testTask, want string) bool {
		mu.Lock()
		defer mu.Unlock()
		return strings.Contains(strings.Join(seen[task.ID], "\n"), want)
	}
	// Half of the big layer comes, and the rest once that was reported to both.
	noise := biggestBlob(t, hub.Root)
	reported := make(chan struct{})
	f.with(func(w http.ResponseWriter, request *http.Request, registry http.Handler) {
		if strings.Contains(request.URL.Path, noise.Encoded()) {
			registry.ServeHTTP(&pausing{ResponseWriter: w, after: 2 << 20, until: reported}, request)
			return
		}
		registry.ServeHTTP(w, request)
	})
	var wait sync.WaitGroup
	for _, task := range tasks {
		wait.Go(func() {
			_, err := d.StartTask(t.Context(), task.TaskConfig)
			test.NoError(t, err)
		})
	}
	for _, task := range tasks {
		eventually(t, "progress is reported", func() bool { return saying(task, "1 of 2 layers, ") && saying(task, " of 5.3 MB, ") })
	}
	close(reported)
	wait.Wait()
	for _, task := range tasks {
		eventually(t, "the end is reported", func() bool { return saying(task, "done: 5.3 MB in 2 layers") })
		must.NoError(t, d.DestroyTask(t.Context(), task.ID, true))
	}
	cancel()
	must.NoError(t, <-ended)
	mu.Lock()
	defer mu.Unlock()
	for _, task := range tasks {
		test.LessEq(t, 10, len(seen[task.ID]), test.Sprint("the agent shows ten"))
	}
}

// pausing lets so many bytes through, and the rest when until is closed.
type pausing struct {
	http.ResponseWriter
	after int
	until <-chan struct{}
}

func (p *pausing) Write(b []byte) (int, error) {
	if p.after -= len(b); p.after < 0 {
		_ = http.NewResponseController(p.ResponseWriter).Flush()
		<-p.until
	}
	return p.ResponseWriter.Write(b)
}

package driver_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-msgpack/v2/codec"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/driver"
	"github.com/nomad-promptflow/nomad-promptflow/driver/engine"
	"github.com/nomad-promptflow/nomad-promptflow/e2e/harness"
	"github.com/nomad-promptflow/nomad-promptflow/plugin"
)

// bound is how long a test waits for anything.
const bound = 30 * time.Second

// rig is a driver on a containerd of its own, with an environment made of busybox.
type rig struct {
	t      testing.TB
	daemon *harness.ContainerdDaemon
	layout string
	config map[string]any
	driver *driver.Driver
}

func newRig(t testing.TB, images ...harness.BusyboxImage) *rig {
	t.Helper()
	harness.Integration(t)
	if len(images) == 0 {
		images = []harness.BusyboxImage{{Tag: "default:latest", Config: ocispec.ImageConfig{
			Env: []string{"FROM_IMAGE=yes"}, Entrypoint: []string{"/bin/sh", "-c"},
		}}}
	}
	return newRigOn(t, harness.Containerd(t), images...)
}

func newRigOn(t testing.TB, daemon *harness.ContainerdDaemon, images ...harness.BusyboxImage) *rig {
	t.Helper()
	r := &rig{t: t, daemon: daemon, layout: harness.BusyboxLayout(t, images...)}
	r.config = map[string]any{
		"containerd":   map[string]any{"address": r.daemon.Address},
		"environments": r.layout,
	}
	r.driver = r.newDriver()
	return r
}

// newDriver is another plugin process, as far as the tasks can tell.
func (r *rig) newDriver() *driver.Driver {
	r.t.Helper()
	d := driver.New(driver.Parts{
		Version: "0.1.0", Logger: testLogger(r.t), OpenEngine: engine.Open, InitBinary: harness.Binary(r.t),
	})
	must.NoError(r.t, d.SetConfig(r.t.Context(), encode(r.t, r.config), nil))
	r.t.Cleanup(func() { shutDown(r.t, d) })
	return d
}

// restart gives the rig a new driver in the place of one that died.
func (r *rig) restart() {
	r.t.Helper()
	shutDown(r.t, r.driver)
	r.driver = r.newDriver()
}

func shutDown(t testing.TB, d *driver.Driver) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	defer cancel()
	must.NoError(t, d.Shutdown(ctx))
}

// client is containerd's own view.
func (r *rig) client() *containerd.Client { return r.daemon.Client("nomad") }

// testLogger logs into the test; a benchmark's output is its figures.
func testLogger(t testing.TB) hclog.Logger {
	if _, bench := t.(*testing.B); bench {
		return hclog.NewNullLogger()
	}
	return hclog.New(&hclog.LoggerOptions{Level: hclog.Debug, Output: testWriter{t}})
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimRight(string(p), "\n"))
	return len(p), nil
}

func encode(t testing.TB, value any) []byte {
	t.Helper()
	var b bytes.Buffer
	must.NoError(t, codec.NewEncoder(&b, &codec.MsgpackHandle{}).Encode(value))
	return b.Bytes()
}

// testTask is a task with the folders and log FIFOs that an agent makes.
type testTask struct {
	*plugin.TaskConfig
	stdout, stderr *collector
}

// shell is a task that runs a script in the default environment.
func (r *rig) shell(script string) *testTask {
	return r.task(map[string]any{"args": []string{script}})
}

func (r *rig) task(config map[string]any) *testTask {
	r.t.Helper()
	alloc := r.t.TempDir()
	for _, dir := range []string{"alloc/logs", "alloc/data", "web/local", "web/secrets"} {
		must.NoError(r.t, os.MkdirAll(filepath.Join(alloc, dir), 0o755))
	}
	allocID := randomName(r.t)
	task := &testTask{TaskConfig: &plugin.TaskConfig{
		ID: allocID + "/web/" + randomName(r.t)[:8], Name: "web", JobID: "job", JobName: "job", GroupName: "group",
		AllocID: allocID, Namespace: "default", NodeName: "node",
		AllocDir:     alloc,
		StdoutPath:   filepath.Join(alloc, "alloc/logs/.web.stdout.fifo"),
		StderrPath:   filepath.Join(alloc, "alloc/logs/.web.stderr.fifo"),
		Env:          map[string]string{"NOMAD_ALLOC_DIR": "/alloc"},
		Resources:    plugin.Resources{CPUShares: 100, MemoryMB: 64},
		DriverConfig: encode(r.t, config),
	}}
	task.stdout = collect(r.t, task.StdoutPath)
	task.stderr = collect(r.t, task.StderrPath)
	return task
}

func randomName(t testing.TB) string {
	t.Helper()
	raw := make([]byte, 16)
	_, err := rand.Read(raw)
	must.NoError(t, err)
	return hex.EncodeToString(raw)
}

// start starts the task and has it destroyed with the test.
func (r *rig) start(task *testTask) *plugin.StartedTask {
	r.t.Helper()
	started, err := r.driver.StartTask(r.t.Context(), task.TaskConfig)
	must.NoError(r.t, err)
	return started
}

// wait returns how the task ended.
func (r *rig) wait(task *testTask) *plugin.ExitResult {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), bound)
	defer cancel()
	result, err := r.driver.WaitTask(ctx, task.ID)
	must.NoError(r.t, err)
	must.NoError(r.t, result.Err)
	return result
}

// run starts the task and returns how it ended and what it printed.
func (r *rig) run(task *testTask) (*plugin.ExitResult, string) {
	r.t.Helper()
	r.start(task)
	result := r.wait(task)
	r.destroy(task)
	return result, task.stdout.all(r.t)
}

func (r *rig) destroy(task *testTask) {
	r.t.Helper()
	must.NoError(r.t, r.driver.DestroyTask(r.t.Context(), task.ID, true))
}

// handle is what an agent that was restarted itself kept of the task: everything but the driver's own configuration.
func (t *testTask) handle(started *plugin.StartedTask) *plugin.TaskHandle {
	config := *t.TaskConfig
	config.DriverConfig = nil
	return &plugin.TaskHandle{Version: 1, Config: &config, State: plugin.TaskRunning, DriverState: started.DriverState}
}

// collector reads a log FIFO as the agent's log collector does.
type collector struct {
	mu     sync.Mutex
	text   strings.Builder
	grown  chan struct{}
	closed chan struct{}
}

func collect(t testing.TB, path string) *collector {
	t.Helper()
	must.NoError(t, syscall.Mkfifo(path, 0o600))
	// Opening for both directions does not block; the collector's own end is closed once the shim has opened its.
	keep, err := os.OpenFile(path, os.O_RDWR|syscall.O_NONBLOCK, 0)
	must.NoError(t, err)
	c := &collector{grown: make(chan struct{}, 1), closed: make(chan struct{})}
	t.Cleanup(func() {
		_ = keep.Close()
		select {
		case <-c.closed:
		case <-time.After(bound):
			t.Error("the log collector did not end")
		}
	})
	go c.read(keep)
	return c
}

func (c *collector) read(from io.Reader) {
	defer close(c.closed)
	buffer := make([]byte, 4096)
	for {
		n, err := from.Read(buffer)
		c.mu.Lock()
		c.text.Write(buffer[:n])
		c.mu.Unlock()
		select {
		case c.grown <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

func (c *collector) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text.String()
}

// await waits until the text contains what is wanted.
func (c *collector) await(t testing.TB, want string) {
	t.Helper()
	timeout := time.After(bound)
	for !strings.Contains(c.String(), want) {
		select {
		case <-c.grown:
		case <-timeout:
			t.Fatalf("the log does not get %q, it is %q", want, c.String())
		}
	}
}

// endOfLog is what tests make their tasks print last, so that the rest is known to have arrived.
const endOfLog = "end-of-log"

// all is the whole text of a task that prints endOfLog last.
func (c *collector) all(t testing.TB) string {
	t.Helper()
	c.await(t, endOfLog)
	text, _, _ := strings.Cut(c.String(), endOfLog)
	return text
}

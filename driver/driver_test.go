package driver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/shoenig/test"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/plugin"
)

// newTestDriver is a configured driver on a fake engine.
func newTestDriver(t *testing.T) (*Driver, *fakeEngine) {
	t.Helper()
	engine := newFakeEngine()
	d := New(Parts{Version: "0.1.0", Logger: hclog.NewNullLogger(), OpenEngine: func(EngineConfig, hclog.Logger) (Engine, error) {
		return engine, nil
	}})
	must.NoError(t, d.SetConfig(t.Context(), nil, nil))
	t.Cleanup(func() { must.NoError(t, d.Shutdown(context.Background())) })
	return d, engine
}

// newTestTask is a task with the folders an agent makes, without log collection.
func newTestTask(t *testing.T) *plugin.TaskConfig {
	t.Helper()
	alloc := t.TempDir()
	for _, dir := range []string{"alloc/logs", "web/local", "web/secrets"} {
		must.NoError(t, os.MkdirAll(filepath.Join(alloc, dir), 0o755))
	}
	config, err := plugin.EncodeState(map[string]any{"command": "serve"})
	must.NoError(t, err)
	return &plugin.TaskConfig{
		ID: "alloc/web/1", Name: "web", AllocID: "alloc", JobName: "job", AllocDir: alloc,
		StdoutPath: os.DevNull, StderrPath: os.DevNull,
		Resources: plugin.Resources{CPUShares: 100, MemoryMB: 64}, DriverConfig: config,
	}
}

func TestStartTask_ordersItsSteps(t *testing.T) {
	t.Parallel()
	d, engine := newTestDriver(t)
	task := newTestTask(t)
	started, err := d.StartTask(t.Context(), task)
	must.NoError(t, err)
	test.Eq(t, []string{"inspect", "image", "create", "start"}, engine.called()[:4])
	test.Eq(t, []string{"serve"}, engine.request.Spec.Process.Args)
	test.SliceContains(t, engine.request.Spec.Process.Env, "PROMPTFLOW_ENVIRONMENT=default")
	test.SliceContains(t, engine.request.Spec.Process.Env, "PROMPTFLOW_ENVIRONMENT_DIGEST=sha256:abc")
	state, err := decodeState(started.DriverState)
	must.NoError(t, err)
	test.Eq(t, containerID(task.ID), state.ContainerID)
	test.Less(t, time.Minute, time.Since(state.StartedAt))
}

func TestStartTask_discardsAfterAFailure(t *testing.T) {
	t.Parallel()
	for _, step := range []string{"create", "start"} {
		d, engine := newTestDriver(t)
		engine.fail[step] = errors.New("broken")
		task := newTestTask(t)
		_, err := d.StartTask(t.Context(), task)
		must.ErrorContains(t, err, step+" container: broken")
		test.Eq(t, "remove", engine.called()[len(engine.called())-1])
		_, err = os.Lstat(filepath.Join(task.AllocDir, "web", ".promptflow"))
		test.ErrorIs(t, err, os.ErrNotExist)
		_, err = d.InspectTask(t.Context(), task.ID)
		test.ErrorIs(t, err, plugin.ErrTaskNotFound)
	}
}

func TestStartTask_saysWhatMayBeRetried(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err   error
		retry bool
	}{
		{fmt.Errorf("dial: %w", ErrUnavailable), true},
		{fmt.Errorf("pull: %w", ErrTransient), true},
		{context.DeadlineExceeded, true},
		{ErrNoImage, false},
		{errors.New("unauthorized"), false},
	} {
		d, engine := newTestDriver(t)
		engine.fail["image"] = c.err
		_, err := d.StartTask(t.Context(), newTestTask(t))
		must.ErrorIs(t, err, c.err)
		test.Eq(t, c.retry, plugin.IsRecoverable(err), test.Sprint(c.err))
	}
}

func TestRecoverTask_believesInATaskItCannotSee(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		err    error
		found  *Container
		fails  bool
		exited bool
	}{
		{name: "running", found: &Container{Running: true}},
		{name: "ended meanwhile", found: &Container{Exit: &Exit{Code: 3}}, exited: true},
		{name: "engine away", err: ErrUnavailable},
		{name: "engine slow", err: context.DeadlineExceeded},
		{name: "gone", fails: true},
		{name: "no process, as after a reboot", found: &Container{}, fails: true},
		{name: "engine broken", err: errors.New("broken"), fails: true},
	} {
		d, engine := newTestDriver(t)
		task := newTestTask(t)
		state, err := taskState{ContainerID: containerID(task.ID), StartedAt: time.Now()}.encode()
		must.NoError(t, err)
		engine.found = c.found
		if c.err != nil {
			engine.fail["inspect"] = c.err
		}
		err = d.RecoverTask(t.Context(), &plugin.TaskHandle{Config: task, DriverState: state})
		if c.fails {
			must.Error(t, err, must.Sprint(c.name))
			continue
		}
		must.NoError(t, err, must.Sprint(c.name))
		status, err := d.InspectTask(t.Context(), task.ID)
		must.NoError(t, err)
		test.Eq(t, c.exited, status.State == plugin.TaskExited, test.Sprint(c.name))
		if c.exited {
			test.Eq(t, 3, status.Exit.ExitCode)
		}
	}
}

func TestWaitTask_manyWaitersAndAfterTheExit(t *testing.T) {
	t.Parallel()
	d, engine := newTestDriver(t)
	task := newTestTask(t)
	_, err := d.StartTask(t.Context(), task)
	must.NoError(t, err)
	results := make(chan int, 3)
	for range 3 {
		go func() {
			result, err := d.WaitTask(t.Context(), task.ID)
			if err != nil {
				results <- -1
				return
			}
			results <- result.ExitCode
		}()
	}
	engine.exit <- Exit{Code: 7}
	for range 3 {
		test.Eq(t, 7, <-results)
	}
	result, err := d.WaitTask(t.Context(), task.ID)
	must.NoError(t, err)
	test.Eq(t, 7, result.ExitCode)
}

func TestDestroyTask_keepsTheContainerWhenAskedTo(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		gc   bool
		want []string
	}{
		{true, []string{"inspect", "remove"}},
		{false, []string{"inspect", "stop", "relabel " + containerID("unknown") + " map[nomad-promptflow/kept:true]"}},
	} {
		d, engine := newTestDriver(t)
		d.config.GC.Container = c.gc
		must.NoError(t, d.DestroyTask(t.Context(), "unknown", true))
		test.Eq(t, c.want, engine.called())
	}
}

func TestSetConfig_replacesTheEngine(t *testing.T) {
	t.Parallel()
	d, engine := newTestDriver(t)
	must.NoError(t, d.SetConfig(t.Context(), nil, &plugin.ClientConfig{Topology: &plugin.Topology{
		Cores: []plugin.Core{{BaseSpeed: 1000}, {MaxSpeed: 3000, BaseSpeed: 2000}, {BaseSpeed: 500, Disable: true}},
	}}))
	test.Eq(t, []string{"close"}, engine.called())
	test.Eq(t, compute{mhz: 3500, cores: 3}, d.compute)
}

func TestReporter(t *testing.T) {
	t.Parallel()
	var r reporter
	now := time.Now()
	away := plugin.Fingerprint{Health: plugin.Unhealthy, Description: "away", Attributes: map[string]any{"v": "1"}}
	there := plugin.Fingerprint{Health: plugin.Healthy, Description: "Healthy", Attributes: map[string]any{"v": "1", "engine": "2"}}
	for i, c := range []struct {
		after  time.Duration
		look   plugin.Fingerprint
		due    bool
		health plugin.Health
		attr   any
	}{
		{0, away, true, plugin.Undetected, nil},
		{time.Second, away, false, 0, nil},
		{2 * time.Second, there, true, plugin.Healthy, "2"},
		{3 * time.Second, there, false, 0, nil},
		{32 * time.Second, there, true, plugin.Healthy, "2"},
		{33 * time.Second, away, true, plugin.Unhealthy, ""},
		{64 * time.Second, away, true, plugin.Unhealthy, nil},
	} {
		report, due := r.next(c.look, now.Add(c.after))
		must.Eq(t, c.due, due, must.Sprint(i))
		if due {
			test.Eq(t, c.health, report.Health, test.Sprint(i))
			test.Eq(t, c.attr, report.Attributes["engine"], test.Sprint(i))
		}
	}
}

func TestEventQueue_boundedAndNotLost(t *testing.T) {
	t.Parallel()
	d, _ := newTestDriver(t)
	for i := range maxQueuedEvents + 5 {
		d.emit(&plugin.TaskConfig{ID: "x"}, fmt.Sprint(i), nil)
	}
	broken := errors.New("stream broke")
	must.ErrorIs(t, d.TaskEvents(t.Context(), func(plugin.TaskEvent) error { return broken }), broken)
	ctx, cancel := context.WithCancel(t.Context())
	var got []string
	must.NoError(t, d.TaskEvents(ctx, func(event plugin.TaskEvent) error {
		if got = append(got, event.Message); len(got) == maxQueuedEvents {
			cancel()
		}
		return nil
	}))
	test.Len(t, maxQueuedEvents, got)
	test.Eq(t, "5", got[0])
}

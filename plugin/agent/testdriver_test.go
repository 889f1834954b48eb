package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/nomad-promptflow/nomad-promptflow/plugin"
	"github.com/nomad-promptflow/nomad-promptflow/plugin/hclspec"
)

// TestMain serves the test driver when this very binary is launched as a plugin.
func TestMain(m *testing.M) {
	if plugin.StartedByAgent() {
		logger := plugin.NewLogger("test-driver")
		plugin.Serve(newTestDriver(logger), logger)
		return
	}
	os.Exit(m.Run())
}

// testDriver keeps "tasks" that are no processes: the wire is what is tested.
type testDriver struct {
	logger hclog.Logger
	lock   sync.Mutex
	config testPluginConfig
	client *plugin.ClientConfig
	inits  int
	tasks  map[string]*testTask
	events chan plugin.TaskEvent
}

type testPluginConfig struct {
	Greeting string `codec:"greeting"`
	Limit    int    `codec:"limit"`
}

type testTaskConfig struct {
	Fail string `codec:"fail"`
}

type testTask struct {
	config *plugin.TaskConfig
	done   chan struct{}
	exit   plugin.ExitResult
}

func newTestDriver(logger hclog.Logger) *testDriver {
	return &testDriver{logger: logger, tasks: map[string]*testTask{}, events: make(chan plugin.TaskEvent, 8)}
}

func (d *testDriver) Info() plugin.Info { return plugin.Info{Name: "test", Version: "1.2.3"} }

func (d *testDriver) ConfigSchema() *hclspec.Spec {
	return hclspec.Object(map[string]*hclspec.Spec{
		"greeting": hclspec.String("greeting", "hello"),
		"limit":    hclspec.Number("limit", 7),
	})
}

func (d *testDriver) SetConfig(_ context.Context, config []byte, client *plugin.ClientConfig) error {
	d.lock.Lock()
	defer d.lock.Unlock()
	d.client = client
	d.config = testPluginConfig{}
	if err := plugin.DecodeConfig(config, &d.config); err != nil {
		return err
	}
	if d.config.Limit < 0 {
		return fmt.Errorf("limit %d: must not be negative", d.config.Limit)
	}
	return nil
}

func (d *testDriver) Init(context.Context) error {
	d.lock.Lock()
	defer d.lock.Unlock()
	d.inits++
	d.logger.Info("init", "count", d.inits)
	return nil
}

func (d *testDriver) Shutdown(context.Context) error { return nil }

func (d *testDriver) TaskConfigSchema() *hclspec.Spec {
	return hclspec.Object(map[string]*hclspec.Spec{"fail": hclspec.Attr("fail", "string", false)})
}

func (d *testDriver) Capabilities() plugin.Capabilities {
	return plugin.Capabilities{
		SendSignals: true, Exec: true, FSIsolation: plugin.FSIsolationImage,
		NetworkModes: []plugin.NetworkMode{plugin.NetworkHost, plugin.NetworkGroup},
		NoMounts:     true, DisableLogCollection: true, DynamicWorkloadUsers: true,
	}
}

func (d *testDriver) Fingerprint(ctx context.Context, send func(plugin.Fingerprint) error) error {
	d.lock.Lock()
	greeting, inits := d.config.Greeting, d.inits
	d.lock.Unlock()
	err := send(plugin.Fingerprint{
		Health: plugin.Healthy, Description: greeting,
		Attributes: map[string]any{"driver.test.text": "x", "driver.test.count": int64(inits), "driver.test.yes": true, "driver.test.part": 0.5},
	})
	if err != nil {
		return err
	}
	if err := send(plugin.Fingerprint{Health: plugin.Unhealthy, Description: "gone", Err: errors.New("engine is down")}); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

func (d *testDriver) TaskEvents(ctx context.Context, send func(plugin.TaskEvent) error) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case event := <-d.events:
			if err := send(event); err != nil {
				return err
			}
		}
	}
}

func (d *testDriver) StartTask(_ context.Context, task *plugin.TaskConfig) (*plugin.StartedTask, error) {
	var config testTaskConfig
	if err := plugin.DecodeConfig(task.DriverConfig, &config); err != nil {
		return nil, err
	}
	switch config.Fail {
	case "fatal":
		return nil, errors.New("image does not exist")
	case "recoverable":
		return nil, plugin.Recoverable(errors.New("registry is down"))
	case "panic":
		os.Exit(3)
	}
	d.lock.Lock()
	d.tasks[task.ID] = &testTask{config: task, done: make(chan struct{})}
	d.lock.Unlock()
	d.events <- plugin.TaskEvent{TaskID: task.ID, AllocID: task.AllocID, TaskName: task.Name, Time: time.Unix(100, 5), Message: "started", Annotations: map[string]string{"k": "v"}}
	state, err := plugin.EncodeState(map[string]string{"container": "c1"})
	return &plugin.StartedTask{DriverState: state, Network: &plugin.DriverNetwork{IP: "10.0.0.1", PortMap: map[string]int32{"http": 8080}, AutoAdvertise: true}}, err
}

func (d *testDriver) RecoverTask(_ context.Context, handle *plugin.TaskHandle) error {
	var state map[string]string
	if err := plugin.DecodeState(handle.DriverState, &state); err != nil {
		return err
	}
	if state["container"] != "c1" {
		return fmt.Errorf("container %q: not found", state["container"])
	}
	d.lock.Lock()
	defer d.lock.Unlock()
	d.tasks[handle.Config.ID] = &testTask{config: handle.Config, done: make(chan struct{})}
	return nil
}

func (d *testDriver) task(id string) (*testTask, error) {
	d.lock.Lock()
	defer d.lock.Unlock()
	task := d.tasks[id]
	if task == nil {
		return nil, plugin.ErrTaskNotFound
	}
	return task, nil
}

func (d *testDriver) WaitTask(ctx context.Context, id string) (*plugin.ExitResult, error) {
	task, err := d.task(id)
	if err != nil {
		return nil, err
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-task.done:
		return &task.exit, nil
	}
}

func (d *testDriver) StopTask(_ context.Context, id string, timeout time.Duration, signal string) error {
	task, err := d.task(id)
	if err != nil {
		return err
	}
	task.exit = plugin.ExitResult{ExitCode: int(timeout.Seconds()), Signal: len(signal), OOMKilled: true, Err: errors.New("lost")}
	close(task.done)
	return nil
}

func (d *testDriver) DestroyTask(_ context.Context, id string, _ bool) error {
	if _, err := d.task(id); err != nil {
		return err
	}
	d.lock.Lock()
	defer d.lock.Unlock()
	delete(d.tasks, id)
	return nil
}

func (d *testDriver) InspectTask(_ context.Context, id string) (*plugin.TaskStatus, error) {
	task, err := d.task(id)
	if err != nil {
		return nil, err
	}
	// No times: an agent takes a missing timestamp for an error.
	return &plugin.TaskStatus{ID: id, Name: task.config.Name, State: plugin.TaskRunning, Attributes: map[string]string{"a": "b"}}, nil
}

func (d *testDriver) TaskStats(_ context.Context, id string, _ time.Duration, send func(plugin.TaskUsage) error) error {
	if _, err := d.task(id); err != nil {
		return err
	}
	full := plugin.Usage{
		CPU:    &plugin.CPUUsage{Percent: 12.5, TotalTicks: 300, Measured: []string{"Percent", "Total Ticks"}},
		Memory: &plugin.MemoryUsage{RSS: 1 << 20, Measured: []string{"RSS"}},
	}
	if err := send(plugin.TaskUsage{Time: time.Unix(7, 0), Usage: full, PerPID: map[string]plugin.Usage{"42": full}}); err != nil {
		return err
	}
	return send(plugin.TaskUsage{}) // nothing measured
}

func (d *testDriver) SignalTask(_ context.Context, id, signal string) error {
	if _, err := d.task(id); err != nil {
		return err
	}
	return fmt.Errorf("signal %q: %w", signal, plugin.ErrNotSupported)
}

func (d *testDriver) ExecTask(_ context.Context, _ string, command []string, timeout time.Duration) (*plugin.ExecResult, error) {
	return &plugin.ExecResult{Stdout: []byte(fmt.Sprint(command)), Stderr: []byte(timeout.String()), Exit: plugin.ExitResult{ExitCode: 4}}, nil
}

// ExecTaskStreaming echoes its input until it ends and tells the last terminal size on stderr.
func (d *testDriver) ExecTaskStreaming(ctx context.Context, id string, opts plugin.ExecOptions) (*plugin.ExitResult, error) {
	if _, err := d.task(id); err != nil {
		return nil, err
	}
	if opts.Command[0] == "size" {
		select {
		case size := <-opts.Resize:
			_, err := fmt.Fprintf(opts.Stderr, "%dx%d tty=%v", size.Height, size.Width, opts.TTY)
			return &plugin.ExitResult{ExitCode: 5}, err
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if opts.Command[0] == "ignore-input" {
		return &plugin.ExitResult{Signal: 9}, nil
	}
	if _, err := io.Copy(opts.Stdout, opts.Stdin); err != nil {
		return nil, err
	}
	return &plugin.ExitResult{ExitCode: 6}, nil
}

func (d *testDriver) CreateNetwork(_ context.Context, allocID, hostname string) (*plugin.NetworkIsolation, bool, error) {
	return &plugin.NetworkIsolation{
		Mode: plugin.NetworkGroup, Path: "/run/netns/" + allocID, Labels: map[string]string{"l": "m"},
		Hosts: &plugin.HostsConfig{Hostname: hostname, Address: "10.1.1.1"},
	}, true, nil
}

func (d *testDriver) DestroyNetwork(_ context.Context, _ string, spec *plugin.NetworkIsolation) error {
	if spec == nil {
		return errors.New("no network")
	}
	return nil
}

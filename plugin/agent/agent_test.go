package agent

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/plugin"
)

// launch starts this test binary as a plugin, configured and ready.
func launch(t *testing.T) *Plugin {
	t.Helper()
	exe, err := os.Executable()
	must.NoError(t, err)
	p, err := Launch(Options{Path: exe})
	must.NoError(t, err)
	t.Cleanup(p.Close)
	return p
}

func configure(t *testing.T, p *Plugin, text string) error {
	t.Helper()
	schema, err := p.ConfigSchema(t.Context())
	must.NoError(t, err)
	wire, err := DecodeConfig(schema, text, nil)
	must.NoError(t, err)
	must.NoError(t, p.SetConfig(t.Context(), wire, nil), must.Sprint("validation, as an agent does first"))
	return p.SetConfig(t.Context(), wire, &plugin.ClientConfig{MinPort: 20000, MaxPort: 30000, Topology: &plugin.Topology{
		NodeIDs: []uint32{0}, Cores: []plugin.Core{{CoreID: 1, Efficiency: true, BaseSpeed: 2400}},
	}})
}

func newTask(t *testing.T, p *Plugin, config string) *plugin.TaskConfig {
	t.Helper()
	schema, err := p.TaskConfigSchema(t.Context())
	must.NoError(t, err)
	wire, err := DecodeConfig(schema, config, nil)
	must.NoError(t, err)
	alloc, err := NewAlloc(AllocConfig{
		Dir: t.TempDir() + "/alloc", Job: "job", Task: "runtime", CPU: 500, MemoryMB: 64, MemoryMaxMB: 128, User: "nobody",
		Ports: []plugin.Port{{Label: "http", Host: 20001, To: 8080, HostIP: "127.0.0.1"}}, Env: map[string]string{"A": "b"},
		Network: &plugin.NetworkIsolation{Mode: plugin.NetworkGroup, Path: "/run/netns/x"},
	})
	must.NoError(t, err)
	t.Cleanup(func() { must.NoError(t, alloc.Destroy()) })
	return alloc.Task(wire)
}

func TestPlugin_identifies_and_configures(t *testing.T) {
	t.Parallel()
	p := launch(t)
	info, err := p.Info(t.Context())
	must.NoError(t, err)
	test.Eq(t, plugin.Info{Name: "test", Version: "1.2.3"}, info)

	must.NoError(t, configure(t, p, `greeting = "good day"`))
	must.NoError(t, p.Init(t.Context()))

	capabilities, err := p.Capabilities(t.Context())
	must.NoError(t, err)
	test.Eq(t, newTestDriver(nil).Capabilities(), capabilities)

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var reports []plugin.Fingerprint
	err = p.Fingerprint(ctx, func(f plugin.Fingerprint) {
		if reports = append(reports, f); len(reports) == 2 {
			cancel()
		}
	})
	test.ErrorIs(t, err, context.Canceled)
	must.SliceLen(t, 2, reports)
	test.Eq(t, plugin.Healthy, reports[0].Health)
	test.Eq(t, "good day", reports[0].Description)
	test.Eq(t, map[string]any{"driver.test.text": "x", "driver.test.count": int64(1), "driver.test.yes": true, "driver.test.part": 0.5}, reports[0].Attributes)
	test.Eq(t, plugin.Unhealthy, reports[1].Health)
	test.EqError(t, reports[1].Err, "engine is down")
}

func TestPlugin_refuses_a_bad_configuration(t *testing.T) {
	t.Parallel()
	p := launch(t)
	schema, err := p.ConfigSchema(t.Context())
	must.NoError(t, err)
	wire, err := DecodeConfig(schema, `limit = -1`, nil)
	must.NoError(t, err)
	test.EqError(t, p.SetConfig(t.Context(), wire, nil), "limit -1: must not be negative")
}

func TestPlugin_drives_a_task_through_its_life(t *testing.T) {
	t.Parallel()
	p := launch(t)
	task := newTask(t, p, "")
	handle, network, err := p.StartTask(t.Context(), task)
	must.NoError(t, err)
	test.Eq(t, task, handle.Config, test.Sprint("an agent recovers nothing from a handle without the whole config"))
	test.Eq(t, plugin.TaskRunning, handle.State)
	test.Eq(t, int32(1), handle.Version)
	test.Eq(t, &plugin.DriverNetwork{IP: "10.0.0.1", PortMap: map[string]int32{"http": 8080}, AutoAdvertise: true}, network)

	status, err := p.InspectTask(t.Context(), task.ID)
	must.NoError(t, err)
	test.Eq(t, "runtime", status.Name)
	test.Eq(t, map[string]string{"a": "b"}, status.Attributes)

	waited := make(chan *plugin.ExitResult, 2)
	for range 2 {
		go func() {
			exit, err := p.WaitTask(t.Context(), task.ID)
			test.NoError(t, err)
			waited <- exit
		}()
	}
	must.NoError(t, p.StopTask(t.Context(), task.ID, 3*time.Second, "SIGUSR1"))
	for range 2 {
		exit := <-waited
		must.NotNil(t, exit)
		test.Eq(t, 3, exit.ExitCode)
		test.Eq(t, 7, exit.Signal)
		test.True(t, exit.OOMKilled)
		test.EqError(t, exit.Err, "lost")
	}
	must.NoError(t, p.DestroyTask(t.Context(), task.ID, true))
	_, err = p.InspectTask(t.Context(), task.ID)
	test.ErrorIs(t, err, plugin.ErrTaskNotFound)
}

func TestPlugin_answers_for_unknown_tasks(t *testing.T) {
	t.Parallel()
	p := launch(t)
	test.NoError(t, p.StopTask(t.Context(), "none", time.Second, ""), test.Sprint("an error would be retried for minutes"))
	test.NoError(t, p.DestroyTask(t.Context(), "none", true))
	_, err := p.WaitTask(t.Context(), "none")
	test.ErrorIs(t, err, plugin.ErrTaskNotFound)
}

func TestPlugin_tells_which_start_errors_are_worth_another_try(t *testing.T) {
	t.Parallel()
	p := launch(t)
	_, _, err := p.StartTask(t.Context(), newTask(t, p, `fail = "fatal"`))
	test.EqError(t, err, "image does not exist")
	test.False(t, plugin.IsRecoverable(err))
	_, _, err = p.StartTask(t.Context(), newTask(t, p, `fail = "recoverable"`))
	test.EqError(t, err, "registry is down")
	test.True(t, plugin.IsRecoverable(err))
}

func TestPlugin_sends_events_and_stats(t *testing.T) {
	t.Parallel()
	p := launch(t)
	task := newTask(t, p, "")
	_, _, err := p.StartTask(t.Context(), task)
	must.NoError(t, err)

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var events []plugin.TaskEvent
	err = p.TaskEvents(ctx, func(e plugin.TaskEvent) { events = append(events, e); cancel() })
	test.ErrorIs(t, err, context.Canceled)
	must.SliceLen(t, 1, events)
	test.Eq(t, task.AllocID, events[0].AllocID)
	test.Eq(t, map[string]string{"k": "v"}, events[0].Annotations)
	test.Eq(t, time.Unix(100, 5).UTC(), events[0].Time)

	var samples []plugin.TaskUsage
	must.NoError(t, p.TaskStats(t.Context(), task.ID, time.Second, func(u plugin.TaskUsage) { samples = append(samples, u) }))
	must.SliceLen(t, 2, samples)
	test.Eq(t, &plugin.CPUUsage{Percent: 12.5, TotalTicks: 300, Measured: []string{"Percent", "Total Ticks"}}, samples[0].CPU)
	test.Eq(t, &plugin.MemoryUsage{RSS: 1 << 20, Measured: []string{"RSS"}}, samples[0].PerPID["42"].Memory)
	test.NotNil(t, samples[1].CPU, test.Sprint("an agent dereferences it"))
}

func TestPlugin_executes(t *testing.T) {
	t.Parallel()
	p := launch(t)
	task := newTask(t, p, "")
	_, _, err := p.StartTask(t.Context(), task)
	must.NoError(t, err)

	result, err := p.ExecTask(t.Context(), task.ID, []string{"a", "b"}, time.Minute)
	must.NoError(t, err)
	test.Eq(t, "[a b]", string(result.Stdout))
	test.Eq(t, "1m0s", string(result.Stderr))
	test.Eq(t, 4, result.Exit.ExitCode)

	err = p.SignalTask(t.Context(), task.ID, "SIGWINCH")
	test.ErrorIs(t, err, plugin.ErrNotSupported)
	test.ErrorContains(t, err, "SIGWINCH")
}

func TestPlugin_executes_with_live_input_and_output(t *testing.T) {
	t.Parallel()
	p := launch(t)
	task := newTask(t, p, "")
	_, _, err := p.StartTask(t.Context(), task)
	must.NoError(t, err)
	input := strings.Repeat("0123456789abcdef", 64<<10) // 1 MiB, many frames

	tests := []struct {
		name    string
		command string
		stdin   io.ReadCloser
		resize  []plugin.TerminalSize
		tty     bool
		stdout  string
		stderr  string
		exit    plugin.ExitResult
	}{
		{name: "echo until input ends", command: "echo", stdin: io.NopCloser(strings.NewReader(input)), stdout: input, exit: plugin.ExitResult{ExitCode: 6}},
		{name: "terminal size after the setup", command: "size", tty: true, resize: []plugin.TerminalSize{{Height: 40, Width: 100}}, stderr: "40x100 tty=true", exit: plugin.ExitResult{ExitCode: 5}},
		{name: "input that nobody reads", command: "ignore-input", stdin: io.NopCloser(strings.NewReader(input)), exit: plugin.ExitResult{Signal: 9}},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			resize := make(chan plugin.TerminalSize, 1)
			for _, size := range tc.resize {
				resize <- size
			}
			exit, err := p.ExecTaskStreaming(t.Context(), task.ID, plugin.ExecOptions{
				Command: []string{tc.command}, TTY: tc.tty, Stdin: tc.stdin,
				Stdout: nopCloser{&stdout}, Stderr: nopCloser{&stderr}, Resize: resize,
			})
			must.NoError(t, err)
			test.Eq(t, tc.exit, *exit)
			test.True(t, tc.stdout == stdout.String(), test.Sprintf("stdout of %d bytes", stdout.Len()))
			test.Eq(t, tc.stderr, stderr.String())
		})
	}

	_, err = p.ExecTaskStreaming(t.Context(), "none", plugin.ExecOptions{Command: []string{"echo"}})
	test.ErrorIs(t, err, plugin.ErrTaskNotFound)
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

func TestPlugin_makes_networks(t *testing.T) {
	t.Parallel()
	p := launch(t)
	spec, created, err := p.CreateNetwork(t.Context(), "alloc1", "host1")
	must.NoError(t, err)
	test.True(t, created)
	test.Eq(t, &plugin.NetworkIsolation{
		Mode: plugin.NetworkGroup, Path: "/run/netns/alloc1", Labels: map[string]string{"l": "m"},
		Hosts: &plugin.HostsConfig{Hostname: "host1", Address: "10.1.1.1"},
	}, spec)
	test.NoError(t, p.DestroyNetwork(t.Context(), "alloc1", spec))
	test.EqError(t, p.DestroyNetwork(t.Context(), "alloc1", nil), "no network")
}

func TestPlugin_is_found_again_by_the_next_agent(t *testing.T) {
	t.Parallel()
	p := launch(t)
	must.NoError(t, configure(t, p, `greeting = "kept"`))
	task := newTask(t, p, "")
	_, _, err := p.StartTask(t.Context(), task)
	must.NoError(t, err)

	again, err := Reattach(p.ReattachConfig(), nil)
	must.NoError(t, err)
	must.Eq(t, p.PID(), again.PID())
	status, err := again.InspectTask(t.Context(), task.ID)
	must.NoError(t, err)
	test.Eq(t, task.ID, status.ID)
}

func TestPlugin_killed_ends_its_calls_and_gives_tasks_to_the_next_process(t *testing.T) {
	t.Parallel()
	p := launch(t)
	task := newTask(t, p, "")
	handle, _, err := p.StartTask(t.Context(), task)
	must.NoError(t, err)

	waiting := make(chan error, 1)
	go func() {
		_, err := p.WaitTask(t.Context(), task.ID)
		waiting <- err
	}()
	streams := make(chan error, 2)
	go func() { streams <- p.Fingerprint(t.Context(), func(plugin.Fingerprint) {}) }()
	go func() { streams <- p.TaskEvents(t.Context(), func(plugin.TaskEvent) {}) }()
	must.NoError(t, p.Kill())
	must.ErrorIs(t, <-waiting, plugin.ErrPluginShutdown)
	for range 2 {
		must.ErrorIs(t, <-streams, plugin.ErrPluginShutdown)
	}
	must.True(t, p.Exited())
	_, err = p.InspectTask(t.Context(), task.ID)
	must.ErrorIs(t, err, plugin.ErrPluginShutdown, must.Sprint("a call after the end"))

	next := launch(t)
	must.NoError(t, next.RecoverTask(t.Context(), handle))
	status, err := next.InspectTask(t.Context(), task.ID)
	must.NoError(t, err)
	test.Eq(t, plugin.TaskRunning, status.State)
	handle.DriverState, err = plugin.EncodeState(map[string]string{"container": "c2"})
	must.NoError(t, err)
	test.EqError(t, next.RecoverTask(t.Context(), handle), `container "c2": not found`)
}

func TestPlugin_that_dies_in_a_call_fails_that_call(t *testing.T) {
	t.Parallel()
	p := launch(t)
	_, _, err := p.StartTask(t.Context(), newTask(t, p, `fail = "panic"`))
	must.ErrorIs(t, err, plugin.ErrPluginShutdown)
}

func TestLaunch_says_what_is_no_plugin(t *testing.T) {
	t.Parallel()
	_, err := Launch(Options{Path: "/bin/true"})
	must.ErrorContains(t, err, "launch plugin /bin/true")
	_, err = Launch(Options{Path: "/nonexistent"})
	must.ErrorContains(t, err, "/nonexistent")
	test.True(t, errors.Is(err, os.ErrNotExist))
}

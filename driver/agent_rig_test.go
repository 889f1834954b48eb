package driver_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/e2e/harness"
	"github.com/nomad-promptflow/nomad-promptflow/plugin"
	"github.com/nomad-promptflow/nomad-promptflow/plugin/agent"
	"github.com/nomad-promptflow/nomad-promptflow/plugin/hclspec"
)

// machine is a containerd with an environment made of busybox, on which plugins are launched as an agent does.
type machine struct {
	daemon *harness.ContainerdDaemon
	layout string
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	harness.Integration(t)
	return &machine{daemon: harness.Containerd(t), layout: harness.BusyboxLayout(t, harness.BusyboxImage{
		Tag: "default:latest", Config: ocispec.ImageConfig{Entrypoint: []string{"/bin/sh", "-c"}},
	})}
}

// node is a plugin process with its configuration.
type node struct {
	*agent.Plugin
	t       *testing.T
	machine *machine
	schema  *hclspec.Spec
}

// launch starts the real plugin binary and configures it with HCL, over the real protocol.
func (m *machine) launch(t *testing.T, config string) *node {
	t.Helper()
	launched, err := agent.Launch(agent.Options{Path: harness.Binary(t), Logger: testLogger(t)})
	must.NoError(t, err)
	t.Cleanup(launched.Close)
	schema, err := launched.ConfigSchema(t.Context())
	must.NoError(t, err)
	encoded, err := agent.DecodeConfig(schema, fmt.Sprintf("environments = %q\ncontainerd {\n  address = %q\n}\n%s", m.layout, m.daemon.Address, config), nil)
	must.NoError(t, err)
	must.NoError(t, launched.SetConfig(t.Context(), encoded, &plugin.ClientConfig{Topology: &plugin.Topology{OverrideTotalCompute: 4000}}))
	must.NoError(t, launched.Init(t.Context()))
	n := &node{Plugin: launched, t: t, machine: m}
	n.schema, err = launched.TaskConfigSchema(t.Context())
	must.NoError(t, err)
	return n
}

// agentTask is a task in an allocation of its own.
type agentTask struct {
	*plugin.TaskConfig
	node  *node
	alloc *agent.Alloc
}

// task makes an allocation for a task with the given config { } body.
func (n *node) task(config string) *agentTask {
	n.t.Helper()
	encoded, err := agent.DecodeConfig(n.schema, config, nil)
	must.NoError(n.t, err)
	alloc, err := agent.NewAlloc(agent.AllocConfig{
		Dir: filepath.Join(n.t.TempDir(), "alloc"), Job: "job", Task: "web", CPU: 500, MemoryMB: 64, SecretsTmpfs: true,
	})
	must.NoError(n.t, err)
	n.t.Cleanup(func() { must.NoError(n.t, alloc.Destroy()) })
	return &agentTask{TaskConfig: alloc.Task(encoded), node: n, alloc: alloc}
}

// shell is a config { } body that runs a script in the default environment.
func shell(script string, options ...string) string {
	return fmt.Sprintf("args = [<<EOT\n%s\nEOT\n]\n%s", strings.ReplaceAll(script, "${", "$${"), strings.Join(options, "\n"))
}

func (a *agentTask) start() error {
	a.node.t.Helper()
	_, _, err := a.node.StartTask(a.node.t.Context(), a.TaskConfig)
	a.node.t.Cleanup(a.destroy)
	return err
}

func (a *agentTask) wait() *plugin.ExitResult {
	a.node.t.Helper()
	ctx, cancel := context.WithTimeout(a.node.t.Context(), bound)
	defer cancel()
	result, err := a.node.WaitTask(ctx, a.ID)
	must.NoError(a.node.t, err)
	must.NoError(a.node.t, result.Err)
	return result
}

func (a *agentTask) destroy() {
	a.node.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	defer cancel()
	must.NoError(a.node.t, a.node.DestroyTask(ctx, a.ID, true))
}

// output is all that the task printed, once it has ended.
func (a *agentTask) output() string {
	a.node.t.Helper()
	must.NoError(a.node.t, a.alloc.Logs().Close())
	text, err := a.alloc.Logs().Tail(1 << 20)
	must.NoError(a.node.t, err)
	return text
}

// containerRecord is what containerd knows of the task's container.
func containerRecord(t *testing.T, task *agentTask) containers.Container {
	t.Helper()
	ctx := namespaces.WithNamespace(t.Context(), "nomad")
	list, err := task.node.machine.daemon.Client("nomad").Containers(ctx, fmt.Sprintf("labels.%q==%q", "com.hashicorp.nomad.task_id", task.ID))
	must.NoError(t, err)
	must.Len(t, 1, list)
	record, err := list[0].Info(ctx)
	must.NoError(t, err)
	return record
}

package driver_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	containerd "github.com/containerd/containerd/v2/client"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/driver"
	"github.com/nomad-promptflow/nomad-promptflow/driver/engine"
	"github.com/nomad-promptflow/nomad-promptflow/e2e/harness"
	"github.com/nomad-promptflow/nomad-promptflow/plugin"
	"github.com/nomad-promptflow/nomad-promptflow/plugin/agent"
)

// TestMain makes this test binary the driver's plugin when an agent starts it, so that what is tested over the wire is what was
// just compiled, with race detection if that was asked for.
func TestMain(m *testing.M) {
	if plugin.StartedByAgent() {
		logger := plugin.NewLogger("nomad-promptflow")
		plugin.Serve(driver.New(driver.Parts{Version: "0.1.0", Logger: logger, OpenEngine: engine.Open}), logger)
		return
	}
	os.Exit(m.Run())
}

// topology is what the agent says of the node's processors: two cores of 2000 MHz.
var topology = &plugin.Topology{NodeIDs: []uint32{0}, Cores: []plugin.Core{{CoreID: 0, BaseSpeed: 2000}, {CoreID: 1, BaseSpeed: 2000}}}

// wireRig drives the driver as an agent does: as a process of its own and over the wire, on a containerd of its own.
type wireRig struct {
	t      testing.TB
	whole  testing.TB // the test that the daemon and the plugins belong to; t may be a part of it
	daemon *harness.ContainerdDaemon
	layout string
	binary string
	node   string
	extra  string // of the plugin's configuration

	plugin *agent.Plugin
}

// newWireRig starts this test binary as the plugin. Extra is HCL beside the addresses of what the rig made.
func newWireRig(t testing.TB, extra string, images ...harness.BusyboxImage) *wireRig {
	t.Helper()
	exe, err := os.Executable()
	must.NoError(t, err)
	return newWireRigOf(t, exe, extra, images...)
}

func newWireRigOf(t testing.TB, binary, extra string, images ...harness.BusyboxImage) *wireRig {
	t.Helper()
	harness.Integration(t)
	if len(images) == 0 {
		images = []harness.BusyboxImage{{Tag: "default:latest", Config: ocispec.ImageConfig{Entrypoint: []string{"/bin/sh", "-c"}}}}
	}
	r := &wireRig{
		t: t, whole: t, daemon: harness.Containerd(t), layout: harness.BusyboxLayout(t, images...),
		binary: binary, node: randomName(t), extra: extra,
	}
	r.launch()
	return r
}

// in is the rig for a part of its test. What plugin the part ends with is the rig's then.
func (r *wireRig) in(t testing.TB) *wireRig {
	part := *r
	part.t = t
	t.Cleanup(func() { r.plugin = part.plugin })
	return &part
}

// launch starts the plugin and configures it, as an agent that starts does.
func (r *wireRig) launch() {
	r.t.Helper()
	p, err := agent.Launch(agent.Options{Path: r.binary, Logger: testLogger(r.whole)})
	must.NoError(r.t, err)
	r.whole.Cleanup(p.Close)
	schema, err := p.ConfigSchema(r.t.Context())
	must.NoError(r.t, err)
	config, err := agent.DecodeConfig(schema, fmt.Sprintf("%s\nenvironments = %q\ncontainerd {\n  address = %q\n}\n",
		r.extra, r.layout, r.daemon.Address), nil)
	must.NoError(r.t, err)
	must.NoError(r.t, p.SetConfig(r.t.Context(), config, nil))
	must.NoError(r.t, p.SetConfig(r.t.Context(), config, &plugin.ClientConfig{MinPort: 20000, MaxPort: 30000, Topology: topology}))
	must.NoError(r.t, p.Init(r.t.Context()))
	r.plugin = p
}

// wireTask is a task of an allocation of its own.
type wireTask struct {
	*plugin.TaskConfig
	alloc  *agent.Alloc
	handle *plugin.TaskHandle
}

// newTask prepares a task. Config is the HCL of its config block.
func (r *wireRig) newTask(config string, change ...func(*agent.AllocConfig)) *wireTask {
	r.t.Helper()
	schema, err := r.plugin.TaskConfigSchema(r.t.Context())
	must.NoError(r.t, err)
	wire, err := agent.DecodeConfig(schema, config, nil)
	must.NoError(r.t, err)
	allocConfig := agent.AllocConfig{
		Dir: filepath.Join(r.t.TempDir(), "alloc"), Job: "job", Group: "group", Task: "web", NodeID: r.node, NodeName: "node",
		CPU: 100, MemoryMB: 64,
	}
	for _, apply := range change {
		apply(&allocConfig)
	}
	alloc, err := agent.NewAlloc(allocConfig)
	must.NoError(r.t, err)
	r.t.Cleanup(func() { must.NoError(r.t, alloc.Destroy()) })
	return &wireTask{TaskConfig: alloc.Task(wire), alloc: alloc}
}

// shell is a task that runs a script.
func (r *wireRig) shell(script string, change ...func(*agent.AllocConfig)) *wireTask {
	r.t.Helper()
	return r.newTask(fmt.Sprintf("args = [%q]", script), change...)
}

func (r *wireRig) start(task *wireTask) {
	r.t.Helper()
	handle, _, err := r.plugin.StartTask(r.t.Context(), task.TaskConfig)
	must.NoError(r.t, err)
	task.handle = handle
}

func (r *wireRig) wait(task *wireTask) *plugin.ExitResult {
	r.t.Helper()
	result, err := r.plugin.WaitTask(r.t.Context(), task.ID)
	must.NoError(r.t, err)
	must.NoError(r.t, result.Err)
	return result
}

func (r *wireRig) destroy(task *wireTask) {
	r.t.Helper()
	must.NoError(r.t, r.plugin.DestroyTask(r.t.Context(), task.ID, true))
}

// log is what the task has printed so far.
func (task *wireTask) log(t testing.TB) string {
	t.Helper()
	text, err := task.alloc.Logs().Tail(64 << 10)
	must.NoError(t, err)
	return text
}

// client is containerd's own view.
func (r *wireRig) client() *containerd.Client { return r.daemon.Client("nomad") }

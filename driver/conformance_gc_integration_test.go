package driver_test

import (
	"context"
	"sync"
	"testing"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/shoenig/test"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/plugin"
	"github.com/nomad-promptflow/nomad-promptflow/plugin/agent"
)

// fingerprint listens as the agent does for as long as the plugin lives, and returns when it has heard the first.
func (r *wireRig) fingerprint() {
	r.t.Helper()
	first := make(chan struct{})
	heard := sync.OnceFunc(func() { close(first) })
	listening := r.plugin
	go func() { _ = listening.Fingerprint(r.t.Context(), func(plugin.Fingerprint) { heard() }) }()
	select {
	case <-first:
	case <-time.After(bound):
		r.t.Fatal("no fingerprint came")
	}
}

// eager is a configuration that collects dangling containers as soon as it can.
func eager(more string) string {
	return "gc {\n" + more + `
  dangling_containers {
    period         = "1s"
    creation_grace = "1s"
  }
}`
}

// gone says whether containerd has the container no more.
func (r *wireRig) gone(container containerd.Container) bool {
	r.t.Helper()
	_, err := r.client().ContainerService().Get(r.ctx(), container.ID())
	return err != nil
}

// abandon starts a task of which the next plugin is not told.
func (r *wireRig) abandon(task *wireTask) containerd.Container {
	r.t.Helper()
	r.start(task)
	return r.inspectContainer(task)
}

// nextPlugin kills the plugin and starts another, which an agent listens to and which starts a task.
func (r *wireRig) nextPlugin() *wireTask {
	r.t.Helper()
	must.NoError(r.t, r.plugin.Kill())
	r.launch()
	r.fingerprint()
	task := r.shell("sleep 1000")
	r.start(task)
	return task
}

func TestConformance_CleanupContainer(t *testing.T) {
	r := newWireRig(t, "")
	task := r.shell("exit 0")
	r.start(task)
	r.wait(task)
	container := r.inspectContainer(task)
	r.destroy(task)
	test.True(t, r.gone(container))
	r.requireNothingLeft()
}

func TestConformance_GC_Container_on(t *testing.T) {
	r := newWireRig(t, "gc {\n  container = true\n}")
	task := r.shell("sleep 1000")
	r.start(task)
	r.destroy(task)
	r.requireNothingLeft()
}

// A container that is kept stays also when dangling ones are collected, of which there is one to see that they are.
func TestConformance_GC_Container_off(t *testing.T) {
	t.Parallel()
	r := newWireRig(t, eager("container = false"))
	task := r.shell("echo kept > /trace; sleep 1000")
	r.start(task)
	kept := r.inspectContainer(task)
	r.destroy(task)
	dangling := r.abandon(r.shell("sleep 1000"))
	r.nextPlugin()
	eventually(t, "the dangling container is removed", func() bool { return r.gone(dangling) })
	info, err := kept.Info(r.ctx())
	must.NoError(t, err, must.Sprint("it stays for a look"))
	_, err = r.client().SnapshotService("overlayfs").Stat(r.ctx(), info.SnapshotKey)
	must.NoError(t, err)
	_, err = kept.Task(r.ctx(), nil)
	test.Error(t, err, test.Sprint("and has no process"))
}

func TestConformance_DanglingContainerRemoval_normal(t *testing.T) {
	t.Parallel()
	r := newWireRig(t, eager(""))
	dangling := r.abandon(r.shell("sleep 1000"))
	others := r.abandon(r.shell("sleep 1000", func(c *agent.AllocConfig) { c.NodeID = "another node" }))
	info, err := dangling.Info(r.ctx())
	must.NoError(t, err)
	image, err := r.client().GetImage(r.ctx(), info.Image)
	must.NoError(t, err)
	_, err = r.client().NewContainer(r.ctx(), "pf-not-ours", containerd.WithNewSnapshot("pf-not-ours", image), containerd.WithNewSpec(oci.WithImageConfig(image)))
	must.NoError(t, err)
	elsewhere := namespaces.WithNamespace(t.Context(), "elsewhere")
	_, err = r.client().NewContainer(elsewhere, "pf-elsewhere", containerd.WithNewSpec(), containerd.WithContainerLabels(info.Labels))
	must.NoError(t, err)
	cutOff := r.cutOffStart(image, info.Labels)

	known := r.nextPlugin()
	eventually(t, "the dangling container is removed", func() bool { return r.gone(dangling) })
	eventually(t, "what a cut-off start left is removed", func() bool { return !r.snapshots()[cutOff] })
	held, err := r.client().LeasesService().List(r.ctx())
	must.NoError(t, err)
	test.SliceEmpty(t, held)
	for _, name := range []string{others.ID(), "pf-not-ours", r.inspectContainer(known).ID()} {
		_, err := r.client().LoadContainer(r.ctx(), name)
		test.NoError(t, err)
		test.True(t, r.snapshots()[name], test.Sprint(name))
	}
	_, err = r.client().LoadContainer(elsewhere, "pf-elsewhere")
	test.NoError(t, err)
	must.NoError(t, r.client().ContainerService().Delete(elsewhere, "pf-elsewhere"))
}

// cutOffStart makes what a start leaves whose plugin is killed before the container's record is made.
func (r *wireRig) cutOffStart(image containerd.Image, labels map[string]string) string {
	r.t.Helper()
	const id = "pf-cut-off"
	marks := map[string]string{"nomad-promptflow/node": labels["nomad-promptflow/node"]}
	lease, err := r.client().LeasesService().Create(r.ctx(), leases.WithID(id), leases.WithLabels(marks), leases.WithExpiration(time.Hour))
	must.NoError(r.t, err)
	rootFS, err := image.RootFS(r.ctx())
	must.NoError(r.t, err)
	must.SliceLen(r.t, 1, rootFS)
	_, err = r.client().SnapshotService("overlayfs").Prepare(leases.WithLease(r.ctx(), lease.ID), id, rootFS[0].String(), snapshots.WithLabels(marks))
	must.NoError(r.t, err)
	return id
}

// Other than docker's driver, which leaves what has stopped, this one takes every container that nobody can ask for any more;
// what is to stay for a look is so marked.
func TestConformance_DanglingContainerRemoval_Stopped(t *testing.T) {
	t.Parallel()
	r := newWireRig(t, eager(""))
	task := r.shell("exit 0")
	stopped := r.abandon(task)
	r.wait(task)
	r.nextPlugin()
	eventually(t, "the stopped container is removed", func() bool { return r.gone(stopped) })
}

// A task that the agent hands back while others dangle is not touched, nor is anything while no agent listens.
func TestDangling_recoveredTasksStay(t *testing.T) {
	t.Parallel()
	r := newWireRig(t, eager(""))
	recovered := r.shell("sleep 1000")
	r.start(recovered)
	dangling := r.abandon(r.shell("sleep 1000"))
	must.NoError(t, r.plugin.Kill())
	r.launch()
	r.fingerprint()
	must.NoError(t, r.plugin.RecoverTask(t.Context(), recovered.restored()))
	waited := make(chan struct{})
	go func() { defer close(waited); _, _ = r.plugin.WaitTask(t.Context(), recovered.ID) }()
	eventually(t, "the dangling container is removed", func() bool { return r.gone(dangling) })
	status, err := r.plugin.InspectTask(t.Context(), recovered.ID)
	must.NoError(t, err)
	test.Eq(t, plugin.TaskRunning, status.State)
	r.destroy(recovered)
	<-waited
	r.requireNothingLeft()
}

func TestGC_containerDelay(t *testing.T) {
	t.Parallel()
	r := newWireRig(t, "gc {\n  container_delay = \"5s\"\n}")
	here, later := r.shell("sleep 1000"), r.shell("sleep 1000")
	r.start(here)
	r.start(later)
	containers := []containerd.Container{r.inspectContainer(here), r.inspectContainer(later)}
	r.destroy(here)
	eventually(t, "the container of the plugin that lives is removed", func() bool { return r.gone(containers[0]) })

	r.destroy(later)
	must.False(t, r.gone(containers[1]), must.Sprint("it stays for a while"))
	test.SliceEmpty(t, r.daemon.Shims(), test.Sprint("without a process"))
	must.NoError(t, r.plugin.Kill())
	r.launch()
	r.fingerprint()
	eventually(t, "the next plugin removes it when it is time", func() bool { return r.gone(containers[1]) })
	r.requireNothingLeft()
}

// The agent is killed and another finds the plugin again. It knows one of the two tasks; of the other it had not written down that
// it started. The plugin knows both.
func TestDangling_tasksThatTheNextAgentDoesNotKnow(t *testing.T) {
	t.Parallel()
	r := newWireRig(t, eager(""))
	first, die := context.WithCancel(t.Context())
	listening := make(chan error, 1)
	go func() { listening <- r.plugin.Fingerprint(first, func(plugin.Fingerprint) {}) }()
	known, lost := r.shell("sleep 1000"), r.shell("sleep 1000")
	r.start(known)
	r.start(lost)
	container := r.inspectContainer(lost)
	waited := make(chan error, 1)
	go func() { _, err := r.plugin.WaitTask(first, known.ID); waited <- err }()
	die()
	test.ErrorIs(t, <-listening, context.Canceled)
	test.ErrorIs(t, <-waited, context.Canceled)

	again, err := agent.Reattach(r.plugin.ReattachConfig(), testLogger(t))
	must.NoError(t, err)
	must.NoError(t, again.Init(t.Context()))
	r.plugin = again
	r.fingerprint()
	must.NoError(t, again.RecoverTask(t.Context(), known.restored()))
	done := make(chan struct{})
	go func() { defer close(done); _, _ = again.WaitTask(t.Context(), known.ID) }()
	eventually(t, "the task that nobody wants is removed", func() bool { return r.gone(container) })
	_, err = again.InspectTask(t.Context(), lost.ID)
	test.ErrorIs(t, err, plugin.ErrTaskNotFound)
	status, err := again.InspectTask(t.Context(), known.ID)
	must.NoError(t, err)
	test.Eq(t, plugin.TaskRunning, status.State)
	r.destroy(known)
	<-done
	r.requireNothingLeft()
}

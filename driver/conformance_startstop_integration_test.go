package driver_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/shoenig/test"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/e2e/harness"
	"github.com/nomad-promptflow/nomad-promptflow/plugin"
	"github.com/nomad-promptflow/nomad-promptflow/plugin/agent"
)

// The tests of this file are those that the docker, podman, exec and raw_exec drivers of Nomad are held to, by the names they have
// there, done over the plugin protocol against a real containerd.

// inspectContainer is what containerd has of the task, nil when that is nothing.
func (r *wireRig) inspectContainer(task *wireTask) containerd.Container {
	r.t.Helper()
	status, err := r.plugin.InspectTask(r.t.Context(), task.ID)
	must.NoError(r.t, err)
	container, err := r.client().LoadContainer(r.ctx(), status.Attributes["container_id"])
	must.NoError(r.t, err)
	return container
}

// ctx is the test's, for containerd's own client.
func (r *wireRig) ctx() context.Context { return namespaces.WithNamespace(r.t.Context(), "nomad") }

// process is the task's first process as the host numbers it.
func (r *wireRig) process(task *wireTask) int {
	r.t.Helper()
	process, err := r.inspectContainer(task).Task(r.ctx(), nil)
	must.NoError(r.t, err)
	return int(process.Pid())
}

// awaitLog waits until the task has printed what is wanted.
func (task *wireTask) awaitLog(t testing.TB, want string) {
	t.Helper()
	eventually(t, "the task prints "+want, func() bool { return strings.Contains(task.log(t), want) })
}

// requireNothingLeft checks that containerd has no container, no snapshot and no shim any more.
func (r *wireRig) requireNothingLeft() {
	r.t.Helper()
	eventually(r.t, "nothing is left", func() bool {
		containers, err := r.client().Containers(r.ctx())
		must.NoError(r.t, err)
		return len(containers) == 0 && len(r.daemon.Shims()) == 0 && len(r.daemon.Mounts()) == 0 && len(r.snapshots()) == 0
	})
}

// snapshots are the names of the writable ones.
func (r *wireRig) snapshots() map[string]bool {
	return activeSnapshots(&rig{t: r.t, daemon: r.daemon})
}

func TestConformance_StartStop(t *testing.T) {
	r := newWireRig(t, "")
	for _, c := range []struct {
		name string
		run  func(*testing.T, *wireRig)
	}{
		{"Start_Wait", conformStartWait},
		{"Start_WaitFinish", conformStartWaitFinish},
		{"Start_StoppedContainer", conformStartStoppedContainer},
		{"ContainerAlreadyExists", conformContainerAlreadyExists},
		{"CreationIdempotent", conformCreationIdempotent},
		{"MissingContainer_Cleanup", conformMissingContainerCleanup},
		{"Start_NoImage", conformStartNoImage},
		{"Start_BadPull_Recoverable", conformStartBadPull},
		{"Start_Wait_AllocDir", conformStartWaitAllocDir},
		{"Start_Kill_Wait", conformStartKillWait},
		{"Start_KillTimeout", conformStartKillTimeout},
		{"StartN", conformStartN},
		{"parseSignal", conformParseSignal},
		{"StartWaitStop", conformStartWaitStop},
		{"StartWaitStopKill", conformStartWaitStopKill},
		{"StartWaitRecover", conformStartWaitRecover},
		{"StartWaitRecoverWaitStop", conformStartWaitRecoverWaitStop},
		{"RecoverTask", conformRecoverTask},
		{"NoOrphanedTasks", conformNoOrphanedTasks},
		{"DestroyKillsAll", conformDestroyKillsAll},
		{"ExecutorKilled_ExitCode", conformExecutorKilled},
		{"WaitExitSignal", conformWaitExitSignal},
	} {
		t.Run(c.name, func(t *testing.T) {
			part := r.in(t)
			c.run(t, part)
			part.requireNothingLeft()
		})
	}
}

func conformStartWait(t *testing.T, r *wireRig) {
	task := r.shell("sleep 1000")
	r.start(task)
	short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := r.plugin.WaitTask(short, task.ID)
	test.ErrorIs(t, err, context.DeadlineExceeded, test.Sprint("it waits as long as the task runs"))
	status, err := r.plugin.InspectTask(t.Context(), task.ID)
	must.NoError(t, err)
	test.Eq(t, plugin.TaskRunning, status.State)
	r.destroy(task)
}

func conformStartWaitFinish(t *testing.T, r *wireRig) {
	task := r.shell("exit 0")
	r.start(task)
	test.Eq(t, plugin.ExitResult{}, *r.wait(task))
	r.destroy(task)
}

// A container of the task that does not run is in the way of nothing.
func conformStartStoppedContainer(t *testing.T, r *wireRig) {
	task := r.shell("echo once; exit 3")
	r.start(task)
	test.Eq(t, 3, r.wait(task).ExitCode)
	must.NoError(t, r.plugin.Kill())
	r.launch()
	r.start(task)
	test.Eq(t, 3, r.wait(task).ExitCode)
	eventually(t, "it ran twice", func() bool { return strings.Count(task.log(t), "once") == 2 })
	r.destroy(task)
}

// A start that the agent sends again takes over the container that runs.
func conformContainerAlreadyExists(t *testing.T, r *wireRig) {
	task := r.shell("echo started; sleep 1000")
	r.start(task)
	task.awaitLog(t, "started")
	pid := r.process(task)
	must.NoError(t, r.plugin.Kill())
	r.launch()
	r.start(task)
	test.Eq(t, pid, r.process(task))
	test.Eq(t, 1, strings.Count(task.log(t), "started"))
	r.destroy(task)
}

// What a start that was cut off left behind does not keep the task from being started: a record, a process that was not started yet,
// a snapshot.
func conformCreationIdempotent(t *testing.T, r *wireRig) {
	task := r.shell("exit 0")
	r.start(task)
	status, err := r.plugin.InspectTask(t.Context(), task.ID)
	must.NoError(t, err)
	id := status.Attributes["container_id"]
	image, err := r.client().GetImage(r.ctx(), status.Attributes["image"])
	must.NoError(t, err)
	r.wait(task)
	r.destroy(task)

	for _, made := range []bool{false, true} {
		container, err := r.client().NewContainer(r.ctx(), id, containerd.WithNewSnapshot(id, image), containerd.WithNewSpec(oci.WithImageConfig(image)))
		must.NoError(t, err)
		if made {
			_, err = container.NewTask(r.ctx(), cio.NullIO)
			must.NoError(t, err)
		}
		r.start(task)
		test.Eq(t, 0, r.wait(task).ExitCode)
		r.destroy(task)
	}

	leased, done, err := r.client().WithLease(r.ctx())
	must.NoError(t, err)
	_, err = r.client().NewContainer(leased, id, containerd.WithNewSnapshot(id, image), containerd.WithNewSpec(oci.WithImageConfig(image)))
	must.NoError(t, err)
	must.NoError(t, r.client().ContainerService().Delete(r.ctx(), id))
	must.True(t, r.snapshots()[id], must.Sprint("the snapshot is there without a container"))
	r.start(task)
	test.Eq(t, 0, r.wait(task).ExitCode)
	r.destroy(task)
	must.NoError(t, done(r.ctx()))
}

func conformMissingContainerCleanup(t *testing.T, r *wireRig) {
	task := r.shell("sleep 1000")
	r.start(task)
	container := r.inspectContainer(task)
	process, err := container.Task(r.ctx(), nil)
	must.NoError(t, err)
	_, err = process.Delete(r.ctx(), containerd.WithProcessKill)
	must.NoError(t, err)
	must.NoError(t, container.Delete(r.ctx(), containerd.WithSnapshotCleanup))
	_, err = r.plugin.WaitTask(t.Context(), task.ID)
	must.NoError(t, err)
	r.destroy(task)
	test.DirNotExists(t, filepath.Join(task.AllocDir, "web", ".promptflow"))
}

func conformStartNoImage(t *testing.T, r *wireRig) {
	task := r.newTask(`
		image             = "promptflow.local/no/such:image"
		image_pull_policy = "never"`)
	_, _, err := r.plugin.StartTask(t.Context(), task.TaskConfig)
	must.ErrorContains(t, err, "image promptflow.local/no/such:image: image not found")
	test.False(t, plugin.IsRecoverable(err))
}

func conformStartBadPull(t *testing.T, r *wireRig) {
	// Nobody listens at port 1.
	task := r.newTask(`image = "127.0.0.1:1/team/image:1"`)
	_, _, err := r.plugin.StartTask(t.Context(), task.TaskConfig)
	must.ErrorContains(t, err, "image 127.0.0.1:1/team/image:1")
	test.True(t, plugin.IsRecoverable(err))
}

func conformStartWaitAllocDir(t *testing.T, r *wireRig) {
	task := r.shell(`echo shared > $NOMAD_ALLOC_DIR/data/out && echo own > $NOMAD_TASK_DIR/out && echo secret > $NOMAD_SECRETS_DIR/out`)
	r.start(task)
	test.Eq(t, 0, r.wait(task).ExitCode)
	for path, want := range map[string]string{
		filepath.Join(task.AllocDir, "alloc/data/out"):   "shared\n",
		filepath.Join(task.alloc.TaskDir(), "local/out"): "own\n",
		filepath.Join(task.alloc.SecretsDir(), "out"):    "secret\n",
	} {
		content, err := os.ReadFile(path)
		must.NoError(t, err)
		test.Eq(t, want, string(content))
	}
	r.destroy(task)
}

func conformStartKillWait(t *testing.T, r *wireRig) {
	task := r.shell(`trap 'exit 6' TERM; echo ready; while :; do sleep 0.05; done`)
	r.start(task)
	task.awaitLog(t, "ready")
	must.NoError(t, r.plugin.StopTask(t.Context(), task.ID, bound, "SIGTERM"))
	test.Eq(t, 6, r.wait(task).ExitCode)
	r.destroy(task)
}

func conformStartKillTimeout(t *testing.T, r *wireRig) {
	task := r.shell(`trap '' TERM; echo ready; while :; do sleep 0.05; done`)
	r.start(task)
	task.awaitLog(t, "ready")
	const timeout = 700 * time.Millisecond
	began := time.Now()
	must.NoError(t, r.plugin.StopTask(t.Context(), task.ID, timeout, "SIGTERM"))
	test.GreaterEq(t, timeout, time.Since(began))
	test.Eq(t, plugin.ExitResult{ExitCode: 137, Signal: 9}, *r.wait(task))
	r.destroy(task)
}

func conformStartN(t *testing.T, r *wireRig) {
	tasks := make([]*wireTask, 5)
	errs := make(chan error, len(tasks))
	for i := range tasks {
		tasks[i] = r.shell(fmt.Sprintf("exit %d", i+1))
		go func() {
			_, _, err := r.plugin.StartTask(t.Context(), tasks[i].TaskConfig)
			errs <- err
		}()
	}
	for range tasks {
		must.NoError(t, <-errs)
	}
	for i, task := range tasks {
		test.Eq(t, i+1, r.wait(task).ExitCode)
		r.destroy(task)
	}
}

func conformParseSignal(t *testing.T, r *wireRig) {
	task := r.shell(`trap 'echo usr1' USR1; trap 'echo hup' HUP; echo ready; while :; do sleep 0.05; done`)
	r.start(task)
	task.awaitLog(t, "ready")
	for _, c := range []struct{ signal, want string }{{"SIGUSR1", "usr1"}, {"HUP", "hup"}, {"sighup", "hup\nhup"}, {"10", "usr1\nhup\nhup\nusr1"}} {
		must.NoError(t, r.plugin.SignalTask(t.Context(), task.ID, c.signal), must.Sprint(c.signal))
		task.awaitLog(t, c.want)
	}
	test.ErrorContains(t, r.plugin.SignalTask(t.Context(), task.ID, "SIGNONE"), `"SIGNONE" is not a signal`)
	r.destroy(task)
}

func conformStartWaitStop(t *testing.T, r *wireRig) {
	task := r.shell(`trap 'exit 2' INT; echo ready; while :; do sleep 0.05; done`)
	r.start(task)
	task.awaitLog(t, "ready")
	results := make(chan *plugin.ExitResult, 1)
	go func() {
		result, _ := r.plugin.WaitTask(t.Context(), task.ID)
		results <- result
	}()
	must.NoError(t, r.plugin.StopTask(t.Context(), task.ID, bound, "SIGINT"))
	test.Eq(t, 2, (<-results).ExitCode)
	must.NoError(t, r.plugin.StopTask(t.Context(), task.ID, bound, "SIGINT"), must.Sprint("stopping again succeeds"))
	r.destroy(task)
}

func conformStartWaitStopKill(t *testing.T, r *wireRig) {
	task := r.shell("sleep 1000")
	r.start(task)
	must.NoError(t, r.plugin.StopTask(t.Context(), task.ID, 0, "SIGINT"))
	test.Eq(t, plugin.ExitResult{ExitCode: 137, Signal: 9}, *r.wait(task))
	r.destroy(task)
}

func conformStartWaitRecover(t *testing.T, r *wireRig) {
	task := r.shell("echo ready; while [ ! -e /local/go ]; do sleep 0.02; done; exit 5")
	r.start(task)
	task.awaitLog(t, "ready")
	must.NoError(t, r.plugin.Kill())
	r.launch()
	must.NoError(t, r.plugin.RecoverTask(t.Context(), task.restored()))
	must.NoError(t, os.WriteFile(filepath.Join(task.alloc.TaskDir(), "local/go"), nil, 0o644))
	test.Eq(t, 5, r.wait(task).ExitCode)
	r.destroy(task)
}

func conformStartWaitRecoverWaitStop(t *testing.T, r *wireRig) {
	task := r.shell(`trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done`)
	r.start(task)
	task.awaitLog(t, "ready")
	waited := make(chan error, 1)
	go func() {
		_, err := r.plugin.WaitTask(t.Context(), task.ID)
		waited <- err
	}()
	must.NoError(t, r.plugin.Kill())
	test.ErrorIs(t, <-waited, plugin.ErrPluginShutdown)
	r.launch()
	must.NoError(t, r.plugin.RecoverTask(t.Context(), task.restored()))
	must.NoError(t, r.plugin.StopTask(t.Context(), task.ID, bound, ""))
	test.Eq(t, 7, r.wait(task).ExitCode)
	r.destroy(task)
}

// A task that ended while nobody was there is taken back with its end: its exit code, the signal, and that memory ran out.
func conformRecoverTask(t *testing.T, r *wireRig) {
	exits := r.shell("echo ready; while [ ! -e /local/go ]; do sleep 0.02; done; exit 9")
	killed := r.shell("sleep 1000")
	greedy := r.newTask(`
		entrypoint = ["/bin/sh", "-c"]
		args       = ["while [ ! -e /local/go ]; do sleep 0.02; done; exec tail -c 100m /dev/zero"]`,
		func(c *agent.AllocConfig) { c.MemoryMB = 16 })
	tasks := []*wireTask{exits, killed, greedy}
	for _, task := range tasks {
		r.start(task)
	}
	exits.awaitLog(t, "ready")
	victim, hungry := r.process(killed), r.process(greedy)
	must.NoError(t, r.plugin.Kill())
	must.NoError(t, syscall.Kill(victim, syscall.SIGKILL))
	for _, task := range []*wireTask{exits, greedy} {
		must.NoError(t, os.WriteFile(filepath.Join(task.alloc.TaskDir(), "local/go"), nil, 0o644))
	}
	for _, pid := range []int{victim, hungry} {
		eventually(t, "the process is gone", func() bool { return syscall.Kill(pid, 0) != nil })
	}
	r.launch()
	for i, want := range []plugin.ExitResult{{ExitCode: 9}, {ExitCode: 137, Signal: 9}, {ExitCode: 137, Signal: 9, OOMKilled: true}} {
		must.NoError(t, r.plugin.RecoverTask(t.Context(), tasks[i].restored()))
		test.Eq(t, want, *r.wait(tasks[i]))
		r.destroy(tasks[i])
	}
}

// restored is what an agent that was restarted itself kept of the task: everything but the driver's own configuration.
func (task *wireTask) restored() *plugin.TaskHandle {
	handle, config := *task.handle, *task.handle.Config
	config.DriverConfig = nil
	handle.Config = &config
	return &handle
}

// A plugin that is ended in order leaves its task running for the next one, and what the next one destroys is gone with
// everything that it had started.
func conformNoOrphanedTasks(t *testing.T, r *wireRig) {
	task := r.shell(`(setsid sleep 4242 &); echo ready; sleep 1000`)
	r.start(task)
	task.awaitLog(t, "ready")
	r.plugin.Close()
	r.launch()
	must.NoError(t, r.plugin.RecoverTask(t.Context(), task.restored()))
	r.destroy(task)
	eventually(t, "nothing of the task runs", func() bool { return len(processesWith("4242")) == 0 })
}

func conformDestroyKillsAll(t *testing.T, r *wireRig) {
	task := r.shell(`(setsid sleep 4243 &); (setsid sh -c 'sleep 4243' &); echo ready; sleep 1000`)
	r.start(task)
	task.awaitLog(t, "ready")
	eventually(t, "the task's own processes run", func() bool { return len(processesWith("4243")) >= 2 })
	r.destroy(task)
	eventually(t, "nothing of the task runs", func() bool { return len(processesWith("4243")) == 0 })
}

// processesWith are the ids of processes with such an argument.
func processesWith(argument string) []string {
	entries, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	var found []string
	for _, entry := range entries {
		content, err := os.ReadFile(entry)
		if err == nil && strings.Contains("\x00"+string(content), "\x00"+argument+"\x00") {
			found = append(found, entry)
		}
	}
	return found
}

// The executor of a container is its shim. What it took along into death is a failure that the agent hears of.
func conformExecutorKilled(t *testing.T, r *wireRig) {
	task := r.shell("echo ready; sleep 1000")
	r.start(task)
	task.awaitLog(t, "ready")
	for _, pid := range r.daemon.Shims() {
		must.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	}
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	result, err := r.plugin.WaitTask(ctx, task.ID)
	must.NoError(t, err)
	test.True(t, result.Err != nil || result.ExitCode != 0, test.Sprintf("%+v", result))
	r.destroy(task)
}

func conformWaitExitSignal(t *testing.T, r *wireRig) {
	killed := r.shell("exec sleep 1000")
	r.start(killed)
	must.NoError(t, syscall.Kill(r.process(killed), syscall.SIGKILL))
	test.Eq(t, plugin.ExitResult{ExitCode: 137, Signal: 9}, *r.wait(killed))
	r.destroy(killed)
	// A first process cannot be ended by any other signal, but says as a shell does which one ended its child.
	crashed := r.shell("sh -c 'kill -SEGV $$'; exit $?")
	r.start(crashed)
	test.Eq(t, plugin.ExitResult{ExitCode: 139, Signal: 11}, *r.wait(crashed))
	r.destroy(crashed)
}

func TestConformance_StartNVersions(t *testing.T) {
	image := func(version string) harness.BusyboxImage {
		return harness.BusyboxImage{
			Tag: "env:" + version, Files: map[string][]byte{"version": []byte(version)},
			Config: ocispec.ImageConfig{Entrypoint: []string{"/bin/sh", "-c"}, Cmd: []string{"cat /version; echo"}},
		}
	}
	r := newWireRig(t, "", image("1"), image("2"), image("3"))
	for _, version := range []string{"1", "2", "3"} {
		task := r.newTask(fmt.Sprintf("environment = %q", "env:"+version))
		r.start(task)
		test.Eq(t, 0, r.wait(task).ExitCode)
		task.awaitLog(t, version+"\n")
		r.destroy(task)
	}
}

func TestConformance_StopSignal(t *testing.T) {
	r := newWireRig(t, "", harness.BusyboxImage{Tag: "default:latest", Config: ocispec.ImageConfig{
		Entrypoint: []string{"/bin/sh", "-c"}, StopSignal: "SIGUSR2",
	}})
	for _, c := range []struct {
		asked string
		code  int
	}{{"", 12}, {"SIGTERM", 15}, {"SIGINT", 2}} {
		task := r.shell(`trap 'exit 12' USR2; trap 'exit 15' TERM; trap 'exit 2' INT; echo ready; while :; do sleep 0.05; done`)
		r.start(task)
		task.awaitLog(t, "ready")
		must.NoError(t, r.plugin.StopTask(t.Context(), task.ID, bound, c.asked))
		test.Eq(t, c.code, r.wait(task).ExitCode)
		r.destroy(task)
	}
}

func TestConformance_Stats(t *testing.T) {
	r := newWireRig(t, "")
	t.Run("CollectStats", func(t *testing.T) {
		task := r.shell(`echo ready; while :; do :; done`)
		r.start(task)
		task.awaitLog(t, "ready")
		samples := make(chan plugin.TaskUsage, 100)
		ended := make(chan error, 1)
		go func() {
			ended <- r.plugin.TaskStats(t.Context(), task.ID, 100*time.Millisecond, func(u plugin.TaskUsage) { samples <- u })
		}()
		sample := <-samples
		test.Greater(t, 10.0, sample.CPU.Percent)
		test.InDelta(t, sample.CPU.Percent/100*2000, sample.CPU.TotalTicks, 0.001, test.Sprint("a core has 2000 MHz"))
		test.SliceContainsSubset(t, sample.CPU.Measured, []string{"Percent", "User Mode", "System Mode", "Total Ticks"})
		test.SliceContainsSubset(t, sample.Memory.Measured, []string{"RSS", "Cache", "Usage"})
		test.Between(t, uint64(1), sample.Memory.Usage, uint64(64<<20))
		// An agent shows the latest; more must come by themselves.
		test.True(t, (<-samples).Time.After(sample.Time))
		must.NoError(t, r.plugin.StopTask(t.Context(), task.ID, 0, ""))
		must.NoError(t, <-ended, must.Sprint("the stream of an ended task ends without an error"))
		r.destroy(task)
	})
	t.Run("UsageSender", func(t *testing.T) {
		task := r.shell("sleep 1000")
		r.start(task)
		// A client that goes away is no trouble for the others.
		ctx, cancel := context.WithCancel(t.Context())
		first := make(chan struct{}, 100)
		ended := make(chan error, 1)
		go func() {
			ended <- r.plugin.TaskStats(ctx, task.ID, 100*time.Millisecond, func(plugin.TaskUsage) { first <- struct{}{} })
		}()
		<-first
		cancel()
		test.ErrorIs(t, <-ended, context.Canceled)
		other, stop := context.WithCancel(t.Context())
		defer stop()
		again := make(chan struct{}, 100)
		go func() {
			_ = r.plugin.TaskStats(other, task.ID, 100*time.Millisecond, func(plugin.TaskUsage) { again <- struct{}{} })
		}()
		<-again
		r.destroy(task)
	})
	t.Run("Stats_unknownTask", func(t *testing.T) {
		err := r.plugin.TaskStats(t.Context(), "unknown", time.Second, func(plugin.TaskUsage) {})
		test.ErrorIs(t, err, plugin.ErrTaskNotFound)
	})
}

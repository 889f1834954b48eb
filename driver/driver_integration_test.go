package driver_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/shoenig/test"
	"github.com/shoenig/test/must"
	"github.com/shoenig/test/wait"
	"golang.org/x/sys/unix"

	"github.com/nomad-promptflow/nomad-promptflow/e2e/harness"
	"github.com/nomad-promptflow/nomad-promptflow/plugin"
)

// eventually waits for a condition that has no event to wait for.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	must.Wait(t, wait.InitialSuccess(
		wait.BoolFunc(condition), wait.Timeout(bound), wait.Gap(20*time.Millisecond)), must.Sprint(what))
}

// requireNothingLeft checks that containerd and the node hold nothing of a task.
func requireNothingLeft(r *rig, task *testTask) {
	r.t.Helper()
	ctx := namespaces.WithNamespace(r.t.Context(), "nomad")
	client := r.client()
	list, err := client.Containers(ctx)
	must.NoError(r.t, err)
	must.SliceEmpty(r.t, list)
	must.MapEmpty(r.t, activeSnapshots(r))
	eventually(r.t, "no shim is left", func() bool { return len(r.daemon.Shims()) == 0 })
	must.SliceEmpty(r.t, r.daemon.Mounts())
	_, err = os.Lstat(filepath.Join(task.AllocDir, task.Name, ".promptflow"))
	must.ErrorIs(r.t, err, os.ErrNotExist)
	groups, err := filepath.Glob("/sys/fs/cgroup/*/nomad-promptflow/" + containerName(task))
	must.NoError(r.t, err)
	must.SliceEmpty(r.t, groups)
}

func TestStartTask_runsToItsExitCode(t *testing.T) {
	r := newRig(t)
	for _, c := range []struct {
		script       string
		code, signal int
	}{
		{"exit 0", 0, 0},
		{"exit 7", 7, 0},
		{"kill -TERM $$", 0, 0}, // the first process of a pid namespace ignores what it has no handler for
		{"sh -c 'kill -KILL $$'; exit $?", 137, 9},
	} {
		task := r.shell(c.script)
		started := r.start(task)
		must.SliceNotEmpty(t, started.DriverState)
		must.Nil(t, started.Network)
		result := r.wait(task)
		test.Eq(t, c.code, result.ExitCode, test.Sprint(c.script))
		test.Eq(t, c.signal, result.Signal, test.Sprint(c.script))
		test.False(t, result.OOMKilled)

		status, err := r.driver.InspectTask(t.Context(), task.ID)
		must.NoError(t, err)
		test.Eq(t, plugin.TaskExited, status.State)
		test.Eq(t, c.code, status.Exit.ExitCode)
		test.False(t, status.CompletedAt.Before(status.StartedAt))
		r.destroy(task)
		requireNothingLeft(r, task)
	}
}

func TestStartTask_givesTheTaskItsWorld(t *testing.T) {
	r := newRig(t)
	task := r.task(map[string]any{
		"args": []string{`
			echo "env $FROM_IMAGE $NOMAD_ALLOC_DIR $MINE"
			echo "runtime $PROMPTFLOW_RUNTIME $PROMPTFLOW_MAX_CONCURRENCY $PROMPTFLOW_WORKERS $PROMPTFLOW_LISTEN"
			echo "environment $PROMPTFLOW_ENVIRONMENT $PROMPTFLOW_ENVIRONMENT_DIGEST"
			echo "host $(hostname) $(cat /etc/hostname)"
			echo "id $(id -u) $(id -g) $(id -G)"
			echo "pwd $(pwd)"
			grep -i '^\(NoNewPrivs\|Seccomp\):' /proc/self/status
			echo "caps $(grep CapEff /proc/self/status)"
			echo local > /local/file && echo shared > /alloc/file && echo secret > /secrets/file && echo "dirs writable"
			touch /alloc/logs/x 2>/dev/null || echo "logs read-only"
			ls -1 /proc | grep -c '^[0-9]*$'
			echo memory $(cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null)
			echo shares $(cat /sys/fs/cgroup/cpu/cpu.shares 2>/dev/null)
			echo ` + endOfLog},
		"work_dir": "/tmp", "hostname": "my-host", "ports": []string{"http"}, "workers": 3,
		"labels": map[string]string{"team": "nlp"},
	})
	task.User = "worker"
	task.Env["MINE"] = "task"
	task.Env["PROMPTFLOW_RUNTIME"] = "my-runtime"
	task.Resources.Ports = []plugin.Port{{Label: "http", Host: 20123, To: 8080, HostIP: "127.0.0.2"}}
	task.Resources.CPUShares = 500
	must.NoError(t, os.Chmod(filepath.Join(task.AllocDir, "web/local"), 0o777))
	must.NoError(t, os.Chmod(filepath.Join(task.AllocDir, "web/secrets"), 0o777))
	must.NoError(t, os.Chmod(filepath.Join(task.AllocDir, "alloc"), 0o777))

	started := r.start(task)
	must.SliceNotEmpty(t, started.DriverState)
	must.Eq(t, 0, r.wait(task).ExitCode)
	output := task.stdout.all(t)
	for _, want := range []string{
		"env yes /alloc task\n",
		"runtime my-runtime 32 3 127.0.0.2:20123\n",
		"environment default sha256:",
		"host my-host my-host\n",
		"id 1000 1000 1000 2000\n",
		"pwd /tmp\n",
		"NoNewPrivs:\t1\n", "Seccomp:\t2\n",
		"CapEff:\t0000000000000000\n",
		"dirs writable\n", "logs read-only\n",
		fmt.Sprintf("memory %d\n", 64<<20),
	} {
		test.StrContains(t, output, want)
	}
	if strings.Contains(output, "shares ") && !strings.Contains(output, "shares \n") {
		test.StrContains(t, output, "shares 500\n")
	}
	content, err := os.ReadFile(filepath.Join(task.AllocDir, "web/local/file"))
	must.NoError(t, err)
	test.Eq(t, "local\n", string(content))

	labels := containerLabels(r, task)
	test.Eq(t, "nlp", labels["team"])
	test.Eq(t, task.AllocID, labels["com.hashicorp.nomad.alloc_id"])
	test.Eq(t, "web", labels["com.hashicorp.nomad.task_name"])
	r.destroy(task)
	requireNothingLeft(r, task)
}

func TestStartTask_joinsTheNetworkNamespace(t *testing.T) {
	r := newRig(t)
	path := newNetworkNamespace(t)
	namespace, err := os.Stat(path)
	must.NoError(t, err)

	task := r.task(map[string]any{
		"args":  []string{`readlink /proc/self/ns/net; echo "listen $PROMPTFLOW_LISTEN"; cat /etc/hosts /etc/resolv.conf; echo ` + endOfLog},
		"ports": []string{"http"},
	})
	task.Network = &plugin.NetworkIsolation{
		Mode: plugin.NetworkGroup, Path: path,
		Hosts: &plugin.HostsConfig{Hostname: "inner", Address: "172.26.64.9"},
	}
	task.DNS = &plugin.DNS{Servers: []string{"192.0.2.53"}, Searches: []string{"example.test"}}
	task.Resources.Ports = []plugin.Port{{Label: "http", Host: 20123, To: 8080, HostIP: "127.0.0.1"}}
	result, output := r.run(task)
	test.Eq(t, 0, result.ExitCode)
	test.StrContains(t, output, fmt.Sprintf("net:[%d]\n", namespace.Sys().(*syscall.Stat_t).Ino))
	test.StrContains(t, output, "listen 0.0.0.0:8080\n")
	test.StrContains(t, output, "172.26.64.9\tinner\n")
	test.StrContains(t, output, "nameserver 192.0.2.53\nsearch example.test\n")
}

func TestStartTask_mountsAndDevices(t *testing.T) {
	r := newRig(t)
	volume := t.TempDir()
	must.NoError(t, os.WriteFile(filepath.Join(volume, "data"), []byte("from the node\n"), 0o644))
	task := r.task(map[string]any{
		"args": []string{`cat /srv/data; touch /srv/x 2>/dev/null || echo "volume read-only"
			touch /x 2>/dev/null || echo "root read-only"
			head -c 4 /dev/myzero | od -An -tx1; head -c 1 /dev/denied >/dev/null 2>&1 || echo "no other devices"
			echo ` + endOfLog},
		"readonly_rootfs": true,
	})
	task.Mounts = []plugin.Mount{{HostPath: volume, TaskPath: "/srv", ReadOnly: true, Propagation: "host-to-task"}}
	task.Devices = []plugin.Device{{HostPath: "/dev/zero", TaskPath: "/dev/myzero", CgroupPermissions: "rw"}}
	_, output := r.run(task)
	for _, want := range []string{
		"from the node\n", "volume read-only\n", "root read-only\n", "00 00 00 00\n", "no other devices\n",
	} {
		test.StrContains(t, output, want)
	}
}

func TestStartTask_memoryLimit(t *testing.T) {
	r := newRig(t)
	task := r.shell(`head -c 100m /dev/zero | tail -c 90m | wc -c; exit $?`)
	task.Resources.MemoryMB = 16
	task.DriverConfig = encode(t, map[string]any{
		"entrypoint": []string{"/bin/tail"}, "args": []string{"-c", "100m", "/dev/zero"},
	})
	r.start(task)
	result := r.wait(task)
	test.True(t, result.OOMKilled)
	test.Eq(t, 137, result.ExitCode)
	test.Eq(t, 9, result.Signal)
	r.destroy(task)
	requireNothingLeft(r, task)
}

func TestStopTask(t *testing.T) {
	r := newRig(t, harness.BusyboxImage{Tag: "default:latest", Config: ocispec.ImageConfig{
		Entrypoint: []string{"/bin/sh", "-c"}, StopSignal: "SIGUSR1",
	}})
	const script = `
		trap 'echo got term; exit 3' TERM
		trap 'echo got usr1; exit 4' USR1
		echo ready
		while :; do sleep 0.05; done`
	for _, c := range []struct {
		name, signal, script string
		code                 int
		timeout              time.Duration
	}{
		{"the task's signal", "SIGTERM", script, 3, bound},
		{"the image's signal", "", script, 4, bound},
		{"a name that is no signal", "SIGNONE", script, 4, bound},
		{"killed after the timeout", "SIGTERM", "trap '' TERM; echo ready; while :; do sleep 0.05; done", 137, 300 * time.Millisecond},
	} {
		task := r.shell(c.script)
		r.start(task)
		task.stdout.await(t, "ready")
		must.NoError(t, r.driver.StopTask(t.Context(), task.ID, c.timeout, c.signal))
		test.Eq(t, c.code, r.wait(task).ExitCode, test.Sprint(c.name))
		must.NoError(t, r.driver.StopTask(t.Context(), task.ID, c.timeout, c.signal), must.Sprint("stopping again succeeds"))
		r.destroy(task)
	}
	must.NoError(t, r.driver.StopTask(t.Context(), "unknown", bound, ""))
}

func TestSignalTask(t *testing.T) {
	r := newRig(t)
	task := r.shell(`trap 'echo reloaded' HUP; echo ready; while :; do sleep 0.05; done`)
	r.start(task)
	task.stdout.await(t, "ready")
	must.NoError(t, r.driver.SignalTask(t.Context(), task.ID, "SIGHUP"))
	task.stdout.await(t, "reloaded")
	test.ErrorContains(t, r.driver.SignalTask(t.Context(), task.ID, "SIGNONE"), "not a signal")
	test.ErrorIs(t, r.driver.SignalTask(t.Context(), "unknown", "SIGHUP"), plugin.ErrTaskNotFound)
	r.destroy(task)
}

func TestDestroyTask_isIdempotent(t *testing.T) {
	r := newRig(t)
	task := r.shell("sleep 1000")
	r.start(task)
	must.ErrorContains(t, r.driver.DestroyTask(t.Context(), task.ID, false), "still runs")
	r.destroy(task)
	requireNothingLeft(r, task)
	r.destroy(task)
	_, err := r.driver.WaitTask(t.Context(), task.ID)
	test.ErrorIs(t, err, plugin.ErrTaskNotFound)
}

func TestRecoverTask_logsAndExitSurviveThePlugin(t *testing.T) {
	r := newRig(t)
	task := r.shell(`echo before; while [ ! -e /local/go ]; do sleep 0.02; done; echo after; echo to-stderr >&2; exit 5`)
	started := r.start(task)
	task.stdout.await(t, "before")
	r.restart()
	must.NoError(t, os.WriteFile(filepath.Join(task.AllocDir, "web/local/go"), nil, 0o644))
	task.stdout.await(t, "after")
	task.stderr.await(t, "to-stderr")

	must.NoError(t, r.driver.RecoverTask(t.Context(), task.handle(started)))
	must.NoError(t, r.driver.RecoverTask(t.Context(), task.handle(started)), must.Sprint("recovering again succeeds"))
	test.Eq(t, 5, r.wait(task).ExitCode)
	r.destroy(task)
	requireNothingLeft(r, task)
}

func TestRecoverTask_runningTaskCanBeStopped(t *testing.T) {
	r := newRig(t)
	task := r.shell(`trap 'exit 6' TERM; echo ready; while :; do sleep 0.05; done`)
	started := r.start(task)
	task.stdout.await(t, "ready")
	r.restart()
	must.NoError(t, r.driver.RecoverTask(t.Context(), task.handle(started)))
	must.NoError(t, r.driver.StopTask(t.Context(), task.ID, bound, ""))
	test.Eq(t, 6, r.wait(task).ExitCode)
	r.destroy(task)
	requireNothingLeft(r, task)
}

func TestRecoverTask_failsForWhatIsGone(t *testing.T) {
	r := newRig(t)
	task := r.shell("sleep 1000")
	started := r.start(task)
	r.destroy(task)
	test.Error(t, r.driver.RecoverTask(t.Context(), task.handle(started)))
	handle := task.handle(started)
	handle.DriverState = []byte("nonsense")
	test.ErrorContains(t, r.driver.RecoverTask(t.Context(), handle), "decode task state")
}

func TestStartTask_againTakesOverWhatRuns(t *testing.T) {
	r := newRig(t)
	task := r.shell(`echo started; sleep 1000`)
	first := r.start(task)
	task.stdout.await(t, "started")
	r.restart()
	second := r.start(task)
	test.Eq(t, first.DriverState, second.DriverState)
	must.NoError(t, r.driver.StopTask(t.Context(), task.ID, 0, ""))
	test.Eq(t, 1, strings.Count(task.stdout.String(), "started"))

	r.restart()
	r.start(task) // what has ended is replaced
	eventually(t, "the task runs anew", func() bool { return strings.Count(task.stdout.String(), "started") == 2 })
	r.destroy(task)
	requireNothingLeft(r, task)
}

func TestStartTask_failureLeavesNothing(t *testing.T) {
	r := newRig(t)
	for _, c := range []struct {
		name   string
		config map[string]any
		change func(*testTask)
		want   string
	}{
		{"no such command", map[string]any{"entrypoint": []string{"/no/such"}}, nil, "the command is not in the image"},
		{"no such user", map[string]any{"args": []string{"true"}}, func(task *testTask) { task.User = "nobody-here" }, "look up user"},
		{"no such port", map[string]any{"args": []string{"true"}, "ports": []string{"grpc"}}, nil, `no port is labelled "grpc"`},
		{"no such volume", map[string]any{"args": []string{"true"}}, func(task *testTask) {
			task.Mounts = []plugin.Mount{{HostPath: "/no/such", TaskPath: "/srv"}}
		}, "/no/such"},
		{"no such device", map[string]any{"args": []string{"true"}}, func(task *testTask) {
			task.Devices = []plugin.Device{{HostPath: "/dev/no-such"}}
		}, "give device /dev/no-such"},
		{"no task folder", map[string]any{"args": []string{"true"}}, func(task *testTask) {
			must.NoError(t, os.RemoveAll(filepath.Join(task.AllocDir, "web/local")))
		}, "web/local: not a folder"},
		{"no such environment", map[string]any{"environment": "other:1"}, nil, "publish it to"},
		{"log swapped for a link", map[string]any{"args": []string{"true"}}, func(task *testTask) {
			must.NoError(t, os.Remove(task.StdoutPath))
			must.NoError(t, os.Symlink("/etc/passwd", task.StdoutPath))
		}, "not a FIFO"},
		{"log elsewhere", map[string]any{"args": []string{"true"}}, func(task *testTask) {
			task.StdoutPath = "/etc/passwd"
		}, "not in the allocation's log folder"},
	} {
		task := r.task(c.config)
		if c.change != nil {
			c.change(task)
		}
		_, err := r.driver.StartTask(t.Context(), task.TaskConfig)
		must.ErrorContains(t, err, c.want, must.Sprint(c.name))
		requireNothingLeft(r, task)
	}
}

func TestStartTask_withoutLogCollection(t *testing.T) {
	r := newRig(t)
	task := r.shell("echo into the void; echo too >&2; exit 2")
	task.StdoutPath, task.StderrPath = os.DevNull, os.DevNull
	r.start(task)
	test.Eq(t, 2, r.wait(task).ExitCode)
	r.destroy(task)
}

func TestContainerdRestart_taskRunsOn(t *testing.T) {
	r := newRig(t)
	task := r.shell(`echo ready; while [ ! -e /local/go ]; do sleep 0.02; done; echo still here; exit 9`)
	started := r.start(task)
	task.stdout.await(t, "ready")

	r.daemon.Kill()
	must.NoError(t, os.WriteFile(filepath.Join(task.AllocDir, "web/local/go"), nil, 0o644))
	task.stdout.await(t, "still here")
	// A plugin that starts while the daemon is away takes the task back all the same.
	r.restart()
	must.NoError(t, r.driver.RecoverTask(t.Context(), task.handle(started)))
	_, err := r.driver.StartTask(t.Context(), r.shell("true").TaskConfig)
	must.ErrorContains(t, err, "does not answer")

	r.daemon.Start()
	test.Eq(t, 9, r.wait(task).ExitCode)
	r.destroy(task)
	requireNothingLeft(r, task)
}

func TestFingerprint_followsTheDaemon(t *testing.T) {
	r := newRig(t)
	r.daemon.Kill()
	reports := make(chan plugin.Fingerprint, 16)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- r.driver.Fingerprint(ctx, func(f plugin.Fingerprint) error { reports <- f; return nil })
	}()
	next := func(want plugin.Health, within time.Duration) plugin.Fingerprint {
		t.Helper()
		select {
		case report := <-reports:
			must.Eq(t, want, report.Health, must.Sprint(report.Description))
			return report
		case <-time.After(within):
			t.Fatalf("no report within %s", within)
			return plugin.Fingerprint{}
		}
	}
	next(plugin.Undetected, 5*time.Second)
	r.daemon.Start()
	healthy := next(plugin.Healthy, 10*time.Second)
	test.Eq(t, "0.1.0", healthy.Attributes["driver.promptflow.version"].(string))
	test.NotEq(t, "", healthy.Attributes["driver.promptflow.containerd.version"].(string))
	test.StrHasPrefix(t, "sha256:", healthy.Attributes["driver.promptflow.environment.digest"].(string))
	r.daemon.Kill()
	lost := next(plugin.Unhealthy, 10*time.Second)
	test.StrContains(t, lost.Description, "does not answer")
	test.Eq(t, "", lost.Attributes["driver.promptflow.containerd.version"].(string))
	r.daemon.Start()
	next(plugin.Healthy, 10*time.Second)
	cancel()
	must.NoError(t, <-ended)
}

func TestEnvironment_importedOnceAndFollowed(t *testing.T) {
	r := newRig(t)
	events := make(chan plugin.TaskEvent, 64)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.driver.TaskEvents(ctx, func(e plugin.TaskEvent) error { events <- e; return nil }) }()

	task := r.shell("exit 0")
	r.start(task)
	begin, end := <-events, <-events
	test.Eq(t, "Import of environment default started", begin.Message)
	test.StrContains(t, end.Message, "Import of environment default done: ")
	test.StrContains(t, end.Message, "in 1 layers")
	test.Eq(t, task.AllocID, end.AllocID)
	r.wait(task)
	r.destroy(task)

	again := r.shell("exit 0")
	r.start(again)
	r.wait(again)
	r.destroy(again)
	must.Eq(t, 0, len(events), must.Sprint("nothing is imported twice"))

	// A newer environment of the same name comes in; what it shares with the old one is there.
	newer := harness.BusyboxLayout(t, harness.BusyboxImage{Tag: "default:latest",
		Config: ocispec.ImageConfig{Entrypoint: []string{"/bin/sh", "-c"}}, Files: map[string][]byte{"newer": []byte("yes")}})
	r.config["environments"] = newer
	must.NoError(t, r.driver.SetConfig(t.Context(), encode(t, r.config), nil))
	kept := r.task(map[string]any{"args": []string{"test ! -e /newer"}, "image_pull_policy": "never"})
	r.start(kept)
	test.Eq(t, 0, r.wait(kept).ExitCode)
	r.destroy(kept)
	updated := r.shell("test -e /newer")
	r.start(updated)
	test.Eq(t, 0, r.wait(updated).ExitCode)
	r.destroy(updated)
	test.StrContains(t, (<-events).Message, "Import of environment default started")
	cancel()
	must.NoError(t, <-ended)
}

func TestExecTask(t *testing.T) {
	r := newRig(t)
	task := r.shell("echo ready; sleep 1000")
	r.start(task)
	task.stdout.await(t, "ready")
	result, err := r.driver.ExecTask(t.Context(), task.ID, []string{"/bin/sh", "-c", "echo out; echo err >&2; exit 4"}, bound)
	must.NoError(t, err)
	test.Eq(t, "out\n", string(result.Stdout))
	test.Eq(t, "err\n", string(result.Stderr))
	test.Eq(t, 4, result.Exit.ExitCode)

	result, err = r.driver.ExecTask(t.Context(), task.ID, []string{"/bin/sh", "-c", "head -c 1m /dev/zero"}, bound)
	must.NoError(t, err)
	test.Eq(t, 64<<10, len(result.Stdout))

	_, err = r.driver.ExecTask(t.Context(), task.ID, []string{"/bin/sleep", "1000"}, 2*time.Second)
	test.ErrorContains(t, err, "command was killed")
	_, err = r.driver.ExecTask(t.Context(), task.ID, []string{"/no/such"}, bound)
	test.ErrorContains(t, err, "the command is not in the image")
	r.destroy(task)
	requireNothingLeft(r, task)
}

func TestTaskStats(t *testing.T) {
	r := newRig(t)
	task := r.shell("echo ready; while :; do :; done")
	r.start(task)
	task.stdout.await(t, "ready")
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	samples := make(chan plugin.TaskUsage, 1)
	ended := make(chan error, 1)
	go func() {
		ended <- r.driver.TaskStats(ctx, task.ID, 200*time.Millisecond, func(u plugin.TaskUsage) error {
			select {
			case samples <- u:
			default:
			}
			return nil
		})
	}()
	sample := <-samples
	test.Greater(t, 10.0, sample.CPU.Percent)
	test.Greater(t, uint64(0), sample.Memory.Usage)
	must.NoError(t, r.driver.StopTask(t.Context(), task.ID, 0, ""))
	must.NoError(t, <-ended, must.Sprint("the stream of an ended task ends without an error"))
	r.destroy(task)
}

// newNetworkNamespace makes a network namespace, as an agent does, and returns its path.
func newNetworkNamespace(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "netns")
	must.NoError(t, os.WriteFile(path, nil, 0o600))
	made := make(chan error, 1)
	go func() {
		// The thread is in the new namespace and so must end with the goroutine: it stays locked.
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			made <- err
			return
		}
		made <- unix.Mount(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()), path, "", unix.MS_BIND, "")
	}()
	must.NoError(t, <-made)
	t.Cleanup(func() { must.NoError(t, unix.Unmount(path, unix.MNT_DETACH)) })
	return path
}

// containerName finds the name the driver gave the task's container.
func containerName(task *testTask) string {
	matches, _ := filepath.Glob(filepath.Join(task.AllocDir, task.Name, ".promptflow", "*"))
	if len(matches) == 0 {
		return "none"
	}
	return filepath.Base(matches[0])
}

func containerLabels(r *rig, task *testTask) map[string]string {
	r.t.Helper()
	ctx := namespaces.WithNamespace(r.t.Context(), "nomad")
	container, err := r.client().LoadContainer(ctx, containerName(task))
	must.NoError(r.t, err)
	labels, err := container.Labels(ctx)
	must.NoError(r.t, err)
	return labels
}

// activeSnapshots are the writable snapshots, by name: those of containers.
func activeSnapshots(r *rig) map[string]bool {
	r.t.Helper()
	ctx := namespaces.WithNamespace(r.t.Context(), "nomad")
	active := map[string]bool{}
	must.NoError(r.t, r.client().SnapshotService("overlayfs").Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		if info.Kind != snapshots.KindCommitted {
			active[info.Name] = true
		}
		return nil
	}))
	return active
}

func TestStartTask_inTheAgentsCgroup(t *testing.T) {
	r := newRig(t)
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		testAgentsCgroupV2(t, r)
		return
	}
	parent := "pftest-" + randomName(t)[:8]
	share := filepath.Join("/sys/fs/cgroup/cpuset", parent, "share")
	must.NoError(t, os.MkdirAll(share, 0o755))
	t.Cleanup(func() { removeCgroups(t, parent) })
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		all, err := os.ReadFile(filepath.Join("/sys/fs/cgroup/cpuset", file))
		must.NoError(t, err)
		must.NoError(t, os.WriteFile(filepath.Join("/sys/fs/cgroup/cpuset", parent, file), all, 0o644))
		must.NoError(t, os.WriteFile(filepath.Join(share, file), all, 0o644))
	}
	task := r.shell("cat /proc/self/cgroup; echo " + endOfLog)
	task.Resources.Linux = &plugin.LinuxResources{CgroupPath: share}
	_, output := r.run(task)
	scope := fmt.Sprintf("/%s/%s.web\n", parent, task.AllocID)
	test.StrContains(t, output, ":cpuset:/"+parent+"/share\n")
	test.StrContains(t, output, ":memory:"+scope)
	test.StrContains(t, output, ":freezer:"+scope)
}

func testAgentsCgroupV2(t *testing.T, r *rig) {
	t.Helper()
	parent := "pftest-" + randomName(t)[:8] + ".slice"
	task := r.shell("cat /sys/fs/cgroup/memory.max; sleep 1000")
	path := filepath.Join("/sys/fs/cgroup", parent, "share.slice", task.AllocID+".web.scope")
	must.NoError(t, os.MkdirAll(path, 0o755))
	t.Cleanup(func() { removeCgroups(t, parent) })
	task.Resources.Linux = &plugin.LinuxResources{CgroupPath: path}
	r.start(task)
	task.stdout.await(t, fmt.Sprint(64<<20))
	procs, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
	must.NoError(t, err)
	test.NotEq(t, "", strings.TrimSpace(string(procs)))
	// The agent's last resort.
	must.NoError(t, os.WriteFile(filepath.Join(path, "cgroup.kill"), []byte("1"), 0o644))
	test.Eq(t, 137, r.wait(task).ExitCode)
	r.destroy(task)
}

// removeCgroups removes the test's own cgroups, the innermost first.
func removeCgroups(t testing.TB, parent string) {
	t.Helper()
	for _, pattern := range []string{"%s/*/*", "%s/*", "%s"} {
		for _, root := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
			dirs, err := filepath.Glob(root + fmt.Sprintf(pattern, parent))
			must.NoError(t, err)
			for _, dir := range dirs {
				if info, err := os.Lstat(dir); err == nil && info.IsDir() {
					must.NoError(t, os.Remove(dir))
				}
			}
		}
	}
}

func TestDestroyTask_whileContainerdIsAway(t *testing.T) {
	r := newRig(t)
	task := r.shell("echo ready; sleep 1000")
	r.start(task)
	task.stdout.await(t, "ready")
	r.daemon.Kill()
	must.ErrorContains(t, r.driver.DestroyTask(t.Context(), task.ID, true), "does not answer")
	r.daemon.Start()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.driver.Fingerprint(ctx, func(plugin.Fingerprint) error { return nil }) }()
	eventually(t, "the task is destroyed after all", func() bool {
		_, err := r.driver.InspectTask(t.Context(), task.ID)
		return errors.Is(err, plugin.ErrTaskNotFound)
	})
	cancel()
	must.NoError(t, <-ended)
	requireNothingLeft(r, task)
}

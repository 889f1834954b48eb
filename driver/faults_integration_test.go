package driver_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/shoenig/test"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/driver"
	"github.com/nomad-promptflow/nomad-promptflow/e2e/harness"
	"github.com/nomad-promptflow/nomad-promptflow/plugin"
)

// listen keeps a fingerprint stream open, as the agent does, until the test ends.
func (r *rig) listen() {
	r.t.Helper()
	ctx, cancel := context.WithCancel(r.t.Context())
	ended := make(chan error, 1)
	d := r.driver
	go func() { ended <- d.Fingerprint(ctx, func(plugin.Fingerprint) error { return nil }) }()
	r.t.Cleanup(func() {
		cancel()
		must.NoError(r.t, <-ended)
	})
}

// Containerd is killed at every point of a start. Whatever was made by then is removed when it is back, and the task starts.
func TestContainerdKilled_whileATaskStarts(t *testing.T) {
	r := newRig(t)
	warm := r.shell("true")
	began := time.Now()
	r.start(warm)
	whole := time.Since(began)
	r.wait(warm)
	r.destroy(warm)
	r.listen()
	for i := range 6 {
		task := r.shell("sleep 1000")
		failed := make(chan error, 1)
		go func() {
			_, err := r.driver.StartTask(t.Context(), task.TaskConfig)
			failed <- err
		}()
		// Not a wait for something, but the place where the daemon is hit.
		time.Sleep(whole * time.Duration(i) / 6)
		r.daemon.Kill()
		err := <-failed
		if err != nil {
			test.True(t, plugin.IsRecoverable(err), test.Sprintf("killed after %d/6 of a start: %v", i, err))
		}
		r.daemon.Start()
		if err == nil {
			// One that comes before the daemon is found again fails, and is made up for.
			_ = r.driver.DestroyTask(t.Context(), task.ID, true)
		}
		eventually(t, "nothing is left of the start", func() bool {
			_, err := os.Lstat(filepath.Join(task.AllocDir, task.Name, ".promptflow"))
			return os.IsNotExist(err) && len(r.daemon.Shims()) == 0 && len(activeSnapshots(r)) == 0 && len(r.daemon.Mounts()) == 0
		})
		requireNoCgroup(t, task)
		requireNothingLeft(r, task)
		again := r.shell("exit 4")
		r.start(again)
		test.Eq(t, 4, r.wait(again).ExitCode)
		r.destroy(again)
	}
}

// requireNoCgroup checks that the kernel counts nothing of a task any more. Here it is the name of the container that counts,
// which is the same for the same task.
func requireNoCgroup(t testing.TB, task *testTask) {
	t.Helper()
	sum := sha256.Sum256([]byte(task.ID))
	eventually(t, "no cgroup is left", func() bool {
		var left []string
		for _, root := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
			groups, err := filepath.Glob(root + "nomad-promptflow/pf-" + hex.EncodeToString(sum[:16]))
			must.NoError(t, err)
			left = append(left, groups...)
		}
		return len(left) == 0
	})
}

// The agent dies while a task starts. The start ends with it, whole or not at all.
func TestStartTask_agentLeavesInTheMiddle(t *testing.T) {
	r := newRig(t)
	warm := r.shell("true")
	began := time.Now()
	r.start(warm)
	whole := time.Since(began)
	r.wait(warm)
	r.destroy(warm)
	for i := range 6 {
		task := r.shell("sleep 1000")
		// Not a wait for something, but the place where the agent leaves.
		ctx, cancel := context.WithTimeout(t.Context(), whole*time.Duration(i)/6)
		_, err := r.driver.StartTask(ctx, task.TaskConfig)
		cancel()
		if err == nil {
			r.destroy(task)
		}
		requireNothingLeft(r, task)
	}
}

func TestContainerdKilled_whileATaskStops(t *testing.T) {
	r := newRig(t)
	task := r.shell(`trap 'echo asked; while [ ! -e /local/go ]; do sleep 0.02; done; exit 8' TERM; echo ready; while :; do sleep 0.05; done`)
	r.start(task)
	task.stdout.await(t, "ready")
	stopped := make(chan error, 1)
	go func() { stopped <- r.driver.StopTask(t.Context(), task.ID, bound, "SIGTERM") }()
	task.stdout.await(t, "asked")
	r.daemon.Kill()
	must.NoError(t, os.WriteFile(filepath.Join(task.AllocDir, "web/local/go"), nil, 0o644))
	r.daemon.Start()
	must.NoError(t, <-stopped)
	test.Eq(t, 8, r.wait(task).ExitCode)

	// Away when the stop begins, and back before its time is over.
	other := r.shell(`trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done`)
	r.start(other)
	other.stdout.await(t, "ready")
	r.daemon.Kill()
	go func() { stopped <- r.driver.StopTask(t.Context(), other.ID, bound, "SIGTERM") }()
	r.daemon.Start()
	must.NoError(t, <-stopped)
	test.Eq(t, 9, r.wait(other).ExitCode)
	r.destroy(task)
	r.destroy(other)
	requireNothingLeft(r, task)
}

// A daemon that hangs keeps no call waiting for ever, and an agent that restarts not for long however many tasks it has.
func TestContainerdHangs_callsAreBounded(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	tasks := make([]*testTask, 10)
	handles := make([]*plugin.TaskHandle, len(tasks))
	for i := range tasks {
		tasks[i] = r.shell("echo ready; sleep 1000")
		handles[i] = tasks[i].handle(r.start(tasks[i]))
	}
	task := tasks[0]
	task.stdout.await(t, "ready")
	r.restart()
	r.daemon.Pause()
	began := time.Now()
	for _, handle := range handles {
		must.NoError(t, r.driver.RecoverTask(t.Context(), handle))
	}
	test.Less(t, 15*time.Second, time.Since(began), test.Sprint("the agent can do nothing else meanwhile"))

	var calls sync.WaitGroup
	bounded := func(name string, limit time.Duration, call func() error) {
		calls.Go(func() {
			began := time.Now()
			err := call()
			test.Error(t, err, test.Sprint(name))
			test.Less(t, limit, time.Since(began), test.Sprint(name))
		})
	}
	ctx := t.Context()
	bounded("start", 70*time.Second, func() error {
		_, err := r.driver.StartTask(ctx, r.shell("true").TaskConfig)
		test.True(t, plugin.IsRecoverable(err), test.Sprint(err))
		return err
	})
	bounded("stop", 45*time.Second, func() error { return r.driver.StopTask(ctx, task.ID, time.Second, "") })
	bounded("destroy", 45*time.Second, func() error { return r.driver.DestroyTask(ctx, tasks[1].ID, true) })
	bounded("signal", 15*time.Second, func() error { return r.driver.SignalTask(ctx, task.ID, "SIGHUP") })
	bounded("exec", 45*time.Second, func() error {
		_, err := r.driver.ExecTask(ctx, task.ID, []string{"true"}, time.Second)
		return err
	})
	bounded("streaming exec", 70*time.Second, func() error {
		_, err := r.driver.ExecTaskStreaming(ctx, task.ID, plugin.ExecOptions{
			Command: []string{"true"}, Stdin: io.NopCloser(strings.NewReader("")), Stdout: &stream{}, Stderr: &stream{},
		})
		return err
	})
	// Statistics come from the kernel and go on.
	sampled := make(chan struct{})
	enough := errors.New("enough")
	go func() {
		defer close(sampled)
		err := r.driver.TaskStats(ctx, task.ID, 100*time.Millisecond, func(plugin.TaskUsage) error { return enough })
		test.ErrorIs(t, err, enough)
	}()
	<-sampled
	calls.Wait()

	r.daemon.Resume()
	r.listen()
	for _, task := range tasks {
		// One that comes before the daemon is found again fails, and is made up for.
		_ = r.driver.DestroyTask(ctx, task.ID, true)
	}
	eventually(t, "nothing is left", func() bool { return len(activeSnapshots(r)) == 0 })
	requireNothingLeft(r, task)
}

// After a reboot there are records of containers, and nothing else.
func TestReboot(t *testing.T) {
	r := newRig(t)
	task := r.shell("echo ready; sleep 1000")
	started := r.start(task)
	task.stdout.await(t, "ready")
	r.daemon.Reboot()
	r.restart()
	began := time.Now()
	err := r.driver.RecoverTask(t.Context(), task.handle(started))
	must.ErrorContains(t, err, "no process any more, as after a reboot")
	test.Less(t, 2*time.Second, time.Since(began), test.Sprint("agents wait for nothing else meanwhile"))
	r.destroy(task)
	requireNothingLeft(r, task)
	again := r.shell("exit 3")
	r.start(again)
	test.Eq(t, 3, r.wait(again).ExitCode)
	r.destroy(again)
}

// The plugin was told of the task while the daemon was away, and the reboot came to light only later.
func TestReboot_seenOnlyAfterTheTaskWasTakenBack(t *testing.T) {
	r := newRig(t)
	task := r.shell("echo ready; sleep 1000")
	started := r.start(task)
	task.stdout.await(t, "ready")
	r.daemon.Reboot()
	r.daemon.Kill()
	r.restart()
	must.NoError(t, r.driver.RecoverTask(t.Context(), task.handle(started)))
	r.daemon.Start()
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	result, err := r.driver.WaitTask(ctx, task.ID)
	must.NoError(t, err)
	test.ErrorIs(t, result.Err, driver.ErrNoContainer)
	r.destroy(task)
	requireNothingLeft(r, task)
}

// Plugin, containerd and shims are killed at once: the machine's memory ran out, say.
func TestEverythingKilled(t *testing.T) {
	r := newRig(t)
	task := r.shell("echo ready; sleep 1000")
	started := r.start(task)
	task.stdout.await(t, "ready")
	r.daemon.Kill()
	for _, pid := range r.daemon.Shims() {
		must.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	}
	r.daemon.Start()
	r.restart()
	err := r.driver.RecoverTask(t.Context(), task.handle(started))
	if err == nil { // the daemon may still tell how it ended what it found
		result, err := r.driver.WaitTask(t.Context(), task.ID)
		must.NoError(t, err)
		test.True(t, result.Err != nil || result.ExitCode != 0)
	}
	r.destroy(task)
	requireNothingLeft(r, task)
}

func TestStartTask_oddNames(t *testing.T) {
	r := newRig(t)
	for _, id := range []string{
		"../../../../etc/x", "a/../../b", "çà/ünï/コード", strings.Repeat("long/", 2000), " ", "a\nb", "%s%d\"'`$(x)",
	} {
		task := r.shell("exit 2")
		task.ID = id
		task.JobID, task.JobName, task.GroupName = id, id, id
		started := r.start(task)
		test.Eq(t, 2, r.wait(task).ExitCode)
		r.restart()
		must.NoError(t, r.driver.RecoverTask(t.Context(), task.handle(started)), must.Sprint(id))
		r.destroy(task)
		requireNothingLeft(r, task)
	}
	for _, name := range []string{"..", ".", "", "alloc", "a/b", "../x", "/etc"} {
		task := r.shell("exit 2")
		task.Name = name
		_, err := r.driver.StartTask(t.Context(), task.TaskConfig)
		test.ErrorContains(t, err, fmt.Sprintf("task name %q: cannot be the name of a folder", name))
	}
}

func TestStartTask_whileContainerdsDiskIsFull(t *testing.T) {
	harness.Integration(t)
	r := newRigOn(t, harness.ContainerdOnSmallDisk(t, 16<<20), harness.BusyboxImage{
		Tag: "default:latest", Config: ocispec.ImageConfig{Entrypoint: []string{"/bin/sh", "-c"}},
	})
	warm := r.shell("true")
	r.start(warm)
	r.wait(warm)
	r.destroy(warm)
	filler := filepath.Join(r.daemon.Root, "filler")
	fill(t, filler)
	r.listen()
	task := r.shell("sleep 1000")
	if _, err := r.driver.StartTask(t.Context(), task.TaskConfig); err != nil {
		test.ErrorContains(t, err, "is full")
	} else {
		// There was room enough for the little that a start takes.
		r.destroy(task)
	}
	must.NoError(t, os.Remove(filler))
	eventually(t, "nothing is left", func() bool { return len(activeSnapshots(r)) == 0 })
	requireNothingLeft(r, task)
	again := r.shell("exit 5")
	r.start(again)
	test.Eq(t, 5, r.wait(again).ExitCode)
	r.destroy(again)
}

// fill takes all the room there is.
func fill(t testing.TB, path string) {
	t.Helper()
	file, err := os.Create(path)
	must.NoError(t, err)
	defer file.Close()
	for block := make([]byte, 64<<10); len(block) > 0; {
		if _, err := file.Write(block); err != nil {
			block = block[:len(block)/2]
		}
	}
}

func TestStartTask_whileTheAllocationsDiskIsFull(t *testing.T) {
	r := newRig(t)
	task := r.shell("exit 6")
	own := filepath.Join(task.AllocDir, "web")
	must.NoError(t, os.RemoveAll(own))
	must.NoError(t, os.Mkdir(own, 0o755))
	must.NoError(t, syscall.Mount("tmpfs", own, "tmpfs", 0, "size=32k"))
	t.Cleanup(func() { must.NoError(t, syscall.Unmount(own, syscall.MNT_DETACH)) })
	for _, dir := range []string{"local", "secrets"} {
		must.NoError(t, os.Mkdir(filepath.Join(own, dir), 0o755))
	}
	filler := filepath.Join(own, "local/filler")
	fill(t, filler)
	_, err := r.driver.StartTask(t.Context(), task.TaskConfig)
	must.ErrorIs(t, err, syscall.ENOSPC)
	requireNothingLeft(r, task)
	must.NoError(t, os.Remove(filler))
	r.start(task)
	test.Eq(t, 6, r.wait(task).ExitCode)
	r.destroy(task)
}

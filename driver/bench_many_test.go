package driver_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/e2e/harness"
	"github.com/nomad-promptflow/nomad-promptflow/plugin"
)

// Goals for a node with many tasks.
const (
	manyTasks     = 100
	memoryGoal    = 80.0 // MiB of the plugin process
	statsGoal     = 5.0  // percent of a core of the plugin process
	recoverGoal   = 2.0  // seconds for all tasks
	exitGoal      = 50.0 // milliseconds
	statsInterval = time.Second
	statsSamples  = 10
)

// BenchmarkManyTasks measures the real plugin binary, driven as an agent drives it, on a node with a hundred tasks: starting them
// all at once, what the process costs while the agent waits for and measures all of them, taking them back after it was killed,
// and how late it sees their exits.
func BenchmarkManyTasks(b *testing.B) {
	for done := false; b.Loop(); done = true {
		if !done {
			benchManyTasks(b)
		}
	}
}

func benchManyTasks(b *testing.B) {
	b.Helper()
	r := newWireRigOf(b, harness.Binary(b), "")
	warm := r.shell("true")
	r.start(warm)
	r.wait(warm)
	r.destroy(warm)

	tasks := make([]*wireTask, manyTasks)
	for i := range tasks {
		tasks[i] = r.shell("exec sleep 100000")
	}
	benchAtOnce(b, r, tasks)
	benchStats(b, r, tasks)
	benchRecover(b, r, tasks)
	benchExit(b, r, tasks)
	atOnce(b, tasks, func(task *wireTask) error { return r.plugin.DestroyTask(b.Context(), task.ID, true) })
}

// benchAtOnce starts all tasks at once, turn by turn with the bare client, and leaves them running. The better of two turns
// counts: the machine may have had something else to do in the other.
func benchAtOnce(b *testing.B, r *wireRig, tasks []*wireTask) {
	b.Helper()
	const turns = 2
	var ours, bare []time.Duration
	for turn := range turns {
		bare = append(bare, benchBareAtOnce(b, r, tasks))
		began := time.Now()
		atOnce(b, tasks, func(task *wireTask) error {
			handle, _, err := r.plugin.StartTask(b.Context(), task.TaskConfig)
			task.handle = handle
			return err
		})
		ours = append(ours, time.Since(began))
		if turn < turns-1 {
			atOnce(b, tasks, func(task *wireTask) error { return r.plugin.DestroyTask(b.Context(), task.ID, true) })
			r.awaitNoShims()
		}
	}
	record(b, compared("driver: 100 tasks at once, time to all running", "s", slices.Min(ours).Seconds(),
		"bare containerd client, same creates and starts", slices.Min(bare).Seconds(), startGoal))
}

// awaitNoShims waits for the end of what was removed, which would be in the way of what comes next.
func (r *wireRig) awaitNoShims() {
	r.t.Helper()
	eventually(r.t, "the shims are gone", func() bool { return len(r.daemon.Shims()) == 0 })
}

// benchBareAtOnce is what the bare client needs for as many containers with the same folders.
func benchBareAtOnce(b *testing.B, r *wireRig, tasks []*wireTask) time.Duration {
	b.Helper()
	client, ctx := newBareClient(b, r.client()), nomadNamespace(b)
	var mu sync.Mutex
	var containers []*bareContainer
	began := time.Now()
	atOnce(b, tasks, func(task *wireTask) error {
		container, err := client.start(ctx, task.TaskConfig)
		mu.Lock()
		defer mu.Unlock()
		containers = append(containers, container)
		return err
	})
	took := time.Since(began)
	for _, container := range containers {
		must.NoError(b, container.remove(ctx))
	}
	r.awaitNoShims()
	return took
}

// atOnce calls do for all tasks at the same time.
func atOnce(b *testing.B, tasks []*wireTask, do func(*wireTask) error) {
	b.Helper()
	errs := make([]error, len(tasks))
	var all sync.WaitGroup
	for i, task := range tasks {
		all.Go(func() { errs[i] = do(task) })
	}
	all.Wait()
	for _, err := range errs {
		must.NoError(b, err)
	}
}

// benchStats lets the agent wait for every task and take statistics of it every second, as it does.
func benchStats(b *testing.B, r *wireRig, tasks []*wireTask) {
	b.Helper()
	ctx, cancel := context.WithCancel(b.Context())
	var streams sync.WaitGroup
	var samples atomic.Int64
	begin, end := make(chan struct{}), make(chan struct{})
	for _, task := range tasks {
		streams.Go(func() { _, _ = r.plugin.WaitTask(ctx, task.ID) })
		streams.Go(func() {
			_ = r.plugin.TaskStats(ctx, task.ID, statsInterval, func(plugin.TaskUsage) {
				switch samples.Add(1) {
				case manyTasks: // the streams are open, the process has settled
					close(begin)
				case manyTasks * (statsSamples + 1):
					close(end)
				}
			})
		})
	}
	<-begin
	before, daemonBefore := cpuTime(b, r.plugin.PID()), cpuTime(b, r.daemon.PID())
	shims := r.daemon.Shims()
	shimsBefore := cpuTime(b, shims...)
	began := time.Now()
	<-end
	took := time.Since(began)
	share := func(used time.Duration) float64 { return float64(used) / float64(took) * 100 }
	used := share(cpuTime(b, r.plugin.PID()) - before)
	b.Logf("containerd: %.2f %% of a core; %d shims: %.2f %%", share(cpuTime(b, r.daemon.PID())-daemonBefore),
		len(shims), share(cpuTime(b, shims...)-shimsBefore))
	memory := pss(b, r.plugin.PID())
	cancel()
	streams.Wait()
	record(b, limited("driver: plugin memory (PSS) with 100 tasks", "MiB", memory, memoryGoal))
	record(b, limited("driver: stats of 100 tasks every second, plugin process", "% of a core", used, statsGoal))
}

// benchRecover kills the plugin and hands all tasks to a new one, one after the other, as an agent that starts does.
func benchRecover(b *testing.B, r *wireRig, tasks []*wireTask) {
	b.Helper()
	must.NoError(b, r.plugin.Kill())
	r.launch()
	began := time.Now()
	for _, task := range tasks {
		must.NoError(b, r.plugin.RecoverTask(b.Context(), task.handle))
	}
	record(b, limited("driver: RecoverTask of 100 tasks", "s", time.Since(began).Seconds(), recoverGoal))
}

// benchExit kills the process of each task behind the driver's back and measures how late the agent's wait returns.
func benchExit(b *testing.B, r *wireRig, tasks []*wireTask) {
	b.Helper()
	ctx, client := nomadNamespace(b), r.client()
	late := make([]time.Duration, 0, len(tasks))
	for _, task := range tasks {
		status, err := r.plugin.InspectTask(ctx, task.ID)
		must.NoError(b, err)
		container, err := client.LoadContainer(ctx, status.Attributes["container_id"])
		must.NoError(b, err)
		process, err := container.Task(ctx, nil)
		must.NoError(b, err)
		seen := make(chan time.Time, 1)
		waiting := make(chan struct{})
		go func() {
			close(waiting)
			_, _ = r.plugin.WaitTask(ctx, task.ID)
			seen <- time.Now()
		}()
		<-waiting
		killed := time.Now()
		must.NoError(b, syscall.Kill(int(process.Pid()), syscall.SIGKILL))
		late = append(late, (<-seen).Sub(killed))
	}
	b.Logf("exit seen: median %s, slowest %s, of %d", median(late), slices.Max(late), len(late))
	record(b, limited("driver: exit seen by WaitTask, 95 of 100 tasks", "ms", milliseconds(late[len(late)*95/100-1]), exitGoal))
}

// clockTicks is the unit of /proc's CPU times: 1/100 s on every Linux.
const clockTick = 10 * time.Millisecond

// cpuTime is what the processes have used so far.
func cpuTime(b *testing.B, pids ...int) time.Duration {
	b.Helper()
	var total time.Duration
	for _, pid := range pids {
		content, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		must.NoError(b, err)
		// The command's name, in parentheses, may hold spaces. User and system time are the 14th and 15th field.
		fields := strings.Fields(string(content[bytes.LastIndexByte(content, ')')+1:]))
		for _, field := range fields[11:13] {
			ticks, err := strconv.Atoi(field)
			must.NoError(b, err)
			total += time.Duration(ticks) * clockTick
		}
	}
	return total
}

// pss is the memory of a process in MiB, with its part of what it shares.
func pss(b *testing.B, pid int) float64 {
	b.Helper()
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	must.NoError(b, err)
	for line := range strings.Lines(string(content)) {
		fields := strings.Fields(line)
		if len(fields) > 1 && fields[0] == "Pss:" {
			kilobytes, err := strconv.Atoi(fields[1])
			must.NoError(b, err)
			return float64(kilobytes) / 1024
		}
	}
	b.Fatalf("no Pss in %s", content)
	return 0
}

package driver

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/moby/sys/signal"

	"github.com/nomad-promptflow/nomad-promptflow/plugin"
)

// watch waits for the end of a task in the background until the driver shuts down or the task is destroyed. The call that begins it
// is over long before.
//
//nolint:contextcheck // see above
func (d *Driver) watch(task *task) {
	d.background(func() {
		ctx, cancel := context.WithCancel(d.life)
		defer cancel()
		defer context.AfterFunc(task.gone, cancel)()
		d.awaitExit(ctx, task)
	})
}

// awaitExit learns the exit from the container's shim. A daemon that is away does not end a task: the wait is taken up
// again when it is back.
func (d *Driver) awaitExit(ctx context.Context, task *task) {
	for delay := retryDelay; ctx.Err() == nil; delay = min(2*delay, 10*retryDelay) {
		engine, _, err := d.current()
		if err == nil {
			var exit Exit
			if exit, err = engine.Wait(ctx, task.state.ContainerID); err == nil {
				d.finish(task, exit)
				return
			}
		}
		if errors.Is(err, ErrNoContainer) {
			task.finish(plugin.ExitResult{Err: fmt.Errorf("learn exit of task: %w", err)}, time.Now())
			return
		}
		d.logger.Debug("wait for container was cut off", "task_id", task.id, "error", err)
		sleep(ctx, delay)
	}
}

// sleep waits for the end of delay or of ctx.
func sleep(ctx context.Context, delay time.Duration) {
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

func (d *Driver) finish(task *task, exit Exit) {
	result := d.exitResult(task, exit)
	d.logger.Info("task ended", "task_id", task.id, "exit_code", result.ExitCode, "signal", result.Signal,
		"oom_killed", result.OOMKilled)
	task.finish(result, exit.At)
}

// maxSignal is the last of the signals that are told apart from an exit code of a program's own.
const maxSignal = 64

// exitResult reads a shell's exit code, and asks the cgroup whether the memory limit was what ended a task that failed.
func (d *Driver) exitResult(task *task, exit Exit) plugin.ExitResult {
	result := plugin.ExitResult{ExitCode: exit.Code}
	if n := exit.Code - 128; n > 0 && n <= maxSignal {
		result.Signal = n
	}
	if exit.Code == 0 {
		return result
	}
	kills, err := hostCgroups().oomKills(task.state.CgroupsPath)
	if err != nil {
		d.logger.Warn("cannot tell whether the task ran out of memory", "task_id", task.id, "error", err)
	}
	result.OOMKilled = kills > 0
	return result
}

// WaitTask returns when the task has ended.
func (d *Driver) WaitTask(ctx context.Context, id string) (*plugin.ExitResult, error) {
	d.restored.Store(d.session.Load())
	task, ok := d.tasks.get(id)
	if !ok {
		return nil, plugin.ErrTaskNotFound
	}
	d.claim(task)
	task.waiters.Add(1)
	defer task.waiters.Add(-1)
	select {
	case <-task.ended:
	case <-task.gone.Done():
		if !task.hasEnded() {
			return nil, plugin.ErrTaskNotFound
		}
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-d.life.Done():
		return nil, fmt.Errorf("wait for task %s: the driver shuts down", id)
	}
	result := task.result()
	return &result, nil
}

// StopTask asks the task to end and kills it when it does not within timeout.
func (d *Driver) StopTask(ctx context.Context, id string, timeout time.Duration, name string) error {
	task, ok := d.tasks.get(id)
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, timeout+killGrace)
	defer cancel()
	if timeout > 0 {
		polite, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		if err := d.killAndWait(polite, task, d.stopSignal(task, name)); err == nil {
			return nil
		}
	}
	if err := d.killAndWait(ctx, task, syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill task %s: %w", id, err)
	}
	return nil
}

// stopSignal is the one asked for, else the image's, else SIGTERM. A name that is none must not keep a task from
// being stopped.
func (d *Driver) stopSignal(task *task, name string) syscall.Signal {
	for _, candidate := range []string{name, task.state.StopSignal} {
		if candidate == "" {
			continue
		}
		parsed, err := signal.ParseSignal(candidate)
		if err == nil {
			return parsed
		}
		d.logger.Warn("unknown stop signal", "task_id", task.id, "signal", candidate)
	}
	return syscall.SIGTERM
}

// killAndWait sends a signal, again and again while the daemon does not answer, and returns when the task has ended.
func (d *Driver) killAndWait(ctx context.Context, task *task, signal syscall.Signal) error {
	for {
		err := d.signal(ctx, task, signal)
		if err == nil {
			break
		}
		if !errors.Is(err, ErrUnavailable) {
			return err
		}
		sleep(ctx, retryDelay)
		if ctx.Err() != nil {
			return err
		}
	}
	select {
	case <-task.ended:
		return nil
	case <-task.gone.Done():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (d *Driver) signal(ctx context.Context, task *task, signal syscall.Signal) error {
	if task.hasEnded() {
		return nil
	}
	engine, _, err := d.current()
	if err != nil {
		return err
	}
	err = engine.Kill(ctx, task.state.ContainerID, signal)
	if errors.Is(err, ErrNoContainer) {
		return nil
	}
	return err
}

// SignalTask sends a signal to the task's first process.
func (d *Driver) SignalTask(ctx context.Context, id, name string) error {
	task, ok := d.tasks.get(id)
	if !ok {
		return plugin.ErrTaskNotFound
	}
	parsed, err := signal.ParseSignal(name)
	if err != nil {
		return fmt.Errorf("signal task: %q is not a signal", name)
	}
	ctx, cancel := context.WithTimeout(ctx, recoverTimeout)
	defer cancel()
	if err := d.signal(ctx, task, parsed); err != nil {
		return fmt.Errorf("signal task %s: %w", id, err)
	}
	return nil
}

// DestroyTask removes everything of a task, also of one that only the engine still knows.
func (d *Driver) DestroyTask(ctx context.Context, id string, force bool) error {
	ctx, cancel := context.WithTimeout(ctx, removeTimeout)
	defer cancel()
	unlock, err := d.locks.lock(ctx, containerID(id))
	if err != nil {
		return fmt.Errorf("destroy task %s: %w", id, err)
	}
	defer unlock()
	task, known := d.tasks.get(id)
	if known && !force && !task.hasEnded() {
		return fmt.Errorf("destroy task %s: it still runs", id)
	}
	if err := d.giveUp(ctx, id, task); err != nil {
		d.logger.Error("cannot remove container of task", "task_id", id, "error", err)
		d.leftovers.add(containerID(id), leftover{taskID: id})
		return fmt.Errorf("destroy task %s: %w", id, err)
	}
	d.images.release(id)
	if known {
		task.destroy()
		d.tasks.remove(id)
	}
	return nil
}

// giveUp removes what there is of a task, which is nil when it is not known.
func (d *Driver) giveUp(ctx context.Context, taskID string, task *task) error {
	engine, config, err := d.current()
	if err != nil {
		return err
	}
	id := containerID(taskID)
	rest := residue{cgroup: ownCgroup(id)}
	if task != nil {
		rest = task.state.residue()
	} else if container, err := engine.Inspect(ctx, id); err == nil {
		rest = residueOf(id, container.Labels)
	}
	if err := d.giveUpContainer(ctx, engine, config, id, rest); err != nil {
		return err
	}
	return rest.remove(ctx)
}

// giveUpContainer removes a container, or only its process where the operator wants to keep what the task wrote.
func (d *Driver) giveUpContainer(ctx context.Context, engine Engine, config PluginConfig, id string, rest residue) error {
	if config.GC.Container && config.GC.containerDelay == 0 {
		return engine.Remove(ctx, id)
	}
	if err := engine.Stop(ctx, id); err != nil {
		return err
	}
	if config.GC.Container {
		return d.removeAfter(ctx, engine, id, rest, time.Now().Add(config.GC.containerDelay))
	}
	err := engine.Relabel(ctx, id, map[string]string{labelKept: "true"})
	if errors.Is(err, ErrNoContainer) {
		return nil
	}
	return err
}

// InspectTask describes a task.
func (d *Driver) InspectTask(_ context.Context, id string) (*plugin.TaskStatus, error) {
	task, ok := d.tasks.get(id)
	if !ok {
		return nil, plugin.ErrTaskNotFound
	}
	return task.status(), nil
}

// CreateNetwork is never asked for: the agent makes the networks (see Capabilities).
func (d *Driver) CreateNetwork(context.Context, string, string) (*plugin.NetworkIsolation, bool, error) {
	return nil, false, plugin.ErrNotSupported
}

// DestroyNetwork is never asked for either.
func (d *Driver) DestroyNetwork(context.Context, string, *plugin.NetworkIsolation) error {
	return plugin.ErrNotSupported
}

package driver

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nomad-promptflow/nomad-promptflow/plugin"
)

// RecoverTask takes a task back by its driver state. A task that ended meanwhile is taken back with its result. When the
// engine's daemon does not answer the task is believed to run: its container does not depend on the daemon, and an
// error would make the agent start the task a second time.
func (d *Driver) RecoverTask(ctx context.Context, handle *plugin.TaskHandle) error {
	if handle == nil || handle.Config == nil {
		return errors.New("recover task: the handle is empty")
	}
	d.onNode(handle.Config)
	if task, known := d.tasks.get(handle.Config.ID); known {
		d.claim(task)
		return nil
	}
	state, err := decodeState(handle.DriverState)
	if err != nil {
		return err
	}
	engine, _, err := d.current()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, d.recoverPatience())
	defer cancel()
	unlock, err := d.locks.lock(ctx, state.ContainerID)
	if err != nil {
		return fmt.Errorf("recover task %s: %w", handle.Config.ID, err)
	}
	defer unlock()
	recovered := newTask(handle.Config, state)
	if err := d.lookAgain(ctx, engine, recovered); err != nil {
		return fmt.Errorf("recover task %s: %w", handle.Config.ID, err)
	}
	d.images.claim(recovered.id, state.Image)
	kept, isNew := d.tasks.add(recovered)
	d.claim(kept)
	if isNew && !kept.hasEnded() {
		d.watch(kept)
	}
	return nil
}

// How long the agent, which takes back its tasks one after the other and does nothing else meanwhile, is kept waiting for one: less
// after it waited in vain for another a moment ago. A task that is taken to run is looked after in the background.
const (
	recoverImpatience = 100 * time.Millisecond
	slowMemory        = 30 * time.Second
)

func (d *Driver) recoverPatience() time.Duration {
	if time.Since(time.Unix(0, d.slowAt.Load())) < slowMemory {
		return recoverImpatience
	}
	return recoverTimeout
}

// lookAgain checks that the task's container is still there.
func (d *Driver) lookAgain(ctx context.Context, engine Engine, task *task) error {
	container, err := engine.Inspect(ctx, task.state.ContainerID)
	switch {
	case errors.Is(err, ErrUnavailable) || errors.Is(err, context.DeadlineExceeded):
		if errors.Is(err, context.DeadlineExceeded) {
			d.slowAt.Store(time.Now().UnixNano())
		}
		d.logger.Warn("container engine does not answer, task is taken to run", "task_id", task.id, "error", err)
		return nil
	case err != nil:
		return err
	case container.Running:
		return nil
	case container.Exit != nil:
		d.finish(task, *container.Exit)
		return nil
	}
	return fmt.Errorf("container %s has no process any more, as after a reboot: %w", task.state.ContainerID, ErrNoContainer)
}

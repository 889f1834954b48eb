package driver

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/plugin"
)

// All calls with the same task at once: whatever order they get, none hangs, none runs over another, and nothing is known of the
// task after the last destroy.
func TestDriver_manyCallsWithOneTask(t *testing.T) {
	t.Parallel()
	d, engine := newTestDriver(t)
	config := newTestTask(t)
	state, err := taskState{ContainerID: containerID(config.ID), StartedAt: time.Now()}.encode()
	must.NoError(t, err)
	engine.found = &Container{Running: true}
	// The errors are of calls that came when there was no task, and that is well.
	calls := []func(context.Context) error{
		func(ctx context.Context) error { _, err := d.StartTask(ctx, config); return err },
		func(ctx context.Context) error { return d.StopTask(ctx, config.ID, time.Millisecond, "") },
		func(ctx context.Context) error { return d.DestroyTask(ctx, config.ID, true) },
		func(ctx context.Context) error {
			return d.RecoverTask(ctx, &plugin.TaskHandle{Config: config, DriverState: state})
		},
		func(ctx context.Context) error { _, err := d.WaitTask(ctx, config.ID); return err },
		func(ctx context.Context) error { _, err := d.InspectTask(ctx, config.ID); return err },
		func(ctx context.Context) error { return d.SignalTask(ctx, config.ID, "SIGHUP") },
		func(ctx context.Context) error {
			_, err := d.ExecTask(ctx, config.ID, []string{"x"}, time.Second)
			return err
		},
		func(ctx context.Context) error {
			return d.TaskStats(ctx, config.ID, time.Millisecond, func(plugin.TaskUsage) error { return nil })
		},
	}
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	var all sync.WaitGroup
	for _, call := range slices.Repeat(calls, 4) {
		all.Go(func() {
			for ctx.Err() == nil {
				_ = call(ctx)
			}
		})
	}
	all.Wait()
	must.NoError(t, d.DestroyTask(t.Context(), config.ID, true))
	_, err = d.InspectTask(t.Context(), config.ID)
	test.ErrorIs(t, err, plugin.ErrTaskNotFound)
	test.MapEmpty(t, d.locks.locks)
}

func TestContainerLocks(t *testing.T) {
	t.Parallel()
	locks := newContainerLocks()
	unlock, err := locks.lock(t.Context(), "a")
	must.NoError(t, err)
	_, ok := locks.tryLock("a")
	test.False(t, ok)
	other, ok := locks.tryLock("b")
	must.True(t, ok)
	other()

	short, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_, err = locks.lock(short, "a")
	test.ErrorIs(t, err, context.DeadlineExceeded)
	waiting := make(chan func())
	go func() {
		next, err := locks.lock(t.Context(), "a")
		if err == nil {
			waiting <- next
		}
	}()
	unlock()
	(<-waiting)()
	test.MapEmpty(t, locks.locks, test.Sprint("nothing stays of tasks that are gone"))
}

func TestStartTask_waitsForTheOtherCallsWithItsTask(t *testing.T) {
	t.Parallel()
	d, _ := newTestDriver(t)
	config := newTestTask(t)
	unlock, err := d.locks.lock(t.Context(), containerID(config.ID))
	must.NoError(t, err)
	defer unlock()
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_, err = d.StartTask(ctx, config)
	must.ErrorContains(t, err, "wait for another call with the same task")
	test.True(t, plugin.IsRecoverable(err))
	test.ErrorIs(t, d.DestroyTask(ctx, config.ID, true), context.DeadlineExceeded)
}

func TestRecoverTask_doesNotWaitForAHungEngineAgainAndAgain(t *testing.T) {
	t.Parallel()
	d, engine := newTestDriver(t)
	test.Eq(t, recoverTimeout, d.recoverPatience())
	engine.fail["inspect"] = context.DeadlineExceeded
	config := newTestTask(t)
	state, err := taskState{ContainerID: containerID(config.ID), StartedAt: time.Now()}.encode()
	must.NoError(t, err)
	must.NoError(t, d.RecoverTask(t.Context(), &plugin.TaskHandle{Config: config, DriverState: state}))
	test.Eq(t, recoverImpatience, d.recoverPatience())
}

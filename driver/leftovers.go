package driver

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// leftover is a container that is to go and could not be removed, or not yet.
type leftover struct {
	// taskID is set when the agent asked to destroy that task; the container may then be one to keep.
	taskID string
	residue
}

// leftovers are, by name, the containers whose removal failed. The agent does not ask a second time, so the driver has to see to
// it itself.
type leftovers struct {
	mu         sync.Mutex
	containers map[string]leftover
	next       time.Time // not before
	delay      time.Duration
}

// How long a sweep that failed is waited after.
const (
	minSweepDelay = 2 * time.Second
	maxSweepDelay = time.Minute
	// lateRuntime is how long a runtime is at work at most when its daemon is gone.
	lateRuntime = 5 * time.Second
)

func (l *leftovers) add(container string, left leftover) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.containers == nil {
		l.containers = map[string]leftover{}
	}
	l.containers[container] = left
}

// forget is for a task that is started again.
func (l *leftovers) forget(container string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.containers, container)
}

func (l *leftovers) has(container string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, ok := l.containers[container]
	return ok
}

// due are those to try again now, if it is time.
func (l *leftovers) due(now time.Time) map[string]leftover {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.containers) == 0 || now.Before(l.next) {
		return nil
	}
	due := l.containers
	l.containers = nil
	return due
}

// swept says how a sweep went. One that failed is repeated ever more seldom.
func (l *leftovers) swept(failed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !failed {
		l.delay, l.next = 0, time.Time{}
		return
	}
	l.delay = min(max(2*l.delay, minSweepDelay), maxSweepDelay)
	l.next = time.Now().Add(l.delay)
}

// sweep removes what could not be removed before. It is called whenever the daemon was seen to answer.
func (d *Driver) sweep() {
	due := d.leftovers.due(time.Now())
	if len(due) == 0 {
		return
	}
	d.background(func() {
		var failed []error
		for container, left := range due {
			failed = append(failed, d.removeLeftover(d.life, container, left))
			if left.taskID == "" {
				d.removeLater(container, left.residue)
			}
		}
		err := errors.Join(failed...)
		d.leftovers.swept(err != nil)
		d.logger.Info("removed containers that were left", "containers", len(due), "error", err)
	})
}

// removeLeftover destroys the task again, or removes a container that no task has. What fails is a leftover again.
func (d *Driver) removeLeftover(ctx context.Context, container string, left leftover) error {
	if left.taskID != "" {
		return d.DestroyTask(ctx, left.taskID, true)
	}
	ctx, cancel := context.WithTimeout(ctx, removeTimeout)
	defer cancel()
	unlock, err := d.locks.lock(ctx, container)
	if err != nil {
		d.leftovers.add(container, left)
		return err
	}
	defer unlock()
	if d.tasks.ofContainer(container) != nil {
		return nil // it was started again meanwhile
	}
	return d.removeWhole(ctx, container, left.residue)
}

// removeLater removes once more what there is of a container outside of the engine. A runtime that was at work when its daemon went
// away works on for a moment, and may make what was not there when the rest was removed.
//
//nolint:contextcheck // it is in the background
func (d *Driver) removeLater(container string, rest residue) {
	d.background(func() {
		sleep(d.life, lateRuntime)
		if d.tasks.ofContainer(container) != nil {
			return
		}
		if err := rest.remove(d.life); err != nil {
			d.logger.Warn("cannot remove what a runtime left", "container_id", container, "error", err)
		}
	})
}

// removeWhole removes a container and all there is of it, now or, when that fails, later. The caller has its lock.
func (d *Driver) removeWhole(ctx context.Context, container string, rest residue) error {
	engine, _, err := d.current()
	if err == nil {
		err = engine.Remove(ctx, container)
	}
	if err == nil {
		err = rest.remove(ctx)
	}
	if err != nil {
		d.leftovers.add(container, leftover{residue: rest})
		return fmt.Errorf("remove container %s: %w", container, err)
	}
	return nil
}

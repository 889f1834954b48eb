package driver

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nomad-promptflow/nomad-promptflow/plugin"
)

// taskTable holds the tasks that the driver knows, by id.
type taskTable struct {
	mu    sync.RWMutex
	tasks map[string]*task
}

func newTaskTable() *taskTable { return &taskTable{tasks: map[string]*task{}} }

func (t *taskTable) get(id string) (*task, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	found, ok := t.tasks[id]
	return found, ok
}

// add keeps the first task of an id and returns the one that is kept.
func (t *taskTable) add(added *task) (kept *task, isNew bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if old, ok := t.tasks[added.id]; ok {
		return old, false
	}
	t.tasks[added.id] = added
	return added, true
}

// ofContainer is the task that a container is made for, nil when there is none.
func (t *taskTable) ofContainer(container string) *task {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, task := range t.tasks {
		if task.state.ContainerID == container {
			return task
		}
	}
	return nil
}

func (t *taskTable) remove(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.tasks, id)
}

// task is a task that the driver started or took back.
type task struct {
	id, name, allocID string
	state             taskState

	session atomic.Int64 // the last in which the agent named the task
	waiters atomic.Int32 // calls of the agent that wait for the end of the task right now

	ended   chan struct{}      // closed when exit and endAt are set
	gone    context.Context    // ends when destroy is called
	destroy context.CancelFunc // tells everybody who waits for the task that it is no more

	mu    sync.Mutex
	exit  plugin.ExitResult
	endAt time.Time
}

func newTask(config *plugin.TaskConfig, state taskState) *task {
	gone, destroy := context.WithCancel(context.Background())
	return &task{
		id: config.ID, name: config.Name, allocID: config.AllocID,
		state: state,
		ended: make(chan struct{}),
		gone:  gone, destroy: destroy,
	}
}

// finish records how the task ended. Only the first call counts.
func (t *task) finish(result plugin.ExitResult, at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.hasEnded() {
		return
	}
	t.exit, t.endAt = result, at
	close(t.ended)
}

func (t *task) hasEnded() bool {
	select {
	case <-t.ended:
		return true
	default:
		return false
	}
}

func (t *task) result() plugin.ExitResult {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.exit
}

func (t *task) status() *plugin.TaskStatus {
	t.mu.Lock()
	defer t.mu.Unlock()
	status := &plugin.TaskStatus{
		ID: t.id, Name: t.name,
		State:     plugin.TaskRunning,
		StartedAt: t.state.StartedAt,
		Attributes: map[string]string{
			"container_id": t.state.ContainerID,
			"image":        t.state.Image,
			"image_digest": t.state.ImageDigest,
		},
	}
	if t.hasEnded() {
		status.State, status.CompletedAt, status.Exit = plugin.TaskExited, t.endAt, t.exit
	}
	return status
}

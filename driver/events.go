package driver

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/nomad-promptflow/nomad-promptflow/plugin"
)

// maxQueuedEvents bounds what is kept while no agent listens. The agent itself shows ten of a task.
const maxQueuedEvents = 100

// eventQueue holds task events until the agent takes them. When it is full the oldest go.
type eventQueue struct {
	mu     sync.Mutex
	events []plugin.TaskEvent
	filled chan struct{} // holds one token while there may be events
}

func newEventQueue() *eventQueue { return &eventQueue{filled: make(chan struct{}, 1)} }

func (q *eventQueue) put(event plugin.TaskEvent) {
	q.mu.Lock()
	q.events = append(q.events, event)
	if excess := len(q.events) - maxQueuedEvents; excess > 0 {
		q.events = q.events[excess:]
	}
	q.mu.Unlock()
	q.signal()
}

func (q *eventQueue) signal() {
	select {
	case q.filled <- struct{}{}:
	default:
	}
}

func (q *eventQueue) take() []plugin.TaskEvent {
	q.mu.Lock()
	defer q.mu.Unlock()
	events := q.events
	q.events = nil
	return events
}

// putBack returns events that could not be sent, for the next listener.
func (q *eventQueue) putBack(events []plugin.TaskEvent) {
	q.mu.Lock()
	q.events = append(events, q.events...)
	q.mu.Unlock()
	q.signal()
}

// TaskEvents sends the events of all tasks until ctx ends.
func (d *Driver) TaskEvents(ctx context.Context, send func(plugin.TaskEvent) error) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.events.filled:
		}
		events := d.events.take()
		for i, event := range events {
			if err := send(event); err != nil {
				d.events.putBack(events[i:])
				return fmt.Errorf("send task event: %w", err)
			}
		}
	}
}

func (d *Driver) emit(config *plugin.TaskConfig, message string, annotations map[string]string) {
	d.events.put(plugin.TaskEvent{
		TaskID: config.ID, AllocID: config.AllocID, TaskName: config.Name,
		Time: time.Now(), Message: message, Annotations: annotations,
	})
}

package driver

import (
	"errors"
	"sync"
)

// leftovers are tasks that were to be destroyed while the engine's daemon was away. The agent does not ask a second time, so
// the driver has to see to it itself.
type leftovers struct {
	mu  sync.Mutex
	ids map[string]bool
}

func (l *leftovers) add(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ids == nil {
		l.ids = map[string]bool{}
	}
	l.ids[id] = true
}

// forget is for a task that is started again.
func (l *leftovers) forget(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.ids, id)
}

func (l *leftovers) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var ids []string
	for id := range l.ids {
		ids = append(ids, id)
	}
	l.ids = nil
	return ids
}

// sweep destroys what could not be destroyed before. It is called whenever the daemon was seen to answer.
func (d *Driver) sweep() {
	ids := d.leftovers.take()
	if len(ids) == 0 {
		return
	}
	d.work.Go(func() {
		var failed []error
		for _, id := range ids {
			failed = append(failed, d.DestroyTask(d.life, id, true))
		}
		d.logger.Info("removed tasks that were left while containerd was away", "tasks", len(ids), "error", errors.Join(failed...))
	})
}

package driver

import (
	"context"
	"fmt"
	"sync"
)

// containerLocks lets one call at a time make or remove a container: agents send a start again, and destroy what they gave up, whatever
// the first call is doing.
type containerLocks struct {
	mu    sync.Mutex
	locks map[string]*containerLock
}

type containerLock struct {
	free  chan struct{} // holds one token while nobody has the lock
	users int           // who have it or wait for it
}

func newContainerLocks() *containerLocks { return &containerLocks{locks: map[string]*containerLock{}} }

// lock waits for the container until ctx ends. The returned function gives it back.
func (l *containerLocks) lock(ctx context.Context, id string) (unlock func(), err error) {
	lock := l.use(id)
	select {
	case <-lock.free:
		return func() { lock.free <- struct{}{}; l.leave(id) }, nil
	case <-ctx.Done():
		l.leave(id)
		return nil, fmt.Errorf("wait for another call with the same task: %w", ctx.Err())
	}
}

// tryLock is lock that does not wait.
func (l *containerLocks) tryLock(id string) (unlock func(), ok bool) {
	lock := l.use(id)
	select {
	case <-lock.free:
		return func() { lock.free <- struct{}{}; l.leave(id) }, true
	default:
		l.leave(id)
		return nil, false
	}
}

func (l *containerLocks) use(id string) *containerLock {
	l.mu.Lock()
	defer l.mu.Unlock()
	lock, ok := l.locks[id]
	if !ok {
		lock = &containerLock{free: make(chan struct{}, 1)}
		lock.free <- struct{}{}
		l.locks[id] = lock
	}
	lock.users++
	return lock
}

func (l *containerLocks) leave(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	lock := l.locks[id]
	if lock.users--; lock.users == 0 {
		delete(l.locks, id)
	}
}

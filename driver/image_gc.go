package driver

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// imageUses knows which tasks use which images. When the last task of an image is gone, the image is removed after a while,
// unless a task wants it before. Environments are images too.
//
// Two things keep an image that is needed from going. A start claims its image before it looks for it, and waits for a removal that
// has begun. And the engine refuses to remove an image that a container is made from, which counts for tasks that are
// not known here: of a driver before this one, before they are recovered.
type imageUses struct {
	// remove removes an image if the driver fetched it; see [Engine.RemoveImage].
	remove func(ctx context.Context, name string) error
	// delay is how long an unused image is kept; false keeps it for ever.
	delay  func() (time.Duration, bool)
	logger hclog.Logger
	// life ends with the driver; work counts what goes on in it.
	life context.Context
	work *sync.WaitGroup

	mu     sync.Mutex
	users  map[string]map[string]bool // task ids by image
	doomed map[string]*doom           // images that nobody uses
}

// doom is a removal to come.
type doom struct {
	spare    context.CancelFunc
	removing bool
	done     chan struct{} // closed when removing is over
}

// claim says that a task uses an image. A removal that has begun is waited for: the image is not there afterwards.
func (u *imageUses) claim(taskID, name string) {
	if name == "" {
		return // a task of which that is not known
	}
	for {
		u.mu.Lock()
		found, isDoomed := u.doomed[name]
		if !isDoomed || !found.removing {
			break
		}
		u.mu.Unlock()
		<-found.done
	}
	defer u.mu.Unlock()
	if found, ok := u.doomed[name]; ok {
		found.spare()
		delete(u.doomed, name)
	}
	if u.users == nil {
		u.users = map[string]map[string]bool{}
	}
	if u.users[name] == nil {
		u.users[name] = map[string]bool{}
	}
	u.users[name][taskID] = true
}

// release says that a task uses no image any more.
func (u *imageUses) release(taskID string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for name, tasks := range u.users {
		if !tasks[taskID] {
			continue
		}
		delete(tasks, taskID)
		if len(tasks) == 0 {
			delete(u.users, name)
			u.condemn(name, 0)
		}
	}
}

// releaseFailed is release for a start that failed.
func (u *imageUses) releaseFailed(taskID string, err *error) {
	if *err != nil {
		u.release(taskID)
	}
}

// found is for images that are there though no task is known to use them.
func (u *imageUses) found(names []string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, name := range names {
		if u.users[name] == nil && u.doomed[name] == nil {
			u.condemn(name, 0)
		}
	}
}

// condemn has an image removed after the delay, or later if that is longer. The mutex must be held.
func (u *imageUses) condemn(name string, atLeast time.Duration) {
	delay, enabled := u.delay()
	if !enabled || u.life.Err() != nil {
		return
	}
	ctx, spare := context.WithCancel(u.life)
	if u.doomed == nil {
		u.doomed = map[string]*doom{}
	}
	condemned := &doom{spare: spare, done: make(chan struct{})}
	u.doomed[name] = condemned
	u.work.Go(func() {
		defer spare()
		sleep(ctx, max(delay, atLeast))
		u.execute(ctx, name, condemned)
	})
}

// removalRetry is when a removal that failed is tried again, if the delay is not longer.
const removalRetry = time.Minute

// execute removes a condemned image that was not spared meanwhile.
func (u *imageUses) execute(ctx context.Context, name string, condemned *doom) {
	u.mu.Lock()
	if ctx.Err() != nil || u.doomed[name] != condemned {
		u.mu.Unlock()
		return
	}
	condemned.removing = true
	u.mu.Unlock()

	ctx, cancel := context.WithTimeout(ctx, removeTimeout)
	defer cancel()
	err := u.remove(ctx, name)
	switch {
	case errors.Is(err, ErrImageInUse):
		u.logger.Debug("image is still in use", "image", name)
	case err != nil:
		u.logger.Warn("cannot remove unused image", "image", name, "error", err)
	default:
		u.logger.Info("removed unused image", "image", name)
	}

	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.doomed, name)
	close(condemned.done)
	if err != nil {
		u.condemn(name, removalRetry)
	}
}

// removeImage and imageDelay are what imageUses needs of the driver.
func (d *Driver) removeImage(ctx context.Context, name string) error {
	engine, _, err := d.current()
	if err != nil {
		return err
	}
	return engine.RemoveImage(ctx, name)
}

func (d *Driver) imageDelay() (time.Duration, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.config.GC.imageDelay, d.config.GC.Image
}

// findUnusedImages looks once, when the engine's daemon is first seen to answer, for images that only tasks of a driver before this one
// used.
func (d *Driver) findUnusedImages(ctx context.Context, engine Engine) {
	if d.imagesFound.Load() {
		return
	}
	names, err := engine.FetchedImages(ctx)
	if err != nil {
		d.logger.Warn("cannot look for unused images", "error", err)
		return
	}
	d.imagesFound.Store(true)
	d.images.found(names)
}

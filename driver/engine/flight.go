package engine

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/nomad-promptflow/nomad-promptflow/driver"
	"github.com/nomad-promptflow/nomad-promptflow/driver/registry"
)

// flights are the fetches that go on. Whoever wants the same image waits for the same fetch.
type flights struct {
	mu    sync.Mutex
	going map[flightKey]*flight
}

// flightKey says which fetches are the same. Those with different credentials are not: nobody gets an image, or a refusal, by
// another's.
type flightKey struct {
	action, name, ref, digest, platform string
	auth                                registry.TaskAuth
	alone                               *driver.ImageArchive // an archive is read for whoever brought it
}

// flight is one fetch.
type flight struct {
	key     flightKey
	tracker *tracker
	cancel  context.CancelFunc
	askers  int           // guarded by the mutex of flights
	done    chan struct{} // closed when result and err are set
	result  fetched
	err     error
}

// fetched is what a fetch brought.
type fetched struct {
	image  *driver.Image
	layers int
	bytes  int64
}

// join returns the flight of key, which begin starts when there is none.
func (f *flights) join(key flightKey, begin func() *flight) *flight {
	f.mu.Lock()
	defer f.mu.Unlock()
	joined, ok := f.going[key]
	if !ok {
		joined = begin()
		if f.going == nil {
			f.going = map[flightKey]*flight{}
		}
		f.going[key] = joined
	}
	joined.askers++
	return joined
}

// leave ends a flight that nobody waits for any more, and says whether it did. It must be called once for each join.
func (f *flights) leave(left *flight) (last bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	left.askers--
	if left.askers > 0 {
		return false
	}
	left.cancel()
	f.forget(left)
	return true
}

// land lets the next asker begin anew.
func (f *flights) land(landed *flight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.forget(landed)
}

func (f *flights) forget(gone *flight) {
	if f.going[gone.key] == gone {
		delete(f.going, gone.key)
	}
}

// fetchOnce carries the plan out, or waits for whoever already does. Everyone who waits is told of the progress.
func (e *Engine) fetchOnce(ctx context.Context, request driver.ImageRequest, plan fetchPlan) (*driver.Image, error) {
	key := flightKey{
		action: plan.action, name: plan.name, ref: plan.ref, digest: plan.desc.Digest.String(), platform: plan.platform.text,
		auth: request.Auth, alone: request.Archive,
	}
	began := time.Now()
	flying := e.flights.join(key, func() *flight { return e.takeOff(key, request, plan) })
	request.Progress(driver.ImageProgress{Stage: driver.FetchBegins, Action: plan.action, Digest: key.digest})
	err := e.await(ctx, flying, request.Progress)
	if e.flights.leave(flying) {
		// What it made is gone when this returns, but for a daemon that does not answer.
		waitBounded(flying.done, cleanupTimeout)
	}
	switch {
	case err == nil:
	case plan.what() == request.Name || request.Archive != nil:
		return nil, fmt.Errorf("%s: %w", plan.action, err)
	default:
		return nil, fmt.Errorf("%s %s: %w", plan.action, plan.what(), err)
	}
	done := flying.result
	request.Progress(driver.ImageProgress{
		Stage: driver.FetchEnds, Action: plan.action, Digest: done.image.Digest, Took: time.Since(began),
		LayersDone: done.layers, Layers: done.layers, BytesDone: done.bytes, Bytes: done.bytes,
	})
	return done.image, nil
}

// reportGrowth is by what the intervals between reports grow. The agent shows the last ten events of a task, of which a long fetch
// should not take all.
const reportGrowth = 2

// await waits for the end of a flight or of ctx.
func (e *Engine) await(ctx context.Context, flying *flight, report func(driver.ImageProgress)) error {
	interval := e.config.ReportInterval
	timer := time.NewTimer(interval)
	defer timer.Stop()
	for {
		select {
		case <-flying.done:
			return flying.err
		case <-ctx.Done():
			return fmt.Errorf("%w (%s)", ctx.Err(), flying.tracker)
		case <-timer.C:
			report(flying.tracker.progress())
			interval *= reportGrowth
			timer.Reset(interval)
		}
	}
}

func waitBounded(done <-chan struct{}, bound time.Duration) {
	timer := time.NewTimer(bound)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}

// takeOff begins a fetch. It ends with the engine, or when the last who waits for it goes away.
func (e *Engine) takeOff(key flightKey, request driver.ImageRequest, plan fetchPlan) *flight {
	ctx, cancel := context.WithCancel(e.namespaced(e.life))
	started := &flight{key: key, tracker: newTracker(plan.action), cancel: cancel, done: make(chan struct{})}
	e.work.Go(func() {
		defer cancel()
		started.result, started.err = e.fetch(ctx, request, plan, started.tracker)
		e.flights.land(started)
		close(started.done)
	})
	return started
}

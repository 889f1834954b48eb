package engine

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/driver"
)

func newFlight(key flightKey) (*flight, context.Context) {
	ctx, cancel := context.WithCancel(context.Background())
	return &flight{key: key, tracker: newTracker(actionPull), cancel: cancel, done: make(chan struct{})}, ctx
}

func TestFlights_lastAskerEndsIt(t *testing.T) {
	t.Parallel()
	var f flights
	begun := 0
	var ctx context.Context
	begin := func(key flightKey) func() *flight {
		return func() *flight {
			begun++
			var started *flight
			started, ctx = newFlight(key)
			return started
		}
	}
	image, other := flightKey{name: "image"}, flightKey{name: "image", platform: "linux/arm64"}
	first := f.join(image, begin(image))
	imageCtx := ctx
	test.True(t, first == f.join(image, begin(image)))
	test.False(t, first == f.join(other, begin(other)))
	test.Eq(t, 2, begun)

	test.False(t, f.leave(first))
	must.NoError(t, imageCtx.Err())
	test.True(t, f.leave(first))
	must.Error(t, imageCtx.Err())
	second := f.join(image, begin(image))
	test.False(t, first == second, test.Sprint("who comes later does not wait for what was cancelled"))

	// The end of a flight makes room for the next, and of the flight before it does not.
	f.land(first)
	test.True(t, second == f.join(image, begin(image)))
	f.land(second)
	test.False(t, second == f.join(image, begin(image)))
}

func TestAwait_reportsAtGrowingIntervals(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := &Engine{config: driver.EngineConfig{ReportInterval: 10 * time.Second}}
		flying, _ := newFlight(flightKey{})
		began := time.Now()
		var at []time.Duration
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		err := e.await(ctx, flying, func(progress driver.ImageProgress) {
			at = append(at, time.Since(began))
			test.True(t, progress.Waiting)
		})
		must.ErrorIs(t, err, context.DeadlineExceeded)
		must.ErrorContains(t, err, "it still waited for other fetches to end")
		test.Eq(t, []time.Duration{10 * time.Second, 30 * time.Second, 70 * time.Second, 150 * time.Second}, at)

		flying.err = errors.New("broken")
		close(flying.done)
		must.EqError(t, e.await(t.Context(), flying, nil), "broken")
	})
}

func TestTracker_watch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tracker := newTracker(actionPull)
		tracker.begin()
		ctx, cancel := context.WithCancelCause(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			tracker.watch(ctx, time.Minute, cancel)
		}()
		// Unpacking, or waiting for something on this machine, may take its time.
		time.Sleep(time.Hour)
		must.NoError(t, ctx.Err())

		// Slow is not silent.
		for range 10 {
			answered := tracker.ask()
			time.Sleep(50 * time.Second)
			answered("layer", 10)
		}
		must.NoError(t, ctx.Err())
		test.Eq(t, 100, tracker.progress().BytesDone)

		// One of two that says something is enough.
		silent := tracker.ask()
		for range 10 {
			answered := tracker.ask()
			time.Sleep(50 * time.Second)
			answered("layer", 1)
		}
		must.NoError(t, ctx.Err())
		time.Sleep(2 * time.Minute)
		<-done
		test.ErrorIs(t, context.Cause(ctx), errSilence)
		test.ErrorIs(t, context.Cause(ctx), driver.ErrTransient)
		silent("", 0)
	})
}

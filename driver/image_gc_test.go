package driver

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/shoenig/test"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/plugin"
)

// usesRig is imageUses over an image store that only counts what is removed.
type usesRig struct {
	*imageUses
	delayed time.Duration
	enabled bool
	end     context.CancelFunc

	mu      sync.Mutex
	removed []string
	fail    error
	slow    chan struct{} // when there is one, a removal waits for it
}

func newUsesRig(delay time.Duration) *usesRig {
	life, end := context.WithCancel(context.Background())
	r := &usesRig{delayed: delay, enabled: true, end: end}
	r.imageUses = &imageUses{
		remove: r.take, delay: func() (time.Duration, bool) { return r.delayed, r.enabled },
		logger: hclog.NewNullLogger(), life: life, work: &sync.WaitGroup{},
	}
	return r
}

func (r *usesRig) take(ctx context.Context, name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.slow != nil {
		select {
		case <-r.slow:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if r.fail != nil {
		return r.fail
	}
	r.removed = append(r.removed, name)
	return nil
}

func (r *usesRig) taken() []string {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.removed
}

// inBubble runs the test in a time of its own.
func inBubble(t *testing.T, delay time.Duration, do func(t *testing.T, r *usesRig)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newUsesRig(delay)
		do(t, r)
		r.end()
		r.work.Wait()
	})
}

func TestImageUses_Pull_Remove(t *testing.T) {
	inBubble(t, 3*time.Minute, func(t *testing.T, r *usesRig) {
		for _, task := range []string{"a", "b", "a"} {
			r.claim(task, "image")
		}
		r.claim("a", "other")
		r.release("a")
		time.Sleep(time.Hour)
		test.Eq(t, []string{"other"}, r.taken(), test.Sprint("one of two tasks still uses the image"))
		r.release("b")
		time.Sleep(3*time.Minute - time.Second)
		test.Eq(t, []string{"other"}, r.taken())
		time.Sleep(time.Second)
		test.Eq(t, []string{"other", "image"}, r.taken())
		r.release("b")
		time.Sleep(time.Hour)
		test.Len(t, 2, r.taken())
	})
}

func TestImageUses_Remove_Cancel(t *testing.T) {
	inBubble(t, 3*time.Minute, func(t *testing.T, r *usesRig) {
		r.claim("a", "image")
		r.release("a")
		time.Sleep(2 * time.Minute)
		r.claim("b", "image")
		time.Sleep(time.Hour)
		test.SliceEmpty(t, r.taken())
		r.release("b")
		time.Sleep(2 * time.Minute)
		test.SliceEmpty(t, r.taken(), test.Sprint("the delay begins anew"))
		time.Sleep(time.Minute)
		test.Eq(t, []string{"image"}, r.taken())
	})
}

func TestImageUses_Cleanup_HonorsCtx(t *testing.T) {
	inBubble(t, time.Minute, func(t *testing.T, r *usesRig) {
		r.claim("a", "image")
		r.claim("b", "stuck")
		r.slow = make(chan struct{})
		r.release("b")
		time.Sleep(time.Minute)
		synctest.Wait()
		r.release("a")
		r.end()
		r.work.Wait() // also the removal that hangs
		test.SliceEmpty(t, r.removed)
		r.claim("c", "image")
		r.release("c")
		r.work.Wait()
	})
}

func TestImageUses_DisableImageGC(t *testing.T) {
	inBubble(t, time.Minute, func(t *testing.T, r *usesRig) {
		r.enabled = false
		r.claim("a", "image")
		r.release("a")
		r.found([]string{"old"})
		time.Sleep(24 * time.Hour)
		test.SliceEmpty(t, r.taken())
	})
}

func TestImageUses_findsWhatAnEarlierDriverFetched(t *testing.T) {
	inBubble(t, time.Minute, func(t *testing.T, r *usesRig) {
		r.claim("recovered", "used")
		r.claim("ended", "doomed")
		r.release("ended")
		time.Sleep(30 * time.Second)
		r.found([]string{"used", "doomed", "forgotten"})
		time.Sleep(30 * time.Second)
		test.Eq(t, []string{"doomed"}, r.taken(), test.Sprint("a removal that waits goes by its own delay"))
		r.claim("late", "forgotten")
		r.release("late")
		time.Sleep(time.Minute)
		test.Eq(t, []string{"doomed", "forgotten"}, r.taken())
	})
}

func TestImageUses_claimWaitsForARemoval(t *testing.T) {
	inBubble(t, 0, func(t *testing.T, r *usesRig) {
		r.claim("a", "image")
		r.slow = make(chan struct{})
		r.release("a")
		synctest.Wait()
		claimed := make(chan struct{})
		go func() {
			defer close(claimed)
			r.claim("b", "image")
		}()
		synctest.Wait()
		select {
		case <-claimed:
			t.Fatal("claimed an image that is being removed")
		default:
		}
		close(r.slow)
		<-claimed
		test.Eq(t, []string{"image"}, r.taken(), test.Sprint("who claims it now looks for it now"))
		r.release("b")
		test.Len(t, 2, r.taken())
	})
}

func TestImageUses_triesAgain(t *testing.T) {
	inBubble(t, time.Second, func(t *testing.T, r *usesRig) {
		r.fail = ErrImageInUse
		r.claim("a", "image")
		r.release("a")
		time.Sleep(time.Hour)
		test.SliceEmpty(t, r.taken())
		r.mu.Lock()
		r.fail = nil
		r.mu.Unlock()
		time.Sleep(removalRetry)
		test.Eq(t, []string{"image"}, r.taken())
	})
}

// The driver's life keeps the uses.
func TestDriver_claimsTheImagesOfItsTasks(t *testing.T) {
	t.Parallel()
	d, engine := newTestDriver(t)
	uses := func(image string) int {
		d.images.mu.Lock()
		defer d.images.mu.Unlock()
		return len(d.images.users[image])
	}
	state, err := taskState{ContainerID: "c", Image: "image"}.encode()
	must.NoError(t, err)
	engine.found = &Container{Running: true}
	must.NoError(t, d.RecoverTask(t.Context(), &plugin.TaskHandle{Config: &plugin.TaskConfig{ID: "task"}, DriverState: state}))
	test.Eq(t, 1, uses("image"))
	must.NoError(t, d.DestroyTask(t.Context(), "task", true))
	test.Eq(t, 0, uses("image"))

	engine.found = nil
	engine.fail["image"] = errors.New("no")
	released := 0
	d.images.delay = func() (time.Duration, bool) { released++; return 0, false }
	_, err = d.StartTask(t.Context(), &plugin.TaskConfig{ID: "other", Name: "web"})
	must.Error(t, err)
	test.Eq(t, 0, uses("promptflow.local/environment/default:latest"))
	test.Eq(t, 1, released, test.Sprint("it had been claimed"))
}

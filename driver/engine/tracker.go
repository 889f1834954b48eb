package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/nomad-promptflow/nomad-promptflow/driver"
)

// tracker counts what a fetch has brought so far, and notices when nothing comes any more.
type tracker struct {
	action string

	mu      sync.Mutex
	begun   time.Time // zero while the fetch waits for others to end
	layers  int       // that the image has; 0 while that is not known
	bytes   int64
	done    int
	present int64                   // bytes of layers that were there already
	came    int64                   // bytes that came
	read    map[digest.Digest]int64 // of each layer
	asking  int                     // questions to the other side that wait for an answer
	heard   time.Time               // when it last said something
}

func newTracker(action string) *tracker {
	return &tracker{action: action, read: map[digest.Digest]int64{}}
}

func (t *tracker) begin() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.begun, t.heard = time.Now(), time.Now()
}

// progress is how far the fetch is.
func (t *tracker) progress() driver.ImageProgress {
	t.mu.Lock()
	defer t.mu.Unlock()
	progress := driver.ImageProgress{
		Stage: driver.FetchGoesOn, Action: t.action, Waiting: t.begun.IsZero(),
		Layers: t.layers, LayersDone: t.done, Bytes: t.bytes, BytesDone: t.present + t.came,
	}
	if !progress.Waiting {
		progress.Took = time.Since(t.begun)
		progress.Speed = int64(float64(t.came) / progress.Took.Seconds())
	}
	return progress
}

// String says how far a fetch was that did not end well.
func (t *tracker) String() string {
	progress := t.progress()
	switch {
	case progress.Waiting:
		return "it still waited for other fetches to end"
	case progress.Layers == 0:
		return fmt.Sprintf("%d bytes had come", progress.BytesDone)
	}
	return fmt.Sprintf("%d of %d layers and %d of %d bytes were here", progress.LayersDone, progress.Layers, progress.BytesDone, progress.Bytes)
}

// ask says that an answer of the other side is waited for, until the returned function is called with how much of it came.
func (t *tracker) ask() (answered func(layer digest.Digest, n int)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.asking == 0 {
		t.heard = time.Now()
	}
	t.asking++
	return func(layer digest.Digest, n int) {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.asking--
		t.heard = time.Now()
		if layer != "" {
			t.came += int64(n)
			t.read[layer] += int64(n)
		}
	}
}

// silence is for how long the other side has said nothing though it was asked.
func (t *tracker) silence() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.asking == 0 {
		return 0
	}
	return time.Since(t.heard)
}

var errSilence = errors.New("nothing came")

// watch cancels a fetch whose other side is silent for longer than limit, and returns when ctx ends.
func (t *tracker) watch(ctx context.Context, limit time.Duration, cancel context.CancelCauseFunc) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		left := limit - t.silence()
		if left <= 0 {
			cancel(fmt.Errorf("%w for %s (pull_activity_timeout), which %w; %s", errSilence, limit, driver.ErrTransient, t))
			return
		}
		timer.Reset(left)
	}
}

// handler counts an image's layers as they are seen, and those that are here.
func (t *tracker) handler(next images.Handler) images.Handler {
	return images.HandlerFunc(func(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		children, err := next.Handle(ctx, desc)
		switch {
		case err != nil:
		case images.IsManifestType(desc.MediaType):
			t.expect(children)
		case images.IsLayerType(desc.MediaType):
			t.landed(desc)
		}
		return children, err
	})
}

func (t *tracker) expect(children []ocispec.Descriptor) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, child := range children {
		if images.IsLayerType(child.MediaType) {
			t.layers++
			t.bytes += child.Size
		}
	}
}

func (t *tracker) landed(layer ocispec.Descriptor) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.done++
	if missing := layer.Size - t.read[layer.Digest]; missing > 0 {
		t.present += missing
	}
}

// resolver is a resolver of which the tracker hears everything.
func (t *tracker) resolver(resolver remotes.Resolver) remotes.Resolver {
	return trackedResolver{Resolver: resolver, tracker: t}
}

type trackedResolver struct {
	remotes.Resolver
	tracker *tracker
}

func (r trackedResolver) Resolve(ctx context.Context, ref string) (string, ocispec.Descriptor, error) {
	answered := r.tracker.ask()
	defer answered("", 0)
	return r.Resolver.Resolve(ctx, ref)
}

func (r trackedResolver) Fetcher(ctx context.Context, ref string) (remotes.Fetcher, error) {
	fetcher, err := r.Resolver.Fetcher(ctx, ref)
	if err != nil {
		return nil, err
	}
	return remotes.FetcherFunc(func(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
		content, err := fetcher.Fetch(ctx, desc)
		if err != nil {
			return nil, err
		}
		tracked := trackedReader{ReadCloser: content, tracker: r.tracker}
		if images.IsLayerType(desc.MediaType) {
			tracked.layer = desc.Digest
		}
		if seeker, ok := content.(io.Seeker); ok {
			return struct {
				trackedReader
				io.Seeker
			}{tracked, seeker}, nil
		}
		return tracked, nil
	}), nil
}

type trackedReader struct {
	io.ReadCloser
	tracker *tracker
	layer   digest.Digest
}

func (r trackedReader) Read(p []byte) (n int, err error) {
	answered := r.tracker.ask()
	defer func() { answered(r.layer, n) }()
	return r.ReadCloser.Read(p)
}

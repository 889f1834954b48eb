package server

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/flow"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/media"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/run"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

const (
	// loadTimeout bounds the loading of a flow, which imports its code.
	loadTimeout = 2 * time.Minute
	// maxLoaded is how many flows keep their workers while idle; each costs at least one process.
	maxLoaded = 16
	// maxTimeout is the longest bound on a line or a node that a submission may ask for.
	maxTimeout = 30 * 24 * time.Hour
)

// flows keeps the bundles that were handed in, in a folder each, and the executors made of them. Bundles beyond the bounds and
// executors beyond maxLoaded go when they have been unused for longest; what is in use stays.
type flows struct {
	config  Config
	dir     string // of unpacked bundles
	scratch string // for workers
	remove  string // what to remove in the end
	life    context.Context
	end     context.CancelFunc
	loading sync.WaitGroup

	mu      sync.Mutex
	workers run.Workers
	bundles map[string]*bundled // by digest
	clock   uint64
	images  *media.Fetcher // nil: not from URLs
	gone    func(digest string, x *run.Executor)
}

// bundled is a bundle on disk.
type bundled struct {
	digest string
	dir    string
	bytes  int64
	used   uint64
	loaded map[string]*loaded // by what they were loaded with
}

// loaded is an executor, or one in the making.
type loaded struct {
	done  chan struct{}
	x     *run.Executor
	err   error
	users int
	used  uint64
}

// lease is the use of an executor.
type lease struct {
	*run.Executor
	name    string
	release func()
}

func newFlows(c Config) (*flows, error) {
	f := &flows{config: c, bundles: map[string]*bundled{}}
	f.life, f.end = context.WithCancel(context.Background())
	if !c.NoImageURLs {
		f.images = media.NewFetcher(media.PrivateAddresses)
	}
	data := c.Data
	if data == "" {
		var err error
		if data, err = os.MkdirTemp("", "promptflow-"); err != nil {
			return nil, fmt.Errorf("make data folder: %w", err)
		}
		f.remove = data
	}
	f.dir, f.scratch = filepath.Join(data, "flows"), filepath.Join(data, "workers")
	for _, dir := range []string{f.dir, f.scratch} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make data folder: %w: set PROMPTFLOW_DATA to a folder that can be written", err)
		}
	}
	return f, f.adopt()
}

// adopt finds the bundles of an earlier life and removes what it left half done.
func (f *flows) adopt() error {
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		return fmt.Errorf("read data folder: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(f.dir, e.Name())
		digest := "sha256:" + e.Name()
		if !isDigest(digest) || !e.IsDir() {
			if err := os.RemoveAll(path); err != nil {
				return fmt.Errorf("clean data folder: %w", err)
			}
			continue
		}
		f.bundles[digest] = &bundled{digest: digest, dir: path, bytes: sizeOf(path), loaded: map[string]*loaded{}}
	}
	return nil
}

func sizeOf(dir string) int64 {
	var total int64
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // what cannot be read is not counted
		}
		if info, err := d.Info(); err == nil {
			total += info.Size()
		}
		return nil
	})
	return total
}

var digestText = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

func isDigest(s string) bool { return digestText.MatchString(s) }

func (f *flows) setWorkers(w run.Workers) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.workers = w
}

// onGone has do called for the flow of every bundle that is removed.
func (f *flows) onGone(do func(digest string, x *run.Executor)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gone = do
}

func (f *flows) theWorkers() run.Workers {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.workers
}

func (f *flows) tick() uint64 {
	f.clock++
	return f.clock
}

// has reports whether a bundle is here, and counts that as a use.
func (f *flows) has(digest string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	b := f.bundles[digest]
	if b != nil {
		b.used = f.tick()
	}
	return b != nil
}

// put unpacks a bundle. It is complete or not there at all.
func (f *flows) put(ctx context.Context, digest string, body io.Reader) error {
	temporary, err := os.MkdirTemp(f.dir, ".new-")
	if err != nil {
		return storeError(err)
	}
	defer os.RemoveAll(temporary)
	unpacked := filepath.Join(temporary, "flow")
	if err := unpack(ctx, body, unpacked, digest, f.config.MaxFlowBytes); err != nil {
		return err
	}
	final := filepath.Join(f.dir, strings.TrimPrefix(digest, "sha256:"))
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.bundles[digest] != nil {
		return nil // somebody else was faster
	}
	if err := os.Rename(unpacked, final); err != nil {
		return storeError(err)
	}
	f.bundles[digest] = &bundled{digest: digest, dir: final, bytes: sizeOf(final), used: f.tick(), loaded: map[string]*loaded{}}
	f.evict()
	return nil
}

func storeError(err error) error {
	return fault([]string{"StorageError"}, http.StatusInsufficientStorage, "The flow could not be stored: %v. Please free space in the runtime's data folder.", err)
}

// evict removes bundles beyond the bounds. f.mu is held.
func (f *flows) evict() {
	byUse := slices.SortedFunc(maps.Values(f.bundles), func(a, b *bundled) int { return cmp.Compare(a.used, b.used) })
	var total int64
	for _, b := range byUse {
		total += b.bytes
	}
	count := len(byUse)
	for _, b := range byUse[:max(0, len(byUse)-1)] { // the newest stays
		if count <= f.config.MaxFlows && total <= f.config.MaxFlowBytes {
			return
		}
		if b.inUse() {
			continue
		}
		count--
		total -= b.bytes
		delete(f.bundles, b.digest)
		for _, l := range b.loaded {
			if l.x != nil && f.gone != nil {
				f.gone(b.digest, l.x)
			}
		}
		f.loading.Go(func() {
			b.close()
			_ = os.RemoveAll(b.dir)
		})
	}
}

func (b *bundled) inUse() bool {
	for _, l := range b.loaded {
		if l.users > 0 {
			return true
		}
	}
	return false
}

func (b *bundled) close() {
	for _, l := range b.loaded {
		if l.x != nil {
			l.x.Close()
		}
	}
}

// folder returns the folder of a bundle.
func (f *flows) folder(digest string) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	b := f.bundles[digest]
	if b == nil {
		return "", flowMissing(digest)
	}
	b.used = f.tick()
	return b.dir, nil
}

func flowMissing(digest string) error {
	return fault([]string{"FlowNotFound"}, http.StatusFailedDependency, "The flow %s is not on this instance. Please hand it in with PUT /v1/flows/%s and send the submission again.", digest, digest)
}

// get returns the executor of the bundle that a submission names, of all nodes or of one, loading it first where needed.
func (f *flows) get(ctx context.Context, request *api.RunRequest) (*lease, error) {
	digest := request.Flow
	c := run.Config{
		Digest: digest, Flow: flow.Options{File: request.FlowFile, Variant: request.Variant}, Environment: run.Overwriting(request.EnvironmentVariables),
		Node: request.Node,
	}
	if len(request.Init) > 0 {
		var err error
		if c.Init, err = value.DecodeDict(request.Init); err != nil {
			return nil, badRun("has an 'init' that is no object")
		}
	}
	f.mu.Lock()
	b := f.bundles[digest]
	if b == nil {
		f.mu.Unlock()
		return nil, flowMissing(digest)
	}
	b.used = f.tick()
	c.Dir = b.dir
	l := f.enter(b, loadKey(request), c)
	f.mu.Unlock()
	return f.wait(ctx, l, digest)
}

// serve loads the flow of a folder or a bundle file for good.
func (f *flows) serve(ctx context.Context, path string) (*lease, error) {
	dir, name, err := f.place(ctx, path)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	b := f.bundles[name]
	if b == nil {
		b = &bundled{digest: name, dir: dir, loaded: map[string]*loaded{}}
	}
	b.used = f.tick()
	l := f.enter(b, "served", run.Config{Digest: name, Dir: dir, Environment: run.Filling(os.LookupEnv), Init: f.config.Init, Serving: true})
	f.mu.Unlock()
	return f.wait(ctx, l, name)
}

// loadKey names what a submission has its flow loaded with.
func loadKey(r *api.RunRequest) string {
	if len(r.EnvironmentVariables) == 0 && r.FlowFile == "" && r.Variant == "" && r.Node == "" && len(r.Init) == 0 {
		return ""
	}
	h := sha256.New()
	h.Write(value.Encode([]any{r.FlowFile, r.Variant, r.Node, string(r.Init)}))
	for _, name := range slices.Sorted(maps.Keys(r.EnvironmentVariables)) {
		h.Write(value.Encode([]any{name, r.EnvironmentVariables[name]}))
	}
	return hex.EncodeToString(h.Sum(nil))
}

// enter counts a user of an executor and starts to load it when it is not there. f.mu is held.
func (f *flows) enter(b *bundled, key string, c run.Config) *loaded {
	l := b.loaded[key]
	if l == nil {
		l = &loaded{done: make(chan struct{})}
		b.loaded[key] = l
		c.Workers, c.Logger, c.ConnectionsFile, c.LineTimeout = f.workers, f.config.Logger, f.config.Connections, f.config.LineTimeout
		c.NodeTimeout, c.Images = f.config.NodeTimeout, f.images
		f.loading.Go(func() { f.load(b, key, l, c) })
		f.retire()
	}
	l.users++
	l.used = f.tick()
	return l
}

// load loads for everybody who waits, so none of them can end it by going away.
func (f *flows) load(b *bundled, key string, l *loaded, c run.Config) {
	ctx, cancel := context.WithTimeout(f.life, loadTimeout)
	defer cancel()
	x, err := run.Load(ctx, c)
	f.mu.Lock()
	defer f.mu.Unlock()
	l.x, l.err = x, err
	if err != nil && b.loaded[key] == l {
		delete(b.loaded, key) // the next submission tries again
	}
	close(l.done)
}

// retire closes executors that nobody uses beyond maxLoaded. f.mu is held.
func (f *flows) retire() {
	type idle struct {
		b   *bundled
		key string
		l   *loaded
	}
	var all []idle
	total := 0
	for _, b := range f.bundles {
		for key, l := range b.loaded {
			total++
			if l.users == 0 && l.x != nil {
				all = append(all, idle{b, key, l})
			}
		}
	}
	slices.SortFunc(all, func(a, b idle) int { return cmp.Compare(a.l.used, b.l.used) })
	for _, i := range all {
		if total <= maxLoaded {
			return
		}
		total--
		delete(i.b.loaded, i.key)
		f.loading.Go(i.l.x.Close)
	}
}

func (f *flows) wait(ctx context.Context, l *loaded, name string) (*lease, error) {
	var once sync.Once
	release := func() {
		once.Do(func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			l.users--
		})
	}
	select {
	case <-l.done:
	case <-ctx.Done():
		release()
		return nil, fault([]string{"RequestCanceled"}, http.StatusServiceUnavailable, "The request was cancelled while its flow was loading.")
	}
	if l.err != nil {
		release()
		return nil, l.err
	}
	return &lease{l.x, name, release}, nil
}

// closeExecutors ends all loading and all executors.
func (f *flows) closeExecutors() {
	f.end()
	f.loading.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, b := range f.bundles {
		b.close()
	}
}

// close removes the data folder if it was made for this life.
func (f *flows) close() {
	f.end()
	f.loading.Wait()
	if f.remove != "" {
		if err := os.RemoveAll(f.remove); err != nil {
			f.config.Logger.Warn("remove data folder", "error", err)
		}
	}
}

// place returns the folder of a flow to serve: the folder itself, or that of the unpacked bundle file.
func (f *flows) place(ctx context.Context, path string) (dir, name string, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", "", fmt.Errorf("%w: name a flow folder or a bundle file with PROMPTFLOW_FLOW", err)
	}
	if info.IsDir() {
		dir, err := filepath.Abs(path)
		return dir, path, err
	}
	digest, err := digestOf(ctx, path)
	if err != nil {
		return "", "", err
	}
	if !f.has(digest) {
		file, err := os.Open(path)
		if err != nil {
			return "", "", err
		}
		defer file.Close()
		if err := f.put(ctx, digest, file); err != nil {
			return "", "", err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.bundles[digest].dir, digest, nil
}

package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/nomad-promptflow/nomad-promptflow/driver"
)

// EnsureImage returns the image when it is in the image store and unpacked, and brings it there otherwise. However many
// tasks ask for an image at once, it is fetched once.
func (e *Engine) EnsureImage(ctx context.Context, request driver.ImageRequest) (*driver.Image, error) {
	ctx = e.namespaced(ctx)
	plan, err := e.plan(ctx, request)
	if err != nil {
		return nil, err
	}
	if plan.image != nil {
		return plan.image, nil
	}
	return e.fetchOnce(ctx, request, plan)
}

// fetchPlan says what has to be done for an image: nothing when image is set, else action.
type fetchPlan struct {
	image  *driver.Image
	action string // "import", "pull" or "unpack"
	name   string // in the image store
	desc   ocispec.Descriptor
	stored containerd.Image // for "unpack"
}

func (e *Engine) plan(ctx context.Context, request driver.ImageRequest) (fetchPlan, error) {
	stored, err := e.stored(ctx, request.Name)
	if err != nil {
		return fetchPlan{}, err
	}
	if request.Source != nil {
		return e.planImport(ctx, request, stored)
	}
	return e.planPull(ctx, request, stored)
}

// planImport compares what is in the image store with what the source has. A source that fails is no reason not to
// use what is there.
func (e *Engine) planImport(ctx context.Context, request driver.ImageRequest, stored containerd.Image) (fetchPlan, error) {
	if stored != nil && request.Policy == driver.PullNever {
		return e.planStored(ctx, stored)
	}
	desc, err := request.Source.Resolve(ctx, request.Ref)
	switch {
	case err != nil && stored != nil:
		e.logger.Debug("using stored image, its source does not have it", "image", request.Name, "error", err)
		return e.planStored(ctx, stored)
	case err != nil:
		return fetchPlan{}, err
	case stored != nil && stored.Target().Digest == desc.Digest:
		plan, err := e.planStored(ctx, stored)
		if err == nil && plan.image != nil {
			return plan, nil
		}
	}
	return fetchPlan{action: "import", name: request.Name, desc: desc}, nil
}

func (e *Engine) planPull(ctx context.Context, request driver.ImageRequest, stored containerd.Image) (fetchPlan, error) {
	name, err := normalName(request.Name)
	if err != nil {
		return fetchPlan{}, err
	}
	if stored == nil && name != request.Name {
		if stored, err = e.stored(ctx, name); err != nil {
			return fetchPlan{}, err
		}
	}
	switch {
	case stored != nil && request.Policy != driver.PullAlways:
		return e.planStored(ctx, stored)
	case request.Policy == driver.PullNever:
		return fetchPlan{}, fmt.Errorf("%w in containerd, and image_pull_policy is %s", driver.ErrNoImage, driver.PullNever)
	}
	return fetchPlan{action: "pull", name: name}, nil
}

// planStored uses an image of the store, once it is unpacked.
func (e *Engine) planStored(ctx context.Context, stored containerd.Image) (fetchPlan, error) {
	ready, unpacked, err := e.describe(ctx, stored)
	if err != nil {
		return fetchPlan{}, err
	}
	if unpacked {
		return fetchPlan{image: ready}, nil
	}
	return fetchPlan{action: "unpack", name: stored.Name(), desc: stored.Target(), stored: stored}, nil
}

// normalName is a reference as containerd's own tools store it: "busybox" is "docker.io/library/busybox:latest".
func normalName(name string) (string, error) {
	named, err := reference.ParseDockerRef(name)
	if err != nil {
		return "", fmt.Errorf("image %q: not an image reference: %w", name, err)
	}
	return named.String(), nil
}

// stored is the image of that name in the store, or nil.
func (e *Engine) stored(ctx context.Context, name string) (containerd.Image, error) {
	record, err := e.client.ImageService().Get(ctx, name)
	if errdefs.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for image %s: %w", name, explain(err))
	}
	return containerd.NewImage(e.client, record), nil
}

// ImageDigest is the digest of a stored image.
func (e *Engine) ImageDigest(ctx context.Context, name string) (string, error) {
	stored, err := e.stored(e.namespaced(ctx), name)
	if err != nil {
		return "", err
	}
	if stored == nil {
		return "", fmt.Errorf("%w in containerd: %s", driver.ErrNoImage, name)
	}
	return stored.Target().Digest.String(), nil
}

// fetched is what a fetch brought.
type fetched struct {
	image  *driver.Image
	layers int
	bytes  int64
}

// fetchOnce carries the plan out, or waits for whoever already does.
func (e *Engine) fetchOnce(ctx context.Context, request driver.ImageRequest, plan fetchPlan) (*driver.Image, error) {
	report := request.Progress
	if report == nil {
		report = func(driver.ImageProgress) {}
	}
	progress := driver.ImageProgress{Action: plan.action, Digest: plan.desc.Digest.String()}
	report(progress)
	began := time.Now()
	result := e.fetching.DoChan(plan.name+" "+progress.Digest, func() (any, error) {
		return e.fetch(ctx, request.Source, plan)
	})
	select {
	case <-ctx.Done():
		return nil, fmt.Errorf("%s image %s: %w", plan.action, plan.name, ctx.Err())
	case outcome := <-result:
		if outcome.Err != nil {
			return nil, fmt.Errorf("%s image %s: %w", plan.action, plan.name, outcome.Err)
		}
		done := outcome.Val.(fetched)
		progress.Done, progress.Took = true, time.Since(began)
		progress.Digest, progress.Layers, progress.Bytes = done.image.Digest, done.layers, done.bytes
		report(progress)
		return done.image, nil
	}
}

// fetch works within the first asker's bound, but does not end when that one goes away: others may wait too.
func (e *Engine) fetch(asker context.Context, source driver.ImageSource, plan fetchPlan) (fetched, error) {
	e.work.Add(1)
	defer e.work.Done()
	ctx, cancel := context.WithCancel(context.WithoutCancel(asker))
	defer cancel()
	if deadline, ok := asker.Deadline(); ok {
		ctx, cancel = context.WithDeadline(ctx, deadline)
		defer cancel()
	}
	defer context.AfterFunc(e.life, cancel)() //nolint:contextcheck // the end of the engine ends the fetch too
	if err := e.fetches.Acquire(ctx, 1); err != nil {
		return fetched{}, err
	}
	defer e.fetches.Release(1)

	stored, err := e.carryOut(ctx, source, plan)
	if err != nil {
		return fetched{}, e.explainFetch(ctx, err)
	}
	return e.describeFetched(ctx, stored)
}

func (e *Engine) carryOut(ctx context.Context, source driver.ImageSource, plan fetchPlan) (containerd.Image, error) {
	switch plan.action {
	case "unpack":
		return plan.stored, e.leased(ctx, func(ctx context.Context) error {
			return plan.stored.Unpack(ctx, e.config.Snapshotter)
		})
	case "import":
		return e.pull(ctx, plan.name, layoutResolver{source: source, name: plan.name, desc: plan.desc})
	default:
		return e.pull(ctx, plan.name, registryResolver())
	}
}

// describeFetched also counts what the image is made of.
func (e *Engine) describeFetched(ctx context.Context, stored containerd.Image) (fetched, error) {
	ready, unpacked, err := e.describe(ctx, stored)
	if err != nil {
		return fetched{}, err
	}
	if !unpacked {
		return fetched{}, errors.New("containerd says it is done, but the image is not unpacked")
	}
	manifest, err := images.Manifest(ctx, e.client.ContentStore(), stored.Target(), platforms.Default())
	if err != nil {
		return fetched{}, fmt.Errorf("read manifest: %w", explain(err))
	}
	result := fetched{image: ready, layers: len(manifest.Layers), bytes: manifest.Config.Size}
	for _, layer := range manifest.Layers {
		result.bytes += layer.Size
	}
	return result, nil
}

// describe reads an image's configuration, and says whether the image is unpacked.
func (e *Engine) describe(ctx context.Context, stored containerd.Image) (ready *driver.Image, unpacked bool, err error) {
	known, ok := e.images.get(stored.Target().Digest)
	if !ok {
		if known, err = readImage(ctx, stored); err != nil {
			return nil, false, err
		}
		e.images.put(stored.Target().Digest, known)
	}
	ready = &driver.Image{
		Name: stored.Name(), Digest: stored.Target().Digest.String(), Config: known.config, RootFS: known.rootFS,
	}
	_, err = e.client.SnapshotService(e.config.Snapshotter).Stat(ctx, known.rootFS)
	if errdefs.IsNotFound(err) {
		return ready, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("look for unpacked image %s: %w", stored.Name(), explain(err))
	}
	return ready, true, nil
}

func readImage(ctx context.Context, stored containerd.Image) (imageFacts, error) {
	desc, err := stored.Config(ctx)
	if err != nil {
		return imageFacts{}, explainMissing(stored.Name(), err)
	}
	raw, err := content.ReadBlob(ctx, stored.ContentStore(), desc)
	if err != nil {
		return imageFacts{}, explainMissing(stored.Name(), err)
	}
	var image ocispec.Image
	if err := json.Unmarshal(raw, &image); err != nil {
		return imageFacts{}, fmt.Errorf("read configuration of image %s: %w", stored.Name(), err)
	}
	return imageFacts{config: image.Config, rootFS: identity.ChainID(image.RootFS.DiffIDs).String()}, nil
}

// explainMissing is for a stored image that is not whole, or is for other machines.
func explainMissing(name string, err error) error {
	if errdefs.IsNotFound(err) {
		return fmt.Errorf("image %s: %w for %s: %w", name, driver.ErrNoImage, platforms.DefaultString(), err)
	}
	return fmt.Errorf("read image %s: %w", name, explain(err))
}

// imageFacts are what never changes of an image digest.
type imageFacts struct {
	config ocispec.ImageConfig
	rootFS string
}

// maxCachedImages bounds the cache; a node runs far fewer.
const maxCachedImages = 256

// imageCache saves reading an image's manifest and configuration at every start.
type imageCache struct {
	mu    sync.Mutex
	known map[digest.Digest]imageFacts
}

func (c *imageCache) get(d digest.Digest) (imageFacts, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	facts, ok := c.known[d]
	return facts, ok
}

func (c *imageCache) put(d digest.Digest, facts imageFacts) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil || len(c.known) >= maxCachedImages {
		c.known = map[digest.Digest]imageFacts{}
	}
	c.known[d] = facts
}

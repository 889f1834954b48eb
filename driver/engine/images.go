package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/nomad-promptflow/nomad-promptflow/driver"
	"github.com/nomad-promptflow/nomad-promptflow/driver/registry"
)

// EnsureImage returns the image when it is in the image store and unpacked, and brings it there otherwise. However many
// tasks ask for an image at once, it is fetched once.
func (e *Engine) EnsureImage(ctx context.Context, request driver.ImageRequest) (*driver.Image, error) {
	ctx = e.namespaced(ctx)
	if request.Claim == nil {
		request.Claim = func(string) {}
	}
	if request.Progress == nil {
		request.Progress = func(driver.ImageProgress) {}
	}
	wanted, err := parsePlatform(request.Platform)
	if err != nil {
		return nil, err
	}
	if request.Archive != nil {
		return e.fetchOnce(ctx, request, fetchPlan{action: actionLoad, name: request.Archive.Name, platform: wanted})
	}
	plan, err := e.plan(ctx, request, wanted)
	if err != nil {
		return nil, err
	}
	if plan.image != nil {
		return plan.image, nil
	}
	return e.fetchOnce(ctx, request, plan)
}

// What has to be done for an image that is not ready.
const (
	actionImport = "import"
	actionPull   = "pull"
	actionUnpack = "unpack"
	actionLoad   = "load"
)

// fetchPlan says what has to be done for an image: nothing when image is set, else action.
type fetchPlan struct {
	image    *driver.Image
	action   string
	name     string // in the image store
	ref      string // for "pull": what the registry is asked for
	platform platform
	desc     ocispec.Descriptor
	stored   containerd.Image // what the store has by that name, if anything
}

// what is the name by which the plan's image is known to whoever asked for it.
func (p fetchPlan) what() string {
	if p.ref != "" {
		return p.ref
	}
	return p.name
}

// replaced is the stored image whose name the plan's image takes, if there is one.
func (p fetchPlan) replaced() containerd.Image {
	if p.stored != nil && p.stored.Name() == p.name {
		return p.stored
	}
	return nil
}

func (e *Engine) plan(ctx context.Context, request driver.ImageRequest, wanted platform) (fetchPlan, error) {
	if request.Source != nil {
		return e.planEnvironment(ctx, request, wanted)
	}
	name, err := normalName(request.Name)
	if err != nil {
		return fetchPlan{}, err
	}
	request.Claim(name)
	stored, err := e.stored(ctx, name, wanted)
	if err == nil && stored == nil && name != request.Name {
		// Other tools may have stored it as it was written.
		stored, err = e.stored(ctx, request.Name, wanted)
	}
	if err != nil {
		return fetchPlan{}, err
	}
	return e.planPull(ctx, request, fetchPlan{name: name, ref: name, platform: wanted, stored: stored})
}

// planEnvironment compares what is in the image store with what the source has. A source that fails is no reason not to
// use what is there; one that does not have it sends us to the registry, if there is one.
func (e *Engine) planEnvironment(ctx context.Context, request driver.ImageRequest, wanted platform) (fetchPlan, error) {
	request.Claim(request.Name)
	stored, err := e.stored(ctx, request.Name, wanted)
	if err != nil {
		return fetchPlan{}, err
	}
	plan := fetchPlan{name: request.Name, platform: wanted, stored: stored}
	if stored != nil && request.Policy == driver.PullNever {
		return e.planStored(ctx, plan)
	}
	desc, err := request.Source.Resolve(ctx, request.Ref)
	switch {
	case errors.Is(err, driver.ErrNoImage) && request.Registry != "":
		plan.ref = request.Registry
		return e.planPull(ctx, request, plan)
	case err != nil && stored != nil:
		e.logger.Debug("using stored image, its source does not have it", "image", request.Name, "error", err)
		return e.planStored(ctx, plan)
	case err != nil:
		return fetchPlan{}, err
	case stored != nil && stored.Target().Digest == desc.Digest:
		if ready, err := e.planStored(ctx, plan); err == nil && ready.image != nil {
			return ready, nil
		}
	}
	plan.action, plan.desc = actionImport, desc
	return plan, nil
}

// planPull goes by the pull policy. What is stored does not count when it is not whole, or is for another platform: what the
// registry has may be more.
func (e *Engine) planPull(ctx context.Context, request driver.ImageRequest, plan fetchPlan) (fetchPlan, error) {
	if plan.stored != nil && request.Policy != driver.PullAlways {
		ready, err := e.planStored(ctx, plan)
		if err == nil || request.Policy == driver.PullNever || !isIncomplete(err) {
			return ready, err
		}
	}
	if request.Policy == driver.PullNever {
		return fetchPlan{}, fmt.Errorf("%w in containerd, and image_pull_policy is %s", driver.ErrNoImage, driver.PullNever)
	}
	plan.action = actionPull
	return plan, nil
}

// planStored uses an image of the store, once it is unpacked.
func (e *Engine) planStored(ctx context.Context, plan fetchPlan) (fetchPlan, error) {
	ready, unpacked, err := e.describe(ctx, plan.stored, plan.platform)
	if err != nil {
		return fetchPlan{}, err
	}
	if unpacked {
		plan.image = ready
		return plan, nil
	}
	plan.action, plan.name, plan.ref, plan.desc = actionUnpack, plan.stored.Name(), "", plan.stored.Target()
	return plan, nil
}

// isIncomplete is for a stored image that lacks what is wanted of it.
func isIncomplete(err error) bool {
	var other otherPlatformError
	return errors.Is(err, driver.ErrNoImage) || errors.As(err, &other)
}

// normalName is a reference as containerd's own tools store it: "busybox" is "docker.io/library/busybox:latest". Docker's users
// on Nomad may write https:// before it.
func normalName(name string) (string, error) {
	named, err := reference.ParseDockerRef(registry.TrimScheme(name))
	if err != nil {
		return "", fmt.Errorf("image %q: not an image reference: %w", name, err)
	}
	return named.String(), nil
}

// stored is the image of that name in the store, or nil.
func (e *Engine) stored(ctx context.Context, name string, wanted platform) (containerd.Image, error) {
	record, err := e.client.ImageService().Get(ctx, name)
	if errdefs.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for image %s: %w", name, explain(err))
	}
	return containerd.NewImageWithPlatform(e.client, record, wanted.matcher), nil
}

// ImageDigest is the digest of a stored image.
func (e *Engine) ImageDigest(ctx context.Context, name string) (string, error) {
	stored, err := e.stored(e.namespaced(ctx), name, hostPlatform())
	if err != nil {
		return "", err
	}
	if stored == nil {
		return "", fmt.Errorf("%w in containerd: %s", driver.ErrNoImage, name)
	}
	return stored.Target().Digest.String(), nil
}

// describe reads an image's configuration, and says whether the image is unpacked.
func (e *Engine) describe(ctx context.Context, stored containerd.Image, wanted platform) (ready *driver.Image, unpacked bool, err error) {
	key := imageKey{digest: stored.Target().Digest, platform: wanted.text}
	known, ok := e.images.get(key)
	if !ok {
		if known, err = e.readImage(ctx, stored, wanted); err != nil {
			return nil, false, err
		}
		e.images.put(key, known)
	}
	ready = &driver.Image{
		Name: stored.Name(), Digest: stored.Target().Digest.String(), Config: known.config, RootFS: known.rootFS,
		Platform: known.platform, Foreign: known.foreign,
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

func (e *Engine) readImage(ctx context.Context, stored containerd.Image, wanted platform) (imageFacts, error) {
	desc, err := stored.Config(ctx)
	if err != nil {
		if other := e.otherPlatform(ctx, stored.Target(), wanted); other != nil {
			return imageFacts{}, other
		}
		return imageFacts{}, explainMissing(stored.Name(), wanted, err)
	}
	raw, err := content.ReadBlob(ctx, stored.ContentStore(), desc)
	if err != nil {
		return imageFacts{}, explainMissing(stored.Name(), wanted, err)
	}
	var image ocispec.Image
	if err := json.Unmarshal(raw, &image); err != nil {
		return imageFacts{}, fmt.Errorf("read configuration of image %s: %w", stored.Name(), err)
	}
	if err := wanted.check(image.Platform); err != nil {
		return imageFacts{}, err
	}
	return imageFacts{
		config: image.Config, rootFS: identity.ChainID(image.RootFS.DiffIDs).String(),
		platform: formatPlatform(image.Platform), foreign: hostPlatform().check(image.Platform) != nil,
	}, nil
}

// explainMissing is for a stored image that is not whole.
func explainMissing(name string, wanted platform, err error) error {
	if errdefs.IsNotFound(err) {
		return fmt.Errorf("image %s: %w for %s: %w", name, driver.ErrNoImage, wanted, err)
	}
	return fmt.Errorf("read image %s: %w", name, explain(err))
}

// describeFetched also counts what the image is made of.
func (e *Engine) describeFetched(ctx context.Context, stored containerd.Image, wanted platform) (fetched, error) {
	ready, unpacked, err := e.describe(ctx, stored, wanted)
	if err != nil {
		return fetched{}, err
	}
	if !unpacked {
		return fetched{}, errors.New("containerd says it is done, but the image is not unpacked")
	}
	manifest, err := images.Manifest(ctx, e.client.ContentStore(), stored.Target(), wanted.matcher)
	if err != nil {
		return fetched{}, fmt.Errorf("read manifest: %w", explain(err))
	}
	result := fetched{image: ready, layers: len(manifest.Layers), bytes: manifest.Config.Size}
	for _, layer := range manifest.Layers {
		result.bytes += layer.Size
	}
	return result, nil
}

// imageFacts are what never changes of an image digest.
type imageFacts struct {
	config   ocispec.ImageConfig
	rootFS   string
	platform string
	foreign  bool
}

// imageKey names an image for one platform.
type imageKey struct {
	digest   digest.Digest
	platform string
}

// maxCachedImages bounds the cache; a node runs far fewer.
const maxCachedImages = 256

// imageCache saves reading an image's manifest and configuration at every start.
type imageCache struct {
	mu    sync.Mutex
	known map[imageKey]imageFacts
}

func (c *imageCache) get(key imageKey) (imageFacts, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	facts, ok := c.known[key]
	return facts, ok
}

func (c *imageCache) put(key imageKey, facts imageFacts) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil || len(c.known) >= maxCachedImages {
		c.known = map[imageKey]imageFacts{}
	}
	c.known[key] = facts
}

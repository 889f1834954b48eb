package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"syscall"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/nomad-promptflow/nomad-promptflow/driver"
	"github.com/nomad-promptflow/nomad-promptflow/driver/registry"
	"github.com/nomad-promptflow/nomad-promptflow/store"
)

// leaseExpiration is when containerd may collect what a fetch brought whose plugin died over it.
const leaseExpiration = time.Hour

// fetch carries a plan out, and says of a failure whether trying again may help.
func (e *Engine) fetch(ctx context.Context, request driver.ImageRequest, plan fetchPlan, tracker *tracker) (fetched, error) {
	if err := e.fetches.Acquire(ctx, 1); err != nil {
		return fetched{}, err
	}
	defer e.fetches.Release(1)
	tracker.begin()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	e.work.Go(func() { tracker.watch(ctx, e.config.ActivityTimeout, cancel) })

	stored, err := e.carryOut(ctx, request, plan, tracker)
	if err != nil {
		return fetched{}, e.explainFetch(ctx, plan, err)
	}
	return e.describeFetched(ctx, stored, plan.platform)
}

func (e *Engine) carryOut(
	ctx context.Context, request driver.ImageRequest, plan fetchPlan, tracker *tracker,
) (containerd.Image, error) {
	switch plan.action {
	case actionLoad:
		return e.load(ctx, request, plan, tracker)
	case actionUnpack:
		return plan.stored, e.leased(ctx, func(ctx context.Context) error {
			return plan.stored.Unpack(ctx, e.config.Snapshotter)
		})
	case actionImport:
		return e.pull(ctx, plan, tracker, layoutResolver{source: request.Source, name: plan.name, desc: plan.desc})
	default:
		return e.pullFromRegistry(ctx, request, plan, tracker)
	}
}

func (e *Engine) pullFromRegistry(
	ctx context.Context, request driver.ImageRequest, plan fetchPlan, tracker *tracker,
) (containerd.Image, error) {
	host, err := registry.HostOf(plan.ref)
	if err != nil {
		return nil, err
	}
	credentials, err := e.registries.Credentials(request.Auth, host, func(err error) {
		e.logger.Warn("going on without credentials", "image", plan.ref, "error", err)
	})
	if err != nil {
		return nil, err
	}
	resolver, err := e.registries.Resolver(ctx, plan.ref, credentials)
	if err != nil {
		return nil, err
	}
	defer resolver.Close()
	return e.pull(ctx, plan, tracker, namedResolver{Resolver: resolver, name: plan.name, ref: plan.ref})
}

// pull brings an image and unpacks it. Content and layers that are there are not fetched again. The image gets its name
// last, so that there is never half of one.
func (e *Engine) pull(ctx context.Context, plan fetchPlan, tracker *tracker, resolver remotes.Resolver) (containerd.Image, error) {
	var pulled containerd.Image
	err := e.leased(ctx, func(ctx context.Context) error {
		var err error
		pulled, err = e.client.Pull(ctx, plan.name,
			containerd.WithResolver(tracker.resolver(resolver)),
			containerd.WithPlatformMatcher(plan.platform.matcher),
			containerd.WithImageHandlerWrapper(func(next images.Handler) images.Handler {
				return tracker.handler(e.checkPlatform(plan.platform, next))
			}),
			containerd.WithPullLabels(fetchedLabels(plan.replaced())),
			containerd.WithPullUnpack,
			containerd.WithPullSnapshotter(e.config.Snapshotter),
		)
		return err
	})
	return pulled, err
}

// namedResolver pulls from a registry under a name of our own.
type namedResolver struct {
	*registry.Resolver
	name, ref string
}

func (r namedResolver) Resolve(ctx context.Context, _ string) (string, ocispec.Descriptor, error) {
	_, desc, err := r.Resolver.Resolve(ctx, r.ref)
	return r.name, desc, err
}

func (r namedResolver) Fetcher(ctx context.Context, _ string) (remotes.Fetcher, error) {
	return r.Resolver.Fetcher(ctx, r.ref)
}

// leased keeps containerd from collecting what do makes before something refers to it. After a failure all of that is gone
// when leased returns.
func (e *Engine) leased(ctx context.Context, do func(context.Context) error) (err error) {
	service := e.client.LeasesService()
	lease, err := service.Create(ctx, leases.WithRandomID(), leases.WithExpiration(leaseExpiration))
	if err != nil {
		return fmt.Errorf("make lease: %w", err)
	}
	defer func() {
		ctx, cancel := e.cleanup(ctx)
		defer cancel()
		var options []leases.DeleteOpt
		if err != nil {
			options = append(options, leases.SynchronousDelete)
		}
		if failed := ignoreAbsent(service.Delete(ctx, lease, options...)); failed != nil {
			e.logger.Warn("cannot delete lease, it expires by itself", "lease", lease.ID, "error", failed)
		}
	}()
	return do(leases.WithLease(ctx, lease.ID))
}

// layoutResolver lets containerd's client pull from an image source as from a registry.
type layoutResolver struct {
	source driver.ImageSource
	name   string
	desc   ocispec.Descriptor
}

func (r layoutResolver) Resolve(context.Context, string) (string, ocispec.Descriptor, error) {
	return r.name, r.desc, nil
}

func (r layoutResolver) Fetcher(context.Context, string) (remotes.Fetcher, error) {
	return remotes.FetcherFunc(func(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
		return r.source.Fetch(ctx, desc)
	}), nil
}

func (r layoutResolver) Pusher(context.Context, string) (remotes.Pusher, error) {
	return nil, errors.New("an image source cannot be pushed to")
}

// explainFetch says of a failed fetch whether trying again may help. What a registry refuses stays refused; what the network
// did may pass, and so may content that is not what its digest says: each download is checked, and another may be whole.
func (e *Engine) explainFetch(ctx context.Context, plan fetchPlan, err error) error {
	var other otherPlatformError
	var atRegistry *registry.Error
	switch {
	case errors.Is(context.Cause(ctx), errSilence):
		return context.Cause(ctx)
	case isDiskFull(err):
		ctx, cancel := e.cleanup(ctx)
		defer cancel()
		return e.explainDiskFull(ctx, err)
	case errors.Is(err, driver.ErrNoImage), errors.As(err, &other):
		return err
	case errors.As(err, &atRegistry) && errors.Is(err, registry.ErrNotFound):
		return fmt.Errorf("%w: %w", driver.ErrNoImage, atRegistry)
	case errors.As(err, &atRegistry):
		// Where in the client it came up is of no interest to anybody.
		return atRegistry
	case plan.action == actionPull && isCorrupt(err):
		return fmt.Errorf("what came is not what was asked for, as when a transfer or a proxy breaks it, which %w; if it comes again the "+
			"image is broken in the registry and has to be pushed anew: %w", driver.ErrTransient, err)
	case isDaemonGone(err):
		return fmt.Errorf("%w: %w", driver.ErrUnavailable, err)
	case errors.Is(err, errBadArchive):
		return err
	case isBroken(err):
		return fmt.Errorf("the image itself is broken, build or publish it anew: %w", err)
	}
	return explain(err)
}

// isDaemonGone is for a daemon that ended in the middle of something. A stream to it then just ends, which the client tells by
// its text only.
func isDaemonGone(err error) bool {
	return errdefs.IsUnavailable(err) || strings.Contains(err.Error(), "failed to send write: EOF")
}

// isCorrupt is for content that does not have the digest or the size that it was asked for by.
func isCorrupt(err error) bool {
	return errors.Is(err, io.ErrUnexpectedEOF) || containsAny(err.Error(),
		"unexpected commit digest", "unexpected commit size", "exceeds expected size")
}

func containsAny(text string, parts ...string) bool {
	return slices.ContainsFunc(parts, func(part string) bool { return strings.Contains(text, part) })
}

// isBroken is for an image whose layers are not what it says itself, or nothing that can be unpacked, which containerd tells by
// its text only.
func isBroken(err error) bool {
	text := err.Error()
	return errors.Is(err, store.ErrCorrupt) || containsAny(text, "wrong diff id", "number of layers and diffIDs don't match") ||
		(containsAny(text, "failed to extract layer", "apply layer error") &&
			containsAny(text, "unexpected EOF", "gzip:", "zstd", "magic number", "archive/tar:", "invalid"))
}

// isDiskFull also knows the error by its text, which is all that comes from the daemon.
func isDiskFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || containsAny(err.Error(), "no space left on device", "disk quota exceeded")
}

// explainDiskFull says which folder has no room.
func (e *Engine) explainDiskFull(ctx context.Context, err error) error {
	folders := map[string]string{}
	for kind, id := range map[string]string{
		plugins.ContentPlugin.String():  "content",
		plugins.SnapshotPlugin.String(): e.config.Snapshotter,
	} {
		if root, err := e.pluginRoot(ctx, kind, id); err == nil && root != "" {
			folders[kind] = root
		}
	}
	folder := folders[plugins.SnapshotPlugin.String()]
	if strings.Contains(err.Error(), "ingest") || folder == "" {
		folder = folders[plugins.ContentPlugin.String()]
	}
	if folder == "" {
		folder = "containerd's data folder"
	}
	return fmt.Errorf("the disk that holds %s is full: make room there and start the task again: %w", folder, err)
}

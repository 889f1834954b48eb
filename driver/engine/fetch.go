package engine

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/nomad-promptflow/nomad-promptflow/driver"
)

// leaseExpiration is when containerd may collect what a fetch brought whose plugin died over it.
const leaseExpiration = time.Hour

// pull brings an image and unpacks it. Content and layers that are there are not fetched again. The image gets its name
// last, so that there is never half of one.
func (e *Engine) pull(ctx context.Context, name string, resolver remotes.Resolver) (containerd.Image, error) {
	var pulled containerd.Image
	err := e.leased(ctx, func(ctx context.Context) error {
		var err error
		pulled, err = e.client.Pull(ctx, name,
			containerd.WithResolver(resolver),
			containerd.WithPlatformMatcher(platforms.Default()),
			containerd.WithPullUnpack,
			containerd.WithPullSnapshotter(e.config.Snapshotter),
		)
		return err
	})
	return pulled, err
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

// registryResolver speaks TLS to registries, and plain HTTP to one on this machine.
func registryResolver() remotes.Resolver {
	return docker.NewResolver(docker.ResolverOptions{
		Hosts: docker.ConfigureDefaultRegistries(docker.WithPlainHTTP(docker.MatchLocalhost)),
	})
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
// did may pass.
func (e *Engine) explainFetch(ctx context.Context, err error) error {
	var status remoteerrors.ErrUnexpectedStatus
	var network net.Error
	switch {
	case isDiskFull(err):
		ctx, cancel := e.cleanup(ctx)
		defer cancel()
		return e.explainDiskFull(ctx, err)
	case errors.Is(err, driver.ErrNoImage), isUntrusted(err):
		return err
	case errors.As(err, &status):
		return explainStatus(status.StatusCode, err)
	case errors.Is(err, docker.ErrInvalidAuthorization), errdefs.IsUnauthorized(err), errdefs.IsPermissionDenied(err):
		return fmt.Errorf("the registry refuses access: %w", err)
	case errdefs.IsNotFound(err):
		return fmt.Errorf("%w (for %s): %w", driver.ErrNoImage, platforms.DefaultString(), err)
	case errors.As(err, &network), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNREFUSED),
		errors.Is(err, syscall.ECONNRESET):
		return fmt.Errorf("%w: %w", driver.ErrTransient, err)
	}
	return explain(err)
}

func explainStatus(code int, err error) error {
	switch {
	case code == 401 || code == 403:
		return fmt.Errorf("the registry refuses access: %w", err)
	case code == 404:
		return fmt.Errorf("%w: %w", driver.ErrNoImage, err)
	case code == 429 || code >= 500:
		return fmt.Errorf("%w: %w", driver.ErrTransient, err)
	}
	return err
}

// isUntrusted is for a registry whose certificate is not to be believed, which waiting does not mend.
func isUntrusted(err error) bool {
	var authority x509.UnknownAuthorityError
	var hostname x509.HostnameError
	var invalid x509.CertificateInvalidError
	return errors.As(err, &authority) || errors.As(err, &hostname) || errors.As(err, &invalid)
}

// isDiskFull also knows the error by its text, which is all that comes from the daemon.
func isDiskFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || strings.Contains(err.Error(), "no space left on device") ||
		strings.Contains(err.Error(), "disk quota exceeded")
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

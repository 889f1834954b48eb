package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/semaphore"
)

// Resolver finds and fetches one image. It is a [remotes.Resolver] of containerd's client.
type Resolver struct {
	name      string // of the registry
	endpoints []endpoint
	asked     askedCredentials
}

var _ remotes.Resolver = (*Resolver)(nil)

// HostOf is the registry of an image reference: "docker.io" for "busybox".
func HostOf(ref string) (string, error) {
	named, err := reference.ParseDockerRef(ref)
	if err != nil {
		return "", fmt.Errorf("image %q: not an image reference: %w", ref, err)
	}
	return reference.Domain(named), nil
}

// Resolver returns the resolver for pulling ref, a full reference, with credentials from source. It must be closed.
func (r *Registries) Resolver(ctx context.Context, ref string, source Source) (*Resolver, error) {
	name, err := HostOf(ref)
	if err != nil {
		return nil, err
	}
	endpoints, err := r.endpoints(name)
	if err != nil {
		return nil, err
	}
	resolver := &Resolver{name: name, endpoints: endpoints}
	for i := range endpoints {
		host := &endpoints[i].RegistryHost
		host.Authorizer = docker.NewDockerAuthorizer(docker.WithAuthClient(host.Client),
			docker.WithAuthCreds(resolver.asked.remember(ctx, source)))
	}
	return resolver, nil
}

// Close lets go of the connections.
func (r *Resolver) Close() {
	for _, e := range r.endpoints {
		e.transport.CloseIdleConnections()
	}
}

// Resolve asks one host after the other. When none has the image it is the registry's own answer that counts; what the mirrors
// said is only told.
func (r *Resolver) Resolve(ctx context.Context, ref string) (string, ocispec.Descriptor, error) {
	var mirrors []error
	for _, e := range r.endpoints {
		name, desc, err := e.resolve(ctx, ref)
		if err == nil {
			return name, desc, nil
		}
		if ctx.Err() != nil {
			return "", ocispec.Descriptor{}, err
		}
		err = r.explain(e.Host, err)
		if e.mirror {
			mirrors = append(mirrors, err)
			continue
		}
		var own *Error
		if errors.As(err, &own) {
			own.Mirrors = mirrors
		}
		return "", ocispec.Descriptor{}, err
	}
	return "", ocispec.Descriptor{}, errNoEndpoint
}

func (e endpoint) resolve(ctx context.Context, ref string) (string, ocispec.Descriptor, error) {
	if e.mirror {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, e.patience)
		defer cancel()
	}
	return newDockerResolver(e).Resolve(ctx, ref)
}

func newDockerResolver(endpoints ...endpoint) remotes.Resolver {
	return docker.NewResolver(docker.ResolverOptions{Hosts: func(string) ([]docker.RegistryHost, error) {
		var hosts []docker.RegistryHost
		for _, e := range endpoints {
			hosts = append(hosts, e.RegistryHost)
		}
		return hosts, nil
	}})
}

// maxBlobs is how many of an image's blobs are fetched at once, as in docker.
const maxBlobs = 3

// Fetcher fetches from whichever host has a blob, in the same order.
func (r *Resolver) Fetcher(ctx context.Context, ref string) (remotes.Fetcher, error) {
	fetcher, err := newDockerResolver(r.endpoints...).Fetcher(ctx, ref)
	if err != nil {
		return nil, err
	}
	slots := semaphore.NewWeighted(maxBlobs)
	return remotes.FetcherFunc(func(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
		if err := slots.Acquire(ctx, 1); err != nil {
			return nil, err
		}
		// An image may name other places to get a layer from. What this machine can reach is not for an image to try.
		desc.URLs = nil
		content, err := fetcher.Fetch(ctx, desc)
		if err != nil {
			slots.Release(1)
			return nil, r.explain(r.name, err)
		}
		return newBlob(content, r, sync.OnceFunc(func() { slots.Release(1) })), nil
	}), nil
}

// blob is a blob on its way.
type blob struct {
	io.ReadCloser
	resolver *Resolver
	release  func()
}

// newBlob keeps it possible to go on in the middle, where it is.
func newBlob(content io.ReadCloser, resolver *Resolver, release func()) io.ReadCloser {
	b := blob{ReadCloser: content, resolver: resolver, release: release}
	if seeker, ok := content.(io.Seeker); ok {
		return struct {
			blob
			io.Seeker
		}{b, seeker}
	}
	return b
}

func (b blob) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF { //nolint:errorlint // an EOF in something else is a connection that broke
		err = b.resolver.explain(b.resolver.name, err)
	}
	return n, err
}

func (b blob) Close() error {
	b.release()
	return b.ReadCloser.Close()
}

// Pusher is not for us.
func (r *Resolver) Pusher(context.Context, string) (remotes.Pusher, error) {
	return nil, errors.New("this resolver only pulls")
}

func (r *Resolver) explain(host string, err error) error {
	host = canonicalHost(host)
	return Explain(host, err, r.asked.usedFor(host))
}

// askedCredentials remembers which credentials were used for which host, for what has to be said when they are refused.
type askedCredentials struct {
	mu   sync.Mutex
	used map[string]Credentials
}

func (a *askedCredentials) remember(ctx context.Context, source Source) func(string) (string, string, error) {
	return func(host string) (string, string, error) {
		found, err := source(ctx, host)
		if err != nil {
			return "", "", err
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.used == nil {
			a.used = map[string]Credentials{}
		}
		a.used[canonicalHost(host)] = found
		return found.Username, found.Secret, nil
	}
}

func (a *askedCredentials) usedFor(host string) Credentials {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.used[host]
}

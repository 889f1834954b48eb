package registry

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/shoenig/test"
	"github.com/shoenig/test/must"
)

// registryOf serves one manifest and one blob, of the same content.
func registryOf(t *testing.T, content string) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
		w.Header().Set("Docker-Content-Digest", digest.FromString(content).String())
		_, _ = io.WriteString(w, content)
	}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

func nobody(context.Context, string) (Credentials, error) { return Credentials{}, nil }

func TestResolver_goesOnWhenAMirrorIsSilent(t *testing.T) {
	t.Parallel()
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	t.Cleanup(silent.Close)
	t.Cleanup(silent.CloseClientConnections)
	host := registryOf(t, "manifest")
	registries, err := New(Config{Hosts: map[string]Host{host: {Mirrors: []string{silent.URL}}}})
	must.NoError(t, err)
	registries.mirrorTimeout = 50 * time.Millisecond
	resolver, err := registries.Resolver(t.Context(), host+"/team/image:1", nobody)
	must.NoError(t, err)
	defer resolver.Close()
	_, desc, err := resolver.Resolve(t.Context(), host+"/team/image:1")
	must.NoError(t, err)
	test.Eq(t, digest.FromString("manifest"), desc.Digest)
}

// An image that names other addresses for its layers must not make this machine ask them.
func TestResolver_asksOnlyTheRegistry(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	t.Cleanup(other.Close)
	host := registryOf(t, "layer")
	registries, err := New(Config{})
	must.NoError(t, err)
	resolver, err := registries.Resolver(t.Context(), host+"/team/image:1", nobody)
	must.NoError(t, err)
	defer resolver.Close()
	fetcher, err := resolver.Fetcher(t.Context(), host+"/team/image:1")
	must.NoError(t, err)
	for range 2 * maxBlobs {
		content, err := fetcher.Fetch(t.Context(), ocispec.Descriptor{
			MediaType: images.MediaTypeDockerSchema2LayerForeignGzip, Digest: digest.FromString("layer"), Size: 5, URLs: []string{other.URL + "/layer"},
		})
		must.NoError(t, err)
		raw, err := io.ReadAll(content)
		must.NoError(t, err)
		test.Eq(t, "layer", string(raw))
		must.NoError(t, content.Close(), must.Sprint("it gives its place to the next"))
	}
	test.Eq(t, 0, asked.Load())
}

func TestExplain(t *testing.T) {
	t.Parallel()
	must.NoError(t, Explain("reg.example", nil, Credentials{}))
	for _, end := range []error{context.Canceled, context.DeadlineExceeded} {
		test.True(t, end == Explain("reg.example", end, Credentials{}), test.Sprint("a caller's end is the caller's"))
	}
	odd := Explain("reg.example", errors.New("odd"), Credentials{})
	test.EqError(t, odd, "registry reg.example: odd")
	test.True(t, odd == Explain("other.example", odd, Credentials{}), test.Sprint("what is explained stays so"))

	// Errors of this machine's files look like a network's to Go.
	file := Explain("reg.example", syscall.ENOENT, Credentials{})
	test.False(t, errors.Is(file, ErrTransient))
	refused := Explain("reg.example", syscall.ECONNREFUSED, Credentials{})
	test.ErrorIs(t, refused, ErrTransient)

	own := &Error{Host: "reg.example", Err: ErrNotFound, Mirrors: []error{refused}}
	test.ErrorIs(t, own, ErrNotFound)
	test.False(t, errors.Is(own, ErrTransient), test.Sprint("a mirror's trouble decides nothing"))
	test.StrContains(t, own.Error(), "(its mirror: registry reg.example: it is away")
}

package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// platform is what an image must be for.
type platform struct {
	text    string // empty for this machine's own
	matcher platforms.MatchComparer
}

// parsePlatform reads a task's platform. What is asked for by name is given exactly so; without a name anything that this
// machine runs by itself will do.
func parsePlatform(text string) (platform, error) {
	if text == "" {
		return hostPlatform(), nil
	}
	parsed, err := platforms.Parse(text)
	if err != nil {
		return platform{}, fmt.Errorf("platform %q: %w", text, err)
	}
	return platform{text: formatPlatform(parsed), matcher: platforms.OnlyStrict(parsed)}, nil
}

func hostPlatform() platform { return platform{matcher: platforms.Default()} }

func (p platform) String() string {
	if p.text == "" {
		return platforms.DefaultString()
	}
	return p.text
}

// check says whether an image for has may be used. Old images do not say what they are for.
func (p platform) check(has ocispec.Platform) error {
	if has.Architecture == "" || p.matcher.Match(platforms.Normalize(has)) {
		return nil
	}
	return otherPlatformError{wanted: p, has: []string{formatPlatform(has)}}
}

func formatPlatform(p ocispec.Platform) string {
	if p.Architecture == "" {
		return ""
	}
	return platforms.Format(platforms.Normalize(p))
}

// otherPlatformError means that there is an image, but not for the wanted platform.
type otherPlatformError struct {
	wanted platform
	has    []string
}

func (o otherPlatformError) Error() string {
	advice := "or set platform where the node can run another"
	if o.wanted.text != "" {
		advice = "or another platform"
	}
	return fmt.Sprintf("it is for %s only, not for %s: name an image for that, %s", strings.Join(o.has, ", "), o.wanted, advice)
}

// otherPlatform returns an [otherPlatformError] when desc is a stored index without the wanted platform, else nil.
func (e *Engine) otherPlatform(ctx context.Context, desc ocispec.Descriptor, wanted platform) error {
	if !images.IsIndexType(desc.MediaType) {
		return nil
	}
	raw, err := content.ReadBlob(ctx, e.client.ContentStore(), desc)
	if err != nil {
		return nil //nolint:nilerr // what is wrong with the index is not asked here
	}
	var index ocispec.Index
	if err := json.Unmarshal(raw, &index); err != nil {
		return nil //nolint:nilerr // as above
	}
	other := otherPlatformError{wanted: wanted}
	for _, manifest := range index.Manifests {
		switch {
		case manifest.Platform == nil || images.IsIndexType(manifest.MediaType):
			return nil
		case wanted.matcher.Match(platforms.Normalize(*manifest.Platform)):
			return nil
		case manifest.Platform.OS != "unknown": // what describes an image beside it
			other.has = append(other.has, formatPlatform(*manifest.Platform))
		}
	}
	if len(other.has) == 0 {
		return nil
	}
	slices.Sort(other.has)
	other.has = slices.Compact(other.has)
	return other
}

// checkPlatform lets a fetch end before any layer is fetched, when the image is for another platform. containerd's client
// itself believes whatever a manifest stands for by itself to be right.
func (e *Engine) checkPlatform(wanted platform, next images.Handler) images.Handler {
	return images.HandlerFunc(func(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		children, err := next.Handle(ctx, desc)
		if err != nil {
			if other := e.otherPlatform(ctx, desc, wanted); other != nil {
				return nil, other
			}
			return nil, err
		}
		if !images.IsConfigType(desc.MediaType) {
			return children, nil
		}
		has, err := images.ConfigPlatform(ctx, e.client.ContentStore(), desc)
		if err != nil {
			return nil, fmt.Errorf("read image configuration: %w", err)
		}
		return children, wanted.check(has)
	})
}

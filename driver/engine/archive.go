package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/images/archive"
	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/nomad-promptflow/nomad-promptflow/driver"
)

// loadedRepository is under which loaded images are stored, by their digests. An archive says itself what its images are called;
// under those names it could put its own in the place of a registry's, for every task of the node.
const loadedRepository = "promptflow.local/loaded@"

// load imports one image of an archive. After a failure nothing of it is left.
func (e *Engine) load(
	ctx context.Context, request driver.ImageRequest, plan fetchPlan, tracker *tracker,
) (loaded containerd.Image, err error) {
	err = e.leased(ctx, func(ctx context.Context) error {
		desc, err := e.importArchive(ctx, request.Archive, tracker)
		if err != nil {
			return err
		}
		if err := e.checkWhole(ctx, desc, plan.platform); err != nil {
			return err
		}
		name := loadedRepository + desc.Digest.String()
		request.Claim(name)
		record := images.Image{Name: name, Target: desc, Labels: fetchedLabels(nil)}
		loaded = containerd.NewImageWithPlatform(e.client, record, plan.platform.matcher)
		if err := loaded.Unpack(ctx, e.config.Snapshotter); err != nil {
			return err
		}
		if _, err := e.client.ImageService().Create(ctx, record); err != nil && !errdefs.IsAlreadyExists(err) {
			return fmt.Errorf("name image: %w", err)
		}
		return nil
	})
	return loaded, err
}

// importArchive stores everything in the archive and returns the image that is wanted of it.
func (e *Engine) importArchive(ctx context.Context, from *driver.ImageArchive, tracker *tracker) (ocispec.Descriptor, error) {
	plain, err := compression.DecompressStream(trackedReader{ReadCloser: io.NopCloser(from.Content), tracker: tracker, layer: archiveBytes})
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("%w: %w", errBadArchive, err)
	}
	defer func() { _ = plain.Close() }()
	store := uniqueIngester{Store: e.client.ContentStore(), prefix: fmt.Sprintf("load-%d-", time.Now().UnixNano())}
	desc, err := archive.ImportIndex(ctx, store, contextReader{ctx, plain})
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("%w: %w", errBadArchive, err)
	}
	raw, err := content.ReadBlob(ctx, store, desc)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("read index of archive: %w", err)
	}
	var index ocispec.Index
	if err := json.Unmarshal(raw, &index); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("%w: read its index: %w", errBadArchive, err)
	}
	return choose(index, from.Image)
}

var errBadArchive = errors.New("it is no whole image archive (of docker save, or an OCI layout in a tar)")

// archiveBytes stands for an archive where bytes are counted by layer.
const archiveBytes digest.Digest = "archive"

// choose finds the image of that name, or the only one when name is empty.
func choose(index ocispec.Index, name string) (ocispec.Descriptor, error) {
	found := map[digest.Digest]ocispec.Descriptor{}
	var names []string
	for _, manifest := range index.Manifests {
		own := archiveNames(manifest)
		names = append(names, own...)
		if name == "" || isNamed(manifest, own, name) {
			found[manifest.Digest] = ocispec.Descriptor{MediaType: manifest.MediaType, Digest: manifest.Digest, Size: manifest.Size}
		}
	}
	slices.Sort(names)
	list := strings.Join(slices.Compact(names), ", ")
	switch {
	case len(index.Manifests) == 0:
		return ocispec.Descriptor{}, errors.New("the archive has no image")
	case len(found) == 0 && list == "":
		return ocispec.Descriptor{}, fmt.Errorf("the archive's images have no names, and so no %q: leave image out", name)
	case len(found) == 0:
		return ocispec.Descriptor{}, fmt.Errorf("the archive has no image %q: it has %s", name, list)
	case len(found) > 1 && name == "":
		return ocispec.Descriptor{}, fmt.Errorf("the archive has %d images: name one of them with image: %s", len(found), list)
	case len(found) > 1:
		return ocispec.Descriptor{}, fmt.Errorf("the archive has %d images named %q", len(found), name)
	}
	for _, desc := range found {
		return desc, nil
	}
	panic("unreachable")
}

// archiveNames are an image's names in its archive: a full reference, and what an OCI layout calls it, which may be a tag only.
func archiveNames(manifest ocispec.Descriptor) []string {
	var names []string
	for _, annotation := range []string{images.AnnotationImageName, ocispec.AnnotationRefName} {
		if name := manifest.Annotations[annotation]; name != "" {
			names = append(names, name)
			if annotation == images.AnnotationImageName {
				break
			}
		}
	}
	return names
}

// isNamed compares names as people write them: "busybox" is "docker.io/library/busybox:latest", and "busybox:1" is what a
// layout tags as "1".
func isNamed(manifest ocispec.Descriptor, names []string, wanted string) bool {
	if slices.Contains(names, wanted) {
		return true
	}
	full, err := normalName(wanted)
	if err != nil {
		return false
	}
	parsed, err := reference.ParseDockerRef(full)
	if err != nil {
		return false
	}
	if pinned, ok := parsed.(reference.Digested); ok {
		return pinned.Digest() == manifest.Digest
	}
	tagged, _ := parsed.(reference.Tagged)
	return slices.ContainsFunc(names, func(name string) bool {
		normal, err := normalName(name)
		return (err == nil && normal == full) || (tagged != nil && name == tagged.Tag())
	})
}

// checkWhole finds out whether all of an image is in the store, and lets everything keep what it needs.
func (e *Engine) checkWhole(ctx context.Context, desc ocispec.Descriptor, wanted platform) error {
	store := e.client.ContentStore()
	present := images.HandlerFunc(func(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		_, err := store.Info(ctx, desc.Digest)
		if errdefs.IsNotFound(err) {
			return nil, fmt.Errorf("%w: it lacks %s, or what it has in its place is not that", errBadArchive, desc.Digest)
		}
		return nil, err
	})
	children := images.LimitManifests(
		images.FilterPlatforms(images.SetChildrenLabels(store, images.ChildrenHandler(store)), wanted.matcher), wanted.matcher, 1)
	return images.Walk(ctx, images.Handlers(present, e.checkPlatform(wanted, children)), desc)
}

// uniqueIngester writes under names of its own. The importer's are the files' names in the archive, so that another
// archive's half-written file would be taken for the beginning of this one's.
type uniqueIngester struct {
	content.Store
	prefix string
}

func (u uniqueIngester) Writer(ctx context.Context, options ...content.WriterOpt) (content.Writer, error) {
	var wanted content.WriterOpts
	for _, option := range options {
		if err := option(&wanted); err != nil {
			return nil, err
		}
	}
	return u.Store.Writer(ctx, append(options, content.WithRef(u.prefix+wanted.Ref))...)
}

// contextReader ends a long read when its context ends.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Remove deletes the blobs of desc, a manifest that lost its tag, and of what it refers to, but none that any tag leads to. Who is
// reading them meanwhile may get [ErrNotFound] for the rest.
func (l *Layout) Remove(ctx context.Context, desc ocispec.Descriptor) error {
	all, err := l.closure(ctx, desc)
	if err != nil {
		return fmt.Errorf("remove %s: %w", desc.Digest, err)
	}
	var blobs []digest.Digest
	for _, d := range all {
		blobs = append(blobs, d.Digest)
	}
	if err := l.removeUnused(ctx, blobs); err != nil {
		return fmt.Errorf("remove %s: %w", desc.Digest, err)
	}
	return nil
}

// removeUnused deletes those of the blobs that nothing in the index leads to, alone among all who change the index.
func (l *Layout) removeUnused(ctx context.Context, blobs []digest.Digest) error {
	unlock, err := l.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	used, err := l.used(ctx)
	if err != nil {
		return err
	}
	for _, d := range blobs {
		if used[d] {
			continue
		}
		if err := os.Remove(l.blobPath(d)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// used returns the digests of everything that the index leads to.
func (l *Layout) used(ctx context.Context) (map[digest.Digest]bool, error) {
	index, err := l.readIndex()
	if err != nil {
		return nil, err
	}
	used := map[digest.Digest]bool{}
	for _, m := range index.Manifests {
		all, err := l.closure(ctx, m)
		if err != nil {
			return nil, err
		}
		for _, desc := range all {
			used[desc.Digest] = true
		}
	}
	return used, nil
}

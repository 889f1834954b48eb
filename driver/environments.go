package driver

import (
	"context"
	"errors"
	"fmt"
	"io"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/nomad-promptflow/nomad-promptflow/store"
)

// openLayout opens the folder of an OCI layout as the source of environments.
func openLayout(dir string) (ImageSource, error) {
	layout, err := store.OpenLayout(dir)
	if err != nil {
		return nil, err
	}
	return layoutSource{layout}, nil
}

// layoutSource gives the driver's error for what the layout does not have.
type layoutSource struct{ layout *store.Layout }

func (s layoutSource) Resolve(ctx context.Context, tag string) (ocispec.Descriptor, error) {
	desc, err := s.layout.Resolve(ctx, tag)
	if errors.Is(err, store.ErrNotFound) {
		return desc, fmt.Errorf("%w: %w", ErrNoImage, err)
	}
	return desc, err
}

func (s layoutSource) Fetch(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	return s.layout.Fetch(ctx, desc)
}

// noEnvironments stands for a folder that cannot be opened. Environments that the engine already has work all the same.
type noEnvironments struct{ cause error }

func (n noEnvironments) Resolve(context.Context, string) (ocispec.Descriptor, error) {
	return ocispec.Descriptor{}, n.cause
}

func (n noEnvironments) Fetch(context.Context, ocispec.Descriptor) (io.ReadCloser, error) {
	return nil, n.cause
}

// openEnvironments is openLayout for a folder that may not be there yet.
func openEnvironments(dir string) ImageSource {
	source, err := openLayout(dir)
	if errors.Is(err, store.ErrNotFound) {
		err = fmt.Errorf("%w: %w", ErrNoImage, err)
	}
	if err != nil {
		return noEnvironments{cause: err}
	}
	return source
}

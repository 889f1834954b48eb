// Package store keeps OCI content: the images of environments and, later, the bundles of published flows.
//
// [Layout] is a local OCI image layout, a folder that container tools read as well (`skopeo … oci:FOLDER:TAG`). It can be handed
// on as an archive with [Layout.Export] and [Layout.Import]. The package knows nothing of what the content means.
package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/errdef"
)

var (
	// ErrNotFound says that there is no such tag, digest, blob or layout.
	ErrNotFound = errors.New("not found")
	// ErrCorrupt says that content is not what its digest or its format promises.
	ErrCorrupt = errors.New("corrupt content")
)

// explain turns the errors of the file system and of oras into ours, and says what to do where that is known. dir is the folder
// that was written to.
func explain(err error, dir string) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("the disk that holds %s is full; make room and try again: %w", dir, err)
	case errors.Is(err, content.ErrMismatchedDigest), errors.Is(err, content.ErrTrailingData),
		errors.Is(err, content.ErrInvalidDescriptorSize), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	case errors.Is(err, errdef.ErrNotFound):
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	default:
		return err
	}
}

// contextReader ends a long copy when its context ends.
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

// verifiedBlob hands out a blob and fails at its end when the content was not what the descriptor says.
type verifiedBlob struct {
	verify *content.VerifyReader
	file   io.Closer
	desc   ocispec.Descriptor
}

func newVerifiedBlob(file io.ReadCloser, desc ocispec.Descriptor) *verifiedBlob {
	return &verifiedBlob{verify: content.NewVerifyReader(file, desc), file: file, desc: desc}
}

func (v *verifiedBlob) Read(p []byte) (int, error) {
	n, err := v.verify.Read(p)
	if errors.Is(err, io.EOF) {
		if bad := v.verify.Verify(); bad != nil {
			return n, fmt.Errorf("read blob %s: %w: %w", v.desc.Digest, ErrCorrupt, bad)
		}
	}
	return n, err
}

func (v *verifiedBlob) Close() error { return v.file.Close() }

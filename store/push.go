package store

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"
)

// ingestDir is where blobs are written until they are whole; it is oras's name for it.
const ingestDir = "ingest"

// Push stores the content of r, which must be what desc says, else the error is [ErrCorrupt] and nothing is kept. Content that is
// there already is not read again. Push does not make a manifest findable: that is [Layout.Tag].
func (l *Layout) Push(ctx context.Context, desc ocispec.Descriptor, r io.Reader) error {
	if err := desc.Digest.Validate(); err != nil {
		return fmt.Errorf("push blob %q: %w", desc.Digest, err)
	}
	// A file of the wrong size, as a crash of the machine can leave it, is replaced.
	if info, err := os.Stat(l.blobPath(desc.Digest)); err == nil && info.Size() == desc.Size {
		return nil
	}
	if err := l.ingest(ctx, desc, r); err != nil {
		return fmt.Errorf("push blob %s: %w", desc.Digest, explain(err, l.dir))
	}
	return nil
}

// PushBytes stores content under the media type and returns its descriptor.
func (l *Layout) PushBytes(ctx context.Context, mediaType string, raw []byte) (ocispec.Descriptor, error) {
	desc := content.NewDescriptorFromBytes(mediaType, raw)
	return desc, l.Push(ctx, desc, bytes.NewReader(raw))
}

// ingest writes the blob beside its place and moves it there when it is whole.
func (l *Layout) ingest(ctx context.Context, desc ocispec.Descriptor, r io.Reader) (err error) {
	target := l.blobPath(desc.Digest)
	for _, dir := range []string{filepath.Dir(target), filepath.Join(l.dir, ingestDir)} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	f, err := os.CreateTemp(filepath.Join(l.dir, ingestDir), desc.Digest.Encoded()+"_*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	verify := content.NewVerifyReader(contextReader{ctx, r}, desc)
	if _, err := io.Copy(f, verify); err != nil {
		return err
	}
	if err := verify.Verify(); err != nil {
		return err
	}
	if err := f.Chmod(0o444); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), target)
}

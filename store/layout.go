package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/content/oci"
)

// Layout is a local OCI image layout. It may be used by several goroutines and several processes at once: blobs appear whole or not
// at all, and the index is replaced as a whole, under a lock.
//
// Blobs are read with oras's content/oci storage. Writing is our own (push.go, index.go): oras v2.7.0 leaves the temporary file of
// a failed push behind, rewrites the index in place, which a full disk would destroy, and reads it only once, which loses what
// another process tags.
type Layout struct {
	dir   string
	blobs *oci.ReadOnlyStorage
}

// maxManifest bounds the manifests, indexes and configs that are read into memory.
const maxManifest = 4 << 20

// OpenLayout opens the layout in dir, which must be one; otherwise the error is [ErrNotFound] (no such folder or not a layout) or
// [ErrCorrupt].
func OpenLayout(dir string) (*Layout, error) {
	raw, err := os.ReadFile(filepath.Join(dir, ocispec.ImageLayoutFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open image layout %s: %w: the folder has no file %s", dir, ErrNotFound, ocispec.ImageLayoutFile)
	}
	if err != nil {
		return nil, fmt.Errorf("open image layout %s: %w", dir, err)
	}
	if err := checkLayoutFile(raw); err != nil {
		return nil, fmt.Errorf("open image layout %s: %w", dir, err)
	}
	l, err := newLayout(dir)
	if err != nil {
		return nil, err
	}
	if _, err := l.readIndex(); err != nil {
		return nil, fmt.Errorf("open image layout %s: %w", dir, err)
	}
	return l, nil
}

// CreateLayout opens the layout in dir and makes it first where there is none. A folder that holds other things is refused.
func CreateLayout(dir string) (*Layout, error) {
	l, err := OpenLayout(dir)
	if err == nil || !errors.Is(err, ErrNotFound) {
		return l, err
	}
	if err := makeLayout(dir); err != nil {
		return nil, fmt.Errorf("create image layout %s: %w", dir, explain(err, dir))
	}
	return OpenLayout(dir)
}

func newLayout(dir string) (*Layout, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open image layout %s: %w", dir, err)
	}
	return &Layout{dir: abs, blobs: oci.NewStorageFromFS(os.DirFS(abs))}, nil
}

// makeLayout writes the layout file last: until then the folder is no layout, and an interrupted creation is finished by the next.
func makeLayout(dir string) error {
	if err := refuseForeign(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(dir, ocispec.ImageBlobsDir), 0o755); err != nil {
		return err
	}
	raw, err := json.Marshal(ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})
	if err != nil {
		return err
	}
	return writeWhole(dir, ocispec.ImageLayoutFile, raw)
}

func refuseForeign(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		// What an interrupted creation leaves is no foreign thing.
		if name := e.Name(); name != ocispec.ImageBlobsDir && !strings.HasPrefix(name, "."+ocispec.ImageLayoutFile) {
			return fmt.Errorf("the folder is not empty (it has %q) and is no image layout; name another folder", name)
		}
	}
	return nil
}

func checkLayoutFile(raw []byte) error {
	var l ocispec.ImageLayout
	if err := json.Unmarshal(raw, &l); err != nil {
		return fmt.Errorf("%w: read %s: %w", ErrCorrupt, ocispec.ImageLayoutFile, err)
	}
	if l.Version != ocispec.ImageLayoutVersion {
		return fmt.Errorf("%w: %s says version %q, known is %q", ErrCorrupt, ocispec.ImageLayoutFile, l.Version, ocispec.ImageLayoutVersion)
	}
	return nil
}

// Dir returns the layout's folder as an absolute path.
func (l *Layout) Dir() string { return l.dir }

// Resolve returns the descriptor of the manifest that ref, a tag or a digest ("sha256:…"), stands for. The error is [ErrNotFound]
// when there is none.
func (l *Layout) Resolve(ctx context.Context, ref string) (ocispec.Descriptor, error) {
	if err := ctx.Err(); err != nil {
		return ocispec.Descriptor{}, err
	}
	index, err := l.readIndex()
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("resolve %q in image layout %s: %w", ref, l.dir, err)
	}
	for _, m := range index.Manifests {
		if m.Annotations[ocispec.AnnotationRefName] == ref || m.Digest.String() == ref {
			return plain(m), nil
		}
	}
	return ocispec.Descriptor{}, fmt.Errorf("resolve %q in image layout %s: %w", ref, l.dir, ErrNotFound)
}

// Exists says whether the blob of desc is there. It does not read the blob.
func (l *Layout) Exists(ctx context.Context, desc ocispec.Descriptor) (bool, error) {
	ok, err := l.blobs.Exists(ctx, desc)
	if err != nil {
		return false, fmt.Errorf("look for blob %s: %w", desc.Digest, err)
	}
	return ok, nil
}

// Fetch returns the content of a blob, a manifest or any other. Reading it to its end fails with [ErrCorrupt] when it is not what
// desc says; what was read until then is not to be trusted. The error is [ErrNotFound] when there is no such blob.
func (l *Layout) Fetch(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	file, err := l.blobs.Fetch(ctx, desc)
	if err != nil {
		return nil, fmt.Errorf("fetch blob %s: %w", desc.Digest, explain(err, l.dir))
	}
	return newVerifiedBlob(file, desc), nil
}

// FetchAll returns the whole content of a manifest, config or other small blob, verified.
func (l *Layout) FetchAll(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	if desc.Size > maxManifest {
		return nil, fmt.Errorf("fetch blob %s: it has %d bytes, at most %d are read into memory", desc.Digest, desc.Size, maxManifest)
	}
	r, err := l.Fetch(ctx, desc)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	return io.ReadAll(r)
}

// Tag lets ref stand for the manifest of desc, and no longer for another. Everything that the manifest refers to must be there,
// else the error is [ErrNotFound]: a tag never names half an image.
func (l *Layout) Tag(ctx context.Context, desc ocispec.Descriptor, ref string) error {
	if _, err := digest.Parse(ref); ref == "" || err == nil {
		return fmt.Errorf("tag %s: %q is no tag", desc.Digest, ref)
	}
	if _, err := l.closure(ctx, desc); err != nil {
		return fmt.Errorf("tag %s as %q: %w", desc.Digest, ref, err)
	}
	err := l.changeIndex(ctx, func(index *ocispec.Index) { setTag(index, plain(desc), ref) })
	if err != nil {
		return fmt.Errorf("tag %s as %q: %w", desc.Digest, ref, err)
	}
	return nil
}

// Tags returns all tags in alphabetical order.
func (l *Layout) Tags(ctx context.Context) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	index, err := l.readIndex()
	if err != nil {
		return nil, fmt.Errorf("list tags of image layout %s: %w", l.dir, err)
	}
	return tagsOf(index), nil
}

// closure returns the descriptors of root and of everything it refers to, each once, and checks that all of it is there, at its
// full size.
func (l *Layout) closure(ctx context.Context, root ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	seen := map[digest.Digest]bool{}
	var all []ocispec.Descriptor
	queue := []ocispec.Descriptor{root}
	for len(queue) > 0 {
		desc := queue[0]
		queue = queue[1:]
		if seen[desc.Digest] {
			continue
		}
		seen[desc.Digest] = true
		if err := l.checkWhole(desc); err != nil {
			return nil, err
		}
		all = append(all, desc)
		next, err := l.successors(ctx, desc)
		if err != nil {
			return nil, err
		}
		queue = append(queue, next...)
	}
	return all, nil
}

// successors reads what desc refers to. A manifest is read into memory as a whole, so its size is bounded.
func (l *Layout) successors(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	bounded := content.FetcherFunc(func(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
		if d.Size > maxManifest {
			return nil, fmt.Errorf("%w: a manifest of %d bytes, at most %d are allowed", ErrCorrupt, d.Size, maxManifest)
		}
		return l.Fetch(ctx, d)
	})
	next, err := content.Successors(ctx, bounded, desc)
	if err != nil {
		return nil, fmt.Errorf("read manifest %s: %w", desc.Digest, explain(err, l.dir))
	}
	return next, nil
}

func (l *Layout) checkWhole(desc ocispec.Descriptor) error {
	if err := desc.Digest.Validate(); err != nil {
		return fmt.Errorf("%w: digest %q: %w", ErrCorrupt, desc.Digest, err)
	}
	info, err := os.Stat(l.blobPath(desc.Digest))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("blob %s: %w", desc.Digest, ErrNotFound)
	}
	if err != nil {
		return err
	}
	if info.Size() != desc.Size {
		return fmt.Errorf("blob %s: %w: it has %d bytes, not %d; store the image again", desc.Digest, ErrCorrupt, info.Size(), desc.Size)
	}
	return nil
}

func (l *Layout) blobPath(d digest.Digest) string {
	return filepath.Join(l.dir, ocispec.ImageBlobsDir, d.Algorithm().String(), d.Encoded())
}

// plain keeps of a descriptor what names its content; the annotations of an index entry are the index's own.
func plain(d ocispec.Descriptor) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: d.MediaType, ArtifactType: d.ArtifactType, Digest: d.Digest, Size: d.Size, Platform: d.Platform}
}

package store

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Import reads an OCI archive, as [Layout.Export] and other tools write it, and takes over its content and its tags; it returns
// the tags. Every blob is checked against its digest. When anything is wrong, no tag changes and what had been added is removed.
func (l *Layout) Import(ctx context.Context, r io.Reader) (tags []string, err error) {
	in := &importing{layout: l}
	defer func() {
		if err != nil {
			err = fmt.Errorf("import archive into image layout %s: %w", l.dir, errors.Join(err, in.undo(ctx)))
		}
	}()
	if err := in.read(ctx, tar.NewReader(r)); err != nil {
		return nil, explain(err, l.dir)
	}
	return in.tag(ctx)
}

// undoTimeout bounds the cleaning up after a failed import.
const undoTimeout = 30 * time.Second

// importing is the state of one import.
type importing struct {
	layout *Layout
	index  *ocispec.Index
	known  bool            // the oci-layout file was seen
	added  []digest.Digest // blobs that were not there before
}

func (in *importing) read(ctx context.Context, tr *tar.Reader) error {
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%w: read tar: %w", ErrCorrupt, err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if err := in.entry(ctx, path.Clean(h.Name), h.Size, tr); err != nil {
			return err
		}
	}
}

// entry takes what belongs to an OCI archive and passes over the rest, for example a docker archive's manifest.json.
func (in *importing) entry(ctx context.Context, name string, size int64, r io.Reader) error {
	switch {
	case name == ocispec.ImageLayoutFile:
		raw, err := readSmall(name, r)
		if err != nil {
			return err
		}
		in.known = true
		return checkLayoutFile(raw)
	case name == ocispec.ImageIndexFile:
		raw, err := readSmall(name, r)
		if err != nil {
			return err
		}
		in.index = &ocispec.Index{}
		if err := json.Unmarshal(raw, in.index); err != nil {
			return fmt.Errorf("%w: read %s: %w", ErrCorrupt, name, err)
		}
		return nil
	case strings.HasPrefix(name, ocispec.ImageBlobsDir+"/"):
		return in.blob(ctx, name, size, r)
	}
	return nil
}

func readSmall(name string, r io.Reader) ([]byte, error) {
	raw, err := io.ReadAll(io.LimitReader(r, maxManifest+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if len(raw) > maxManifest {
		return nil, fmt.Errorf("%w: %s is larger than %d bytes", ErrCorrupt, name, maxManifest)
	}
	return raw, nil
}

func (in *importing) blob(ctx context.Context, name string, size int64, r io.Reader) error {
	algorithm, encoded, _ := strings.Cut(strings.TrimPrefix(name, ocispec.ImageBlobsDir+"/"), "/")
	d := digest.NewDigestFromEncoded(digest.Algorithm(algorithm), encoded)
	if err := d.Validate(); err != nil {
		return fmt.Errorf("%w: entry %q is no blob: %w", ErrCorrupt, name, err)
	}
	desc := ocispec.Descriptor{Digest: d, Size: size}
	there, err := in.layout.Exists(ctx, desc)
	if err != nil {
		return err
	}
	if err := in.layout.Push(ctx, desc, r); err != nil {
		return err
	}
	if !there {
		in.added = append(in.added, d)
	}
	return nil
}

// tag gives the archive's manifests their tags, all at once and only after all of them were seen to be whole.
func (in *importing) tag(ctx context.Context) ([]string, error) {
	if !in.known || in.index == nil {
		return nil, fmt.Errorf("%w: it is no OCI archive: %s or %s is missing", ErrCorrupt, ocispec.ImageLayoutFile, ocispec.ImageIndexFile)
	}
	tags := tagsOf(in.index)
	if len(tags) == 0 {
		return nil, fmt.Errorf("%w: no manifest in its %s has a tag (annotation %s)", ErrCorrupt, ocispec.ImageIndexFile, ocispec.AnnotationRefName)
	}
	for _, m := range in.index.Manifests {
		if _, err := in.layout.closure(ctx, m); err != nil {
			return nil, err
		}
	}
	return tags, in.layout.changeIndex(ctx, func(index *ocispec.Index) {
		for _, m := range in.index.Manifests {
			if name := m.Annotations[ocispec.AnnotationRefName]; name != "" {
				setTag(index, plain(m), name)
			}
		}
	})
}

// undo removes the blobs that a failed import added, but none that a tagged manifest needs by now.
func (in *importing) undo(ctx context.Context) error {
	if len(in.added) == 0 {
		return nil
	}
	// The import may have failed because its context ended; cleaning up must still happen.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	return in.layout.removeUnused(ctx, in.added)
}

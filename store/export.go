package store

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"slices"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// dockerManifest is one image in the manifest.json of a docker archive. Source: Docker's image spec v1.2, "combined image JSON +
// filesystem changeset format".
type dockerManifest struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// containerdName is the annotation by which containerd's and Docker's import name an image.
const containerdName = "io.containerd.image.name"

// ExportOption changes what an archive says.
type ExportOption func(*exportOptions)

type exportOptions struct{ name string }

// ExportName sets the full name that container engines give the image on import, "registry.example/team/image:tag"; without it, it
// is the exported reference.
func ExportName(name string) ExportOption {
	return func(o *exportOptions) { o.name = name }
}

// Export writes what ref stands for as one tar. It is an OCI archive (skopeo, podman, ctr, [Layout.Import]) and, for an image, a
// docker archive too (docker load). The same content gives the same bytes. What was written before an error is not to be used.
func (l *Layout) Export(ctx context.Context, ref string, w io.Writer, options ...ExportOption) error {
	o := exportOptions{name: ref}
	for _, option := range options {
		option(&o)
	}
	root, err := l.Resolve(ctx, ref)
	if err != nil {
		return err
	}
	if err := l.writeArchive(ctx, root, ref, o.name, w); err != nil {
		return fmt.Errorf("export %q from image layout %s: %w", ref, l.dir, err)
	}
	return nil
}

func (l *Layout) writeArchive(ctx context.Context, root ocispec.Descriptor, ref, name string, w io.Writer) error {
	blobs, err := l.closure(ctx, root)
	if err != nil {
		return err
	}
	files, err := l.archiveFiles(ctx, root, ref, name)
	if err != nil {
		return err
	}
	tw := tar.NewWriter(w)
	for _, f := range files {
		if err := writeEntry(tw, f.name, int64(len(f.raw)), bytes.NewReader(f.raw)); err != nil {
			return err
		}
	}
	if err := l.writeBlobs(ctx, tw, blobs); err != nil {
		return err
	}
	return tw.Close()
}

type archiveFile struct {
	name string
	raw  []byte
}

// archiveFiles makes the files that describe the archive; they come first, so that a reader knows early what it has.
func (l *Layout) archiveFiles(ctx context.Context, root ocispec.Descriptor, ref, name string) ([]archiveFile, error) {
	layout, err := json.Marshal(ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})
	if err != nil {
		return nil, err
	}
	entry := plain(root)
	entry.Annotations = map[string]string{ocispec.AnnotationRefName: ref, containerdName: name}
	index, err := marshalIndex(&ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{entry},
	})
	if err != nil {
		return nil, err
	}
	files := []archiveFile{{ocispec.ImageLayoutFile, layout}, {ocispec.ImageIndexFile, index}}
	docker, err := l.dockerManifest(ctx, root, name)
	if err != nil || docker == nil {
		return files, err
	}
	return append(files, archiveFile{"manifest.json", docker}), nil
}

// dockerManifest returns manifest.json, or nil for what is no single image (an index, an artifact): Docker has no words for it.
func (l *Layout) dockerManifest(ctx context.Context, root ocispec.Descriptor, name string) ([]byte, error) {
	if root.MediaType != ocispec.MediaTypeImageManifest {
		return nil, nil
	}
	raw, err := l.FetchAll(ctx, root)
	if err != nil {
		return nil, err
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, fmt.Errorf("read manifest %s: %w: %w", root.Digest, ErrCorrupt, err)
	}
	if m.Config.MediaType != ocispec.MediaTypeImageConfig {
		return nil, nil
	}
	d := dockerManifest{Config: blobName(m.Config.Digest), RepoTags: []string{name}, Layers: []string{}}
	for _, layer := range m.Layers {
		d.Layers = append(d.Layers, blobName(layer.Digest))
	}
	return json.Marshal([]dockerManifest{d})
}

func (l *Layout) writeBlobs(ctx context.Context, tw *tar.Writer, blobs []ocispec.Descriptor) error {
	slices.SortFunc(blobs, func(a, b ocispec.Descriptor) int { return cmp.Compare(a.Digest, b.Digest) })
	for _, dir := range []string{"blobs/", "blobs/sha256/"} {
		if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755, Format: tar.FormatUSTAR}); err != nil {
			return err
		}
	}
	for _, desc := range blobs {
		if err := l.writeBlob(ctx, tw, desc); err != nil {
			return err
		}
	}
	return nil
}

func (l *Layout) writeBlob(ctx context.Context, tw *tar.Writer, desc ocispec.Descriptor) error {
	r, err := l.Fetch(ctx, desc)
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	return writeEntry(tw, blobName(desc.Digest), desc.Size, contextReader{ctx, r})
}

func blobName(d digest.Digest) string {
	return path.Join(ocispec.ImageBlobsDir, d.Algorithm().String(), d.Encoded())
}

// writeEntry writes a file with nothing in its header that could differ between two exports.
func writeEntry(tw *tar.Writer, name string, size int64, r io.Reader) error {
	// PAX only steps in where USTAR cannot say it: files of 8 GiB and more.
	if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: size}); err != nil {
		return err
	}
	_, err := io.Copy(tw, r)
	return err
}

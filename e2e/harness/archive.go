package harness

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// OCIArchive packs an OCI layout into one file, as skopeo's oci-archive does.
func OCIArchive(t testing.TB, layout string) []byte {
	t.Helper()
	var packed bytes.Buffer
	archive := tar.NewWriter(&packed)
	err := filepath.WalkDir(layout, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, err := filepath.Rel(layout, path)
		if err != nil {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return addFile(archive, name, content)
	})
	if err == nil {
		err = archive.Close()
	}
	if err != nil {
		t.Fatalf("harness: pack image layout: %v", err)
	}
	return packed.Bytes()
}

// DockerArchive packs the images of an OCI layout as `docker save` did until version 25: configurations, plain layers, and a
// manifest.json that calls each image by its tag in the layout.
func DockerArchive(t testing.TB, layout string) []byte {
	t.Helper()
	r := layoutReader{t: t, dir: layout}
	type image struct {
		Config           string
		RepoTags, Layers []string
	}
	var images []image
	var packed bytes.Buffer
	archive := tar.NewWriter(&packed)
	add := func(name string, content []byte) {
		if err := addFile(archive, name, content); err != nil {
			t.Fatalf("harness: pack image: %v", err)
		}
	}
	var index ocispec.Index
	r.json(filepath.Join(layout, "index.json"), &index)
	for _, desc := range index.Manifests {
		var manifest ocispec.Manifest
		r.json(r.path(desc.Digest), &manifest)
		entry := image{
			Config: manifest.Config.Digest.Encoded() + ".json", RepoTags: []string{desc.Annotations[ocispec.AnnotationRefName]},
		}
		add(entry.Config, r.read(r.path(manifest.Config.Digest)))
		for _, layer := range manifest.Layers {
			name := layer.Digest.Encoded() + "/layer.tar"
			add(name, r.plain(layer.Digest))
			entry.Layers = append(entry.Layers, name)
		}
		images = append(images, entry)
	}
	add("manifest.json", jsonOf(t, images))
	if err := archive.Close(); err != nil {
		t.Fatalf("harness: pack image: %v", err)
	}
	return packed.Bytes()
}

func addFile(archive *tar.Writer, name string, content []byte) error {
	if err := archive.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(content))}); err != nil {
		return err
	}
	_, err := archive.Write(content)
	return err
}

type layoutReader struct {
	t   testing.TB
	dir string
}

func (r layoutReader) path(d digest.Digest) string {
	return filepath.Join(r.dir, ocispec.ImageBlobsDir, string(d.Algorithm()), d.Encoded())
}

func (r layoutReader) read(path string) []byte {
	r.t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		r.t.Fatalf("harness: read image layout: %v", err)
	}
	return content
}

func (r layoutReader) json(path string, into any) {
	r.t.Helper()
	if err := json.Unmarshal(r.read(path), into); err != nil {
		r.t.Fatalf("harness: read image layout: %v", err)
	}
}

func (r layoutReader) plain(d digest.Digest) []byte {
	r.t.Helper()
	packed, err := gzip.NewReader(bytes.NewReader(r.read(r.path(d))))
	if err == nil {
		var content []byte
		if content, err = io.ReadAll(packed); err == nil {
			return content
		}
	}
	r.t.Fatalf("harness: unpack layer: %v", err)
	return nil
}

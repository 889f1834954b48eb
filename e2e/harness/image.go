package harness

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// BusyboxImage is an image made of Debian's busybox-static.
type BusyboxImage struct {
	// Tag in the layout, such as "default:latest". Images of one tag are that tag's image for several platforms.
	Tag    string
	Config ocispec.ImageConfig
	// Platform is what the image says it is for; this machine's when it is empty. The commands are this machine's all the same.
	Platform ocispec.Platform
	// Files are put in a second layer, by path without a leading slash.
	Files map[string][]byte
	// Garbage adds a layer that has its digest, and is nothing that could be unpacked.
	Garbage bool
}

// BusyboxLayout makes an OCI layout with the images, all on the same first layer, and returns its folder. They have all of
// busybox's commands in /bin, an /etc/passwd with root and "worker" (1000:1000), and start in milliseconds.
func BusyboxLayout(t testing.TB, images ...BusyboxImage) string {
	t.Helper()
	layout := &layoutWriter{t: t, dir: t.TempDir()}
	base := layout.layer(busyboxFiles(t))
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	var tags []string
	manifests := map[string][]ocispec.Descriptor{}
	for _, image := range images {
		layers := []layer{base}
		if len(image.Files) > 0 {
			layers = append(layers, layout.layer(plainFiles(image.Files)))
		}
		if image.Garbage {
			content := []byte("this is no layer")
			layers = append(layers, layer{desc: layout.blob(ocispec.MediaTypeImageLayerGzip, content), diff: digest.FromBytes(content)})
		}
		if len(manifests[image.Tag]) == 0 {
			tags = append(tags, image.Tag)
		}
		manifests[image.Tag] = append(manifests[image.Tag], layout.image(image, layers))
	}
	for _, tag := range tags {
		desc := layout.platforms(manifests[tag])
		desc.Annotations = map[string]string{ocispec.AnnotationRefName: tag}
		index.Manifests = append(index.Manifests, desc)
	}
	layout.write("index.json", layout.json(index))
	layout.write(ocispec.ImageLayoutFile, layout.json(ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion}))
	return layout.dir
}

// entry is a file of a layer.
type entry struct {
	header tar.Header
	body   []byte
}

func busyboxFiles(t testing.TB) []entry {
	t.Helper()
	binary, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatalf("harness: no busybox: %v: run make bootstrap", err)
	}
	content, err := os.ReadFile(binary)
	if err != nil {
		t.Fatalf("harness: read busybox: %v", err)
	}
	list, err := exec.CommandContext(t.Context(), binary, "--list").Output()
	if err != nil {
		t.Fatalf("harness: list busybox commands: %v", err)
	}
	entries := []entry{
		{header: tar.Header{Name: "bin/", Typeflag: tar.TypeDir, Mode: 0o755}},
		{header: tar.Header{Name: "etc/", Typeflag: tar.TypeDir, Mode: 0o755}},
		{header: tar.Header{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777}},
		{header: tar.Header{Name: "bin/busybox", Typeflag: tar.TypeReg, Mode: 0o755}, body: content},
		textFile("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nworker:x:1000:1000::/tmp:/bin/sh\n"),
		textFile("etc/group", "root:x:0:\nworker:x:1000:\nextra:x:2000:worker\n"),
	}
	for _, name := range strings.Fields(string(list)) {
		if name != "busybox" {
			entries = append(entries, entry{header: tar.Header{
				Name: "bin/" + name, Typeflag: tar.TypeSymlink, Linkname: "busybox", Mode: 0o777,
			}})
		}
	}
	return entries
}

func textFile(name, content string) entry {
	return entry{header: tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644}, body: []byte(content)}
}

func plainFiles(files map[string][]byte) []entry {
	var entries []entry
	for name, body := range files {
		entries = append(entries, entry{header: tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o755}, body: body})
	}
	return entries
}

// layer is a blob and the digest of what it unpacks to.
type layer struct {
	desc ocispec.Descriptor
	diff digest.Digest
}

type layoutWriter struct {
	t   testing.TB
	dir string
}

func (w *layoutWriter) layer(entries []entry) layer {
	w.t.Helper()
	var plain, packed bytes.Buffer
	archive := tar.NewWriter(&plain)
	for _, e := range entries {
		e.header.Size, e.header.ModTime = int64(len(e.body)), time.Unix(0, 0)
		w.check(archive.WriteHeader(&e.header))
		_, err := archive.Write(e.body)
		w.check(err)
	}
	w.check(archive.Close())
	compress, err := gzip.NewWriterLevel(&packed, gzip.BestSpeed)
	w.check(err)
	_, err = compress.Write(plain.Bytes())
	w.check(err)
	w.check(compress.Close())
	return layer{
		desc: w.blob(ocispec.MediaTypeImageLayerGzip, packed.Bytes()),
		diff: digest.FromBytes(plain.Bytes()),
	}
}

func (w *layoutWriter) image(wanted BusyboxImage, layers []layer) ocispec.Descriptor {
	w.t.Helper()
	image := ocispec.Image{Platform: wanted.Platform, Config: wanted.Config, RootFS: ocispec.RootFS{Type: "layers"}}
	if image.Architecture == "" {
		image.Platform = ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}
	}
	manifest := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	for _, l := range layers {
		image.RootFS.DiffIDs = append(image.RootFS.DiffIDs, l.diff)
		manifest.Layers = append(manifest.Layers, l.desc)
	}
	manifest.Config = w.blob(ocispec.MediaTypeImageConfig, w.json(image))
	desc := w.blob(ocispec.MediaTypeImageManifest, w.json(manifest))
	desc.Platform = &image.Platform
	return desc
}

// platforms makes one image of one manifest for each platform.
func (w *layoutWriter) platforms(manifests []ocispec.Descriptor) ocispec.Descriptor {
	w.t.Helper()
	if len(manifests) == 1 {
		single := manifests[0]
		single.Platform = nil
		return single
	}
	return w.blob(ocispec.MediaTypeImageIndex, w.json(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: manifests,
	}))
}

func (w *layoutWriter) blob(mediaType string, content []byte) ocispec.Descriptor {
	w.t.Helper()
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(content), Size: int64(len(content))}
	w.write(filepath.Join(ocispec.ImageBlobsDir, string(desc.Digest.Algorithm()), desc.Digest.Encoded()), content)
	return desc
}

func (w *layoutWriter) json(value any) []byte {
	w.t.Helper()
	return jsonOf(w.t, value)
}

func jsonOf(t testing.TB, value any) []byte {
	t.Helper()
	content, err := json.Marshal(value)
	if err != nil {
		t.Fatalf("harness: encode: %v", err)
	}
	return content
}

func (w *layoutWriter) write(name string, content []byte) {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	w.check(os.MkdirAll(filepath.Dir(path), 0o755))
	w.check(os.WriteFile(path, content, 0o644))
}

func (w *layoutWriter) check(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatalf("harness: make busybox image: %v", err)
	}
}

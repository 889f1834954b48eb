package store

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/shoenig/test"
	"github.com/shoenig/test/must"
)

// readTar returns the names in their order and the contents.
func readTar(t *testing.T, raw []byte) (names []string, files map[string][]byte) {
	t.Helper()
	files = map[string][]byte{}
	tr := tar.NewReader(bytes.NewReader(raw))
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return names, files
		}
		must.NoError(t, err)
		content, err := io.ReadAll(tr)
		must.NoError(t, err)
		names = append(names, h.Name)
		files[h.Name] = content
	}
}

func TestExportIsBothKindsOfArchive(t *testing.T) {
	t.Parallel()
	l := newTestLayout(t)
	root := pushImage(t, l, "one", "two")
	must.NoError(t, l.Tag(t.Context(), root, "team:3"))
	names, files := readTar(t, exportBytes(t, l, "team:3", ExportName("promptflow.local/environment/team:3")))
	test.Eq(t, []string{"oci-layout", "index.json", "manifest.json", "blobs/", "blobs/sha256/"}, names[:5])

	var index ocispec.Index
	must.NoError(t, json.Unmarshal(files["index.json"], &index))
	must.Len(t, 1, index.Manifests)
	test.Eq(t, root.Digest, index.Manifests[0].Digest)
	test.Eq(t, map[string]string{
		"org.opencontainers.image.ref.name": "team:3",
		"io.containerd.image.name":          "promptflow.local/environment/team:3",
	}, index.Manifests[0].Annotations)

	var docker []map[string]any
	must.NoError(t, json.Unmarshal(files["manifest.json"], &docker))
	must.Len(t, 1, docker)
	test.Eq(t, []any{"promptflow.local/environment/team:3"}, docker[0]["RepoTags"].([]any))
	test.Eq(t, []any{blobName(digest.FromString("one")), blobName(digest.FromString("two"))}, docker[0]["Layers"].([]any))
	test.Eq(t, "one", string(files[blobName(digest.FromString("one"))]))
	test.Eq(t, `{"architecture":"amd64","os":"linux"}`, string(files[docker[0]["Config"].(string)]))
}

func TestExportGivesTheSameBytesWhateverTheOrder(t *testing.T) {
	t.Parallel()
	a, b := newTestLayout(t), newTestLayout(t)
	must.NoError(t, a.Tag(t.Context(), pushImage(t, a, "one", "two"), "x"))
	pushImage(t, b, "two")
	root := pushImage(t, b, "one", "two")
	must.NoError(t, b.Tag(t.Context(), root, "other"))
	must.NoError(t, b.Tag(t.Context(), root, "x"))
	must.Eq(t, exportBytes(t, a, "x"), exportBytes(t, b, "x"))
}

func TestExportOfAnArtifactIsNoDockerArchive(t *testing.T) {
	t.Parallel()
	l := newTestLayout(t)
	config, err := l.PushBytes(t.Context(), ocispec.MediaTypeEmptyJSON, []byte("{}"))
	must.NoError(t, err)
	raw, err := json.Marshal(ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, ArtifactType: "application/x-test", Config: config})
	must.NoError(t, err)
	root, err := l.PushBytes(t.Context(), ocispec.MediaTypeImageManifest, raw)
	must.NoError(t, err)
	must.NoError(t, l.Tag(t.Context(), root, "artifact"))
	names, _ := readTar(t, exportBytes(t, l, "artifact"))
	must.SliceNotContains(t, names, "manifest.json")
}

func TestExportStopsAtADamagedBlob(t *testing.T) {
	t.Parallel()
	l := newTestLayout(t)
	must.NoError(t, l.Tag(t.Context(), pushImage(t, l, "good"), "x"))
	layer := l.blobPath(digest.FromString("good"))
	must.NoError(t, os.Chmod(layer, 0o644))
	must.NoError(t, os.WriteFile(layer, []byte("evil"), 0o644))
	must.ErrorIs(t, l.Export(t.Context(), "x", io.Discard), ErrCorrupt)
}

func TestImportRoundTrip(t *testing.T) {
	t.Parallel()
	from, to := newTestLayout(t), newTestLayout(t)
	root := pushImage(t, from, "one", "two")
	must.NoError(t, from.Tag(t.Context(), root, "team:3"))
	archive := exportBytes(t, from, "team:3")
	tags, err := to.Import(t.Context(), bytes.NewReader(archive))
	must.NoError(t, err)
	test.Eq(t, []string{"team:3"}, tags)
	test.Eq(t, archive, exportBytes(t, to, "team:3"))
}

func TestImportReplacesATag(t *testing.T) {
	t.Parallel()
	from, to := newTestLayout(t), newTestLayout(t)
	root := pushImage(t, from, "new")
	must.NoError(t, from.Tag(t.Context(), root, "x"))
	must.NoError(t, to.Tag(t.Context(), pushImage(t, to, "old"), "x"))
	_, err := to.Import(t.Context(), bytes.NewReader(exportBytes(t, from, "x")))
	must.NoError(t, err)
	got, err := to.Resolve(t.Context(), "x")
	must.NoError(t, err)
	must.Eq(t, root.Digest, got.Digest)
}

func TestImportOfABadArchiveLeavesNothing(t *testing.T) {
	t.Parallel()
	from := newTestLayout(t)
	must.NoError(t, from.Tag(t.Context(), pushImage(t, from, "one", "two"), "x"))
	good := exportBytes(t, from, "x")
	names, files := readTar(t, good)

	rebuild := func(edit func(name string, content []byte) (string, []byte)) []byte {
		var out bytes.Buffer
		tw := tar.NewWriter(&out)
		for _, name := range names {
			if len(name) > 0 && name[len(name)-1] == '/' {
				continue
			}
			newName, content := edit(name, files[name])
			if newName == "" {
				continue
			}
			must.NoError(t, tw.WriteHeader(&tar.Header{Name: newName, Typeflag: tar.TypeReg, Size: int64(len(content)), Mode: 0o644}))
			_, err := tw.Write(content)
			must.NoError(t, err)
		}
		must.NoError(t, tw.Close())
		return out.Bytes()
	}
	two := blobName(digest.FromString("two"))
	tests := map[string]struct {
		archive []byte
		want    error
	}{
		"cut off": {good[:len(good)-1024-511], ErrCorrupt},
		"no tar":  {bytes.Repeat([]byte("no tar "), 200), ErrCorrupt},
		"empty":   {nil, ErrCorrupt},
		"damaged blob": {rebuild(func(name string, content []byte) (string, []byte) {
			if name == two {
				return name, []byte("2wo")
			}
			return name, content
		}), ErrCorrupt},
		"missing blob": {rebuild(func(name string, content []byte) (string, []byte) {
			if name == two {
				return "", nil
			}
			return name, content
		}), ErrNotFound},
		"missing index": {rebuild(func(name string, content []byte) (string, []byte) {
			if name == "index.json" {
				return "", nil
			}
			return name, content
		}), ErrCorrupt},
		"blob that climbs out": {rebuild(func(name string, content []byte) (string, []byte) {
			if name == two {
				return "blobs/sha256/../../../evil", content
			}
			return name, content
		}), ErrNotFound},
		"blob with a strange name": {rebuild(func(name string, content []byte) (string, []byte) {
			if name == two {
				return "blobs/sha256/evil", content
			}
			return name, content
		}), ErrCorrupt},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newTestLayout(t)
			_, err := l.Import(t.Context(), bytes.NewReader(tc.archive))
			must.ErrorIs(t, err, tc.want)
			test.SliceEmpty(t, blobFiles(t, l))
			tags, err := l.Tags(t.Context())
			must.NoError(t, err)
			test.SliceEmpty(t, tags)
		})
	}
}

func TestAFailedImportKeepsWhatOthersUse(t *testing.T) {
	t.Parallel()
	from, to := newTestLayout(t), newTestLayout(t)
	must.NoError(t, from.Tag(t.Context(), pushImage(t, from, "one", "two"), "x"))
	must.NoError(t, to.Tag(t.Context(), pushImage(t, to, "one"), "y"))
	archive := exportBytes(t, from, "x")
	_, err := to.Import(t.Context(), bytes.NewReader(archive[:len(archive)-1024-511]))
	must.Error(t, err)
	_, err = to.closure(t.Context(), mustResolve(t, to, "y"))
	must.NoError(t, err)
}

func mustResolve(t *testing.T, l *Layout, ref string) ocispec.Descriptor {
	t.Helper()
	desc, err := l.Resolve(t.Context(), ref)
	must.NoError(t, err)
	return desc
}

package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/shoenig/test"
	"github.com/shoenig/test/must"
)

func newTestLayout(t *testing.T) *Layout {
	t.Helper()
	l, err := CreateLayout(filepath.Join(t.TempDir(), "layout"))
	must.NoError(t, err)
	return l
}

// pushImage stores an image of one config and the given layers and returns its manifest.
func pushImage(t *testing.T, l *Layout, layers ...string) ocispec.Descriptor {
	t.Helper()
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	var err error
	m.Config, err = l.PushBytes(t.Context(), ocispec.MediaTypeImageConfig, []byte(`{"architecture":"amd64","os":"linux"}`))
	must.NoError(t, err)
	for _, layer := range layers {
		desc, err := l.PushBytes(t.Context(), ocispec.MediaTypeImageLayerGzip, []byte(layer))
		must.NoError(t, err)
		m.Layers = append(m.Layers, desc)
	}
	raw, err := json.Marshal(m)
	must.NoError(t, err)
	desc, err := l.PushBytes(t.Context(), ocispec.MediaTypeImageManifest, raw)
	must.NoError(t, err)
	return desc
}

func TestOpenLayoutMakesNothing(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "none")
	_, err := OpenLayout(dir)
	must.ErrorIs(t, err, ErrNotFound)
	_, err = os.Stat(dir)
	must.ErrorIs(t, err, os.ErrNotExist)
}

func TestOpenLayoutOfBrokenFiles(t *testing.T) {
	t.Parallel()
	for name, content := range map[string]string{
		"oci-layout": `{"imageLayoutVersion":"9.0.0"}`,
		"index.json": `{"manifests":[`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newTestLayout(t)
			must.NoError(t, os.WriteFile(filepath.Join(l.Dir(), name), []byte(content), 0o644))
			_, err := OpenLayout(l.Dir())
			must.ErrorIs(t, err, ErrCorrupt)
		})
	}
}

func TestCreateLayoutRefusesAFolderInUse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	must.NoError(t, os.WriteFile(filepath.Join(dir, "thesis.txt"), nil, 0o644))
	_, err := CreateLayout(dir)
	must.ErrorContains(t, err, "thesis.txt")
	_, err = os.Stat(filepath.Join(dir, "oci-layout"))
	must.ErrorIs(t, err, os.ErrNotExist)
}

func TestTagAndResolve(t *testing.T) {
	t.Parallel()
	l := newTestLayout(t)
	first, second := pushImage(t, l, "one"), pushImage(t, l, "two")
	must.NoError(t, l.Tag(t.Context(), first, "default:latest"))
	must.NoError(t, l.Tag(t.Context(), first, "default:1"))
	must.NoError(t, l.Tag(t.Context(), second, "default:latest"))

	// A second opening sees what was written, as another process would.
	again, err := OpenLayout(l.Dir())
	must.NoError(t, err)
	tags, err := again.Tags(t.Context())
	must.NoError(t, err)
	test.Eq(t, []string{"default:1", "default:latest"}, tags)
	for ref, want := range map[string]digest.Digest{
		"default:latest":       second.Digest,
		"default:1":            first.Digest,
		first.Digest.String():  first.Digest,
		second.Digest.String(): second.Digest,
	} {
		got, err := again.Resolve(t.Context(), ref)
		must.NoError(t, err)
		test.Eq(t, want, got.Digest)
		test.Nil(t, got.Annotations)
	}
	_, err = again.Resolve(t.Context(), "default:2")
	must.ErrorIs(t, err, ErrNotFound)
}

func TestTagRefusesHalfAnImage(t *testing.T) {
	t.Parallel()
	l := newTestLayout(t)
	desc := pushImage(t, l, "the only layer")
	layer := l.blobPath(digest.FromString("the only layer"))

	must.NoError(t, os.Chmod(layer, 0o644))
	must.NoError(t, os.Truncate(layer, 3))
	must.ErrorIs(t, l.Tag(t.Context(), desc, "x"), ErrCorrupt)

	must.NoError(t, os.Remove(layer))
	must.ErrorIs(t, l.Tag(t.Context(), desc, "x"), ErrNotFound)
	_, err := l.Resolve(t.Context(), "x")
	must.ErrorIs(t, err, ErrNotFound)
}

func TestPushMendsATruncatedBlob(t *testing.T) {
	t.Parallel()
	l := newTestLayout(t)
	desc := pushImage(t, l, "the only layer")
	layer := l.blobPath(digest.FromString("the only layer"))
	must.NoError(t, os.Chmod(layer, 0o644))
	must.NoError(t, os.Truncate(layer, 3))
	pushImage(t, l, "the only layer")
	must.NoError(t, l.Tag(t.Context(), desc, "x"))
}

func TestRemoveKeepsWhatATagLeadsTo(t *testing.T) {
	t.Parallel()
	l := newTestLayout(t)
	old, current := pushImage(t, l, "shared", "old"), pushImage(t, l, "shared", "new")
	must.NoError(t, l.Tag(t.Context(), old, "old"))
	must.NoError(t, l.Tag(t.Context(), current, "x"))
	before := blobFiles(t, l)
	must.NoError(t, l.Remove(t.Context(), old))
	must.Eq(t, before, blobFiles(t, l), must.Sprint("a tagged image"))

	must.NoError(t, l.Tag(t.Context(), current, "old"))
	must.NoError(t, l.Remove(t.Context(), old))
	must.Len(t, len(before)-2, blobFiles(t, l), must.Sprint("the old manifest and the old layer go"))
	_, err := l.closure(t.Context(), current)
	must.NoError(t, err)
}

func TestTagRefusesWhatIsNoTag(t *testing.T) {
	t.Parallel()
	l := newTestLayout(t)
	desc := pushImage(t, l, "layer")
	for _, ref := range []string{"", desc.Digest.String()} {
		must.ErrorContains(t, l.Tag(t.Context(), desc, ref), "is no tag")
	}
}

func TestConcurrentTagsAreAllKept(t *testing.T) {
	t.Parallel()
	l := newTestLayout(t)
	desc := pushImage(t, l, "layer")
	want := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
	var wg sync.WaitGroup
	for _, tag := range want {
		wg.Go(func() {
			// One layout each, as processes have.
			own, err := OpenLayout(l.Dir())
			test.NoError(t, err)
			test.NoError(t, own.Tag(t.Context(), desc, tag))
		})
	}
	wg.Wait()
	tags, err := l.Tags(t.Context())
	must.NoError(t, err)
	must.Eq(t, want, tags)
}

func TestWaitingForTheLockEndsWithTheContext(t *testing.T) {
	t.Parallel()
	l := newTestLayout(t)
	desc := pushImage(t, l, "layer")
	unlock, err := l.lock(t.Context())
	must.NoError(t, err)
	defer unlock()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Tag(ctx, desc, "x") }()
	cancel()
	must.ErrorIs(t, <-done, context.Canceled)
}

func TestPushKeepsOnlyWhatWasPromised(t *testing.T) {
	t.Parallel()
	whole := "the content of the blob"
	desc := ocispec.Descriptor{MediaType: "text/plain", Digest: digest.FromString(whole), Size: int64(len(whole))}
	broken := errors.New("the network went away")
	tests := map[string]struct {
		content io.Reader
		want    error
	}{
		"too short":     {strings.NewReader(whole[:5]), ErrCorrupt},
		"too long":      {strings.NewReader(whole + "!"), ErrCorrupt},
		"other content": {strings.NewReader(strings.ToUpper(whole)), ErrCorrupt},
		"broken off":    {io.MultiReader(strings.NewReader(whole[:5]), errorReader{broken}), broken},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newTestLayout(t)
			must.ErrorIs(t, l.Push(t.Context(), desc, tc.content), tc.want)
			must.SliceEmpty(t, blobFiles(t, l))
		})
	}
}

func TestPushEndsWithItsContext(t *testing.T) {
	t.Parallel()
	l := newTestLayout(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	desc := ocispec.Descriptor{Digest: digest.FromString("x"), Size: 1}
	must.ErrorIs(t, l.Push(ctx, desc, strings.NewReader("x")), context.Canceled)
	must.SliceEmpty(t, blobFiles(t, l))
}

func TestFetchTellsWhenABlobWasDamaged(t *testing.T) {
	t.Parallel()
	l := newTestLayout(t)
	desc, err := l.PushBytes(t.Context(), "text/plain", []byte("good content"))
	must.NoError(t, err)
	raw, err := l.FetchAll(t.Context(), desc)
	must.NoError(t, err)
	must.Eq(t, "good content", string(raw))

	must.NoError(t, os.Chmod(l.blobPath(desc.Digest), 0o644))
	must.NoError(t, os.WriteFile(l.blobPath(desc.Digest), []byte("evil content"), 0o644))
	_, err = l.FetchAll(t.Context(), desc)
	must.ErrorIs(t, err, ErrCorrupt)
	must.ErrorContains(t, err, desc.Digest.String())
	must.ErrorIs(t, l.Export(t.Context(), desc.Digest.String(), io.Discard), ErrNotFound)
}

func TestFetchOfNothing(t *testing.T) {
	t.Parallel()
	l := newTestLayout(t)
	_, err := l.Fetch(t.Context(), ocispec.Descriptor{Digest: digest.FromString("never stored"), Size: 12})
	must.ErrorIs(t, err, ErrNotFound)
}

func TestAFullDiskIsSaidSo(t *testing.T) {
	t.Parallel()
	f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	must.NoError(t, err)
	t.Cleanup(func() { _ = f.Close() })
	_, err = io.Copy(f, strings.NewReader("x"))
	must.ErrorContains(t, explain(err, "/var/lib/x"), "the disk that holds /var/lib/x is full")
}

type errorReader struct{ err error }

func (e errorReader) Read([]byte) (int, error) { return 0, e.err }

// blobFiles lists all blobs and everything half written.
func blobFiles(t *testing.T, l *Layout) []string {
	t.Helper()
	var files []string
	for _, dir := range []string{"blobs", "ingest"} {
		err := filepath.WalkDir(filepath.Join(l.Dir(), dir), func(path string, d os.DirEntry, err error) error {
			if errors.Is(err, os.ErrNotExist) {
				return nil
			}
			if err == nil && !d.IsDir() {
				files = append(files, filepath.Base(path))
			}
			return err
		})
		must.NoError(t, err)
	}
	return files
}

func exportBytes(t *testing.T, l *Layout, ref string, options ...ExportOption) []byte {
	t.Helper()
	var out bytes.Buffer
	must.NoError(t, l.Export(t.Context(), ref, &out, options...))
	return out.Bytes()
}

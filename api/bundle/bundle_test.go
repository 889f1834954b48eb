package bundle

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/shoenig/test"
	"github.com/shoenig/test/must"
)

// folder makes a flow folder of the given files.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		must.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	}
	return dir
}

func pack(t *testing.T, dir string) (string, []byte) {
	t.Helper()
	var out bytes.Buffer
	name, _, err := Pack(t.Context(), dir, &out)
	must.NoError(t, err)
	return name, out.Bytes()
}

func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	must.NoError(t, fs.WalkDir(os.DirFS(dir), ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := os.ReadFile(filepath.Join(dir, path))
		files[path] = string(data)
		return err
	}))
	return files
}

var sample = map[string]string{"flow.dag.yaml": "nodes: []\n", "a/b.py": "print()\n", "data/ü.txt": strings.Repeat("x", 10_000), "empty": ""}

func TestPack_is_the_same_wherever_and_whenever(t *testing.T) {
	t.Parallel()
	first, firstBytes := pack(t, folder(t, sample))
	second := folder(t, sample)
	must.NoError(t, os.Chmod(filepath.Join(second, "a/b.py"), 0o755))
	must.NoError(t, os.Chtimes(filepath.Join(second, "empty"), time.Unix(1, 0), time.Unix(2, 0)))
	for _, left := range []string{".git/config", "a/__pycache__/b.cpython-311.pyc", ".promptflow/flow.tools.json", ".venv/x", "a/c.pyc"} {
		must.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(second, left)), 0o755))
		must.NoError(t, os.WriteFile(filepath.Join(second, left), []byte("x"), 0o600))
	}
	name, data := pack(t, second)
	test.Eq(t, first, name)
	test.Eq(t, firstBytes, data)
	digest, err := Digest(t.Context(), second)
	must.NoError(t, err)
	test.Eq(t, first, digest)

	changed, _ := pack(t, folder(t, map[string]string{"flow.dag.yaml": "nodes: [] "}))
	test.NotEq(t, first, changed)
}

func TestUnpack_gives_the_packed_files_back(t *testing.T) {
	t.Parallel()
	name, data := pack(t, folder(t, sample))
	dir := filepath.Join(t.TempDir(), "flows", "x")
	must.NoError(t, Unpack(t.Context(), bytes.NewReader(data), dir, name, DefaultLimits))
	test.Eq(t, sample, contents(t, dir))
}

func TestPack_refuses(t *testing.T) {
	t.Parallel()
	t.Run("a folder without a flow", func(t *testing.T) {
		_, err := Digest(t.Context(), folder(t, map[string]string{"readme.md": "", "sub/flow.dag.yaml": ""}))
		must.ErrorIs(t, err, ErrNoFlow)
		test.ErrorContains(t, err, "looked for flow.dag.yaml")
	})
	t.Run("a link", func(t *testing.T) {
		dir := folder(t, sample)
		must.NoError(t, os.Symlink("/etc/passwd", filepath.Join(dir, "link")))
		_, err := Digest(t.Context(), dir)
		must.ErrorIs(t, err, ErrInvalid)
		test.ErrorContains(t, err, "link is a symbolic link")
	})
	t.Run("a folder that is not there", func(t *testing.T) {
		_, err := Digest(t.Context(), "/nonexistent")
		must.ErrorIs(t, err, os.ErrNotExist)
	})
	t.Run("an ended context", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := Digest(ctx, folder(t, sample))
		must.ErrorIs(t, err, context.Canceled)
	})
}

// archive makes a compressed tar of headers, and its name.
func archive(t testing.TB, headers ...*tar.Header) (string, []byte) {
	t.Helper()
	var plain bytes.Buffer
	w := tar.NewWriter(&plain)
	for _, h := range headers {
		must.NoError(t, w.WriteHeader(h))
		_, err := w.Write(bytes.Repeat([]byte("x"), int(h.Size)))
		must.NoError(t, err)
	}
	must.NoError(t, w.Close())
	return named(plain.Bytes()), compress(t, plain.Bytes())
}

func named(plain []byte) string {
	sum := sha256.Sum256(plain)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func compress(t testing.TB, plain []byte) []byte {
	t.Helper()
	encoder, err := zstd.NewWriter(nil)
	must.NoError(t, err)
	return encoder.EncodeAll(plain, nil)
}

func file(name string, size int64) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644}
}

func TestUnpack_refuses_and_leaves_nothing(t *testing.T) {
	t.Parallel()
	flow := file("flow.dag.yaml", 3)
	small := Limits{Bytes: 100, Files: 3, Path: 40, Depth: 2}
	tests := []struct {
		name    string
		headers []*tar.Header
		says    string
		large   bool
	}{
		{name: "a path upwards", headers: []*tar.Header{flow, file("../x", 1)}, says: `path "../x" leaves`},
		{name: "a path upwards inside", headers: []*tar.Header{flow, file("a/../../x", 1)}, says: "leaves"},
		{name: "an absolute path", headers: []*tar.Header{flow, file("/etc/x", 1)}, says: "leaves"},
		{name: "a path in another form", headers: []*tar.Header{flow, file("a//b", 1)}, says: "plain form"},
		{name: "a backslash", headers: []*tar.Header{flow, file(`a\b`, 1)}, says: "plain form"},
		{name: "a symbolic link", headers: []*tar.Header{flow, {Typeflag: tar.TypeSymlink, Name: "l", Linkname: "/etc"}}, says: "no regular file"},
		{name: "a hard link", headers: []*tar.Header{flow, {Typeflag: tar.TypeLink, Name: "l", Linkname: "flow.dag.yaml"}}, says: "no regular file"},
		{name: "a device", headers: []*tar.Header{flow, {Typeflag: tar.TypeChar, Name: "d"}}, says: "no regular file"},
		{name: "a folder", headers: []*tar.Header{flow, {Typeflag: tar.TypeDir, Name: "d/"}}, says: "no regular file"},
		{name: "a path twice", headers: []*tar.Header{flow, flow}, says: "twice"},
		{name: "a file that is a folder too", headers: []*tar.Header{flow, file("flow.dag.yaml/x", 1)}, says: "twice"},
		{name: "too many bytes", headers: []*tar.Header{flow, file("big", 101)}, says: "more than 0 MiB", large: true},
		{name: "too many files", headers: []*tar.Header{flow, file("a", 0), file("b", 0), file("c", 0)}, says: "more than 3 files", large: true},
		{name: "a long path", headers: []*tar.Header{flow, file(strings.Repeat("p", 41), 0)}, says: "path of 41 bytes", large: true},
		{name: "a deep path", headers: []*tar.Header{flow, file("a/b/c/d", 0)}, says: "folders deep", large: true},
		{name: "no flow", headers: []*tar.Header{file("readme", 1)}, says: "no flow found"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			parent := t.TempDir()
			name, data := archive(t, tc.headers...)
			err := Unpack(t.Context(), bytes.NewReader(data), filepath.Join(parent, "flow"), name, small)
			must.ErrorIs(t, err, ErrInvalid)
			test.ErrorContains(t, err, tc.says)
			if tc.large {
				test.ErrorIs(t, err, ErrTooLarge)
			}
			test.MapEmpty(t, contents(t, parent))
			left, rerr := os.ReadDir(parent)
			must.NoError(t, rerr)
			test.SliceEmpty(t, left)
		})
	}
}

func TestUnpack_refuses_streams_that_are_not_what_they_say(t *testing.T) {
	t.Parallel()
	name, data := archive(t, file("flow.dag.yaml", 3))
	other, _ := archive(t, file("flow.dag.yaml", 4))
	long := bytes.Repeat([]byte{0}, 3<<20)
	tests := []struct {
		name, digest, says string
		data               []byte
	}{
		{name: "another bundle's name", digest: other, data: data, says: "not " + other},
		{name: "cut short", digest: name, data: data[:len(data)/2], says: "broken stream"},
		{name: "not compressed", digest: name, data: []byte("hello"), says: "broken stream"},
		{name: "nothing", digest: name, data: nil, says: "no flow found"},
		{name: "a name that is none", digest: "sha256:../../etc", data: data, says: "64 hex digits"},
		{name: "another kind of name", digest: "md5:d41d8cd98f00b204e9800998ecf8427e", data: data, says: "64 hex digits"},
		{name: "zeros without end", digest: named(long), data: compress(t, long), says: "goes on"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			parent := t.TempDir()
			limits := Limits{Bytes: 1 << 20, Files: 10, Path: 100, Depth: 5}
			err := Unpack(t.Context(), bytes.NewReader(tc.data), filepath.Join(parent, "flow"), tc.digest, limits)
			must.ErrorIs(t, err, ErrInvalid)
			test.ErrorContains(t, err, tc.says)
			left, rerr := os.ReadDir(parent)
			must.NoError(t, rerr)
			test.SliceEmpty(t, left)
		})
	}
}

func TestUnpack_stops_with_its_context(t *testing.T) {
	t.Parallel()
	name, data := archive(t, file("flow.dag.yaml", 3))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := Unpack(ctx, bytes.NewReader(data), filepath.Join(t.TempDir(), "flow"), name, DefaultLimits)
	must.ErrorIs(t, err, context.Canceled)
	test.False(t, strings.Contains(err.Error(), ErrInvalid.Error()))
}

func FuzzUnpack(f *testing.F) {
	name, data := archive(f, file("flow.dag.yaml", 3), file("a/b", 20))
	f.Add(data)
	f.Add(compress(f, []byte("not a tar")))
	random := make([]byte, 2048)
	for i := range random {
		random[i] = byte(rand.Uint32())
	}
	f.Add(random)
	limits := Limits{Bytes: 1 << 16, Files: 8, Path: 100, Depth: 4}
	f.Fuzz(func(t *testing.T, data []byte) {
		parent := t.TempDir()
		dir := filepath.Join(parent, "flow")
		err := Unpack(t.Context(), bytes.NewReader(data), dir, name, limits)
		if err == nil {
			return
		}
		left, rerr := os.ReadDir(parent)
		must.NoError(t, rerr)
		must.SliceEmpty(t, left)
	})
}

// FuzzUnpackTar is FuzzUnpack behind compression and name: tars of strangers, under their right names.
func FuzzUnpackTar(f *testing.F) {
	flow := file("flow.dag.yaml", 3)
	for _, headers := range [][]*tar.Header{
		{flow}, {flow, file("a/b", 20), file("a/c", 0)}, {flow, file("../x", 1)}, {flow, file("flow.dag.yaml/x", 1)}, {flow, {Typeflag: tar.TypeSymlink, Name: "l", Linkname: "/etc"}},
		{file("a.prompty", 1), file(strings.Repeat("p", 99), 1)}, {flow, {Typeflag: tar.TypeReg, Name: "x", Size: 1 << 40}},
	} {
		var plain bytes.Buffer
		w := tar.NewWriter(&plain)
		for _, h := range headers {
			if w.WriteHeader(h) == nil && h.Size < 100 {
				_, _ = w.Write(bytes.Repeat([]byte("x"), int(h.Size)))
			}
		}
		_ = w.Flush()
		f.Add(plain.Bytes())
	}
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	must.NoError(f, err)
	limits := Limits{Bytes: 1 << 16, Files: 8, Path: 100, Depth: 4}
	f.Fuzz(func(t *testing.T, plain []byte) {
		parent := t.TempDir()
		dir := filepath.Join(parent, "flow")
		err := Unpack(t.Context(), bytes.NewReader(encoder.EncodeAll(plain, nil)), dir, named(plain), limits)
		left, rerr := os.ReadDir(parent)
		must.NoError(t, rerr)
		if err != nil {
			must.ErrorIs(t, err, ErrInvalid)
			must.SliceEmpty(t, left)
			return
		}
		must.SliceLen(t, 1, left)
		files, total := 0, int64(0)
		must.NoError(t, filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			must.True(t, entry.Type().IsRegular())
			info, err := entry.Info()
			files, total = files+1, total+info.Size()
			return err
		}))
		must.LessEq(t, limits.Files, files)
		must.LessEq(t, limits.Bytes, total)
	})
}

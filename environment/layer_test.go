package environment

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"
)

func packAll(t *testing.T, root string, skip func(string, fs.DirEntry) bool) (blobInfo, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "layer.tar.gz")
	tr := tree{root: root, skip: skip}
	info, err := writeLayer(t.Context(), path, nil, tr.write)
	must.NoError(t, err)
	return info, path
}

func keepAll(string, fs.DirEntry) bool { return false }

// makeTree makes the same files in the given order, with times of now.
func makeTree(t *testing.T, names ...string) string {
	t.Helper()
	root := t.TempDir()
	must.NoError(t, os.Mkdir(filepath.Join(root, "bin"), 0o755))
	for _, name := range names {
		must.NoError(t, os.WriteFile(filepath.Join(root, "bin", name), []byte("content of "+name), 0o755))
	}
	must.NoError(t, os.Chmod(filepath.Join(root, "bin", names[0]), 0o755))
	must.NoError(t, os.Symlink("bin", filepath.Join(root, "link")))
	return root
}

func TestATreeGivesTheSameLayerWheneverItIsMade(t *testing.T) {
	t.Parallel()
	one := makeTree(t, "a", "b", "c")
	two := makeTree(t, "c", "b", "a")
	long := time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC)
	must.NoError(t, os.Chtimes(filepath.Join(two, "bin", "a"), long, long))
	first, _ := packAll(t, one, keepAll)
	second, _ := packAll(t, two, keepAll)
	must.Eq(t, first, second)

	must.NoError(t, os.Chmod(filepath.Join(two, "bin", "b"), 0o700))
	third, _ := packAll(t, two, keepAll)
	must.NotEq(t, first.digest, third.digest)
	must.NotEq(t, first.diffID, third.diffID)
}

func TestWhatALayerSaysOfItsFiles(t *testing.T) {
	t.Parallel()
	root := makeTree(t, "a", "b")
	must.NoError(t, os.Link(filepath.Join(root, "bin", "a"), filepath.Join(root, "bin", "z")))
	must.NoError(t, os.Chmod(filepath.Join(root, "bin", "b"), 0o755|fs.ModeSetuid))
	must.NoError(t, os.Mkdir(filepath.Join(root, "tmp"), 0o755))
	must.NoError(t, os.Chmod(filepath.Join(root, "tmp"), 0o777|fs.ModeSticky))
	must.NoError(t, os.WriteFile(filepath.Join(root, "tmp", "left"), nil, 0o644))
	info, path := packAll(t, root, func(name string, _ fs.DirEntry) bool { return filepath.Dir(name) == "tmp" })

	owner := fmt.Sprintf("%d:%d", os.Getuid(), os.Getgid())
	want := []string{
		"bin/ 755 dir  " + owner,
		"bin/a 755 file  " + owner,
		"bin/b 4755 file  " + owner,
		"bin/z 755 hardlink bin/a " + owner,
		"link 777 symlink bin " + owner,
		"tmp/ 1777 dir  " + owner,
	}
	var got []string
	types := map[byte]string{tar.TypeDir: "dir", tar.TypeReg: "file", tar.TypeLink: "hardlink", tar.TypeSymlink: "symlink"}
	headers := readLayer(t, path, func(h *tar.Header, _ io.Reader) {
		got = append(got, fmt.Sprintf("%s %o %s %s %d:%d", h.Name, h.Mode, types[h.Typeflag], h.Linkname, h.Uid, h.Gid))
		test.Eq(t, sourceDate, h.ModTime.UTC())
		test.Eq(t, "", h.Uname+h.Gname)
	})
	test.Eq(t, want, got)
	test.Eq(t, 6, headers)
	stat, err := os.Stat(path)
	must.NoError(t, err)
	test.Eq(t, stat.Size(), info.size)
	sum, err := fileDigest(path)
	must.NoError(t, err)
	test.Eq(t, "sha256:"+sum, info.digest)
}

func readLayer(t *testing.T, path string, see func(*tar.Header, io.Reader)) (count int) {
	t.Helper()
	f, err := os.Open(path)
	must.NoError(t, err)
	defer func() { _ = f.Close() }()
	zr, err := gzip.NewReader(f)
	must.NoError(t, err)
	tr := tar.NewReader(zr)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return count
		}
		must.NoError(t, err)
		count++
		see(h, tr)
	}
}

func TestPackingEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	tr := tree{root: makeTree(t, "a"), skip: keepAll}
	_, err := writeLayer(ctx, filepath.Join(t.TempDir(), "x"), nil, tr.write)
	must.ErrorIs(t, err, context.Canceled)
}

func TestSkipOutside(t *testing.T) {
	t.Parallel()
	skip := skipOutside("usr/local", map[string]bool{"usr/local/man": true})
	for name, want := range map[string]bool{
		"usr": false, "usr/local": false, "usr/local/bin/pip": false,
		"usr/local/man": true, "usr/lib": true, "usr/localhost": true, "etc": true, "us": true,
	} {
		test.Eq(t, want, skip(name, nil), test.Sprintf("%s", name))
	}
}

func TestSkipRootfs(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{
		"dev": false, "dev/null": true, "tmp": false, "tmp/x": true, "var/tmp": false, "var/tmp/x": false,
		"etc/resolv.conf": true, "etc/passwd": false, "mnt/compile.py": true,
	} {
		test.Eq(t, want, skipRootfs(name, nil), test.Sprintf("%s", name))
	}
}

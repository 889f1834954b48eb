package bundle

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// Pack writes the compressed bundle of a flow folder to w and returns its name and the uncompressed size.
func Pack(ctx context.Context, dir string, w io.Writer) (name string, size int64, err error) {
	compressor, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return "", 0, fmt.Errorf("pack %s: %w", dir, err)
	}
	name, size, err = writeTar(ctx, dir, compressor)
	if err := errors.Join(err, compressor.Close()); err != nil {
		return "", 0, fmt.Errorf("pack %s: %w", dir, err)
	}
	return name, size, nil
}

// Digest returns the name that the bundle of a flow folder has.
func Digest(ctx context.Context, dir string) (string, error) {
	name, _, err := writeTar(ctx, dir, io.Discard)
	if err != nil {
		return "", fmt.Errorf("digest %s: %w", dir, err)
	}
	return name, nil
}

// writeTar writes the canonical tar and names it.
func writeTar(ctx context.Context, dir string, w io.Writer) (string, int64, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", 0, err
	}
	defer func() { _ = root.Close() }()
	files, err := list(root)
	if err != nil {
		return "", 0, err
	}
	hash := sha256.New()
	counter := &countingWriter{to: io.MultiWriter(hash, w)}
	archive := tar.NewWriter(counter)
	for _, file := range files {
		if err := ctx.Err(); err != nil {
			return "", 0, err
		}
		if err := addFile(archive, root, file); err != nil {
			return "", 0, err
		}
	}
	if err := archive.Close(); err != nil {
		return "", 0, err
	}
	return "sha256:" + hex.EncodeToString(hash.Sum(nil)), counter.count, nil
}

// list returns the paths of the files to pack, sorted, with forward slashes.
func list(root *os.Root) ([]string, error) {
	var files []string
	var bytes int64
	found := false
	err := fs.WalkDir(root.FS(), ".", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case path == ".":
			return nil
		case leftOut(entry.Name()) && entry.IsDir():
			return fs.SkipDir
		case leftOut(entry.Name()), entry.IsDir():
			return nil
		case !entry.Type().IsRegular():
			return invalid("%s is %s: a flow may hold regular files only; copy what it points to into the folder", path, kind(entry.Type()))
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		bytes += info.Size()
		files = append(files, path)
		found = found || isFlowFile(path)
		return DefaultLimits.check(len(files), bytes, path)
	})
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, fmt.Errorf("%w in %s: looked for flow.dag.yaml, flow.flex.yaml and *.prompty; name the folder that holds one", ErrNoFlow, root.Name())
	}
	sort.Strings(files)
	return files, nil
}

// check says which limit is passed with this path.
func (l Limits) check(files int, bytes int64, path string) error {
	switch {
	case files > l.Files:
		return tooLarge("more than %d files", l.Files)
	case bytes > l.Bytes:
		return tooLarge("more than %d MiB", l.Bytes>>20)
	case len(path) > l.Path:
		return tooLarge("path of %d bytes, more than %d: %.80s…", len(path), l.Path, path)
	case strings.Count(path, "/") > l.Depth:
		return tooLarge("path more than %d folders deep: %.80s…", l.Depth, path)
	default:
		return nil
	}
}

func kind(mode fs.FileMode) string {
	switch {
	case mode&fs.ModeSymlink != 0:
		return "a symbolic link"
	case mode&fs.ModeNamedPipe != 0:
		return "a named pipe"
	case mode&fs.ModeSocket != 0:
		return "a socket"
	default:
		return "a device"
	}
}

func addFile(archive *tar.Writer, root *os.Root, path string) error {
	file, err := root.Open(filepath.FromSlash(path))
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	// Nothing but path, size and content: modes, owners and times differ from checkout to checkout.
	if err := archive.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: path, Size: info.Size(), Mode: 0o644, Format: tar.FormatPAX}); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if _, err := io.Copy(archive, io.LimitReader(file, info.Size())); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

type countingWriter struct {
	to    io.Writer
	count int64
}

func (w *countingWriter) Write(data []byte) (int, error) {
	n, err := w.to.Write(data)
	w.count += int64(n)
	return n, err
}

package bundle

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// Options say what a bundle holds beside what is in the folder. The zero value: nothing.
type Options struct {
	// File is the flow's file in the folder where it has none of the usual names.
	File string
	// Includes are files and folders outside of the folder, as the additional_includes of a flow write them: relative to the folder,
	// or absolute. They are put at the bundle's top by their base name; x.zip that is not there packs the folder x.
	Includes []string
	// Warn is told of a file whose place an include takes; nil: nobody is.
	Warn func(text string)
}

// Pack writes the compressed bundle of a flow folder to w and returns its name and the uncompressed size.
func Pack(ctx context.Context, dir string, w io.Writer) (name string, size int64, err error) {
	return PackWith(ctx, dir, Options{}, w)
}

// PackWith is Pack with options.
func PackWith(ctx context.Context, dir string, o Options, w io.Writer) (name string, size int64, err error) {
	compressor, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return "", 0, fmt.Errorf("pack %s: %w", dir, err)
	}
	name, size, err = writeTar(ctx, dir, o, compressor)
	if err := errors.Join(err, compressor.Close()); err != nil {
		return "", 0, fmt.Errorf("pack %s: %w", dir, err)
	}
	return name, size, nil
}

// Digest returns the name that the bundle of a flow folder has.
func Digest(ctx context.Context, dir string) (string, error) {
	name, _, err := writeTar(ctx, dir, Options{}, io.Discard)
	if err != nil {
		return "", fmt.Errorf("digest %s: %w", dir, err)
	}
	return name, nil
}

// writeTar writes the canonical tar and names it.
func writeTar(ctx context.Context, dir string, o Options, w io.Writer) (string, int64, error) {
	c, err := gather(dir, o)
	if err != nil {
		return "", 0, err
	}
	defer c.close()
	hash := sha256.New()
	counter := &countingWriter{to: io.MultiWriter(hash, w)}
	archive := tar.NewWriter(counter)
	for _, path := range c.paths() {
		if err := ctx.Err(); err != nil {
			return "", 0, err
		}
		if err := addFile(archive, path, c.files[path]); err != nil {
			return "", 0, err
		}
	}
	if err := archive.Close(); err != nil {
		return "", 0, err
	}
	return "sha256:" + hex.EncodeToString(hash.Sum(nil)), counter.count, nil
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

func addFile(archive *tar.Writer, path string, from source) error {
	content, size, err := from.open()
	if err != nil {
		return err
	}
	defer func() { _ = content.Close() }()
	// Nothing but path, size and content: modes, owners and times differ from checkout to checkout.
	if err := archive.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: path, Size: size, Mode: 0o644, Format: tar.FormatPAX}); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if _, err := io.Copy(archive, io.LimitReader(content, size)); err != nil {
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

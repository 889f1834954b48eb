package bundle

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/klauspost/compress/zstd"
)

// maxWindow bounds the memory that a compressed stream may ask for.
const maxWindow = 64 << 20

// Unpack reads the compressed bundle called name into the folder dir, which must not exist yet. The folder appears whole or not at
// all. Errors about the bundle itself wrap [ErrInvalid].
func Unpack(ctx context.Context, r io.Reader, dir, name string, limits Limits) error {
	want, err := ParseDigest(name)
	if err != nil {
		return err
	}
	parent := filepath.Dir(dir)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return fmt.Errorf("unpack bundle: %w", err)
	}
	staging, err := os.MkdirTemp(parent, ".unpacking-")
	if err != nil {
		return fmt.Errorf("unpack bundle: %w", full(parent, err))
	}
	defer func() { _ = os.RemoveAll(staging) }()
	got, err := unpackInto(ctx, r, staging, limits)
	if err != nil {
		return fmt.Errorf("unpack bundle %s: %w", name, full(parent, err))
	}
	if got != want {
		return fmt.Errorf("unpack bundle: %w", invalid("its content is sha256:%s, not %s: send it again under its own name", got, name))
	}
	if err := os.Chmod(staging, 0o755); err != nil {
		return fmt.Errorf("unpack bundle: %w", err)
	}
	if err := os.Rename(staging, dir); err != nil {
		return fmt.Errorf("unpack bundle: %w", err)
	}
	return nil
}

// full says in words that a disk is full.
func full(dir string, err error) error {
	if errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("the disk of %s is full: free space there and try again: %w", dir, err)
	}
	return err
}

// Name returns the name of a compressed bundle by its content. What is in it is not looked at: that is for [Unpack].
func Name(ctx context.Context, r io.Reader, limits Limits) (string, error) {
	decompressor, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
	if err != nil {
		return "", err
	}
	defer decompressor.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, bounded(ctx, decompressor, limits)); err != nil {
		return "", fmt.Errorf("read bundle: %w", asInvalid(err))
	}
	return "sha256:" + hex.EncodeToString(hash.Sum(nil)), nil
}

// bounded ends a stream at what a bundle within the limits can be at most: files, their headers and padding.
func bounded(ctx context.Context, r io.Reader, limits Limits) io.Reader {
	return &boundedReader{from: r, left: limits.Bytes + int64(limits.Files)*4096 + 1<<20, ctx: ctx}
}

// unpackInto unpacks all files and returns the hex digest of the uncompressed stream.
func unpackInto(ctx context.Context, r io.Reader, dir string, limits Limits) (string, error) {
	decompressor, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
	if err != nil {
		return "", err
	}
	defer decompressor.Close()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", err
	}
	defer func() { _ = root.Close() }()

	hash := sha256.New()
	stream := io.TeeReader(bounded(ctx, decompressor, limits), hash)
	archive := tar.NewReader(stream)
	u := unpacker{root: root, limits: limits}
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return "", asInvalid(err)
		}
		if err := u.add(header, archive); err != nil {
			return "", err
		}
	}
	// What follows the end of the tar belongs to the digest as well.
	if _, err := io.Copy(io.Discard, stream); err != nil {
		return "", asInvalid(err)
	}
	if !u.flow {
		return "", invalid("%w: looked for *.yaml, *.yml and *.prompty", ErrNoFlow)
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}

// asInvalid marks errors of the stream's own form.
func asInvalid(err error) error {
	if errors.Is(err, ErrInvalid) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return invalid("broken stream: %w", err)
}

type unpacker struct {
	root   *os.Root
	limits Limits
	files  int
	bytes  int64
	flow   bool
}

func (u *unpacker) add(header *tar.Header, content io.Reader) error {
	if header.Typeflag != tar.TypeReg {
		return invalid("%q is no regular file: links, folders and devices are not allowed", header.Name)
	}
	name := header.Name
	if !filepath.IsLocal(name) || path.Clean(name) != name || strings.ContainsAny(name, "\\\x00") || name == "." {
		return invalid("path %q leaves the flow's folder or is not in its plain form", name)
	}
	u.files++
	u.bytes += header.Size
	if err := u.limits.check(u.files, u.bytes, name); err != nil {
		return err
	}
	u.flow = u.flow || mayBeFlowFile(name)
	if err := u.root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return conflict(name, err)
	}
	file, err := u.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return conflict(name, err)
	}
	_, err = io.Copy(file, content)
	if err := errors.Join(readError(err), file.Close()); err != nil {
		return err
	}
	return nil
}

// conflict tells a bundle that names a path twice, or as file and folder, from a disk's own trouble.
func conflict(name string, err error) error {
	if errors.Is(err, os.ErrExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.EISDIR) {
		return invalid("path %q is there twice", name)
	}
	return err
}

// readError leaves errors of the disk as they are and marks those of the stream.
func readError(err error) error {
	var pathError *os.PathError
	if err == nil || errors.As(err, &pathError) {
		return err
	}
	return asInvalid(err)
}

// boundedReader ends a stream that is too long, or whose reader does not want it any more.
type boundedReader struct {
	from io.Reader
	left int64
	ctx  context.Context
}

func (r *boundedReader) Read(data []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	if r.left <= 0 {
		return 0, tooLarge("the stream goes on after everything that a bundle may hold")
	}
	n, err := r.from.Read(data[:min(int64(len(data)), r.left)])
	r.left -= int64(n)
	return n, err
}

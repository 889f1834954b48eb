package gateway

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/klauspost/compress/zstd"

	"github.com/nomad-promptflow/nomad-promptflow/api/bundle"
)

const (
	// bundleSuffix is that of a whole bundle's file; partial ones have another.
	bundleSuffix  = ".tar.zst"
	partialPrefix = ".new-"
	// maxWindow bounds the memory that a compressed stream may ask for.
	maxWindow = 64 << 20
)

// errUnknownBundle says that a bundle is not in the cache.
var errUnknownBundle = errors.New("unknown bundle")

// errBundleTooLarge says that a bundle has more bytes on the wire than allowed.
var errBundleTooLarge = fmt.Errorf("%w: %w", bundle.ErrInvalid, bundle.ErrTooLarge)

// bundles is a cache of packed bundles on disk, a file each, as they came over the wire. When it grows over its bound, those that
// were unused for longest go; the clients hand them in again.
type bundles struct {
	dir     string
	remove  bool  // dir in the end
	limit   int64 // bytes of all
	largest int64 // bytes of one

	mu    sync.Mutex
	known map[string]*cached // by digest
	total int64
	clock uint64
}

type cached struct {
	size int64
	used uint64
}

// openBundles makes the cache's folder, or takes over what an earlier gateway left in it.
func openBundles(c Config) (*bundles, error) {
	b := &bundles{dir: c.Bundles, limit: c.MaxBundles, largest: c.MaxBundle, known: map[string]*cached{}}
	if b.dir == "" {
		dir, err := os.MkdirTemp("", "promptflow-gateway-")
		if err != nil {
			return nil, fmt.Errorf("make bundle folder: %w", err)
		}
		b.dir, b.remove = dir, true
		return b, nil
	}
	if err := os.MkdirAll(b.dir, 0o700); err != nil {
		return nil, fmt.Errorf("make bundle folder: %w: name a folder that can be written", err)
	}
	entries, err := os.ReadDir(b.dir)
	if err != nil {
		return nil, fmt.Errorf("read bundle folder: %w", err)
	}
	for _, e := range entries {
		if err := b.adopt(e); err != nil {
			return nil, fmt.Errorf("read bundle folder: %w", err)
		}
	}
	b.evict("")
	return b, nil
}

// adopt takes over a bundle and removes a partial one; what is not ours stays.
func (b *bundles) adopt(e os.DirEntry) error {
	if strings.HasPrefix(e.Name(), partialPrefix) {
		return os.Remove(filepath.Join(b.dir, e.Name()))
	}
	digest := "sha256:" + strings.TrimSuffix(e.Name(), bundleSuffix)
	if _, err := bundle.ParseDigest(digest); err != nil || !strings.HasSuffix(e.Name(), bundleSuffix) {
		return nil //nolint:nilerr // not ours
	}
	info, err := e.Info()
	if err != nil {
		return err
	}
	b.known[digest] = &cached{size: info.Size()}
	b.total += info.Size()
	return nil
}

func (b *bundles) path(digest string) string {
	return filepath.Join(b.dir, strings.TrimPrefix(digest, "sha256:")+bundleSuffix)
}

// open returns a bundle's file, to read it from its start, or errUnknownBundle.
func (b *bundles) open(digest string) (*os.File, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	one := b.known[digest]
	if one == nil {
		return nil, errUnknownBundle
	}
	file, err := os.Open(b.path(digest))
	if errors.Is(err, os.ErrNotExist) { // somebody cleaned up
		b.forget(digest)
		return nil, errUnknownBundle
	}
	if err != nil {
		return nil, fmt.Errorf("open bundle %s: %w", digest, err)
	}
	b.clock++
	one.used = b.clock
	return file, nil
}

func (b *bundles) has(digest string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.known[digest] != nil
}

// forget drops a bundle from the table. b.mu is held.
func (b *bundles) forget(digest string) {
	b.total -= b.known[digest].size
	delete(b.known, digest)
}

// put stores a bundle and returns its digest, which must be want unless that is empty. It is stored whole or not at all.
func (b *bundles) put(ctx context.Context, r io.Reader, want string) (digest string, err error) {
	file, err := os.CreateTemp(b.dir, partialPrefix)
	if err != nil {
		return "", fmt.Errorf("store bundle: %w", err)
	}
	defer func() { _ = os.Remove(file.Name()) }() // nothing is there after a success
	digest, size, err := b.write(ctx, file, r)
	if err == nil {
		err = file.Sync() // an upload is cheaper to repeat than a broken bundle is to find
	}
	if err := errors.Join(err, file.Close()); err != nil {
		return "", fmt.Errorf("store bundle: %w", err)
	}
	if want != "" && digest != want {
		return "", fmt.Errorf("store bundle: %w: its content is %s, not %s", bundle.ErrInvalid, digest, want)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := os.Rename(file.Name(), b.path(digest)); err != nil {
		return "", fmt.Errorf("store bundle: %w", err)
	}
	if b.known[digest] != nil {
		b.forget(digest)
	}
	b.clock++
	b.known[digest] = &cached{size: size, used: b.clock}
	b.total += size
	b.evict(digest)
	return digest, nil
}

// write copies a compressed bundle to a file and names its content.
func (b *bundles) write(ctx context.Context, file io.Writer, r io.Reader) (digest string, size int64, err error) {
	wire := &wire{ctx: ctx, from: r, to: file, left: b.largest}
	plain, err := zstd.NewReader(wire, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
	if err != nil {
		return "", 0, err
	}
	defer plain.Close()
	hash := sha256.New()
	limits := bundle.DefaultLimits
	most := limits.Bytes + int64(limits.Files)*4096 + 1<<20 // headers and padding too
	n, err := io.Copy(hash, io.LimitReader(plain, most+1))
	switch {
	case wire.err != nil:
		return "", 0, wire.err
	case err != nil:
		return "", 0, fmt.Errorf("%w: broken stream: %w", bundle.ErrInvalid, err)
	case n > most:
		return "", 0, fmt.Errorf("%w: more than %d MiB unpacked", errBundleTooLarge, most>>20)
	case n == 0:
		return "", 0, fmt.Errorf("%w: it is empty", bundle.ErrInvalid)
	}
	return "sha256:" + hex.EncodeToString(hash.Sum(nil)), b.largest - wire.left, nil
}

// wire copies what is read to a file and keeps the errors of both ends apart from those of the content.
type wire struct {
	ctx  context.Context
	from io.Reader
	to   io.Writer
	left int64
	err  error
}

func (w *wire) Read(data []byte) (int, error) {
	if w.err = w.ctx.Err(); w.err != nil {
		return 0, w.err
	}
	n, err := w.from.Read(data)
	if w.left -= int64(n); w.left < 0 {
		w.err = fmt.Errorf("%w: too many bytes on the wire", errBundleTooLarge)
		return 0, w.err
	}
	if _, werr := w.to.Write(data[:n]); werr != nil {
		w.err = werr
		return 0, werr
	}
	if err != nil && !errors.Is(err, io.EOF) {
		w.err = &readError{err}
		return n, w.err
	}
	return n, err
}

// readError is one of the client's end.
type readError struct{ error }

func (e *readError) Unwrap() error { return e.error }

// evict removes bundles beyond the bound, but for the one named. b.mu is held.
func (b *bundles) evict(keep string) {
	for b.total > b.limit {
		oldest := ""
		for digest, one := range b.known {
			if digest != keep && (oldest == "" || one.used < b.known[oldest].used) {
				oldest = digest
			}
		}
		if oldest == "" {
			return
		}
		_ = os.Remove(b.path(oldest)) // who reads it now keeps it until the end
		b.forget(oldest)
	}
}

func (b *bundles) close() error {
	if !b.remove {
		return nil
	}
	return os.RemoveAll(b.dir)
}

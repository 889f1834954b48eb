package environment

import (
	"archive/tar"
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/klauspost/compress/gzip"
)

// sourceDate is the modification time of everything in the base image, so that two builds are equal. It is a fixed date, not the
// commit's, because a new commit with the same inputs must give the same layers.
var sourceDate = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// Level 6 of klauspost's gzip: a third of the standard library's time for 3 % more bytes (measured on the layer of Python packages:
// 2.6 s and 74.1 MB against 8.3 s and 72.2 MB). gzip and not zstd, because `docker load` before version 23 knows no other.
const gzipLevel = 6

// blobInfo describes a layer file that was written.
type blobInfo struct {
	digest, diffID     string
	size, uncompressed int64
}

// writeLayer writes a compressed layer to path, with what fill puts into the tar. progress is told the uncompressed bytes so far.
func writeLayer(ctx context.Context, path string, progress func(int64), fill func(*tar.Writer) error) (info blobInfo, err error) {
	f, err := os.Create(path)
	if err != nil {
		return blobInfo{}, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	packed := newCounter(f)
	buffered := bufio.NewWriterSize(packed, 1<<20)
	zw, err := gzip.NewWriterLevel(buffered, gzipLevel)
	if err != nil {
		return blobInfo{}, err
	}
	plain := newCounter(zw)
	plain.ctx, plain.progress = ctx, progress
	tw := tar.NewWriter(plain)
	if err := fill(tw); err != nil {
		return blobInfo{}, err
	}
	for _, finish := range []func() error{tw.Close, zw.Close, buffered.Flush} {
		if err := finish(); err != nil {
			return blobInfo{}, err
		}
	}
	return blobInfo{digest: packed.digest(), diffID: plain.digest(), size: packed.n, uncompressed: plain.n}, nil
}

// counter hashes and counts what goes through it.
type counter struct {
	w        io.Writer
	hash     hash.Hash
	n        int64
	ctx      context.Context
	progress func(int64)
	told     int64
}

func newCounter(w io.Writer) *counter { return &counter{w: w, hash: sha256.New()} }

// progressStep is how many bytes lie between two reports.
const progressStep = 4 << 20

func (c *counter) Write(p []byte) (int, error) {
	if c.ctx != nil && c.ctx.Err() != nil {
		return 0, c.ctx.Err()
	}
	n, err := c.w.Write(p)
	c.hash.Write(p[:n])
	c.n += int64(n)
	if c.progress != nil && c.n-c.told >= progressStep {
		c.told = c.n
		c.progress(c.n)
	}
	return n, err
}

func (c *counter) digest() string { return "sha256:" + hex.EncodeToString(c.hash.Sum(nil)) }

// tree writes a folder into a tar, the same bytes for the same content: sorted, with numeric owners and one time.
type tree struct {
	root string
	// skip says what is left out; of a folder, everything below it too. Names are relative to root.
	skip  func(name string, d fs.DirEntry) bool
	links map[[2]uint64]string
}

func (t *tree) write(tw *tar.Writer) error {
	t.links = map[[2]uint64]string{}
	return filepath.WalkDir(t.root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(t.root, path)
		if err != nil || name == "." {
			return err
		}
		if t.skip(name, d) {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if err := t.entry(tw, path, name, d); err != nil {
			return fmt.Errorf("pack %s: %w", name, err)
		}
		return nil
	})
}

func (t *tree) entry(tw *tar.Writer, path, name string, d fs.DirEntry) error {
	info, err := d.Info()
	if err != nil {
		return err
	}
	link := ""
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		if link, err = os.Readlink(path); err != nil {
			return err
		}
	case !info.IsDir() && !info.Mode().IsRegular():
		// Devices, sockets and pipes are the engine's to make.
		return nil
	}
	h, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return err
	}
	stat := info.Sys().(*syscall.Stat_t)
	h = &tar.Header{
		Typeflag: h.Typeflag, Name: name, Linkname: link, Mode: h.Mode, Size: h.Size,
		Uid: int(stat.Uid), Gid: int(stat.Gid), ModTime: sourceDate,
	}
	if info.IsDir() {
		h.Name += "/"
	}
	if first := t.seen(stat, name); first != "" && info.Mode().IsRegular() {
		h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
		return tw.WriteHeader(h)
	}
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return nil
	}
	return copyFile(tw, path)
}

// seen returns the first name of a file that has several.
func (t *tree) seen(stat *syscall.Stat_t, name string) string {
	if stat.Nlink < 2 {
		return ""
	}
	key := [2]uint64{stat.Dev, stat.Ino}
	if first, ok := t.links[key]; ok {
		return first
	}
	t.links[key] = name
	return ""
}

func copyFile(w io.Writer, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	_, err = io.Copy(w, f)
	return err
}

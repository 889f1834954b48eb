package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"syscall"

	"github.com/klauspost/compress/zstd"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/api/bundle"
)

// unpack unpacks a bundle into a folder that does not exist yet, within the bytes that this instance may keep.
func unpack(ctx context.Context, r io.Reader, dir, digest string, most int64) error {
	limits := bundle.DefaultLimits
	limits.Bytes = min(limits.Bytes, most)
	return bundle.Unpack(ctx, r, dir, digest, limits)
}

// digestOf returns the name of a bundle file: the digest of its uncompressed content.
func digestOf(ctx context.Context, path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	plain, err := zstd.NewReader(file, zstd.WithDecoderMaxMemory(64<<20), zstd.WithDecoderConcurrency(1))
	if err != nil {
		return "", fmt.Errorf("read bundle %s: %w", path, err)
	}
	defer plain.Close()
	h := sha256.New()
	for {
		n, err := io.CopyN(h, plain, 4<<20)
		if errors.Is(err, io.EOF) && n >= 0 {
			return "sha256:" + hex.EncodeToString(h.Sum(nil)), nil
		}
		if err != nil {
			return "", fmt.Errorf("read bundle %s: %w: name a flow folder or a bundle file with PROMPTFLOW_FLOW", path, err)
		}
		if err := ctx.Err(); err != nil {
			return "", err
		}
	}
}

// uploadError gives a failed upload its status.
func uploadError(err error, limit int64) error {
	var known *api.Error
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &known):
		return err
	case errors.As(err, &tooLarge):
		return bodyError(err, limit)
	case errors.Is(err, syscall.ENOSPC):
		return storeError(err)
	case errors.Is(err, bundle.ErrTooLarge):
		return fault([]string{"BundleTooLarge"}, http.StatusRequestEntityTooLarge, "The bundle is too large: %v. Please leave out what the flow does not need.", err)
	case errors.Is(err, bundle.ErrInvalid):
		return fault([]string{"InvalidBundle"}, http.StatusBadRequest, "The bundle is not valid: %v. Please pack the flow folder again.", err)
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, context.Canceled), errors.Is(err, os.ErrDeadlineExceeded):
		return fault([]string{"BadRequest"}, http.StatusBadRequest, "The upload broke off: %v. Please send the bundle again.", err)
	default:
		return storeError(err)
	}
}

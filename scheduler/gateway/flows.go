package gateway

import (
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/valyala/fasthttp"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/api/bundle"
)

// unreadAtMost is how much of an upload that is not needed is read, so that a short one need not break off.
const unreadAtMost = 256 << 10

// putFlow takes a bundle of the given name, or of any where it is empty: 201 when it is new, 200 when it was here already.
func (g *Gateway) putFlow(ctx *fasthttp.RequestCtx, digest string) *api.Error {
	if digest != "" {
		if _, err := bundle.ParseDigest(digest); err != nil {
			return fault("InvalidDigest", http.StatusBadRequest, "%q is not the digest of a bundle. Please send 'sha256:' and 64 hexadecimal digits.", digest)
		}
		if g.bundles.has(digest) {
			_, _ = io.CopyN(io.Discard, uploaded(ctx), unreadAtMost)
			answer(ctx, http.StatusOK, map[string]string{"digest": digest})
			return nil
		}
	}
	if g.draining.Load() {
		return stopping()
	}
	if int64(ctx.Request.Header.ContentLength()) > g.config.MaxBundle {
		return g.bundleTooLarge()
	}
	digest, err := g.bundles.put(g.life, uploaded(ctx), digest)
	if err != nil {
		ctx.SetConnectionClose() // it was not read to its end
		return g.uploadFailed(err)
	}
	ctx.Response.Header.Set("Location", "/v1/flows/"+digest)
	answer(ctx, http.StatusCreated, map[string]string{"digest": digest})
	return nil
}

// uploaded is a request's body. A body that ends before its length is an error.
func uploaded(ctx *fasthttp.RequestCtx) io.Reader {
	stream := ctx.RequestBodyStream()
	if stream == nil {
		return http.NoBody
	}
	return &whole{from: stream, left: int64(ctx.Request.Header.ContentLength())}
}

// whole reports a body that is cut short; fasthttp does not.
type whole struct {
	from io.Reader
	left int64 // negative from the start: unknown
}

func (w *whole) Read(data []byte) (int, error) {
	n, err := w.from.Read(data)
	if w.left < 0 {
		return n, err
	}
	w.left -= int64(n)
	if errors.Is(err, io.EOF) && w.left > 0 {
		err = fmt.Errorf("%d bytes are missing: %w", w.left, io.ErrUnexpectedEOF)
	}
	return n, err
}

func (g *Gateway) bundleTooLarge() *api.Error {
	return fault("BundleTooLarge", http.StatusRequestEntityTooLarge, "The bundle has more than %d bytes. Please leave out what the flow does not need.", g.config.MaxBundle)
}

// uploadFailed gives a failed upload its status.
func (g *Gateway) uploadFailed(err error) *api.Error {
	var read *readError
	switch {
	case g.life.Err() != nil:
		return stopping()
	case isTimeout(err):
		return fault("RequestTimeout", http.StatusRequestTimeout, "The bundle did not come in time. Please send it again.")
	case errors.As(err, &read):
		return fault("BadRequest", http.StatusBadRequest, "The upload broke off: %v. Please send the bundle again.", read)
	case diskFull(err):
		return fault("StorageFull", http.StatusInsufficientStorage, "The gateway's disk is full. Please free space in its bundle folder and send the bundle again.")
	case errors.Is(err, bundle.ErrTooLarge):
		return fault("BundleTooLarge", http.StatusRequestEntityTooLarge, "The bundle is too large: %v. Please leave out what the flow does not need.", err)
	case errors.Is(err, bundle.ErrInvalid):
		return fault("InvalidBundle", http.StatusBadRequest, "The bundle is not valid: %v. Please pack the flow folder again.", err)
	default:
		return fault("StorageError", http.StatusInsufficientStorage, "The bundle could not be stored: %v. Please tell the gateway's operator.", err)
	}
}

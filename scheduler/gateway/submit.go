package gateway

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/nomad-promptflow/nomad-promptflow/api"
)

// route is what is asked of an instance.
type route int

const (
	routeRuns route = iota
	routeScore
	routeValidate
	routeFeedback
	routeSwagger
	routes // how many there are
)

// instancePaths are where instances answer, by route.
var instancePaths = [routes]string{
	routeRuns: "/v1/runs", routeScore: "/score", routeValidate: "/v1/validate", routeFeedback: "/feedback", routeSwagger: "/swagger.json",
}

// maxPooled is the size up to which a submission's buffers are used again.
const maxPooled = 1 << 20

// submission is one request on its way to an instance.
type submission struct {
	gateway *Gateway
	pool    *pool
	client  *fasthttp.RequestCtx
	route   route
	flow    string // digest, or "" when it is not known
	*buffers

	ctx    context.Context // ends when the client goes away or the gateway stops
	cancel context.CancelCauseFunc
	watch  *watch

	asked    time.Time // when the last instance was
	tried    []int
	failures []string // of the tried instances
	refusal  bool     // the answer so far is an instance's refusal
}

// buffers are a submission's memory.
type buffers struct {
	body bytes.Buffer
	head []byte
}

var bufferPool = sync.Pool{New: func() any { return new(buffers) }}

func (b *buffers) free() {
	if b.body.Cap()+cap(b.head) <= maxPooled {
		b.body.Reset()
		bufferPool.Put(b)
	}
}

// submit forwards a request to an instance of the runtime.
func (g *Gateway) submit(client *fasthttp.RequestCtx, p *pool, r route) *api.Error {
	if g.draining.Load() {
		return stopping()
	}
	memory, _ := bufferPool.Get().(*buffers)
	if e := readBody(client, &memory.body, g.config.MaxBody); e != nil {
		memory.free()
		return e
	}
	s := &submission{gateway: g, pool: p, client: client, route: r, buffers: memory}
	if r == routeRuns || r == routeValidate {
		s.flow = topLevelString(s.body.Bytes(), "flow")
	}
	s.ctx, s.cancel = context.WithCancelCause(g.life)
	s.watch = watchClient(client.Conn(), func() { s.cancel(errGone) })
	streams := false
	defer func() {
		if !streams { // else the stream's end is the submission's
			s.end()
		}
	}()
	var e *api.Error
	streams, e = s.forward()
	return e
}

// end frees everything; the client's connection may be read again.
func (s *submission) end() {
	s.watch.stop()
	s.cancel(nil)
	s.free()
}

// readBody reads a request's body within the bound.
func readBody(ctx *fasthttp.RequestCtx, into *bytes.Buffer, limit int64) *api.Error {
	stream := ctx.RequestBodyStream()
	if stream == nil {
		return nil
	}
	size := int64(ctx.Request.Header.ContentLength())
	if size > limit {
		return tooLarge(limit)
	}
	if size >= 0 {
		into.Grow(int(min(size, maxPooled)) + bytes.MinRead) // not what is claimed, but what has come
	}
	n, err := into.ReadFrom(io.LimitReader(stream, limit+1))
	switch {
	case err != nil:
		return brokenBody(ctx, err)
	case n > limit:
		ctx.SetConnectionClose()
		return tooLarge(limit)
	case size >= 0 && n < size:
		return brokenBody(ctx, io.ErrUnexpectedEOF)
	}
	return nil
}

func tooLarge(limit int64) *api.Error {
	return fault("RequestTooLarge", fasthttp.StatusRequestEntityTooLarge, "The request's body has more than %d bytes. Please send less.", limit)
}

func brokenBody(ctx *fasthttp.RequestCtx, err error) *api.Error {
	ctx.SetConnectionClose()
	if isTimeout(err) {
		return fault("RequestTimeout", fasthttp.StatusRequestTimeout, "The request's body did not come in time. Please send it again.")
	}
	return fault("BadRequest", fasthttp.StatusBadRequest, "The request's body could not be read: %v. Please send it again.", err)
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// request writes the request for an instance: all of it, or for a large body its header and the body apart.
func (s *submission) request(l *line) (head, body []byte) {
	h := s.head[:0]
	h = append(h, s.client.Method()...)
	h = append(h, ' ')
	h = append(h, instancePaths[s.route]...)
	if query := s.client.URI().QueryString(); len(query) > 0 && bytes.IndexFunc(query, notInURL) < 0 {
		h = append(append(h, '?'), query...)
	}
	h = append(h, l.head...)
	for key, value := range s.client.Request.Header.All() {
		if passedOn(key) {
			h = append(h, key...)
			h = append(h, ": "...)
			h = append(h, value...)
			h = append(h, "\r\n"...)
		}
	}
	body = s.body.Bytes()
	h = append(h, "Content-Length: "...)
	h = strconv.AppendInt(h, int64(len(body)), 10)
	h = append(h, "\r\n\r\n"...)
	if len(h)+len(body) <= oneWrite {
		h, body = append(h, body...), nil
	}
	s.head = h
	return h, body
}

// notInURL reports what would end a request's line.
func notInURL(r rune) bool { return r <= ' ' || r == 0x7F }

// passedOn reports whether an instance sees this header of a request. Who asked the gateway is not the instance's to know: the
// instance trusts the gateway, by the token of its own.
func passedOn(key []byte) bool {
	switch string(key) { // compiled without a copy
	case "Content-Type", "Content-Encoding", "Accept", "User-Agent", "X-Request-Id", "X-Ms-Client-Request-Id",
		"Traceparent", "Tracestate", "Baggage", "Origin", "Access-Control-Request-Method", "Access-Control-Request-Headers":
		return true
	}
	return false
}

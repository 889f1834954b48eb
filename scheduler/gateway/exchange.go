package gateway

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http/httputil"
	"time"

	"github.com/valyala/fasthttp"
)

const (
	// sendTimeout bounds the writing of a submission to an instance.
	sendTimeout = time.Minute
	// lateAnswer is how long to wait for the answer of an instance that closed before it had read everything.
	lateAnswer = time.Second
	// maxBuffered is the size up to which an answer is read before it is passed on; larger ones stream.
	maxBuffered = 64 << 10
	// oneWrite is the size up to which header and body are put together for one write.
	oneWrite = 64 << 10
	// maxInterim bounds the 1xx answers before the real one.
	maxInterim = 8
)

// notSentError is that of a submission that cannot have begun: it did not reach the instance, or not as a whole.
type notSentError struct{ error }

func (e *notSentError) Unwrap() error { return e.error }

func notSent(err error) bool {
	var e *notSentError
	return errors.As(err, &e)
}

// exchange sends a request to an instance and reads the header of its answer into response, and the body too when it is small.
// A larger body is left as a stream; rest is not nil then and must be closed. The exchange ends early when ctx does.
func (l *line) exchange(ctx context.Context, head, body []byte, response *fasthttp.Response, timeout time.Duration) (rest *stream, err error) {
	c, err := l.get(ctx)
	if err != nil {
		return nil, &notSentError{err}
	}
	release := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	err = c.send(ctx, head, body)
	if err == nil {
		err = c.receive(ctx, response, time.Now().Add(timeout))
	} else if c.receive(ctx, response, time.Now().Add(lateAnswer)) == nil {
		err = nil
		response.Header.SetConnectionClose() // what is left of the request would be read as another
	}
	if err == nil {
		rest, err = c.body(response)
	}
	switch {
	case err != nil:
		release()
		_ = c.Close()
		return nil, err
	case rest != nil:
		rest.release, rest.line, rest.keep = release, l, !response.ConnectionClose()
		return rest, nil
	default:
		l.settle(c, release(), !response.ConnectionClose())
		return nil, nil
	}
}

// settle keeps a connection whose exchange is complete, unless it may not be used again.
func (l *line) settle(c *conn, untouched, keep bool) {
	if keep && untouched && c.reader.Buffered() == 0 {
		l.put(c)
		return
	}
	_ = c.Close()
}

// send writes a request. If it fails, the instance has not got all of it.
func (c *conn) send(ctx context.Context, head, body []byte) error {
	err := c.SetWriteDeadline(time.Now().Add(sendTimeout))
	if err := errors.Join(err, ctx.Err()); err != nil {
		return &notSentError{err}
	}
	if len(body) == 0 {
		_, err = c.Write(head)
	} else {
		parts := net.Buffers{head, body}
		_, err = parts.WriteTo(c.Conn)
	}
	if err != nil {
		return &notSentError{err}
	}
	return nil
}

// receive reads the header of an answer.
func (c *conn) receive(ctx context.Context, response *fasthttp.Response, until time.Time) error {
	err := c.SetReadDeadline(until)
	// Whoever ended ctx before this line has set a deadline that we have just overwritten.
	if err := errors.Join(err, ctx.Err()); err != nil {
		return err
	}
	for range maxInterim {
		if _, err := c.reader.Peek(1); err != nil { // the header's reader hides why
			return err
		}
		if err := response.Header.Read(c.reader); err != nil {
			return err
		}
		if status := response.StatusCode(); status >= 200 {
			return nil
		} else if status == fasthttp.StatusSwitchingProtocols {
			return errors.New("it switched to another protocol")
		}
	}
	return errors.New("it sends interim answers without end")
}

// body reads a small body, or returns the stream of a larger one.
func (c *conn) body(response *fasthttp.Response) (*stream, error) {
	size := response.Header.ContentLength()
	status := response.StatusCode()
	switch {
	case status == fasthttp.StatusNoContent || status == fasthttp.StatusNotModified:
		response.SkipBody = true
		return nil, nil
	case size >= 0 && size <= maxBuffered:
		return nil, response.ReadBody(c.reader, maxBuffered)
	case size >= 0:
		return &stream{from: io.LimitReader(c.reader, int64(size)), conn: c, left: size, size: size}, nil
	case size == -1:
		return &stream{from: httputil.NewChunkedReader(c.reader), conn: c, size: -1}, nil
	default:
		return &stream{from: c.reader, conn: c, size: -1}, nil
	}
}

// stream is the body of a large answer on its way to the client. Its connection is used again when the body's size was known and all
// of it was read.
type stream struct {
	from    io.Reader
	conn    *conn
	line    *line
	release func() bool
	size    int // -1: unknown
	left    int // of a known size
	keep    bool
	ended   func()
	going   func() // called before more is passed on; nil: nothing
	closed  bool
}

func (s *stream) Read(data []byte) (int, error) {
	n, err := s.from.Read(data)
	if s.going != nil {
		s.going()
	}
	if s.size < 0 {
		return n, err
	}
	s.left -= n
	if errors.Is(err, io.EOF) && s.left > 0 {
		err = io.ErrUnexpectedEOF // never a short answer that looks whole
	}
	return n, err
}

// Close ends the exchange.
func (s *stream) Close() error {
	if s.closed {
		return nil
	}
	s.closed = true
	untouched := s.release()
	s.line.settle(s.conn, untouched, s.keep && s.size >= 0 && s.left == 0)
	if s.ended != nil {
		s.ended()
	}
	return nil
}

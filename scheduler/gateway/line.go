package gateway

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/scheduler/catalog"
)

const (
	dialTimeout = 3 * time.Second
	// maxIdle bounds the connections to one instance that wait for work.
	maxIdle = 256
	// idleFor is how long they wait: less than the runtime's own bound, so that the runtime is not the one to close them.
	idleFor = time.Minute
	// answerBuffer is the read buffer of a connection; a header must fit into it.
	answerBuffer = 16 << 10
)

// line is the way to one instance: connections that are used again and again.
type line struct {
	instance catalog.Instance
	where    catalog.Address
	dialer   net.Dialer
	uploads  http.Client // for bundles
	head     []byte      // of requests behind the path: everything that is the same each time

	mu     sync.Mutex
	idle   []*conn // the longest idle first
	closed bool
}

// conn is one connection to an instance.
type conn struct {
	net.Conn
	raw       syscall.RawConn
	reader    *bufio.Reader
	idleSince time.Time
}

func newLine(instance catalog.Instance) (*line, error) {
	where, err := catalog.ParseAddress(instance.Address)
	if err != nil {
		return nil, err
	}
	l := &line{instance: instance, where: where}
	// A peer that vanished without a word is noticed within half a minute.
	l.dialer = net.Dialer{Timeout: dialTimeout, KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3}}
	l.uploads.Transport = &http.Transport{
		DisableKeepAlives: true, // bundles come seldom
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return l.dialer.DialContext(ctx, where.Network, where.Address)
		},
	}
	rest := " HTTP/1.1\r\nHost: " + where.Host + "\r\n"
	if instance.Token != "" {
		rest += "Authorization: Bearer " + instance.Token + "\r\n"
	}
	l.head = []byte(rest)
	return l, nil
}

// get returns a connection that was idle and is still good, or a new one.
func (l *line) get(ctx context.Context) (*conn, error) {
	for {
		c := l.pop()
		if c == nil {
			return l.dial(ctx)
		}
		if c.quiet() {
			return c, nil
		}
		_ = c.Close()
	}
}

// pop takes the connection that was idle for the shortest time: the likeliest to be good.
func (l *line) pop() *conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.idle) == 0 {
		return nil
	}
	last := len(l.idle) - 1
	c := l.idle[last]
	l.idle[last] = nil
	l.idle = l.idle[:last]
	return c
}

func (l *line) dial(ctx context.Context) (*conn, error) {
	under, err := l.dialer.DialContext(ctx, l.where.Network, l.where.Address)
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: under, reader: bufio.NewReaderSize(under, answerBuffer)}
	if s, ok := under.(syscall.Conn); ok {
		if c.raw, err = s.SyscallConn(); err != nil {
			return nil, errors.Join(err, under.Close())
		}
	}
	return c, nil
}

// put keeps a connection for later.
func (l *line) put(c *conn) {
	now := time.Now()
	c.idleSince = now
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || len(l.idle) >= maxIdle {
		_ = c.Close()
		return
	}
	l.idle = append(l.idle, c)
	expired := 0
	for now.Sub(l.idle[expired].idleSince) > idleFor { // the newest has not expired
		_ = l.idle[expired].Close()
		expired++
	}
	if expired > 0 {
		l.idle = append(l.idle[:0], l.idle[expired:]...)
	}
}

func (l *line) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for _, c := range l.idle {
		_ = c.Close()
	}
	l.idle = nil
}

// putFlow hands a bundle of this many bytes to the instance. What the instance says against it is an *api.Error.
func (l *line) putFlow(ctx context.Context, digest string, bundle io.Reader, size int64) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPut, "http://"+l.where.Host+"/v1/flows/"+digest, bundle)
	if err != nil {
		return fmt.Errorf("hand in bundle %s: %w", digest, err)
	}
	request.ContentLength = size
	if l.instance.Token != "" {
		request.Header.Set("Authorization", "Bearer "+l.instance.Token)
	}
	response, err := l.uploads.Do(request)
	if err != nil {
		return fmt.Errorf("hand in bundle %s: %w", digest, errors.Unwrap(err)) // the address is said elsewhere
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode < 200 || response.StatusCode > 299 {
		return api.ResponseError(response)
	}
	return nil
}

// quiet reports whether an idle connection is open and has nothing to say: an instance that stopped closed it, and what was written
// to it now would be lost, without a way to know whether it had been read.
func (c *conn) quiet() bool {
	if time.Since(c.idleSince) > idleFor || c.reader.Buffered() > 0 {
		return false
	}
	if c.raw == nil {
		return true
	}
	state := peerGone
	err := c.raw.Control(func(fd uintptr) { state = peek(fd) })
	return err == nil && state == peerQuiet
}

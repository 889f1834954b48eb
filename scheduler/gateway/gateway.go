// Package gateway is the HTTP server that people and pipelines submit to. It picks an instance of the named runtime, forwards the
// submission, hands in the flow's bundle where the instance lacks it, and returns the answer.
//
// What it guarantees: a submission that an instance may have begun is never sent again; one that was refused before it began, or that
// never reached an instance, is tried on another. Who goes away ends the run. Every error has the one error shape. It parses
// nothing of a submission but the flow's digest, and holds no state that matters: the bundles in its folder are a cache.
//
// [Run] is all of it; [New], [Listen] and [Gateway.Serve] are its parts for those who run it inside another program. It is built on
// fasthttp, for it stands before every submission: with net/http it would forward half as many.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/valyala/fasthttp"

	"github.com/nomad-promptflow/nomad-promptflow/scheduler/catalog"
)

const (
	idleTimeout   = 2 * time.Minute
	readTimeout   = time.Minute      // to read a request with its body
	uploadTimeout = 10 * time.Minute // to read or hand in a bundle
	writeTimeout  = 10 * time.Minute // to write an answer
	cancelTimeout = 3 * time.Second  // for cancelled requests to answer
	maxHeader     = 16 << 10         // bytes of a request's header
)

// Config is how a gateway is set up. Zero values mean the defaults.
type Config struct {
	Listen     string         // host:port or unix:/PATH; default 127.0.0.1:8000
	Catalog    *catalog.Table // needed
	Bundles    string         // folder of the bundle cache; default one that is removed in the end
	Version    string         // of this program, for /version
	MaxBody    int64          // bytes of a submission; default 64 MiB
	MaxBundle  int64          // bytes of a bundle on the wire; default 512 MiB
	MaxBundles int64          // bytes of all bundles kept; default 2 GiB
	RunTimeout time.Duration  // for an instance to answer; default 1 h
	Drain      time.Duration  // for requests to end when the gateway stops; default 25 s
	Logger     hclog.Logger   // default: none
}

func (c Config) withDefaults() Config {
	if c.Listen == "" {
		c.Listen = "127.0.0.1:8000"
	}
	if c.Version == "" {
		c.Version = "0.0.0"
	}
	bytes := func(n *int64, v int64) {
		if *n <= 0 {
			*n = v
		}
	}
	bytes(&c.MaxBody, 64<<20)
	bytes(&c.MaxBundle, 512<<20)
	bytes(&c.MaxBundles, 2<<30)
	if c.RunTimeout <= 0 {
		c.RunTimeout = time.Hour
	}
	if c.Drain <= 0 {
		c.Drain = 25 * time.Second
	}
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	return c
}

// Gateway is a gateway that has not begun to serve, serves, or has ended.
type Gateway struct {
	config  Config
	log     hclog.Logger
	server  *fasthttp.Server
	pools   map[string]*pool // by runtime
	bundles *bundles
	handIns handIns

	life     context.Context // of everything that is forwarded
	end      context.CancelCauseFunc
	draining atomic.Bool

	mu    sync.Mutex
	conns map[net.Conn]struct{} // of clients
}

// Run listens, serves until ctx ends, and drains. The error of a start says what to do.
func Run(ctx context.Context, config Config) error {
	config = config.withDefaults()
	listener, err := Listen(ctx, config.Listen)
	if err != nil {
		return err
	}
	g, err := New(config)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	return g.Serve(ctx, listener)
}

// New makes a gateway that Serve runs. One that will not serve is ended with Close.
func New(config Config) (*Gateway, error) {
	config = config.withDefaults()
	if config.Catalog == nil {
		return nil, errors.New("make gateway: it has no catalog of runtimes")
	}
	g := &Gateway{config: config, log: config.Logger, pools: map[string]*pool{}, conns: map[net.Conn]struct{}{}}
	g.life, g.end = context.WithCancelCause(context.Background())
	for _, runtime := range config.Catalog.Runtimes() {
		p, err := newPool(runtime)
		if err != nil {
			return nil, fmt.Errorf("make gateway: runtime %q: %w", runtime.Name, err)
		}
		g.pools[runtime.Name] = p
	}
	var err error
	if g.bundles, err = openBundles(config); err != nil {
		return nil, fmt.Errorf("make gateway: %w", err)
	}
	g.server = g.newServer()
	return g, nil
}

func (g *Gateway) newServer() *fasthttp.Server {
	return &fasthttp.Server{
		Handler:                      g.handle,
		ErrorHandler:                 g.refuse,
		HeaderReceived:               received,
		ConnState:                    g.track,
		ReadBufferSize:               maxHeader,
		MaxRequestBodySize:           int(^uint(0) >> 1), // the handlers bound what they read
		StreamRequestBody:            true,               // bundles go to disk as they come
		DisablePreParseMultipartForm: true,
		ReadTimeout:                  readTimeout,
		WriteTimeout:                 writeTimeout,
		IdleTimeout:                  idleTimeout,
		CloseOnShutdown:              true,
		NoDefaultServerHeader:        true,
		NoDefaultContentType:         true,
		SecureErrorLogMessage:        true,
		Logger:                       g.log.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}),
	}
}

// Listen opens host:port or unix:/PATH.
func Listen(ctx context.Context, address string) (net.Listener, error) {
	network, where := "tcp", address
	if len(address) > 5 && address[:5] == "unix:" {
		network, where = "unix", address[5:]
	}
	l, err := new(net.ListenConfig).Listen(ctx, network, where)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("listen on %s: the address is in use: choose another one, or end what listens there: %w", address, err)
	case err != nil:
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	return l, nil
}

// Serve serves until ctx ends, then takes no new connections, lets requests end for a bounded while and cancels those that have not.
// It leaves nothing behind, and can be called once.
func (g *Gateway) Serve(ctx context.Context, listener net.Listener) (err error) {
	defer func() { err = errors.Join(err, g.Close()) }()
	served := make(chan error, 1)
	go func() { served <- g.server.Serve(listener) }()
	g.log.Info("listening", "address", listener.Addr().String(), "runtimes", len(g.pools), "version", g.config.Version)
	select {
	case err := <-served:
		return fmt.Errorf("serve http: %w", errors.Join(err, g.drain()))
	case <-ctx.Done():
	}
	// The server only knows the listener once it has begun to serve, which may be later than this.
	_ = listener.Close()
	err = g.drain()
	if serr := <-served; serr != nil {
		err = errors.Join(err, fmt.Errorf("serve http: %w", serr))
	}
	return err
}

// drain waits for requests to end; it leaves none behind.
func (g *Gateway) drain() error {
	g.draining.Store(true)
	g.log.Info("stopping", "grace", g.config.Drain)
	last := time.AfterFunc(g.config.Drain, func() {
		g.log.Warn("cancelling requests that did not end in time", "grace", g.config.Drain)
		g.end(errStopping)
	})
	defer last.Stop()
	ctx, cancel := context.WithTimeout(context.Background(), g.config.Drain+cancelTimeout)
	defer cancel()
	err := g.server.ShutdownWithContext(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		g.closeConns() // of clients that do not read their answers
		return nil
	}
	if err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("stop http server: %w", err)
	}
	return nil
}

// Close ends what is still under way and removes what New made. It may be called again.
func (g *Gateway) Close() error {
	g.end(errStopping)
	g.handIns.wait()
	for _, p := range g.pools {
		p.close()
	}
	return g.bundles.close()
}

// track knows the clients' connections, to close them when the gateway has to end.
func (g *Gateway) track(conn net.Conn, state fasthttp.ConnState) {
	switch state {
	case fasthttp.StateNew:
		g.mu.Lock()
		g.conns[conn] = struct{}{}
		g.mu.Unlock()
	case fasthttp.StateClosed, fasthttp.StateHijacked:
		g.mu.Lock()
		delete(g.conns, conn)
		g.mu.Unlock()
	}
}

func (g *Gateway) closeConns() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for conn := range g.conns {
		_ = conn.Close()
	}
}

// diskFull reports whether an error is that of a full disk.
func diskFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

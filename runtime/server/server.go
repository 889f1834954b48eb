// Package server is the HTTP server inside a runtime's container: it takes bundles, runs submissions and serves one flow.
//
// [Run] is all of it: it listens, starts the Python workers, loads the flow it serves, becomes ready, and on SIGTERM stops
// taking work, lets what runs finish for a bounded while and ends. [Config] is read from the environment once
// ([ConfigFromEnv]). The routes and their errors are those of the design's runtime API; /score is prompt flow's serving API.
package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/nomad-promptflow/nomad-promptflow/runtime/run"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/worker"
)

const (
	headerTimeout   = 10 * time.Second
	idleTimeout     = 2 * time.Minute
	requestTimeout  = time.Minute      // to read the body of a submission
	uploadTimeout   = 10 * time.Minute // to read a bundle
	shutdownTimeout = 25 * time.Second // less than the 30 s after which most schedulers kill
	cancelTimeout   = 3 * time.Second  // for cancelled runs to answer
)

// server is a running runtime.
type server struct {
	config   Config
	log      hclog.Logger
	flows    *flows
	trust    *trust
	slots    chan struct{} // one per run at once
	batch    executorService
	sessions sessions // of validations
	stats    *metrics

	ready    atomic.Bool
	draining atomic.Bool
	mu       sync.Mutex
	why      string // it is not ready
	workers  *worker.Manager
	served   *lease // the flow of PROMPTFLOW_FLOW
}

// Run serves until ctx ends or the process is told to stop. It returns nil after a clean stop; the error of a start says what to
// do.
func Run(ctx context.Context, config Config) error {
	config = config.withDefaults()
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	listener, err := listen(ctx, config.Listen)
	if err != nil {
		return err
	}
	if os.Getpid() == 1 {
		reaping, end := context.WithCancel(context.WithoutCancel(ctx))
		done := make(chan struct{})
		go func() { defer close(done); reap(reaping, 1, reapInterval) }()
		defer func() { end(); <-done }()
	}
	return serve(ctx, config, listener)
}

func serve(ctx context.Context, config Config, listener net.Listener) error {
	s := &server{config: config, log: config.Logger, slots: make(chan struct{}, config.MaxConcurrency), why: "starting"}
	var err error
	if s.trust, err = newTrust(config.Trust, s.log); err != nil {
		return errors.Join(err, listener.Close())
	}
	if s.flows, err = newFlows(config); err != nil {
		return errors.Join(err, listener.Close())
	}
	defer s.flows.close()
	s.measure()
	_ = os.RemoveAll(s.validations()) // of an earlier life
	runs, cancelRuns := context.WithCancel(context.WithoutCancel(ctx))
	defer cancelRuns()
	h := &http.Server{
		Handler: s.handler(), ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout,
		BaseContext: func(net.Listener) context.Context { return runs },
		ErrorLog:    s.log.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}),
	}
	served := make(chan error, 1)
	go func() { served <- h.Serve(listener) }()
	s.log.Info("listening", "address", listener.Addr().String(), "runtime", config.Runtime, "version", config.Version)
	err = s.live(ctx, served)
	s.draining.Store(true)
	s.log.Info("stopping", "grace", shutdownTimeout)
	err = errors.Join(err, s.shutdown(h, cancelRuns))
	<-s.closeWorkers()
	return err
}

// measure makes the metrics, which the flows' end ends too.
func (s *server) measure() {
	s.stats = newMetrics(s)
	s.flows.onGone(func(digest string, x *run.Executor) { s.stats.forget(flowLabel(&lease{Executor: x, name: digest})) })
}

// live starts what is needed to be ready and waits for the end.
func (s *server) live(ctx context.Context, served <-chan error) error {
	started := make(chan error, 1)
	go func() { started <- s.start(ctx) }()
	for {
		select {
		case err := <-started:
			if err != nil {
				if ctx.Err() != nil {
					return nil //nolint:nilerr // it was told to stop while it started
				}
				return err
			}
			started = nil
		case err := <-served:
			return fmt.Errorf("serve http: %w", err)
		case <-ctx.Done():
			if started != nil {
				<-started //nolint:errcheck // it sees ctx, and nobody waits for it any more
			}
			return nil
		}
	}
}

// start starts the workers, then loads the flow to serve.
func (s *server) start(ctx context.Context) error {
	s.notReady("python workers are starting")
	manager, err := worker.Start(ctx, worker.Config{
		Python: s.config.Python, Dir: s.flows.scratch, Workers: s.config.Workers, Logger: s.log,
	})
	if err != nil {
		return fmt.Errorf("start python workers: %w", err)
	}
	s.mu.Lock()
	s.workers = manager
	s.mu.Unlock()
	s.flows.setWorkers(run.FromManager(manager))
	if s.config.Flow != "" {
		s.notReady("the flow " + s.config.Flow + " is loading")
		served, err := s.flows.serve(ctx, s.config.Flow)
		if err != nil {
			return fmt.Errorf("load flow %s: %w", s.config.Flow, err)
		}
		s.mu.Lock()
		s.served = served
		s.mu.Unlock()
	}
	s.ready.Store(true)
	s.log.Info("ready", "runtime", s.config.Runtime, "flow", s.config.Flow)
	return nil
}

func (s *server) notReady(why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.why = why
}

// shutdown lets requests finish, then cancels those that have not.
func (s *server) shutdown(h *http.Server, cancelRuns context.CancelFunc) error {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	err := h.Shutdown(ctx)
	if err == nil {
		return nil
	}
	s.log.Warn("cancelling runs that did not end in time", "grace", shutdownTimeout)
	cancelRuns()
	last, cancelLast := context.WithTimeout(context.Background(), cancelTimeout)
	defer cancelLast()
	if err := h.Shutdown(last); err != nil {
		return h.Close()
	}
	return nil
}

func (s *server) closeWorkers() <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.batch.close()
		s.sessions.close()
		s.flows.closeExecutors()
		s.mu.Lock()
		manager := s.workers
		s.mu.Unlock()
		if manager != nil {
			if err := manager.Close(); err != nil {
				s.log.Warn("close workers", "error", err)
			}
		}
	}()
	return done
}

// listen opens host:port, or unix:PATH.
func listen(ctx context.Context, address string) (net.Listener, error) {
	path, unix := strings.CutPrefix(address, "unix:")
	if !unix {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
		if err != nil {
			return nil, fmt.Errorf("listen on %s: %w: choose another address with PROMPTFLOW_LISTEN", address, err)
		}
		return l, nil
	}
	if err := removeStaleSocket(ctx, path); err != nil {
		return nil, err
	}
	l, err := new(net.ListenConfig).Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w: choose another path with PROMPTFLOW_LISTEN", address, err)
	}
	return l, nil
}

// removeStaleSocket removes a socket that nobody listens on any more.
func removeStaleSocket(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Type() != os.ModeSocket {
		return nil //nolint:nilerr // listening says what is wrong
	}
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "unix", path)
	if err == nil {
		_ = conn.Close()
		return fmt.Errorf("listen on unix:%s: another process listens there: choose another path with PROMPTFLOW_LISTEN", path)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove stale socket %s: %w", path, err)
	}
	return nil
}

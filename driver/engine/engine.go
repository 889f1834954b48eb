// Package engine runs the driver's containers on containerd.
//
// [Open] gives the [driver.Engine] of one containerd socket. It dials when it is first used and again whenever the daemon
// went away, so that nothing here needs the daemon to be there. All it makes is in one containerd namespace. Tested with
// daemons from 1.6 on.
package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/log"
	"github.com/hashicorp/go-hclog"
	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc/status"

	"github.com/nomad-promptflow/nomad-promptflow/driver"
	"github.com/nomad-promptflow/nomad-promptflow/driver/registry"
)

const (
	// redialDelay is the longest pause between two attempts to reach a daemon that is away. The client's own ten seconds are
	// longer than a daemon needs to start.
	redialDelay = time.Second
	// cleanupTimeout bounds the removal of what a failed call made.
	cleanupTimeout = 30 * time.Second
)

// Engine is containerd. Use [Open].
type Engine struct {
	config     driver.EngineConfig
	logger     hclog.Logger
	client     *containerd.Client
	registries *registry.Registries

	flights flights
	fetches *semaphore.Weighted
	images  imageCache

	life context.Context
	end  context.CancelFunc
	work sync.WaitGroup
}

var _ driver.Engine = (*Engine)(nil)

// Open returns the engine of config. It does not wait for the daemon.
func Open(config driver.EngineConfig, logger hclog.Logger) (driver.Engine, error) {
	quiet.Do(quietClientLog)
	registries, err := registry.New(config.Registries)
	if err != nil {
		return nil, err
	}
	client, err := containerd.New(config.Address,
		containerd.WithDefaultNamespace(config.Namespace),
		containerd.WithDefaultRuntime(config.Runtime),
		containerd.WithTimeout(redialDelay),
	)
	if err != nil {
		return nil, fmt.Errorf("make containerd client for %s: %w", config.Address, err)
	}
	life, end := context.WithCancel(context.Background())
	return &Engine{
		config:     config,
		logger:     logger.Named("containerd"),
		client:     client,
		registries: registries,
		fetches:    semaphore.NewWeighted(int64(config.PullConcurrency)),
		life:       life,
		end:        end,
	}, nil
}

// quietClientLog keeps the client's own log lines, which are not the agent's format, off standard error: what matters of them
// comes back as errors too.
func quietClientLog() { _ = log.SetLevel("panic") }

var quiet sync.Once

// Close ends what the engine does in the background and lets go of the daemon.
func (e *Engine) Close() error {
	e.end()
	e.work.Wait()
	return e.client.Close()
}

// namespaced gives calls of client parts that read the namespace from their context what they need.
func (e *Engine) namespaced(ctx context.Context) context.Context {
	return namespaces.WithNamespace(ctx, e.config.Namespace)
}

// cleanup is a context for removing what a call made whose own context may have ended.
func (e *Engine) cleanup(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(e.namespaced(context.WithoutCancel(ctx)), cleanupTimeout)
}

// explain turns a containerd error into the driver's.
func explain(err error) error {
	if err == nil {
		return nil
	}
	if _, raw := err.(interface{ GRPCStatus() *status.Status }); raw {
		// Parts of the client hand out what they got from the wire.
		err = errgrpc.ToNative(err)
	}
	switch {
	case errors.Is(err, driver.ErrUnavailable), errors.Is(err, driver.ErrNoContainer):
		return err
	case errdefs.IsUnavailable(err), strings.Contains(err.Error(), "ttrpc: closed"):
		return fmt.Errorf("%w: %w", driver.ErrUnavailable, err)
	case errdefs.IsNotFound(err):
		return fmt.Errorf("%w: %w", driver.ErrNoContainer, err)
	}
	return err
}

// ignoreAbsent makes the absence of what is to be removed a success.
func ignoreAbsent(err error) error {
	if err = explain(err); errors.Is(err, driver.ErrNoContainer) {
		return nil
	}
	return err
}

// Package driver is the Nomad task driver "promptflow": it runs each task as a container made from a prompt flow
// environment or any other OCI image.
//
// [Driver] answers Nomad's calls. It knows no container engine: what it needs of one is [Engine], which the package
// driver/engine implements on containerd, and the container's OCI specification is made by the package driver/spec.
//
// Containers do not depend on this process. They write their logs into the agent's FIFOs through their own shim, and go on
// when the plugin, the agent or containerd's daemon ends. What must be known to take them back is in the task's driver
// state ([taskState]) and, once more, in a label of the container.
package driver

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/nomad-promptflow/nomad-promptflow/plugin"
)

// Bounds on the driver's own work; Nomad sets none.
const (
	startTimeout   = time.Minute      // create and start, without the image
	startPatience  = 3 * time.Second  // for a daemon that is away when a start begins
	removeTimeout  = 30 * time.Second // kill and remove
	recoverTimeout = 10 * time.Second // one look at a container
	killGrace      = 30 * time.Second // from SIGKILL to the exit
	retryDelay     = 200 * time.Millisecond
)

// Parts are what a driver is put together from.
type Parts struct {
	// Version of the plugin, as go-version reads it.
	Version string
	Logger  hclog.Logger
	// OpenEngine makes the engine of a configuration. It must not need the engine's daemon to be there.
	OpenEngine func(EngineConfig, hclog.Logger) (Engine, error)
	// InitBinary is a static program that runs "init -- command…" as a container's first process: this one. Tasks with init
	// have it mounted.
	InitBinary string
}

// Driver is the task driver. Use [New].
type Driver struct {
	parts  Parts
	logger hclog.Logger
	events *eventQueue
	tasks  *taskTable

	locks     *containerLocks
	leftovers leftovers
	// node is the id of the agent's node, nil until a task told it.
	node atomic.Pointer[string]
	// session counts the agent's fingerprint streams, each of which is an agent's life as far as can be told. Restored is the last
	// session in which the agent had taken back all tasks it had.
	session, restored atomic.Int64
	// slowAt is when a look at a container to take back ran out of time, in nanoseconds since 1970.
	slowAt atomic.Int64

	images      *imageUses
	imagesFound atomic.Bool

	// life ends with Shutdown; work counts the goroutines that live in it.
	life context.Context
	end  context.CancelFunc
	work sync.WaitGroup

	mu         sync.RWMutex
	config     PluginConfig
	engine     Engine
	compute    compute
	configured chan struct{} // closed and replaced when a new configuration came
}

var _ plugin.Driver = (*Driver)(nil)

// New returns a driver that waits for its configuration.
func New(parts Parts) *Driver {
	life, end := context.WithCancel(context.Background())
	d := &Driver{
		parts:      parts,
		logger:     parts.Logger,
		events:     newEventQueue(),
		tasks:      newTaskTable(),
		locks:      newContainerLocks(),
		life:       life,
		end:        end,
		config:     defaultPluginConfig(),
		configured: make(chan struct{}),
	}
	d.images = &imageUses{remove: d.removeImage, delay: d.imageDelay, logger: d.logger, life: life, work: &d.work}
	return d
}

// SetConfig takes the plugin's configuration. Nothing that it names needs to be there yet.
func (d *Driver) SetConfig(_ context.Context, encoded []byte, client *plugin.ClientConfig) error {
	config, err := decodePluginConfig(encoded)
	if err != nil {
		return err
	}
	engine, err := d.parts.OpenEngine(config.engine(), d.logger)
	if err != nil {
		return fmt.Errorf("open container engine %s: %w", config.Containerd.Address, err)
	}
	d.mu.Lock()
	old := d.engine
	d.config, d.engine = config, engine
	if client != nil {
		d.compute = nodeCompute(client)
	}
	close(d.configured)
	d.configured = make(chan struct{})
	d.mu.Unlock()
	if old != nil {
		return old.Close()
	}
	return nil
}

// Init has nothing to do: all work begins with the calls that need it.
func (d *Driver) Init(context.Context) error { return nil }

// Shutdown ends what the driver does in the background, and leaves the tasks running.
func (d *Driver) Shutdown(ctx context.Context) error {
	d.mu.Lock()
	d.end()
	d.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.work.Wait()
	}()
	select {
	case <-done:
	case <-ctx.Done():
		return fmt.Errorf("shut driver down: %w", ctx.Err())
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.engine == nil {
		return nil
	}
	engine := d.engine
	d.engine = nil
	return engine.Close()
}

// background does work that Shutdown ends and waits for. After Shutdown it does nothing.
func (d *Driver) background(work func()) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.life.Err() == nil {
		d.work.Go(work)
	}
}

var errNotConfigured = errors.New("the driver has no configuration yet")

// current is the engine and the configuration to use for one call.
func (d *Driver) current() (Engine, PluginConfig, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.engine == nil {
		return nil, d.config, errNotConfigured
	}
	return d.engine, d.config, nil
}

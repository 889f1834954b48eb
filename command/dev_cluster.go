package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/nomad-promptflow/nomad-promptflow/environment"
	"github.com/nomad-promptflow/nomad-promptflow/jobspecs"
	"github.com/nomad-promptflow/nomad-promptflow/plugin"
	"github.com/nomad-promptflow/nomad-promptflow/plugin/agent"
	"github.com/nomad-promptflow/nomad-promptflow/scheduler/catalog"
	"github.com/nomad-promptflow/nomad-promptflow/scheduler/gateway"
)

const (
	// devNamespace keeps what dev makes in containerd apart from what a Nomad agent's driver makes there.
	devNamespace = "promptflow-dev"
	// runPrefix begins the names of run folders.
	runPrefix = "npf-dev-"
	// healthyTimeout bounds the wait for the driver's first good fingerprint.
	healthyTimeout = 30 * time.Second
	// stopTimeout bounds taking everything down.
	stopTimeout = 2 * time.Minute
)

// devCluster is what dev starts, in the place of a cluster.
type devCluster struct {
	options  devOptions
	vars     map[string]string
	progress *progress
	logger   hclog.Logger

	runDir     string // everything that goes with the end
	containerd string // the socket
	task       jobspecs.Task
	driver     *agent.Plugin
	instances  []*devInstance
	address    string // of the gateway
	failed     chan error

	lock  sync.Mutex
	downs []func(context.Context) error // in the order of what they undo
}

// undo registers how to take down what was just started.
func (d *devCluster) undo(down func(context.Context) error) {
	d.lock.Lock()
	defer d.lock.Unlock()
	d.downs = append(d.downs, down)
}

// down takes everything down, the last started first, also what comes after a failure. When force ends, nothing is waited for.
func (d *devCluster) down(force context.Context) error {
	ctx, cancel := context.WithTimeout(force, stopTimeout)
	defer cancel()
	d.lock.Lock()
	downs := d.downs
	d.downs = nil
	d.lock.Unlock()
	var errs []error
	for i := len(downs) - 1; i >= 0; i-- {
		errs = append(errs, downs[i](ctx))
	}
	return errors.Join(errs...)
}

// up starts everything in order.
func (d *devCluster) up(ctx context.Context) error {
	d.failed = make(chan error, d.options.count+1)
	var listener net.Listener
	steps := []func(context.Context) error{
		func(context.Context) error { return d.prepare() },
		func(ctx context.Context) (err error) { listener, err = d.listen(ctx); return err },
		d.findContainerd,
		d.buildBase,
		d.startDriver,
		d.startInstances,
		func(context.Context) error { return d.startGateway(listener) },
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return err
		}
	}
	d.progress.did("ready: %d instance(s) of runtime %q behind the gateway", len(d.instances), d.task.Job)
	return nil
}

// prepare makes the folders and reads the runtime's job.
func (d *devCluster) prepare() error {
	if os.Geteuid() != 0 {
		return errors.New("dev starts containers and needs root: run it with sudo")
	}
	var err error
	if d.task, err = jobspecs.Shared.Task(d.vars); err != nil {
		return err
	}
	if d.options.dataDir, err = absolute(d.options.dataDir); err != nil {
		return err
	}
	if err := os.MkdirAll(d.options.dataDir, 0o700); err != nil {
		return fmt.Errorf("make data folder: %w", err)
	}
	if err := d.lockData(); err != nil {
		return err
	}
	if err := d.sweep(); err != nil {
		return fmt.Errorf("take down what an earlier dev left: %w", err)
	}
	// Short, because sockets live in it, and not on a disk that forbids programs or devices.
	if d.runDir, err = os.MkdirTemp("/run", runPrefix); err != nil {
		return fmt.Errorf("make run folder: %w", err)
	}
	d.undo(func(context.Context) error { return os.RemoveAll(d.runDir) })
	return d.recordRun()
}

// lockData keeps a second dev out of the same folder: two containerds must not share a root.
func (d *devCluster) lockData() error {
	file, err := os.OpenFile(filepath.Join(d.options.dataDir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("lock data folder: %w", err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = file.Close()
		return fmt.Errorf("data folder %s is in use by another dev: stop it, or name another folder with -data-dir", d.options.dataDir)
	}
	d.undo(func(context.Context) error { return file.Close() })
	return nil
}

// listen takes the gateway's port first: it is the likeliest thing to fail.
func (d *devCluster) listen(ctx context.Context) (net.Listener, error) {
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", d.options.port))
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("port %d is taken: choose another with -port (0 takes a free one)", d.options.port)
	}
	if err != nil {
		return nil, fmt.Errorf("listen for the gateway: %w", err)
	}
	d.undo(func(context.Context) error {
		if err := listener.Close(); !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	})
	d.address = "http://" + listener.Addr().String()
	return listener, nil
}

// layout is the folder of the environments.
func (d *devCluster) layout() string { return filepath.Join(d.options.dataDir, "environments") }

func (d *devCluster) buildBase(ctx context.Context) error {
	if _, custom := d.vars["image"]; custom {
		return nil
	}
	cache := d.options.baseCache
	if cache == "" {
		cache = filepath.Join(d.options.dataDir, "cache")
	}
	result, err := environment.BuildBase(ctx, environment.BaseOptions{
		Layout: d.layout(), Cache: cache, Version: Version, Progress: d.progress.build,
	})
	if err != nil {
		return err
	}
	d.progress.did("base image: %s, %s unpacked", megabytes(result.Size), megabytes(result.Uncompressed))
	return nil
}

// startDriver starts this very program as the plugin that a Nomad agent would start.
func (d *devCluster) startDriver(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	// A plugin takes no arguments; this one only says whose it is, so that it is found when this process is killed.
	mark := []string{"-run-dir=" + d.runDir + "/"}
	if d.driver, err = agent.Launch(agent.Options{Path: self, Args: mark, Logger: d.logger.Named("driver")}); err != nil {
		return err
	}
	d.undo(func(context.Context) error { d.driver.Close(); return nil })
	if err := d.configureDriver(ctx); err != nil {
		return err
	}
	life, end := context.WithCancel(context.Background())
	healthy := make(chan plugin.Fingerprint, 1)
	var streams sync.WaitGroup
	streams.Go(func() { d.fingerprints(life, healthy) })
	streams.Go(func() {
		_ = d.driver.TaskEvents(life, func(e plugin.TaskEvent) { d.progress.doing("%s: %s", e.AllocID[:min(8, len(e.AllocID))], e.Message) })
	})
	d.undo(func(context.Context) error { end(); streams.Wait(); return nil })
	return d.awaitHealthy(ctx, healthy)
}

func (d *devCluster) configureDriver(ctx context.Context) error {
	schema, err := d.driver.ConfigSchema(ctx)
	if err != nil {
		return fmt.Errorf("read the driver's schema: %w", err)
	}
	config, err := agent.DecodeConfig(schema, fmt.Sprintf("environments = %q\ncontainerd {\n  address   = %q\n  namespace = %q\n}\n", d.layout(), d.containerd, devNamespace), nil)
	if err != nil {
		return err
	}
	if err := d.driver.SetConfig(ctx, config, &plugin.ClientConfig{MinPort: 20000, MaxPort: 32000}); err != nil {
		return fmt.Errorf("configure the driver: %w", err)
	}
	if err := d.driver.Init(ctx); err != nil {
		return fmt.Errorf("initialise the driver: %w", err)
	}
	return nil
}

// fingerprints passes on the newest report.
func (d *devCluster) fingerprints(ctx context.Context, newest chan plugin.Fingerprint) {
	_ = d.driver.Fingerprint(ctx, func(f plugin.Fingerprint) {
		select {
		case <-newest:
		default:
		}
		newest <- f
	})
}

func (d *devCluster) awaitHealthy(ctx context.Context, reports <-chan plugin.Fingerprint) error {
	ctx, cancel := context.WithTimeout(ctx, healthyTimeout)
	defer cancel()
	last := plugin.Fingerprint{Description: "it did not report"}
	for {
		select {
		case <-ctx.Done():
			return fmt.Errorf("the driver is not healthy: %s", last.Description)
		case last = <-reports:
			if last.Health == plugin.Healthy {
				d.progress.did("driver: healthy, containerd %v, cgroup v%v", last.Attributes["driver.promptflow.containerd.version"], last.Attributes["driver.promptflow.cgroup"])
				return nil
			}
			d.progress.doing("driver: %s", last.Description)
		}
	}
}

// startGateway puts the gateway in front of the instances.
func (d *devCluster) startGateway(listener net.Listener) error {
	runtime := catalog.Runtime{Name: d.task.Job, Type: catalog.Shared}
	for _, instance := range d.instances {
		runtime.Instances = append(runtime.Instances, catalog.Instance{
			ID: instance.alloc.ID(), Address: instance.address, Token: instance.token, Concurrency: d.concurrency(),
		})
	}
	table, err := catalog.NewStatic([]catalog.Runtime{runtime})
	if err != nil {
		return err
	}
	g, err := gateway.New(gateway.Config{
		Catalog: table, Bundles: filepath.Join(d.runDir, "bundles"), Version: Version, Logger: d.logger.Named("gateway"),
	})
	if err != nil {
		return err
	}
	life, end := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- errors.Join(g.Serve(life, listener), g.Close()) }()
	d.undo(func(context.Context) error { end(); return <-served })
	return nil
}

// devLogger shows nothing unless it is asked to.
func devLogger(w io.Writer, level string) hclog.Logger {
	if strings.EqualFold(level, "off") || level == "" {
		return hclog.NewNullLogger()
	}
	return hclog.New(&hclog.LoggerOptions{Name: "dev", Level: hclog.LevelFromString(level), Output: w})
}

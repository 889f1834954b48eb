// Package worker runs the Python parts of flows: tools, and the templates that Go cannot render exactly.
//
// One zygote process per [Manager] imports prompt flow once, stays single-threaded and forks workers. A worker belongs to one
// [Flow] for its whole life, so modules of two flows never meet; it serves many calls at once, sync tools in threads and async
// tools on one event loop. A run takes a [Session], which pins it to one worker: objects that JSON cannot carry stay there
// and pass from node to node by reference ([value.Ref]).
//
// Loading a tool, converting its literals, finding its connections and presenting its errors is done by prompt flow's own code;
// this package never interprets a flow. A worker that dies fails exactly the calls it was running.
package worker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

var (
	// ErrUnavailable says that Python or prompt flow is missing or broken.
	ErrUnavailable = errors.New("python workers are not available")
	// ErrClosed says that the manager, flow or session was closed.
	ErrClosed = errors.New("closed")
)

// Config says how workers are run. The zero value of a field means its default.
type Config struct {
	Python  string        // interpreter with promptflow-core; default "python3"
	Dir     string        // parent of the private folder; default the system's
	Workers int           // most workers of one flow; default twice the number of processors, at least 4
	Threads int           // most sync tools at once in one worker; default 1024
	Env     []string      // environment of workers; default this process's without the runtime's own variables and secrets
	Output  *os.File      // what Python prints outside of calls; default stderr
	Logger  hclog.Logger  // default: none
	Start   time.Duration // bound on the zygote's start; default 60 s
	Grace   time.Duration // how long a cancelled call may go on before its worker is given up; default 5 s
	Drain   time.Duration // how long a worker given up may serve its other sessions; default 10 min
	Idle    time.Duration // how long a surplus worker stays; default 30 s
	Rest    time.Duration // how long the last worker of a flow stays; default 15 min
	Render  time.Duration // how long a template may take; default 1 min
	// MaxFrame bounds one message, and so one value, in bytes; default 256 MiB.
	MaxFrame int
}

func (c Config) withDefaults() Config {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&c.Start, time.Minute)
	def(&c.Grace, 5*time.Second)
	def(&c.Drain, 10*time.Minute)
	def(&c.Idle, 30*time.Second)
	def(&c.Rest, 15*time.Minute)
	def(&c.Render, time.Minute)
	if c.Python == "" {
		c.Python = "python3"
	}
	if c.Workers <= 0 {
		c.Workers = max(4, 2*runtime.GOMAXPROCS(0))
	}
	if c.Threads <= 0 {
		c.Threads = 1024
	}
	if c.Env == nil {
		c.Env = cleanEnviron(os.Environ())
	}
	if c.Output == nil {
		c.Output = os.Stderr
	}
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	if c.MaxFrame <= 0 {
		c.MaxFrame = 256 << 20
	}
	return c
}

// Manager owns the zygote and every worker forked from it.
type Manager struct {
	config Config
	log    hclog.Logger
	dir    string   // private folder with the Python sources
	life   *os.File // write end of the pipe whose closing ends every worker
	tie    *os.File // read end, inherited by the zygote

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	starting chan struct{} // holds a token: one start of a zygote at a time
	mu       sync.Mutex
	zygote   *zygote
	spare    *process // forked ahead, not bound to a flow
	forking  bool     // a spare is being forked
	flows    map[*Flow]struct{}
	checkers map[*Checker]struct{}
	closed   bool
}

// Start starts the zygote and returns when it has imported prompt flow. The error wraps [ErrUnavailable] when
// Python or prompt flow cannot be used, and says what to do.
func Start(ctx context.Context, config Config) (*Manager, error) {
	m := &Manager{
		config:   config.withDefaults(),
		starting: make(chan struct{}, 1),
		flows:    map[*Flow]struct{}{},
		checkers: map[*Checker]struct{}{},
	}
	m.log = m.config.Logger.Named("worker")
	m.ctx, m.cancel = context.WithCancel(context.Background())
	var err error
	if m.dir, err = writeSources(m.config.Dir); err != nil {
		m.cancel()
		return nil, err
	}
	if m.tie, m.life, err = os.Pipe(); err != nil {
		_ = m.Close()
		return nil, fmt.Errorf("create life pipe: %w", err)
	}
	if _, err = m.liveZygote(ctx); err != nil {
		_ = m.Close()
		return nil, err
	}
	m.forkSpare()
	return m, nil
}

// liveZygote returns the zygote, starting one when there is none or it died.
func (m *Manager) liveZygote(ctx context.Context) (*zygote, error) {
	select {
	case m.starting <- struct{}{}:
		defer func() { <-m.starting }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	m.mu.Lock()
	z, closed := m.zygote, m.closed
	m.mu.Unlock()
	if closed {
		return nil, fmt.Errorf("use worker manager: %w", ErrClosed)
	}
	if z != nil && z.alive() {
		return z, nil
	}
	ctx, cancel := context.WithTimeout(ctx, m.config.Start)
	defer cancel()
	z, err := startZygote(ctx, m.config, m.dir, m.tie)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	closed = m.closed
	if !closed {
		m.zygote = z
		m.wg.Go(func() { m.watch(z) })
	}
	m.mu.Unlock()
	if closed {
		z.stop()
		return nil, fmt.Errorf("use worker manager: %w", ErrClosed)
	}
	m.log.Info("python is ready", "python", z.ready.Python, "promptflow", z.ready.Promptflow, "pid", z.cmd.Process.Pid,
		"took", time.Since(z.started).Round(time.Millisecond))
	return z, nil
}

// watch restarts a zygote that died while the manager is open, once; a start that fails is tried again by whoever needs it.
func (m *Manager) watch(z *zygote) {
	<-z.done
	if m.ctx.Err() != nil {
		return
	}
	m.log.Error("python zygote died, starting another", "status", z.cmd.ProcessState.String())
	if _, err := m.liveZygote(m.ctx); err != nil {
		m.log.Error("start python zygote", "error", err)
		return
	}
	m.forkSpare()
}

// forkSpare forks an unbound worker in the background, so that the next flow need not wait for a fork.
func (m *Manager) forkSpare() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed || m.forking || m.spare != nil {
		return
	}
	m.forking = true
	m.wg.Go(func() {
		ctx, cancel := context.WithTimeout(m.ctx, m.config.Start)
		defer cancel()
		p, err := m.fork(ctx)
		if err != nil && m.ctx.Err() == nil {
			m.log.Warn("fork spare worker", "error", err)
		}
		m.mu.Lock()
		m.forking = false
		keep := err == nil && !m.closed
		if keep {
			m.spare = p
		}
		m.mu.Unlock()
		if err == nil && !keep {
			p.stop()
		}
	})
}

// take returns an unbound worker: the spare when it lives, else a fresh one.
func (m *Manager) take(ctx context.Context) (*process, error) {
	m.mu.Lock()
	p := m.spare
	m.spare = nil
	m.mu.Unlock()
	m.forkSpare()
	if p != nil && p.alive() {
		return p, nil
	}
	return m.fork(ctx)
}

func (m *Manager) fork(ctx context.Context) (*process, error) {
	z, err := m.liveZygote(ctx)
	if err != nil {
		return nil, err
	}
	return z.fork(ctx, m.config)
}

// Versions returns the versions of Python and promptflow-core that workers run.
func (m *Manager) Versions() (python, promptflow string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.zygote == nil {
		return "", ""
	}
	return m.zygote.ready.Python, m.zygote.ready.Promptflow
}

// Count returns how many workers live, those of all flows and the one that waits for a flow.
func (m *Manager) Count() int {
	m.mu.Lock()
	flows := make([]*Flow, 0, len(m.flows))
	for f := range m.flows {
		flows = append(flows, f)
	}
	count := 0
	if m.spare != nil && m.spare.alive() {
		count++
	}
	m.mu.Unlock()
	for _, f := range flows {
		f.mu.Lock()
		for _, p := range f.workers {
			if p.alive() {
				count++
			}
		}
		f.mu.Unlock()
	}
	return count
}

// Close ends every flow, worker and the zygote, and removes the private folder. No process is left when it returns.
func (m *Manager) Close() error {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return nil
	}
	m.closed = true
	flows := make([]*Flow, 0, len(m.flows))
	for f := range m.flows {
		flows = append(flows, f)
	}
	checkers := slices.Collect(maps.Keys(m.checkers))
	z, spare := m.zygote, m.spare
	m.spare = nil
	m.mu.Unlock()

	m.cancel()
	for _, f := range flows {
		_ = f.Close()
	}
	for _, c := range checkers {
		c.Close()
	}
	if spare != nil {
		spare.stop()
	}
	if z != nil {
		z.stop()
	}
	m.wg.Wait()
	for _, f := range []*os.File{m.life, m.tie} {
		if f != nil {
			_ = f.Close()
		}
	}
	if err := os.RemoveAll(m.dir); err != nil {
		return fmt.Errorf("remove worker folder %s: %w", filepath.Base(m.dir), err)
	}
	return nil
}

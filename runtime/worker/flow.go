package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// FlowSpec says what workers of a flow load.
type FlowSpec struct {
	ID  string // for logs, e.g. the bundle's digest
	Dir string // the flow's folder: working directory and sys.path[0] of its workers
	// Nodes are the nodes that Python runs, as the YAML has them with default variants applied, in the flow's order. A flow
	// without any may still render templates.
	Nodes []*value.Dict
	// Modules are pairs of a node and a module that it asks to be imported before anything is loaded.
	Modules [][2]string
	// Script is set for a flow without nodes.
	Script *ScriptSpec
	// Keep keeps one worker for ever: it may hold what is dear to make.
	Keep bool
	// Connections is prompt flow's connections object: name -> {"type", "value", "secret_keys", …}. Empty means none.
	Connections json.RawMessage
	// Env is set in workers over the inherited environment; names that prompt flow denies are left out.
	Env           map[string]string
	MessageFormat string // "basic" (default) or "openai-vision"
}

// Tool is what prompt flow learned of one node's tool.
type Tool struct {
	Node       string      `json:"node"`
	Parameters []Parameter `json:"parameters"` // of the function, in order
	Async      bool        `json:"async"`
	Generator  bool        `json:"generator"` // declared as a generator or async generator
	Kwargs     bool        `json:"kwargs"`    // takes any name
	// StreamingOption is the parameter that asks the tool to stream, empty when it has none.
	StreamingOption string `json:"streaming_option"`
	// Inputs are the node's inputs that reach the tool, in order: null and "" literals are dropped, literals converted.
	Inputs []ToolInput `json:"inputs"`
	// Error is set when the node could not be loaded; its message names the node.
	Error *api.Error `json:"error"`
}

// Parameter is one parameter of a tool's function.
type Parameter struct {
	Name       string `json:"name"`
	HasDefault bool   `json:"has_default"`
}

// ToolInput is one input of a node. Record is a literal as run records show it: connections by name.
type ToolInput struct {
	Name    string `json:"name"`
	Literal bool   `json:"literal"`
	Record  string `json:"record"` // JSON
}

// HasDefault tells whether the tool has a parameter of this name with a default, so that a bypassed input is left out.
func (t *Tool) HasDefault(name string) bool {
	for _, p := range t.Parameters {
		if p.Name == name {
			return p.HasDefault
		}
	}
	return false
}

// Flow is a flow with its workers.
type Flow struct {
	manager *Manager
	spec    FlowSpec
	bind    []part
	head    map[string]any
	tools   map[string]*Tool
	order   []*Tool
	script  *Script

	wg      sync.WaitGroup
	loading sync.Mutex // of the flow's code, once at a time

	mu         sync.Mutex
	template   *template // what workers are forked from; nil while there is none
	workers    []*process
	starting   int
	changed    chan struct{} // closed and replaced whenever workers or starting change
	failure    error         // of the last start, for those who wait
	aloneUntil time.Time     // while every session has a worker of its own
	closed     bool
	reaper     *time.Timer
	session    uint64
}

// Open loads a flow in a first worker. Nodes that cannot be loaded have their error in [Flow.Tools]; Open itself fails
// when no worker could be had, when the flow's code ended the worker, or when ctx ended. Loading runs the flow's code:
// bound it by ctx.
func (m *Manager) Open(ctx context.Context, spec FlowSpec) (*Flow, error) {
	dir, err := filepath.Abs(spec.Dir)
	if err != nil {
		return nil, fmt.Errorf("open flow %s: %w", spec.ID, err)
	}
	spec.Dir = dir
	f := &Flow{manager: m, spec: spec, changed: make(chan struct{}), tools: map[string]*Tool{}}
	f.prepare()
	p, loaded, err := f.load(ctx)
	if err != nil {
		f.closeTemplate()
		return nil, err
	}
	f.order, f.script = loaded.tools, loaded.script
	for _, t := range loaded.tools {
		f.tools[t.Node] = t
	}
	p.idleSince = time.Now()
	f.workers = []*process{p}
	m.mu.Lock()
	closed := m.closed
	if !closed {
		m.flows[f] = struct{}{}
	}
	m.mu.Unlock()
	if closed {
		p.stop()
		f.closeTemplate()
		return nil, fmt.Errorf("open flow %s: %w", spec.ID, ErrClosed)
	}
	f.mu.Lock()
	f.reapLater()
	f.mu.Unlock()
	return f, nil
}

// prepare encodes what every worker of the flow is told.
func (f *Flow) prepare() {
	nodes := make([]any, len(f.spec.Nodes))
	for i, n := range f.spec.Nodes {
		nodes[i] = n
	}
	connections := []byte(f.spec.Connections)
	if len(connections) == 0 {
		connections = []byte("{}")
	}
	f.bind = []part{{"nodes", value.Encode(nodes)}, {"connections", connections}}
	f.head = map[string]any{
		"op": "bind", "dir": f.spec.Dir, "env": allowedVariables(f.spec.Env), "message_format": f.spec.MessageFormat,
		"threads": f.manager.config.Threads, "max_frame": f.manager.config.MaxFrame,
		"modules": f.spec.Modules,
	}
	if f.spec.Script != nil {
		f.head["script"] = f.spec.Script
		f.bind = append(f.bind, part{"init", f.spec.Script.init()})
	}
}

// load returns a worker of the flow, forked from the template where there is one.
func (f *Flow) load(ctx context.Context) (*process, loaded, error) {
	t, p, l, err := f.source(ctx)
	if err != nil {
		return nil, l, f.loadError(err)
	}
	if p == nil {
		if p, err = t.fork(ctx, f.manager.config); err != nil {
			return nil, l, fmt.Errorf("open flow %s: %w", f.spec.ID, err)
		}
	}
	r, err := p.roundTrip(ctx, map[string]any{"op": "start"})
	if err == nil && r.Error != nil {
		err = finish(r.Error)
	}
	if err == nil {
		err = l.readScript(r)
	}
	if err != nil {
		p.stop()
		return nil, l, f.loadError(err)
	}
	return p, l, nil
}

func (f *Flow) loadError(err error) error {
	var a *abandoned
	if errors.As(err, &a) {
		e := api.NewError([]string{api.UserError, "ToolLoadError"}, "Executor",
			"Loading the flow's Python code did not end in time (%v). Look for work that is done on import.", a.cause)
		e.ReferenceCode = "Executor"
		return e
	}
	var c *crash
	if errors.As(err, &c) {
		return crashError(c, "the import of the flow's Python code")
	}
	return fmt.Errorf("load flow %s: %w", f.spec.ID, err)
}

// Tools returns what was learned of the nodes, in the order of FlowSpec.Nodes. It must not be changed.
func (f *Flow) Tools() []*Tool { return f.order }

// Script returns what was learned of a flow without nodes, nil for one with nodes. It must not be changed.
func (f *Flow) Script() *Script { return f.script }

// Lease returns a session on the least loaded worker. It waits when no worker lives, for a short while when another is about to, and
// in a flow whose code has ended a worker until one is free.
func (f *Flow) Lease(ctx context.Context) (*Session, error) {
	p, err := f.acquire(ctx)
	if err != nil {
		return nil, fmt.Errorf("lease worker of flow %s: %w", f.spec.ID, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.session++
	return &Session{flow: f, process: p, id: f.session}, nil
}

// acquire counts a session on a worker.
func (f *Flow) acquire(ctx context.Context) (*process, error) {
	enough := time.NewTimer(patience)
	defer enough.Stop()
	patient := true
	for {
		f.mu.Lock()
		if f.closed {
			f.mu.Unlock()
			return nil, ErrClosed
		}
		if p := f.pick(patient); p != nil {
			p.sessions++
			f.mu.Unlock()
			return p, nil
		}
		changed, starting, failure := f.changed, f.starting, f.failure
		f.failure = nil
		f.mu.Unlock()
		if starting == 0 && failure != nil {
			return nil, failure
		}
		select {
		case <-changed:
		case <-enough.C:
			patient = false
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// pick chooses a worker and starts another when the pool's rules ask for it; nil means to wait. f.mu is held.
func (f *Flow) pick(patient bool) *process {
	f.bury()
	loads := make([]load, len(f.workers))
	for i, p := range f.workers {
		loads[i] = load{sessions: p.sessions, usable: !p.draining}
	}
	c := f.pool().choose(loads)
	if c.grow && (c.index >= 0 || f.failure == nil) {
		f.grow()
	}
	if c.index < 0 || c.wait && patient {
		return nil
	}
	return f.workers[c.index]
}

// pool is what the rules have to know. f.mu is held.
func (f *Flow) pool() pool {
	p := pool{starting: f.starting, limit: f.manager.config.Workers, growAt: growAtImported}
	if f.template != nil {
		p.growAt = growAtForked
	}
	if time.Now().Before(f.aloneUntil) {
		p.alone = true
		p.limit = max(p.limit, quarantined)
	}
	return p
}

// bury forgets workers that ended. One that the flow's code ended puts the flow into quarantine: whoever runs beside its calls in one
// process would end with it. f.mu is held.
func (f *Flow) bury() {
	living := f.workers[:0]
	for _, p := range f.workers {
		switch {
		case p.alive():
			living = append(living, p)
		case p.fault():
			if time.Now().After(f.aloneUntil) {
				f.manager.log.Warn("the flow's code ended its worker: every run gets a worker of its own for a while", "flow", f.spec.ID, "pid", p.pid, "for", quarantine)
			}
			f.aloneUntil = time.Now().Add(quarantine)
		}
	}
	clear(f.workers[len(living):])
	f.workers = living
}

// grow starts one more worker in the background. f.mu is held.
func (f *Flow) grow() {
	f.starting++
	f.wg.Go(func() {
		ctx, cancel := context.WithTimeout(f.manager.ctx, f.manager.config.Start)
		defer cancel()
		p, _, err := f.load(ctx)
		f.mu.Lock()
		f.starting--
		f.failure = err
		if err == nil && !f.closed {
			p.idleSince = time.Now()
			f.workers = append(f.workers, p)
			f.reapLater()
			p = nil
		}
		f.signal()
		f.mu.Unlock()
		if p != nil {
			p.stop()
		}
		if err != nil && f.manager.ctx.Err() == nil {
			f.manager.log.Warn("start another worker", "flow", f.spec.ID, "error", err)
		}
	})
}

func (f *Flow) signal() {
	close(f.changed)
	f.changed = make(chan struct{})
}

// giveBack ends a session's hold on its worker.
func (f *Flow) giveBack(p *process) {
	f.mu.Lock()
	p.sessions--
	p.idleSince = time.Now()
	end := p.draining && p.sessions == 0
	f.reapLater()
	f.signal()
	f.mu.Unlock()
	if end {
		p.kill(gaveUp)
	}
}

// giveUp takes a worker out of service: a call on it did not end after it was cancelled. It is killed when its
// sessions are over, and after Config.Drain in any case.
func (f *Flow) giveUp(p *process) {
	f.mu.Lock()
	if p.draining || f.closed {
		f.mu.Unlock()
		return
	}
	p.draining = true
	idle := p.sessions == 0
	f.signal()
	f.mu.Unlock()
	f.manager.log.Warn("a cancelled call does not end, giving up its worker", "flow", f.spec.ID, "pid", p.pid)
	if idle {
		p.kill(gaveUp)
		return
	}
	f.after(p, f.manager.config.Drain, func() { p.kill(gaveUp) })
}

const gaveUp = "it was given up because a cancelled call did not end"

// after calls do after a while, unless the worker ends before.
func (f *Flow) after(p *process, wait time.Duration, do func()) {
	f.wg.Go(func() {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
			do()
		case <-p.dead:
		}
	})
}

// keep is how many workers stay when there is nothing to do. Without a template the last one does, for another would have to import the
// flow's code anew. f.mu is held.
func (f *Flow) keep() int {
	if f.template == nil || f.spec.Keep {
		return 1
	}
	return 0
}

// reapLater arranges for surplus workers to go once they have been idle. f.mu is held.
func (f *Flow) reapLater() {
	if f.reaper != nil || f.closed || len(f.workers) <= f.keep() {
		return
	}
	f.reaper = time.AfterFunc(f.manager.config.Idle, f.reap)
}

func (f *Flow) reap() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reaper = nil
	f.bury()
	usable := 0
	for _, p := range f.workers {
		if !p.draining {
			usable++
		}
	}
	living := f.workers[:0]
	for _, p := range f.workers {
		after := f.manager.config.Idle
		if usable == 1 {
			after = f.manager.config.Rest
		}
		if p.sessions == 0 && !p.draining && surplus(time.Since(p.idleSince), after, usable, f.keep()) {
			usable--
			p.kill("it was idle")
			continue
		}
		living = append(living, p)
	}
	clear(f.workers[len(living):])
	f.workers = living
	f.reapLater()
}

// Close ends the flow's workers; calls in flight fail. It returns when they have ended.
func (f *Flow) Close() error {
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		return nil
	}
	f.closed = true
	workers := f.workers
	f.workers = nil
	if f.reaper != nil {
		f.reaper.Stop()
	}
	f.signal()
	f.mu.Unlock()
	for _, p := range workers {
		p.stop()
	}
	f.wg.Wait()
	f.closeTemplate()
	f.manager.mu.Lock()
	delete(f.manager.flows, f)
	f.manager.mu.Unlock()
	return nil
}

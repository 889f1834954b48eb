package run

import (
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/connection"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/flow"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/media"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/template"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/worker"
)

// Workers opens flows in Python workers. [FromManager] makes one of package worker's manager.
type Workers interface {
	// Open loads the flow's Python nodes; a node that cannot be loaded says so in its Tool.
	Open(ctx context.Context, spec worker.FlowSpec) (FlowWorkers, error)
}

// FlowWorkers are the workers of one flow.
type FlowWorkers interface {
	// Tools returns what was learned of the nodes, in the order of the spec.
	Tools() []*worker.Tool
	// Script returns what was learned of a flow without nodes.
	Script() *worker.Script
	// Lease pins a session to one worker.
	Lease(ctx context.Context) (Session, error)
	Close() error
}

// Session is one line's place in a worker: references live as long as it does.
type Session interface {
	Call(ctx context.Context, call worker.Call) (*worker.Result, error)
	Line(ctx context.Context, line worker.Line) (*worker.LineResult, error)
	Aggregate(ctx context.Context, runID string, lines []*worker.LineResult) (json.RawMessage, error)
	Property(ctx context.Context, ref *value.Ref, node, property string) (any, error)
	Equal(ctx context.Context, ref *value.Ref, v any) (bool, error)
	Join(ctx context.Context, ref *value.Ref) (string, error)
	Stream(ctx context.Context, ref *value.Ref, emit func(item any) error) error
	Render(ctx context.Context, template string, vars *value.Dict) (string, error)
	RenderChatLists(ctx context.Context, template string, vars *value.Dict) (string, error)
	Variables(ctx context.Context, template string) ([]worker.Variable, error)
	Release()
}

// FromManager adapts a worker manager.
func FromManager(m *worker.Manager) Workers { return manager{m} }

type manager struct{ *worker.Manager }

func (m manager) Open(ctx context.Context, spec worker.FlowSpec) (FlowWorkers, error) {
	f, err := m.Manager.Open(ctx, spec)
	if err != nil {
		return nil, err
	}
	return flowWorkers{f}, nil
}

type flowWorkers struct{ *worker.Flow }

func (f flowWorkers) Lease(ctx context.Context) (Session, error) {
	s, err := f.Flow.Lease(ctx)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// python opens a flow's workers when the first of them is needed: a flow of prompt and llm nodes whose templates are simple
// never starts one.
type python struct {
	workers Workers
	spec    worker.FlowSpec

	mu     sync.Mutex
	open   FlowWorkers
	closed bool
}

func newPython(c Config, f *flow.Flow, format media.Format, environment map[string]string, connections *connection.Set) *python {
	p := &python{workers: c.Workers, spec: worker.FlowSpec{
		ID: c.Digest, Dir: c.Dir, Env: environment, Connections: json.RawMessage(value.Encode(connections.Dict())), MessageFormat: string(format),
	}}
	if f.Form != flow.DAG {
		p.spec.Script = scriptSpec(c, f)
	}
	if f.Code != "" {
		p.spec.Dir = filepath.Join(c.Dir, f.Code)
	}
	for _, n := range f.Nodes {
		if (n.Type == flow.Python || n.Type == flow.CustomLLM) && n.Source != nil {
			p.spec.Nodes = append(p.spec.Nodes, n.Raw)
		}
		if n.Module != "" && !slices.Contains(ownModules, n.Module) {
			p.spec.Modules = append(p.spec.Modules, [2]string{n.Name, n.Module})
		}
	}
	return p
}

// ownModules are the modules of llm and embedding nodes that every installation of prompt flow's tools has. They are not imported for
// the sake of a node that names them.
var ownModules = []string{"promptflow.tools.aoai", "promptflow.tools.openai", "promptflow.tools.embedding"}

// needed reports whether the flow cannot be loaded without a worker.
func (p *python) needed() bool { return len(p.spec.Nodes) > 0 || len(p.spec.Modules) > 0 }

func (p *python) flow(ctx context.Context) (FlowWorkers, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, worker.ErrClosed
	}
	if p.open != nil {
		return p.open, nil
	}
	var err error
	p.open, err = p.workers.Open(ctx, p.spec)
	return p.open, err
}

func (p *python) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	if p.open != nil {
		_ = p.open.Close()
	}
}

// session leases a worker when it is first needed. It is a line's graph.Objects and template.Renderer.
type session struct {
	python *python

	mu     sync.Mutex
	leased Session
}

func (s *session) get(ctx context.Context) (Session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leased != nil {
		return s.leased, nil
	}
	f, err := s.python.flow(ctx)
	if err != nil {
		return nil, err
	}
	s.leased, err = f.Lease(ctx)
	return s.leased, err
}

func (s *session) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leased != nil {
		s.leased.Release()
		s.leased = nil
	}
}

func (s *session) Property(ctx context.Context, ref *value.Ref, node, property string) (any, error) {
	leased, err := s.get(ctx)
	if err != nil {
		return nil, err
	}
	return leased.Property(ctx, ref, node, property)
}

func (s *session) Equal(ctx context.Context, ref *value.Ref, v any) (bool, error) {
	leased, err := s.get(ctx)
	if err != nil {
		return false, err
	}
	return leased.Equal(ctx, ref, v)
}

// Render implements template.Renderer.
func (s *session) Render(ctx context.Context, source string, vars *value.Dict) (string, error) {
	leased, err := s.get(ctx)
	if err != nil {
		return "", err
	}
	text, err := leased.Render(ctx, source, vars)
	return text, renderFailure(err)
}

// RenderChatLists implements template.ChatListRenderer.
func (s *session) RenderChatLists(ctx context.Context, source string, vars *value.Dict) (string, error) {
	leased, err := s.get(ctx)
	if err != nil {
		return "", err
	}
	text, err := leased.RenderChatLists(ctx, source, vars)
	return text, renderFailure(err)
}

// Variables implements template.Renderer.
func (s *session) Variables(ctx context.Context, source string) ([]string, error) {
	leased, err := s.get(ctx)
	if err != nil {
		return nil, err
	}
	found, err := leased.Variables(ctx, source)
	if err != nil {
		return nil, syntaxFailure(err)
	}
	names := make([]string, len(found))
	for i, v := range found {
		names[i] = v.Name
	}
	return names, nil
}

// renderFailure finds Jinja2's exception in the error that prompt flow makes of it while rendering.
func renderFailure(err error) error {
	var e *api.Error
	if !errors.As(err, &e) || e.Class() != "JinjaTemplateError" {
		return err
	}
	text := strings.TrimPrefix(e.Message, "Failed to render jinja template: ")
	text = strings.TrimSuffix(text, ". Please modify your prompt to fix the issue.")
	class, message, _ := strings.Cut(text, ": ")
	return &template.Error{Class: class, Message: message}
}

// syntaxLine is Jinja2's own frame in a traceback: the line of the template.
var syntaxLine = regexp.MustCompile(`File \\?"<(?:unknown|template)>\\?", line (\d+)`)

// syntaxFailure finds Jinja2's exception in the error of parsing a template, which is a bare one.
func syntaxFailure(err error) error {
	var e *api.Error
	if !errors.As(err, &e) || !strings.HasPrefix(e.Class(), "Template") {
		return err
	}
	out := &template.Error{Class: e.Class(), Message: e.Message}
	if m := syntaxLine.FindSubmatch(e.DebugInfo); m != nil {
		out.Line, _ = strconv.Atoi(string(m[1]))
	}
	return out
}

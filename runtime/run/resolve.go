package run

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"path"
	"strings"
	"unicode/utf8"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/connection"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/flow"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/tool"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/worker"
)

// maxTemplate bounds a template file, in bytes.
const maxTemplate = 16 << 20

// resolver makes a step of every node, in the flow's order; the first node that has no tool fails the flow.
type resolver struct {
	x           *Executor
	dir         fs.FS
	connections *connection.Set
	session     *session
}

func (r *resolver) resolve(ctx context.Context) error {
	r.session = &session{python: r.x.python}
	defer r.session.release()
	tools := map[string]*worker.Tool{}
	if r.x.python.needed() {
		workers, err := r.x.python.flow(ctx)
		if err != nil {
			return r.locateModule(err)
		}
		for _, t := range workers.Tools() {
			tools[t.Node] = t
		}
	}
	for _, n := range r.x.flow.Nodes {
		s, err := r.node(ctx, n, tools[n.Name])
		if err != nil {
			return locate(err, n)
		}
		r.x.steps[n.Name] = s
	}
	return nil
}

// locateModule gives the error of a module that cannot be imported the place of the node that asks for it.
func (r *resolver) locateModule(err error) error {
	var e *api.Error
	if !errors.As(err, &e) || e.Class() != "FailedToImportModule" {
		return err
	}
	for _, n := range r.x.flow.Nodes {
		if n.Module != "" && strings.Contains(e.Message, "module '"+n.Module+"'") {
			return locate(err, n)
		}
	}
	return err
}

// locate gives an error the node's place, unless it has a better one.
func locate(err error, n *flow.Node) error {
	var e *api.Error
	if !errors.As(err, &e) || e.Location != nil {
		return err
	}
	copied := *e
	if e.Class() == "InvalidSource" && n.Source != nil {
		return n.Source.At(&copied)
	}
	return n.At(&copied)
}

func (r *resolver) node(ctx context.Context, n *flow.Node, t *worker.Tool) (step, error) {
	if n.Source == nil {
		return nil, LoadFailure(n, flow.Class{api.UserError}, "UserErrorException", "Node "+n.Name+" does not have source defined.")
	}
	switch n.Type {
	case flow.Python, flow.CustomLLM:
		if t == nil {
			return nil, LoadFailure(n, flow.Class{api.SystemError, "UnexpectedError"}, "UnexpectedError", "the worker did not load it")
		}
		if t.Error != nil {
			return nil, t.Error
		}
		return &pythonStep{tool: t, streams: r.x.flow.Streams(n)}, nil
	case flow.Prompt:
		source, err := Template(r.dir, n)
		if err != nil {
			return nil, err
		}
		p, err := tool.NewPrompt(ctx, r.session, tool.PromptSpec{Node: n.Name, Source: source, Literals: literals(n), Image: r.x.media.Image})
		if err != nil {
			return nil, err
		}
		return &nativeStep{tool: p}, nil
	case flow.LLM:
		return r.llm(ctx, n)
	default:
		name := "None"
		if n.Type != "" {
			name = n.Type
		}
		return nil, LoadFailure(n, flow.Class{api.SystemError, "NotImplementedError"}, "NotImplementedError", "Tool type "+name+" is not supported yet.")
	}
}

// llm resolves the connection and the inputs before it misses the template, as prompt flow does.
func (r *resolver) llm(ctx context.Context, n *flow.Node) (step, error) {
	source, missing := Template(r.dir, n)
	l, err := tool.NewLLM(ctx, r.session, tool.LLMSpec{
		Node: n.Name, API: n.API, Connection: n.Connection, Connections: r.connections, Source: source, Literals: literals(n), Client: r.x.config.Client, Image: r.x.media.Image,
		Streams: r.x.flow.Streams(n),
	})
	if err != nil {
		return nil, err
	}
	if missing != nil {
		return nil, missing
	}
	return &nativeStep{tool: l, streams: r.x.flow.Streams(n)}, nil
}

func literals(n *flow.Node) *value.Dict {
	d := value.NewDict()
	for _, in := range n.Inputs {
		if in.Kind == flow.Literal {
			d.Set(in.Name, in.Literal)
		}
	}
	return d
}

// LoadFailure is prompt flow's ResolveToolError, which has the classes of the error inside it.
func LoadFailure(n *flow.Node, class flow.Class, name, text string) *api.Error {
	e := api.NewError(class, flow.TargetExecutor, "Tool load failed in '%s': (%s) %s", n.Name, name, text)
	e.MessageFormat = "Tool load failed in '{node_name}'."
	e.MessageParameters = map[string]string{"node_name": n.Name}
	e.ReferenceCode = flow.TargetExecutor
	return e
}

// Template reads a node's template as Python reads text: UTF-8, every line end a line feed.
func Template(dir fs.FS, n *flow.Node) (string, error) {
	shown := n.Source.Path
	if shown == "" {
		shown = "None"
	}
	f, err := dir.Open(path.Clean(n.Source.Path))
	if err != nil {
		return "", LoadFailure(n, flow.InvalidSource, "InvalidSource", "Node source path '"+shown+"' is invalid on node '"+n.Name+"'.")
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return "", LoadFailure(n, flow.InvalidSource, "InvalidSource", "Node source path '"+shown+"' is invalid on node '"+n.Name+"'.")
	}
	text, err := io.ReadAll(io.LimitReader(f, maxTemplate+1))
	if err != nil {
		return "", err
	}
	if len(text) > maxTemplate {
		return "", LoadFailure(n, flow.InvalidSource, "InvalidSource", "The template '"+shown+"' has more than 16 MiB. Please make it smaller.")
	}
	if !utf8.Valid(text) {
		return "", LoadFailure(n, flow.InvalidSource, "InvalidSource", "The template '"+shown+"' is not UTF-8. Please save it as UTF-8.")
	}
	return strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(string(text)), nil
}

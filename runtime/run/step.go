package run

import (
	"context"
	"encoding/json"
	"time"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/flow"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/graph"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/template"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/tool"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/worker"
)

// step is a node's tool.
type step interface {
	// hasDefault reports whether a parameter has a default, so that an input from a bypassed node is left out.
	hasDefault(name string) bool
	// run runs the node. It returns soon after ctx ends.
	run(ctx context.Context, s *stage, n *flow.Node, inputs []graph.Input) outcome
}

// outcome is what a node's run gave.
type outcome struct {
	value          any
	escapes        *tool.Escapes
	err            *api.Error
	inputs         json.RawMessage
	stdout, stderr string
	metrics        json.RawMessage
	apiCalls       json.RawMessage
	systemMetrics  *value.Dict
	streamed       func() *value.Dict // the metrics of a value that streams, once it has been read
	started        time.Time
	unstarted      bool // it was cancelled while it waited for a slot
	duration       time.Duration
}

// pythonStep calls a tool in a worker, which holds the literal inputs.
type pythonStep struct {
	tool    *worker.Tool
	streams bool // it streams when the flow's caller wants it to, if the tool has a parameter for it
}

func (p *pythonStep) hasDefault(name string) bool { return p.tool.HasDefault(name) }

func (p *pythonStep) run(ctx context.Context, s *stage, n *flow.Node, inputs []graph.Input) outcome {
	began := time.Now()
	session, err := s.session.get(ctx)
	if err != nil {
		return outcome{err: asError(ctx, err), started: began, duration: time.Since(began)}
	}
	call := worker.Call{Node: n.Name, RunID: s.runID, LineNumber: -1}
	if s.number != nil {
		call.LineNumber = *s.number
	}
	if p.streams && s.streaming != asWritten {
		stream := s.streaming == pieces
		call.Stream = &stream
	}
	for _, in := range inputs {
		if in.From.Kind != flow.Literal {
			call.Inputs = append(call.Inputs, worker.Input{
				Name: in.Name, Value: in.Value, Property: in.Property, Source: in.From.Name, Hidden: s.hiddenIn(n, in),
			})
		}
	}
	result, err := session.Call(ctx, call)
	if err != nil {
		return outcome{err: asError(ctx, err), started: began, duration: time.Since(began)}
	}
	o := outcome{
		value: result.Value, err: result.Error, inputs: result.Inputs, stdout: result.Stdout, stderr: result.Stderr,
		metrics: result.Metrics, apiCalls: result.APICalls, started: result.Started, duration: result.Duration,
	}
	if len(result.SystemMetrics) > 0 {
		o.systemMetrics, _ = value.DecodeDict(result.SystemMetrics) // ours; a bad one is none
	}
	return o
}

// hiddenIn returns what a prompt node's text hides from a node that reads chat roles, nil for what is no such text.
func (s *stage) hiddenIn(n *flow.Node, in graph.Input) *worker.Hidden {
	if n.Type != flow.CustomLLM || in.From.Kind != flow.NodeOutput || in.From.Property != "" {
		return nil
	}
	from := s.x.flow.Node(in.From.Name)
	if _, isText := in.Value.(string); !isText || from == nil || from.Type != flow.Prompt {
		return nil
	}
	hidden := &worker.Hidden{}
	if e := s.escapesOf(in.From.Name); e != nil {
		hidden.Text, hidden.Words = e.Hidden()
	}
	return hidden
}

// native is a tool that runs in Go.
type native interface {
	HasDefault(name string) bool
	Run(ctx context.Context, r template.Renderer, call tool.Call) (tool.Result, error)
}

// nativeStep runs a prompt or llm node.
type nativeStep struct {
	tool    native
	streams bool // it streams when the flow's caller wants it to
}

func (p *nativeStep) hasDefault(name string) bool { return p.tool.HasDefault(name) }

func (p *nativeStep) run(ctx context.Context, s *stage, n *flow.Node, inputs []graph.Input) outcome {
	began := time.Now()
	call, err := s.toolCall(ctx, inputs)
	if err != nil {
		return outcome{err: asError(ctx, err), started: began, duration: time.Since(began)}
	}
	if p.streams && s.streaming == pieces {
		call.Stream = s.life
	}
	result, err := p.tool.Run(ctx, s.session, call)
	o := outcome{
		value: result.Output, escapes: result.Escapes, stderr: result.Stderr, apiCalls: result.APICalls, started: began,
		duration: time.Since(began), err: asError(ctx, err),
	}
	if result.Inputs != nil {
		o.inputs = value.Encode(result.Inputs)
	}
	o.systemMetrics = tokens(result.Usage)
	if result.Streamed != nil {
		o.streamed = func() *value.Dict { return tokens(result.Streamed()) }
	}
	return o
}

func tokens(u tool.Usage) *value.Dict {
	if !u.Known {
		return nil
	}
	d := value.NewDict()
	d.Set("prompt_tokens", u.PromptTokens)
	d.Set("completion_tokens", u.CompletionTokens)
	d.Set("total_tokens", u.TotalTokens)
	return d
}

// toolCall gathers the inputs of a native tool; the objects among them stay in the worker.
func (s *stage) toolCall(ctx context.Context, inputs []graph.Input) (tool.Call, error) {
	call := tool.Call{Inputs: value.NewDictSize(len(inputs)), FromPrompts: map[string]*tool.Escapes{}}
	for _, in := range inputs {
		v := in.Value
		if ref, ok := v.(*value.Ref); ok && in.Property != "" {
			var err error
			if v, err = s.session.Property(ctx, ref, in.From.Name, in.Property); err != nil {
				return call, err
			}
		}
		call.Inputs.Set(in.Name, v)
		switch {
		case in.From.Kind == flow.FlowInput:
			call.FromFlow = append(call.FromFlow, in.Name)
		case in.From.Kind == flow.NodeOutput && in.From.Property == "":
			if e := s.escapesOf(in.From.Name); e != nil {
				call.FromPrompts[in.Name] = e
			}
		}
	}
	return call, nil
}

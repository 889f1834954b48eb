package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// Session pins a run to one worker. Its references ([value.Ref]) live until Release and are valid in this session only. A session that
// has none outlives its worker.
// It may be used by many goroutines at once.
type Session struct {
	flow *Flow
	id   uint64
	once sync.Once

	mu       sync.Mutex
	process  *process
	keeps    bool // references were handed out, which are in this process only
	released bool
}

// Call is one run of a node's tool.
type Call struct {
	Node       string
	RunID      string // of the flow run
	LineNumber int    // -1: none
	// Inputs are the values of the node's inputs that are not literals. An input left out (bypassed, with a default) is not
	// passed; one that is not in the node's definition is passed too.
	Inputs []Input
	// Stream sets the tool's parameter that makes it stream, where it has one; nil leaves it as the flow has it.
	Stream *bool
}

// Input is one value for a call.
type Input struct {
	Name  string
	Value any // plain data, a *value.Ref, or plain data with references inside
	// Property is resolved in the worker, by prompt flow's own rule, when Value is a *value.Ref; Source names the node
	// that the reference is to, for the error.
	Property string
	Source   string
	// Hidden is what Value, the text of a prompt node, hides from nodes that read chat roles; nil for what is no such text.
	Hidden *Hidden
}

// Hidden is the other half of promptflow-tools' PromptResult: its text with role words hidden, and pairs of what stands for a word and
// the word.
type Hidden struct {
	Text  string
	Words [][2]string
}

// Result is a call that ended. Error is nil for a completed one.
type Result struct {
	Value any // plain data or a *value.Ref
	Error *api.Error
	// Inputs is the object of all inputs, as run records show them.
	Inputs        json.RawMessage
	Stdout        string // with prompt flow's timestamp before every write
	Stderr        string
	Metrics       json.RawMessage // object of what log_metric was given; nil when nothing
	APICalls      json.RawMessage // prompt flow's trace list; "[]" unless tracing is switched on
	SystemMetrics json.RawMessage // token counts found in the trace; nil when none
	Started       time.Time
	Duration      time.Duration
}

// Call runs a node's tool. What the tool raises is in Result.Error; so is a crash of the worker or a cancelled context, for
// which Call returns at once while the worker is asked to stop the tool. The error is for misuse only: an unknown node
// or a released session.
func (s *Session) Call(ctx context.Context, call Call) (*Result, error) {
	tool := s.flow.tools[call.Node]
	if tool == nil || tool.Error != nil {
		return nil, fmt.Errorf("call node %q of flow %s: it was not loaded", call.Node, s.flow.spec.ID)
	}
	head := map[string]any{"op": "call", "session": s.id, "node": call.Node, "run_id": call.RunID, "line": nil}
	if call.LineNumber >= 0 {
		head["line"] = call.LineNumber
	}
	inputs := encodeInputs(call.Inputs)
	if call.Stream != nil {
		head["stream"] = *call.Stream
	}
	inputs.announce(head)
	if hidden := hiddenInputs(call.Inputs); len(hidden) > 0 {
		head["hidden"] = hidden
	}
	result := &Result{Started: time.Now()}
	r, err := s.roundTrip(ctx, head, inputs.parts()...)
	result.Inputs = inputs.record(tool, r)
	if err != nil {
		result.Duration = time.Since(result.Started)
		result.Error = asFailure(err, describeCall(call))
		return result, nil
	}
	return result.fill(r), nil
}

func hiddenInputs(inputs []Input) map[string]any {
	hidden := map[string]any{}
	for _, in := range inputs {
		if in.Hidden != nil {
			hidden[in.Name] = []any{in.Hidden.Text, in.Hidden.Words}
		}
	}
	return hidden
}

func describeCall(call Call) string {
	if call.LineNumber < 0 {
		return fmt.Sprintf("node '%s'", call.Node)
	}
	return fmt.Sprintf("node '%s' in line %d", call.Node, call.LineNumber)
}

func (result *Result) fill(r *reply) *Result {
	result.Stdout, result.Stderr = r.Stdout, r.Stderr
	result.Started = time.UnixMicro(int64(r.Started * 1e6))
	result.Duration = time.Duration(r.Duration * float64(time.Second))
	result.Metrics = r.parts["metrics"]
	result.SystemMetrics = r.parts["system_metrics"]
	result.APICalls = r.parts["api_calls"]
	if result.APICalls == nil {
		result.APICalls = json.RawMessage("[]")
	}
	if r.Error != nil {
		result.Error = finish(r.Error)
		return result
	}
	var err error
	if result.Value, err = r.value(); err != nil {
		result.Error = asFailure(err, "read result")
	}
	return result
}

// Property returns ref's property by prompt flow's rule ("a.b", "['k']", "[0]"); node names the reference in errors.
func (s *Session) Property(ctx context.Context, ref *value.Ref, node, property string) (any, error) {
	r, err := s.roundTrip(ctx, map[string]any{"op": "property", "session": s.id, "ref": ref.ID, "node": node, "property": property})
	return r.result(err, "read property of node '"+node+"'")
}

// Equal tells whether ref == v in Python, as an activate condition asks.
func (s *Session) Equal(ctx context.Context, ref *value.Ref, v any) (bool, error) {
	in := encodeInputs([]Input{{Name: "value", Value: v}})
	head := map[string]any{"op": "equal", "session": s.id, "ref": ref.ID}
	in.announce(head)
	r, err := s.roundTrip(ctx, head, in.parts()...)
	result, err := r.result(err, "compare value")
	if err != nil {
		return false, err
	}
	return value.Truth(result), nil
}

// Join consumes a stream, sync or async, and returns "".join(str(x) for x in it). A stream can be consumed once.
func (s *Session) Join(ctx context.Context, ref *value.Ref) (string, error) {
	r, err := s.roundTrip(ctx, map[string]any{"op": "join", "session": s.id, "ref": ref.ID})
	v, err := r.result(err, "read stream")
	if err != nil {
		return "", err
	}
	return value.Str(v), nil
}

// streamAhead is how many items of a stream a worker may be ahead of its reader.
const streamAhead = 32

// Stream consumes a stream, sync or async, and hands over each item as soon as it is made: a plain value, or its str() when it is none.
// A stream can be consumed once. An error of emit ends it and is returned.
func (s *Session) Stream(ctx context.Context, ref *value.Ref, emit func(item any) error) error {
	if ctx.Err() != nil {
		return canceledError(context.Cause(ctx))
	}
	p, err := s.on(ctx)
	if err != nil {
		return asFailure(err, "read stream")
	}
	r, err := p.send(map[string]any{"op": "stream", "session": s.id, "ref": ref.ID, "room": streamAhead}, streamAhead)
	if err != nil {
		return asFailure(err, "read stream")
	}
	for taken := 0; ; taken++ {
		select {
		case a := <-r.answer:
			if a.err != nil || !a.reply.Chunk {
				_, err := a.reply.result(a.err, "read stream")
				return err
			}
			if err = s.item(a.reply, p, r, taken, emit); err != nil {
				s.cancel(p, r)
				return err
			}
		case <-ctx.Done():
			s.cancel(p, r)
			return canceledError(context.Cause(ctx))
		}
	}
}

// item hands one item over, and makes room for more.
func (s *Session) item(reply *reply, p *process, r request, taken int, emit func(item any) error) error {
	v, err := reply.value()
	if err != nil {
		return asFailure(err, "read stream")
	}
	if err := emit(v); err != nil {
		return err
	}
	const batch = streamAhead / 2
	if taken%batch == batch-1 {
		_ = p.post(map[string]any{"op": "grant", "target": r.id, "count": batch}) // one that ended says so itself
	}
	return nil
}

// Render renders a template as prompt flow's prompt nodes do (Jinja2, sandboxed, trim_blocks, keep_trailing_newline).
func (s *Session) Render(ctx context.Context, template string, vars *value.Dict) (string, error) {
	return s.render(ctx, template, vars, false)
}

// RenderChatLists is Render with every list in vars made promptflow-tools' ChatInputList, as Azure OpenAI chat nodes do.
func (s *Session) RenderChatLists(ctx context.Context, template string, vars *value.Dict) (string, error) {
	return s.render(ctx, template, vars, true)
}

func (s *Session) render(ctx context.Context, template string, vars *value.Dict, chatLists bool) (string, error) {
	inputs := make([]Input, 0, vars.Len())
	for name, v := range vars.All() {
		inputs = append(inputs, Input{Name: name, Value: v})
	}
	in := encodeInputs(inputs)
	head := map[string]any{"op": "render", "session": s.id}
	if chatLists {
		head["chat_lists"] = true
	}
	in.announce(head)
	bounded, cancel := context.WithTimeout(ctx, s.flow.manager.config.Render)
	defer cancel()
	r, err := s.roundTrip(bounded, head, append(in.parts(), part{"template", value.Encode(template)})...)
	if err != nil && ctx.Err() == nil && bounded.Err() != nil {
		return "", renderTimeout(s.flow.manager.config.Render)
	}
	v, err := r.result(err, "render template")
	if err != nil {
		return "", err
	}
	return value.Str(v), nil
}

// renderTimeout is the error for a template that does not end, as prompt flow words what goes wrong while it renders.
func renderTimeout(after time.Duration) *api.Error {
	return api.NewError([]string{api.UserError, "ToolValidationError", "JinjaTemplateError"}, "Tool",
		"Failed to render jinja template: TimeoutError: it did not end within %s. Please modify your prompt to fix the issue.", after)
}

// Variable is an undeclared variable of a template.
type Variable struct {
	Name string `json:"name"`
	Type string `json:"type"` // "string", or "image" for ![image]({{name}})
}

// Variables returns a template's inputs, in the order of their first appearance, as prompt flow finds them.
func (s *Session) Variables(ctx context.Context, template string) ([]Variable, error) {
	bounded, cancel := context.WithTimeout(ctx, s.flow.manager.config.Render)
	defer cancel()
	r, err := s.roundTrip(bounded, map[string]any{"op": "variables", "session": s.id}, part{"template", value.Encode(template)})
	if err != nil && ctx.Err() == nil && bounded.Err() != nil {
		return nil, renderTimeout(s.flow.manager.config.Render)
	}
	if err == nil && r.Error != nil {
		err = finish(r.Error)
	}
	if err != nil {
		return nil, asFailure(err, "parse template")
	}
	var variables []Variable
	if err := json.Unmarshal(r.parts["value"], &variables); err != nil {
		return nil, fmt.Errorf("decode template variables: %w", err)
	}
	return variables, nil
}

// Release frees the session's references. Calls still running go on to their end.
func (s *Session) Release() {
	s.once.Do(func() {
		s.mu.Lock()
		p := s.process
		s.released = true
		s.mu.Unlock()
		if err := p.post(map[string]any{"op": "release", "session": s.id}); err != nil {
			s.flow.manager.log.Debug("release session", "pid", p.pid, "error", err)
		}
		s.flow.giveBack(p)
	})
}

// on returns the session's worker. When that has ended and held no object of the session, the session goes on on another one.
func (s *Session) on(ctx context.Context) (*process, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process.alive() || s.keeps || s.released {
		return s.process, nil
	}
	next, err := s.flow.acquire(ctx)
	if err != nil {
		return nil, err
	}
	s.flow.giveBack(s.process)
	s.process = next
	return next, nil
}

// kept notes that the session's worker holds an object for it.
func (s *Session) kept(r *reply) {
	if r == nil || r.Ref == nil && len(r.Streams) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keeps = true
}

// roundTrip asks the session's worker. When ctx ends first the worker is told to cancel, and watched.
func (s *Session) roundTrip(ctx context.Context, head map[string]any, parts ...part) (*reply, error) {
	if err := ctx.Err(); err != nil {
		return nil, &abandoned{cause: context.Cause(ctx)}
	}
	p, err := s.on(ctx)
	if err != nil {
		return nil, err
	}
	r, err := p.roundTrip(ctx, head, parts...)
	var a *abandoned
	if errors.As(err, &a) {
		s.cancel(p, a.request)
	}
	s.kept(r)
	return r, err
}

// cancel asks the worker to stop a request; if that does not end within the grace, the worker is given up.
func (s *Session) cancel(p *process, r request) {
	f := s.flow
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return
	}
	f.wg.Go(func() {
		if err := p.post(map[string]any{"op": "cancel", "target": r.id}); err != nil {
			return // the worker is ending
		}
		timer := time.NewTimer(f.manager.config.Grace)
		defer timer.Stop()
		for {
			select {
			case a := <-r.answer:
				if a.err == nil && a.reply.Chunk {
					continue // made before it was cancelled
				}
			case <-p.dead:
			case <-timer.C:
				f.giveUp(p)
			}
			return
		}
	})
}

// result turns an answer into a value or an *api.Error.
func (r *reply) result(err error, doing string) (any, error) {
	if err != nil {
		return nil, asFailure(err, doing)
	}
	if r.Error != nil {
		return nil, finish(r.Error)
	}
	v, err := r.value()
	if err != nil {
		return nil, asFailure(err, doing)
	}
	return v, nil
}

package tool

import (
	"context"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/template"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// llmRun is one run of an llm node; it collects what the result shows also when the run fails.
type llmRun struct {
	llm     *LLM
	result  Result
	started time.Time
	log     strings.Builder
	call    *modelCall
}

// modelCall is the one request to the model with all its attempts.
type modelCall struct {
	body          *value.Dict
	answer        any
	err           error
	started, done time.Time
}

func (r *llmRun) do(ctx context.Context, renderer template.Renderer, call Call, arguments *value.Dict) error {
	parameters, variables := r.llm.split(arguments)
	body, err := r.llm.body(ctx, renderer, call, parameters, variables)
	if err != nil {
		return err
	}
	if err := sendable(body); err != nil {
		return err
	}
	if call.Stream != nil {
		return r.stream(ctx, call.Stream, body)
	}
	answer, err := r.send(ctx, body)
	if err != nil {
		return err
	}
	r.result.Usage = usageOf(answer)
	r.result.Output, err = output(r.llm.api, body.Has("tools") || body.Has("functions"), answer)
	return err
}

func (r *llmRun) send(ctx context.Context, body *value.Dict) (any, error) {
	got, err := attempt(ctx, r, body, func(target string, data []byte) (*answer, error) {
		return r.llm.client.send(ctx, &r.llm.endpoint, target, data)
	})
	if err != nil {
		return nil, err
	}
	r.call.answer = got.value
	return got.value, nil
}

// attempt sends a body with send until there is an answer, and notes the call for the trace.
func attempt[T any](ctx context.Context, r *llmRun, body *value.Dict, send func(target string, data []byte) (T, error)) (T, error) {
	model, _ := body.Get("model")
	r.call = &modelCall{body: body, started: r.llm.client.now()}
	target, data := r.llm.endpoint.url(value.Str(model)), value.Encode(body)
	got, err := persist(ctx, r.llm.client, &r.llm.endpoint, func() (T, error) { return send(target, data) }, func(line string) {
		r.log.WriteString(line + "\n")
	})
	r.call.err, r.call.done = err, r.llm.client.now()
	return got, err
}

// finish fills in what the run leaves behind.
func (r *llmRun) finish(err error) {
	r.result.Stderr = r.log.String()
	r.result.APICalls = value.Encode([]any{r.trace(err)})
}

// trace is the run as prompt flow's tracer records it: the tool's function, and inside it the call of OpenAI's client.
func (r *llmRun) trace(err error) *value.Dict {
	l := r.llm
	inputs := value.NewDict()
	inputs.Set("prompt", l.source.Text())
	for name, v := range r.result.Inputs.All() {
		inputs.Set(name, v)
	}
	id := uuid.NewString()
	children := []any{}
	if r.call != nil {
		children = append(children, r.call.trace(l.api, id, r.result.Usage))
	}
	name := l.provider + "." + l.api
	return span{
		name: name, kind: "Function", function: name, node: l.node, id: id,
		inputs: inputs, output: r.result.Output, err: err, children: children,
		started: r.started, done: l.client.now(), usage: r.result.Usage,
	}.dict()
}

func (c *modelCall) trace(apiName, parent string, usage Usage) *value.Dict {
	s := span{
		name: "openai_" + apiName, kind: "LLM", function: "openai.resources.chat.completions.completions.Completions.create",
		id: uuid.NewString(), parent: parent, inputs: withoutPictures(c.body), output: c.answer, err: c.err, children: []any{},
		started: c.started, done: c.done, usage: usage,
	}
	if apiName == apiCompletion {
		s.function = "openai.resources.completions.Completions.create"
	}
	return s.dict()
}

// maxPicture is how much of an image's data URL a trace keeps, in bytes: the whole would be in memory once more for every call.
const maxPicture = 64

func withoutPictures(body *value.Dict) *value.Dict {
	cut := value.Map(body, func(v any) any {
		if s, ok := v.(string); ok && len(s) > maxPicture && strings.HasPrefix(s, "data:image/") {
			return s[:maxPicture] + "…"
		}
		return v
	})
	return cut.(*value.Dict)
}

// span is one entry of prompt flow's api_calls (promptflow.tracing.contracts.trace.Trace).
type span struct {
	name, kind, function, node, id, parent string

	inputs        *value.Dict
	output        any
	err           error
	children      []any
	started, done time.Time
	usage         Usage
}

func (s span) dict() *value.Dict {
	d := value.NewDict()
	d.Set("name", s.name)
	d.Set("type", s.kind)
	d.Set("inputs", s.inputs)
	d.Set("output", s.output)
	d.Set("start_time", unixSeconds(s.started))
	d.Set("end_time", unixSeconds(s.done))
	d.Set("error", traceError(s.err))
	d.Set("children", s.children)
	d.Set("node_name", nil)
	if s.node != "" {
		d.Set("node_name", s.node)
	}
	d.Set("parent_id", s.parent)
	d.Set("id", s.id)
	d.Set("function", s.function)
	d.Set("system_metrics", s.usage.dict())
	return d
}

// dict is the counts as prompt flow's system_metrics has them; empty when there are none.
func (u Usage) dict() *value.Dict {
	d := value.NewDict()
	if u.Known {
		d.Set("completion_tokens", u.CompletionTokens)
		d.Set("prompt_tokens", u.PromptTokens)
		d.Set("total_tokens", u.TotalTokens)
	}
	return d
}

func unixSeconds(t time.Time) float64 { return float64(t.UnixMicro()) / 1e6 }

func traceError(err error) any {
	if err == nil {
		return nil
	}
	e := api.AsError(err)
	d := value.NewDict()
	d.Set("message", e.Message)
	d.Set("type", e.Class())
	return d
}

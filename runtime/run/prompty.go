package run

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"github.com/nomad-promptflow/nomad-promptflow/runtime/connection"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/flow"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/tool"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/worker"
)

// preparePrompty makes a prompty file ready to run here, without Python, or else in workers, by prompt flow's own class.
func (x *Executor) preparePrompty(ctx context.Context, dir fs.FS, environment map[string]string, connections *connection.Set) error {
	card := x.flow.Card
	var why error
	x.prompty, why = tool.NewPrompty(tool.PromptySpec{
		Config: card.Config, Template: card.Template, Dir: dir, File: x.flow.File, Overrides: x.config.Init,
		Env: worker.Visible(environment), Connections: connections, Client: x.config.Client,
	})
	if why != nil {
		x.log.Debug("prompty file is left to prompt flow's own class", "file", x.flow.File, "reason", why)
		return x.prepareScript(ctx)
	}
	if len(x.flow.Outputs) == 0 {
		learned := *x.flow
		learned.Outputs = []*flow.Output{{Name: "output", Type: "string"}}
		x.flow = &learned
	}
	return nil
}

// runPrompty runs one line of a prompty file.
func (x *Executor) runPrompty(ctx context.Context, l *Line, at place, inputs *value.Dict) error {
	if x.prompty == nil {
		return x.runScript(ctx, l, at, inputs)
	}
	given := inputs
	if sample := x.prompty.Sample(); given.Len() == 0 && sample != nil && x.takesSample(at) {
		given = sample
	}
	l.Info.Inputs = value.Encode(given)
	given = x.flow.WithDefaults(given)
	converted, err := x.flow.ConvertInputs(given, nil)
	if err != nil {
		return err
	}
	l.Info.Inputs = value.Encode(given)
	began := time.Now()
	result, err := x.prompty.Run(ctx, l.session, x.declared(converted))
	if errors.Is(err, tool.ErrLeft) {
		return x.runScript(ctx, l, at, inputs)
	}
	l.metrics = promptyMetrics(time.Since(began), result.Usage)
	if result.Stderr != "" {
		l.Info.Logs = map[string]string{"stdout": "", "stderr": result.Stderr}
	}
	if err != nil {
		return err
	}
	l.Output, l.Primitive = outputOf(result.Value)
	return nil
}

// declared leaves out the inputs that the flow does not define.
func (x *Executor) declared(inputs *value.Dict) *value.Dict {
	out := value.NewDictSize(len(x.flow.Inputs))
	for _, in := range x.flow.Inputs {
		v, _ := inputs.Get(in.Name)
		out.Set(in.Name, v)
	}
	return out
}

// outputOf is an object as it is, and any other value as the one output of that name.
func outputOf(v any) (output *value.Dict, primitive bool) {
	if d, ok := v.(*value.Dict); ok {
		return d, false
	}
	d := value.NewDict()
	d.Set("output", v)
	return d, true
}

func promptyMetrics(took time.Duration, u tool.Usage) []byte {
	metrics := value.NewDict()
	metrics.Set("duration", took.Seconds())
	if u.Known {
		metrics.Set("prompt_tokens", u.PromptTokens)
		metrics.Set("completion_tokens", u.CompletionTokens)
		metrics.Set("total_tokens", u.TotalTokens)
	}
	return value.Encode(metrics)
}

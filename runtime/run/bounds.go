package run

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/flow"
)

// bounds are how long a line and a node of it may take; 0 means for ever.
type bounds struct{ line, node time.Duration }

// bounds returns what a submission asks for, within what the runtime allows. byDefault is the bound of a line when neither says one.
func (x *Executor) bounds(r *api.RunRequest, byDefault time.Duration) bounds {
	b := bounds{line: tighter(r.LineTimeout, x.config.LineTimeout), node: tighter(r.NodeTimeout, x.config.NodeTimeout)}
	if b.line == 0 {
		b.line = byDefault
	}
	return b
}

func tighter(seconds float64, most time.Duration) time.Duration {
	asked := time.Duration(seconds * float64(time.Second))
	if asked <= 0 || most > 0 && most < asked {
		return most
	}
	return asked
}

// lineTimeout is why the context of a line ended.
type lineTimeout struct {
	line  int
	after time.Duration
}

func (t *lineTimeout) Error() string { return "line timeout" }

func (t *lineTimeout) seconds() string { return secondsText(t.after) }

func secondsText(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) }

// nodeTimeout is why the context of a node ended.
type nodeTimeout struct {
	node  *flow.Node
	after time.Duration
}

func (t *nodeTimeout) Error() string { return "node timeout" }

// timedOut gives a node that was stopped by its own bound the error that says so. Prompt flow bounds aggregation nodes only.
func timedOut(ctx context.Context, o outcome) outcome {
	var t *nodeTimeout
	if o.err == nil || o.err.Class() != "ToolCanceledError" || !errors.As(context.Cause(ctx), &t) {
		return o
	}
	if t.node.Aggregation {
		o.err = flow.Fail(flow.AggregationNodeExecutionTimeoutError, flow.TargetExecutor,
			"Aggregation node execution timeout for exceeding {timeout} seconds", "timeout", secondsText(t.after))
		return o
	}
	o.err = flow.Fail(flow.NodeExecutionTimeoutError, flow.TargetExecutor, "Node '{node_name}' execution timeout for exceeding {timeout} seconds",
		"node_name", t.node.Name, "timeout", secondsText(t.after))
	return o
}

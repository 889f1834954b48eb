package run

import (
	"context"
	"errors"
	"strconv"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/flow"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// canceled is prompt flow's error for a node or a run that was cancelled.
func canceled(why string) *api.Error {
	return flow.Fail(flow.ToolCanceledError, flow.TargetExecutor, "Tool execution is canceled because: {msg}.", "msg", why)
}

// cause returns the error of a line whose context ended, nil when it has not.
func cause(ctx context.Context) error {
	if ctx.Err() == nil {
		return nil
	}
	var t *lineTimeout
	if errors.As(context.Cause(ctx), &t) {
		return flow.Fail(flow.LineExecutionTimeoutError, flow.TargetExecutor, "Line {line_number} execution timeout for exceeding {timeout} seconds",
			"line_number", strconv.Itoa(t.line), "timeout", t.seconds())
	}
	return canceled("Received cancel request")
}

// asError makes the one error shape of an error; nil stays nil.
func asError(ctx context.Context, err error) *api.Error {
	if err == nil {
		return nil
	}
	var e *api.Error
	if errors.As(err, &e) {
		return e
	}
	if ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)) {
		return canceled("Received cancel request")
	}
	var python *value.Error
	if errors.As(err, &python) {
		return api.NewError([]string{api.SystemError, python.Class}, flow.TargetUnknown, "%s", python.Message)
	}
	return api.AsError(err)
}

package worker

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nomad-promptflow/nomad-promptflow/api"
)

// finish fills what prompt flow's error dictionary leaves out: the target, which its referenceCode starts with.
func finish(e *api.Error) *api.Error {
	if e != nil && e.Target == "" {
		e.Target, _, _ = strings.Cut(e.ReferenceCode, "/")
	}
	return e
}

// crashError is prompt flow's ProcessCrashError (executor/_errors.py) with its class, target and first words, and how it ended.
func crashError(c *crash, doing string) *api.Error {
	others := ""
	if c.others > 0 {
		others = fmt.Sprintf(" It worked on %d more of the flow's calls, any of which may have caused this.", c.others)
	}
	e := api.NewError([]string{api.UserError, "ProcessCrashError"}, "Executor",
		"Process crashed while executing %s: %s. Look for native code, os._exit or too much memory in the flow's Python code.%s", doing, c.cause, others)
	e.ReferenceCode = "Executor"
	return e
}

// canceledError is prompt flow's ToolCanceledError as its run tracker words it.
func canceledError(cause error) *api.Error {
	reason := "Received cancel request"
	if errors.Is(cause, context.DeadlineExceeded) {
		reason = "Timeout"
	}
	e := api.NewError([]string{api.UserError, "ToolCanceledError"}, "Executor", "Tool execution is canceled because: %s.", reason)
	e.MessageFormat = "Tool execution is canceled because: {msg}."
	e.MessageParameters = map[string]string{"msg": reason}
	e.ReferenceCode = "Executor"
	return e
}

// asFailure turns what went wrong between us and a worker into the one error shape. Errors of flows are that already.
func asFailure(err error, doing string) *api.Error {
	var (
		e *api.Error
		c *crash
		a *abandoned
		t *tooLarge
	)
	switch {
	case errors.As(err, &e):
		return e
	case errors.As(err, &c):
		return crashError(c, doing)
	case errors.As(err, &a):
		return canceledError(a.cause)
	case errors.As(err, &t):
		return api.NewError([]string{api.UserError, "ValueTooLarge"}, "Executor", "%s: %s", doing, t.Error())
	default:
		return api.NewError([]string{api.SystemError, "UnexpectedError"}, "Executor", "%s", fmt.Sprintf("%s: %v", doing, err))
	}
}

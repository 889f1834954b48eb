package tool

import (
	"errors"
	"strconv"
	"strings"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/template"
)

// The targets of the errors made here (promptflow.exceptions.ErrorTarget).
const (
	targetTool     = "Tool"
	targetExecutor = "Executor"
)

// toolError is one of promptflow-tools' ToolValidationError classes.
func toolError(class, format string, args ...any) *api.Error {
	return api.NewError([]string{api.UserError, "ToolValidationError", class}, targetTool, format, args...)
}

// llmError is promptflow-tools' LLMError for an exception that is not of OpenAI's client.
func llmError(class, message string) *api.Error {
	return api.NewError([]string{api.UserError, "LLMError"}, targetTool, "OpenAI API hits exception: %s: %s", class, message)
}

// resolveError says what kept a node's tool from being loaded. It is ResolveToolError, which has the codes of the error
// inside it and repeats its class in the message.
func resolveError(node string, inner *api.Error) *api.Error {
	e := *inner
	e.Message = "Tool load failed in '" + node + "': (" + inner.Class() + ") " + inner.Message
	return &e
}

// invalidFlow is an error below InvalidFlowRequest, which most errors of resolving are.
func invalidFlow(class, format string, args ...any) *api.Error {
	return api.NewError([]string{api.UserError, "ValidationError", "InvalidFlowRequest", class}, targetExecutor, format, args...)
}

// syntaxError is Jinja2 refusing a template while its node is resolved. A renderer may also speak in prompt flow's errors.
func syntaxError(node string, err error) error {
	var je *template.Error
	var e *api.Error
	if errors.As(err, &e) && strings.HasPrefix(e.Class(), "Template") {
		return resolveError(node, e)
	}
	if !errors.As(err, &je) {
		return err
	}
	e = api.NewError([]string{api.SystemError, je.Class}, targetExecutor, "(%s) %s", je.Class, je.Message)
	prefix := "Tool load failed in '" + node + "': "
	if je.Line > 0 {
		prefix += "Jinja parsing failed at line " + strconv.Itoa(je.Line) + ": "
	}
	e.Message = prefix + e.Message
	return e
}

// renderError is an exception of Jinja2 while a template is rendered; hidden words are restored in its text.
func renderError(err error, m mapping) error {
	var je *template.Error
	var e *api.Error
	if errors.As(err, &e) && e.Class() == "JinjaTemplateError" {
		restored := *e
		restored.Message = m.restore(e.Message)
		return &restored
	}
	if !errors.As(err, &je) {
		return err
	}
	return toolError("JinjaTemplateError", "Failed to render jinja template: %s: %s. Please modify your prompt to fix the issue.",
		je.Class, m.restore(je.Message))
}

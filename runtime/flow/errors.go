package flow

import (
	"strings"

	"github.com/nomad-promptflow/nomad-promptflow/api"
)

// Class is prompt flow's chain of error classes, outermost first.
type Class []string

func user(classes ...string) Class { return append(Class{api.UserError}, classes...) }

func invalidFlow(class string) Class {
	return user("ValidationError", "InvalidFlowRequest", class)
}

// The error classes of reading, checking and running a flow (prompt flow's; YAMLError, NotSupported and
// NodeExecutionTimeoutError are ours, for what prompt flow lets escape as bare Python exceptions or does not refuse).
var (
	DuplicateNodeName         = invalidFlow("DuplicateNodeName")
	EmptyOutputReference      = invalidFlow("EmptyOutputReference")
	OutputReferenceNotFound   = invalidFlow("OutputReferenceNotFound")
	InputReferenceNotFound    = invalidFlow("InputReferenceNotFound")
	InputNotFound             = invalidFlow("InputNotFound")
	InputTypeError            = invalidFlow("InputTypeError")
	InputParseError           = invalidFlow("InputParseError")
	NodeReferenceNotFound     = invalidFlow("NodeReferenceNotFound")
	NodeCircularDependency    = invalidFlow("NodeCircularDependency")
	InvalidNodeReference      = invalidFlow("InvalidNodeReference")
	InvalidSource             = user("ValidationError", "InvalidSource")
	FlowDefinitionError       = user("FlowDefinitionError")
	InvalidFlexFlowEntry      = user("ValidationError", "InvalidFlexFlowEntry")
	FailedToImportModule      = user("FailedToImportModule")
	UnsupportedReference      = user("NodeReferenceError", "UnsupportedReference")
	InvalidReferenceProperty  = user("NodeReferenceError", "InvalidReferenceProperty")
	FlowOutputUnserializable  = user("FlowOutputUnserializable")
	ToolCanceledError         = user("ToolCanceledError")
	LineExecutionTimeoutError = user("LineExecutionTimeoutError")
	NodeExecutionTimeoutError = user("NodeExecutionTimeoutError")
	YAMLError                 = user("YAMLError")

	AggregationNodeExecutionTimeoutError = user("AggregationNodeExecutionTimeoutError")
	NotSupported                         = invalidFlow("NotSupported")
)

// Targets of errors (prompt flow's).
const (
	TargetExecutor     = "Executor"
	TargetFlowExecutor = "FlowExecutor"
	TargetUnknown      = "Unknown"
	targetSDK          = "ControlPlaneSDK"
)

// Fail builds an error as prompt flow's exceptions do: format holds {name} places, which params fills as alternating names and
// texts; format and params travel beside the message.
func Fail(class Class, target, format string, params ...string) *api.Error {
	e := api.NewError(class, target, "%s", fill(format, params))
	e.MessageFormat = format
	e.ReferenceCode = target
	if len(params) > 0 {
		e.MessageParameters = make(map[string]string, len(params)/2)
		for i := 0; i+1 < len(params); i += 2 {
			e.MessageParameters[params[i]] = params[i+1]
		}
	}
	return e
}

func fill(format string, params []string) string {
	pairs := make([]string, len(params))
	for i, p := range params {
		if i%2 == 0 {
			p = "{" + p + "}"
		}
		pairs[i] = p
	}
	return strings.NewReplacer(pairs...).Replace(format)
}

// At sets an error's place.
func (p Place) At(e *api.Error) *api.Error {
	if p.Line == 0 {
		return e
	}
	return e.At(p.File, p.Line, p.Column)
}

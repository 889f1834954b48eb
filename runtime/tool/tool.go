// Package tool runs the nodes that need no Python of the flow's own: prompt nodes ([Prompt]) and llm nodes ([LLM]).
//
// Both behave as promptflow-tools does, down to request bodies, messages and error classes. User text cannot pose as a chat
// role: role-looking words of flow inputs are replaced by UUIDs before a template is rendered and restored in the parsed
// messages, and the text of a prompt node carries what it hides ([Escapes]) to the nodes that use it.
//
// A tool is made once per node, when the flow is loaded, and then run by many goroutines at once. Errors are *api.Error.
package tool

import (
	"context"
	"encoding/json"

	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// EscapeInput is the hidden input in which prompt flow lists a node's inputs that are bound to flow inputs; it shows in the
// node's recorded inputs.
const EscapeInput = "_inputs_to_escape"

// Call is one run of a node.
type Call struct {
	// Inputs are the node's inputs in the order of the flow file: literals as the file has them, references resolved.
	Inputs *value.Dict
	// FromFlow names the inputs that are bound to flow inputs, whose text must not be taken for chat roles.
	FromFlow []string
	// FromPrompts holds, for inputs bound to the whole output of a prompt node, that node's [Result.Escapes].
	FromPrompts map[string]*Escapes
	// Stream, when not nil, asks the model of an llm node to answer piece by piece. The answer lives as long as this context, which
	// outlives the run.
	Stream context.Context
}

// Result is what a run of a node gave. A failed run fills in what there is: recorded inputs, calls and log lines.
type Result struct {
	// Output is a string, for llm nodes with tools or functions the message as *value.Dict, for an answer piece by piece *value.Stream.
	Output any
	// Escapes is what the text of a prompt node hides, to be handed to the nodes that use it; nil when it hides nothing.
	Escapes *Escapes
	// Inputs are the inputs as prompt flow records them in the node's run info.
	Inputs *value.Dict
	// Usage counts the tokens of the model's answer.
	Usage Usage
	// Streamed counts the tokens of an answer that came piece by piece, once it has been read; nil for other answers.
	Streamed func() Usage
	// APICalls is the trace of the run as prompt flow records it (a JSON list).
	APICalls json.RawMessage
	// Stderr is what promptflow-tools prints about failures and retries.
	Stderr string
}

// Usage counts tokens as the endpoint reported them; Known is false when it reported none.
type Usage struct {
	Known            bool
	PromptTokens     int64
	CompletionTokens int64
	TotalTokens      int64
}

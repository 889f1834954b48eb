package tool

import (
	"slices"

	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// firstChoice returns choices[0] of an answer.
func firstChoice(v any) (*value.Dict, error) {
	dict, ok := v.(*value.Dict)
	if !ok {
		return nil, llmError("AttributeError", "'"+value.TypeName(v)+"' object has no attribute 'choices'")
	}
	c, _ := dict.Get("choices")
	choices, ok := c.([]any)
	if !ok {
		return nil, llmError("TypeError", "'"+value.TypeName(c)+"' object is not subscriptable: the answer has no list of choices")
	}
	if len(choices) == 0 {
		return nil, llmError("IndexError", "list index out of range: the answer has no choices")
	}
	first, ok := choices[0].(*value.Dict)
	if !ok {
		return nil, llmError("AttributeError", "'"+value.TypeName(choices[0])+"' object has no attribute 'message'")
	}
	return first, nil
}

// output reads a node's output from an answer: a completion's text, a chat message's text, or the message when tools or
// functions were sent.
func output(apiName string, wholeMessage bool, v any) (any, error) {
	choice, err := firstChoice(v)
	if err != nil {
		return nil, err
	}
	if apiName == apiCompletion {
		text, ok := choice.Get("text")
		if !ok {
			return nil, llmError("AttributeError", "'CompletionChoice' object has no attribute 'text'")
		}
		return text, nil
	}
	m, _ := choice.Get("message")
	message, ok := m.(*value.Dict)
	if !ok {
		return nil, llmError("AttributeError", "'"+value.TypeName(m)+"' object has no attribute 'content'")
	}
	if wholeMessage {
		return dumpMessage(message), nil
	}
	content, _ := message.Get("content")
	return content, nil
}

// messageFields are the fields of OpenAI's ChatCompletionMessage in order; all but the role are None when absent.
var messageFields = []string{"content", "refusal", "role", "annotations", "audio", "function_call", "tool_calls"}

// dumpMessage is model_dump of a chat message: the declared fields first, then what the endpoint sent beyond them.
func dumpMessage(message *value.Dict) *value.Dict {
	out := value.NewDict()
	for _, field := range messageFields {
		v, ok := message.Get(field)
		switch {
		case ok && field == "tool_calls":
			v = dumpList(v, dumpToolCall)
		case ok && field == "function_call":
			v = dumpOrdered(v, "arguments", "name")
		case ok && field == "audio":
			v = dumpOrdered(v, "id", "data", "expires_at", "transcript")
		case ok && field == "annotations":
			v = dumpList(v, dumpAnnotation)
		case !ok && field == "role":
			continue
		}
		out.Set(field, v)
	}
	addRest(out, message)
	return out
}

func dumpList(v any, dump func(any) any) any {
	list, ok := v.([]any)
	if !ok {
		return v
	}
	out := make([]any, len(list))
	for i, item := range list {
		out[i] = dump(item)
	}
	return out
}

func dumpToolCall(v any) any {
	call, ok := v.(*value.Dict)
	if !ok {
		return v
	}
	out := value.NewDict()
	for _, field := range []string{"id", "function", "custom", "type"} {
		inner, ok := call.Get(field)
		if !ok {
			continue
		}
		switch field {
		case "function":
			inner = dumpOrdered(inner, "arguments", "name")
		case "custom":
			inner = dumpOrdered(inner, "input", "name")
		}
		out.Set(field, inner)
	}
	addRest(out, call)
	return out
}

func dumpAnnotation(v any) any {
	annotation, ok := dumpOrdered(v, "type", "url_citation").(*value.Dict)
	if !ok {
		return v
	}
	if citation, ok := annotation.Get("url_citation"); ok {
		annotation.Set("url_citation", dumpOrdered(citation, "end_index", "start_index", "title", "url"))
	}
	return annotation
}

// dumpOrdered puts the fields that are there in order, and all others behind them.
func dumpOrdered(v any, fields ...string) any {
	dict, ok := v.(*value.Dict)
	if !ok {
		return v
	}
	out := value.NewDict()
	for _, field := range fields {
		if inner, ok := dict.Get(field); ok {
			out.Set(field, inner)
		}
	}
	addRest(out, dict)
	return out
}

func addRest(out, from *value.Dict) {
	done := out.Keys()
	for k, v := range from.All() {
		if !slices.Contains(done, k) {
			out.Set(k, v)
		}
	}
}

// usageOf reads the token counts of an answer.
func usageOf(v any) Usage {
	dict, _ := v.(*value.Dict)
	u, _ := dict.Get("usage")
	usage, ok := u.(*value.Dict)
	if !ok {
		return Usage{}
	}
	count := func(field string) int64 {
		n, _ := usage.Get(field)
		i, _ := n.(int64)
		return i
	}
	return Usage{
		Known: true, PromptTokens: count("prompt_tokens"), CompletionTokens: count("completion_tokens"), TotalTokens: count("total_tokens"),
	}
}

package tool

import (
	"errors"
	"math"
	"slices"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// parameters reads a node's parameters with the defaults of promptflow-tools' functions.
type parameters struct {
	dict *value.Dict
	err  error // the first conversion that failed
}

// get returns a parameter, or its default when the node does not give it.
func (p *parameters) get(name string, byDefault any) any {
	if v, ok := p.dict.Get(name); ok {
		return v
	}
	return byDefault
}

// number returns a parameter converted by int() or float(); an exception of those is kept as an error.
func (p *parameters) number(k kind, name string, byDefault any) any {
	v, err := k.convert(p.get(name, byDefault))
	if err != nil && p.err == nil {
		p.err = pythonFailure(err)
	}
	return v
}

// pythonFailure is an exception inside a tool's function: handle_openai_error makes it an LLMError.
func pythonFailure(err error) error {
	var e *value.Error
	if errors.As(err, &e) {
		return llmError(e.Class, e.Message)
	}
	return llmError("ValueError", err.Error())
}

// isTrue is promptflow-tools' to_bool.
func isTrue(v any) bool { return lower(value.Str(v)) == "true" }

// errStreaming refuses what this runtime does not do.
func errStreaming() *api.Error {
	return toolError("StreamingNotSupported", "The input 'stream' is true, but other nodes use the output of this node, and a model that answers piece by "+
		"piece to another node is not supported by this runtime: remove it.")
}

// chatBody is the request of OpenAI.chat and AzureOpenAI.chat. The order of the keys is that of the functions.
func chatBody(provider string, messages []any, dict *value.Dict, stream bool) (*value.Dict, error) {
	p := &parameters{dict: dict}
	body := value.NewDict()
	body.Set("model", p.get(modelParameter(provider), ""))
	body.Set("messages", messages)
	body.Set("temperature", p.get("temperature", 1.0))
	body.Set("top_p", p.get("top_p", 1.0))
	if provider == providerAzure {
		body.Set("n", p.get("n", int64(1)))
	}
	body.Set("stream", stream)
	if err := setCalling(body, provider, p); err != nil {
		return nil, err
	}
	setOptional(body, p)
	return body, p.err
}

func modelParameter(provider string) string {
	if provider == providerAzure {
		return "deployment_name"
	}
	return "model"
}

// setCalling sets tools, or else the deprecated functions.
func setCalling(body *value.Dict, provider string, p *parameters) error {
	if tools := p.get("tools", nil); value.Truth(tools) {
		choice := p.get("tool_choice", nil)
		if provider == providerAzure {
			if err := validateTools(tools); err != nil {
				return err
			}
			var err error
			if choice, err = toolChoice(choice); err != nil {
				return err
			}
		}
		body.Set("tools", tools)
		body.Set("tool_choice", choice)
		return nil
	}
	functions := p.get("functions", nil)
	if !value.Truth(functions) {
		return nil
	}
	if err := validateFunctions(functions); err != nil {
		return err
	}
	call, err := functionCall(p.get("function_call", nil))
	body.Set("functions", functions)
	body.Set("function_call", call)
	return err
}

// setOptional sets the parameters that are sent only when given.
func setOptional(body *value.Dict, p *parameters) {
	truthy := func(name string) {
		if v := p.get(name, nil); value.Truth(v) {
			body.Set(name, v)
		}
	}
	given := func(name string) {
		if v := p.get(name, nil); v != nil {
			body.Set(name, v)
		}
	}
	truthy("stop")
	if v := p.get("max_tokens", nil); v != nil && lower(value.Str(v)) != "inf" {
		body.Set("max_tokens", p.number(kindInt, "max_tokens", nil))
	}
	truthy("logit_bias")
	truthy("response_format")
	given("seed")
	given("presence_penalty")
	given("frequency_penalty")
	truthy("user")
}

// completionBody is the request of OpenAI.completion and AzureOpenAI.completion.
func completionBody(provider, prompt string, dict *value.Dict, stream bool) (*value.Dict, error) {
	p := &parameters{dict: dict}
	model := p.get(modelParameter(provider), "text-davinci-003")
	body := value.NewDict()
	body.Set("model", model)
	body.Set("prompt", prompt)
	body.Set("suffix", orNone(p.get("suffix", nil)))
	body.Set("max_tokens", p.unlessNone(kindInt, "max_tokens", int64(16)))
	body.Set("temperature", p.number(kindDouble, "temperature", 1.0))
	body.Set("top_p", p.number(kindDouble, "top_p", 1.0))
	body.Set("n", p.number(kindInt, "n", int64(1)))
	body.Set("stream", stream)
	body.Set("logprobs", nil)
	if value.Truth(p.get("logprobs", nil)) {
		body.Set("logprobs", p.number(kindInt, "logprobs", nil))
	}
	body.Set("echo", isTrue(p.get("echo", false)))
	body.Set("stop", orNone(p.get("stop", nil)))
	setPenalties(body, provider, p)
	body.Set("best_of", p.number(kindInt, "best_of", int64(1)))
	body.Set("logit_bias", value.NewDict())
	if bias := p.get("logit_bias", nil); value.Truth(bias) {
		body.Set("logit_bias", bias)
	}
	body.Set("user", p.get("user", ""))
	return body, p.err
}

// setPenalties sets the penalties, which Azure's function sends only when given, and OpenAI's always and as floats.
func setPenalties(body *value.Dict, provider string, p *parameters) {
	for _, name := range []string{"presence_penalty", "frequency_penalty"} {
		if provider == providerOpenAI {
			body.Set(name, p.unlessNone(kindDouble, name, nil))
		} else if v := p.get(name, nil); v != nil {
			body.Set(name, v)
		}
	}
}

func (p *parameters) unlessNone(k kind, name string, byDefault any) any {
	if p.get(name, byDefault) == nil {
		return nil
	}
	return p.number(k, name, byDefault)
}

func orNone(v any) any {
	if value.Truth(v) {
		return v
	}
	return nil
}

// sendable checks that a body has JSON. What has none (objects of a worker, NaN) is a Python exception there.
func sendable(v any) error {
	switch v := v.(type) {
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return llmError("ValueError", "Out of range float values are not JSON compliant: "+value.Repr(v))
		}
	case []any:
		if i := slices.IndexFunc(v, func(item any) bool { return sendable(item) != nil }); i >= 0 {
			return sendable(v[i])
		}
	case *value.Dict:
		for _, item := range v.All() {
			if err := sendable(item); err != nil {
				return err
			}
		}
	case *unsendable:
		return llmError("TypeError", v.Error())
	case *value.Ref, *value.Image:
		return llmError("TypeError", (&unsendable{what: value.TypeName(v)}).Error())
	}
	return nil
}

package tool

import (
	"slices"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/connection"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// The providers and APIs of llm nodes.
const (
	providerOpenAI = "OpenAI"
	providerAzure  = "AzureOpenAI"

	apiChat       = "chat"
	apiCompletion = "completion"
)

// kind is how a literal input is converted: the type that prompt flow infers from the parameter's annotation.
type kind string

const (
	kindInt    kind = "int"
	kindDouble kind = "double"
	kindBool   kind = "bool"
	kindString kind = "string"
	kindList   kind = "list"
	kindObject kind = "object"
	kindPrompt kind = "prompt_template"
	kindOther  kind = "connection"
)

// parameter is one parameter of a tool's function.
type parameter struct {
	name     string
	kind     kind
	required bool
}

// signature is the parameters of one API in order, as promptflow-tools declares them.
type signature []parameter

func (s signature) names() []string {
	names := make([]string, len(s))
	for i, p := range s {
		names[i] = p.name
	}
	return names
}

func (s signature) find(name string) (parameter, bool) {
	i := slices.IndexFunc(s, func(p parameter) bool { return p.name == name })
	if i < 0 {
		return parameter{}, false
	}
	return s[i], true
}

// signatures are the functions of promptflow.tools.openai and promptflow.tools.aoai, by provider and API. The order is
// theirs. Object stands for every annotation that is no plain type (dict, object).
var signatures = map[string]signature{
	"AzureOpenAI.chat": {
		{"connection", kindOther, true}, {"prompt", kindPrompt, true}, {"deployment_name", kindString, true},
		{"temperature", kindDouble, false}, {"top_p", kindDouble, false}, {"n", kindInt, false},
		{"stream", kindBool, false}, {"stop", kindList, false}, {"max_tokens", kindInt, false},
		{"presence_penalty", kindDouble, false}, {"frequency_penalty", kindDouble, false},
		{"logit_bias", kindObject, false}, {"user", kindString, false}, {"function_call", kindObject, false},
		{"functions", kindList, false}, {"tool_choice", kindObject, false}, {"tools", kindList, false},
		{"response_format", kindObject, false}, {"seed", kindInt, false},
	},
	"OpenAI.chat": {
		{"connection", kindOther, true}, {"prompt", kindPrompt, true}, {"model", kindString, false},
		{"temperature", kindDouble, false}, {"top_p", kindDouble, false},
		{"stream", kindBool, false}, {"stop", kindList, false}, {"max_tokens", kindInt, false},
		{"presence_penalty", kindDouble, false}, {"frequency_penalty", kindDouble, false},
		{"logit_bias", kindObject, false}, {"user", kindString, false}, {"function_call", kindObject, false},
		{"functions", kindList, false}, {"tool_choice", kindObject, false}, {"tools", kindList, false},
		{"response_format", kindObject, false}, {"seed", kindInt, false},
	},
	"AzureOpenAI.completion": completionSignature("deployment_name", true),
	"OpenAI.completion":      completionSignature("model", false),
}

func completionSignature(model string, required bool) signature {
	return signature{
		{"connection", kindOther, true}, {"prompt", kindPrompt, true}, {model, kindString, required},
		{"suffix", kindString, false}, {"max_tokens", kindInt, false}, {"temperature", kindDouble, false},
		{"top_p", kindDouble, false}, {"n", kindInt, false}, {"stream", kindBool, false}, {"logprobs", kindInt, false},
		{"echo", kindBool, false}, {"stop", kindList, false}, {"presence_penalty", kindDouble, false},
		{"frequency_penalty", kindDouble, false}, {"best_of", kindInt, false}, {"logit_bias", kindObject, false},
		{"user", kindString, false},
	}
}

// providerOf returns the provider that a connection's class decides on; what the flow file names has no say.
func providerOf(c *connection.Connection) (string, *api.Error) {
	switch c.Class {
	case connection.AzureOpenAI:
		return providerAzure, nil
	case connection.OpenAI, connection.Serverless:
		return providerOpenAI, nil
	default:
		return "", invalidFlow("InvalidConnectionType", "Connection type %s is not supported for LLM.", c.Class)
	}
}

// convertLiterals drops null and empty literals and converts the rest by their parameter's type; inputs that are no
// parameters stay as they are (ToolResolver._convert_literal_input_types).
func convertLiterals(node string, literals *value.Dict, s signature) (*value.Dict, *api.Error) {
	out := value.NewDictSize(literals.Len())
	for name, v := range literals.All() {
		if v == nil || v == "" {
			continue
		}
		p, ok := s.find(name)
		if !ok {
			out.Set(name, v)
			continue
		}
		if p.kind == kindOther {
			return nil, invalidFlow("NodeInputValidationError",
				"Input '%s' for node '%s' is not an input: name the connection as the node's connection.", name, node)
		}
		converted, err := p.kind.convert(v)
		if err != nil {
			return nil, wrongLiteral(node, name, string(p.kind), v)
		}
		out.Set(name, converted)
	}
	return out, nil
}

func wrongLiteral(node, input, typ string, v any) *api.Error {
	return invalidFlow("NodeInputValidationError", "Input '%s' for node '%s' of value '%s' is not type %s.", input, node, value.Str(v), typ)
}

// convert is ValueType.parse.
func (k kind) convert(v any) (any, error) {
	switch k {
	case kindInt:
		return value.Int(v)
	case kindDouble:
		return value.Float(v)
	case kindBool:
		return parseBool(v)
	case kindString:
		return value.Str(v), nil
	case kindList:
		return parseList(v)
	case kindObject:
		if s, ok := v.(string); ok {
			if parsed, err := value.Decode([]byte(s)); err == nil {
				return parsed, nil
			}
		}
		return v, nil
	default:
		return v, nil
	}
}

func parseBool(v any) (any, error) {
	if _, ok := v.(bool); ok {
		return v, nil
	}
	if s, ok := v.(string); ok {
		switch lower(s) {
		case "true":
			return true, nil
		case "false":
			return false, nil
		}
	}
	return nil, &value.Error{Class: value.ValueError, Message: "Invalid boolean value " + value.Repr(v)}
}

func parseList(v any) (any, error) {
	if s, ok := v.(string); ok {
		parsed, err := value.Decode([]byte(s))
		if err != nil {
			return nil, err
		}
		v = parsed
	}
	if _, ok := v.([]any); !ok {
		return nil, &value.Error{Class: value.ValueError, Message: "Invalid list value " + value.Repr(v)}
	}
	return v, nil
}

package tool

import (
	"strconv"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// The help that promptflow-tools adds to the errors about functions and tools.
const (
	functionsHelp = `Here is a valid function example: {"name": "function_name", "parameters": {"type": "object", "properties": ` +
		`{"parameter_name": {"type": "integer", "description": "parameter_description"}}}, "description": "function_description"}. ` +
		`See more details at https://platform.openai.com/docs/api-reference/chat/create#chat/create-functions ` +
		`or view sample 'How to use functions with chat models' in our gallery.`
	toolsHelp = `Here is a valid tool example: {"type": "function", "function": {"name": "get_current_weather", "description": ` +
		`"Get the current weather in a given location", "parameters": {"type": "object", "properties": {"location": {"type": ` +
		`"string", "description": "The city and state, e.g. San Francisco, CA"}, "unit": {"type": "string", "enum": ["celsius", ` +
		`"fahrenheit"]}}, "required": ["location"]}}}. See more details at https://platform.openai.com/docs/api-reference/chat/create`
	functionCallHelp = `Here is a valid example: {"name": "function_name"}. See the guide at ` +
		`https://platform.openai.com/docs/api-reference/chat/create#chat/create-function_call ` +
		`or view sample 'How to call functions with chat models' in our gallery.`
	toolChoiceHelp = `Here is a valid example: {"type": "function", "function": {"name": "my_function"}}. See the guide at ` +
		`https://platform.openai.com/docs/api-reference/chat/create.`
)

const (
	invalidFunctions = "ChatAPIInvalidFunctions"
	invalidTools     = "ChatAPIInvalidTools"
)

// items returns what Python's enumerate gives for a value that should be a list.
func items(v any) ([]any, error) {
	switch v := v.(type) {
	case []any:
		return v, nil
	case *value.Dict:
		keys := []any{}
		for k := range v.All() {
			keys = append(keys, k)
		}
		return keys, nil
	case string:
		chars := []any{}
		for _, r := range v {
			chars = append(chars, string(r))
		}
		return chars, nil
	default:
		return nil, llmError("TypeError", "object of type '"+value.TypeName(v)+"' has no len()")
	}
}

func validateFunctions(functions any) error {
	list, err := items(functions)
	if err != nil {
		return err
	}
	for i, f := range list {
		if err := validateFunction(functionsHelp, i, f, invalidFunctions); err != nil {
			return err
		}
	}
	return nil
}

func validateTools(tools any) error {
	list, err := items(tools)
	if err != nil {
		return err
	}
	for i, t := range list {
		dict, ok := t.(*value.Dict)
		if !ok {
			return toolError(invalidTools, "tool %d '%s' is not a dict. %s", i, value.Str(t), toolsHelp)
		}
		for _, key := range []string{"type", "function"} {
			if !dict.Has(key) {
				return toolError(invalidTools, "tool %d '%s' does not have '%s' property. %s", i, value.Str(t), key, toolsHelp)
			}
		}
		function, _ := dict.Get("function")
		if err := validateFunction(toolsHelp, i, function, invalidTools); err != nil {
			return err
		}
	}
	return nil
}

// validateFunction is promptflow-tools' validate_function; it returns untyped nil.
func validateFunction(help string, i int, function any, class string) error {
	what := "function " + strconv.Itoa(i) + " '"
	fail := func(text string) *api.Error { return toolError(class, "%s%s %s", what, text, help) }
	dict, ok := function.(*value.Dict)
	if !ok {
		return fail(value.Str(function) + "' is not a dict.")
	}
	for _, key := range []string{"name", "parameters"} {
		if !dict.Has(key) {
			return fail(value.Str(function) + "' does not have '" + key + "' property.")
		}
	}
	name, _ := dict.Get("name")
	v, _ := dict.Get("parameters")
	schema, ok := v.(*value.Dict)
	which := value.Str(name) + "' parameters '" + value.Str(v) + "' "
	if !ok {
		return fail(which + "should be described as a JSON Schema object.")
	}
	for _, key := range []string{"type", "properties"} {
		if !schema.Has(key) {
			return fail(which + "does not have '" + key + "' property.")
		}
	}
	if t, _ := schema.Get("type"); t != "object" {
		return fail(value.Str(name) + "' parameters 'type' should be 'object'.")
	}
	if p, _ := schema.Get("properties"); value.TypeName(p) != "dict" {
		return fail(value.Str(name) + "' parameters 'properties' should be described as a JSON Schema object.")
	}
	return nil
}

// functionCall is process_function_call.
func functionCall(v any) (any, error) {
	switch v {
	case nil:
		return "auto", nil
	case "auto", "none":
		return v, nil
	}
	dict, ok := v.(*value.Dict)
	if !ok {
		return nil, toolError(invalidFunctions, "function_call parameter '%s' must be a dict, but not <class '%s'>. %s",
			value.Str(v), value.TypeName(v), functionCallHelp)
	}
	if !dict.Has("name") {
		return nil, toolError(invalidFunctions, `function_call parameter %s must contain "name" field. %s`, value.Dumps(v), functionCallHelp)
	}
	return v, nil
}

// toolChoice is process_tool_choice.
func toolChoice(v any) (any, error) {
	switch v {
	case nil:
		return "auto", nil
	case "auto", "none":
		return v, nil
	}
	dict, ok := v.(*value.Dict)
	if !ok {
		return nil, toolError(invalidTools, "tool_choice parameter '%s' must be a dict, but not <class '%s'>. %s",
			value.Str(v), value.TypeName(v), toolChoiceHelp)
	}
	for _, key := range []string{"type", "function"} {
		if !dict.Has(key) {
			return nil, toolError(invalidTools, `tool_choice parameter %s must contain "%s" field. %s`, value.Dumps(v), key, toolChoiceHelp)
		}
	}
	f, _ := dict.Get("function")
	function, ok := f.(*value.Dict)
	if !ok {
		return nil, toolError(invalidTools, `function parameter "%s" in tool_choice must be a dict, but not <class '%s'>. %s`,
			value.Str(f), value.TypeName(f), toolChoiceHelp)
	}
	if !function.Has("name") {
		return nil, toolError(invalidTools, `function parameter "%s" in tool_choice must contain "name" field. %s`, value.Dumps(f), toolChoiceHelp)
	}
	return v, nil
}

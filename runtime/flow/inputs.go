package flow

import (
	"errors"
	"strconv"
	"strings"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// WithDefaults returns the inputs with the defaults of absent ones behind them; an explicit null stays. The defaults are not
// converted yet.
func (f *Flow) WithDefaults(inputs *value.Dict) *value.Dict {
	out := inputs.Clone()
	for _, in := range f.Inputs {
		if in.Default != nil && !out.Has(in.Name) {
			out.Set(in.Name, in.Default)
		}
	}
	return out
}

// ConvertInputs converts a line's inputs (with defaults applied) to their types; inputs that the flow does not define are kept.
// line is the line's number in a batch, nil outside of one.
func (f *Flow) ConvertInputs(inputs *value.Dict, line *int) (*value.Dict, error) {
	for _, in := range f.Inputs {
		if !inputs.Has(in.Name) {
			return nil, in.At(Fail(InputNotFound, TargetExecutor,
				"The input for flow is incorrect. The value for flow input '{input_name}' is not provided {line_info}. Please review your input data or remove this input in your flow if it's no longer needed.",
				"input_name", in.Name, "line_info", "in"+lineInfo(line)))
		}
	}
	out := inputs.Clone()
	for _, in := range f.Inputs {
		v, _ := inputs.Get(in.Name)
		v, err := in.Convert(v, line)
		if err != nil {
			return nil, err
		}
		out.Set(in.Name, v)
	}
	return out, nil
}

func lineInfo(line *int) string {
	if line == nil {
		return " input data"
	}
	return " line " + strconv.Itoa(*line) + " of input data"
}

// Convert converts a value to the input's type by Python's rules (prompt flow's ValueType.parse).
func (in *Input) Convert(v any, line *int) (any, error) {
	out, err := parseAs(in.Type, v)
	if err == nil {
		return out, nil
	}
	info := "'" + in.Name + "'"
	if line != nil {
		info += " in" + lineInfo(line)
	}
	var e *value.Error
	if errors.As(err, &e) && e.Class == value.JSONDecodeError {
		return nil, in.parseError(v, info, e)
	}
	return nil, in.At(Fail(InputTypeError, TargetExecutor,
		"The input for flow is incorrect. The value for flow input {flow_input_info} does not match the expected type '{expected_type}'. Please change flow input type or adjust the input value in your input data.",
		"flow_input_info", info, "expected_type", in.Type))
}

func (in *Input) parseError(v any, info string, e *value.Error) *api.Error {
	return in.At(Fail(InputParseError, TargetExecutor,
		"Failed to parse the flow input. The value for flow input {flow_input_info} was interpreted as JSON string since its type is '{value_type}'. However, the value '{input_value}' is invalid for JSON parsing. Error details: {error_type_and_message}. Please make sure your inputs are properly formatted.",
		"flow_input_info", info, "value_type", in.Type, "input_value", value.Str(v), "error_type_and_message", "("+e.Class+") "+e.Message))
}

func parseAs(typ string, v any) (any, error) {
	switch typ {
	case "int":
		return value.Int(v)
	case "double":
		return value.Float(v)
	case "bool":
		return parseBool(v)
	case "string":
		return value.Str(v), nil
	case "list":
		return parseList(v)
	case "object":
		if text, ok := v.(string); ok {
			if parsed, err := decodeText(text); err == nil {
				return parsed, nil
			}
		}
		return v, nil
	default:
		return v, nil
	}
}

func parseBool(v any) (any, error) {
	switch v := v.(type) {
	case bool:
		return v, nil
	case string:
		switch strings.ToLower(v) {
		case "true":
			return true, nil
		case "false":
			return false, nil
		}
	}
	return nil, &value.Error{Class: value.ValueError, Message: "Invalid boolean value " + value.Repr(v)}
}

func parseList(v any) (any, error) {
	if text, ok := v.(string); ok {
		var err error
		if v, err = decodeText(text); err != nil {
			return nil, err
		}
	}
	if _, ok := v.([]any); !ok {
		return nil, &value.Error{Class: value.ValueError, Message: "Invalid list value " + value.Repr(v)}
	}
	return v, nil
}

// decodeText is json.loads of a str, which refuses a byte order mark that bytes may begin with.
func decodeText(text string) (any, error) {
	if strings.HasPrefix(text, "\uFEFF") {
		return nil, &value.Error{Class: value.JSONDecodeError, Message: "Unexpected UTF-8 BOM (decode using utf-8-sig): line 1 column 1 (char 0)"}
	}
	return value.Decode([]byte(text))
}

package tool

import (
	"context"
	"encoding/json"
	"errors"
	"regexp"
	"slices"
	"strings"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/template"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// promptyRun is one run of a prompty file.
type promptyRun struct {
	p      *Prompty
	result PromptyResult
	log    strings.Builder
}

// exception is one of Python's or prompt flow's exceptions, which the executor puts into its own.
type exception struct{ class, module, message string }

func (e *exception) Error() string { return e.message }

// coreException is an exception of promptflow.core.
func coreException(class, message string) *exception {
	return &exception{class, "promptflow.core._errors.", message}
}

// llmException is what promptflow.core makes of any other exception.
func llmException(class, message string) *exception {
	return coreException("LLMError", "OpenAI API hits exception: "+class+": "+message)
}

// promptyFunction is the name that prompt flow's executor knows a prompty file by.
const promptyFunction = "_traced_sync.<locals>.wrapped"

// scriptFailure is prompt flow's ScriptExecutionError of an exception; other errors stay.
func scriptFailure(err error) error {
	var e *exception
	if !errors.As(err, &e) {
		return err
	}
	shown := "(" + e.class + ") " + e.message
	failure := api.NewError([]string{api.UserError, "ScriptExecutionError"}, "Unknown", "Execution failure in '%s': %s", promptyFunction, shown)
	failure.MessageFormat = "Execution failure in '{func_name}': {error_type_and_message}"
	failure.MessageParameters = map[string]string{"func_name": promptyFunction, "error_type_and_message": shown}
	failure.ReferenceCode = "Unknown"
	details := dictOf("type", e.class, "message", e.message, "traceback", e.module+e.class+": "+e.message+"\n")
	failure.AdditionalInfo = []api.AdditionalInfo{{Type: "FlexFlowExecutionErrorDetails", Info: json.RawMessage(value.Encode(details))}}
	return failure
}

func dictOf(pairs ...string) *value.Dict {
	d := value.NewDict()
	for i := 0; i < len(pairs); i += 2 {
		d.Set(pairs[i], pairs[i+1])
	}
	return d
}

func (r *promptyRun) do(ctx context.Context, renderer template.Renderer, variables *value.Dict) error {
	for _, v := range variables.All() {
		if text, ok := v.(string); ok && imageText.MatchString(text) {
			return ErrLeft
		}
	}
	body, err := r.body(ctx, renderer, variables)
	if err != nil {
		return err
	}
	target, data := r.p.endpoint.url(r.p.model), value.Encode(body)
	got, err := try(ctx, r.p.client, &r.p.endpoint, func() (*answer, error) {
		return r.p.client.send(ctx, &r.p.endpoint, target, data)
	}, maxPromptyTries, func(line string) { r.log.WriteString(line + "\n") })
	if err != nil {
		return modelException(err)
	}
	r.result.Usage = usageOf(got.value)
	r.result.Value, err = r.answer(got.value)
	return err
}

// imageText is a text that prompt flow takes for an image (_get_image_obj).
var imageText = regexp.MustCompile(`^data:image/[^\n]*;(path|base64|url):`)

// modelException is what handle_openai_error raises.
func modelException(err error) error {
	var f *gaveUp
	var e *api.Error
	switch {
	case errors.As(err, &f):
		class, prefix := "WrappedOpenAIError", ""
		if f.exhausted {
			class, prefix = "ExceedMaxRetryTimes", "Exceed max retry times. "
		}
		message := prefix + "OpenAI API hits " + f.class + ": " + explainInCore(f.text)
		if f.mend != "" {
			message += " " + f.mend
		}
		return coreException(class, message)
	case errors.As(err, &e) && e.Class() == "LLMError":
		return coreException("LLMError", e.Message)
	default:
		return err
	}
}

func (r *promptyRun) body(ctx context.Context, renderer template.Renderer, variables *value.Dict) (*value.Dict, error) {
	body := r.p.parameters.Clone()
	body.Set("model", r.p.model)
	if r.p.api == apiCompletion {
		text, err := r.p.source.Render(ctx, renderer, variables, template.Options{})
		if err != nil {
			return nil, renderException(err, &exception{"UserErrorException", "promptflow.exceptions.", renderFailed})
		}
		body.Set("prompt", text)
		return body, nil
	}
	messages, err := r.messages(ctx, renderer, variables)
	if err != nil {
		return nil, err
	}
	body.Set("messages", messages)
	if err := sendable(body); err != nil {
		return nil, ErrLeft
	}
	return body, nil
}

const renderFailed = "Failed to render jinja template. Please modify your prompt to fix the issue."

// renderException is what of Jinja2's exceptions prompt flow shows: that there was one.
func renderException(err error, shown *exception) error {
	var je *template.Error
	var e *api.Error
	if errors.As(err, &je) || errors.As(err, &e) && e.Class() == "JinjaTemplateError" {
		return shown
	}
	return err
}

// messages renders the template and reads the chat messages from it (promptflow.core's build_messages). All texts among the inputs
// are taken for a user's.
func (r *promptyRun) messages(ctx context.Context, renderer template.Renderer, variables *value.Dict) ([]any, error) {
	call := Call{Inputs: variables}
	for name, v := range variables.All() {
		if _, ok := v.(string); ok {
			call.FromFlow = append(call.FromFlow, name)
		}
	}
	esc := newEscaper(call, false, r.p.newID)
	m := esc.mapping(variables)
	text, err := r.p.source.Render(ctx, renderer, esc.escape(variables, m), template.Options{})
	if err != nil {
		return nil, renderException(err, coreException("JinjaTemplateError",
			"Failed to render jinja template: UserErrorException: "+renderFailed+". Please modify your prompt to fix the issue."))
	}
	if strings.Contains(text, "tool_calls") {
		return nil, ErrLeft // prompty files read them by another rule than llm nodes
	}
	messages, err := parseChat(text, m, pictures{})
	if err != nil {
		return nil, chatException(err)
	}
	m.restoreMessages(messages)
	return messages, nil
}

// chatException is the exception of a prompt that is no chat; one of them has another name here than in promptflow-tools.
func chatException(err error) error {
	var e *api.Error
	if !errors.As(err, &e) {
		return err
	}
	class := e.Class()
	if class == "ChatAPIInvalidRole" {
		class = "ChatAPIInvalidRoleError"
	}
	return coreException(class, e.Message)
}

// answer reads what the prompty file gives from the model's answer (format_llm_response).
func (r *promptyRun) answer(v any) (any, error) {
	whole := false
	if choice, err := firstChoice(v); err == nil && r.p.api == apiChat {
		reason, _ := choice.Get("finish_reason")
		whole = reason == "tool_calls" || reason == "function_calls"
	}
	content, err := output(r.p.api, whole, v)
	var e *api.Error
	if errors.As(err, &e) {
		return nil, coreException("LLMError", e.Message)
	}
	if err != nil || !r.p.asJSON {
		return content, err
	}
	return r.object(content)
}

// object reads an answer that is to be JSON, and takes the outputs from it.
func (r *promptyRun) object(content any) (any, error) {
	text, ok := content.(string)
	if !ok {
		return nil, llmException("TypeError", "the JSON object must be str, bytes or bytearray, not "+value.TypeName(content))
	}
	v, err := decodeText(text)
	if err != nil {
		return nil, err
	}
	if len(r.p.outputs) == 0 {
		return v, nil
	}
	dict, ok := v.(*value.Dict)
	if !ok {
		return nil, notAnObject(v, r.p.outputs[0])
	}
	out := value.NewDict()
	for _, name := range r.p.outputs {
		found, ok := dict.Get(name)
		if !ok {
			keys := make([]any, 0, dict.Len())
			for _, k := range dict.Keys() {
				keys = append(keys, k)
			}
			return nil, coreException("InvalidOutputKeyError", "Cannot find "+name+" in response "+value.Repr(keys))
		}
		out.Set(name, found)
	}
	return out, nil
}

// decodeText is json.loads of a str.
func decodeText(text string) (any, error) {
	if strings.HasPrefix(text, "\uFEFF") {
		return nil, llmException("JSONDecodeError", "Unexpected UTF-8 BOM (decode using utf-8-sig): line 1 column 1 (char 0)")
	}
	v, err := value.Decode([]byte(text))
	var e *value.Error
	if errors.As(err, &e) {
		return nil, llmException(e.Class, e.Message)
	}
	return v, err
}

// notAnObject is the exception of looking for a key in what is no dict.
func notAnObject(v any, key string) error {
	kind := value.TypeName(v)
	switch v := v.(type) {
	case []any:
		if slices.ContainsFunc(v, func(item any) bool { return item == key }) {
			return llmException("TypeError", "list indices must be integers or slices, not str")
		}
	case string:
		if strings.Contains(v, key) {
			return llmException("TypeError", "string indices must be integers, not 'str'")
		}
	default:
		return llmException("TypeError", "argument of type '"+kind+"' is not iterable")
	}
	return llmException("AttributeError", "'"+kind+"' object has no attribute 'keys'")
}

// explainInCore is promptflow.core's to_openai_error_message without its beginning. Its words differ from promptflow-tools' in places.
func explainInCore(text string) string {
	switch explained := explain(text); explained {
	case functionsUnsupported:
		return strings.Replace(explained, "with version 0613, then go to prompt flow connection page, upgrade connection api version to '2023-07-01-preview'. You", "with version 0613. You", 1)
	case completionUnsupported:
		return strings.TrimSuffix(explained, completionGuide)
	case responseFormatUnsupported:
		return strings.Replace(explained, "deploy model 'gpt-35-turbo-1106' or 'gpt-4-1106-preview'. You",
			"compatible with GPT-4 Turbo and all GPT-3.5 Turbo models newer than gpt-35-turbo-1106. You", 1)
	case toolMessagesMissing + ". Original error: " + text:
		return text + " [Error reference: https://platform.openai.com/docs/guides/error-codes/api-errors]"
	default:
		return explained
	}
}

const completionGuide = " You could refer to guideline at https://aka.ms/pfdoc/chat-prompt or view the samples in our gallery that contain 'Chat' in the name."

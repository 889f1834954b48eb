package tool

import (
	"context"
	"errors"
	"io/fs"
	"regexp"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/connection"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/template"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// PromptySpec says what a prompty file is.
type PromptySpec struct {
	// Config is the front matter as written, Template the text below it.
	Config   *value.Dict
	Template string
	// Dir is the flow's folder and File the prompty file in it, which references to files start from.
	Dir  fs.FS
	File string
	// Overrides are what Prompty.load is given beside the file.
	Overrides *value.Dict
	// Env is the environment that the flow sees.
	Env connection.Lookup
	// Connections are the connections there are.
	Connections *connection.Set
	// Client sends the requests; nil means [DefaultClient].
	Client *Client
}

// Prompty is a prompty file: a prompt, and the model that it is sent to (promptflow.core.Prompty). Only what gives the same
// as prompt flow's own class is one; [NewPrompty] says what else is left to that class, and so does [ErrLeft] of single runs.
type Prompty struct {
	api        string
	model      string
	endpoint   endpoint
	parameters *value.Dict
	asJSON     bool
	outputs    []string
	inputs     *value.Dict // the signature: name -> definition
	sample     *value.Dict
	source     *template.Source
	client     *Client
	newID      func() string // makes UUIDs
}

// ErrLeft says that a run is left to prompt flow's own class. Nothing has been asked of the model.
var ErrLeft = errors.New("this run is left to prompt flow's own class")

// NewPrompty makes a prompty file ready to run, or says why it is left to prompt flow's own class.
func NewPrompty(s PromptySpec) (*Prompty, error) {
	config, err := promptyConfig(s)
	if err != nil {
		return nil, err
	}
	if text, ok := s.Env("PF_DISABLE_TRACING"); ok && !strings.EqualFold(text, "true") {
		return nil, notHeref("tracing is switched on")
	}
	p := &Prompty{source: template.New(withoutDecorators(s.Template)), client: s.Client, newID: uuid.NewString}
	if p.client == nil {
		p.client = DefaultClient
	}
	if err := p.setInterface(config); err != nil {
		return nil, err
	}
	model, _ := get[*value.Dict](config, "model")
	if err := p.setModel(model, s); err != nil {
		return nil, err
	}
	return p, nil
}

// setInterface reads inputs, sample and outputs.
func (p *Prompty) setInterface(config *value.Dict) error {
	var ok bool
	if p.inputs, ok = get[*value.Dict](config, "inputs"); !ok && config.Has("inputs") {
		return notHeref("its inputs are not an object")
	}
	if _, ok := p.inputs.Get("timeout"); ok {
		return notHeref("its input timeout is one of the request too")
	}
	if sample, _ := config.Get("sample"); value.Truth(sample) {
		if p.sample, ok = sample.(*value.Dict); !ok {
			return notHeref("its sample is not an object")
		}
	}
	outputs, _ := config.Get("outputs")
	if !value.Truth(outputs) {
		return nil
	}
	dict, ok := outputs.(*value.Dict)
	if !ok {
		return notHeref("its outputs are not an object")
	}
	p.outputs = dict.Keys()
	return nil
}

// setModel reads what is asked of which model.
func (p *Prompty) setModel(model *value.Dict, s PromptySpec) error {
	for name := range model.All() {
		if !slices.Contains([]string{"api", "configuration", "parameters", "response"}, name) {
			return notHeref("its model has the key %s", name)
		}
	}
	if response, _ := model.Get("response"); response == "all" {
		return notHeref("it asks for the whole response")
	}
	p.api = apiChat
	if name, ok := model.Get("api"); ok {
		if p.api, ok = name.(string); !ok || p.api != apiChat && p.api != apiCompletion {
			return notHeref("its api is none of chat and completion")
		}
	}
	parameters, ok := get[*value.Dict](model, "parameters")
	if !ok {
		return notHeref("its parameters are not an object")
	}
	if err := p.setParameters(parameters); err != nil {
		return err
	}
	configuration, ok := get[*value.Dict](model, "configuration")
	if !ok {
		return notHeref("its configuration is not an object")
	}
	return p.setEndpoint(configuration, s)
}

// The parameters of OpenAI's client that are sent as they are.
var (
	chatParameters = []string{
		"frequency_penalty", "function_call", "functions", "logit_bias", "logprobs", "max_completion_tokens", "max_tokens", "metadata", "n", "parallel_tool_calls",
		"presence_penalty", "reasoning_effort", "response_format", "seed", "service_tier", "stop", "store", "stream", "temperature", "tool_choice", "tools", "top_logprobs", "top_p", "user",
	}
	completionParameters = []string{
		"best_of", "echo", "frequency_penalty", "logit_bias", "logprobs", "max_tokens", "n", "presence_penalty", "seed", "stop", "stream", "suffix", "temperature", "top_p", "user",
	}
)

func (p *Prompty) setParameters(parameters *value.Dict) error {
	known := chatParameters
	if p.api == apiCompletion {
		known = completionParameters
	}
	for name := range parameters.All() {
		if !slices.Contains(known, name) {
			return notHeref("it has the parameter %s", name)
		}
	}
	if stream, _ := parameters.Get("stream"); value.Truth(stream) {
		return notHeref("it streams")
	}
	if sendable(parameters) != nil {
		return notHeref("its parameters cannot be sent")
	}
	p.parameters = parameters.Clone()
	if format, ok := get[*value.Dict](parameters, "response_format"); ok {
		kind, _ := format.Get("type")
		p.asJSON = kind == "json_object"
	}
	return p.setCalling()
}

// setCalling checks tools, or else the deprecated functions, and says how they are chosen (prepare_open_ai_request_params).
func (p *Prompty) setCalling() error {
	var err error
	set := func(list any, check func(any) error, name string, choose func(any) (any, error)) error {
		given, _ := p.parameters.Get(name)
		chosen, err := choose(given)
		if items, ok := list.([]any); !ok || len(items) == 0 || err != nil || check(list) != nil {
			return notHeref("its %s is wrong", name)
		}
		p.parameters.Set(name, chosen)
		return nil
	}
	if tools, ok := p.parameters.Get("tools"); ok {
		err = set(tools, validateTools, "tool_choice", toolChoice)
	} else if functions, ok := p.parameters.Get("functions"); ok {
		err = set(functions, validateFunctions, "function_call", functionCall)
	}
	return err
}

// setEndpoint reads the model's name, and where it is (convert_model_configuration_to_connection).
func (p *Prompty) setEndpoint(configuration *value.Dict, s PromptySpec) error {
	for _, name := range []string{"azure_deployment", "model"} {
		if v, _ := configuration.Get(name); value.Truth(v) && p.model == "" {
			p.model, _ = v.(string)
		}
	}
	if p.model == "" {
		return notHeref("its model has no name")
	}
	c, err := promptyConnection(configuration, s)
	if err != nil {
		return err
	}
	if c.Class == connection.AzureOpenAI && c.BaseURL() == "" {
		return notHeref("its endpoint is not known")
	}
	var fault *api.Error
	if p.endpoint, fault = endpointOf(c, s.Connections, p.api); fault != nil {
		return notHeref("its connection cannot be used: %s", fault.Message)
	}
	if p.endpoint.azure {
		p.endpoint.header.Set("Ms-Azure-Ai-Promptflow-Called-From", "promptflow-core")
	}
	return nil
}

// promptyConnection returns the connection that a configuration names, holds, or leaves to the environment.
func promptyConnection(configuration *value.Dict, s PromptySpec) (*connection.Connection, error) {
	kind, _ := get[string](configuration, "type")
	values := value.NewDict()
	for name, v := range configuration.All() {
		if slices.Contains([]string{"type", "connection", "azure_deployment", "model"}, name) || !value.Truth(v) {
			continue
		}
		text, ok := v.(string)
		if !ok || strings.HasPrefix(text, "${") {
			return nil, notHeref("its configuration has the %s %s", name, value.Repr(v))
		}
		values.Set(name, text)
	}
	if v, _ := configuration.Get("connection"); value.Truth(v) {
		name, ok := v.(string)
		if !ok || values.Len() > 0 {
			return nil, notHeref("its configuration is wrong")
		}
		return namedConnection(name, s.Connections)
	}
	switch kind {
	case "azure_openai", "AzureOpenAI":
		return inlineConnection(connection.AzureOpenAI, values, s, azureFields, azureVariables)
	case "openai", "OpenAI":
		return inlineConnection(connection.OpenAI, values, s, openAIFields, openAIVariables)
	default:
		return nil, notHeref("its configuration has the type %s", value.Repr(kind))
	}
}

func namedConnection(name string, set *connection.Set) (*connection.Connection, error) {
	c, err := set.Get(name)
	if err != nil {
		return nil, notHeref("its connection %s is not known", name)
	}
	if c.Class != connection.OpenAI && c.Class != connection.AzureOpenAI || c.APIKey() == "" {
		return nil, notHeref("its connection %s is of class %s, or has no key", name, c.Class)
	}
	return c, nil
}

// The fields of a configuration, and the variables that stand in for one that has none (from_env), in that order: the first two of
// Azure's, and the first of OpenAI's, have to be there.
var (
	azureFields     = []string{"azure_endpoint", "api_key", "api_base", "api_version"}
	azureVariables  = []string{"AZURE_OPENAI_ENDPOINT", "AZURE_OPENAI_API_KEY", "", "OPENAI_API_VERSION"}
	openAIFields    = []string{"api_key", "base_url", "organization"}
	openAIVariables = []string{"OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID"}
)

func inlineConnection(class string, values *value.Dict, s PromptySpec, fields, variables []string) (*connection.Connection, error) {
	if values.Len() == 0 {
		for i, variable := range variables {
			if text, ok := s.Env(variable); ok && text != "" && variable != "" {
				values.Set(fields[i], text)
			}
		}
	}
	for name := range values.All() {
		if !slices.Contains(fields, name) {
			return nil, notHeref("its configuration has the key %s", name)
		}
	}
	if !values.Has("api_key") {
		return nil, notHeref("its configuration has no api_key")
	}
	if at, ok := values.Get("azure_endpoint"); ok && !values.Has("api_base") {
		values.Set("api_base", at)
	}
	return connection.Of(s.File, class, values), nil
}

var decorator = regexp.MustCompile(pythonSpaces(`!\[(\s*image\s*)\]\(\{\{(\s*[^\t-\r\x1c-\x20\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}{}]+\s*)\}\}\)`))

// withoutDecorators puts ![image]({{name}}) on a line of its own without its mark (preprocess_template_string).
func withoutDecorators(text string) string {
	return decorator.ReplaceAllString(text, "\n{{${2}}}\n")
}

// Sample returns the inputs that stand in for absent ones in a test, nil when there are none.
func (p *Prompty) Sample() *value.Dict { return p.sample }

// PromptyResult is what a run of a prompty file gave.
type PromptyResult struct {
	Value  any // a text, or an object
	Usage  Usage
	Stderr string // what prompt flow prints about failures and retries
}

// Run renders the prompt with the inputs, which are converted and of the signature, asks the model and waits for the answer, with
// retries, until ctx ends. An error is as prompt flow's executor records it: ScriptExecutionError, or that of a cancelled run.
func (p *Prompty) Run(ctx context.Context, r template.Renderer, inputs *value.Dict) (PromptyResult, error) {
	run := promptyRun{p: p}
	err := run.do(ctx, r, p.variables(inputs))
	run.result.Stderr = run.log.String()
	return run.result, scriptFailure(err)
}

// variables are the template's: by the signature, or by the sample where there is no signature.
func (p *Prompty) variables(inputs *value.Dict) *value.Dict {
	if inputs.Len() == 0 && p.sample != nil {
		inputs = p.sample
	}
	out := value.NewDict()
	if p.inputs.Len() == 0 {
		for name := range p.sample.All() {
			v, _ := inputs.Get(name)
			out.Set(name, v)
		}
		return out
	}
	for name := range p.inputs.All() {
		v, _ := inputs.Get(name)
		out.Set(name, v)
	}
	return out
}

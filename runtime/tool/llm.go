package tool

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/connection"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/template"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// LLMSpec says what an llm node is.
type LLMSpec struct {
	// Node is the node's name.
	Node string
	// API is "chat" or "completion".
	API string
	// Connection is the name of the node's connection.
	Connection string
	// Connections are the connections there are.
	Connections *connection.Set
	// Source is the prompt template's text.
	Source string
	// Literals are the node's inputs that are no references, as the flow file has them.
	Literals *value.Dict
	// Image loads the literals that the template shows as images.
	Image ImageLoader
	// Streams says that the node answers piece by piece when its caller wants it to, and never otherwise, whatever its input "stream"
	// says: the flow's outputs refer to it, and no other node does.
	Streams bool
	// Client sends the requests; nil means [DefaultClient].
	Client *Client
}

// LLM is an llm node: a prompt template, and the request to a model that its text is sent with (promptflow.tools.openai and
// promptflow.tools.aoai).
type LLM struct {
	node       string
	provider   string
	api        string
	connection *connection.Connection
	endpoint   endpoint
	signature  signature
	source     *template.Source
	literals   *value.Dict // converted
	dropped    []string    // literals that are null or empty
	overridden bool        // the input "stream" has no say
	client     *Client
	newID      func() string // makes UUIDs
}

// NewLLM resolves an llm node as prompt flow does when a flow is loaded: its connection, which decides the provider, its API,
// its literal inputs, and the names that its template uses.
func NewLLM(ctx context.Context, r template.Renderer, spec LLMSpec) (*LLM, error) {
	l, fault := resolveLLM(spec)
	if fault != nil {
		return nil, resolveError(spec.Node, fault)
	}
	used, err := l.source.Variables(ctx, r)
	if err != nil {
		return nil, syntaxError(spec.Node, err)
	}
	if clash := shared(used, l.signature.names()); len(clash) > 0 {
		return nil, resolveError(spec.Node, invalidFlow("NodeInputValidationError",
			"Invalid inputs %s in prompt template of node %s. These inputs are duplicated with the parameters of %s.%s.",
			setRepr(clash), spec.Node, l.provider, l.api))
	}
	if l.literals, err = loadImages(ctx, spec.Image, spec.Source, l.literals); err != nil {
		return nil, imageError(spec.Node, err)
	}
	return l, nil
}

func resolveLLM(spec LLMSpec) (*LLM, *api.Error) {
	l := &LLM{node: spec.Node, api: spec.API, source: template.New(spec.Source), client: spec.Client, newID: uuid.NewString, overridden: spec.Streams}
	if l.client == nil {
		l.client = DefaultClient
	}
	var err error
	if l.connection, err = spec.Connections.Get(spec.Connection); err != nil {
		return nil, api.NewError([]string{api.UserError, "ValidationError", "InvalidRequest", "GetConnectionError"}, targetExecutor,
			"Get connection '%s' for node '%s' error: %s", spec.Connection, spec.Node, err)
	}
	var fault *api.Error
	if l.provider, fault = providerOf(l.connection); fault != nil {
		return nil, fault
	}
	name := l.provider + "." + l.api
	var ok bool
	if l.signature, ok = signatures[name]; !ok {
		return nil, api.NewError([]string{api.UserError, "ValidationError", "APINotFound"}, targetExecutor, "The API '%s' is not found.", name)
	}
	if l.literals, fault = convertLiterals(spec.Node, spec.Literals, l.signature); fault != nil {
		return nil, fault
	}
	for key := range spec.Literals.All() {
		if !l.literals.Has(key) {
			l.dropped = append(l.dropped, key)
		}
	}
	if fault = refuseInputs(spec.Node, l.literals, nil); fault != nil {
		return nil, fault
	}
	l.endpoint, fault = endpointOf(l.connection, spec.Connections, l.api)
	return l, fault
}

// HasDefault reports whether a parameter of the tool has a default, so that an input bound to a bypassed node is left
// out instead of passed as None.
func (l *LLM) HasDefault(name string) bool {
	p, ok := l.signature.find(name)
	return ok && !p.required
}

// Provider returns "OpenAI" or "AzureOpenAI", as the connection decides.
func (l *LLM) Provider() string { return l.provider }

// Run renders the prompt, sends the request and waits for the answer, with retries, until ctx ends.
func (l *LLM) Run(ctx context.Context, r template.Renderer, call Call) (Result, error) {
	arguments := l.arguments(call.Inputs)
	run := &llmRun{llm: l, result: Result{Inputs: recorded(arguments, call.FromFlow)}, started: l.client.now()}
	err := run.do(ctx, r, call, arguments)
	run.finish(err)
	return run.result, err
}

// arguments returns inputs with literals converted and empty ones left out.
func (l *LLM) arguments(inputs *value.Dict) *value.Dict {
	out := value.NewDictSize(inputs.Len())
	for name, v := range inputs.All() {
		if slices.Contains(l.dropped, name) {
			continue
		}
		if converted, ok := l.literals.Get(name); ok {
			v = converted
		}
		out.Set(name, v)
	}
	return out
}

// split parts the arguments into those of the API's parameters and those that only the template sees.
func (l *LLM) split(arguments *value.Dict) (parameters, variables *value.Dict) {
	parameters, variables = value.NewDict(), value.NewDict()
	for name, v := range arguments.All() {
		if _, ok := l.signature.find(name); ok {
			parameters.Set(name, v)
		} else {
			variables.Set(name, v)
		}
	}
	return parameters, variables
}

// prompt renders the template for a completion; promptflow-tools escapes nothing there.
func (l *LLM) prompt(ctx context.Context, r template.Renderer, call Call, variables *value.Dict) (string, error) {
	text, err := l.source.Render(ctx, r, recorded(variables, call.FromFlow), template.Options{})
	if err != nil {
		return "", l.renderFailed(err, nil)
	}
	return text, nil
}

// messages renders the template and reads the chat messages from it (promptflow.tools.common.build_messages). The inputs "images" and
// "image_detail" are parameters of that function: a line of the text that is the name of one of the images becomes that image.
func (l *LLM) messages(ctx context.Context, r template.Renderer, call Call, variables *value.Dict) ([]any, error) {
	options := template.Options{ChatLists: l.provider == providerAzure}
	given, _ := variables.Get("images")
	pictures := pictures{named: imagesByName(given), detail: "auto"}
	if detail, ok := variables.Get("image_detail"); ok {
		pictures.detail = detail
	}
	variables = variables.Clone()
	variables.Delete("images")
	variables.Delete("image_detail")
	esc := newEscaper(call, options.ChatLists, l.newID)
	m := esc.mapping(variables)
	text, err := l.source.Render(ctx, r, esc.escape(variables, m), options)
	if err != nil {
		return nil, l.renderFailed(err, m)
	}
	messages, err := parseChat(text, m, pictures)
	if err != nil {
		return nil, err
	}
	m.restoreMessages(messages)
	return messages, nil
}

func (l *LLM) renderFailed(err error, m mapping) error {
	if errors.Is(err, template.ErrListsUnsupported) {
		return toolError("JinjaTemplateError",
			"The prompt of node '%s' prints a list, which the Jinja2 at hand cannot do as Azure OpenAI nodes do: join its items in the template.", l.node)
	}
	return renderError(err, m)
}

// body makes the request's body of the API's parameters and the prompt.
func (l *LLM) body(ctx context.Context, r template.Renderer, call Call, parameters, variables *value.Dict) (*value.Dict, error) {
	if missing := l.missing(parameters); len(missing) > 0 {
		return nil, llmError("TypeError", missingText(l.provider+"."+l.api, missing))
	}
	if given, _ := parameters.Get("stream"); isTrue(given) && call.Stream == nil && !l.overridden {
		return nil, errStreaming()
	}
	if functions, _ := parameters.Get("functions"); functions != nil && call.Stream != nil {
		return nil, toolError("FunctionCallNotSupportedInStreamMode", "Function calling has not been supported by stream mode yet.")
	}
	if l.api == apiCompletion {
		text, err := l.prompt(ctx, r, call, variables)
		if err != nil {
			return nil, err
		}
		return completionBody(l.provider, text, parameters, call.Stream != nil)
	}
	messages, err := l.messages(ctx, r, call, variables)
	if err != nil {
		return nil, err
	}
	return chatBody(l.provider, messages, parameters, call.Stream != nil)
}

// missing returns the parameters without default that the node does not give. The connection and the prompt are given
// by the node itself.
func (l *LLM) missing(parameters *value.Dict) []string {
	var names []string
	for _, p := range l.signature {
		if p.required && p.kind != kindOther && p.kind != kindPrompt && !parameters.Has(p.name) {
			names = append(names, p.name)
		}
	}
	return names
}

func missingText(function string, names []string) string {
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = value.Repr(n)
	}
	plural := ""
	if len(names) > 1 {
		plural = "s"
	}
	return function + "() missing " + strconv.Itoa(len(names)) + " required positional argument" + plural + ": " + strings.Join(quoted, " and ")
}

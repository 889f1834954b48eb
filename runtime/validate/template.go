package validate

import (
	"context"
	"errors"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/flow"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/run"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/template"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/tool"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

func cleanPath(name string) string { return path.Clean(name) }

// template returns the text of a node's template, false when it has none or it cannot be read.
func (c *checking) template(u *unit) (string, bool) {
	if u.Source == nil || u.Source.Path == "" || u.Type != flow.Prompt && u.Type != flow.LLM {
		return "", false
	}
	text, err := run.Template(c.folder.files, u.Node)
	return text, err == nil
}

// promptNode checks a prompt node.
func (c *checking) promptNode(ctx context.Context, u *unit) {
	text, err := run.Template(c.folder.files, u.Node)
	if err != nil {
		c.report.failure(u.pathPlace().At(asError(err)), c.mendPath(u), u)
		return
	}
	_, err = tool.NewPrompt(ctx, renderer{c}, tool.PromptSpec{Node: u.Name, Source: text, Literals: u.literals()})
	if errors.Is(err, errNoPython) {
		c.endless(u, text)
		return
	}
	if err != nil {
		c.templateError(u, text, err)
		return
	}
	found := c.variablesOf(text)
	c.missingInputs(u, found)
	for _, in := range u.Inputs {
		if !found.has(in.Name) {
			c.report.warn("UnusedNodeInput", in.Place, u, "The template "+u.Source.Path+" does not use the input '"+in.Name+"'.",
				didYouMean(in.Name, found.names(), quoted, "Remove it, or write {{ "+in.Name+" }} where it belongs in the template."))
		}
	}
}

// endless reports a template that Python did not get to the end of.
func (c *checking) endless(u *unit, text string) {
	answer := c.python.templates[text]
	if answer == nil || answer.Crash == "" {
		return
	}
	c.report.err(flow.Class{api.UserError, "ToolValidationError", "JinjaTemplateError"}, flow.Place{File: cleanPath(u.Source.Path), Line: 1}, u,
		"The template "+u.Source.Path+" cannot be read: "+answer.Crash+".", "Look for an expression of constants that takes for ever to compute.")
}

// templateError reports what keeps a template from being used, at its line.
func (c *checking) templateError(u *unit, text string, err error) {
	e := *asError(err)
	place := flow.Place{File: cleanPath(u.Source.Path), Line: 1}
	mend := ""
	switch class := e.Class(); {
	case strings.HasPrefix(class, "Template"):
		if answer := c.python.templates[text]; answer != nil && answer.Line > 0 {
			place.Line = answer.Line
		}
		mend = "Correct the Jinja2 template."
	case class == "NodeInputValidationError":
		place, mend = c.mendReserved(u, text, e.Message)
	default:
		place = u.Place
	}
	c.report.failure(place.At(&e), mend, u)
}

var reserved = regexp.MustCompile(`Invalid inputs \{'([^']+)'`)

// mendReserved is for a variable or an input with the name of a parameter of the tool that renders the template.
func (c *checking) mendReserved(u *unit, text, message string) (flow.Place, string) {
	m := reserved.FindStringSubmatch(message)
	if m == nil {
		return u.inputPlace(message), "Rename the input, in the node and in the template."
	}
	place := flow.Place{File: cleanPath(u.Source.Path), Line: 1}
	for _, v := range c.variablesOf(text) {
		if v.name == m[1] {
			place.Line, place.Column = v.line, v.column
		}
	}
	return place, "Rename the variable '" + m[1] + "' in the template, and the node's input of that name: the tool has a parameter of its own that is called so."
}

// variable is a name that a template takes from the node's inputs, and where it stands first.
type variable struct {
	name         string
	line, column int
}

type variables []variable

func (v variables) has(name string) bool {
	return slices.ContainsFunc(v, func(x variable) bool { return x.name == name })
}

func (v variables) names() []string {
	names := make([]string, len(v))
	for i, x := range v {
		names[i] = x.name
	}
	return names
}

// globals are what Jinja2 itself gives to every template; its list of undeclared variables has them all the same.
var globals = []string{"range", "dict", "lipsum", "cycler", "joiner", "namespace"}

// variablesOf returns the variables of a template that has been read.
func (c *checking) variablesOf(text string) variables {
	var found variables
	if answer := c.python.templates[text]; answer != nil {
		for _, v := range answer.Variables {
			if !slices.Contains(globals, v.Name) {
				found = append(found, variable{v.Name, v.Line, v.Column})
			}
		}
		return found
	}
	native, ok := template.Parse(text)
	if !ok {
		return nil
	}
	for _, name := range native.Variables() {
		line, column := findSubstitution(text, name)
		found = append(found, variable{name, line, column})
	}
	return found
}

// findSubstitution finds where a name is first substituted in a simple template.
func findSubstitution(text, name string) (line, column int) {
	m := regexp.MustCompile(`\{\{[ \t\r\n]*(` + regexp.QuoteMeta(name) + `)[ \t\r\n]*\}\}`).FindStringSubmatchIndex(text)
	if m == nil {
		return 1, 1
	}
	return position(text, m[2])
}

// position turns an offset into a line and a column of characters.
func position(text string, offset int) (line, column int) {
	before := text[:offset]
	return 1 + strings.Count(before, "\n"), 1 + utf8.RuneCountInString(before[strings.LastIndexByte(before, '\n')+1:])
}

// missingInputs warns of variables that a node does not give: they print as nothing.
func (c *checking) missingInputs(u *unit, found variables) {
	names := make([]string, len(u.Inputs))
	for i, in := range u.Inputs {
		names[i] = in.Name
	}
	for _, v := range found {
		if slices.Contains(names, v.name) {
			continue
		}
		at := flow.Place{File: cleanPath(u.Source.Path), Line: v.line, Column: v.column}
		c.report.warn("TemplateInputMissing", at, u, "Node '"+u.Name+"' does not give the template's variable '"+v.name+"', which then prints as nothing.",
			didYouMean(v.name, names, quoted, "Add '"+v.name+"' under the node's 'inputs'."))
	}
}

// llmNode checks an llm node: its connection and API, its parameters, its template.
func (c *checking) llmNode(ctx context.Context, u *unit) {
	text, missing := run.Template(c.folder.files, u.Node)
	provider := c.llmTool(ctx, u, text)
	if missing != nil {
		c.report.failure(u.pathPlace().At(asError(missing)), c.mendPath(u), u)
		return
	}
	found := c.variablesOf(text)
	c.missingInputs(u, found)
	c.llmInputs(u, provider, found)
	if u.API == "chat" {
		c.roles(u, text)
	}
}

// llmTool resolves the node as a run would and returns its provider, empty when that is not known.
func (c *checking) llmTool(ctx context.Context, u *unit, text string) string {
	if c.connections == nil {
		return c.statedProvider(u)
	}
	_, err := tool.NewLLM(ctx, renderer{c}, tool.LLMSpec{
		Node: u.Name, API: u.API, Connection: u.Connection, Connections: c.connections, Source: text, Literals: u.literals(),
	})
	switch {
	case errors.Is(err, errNoPython):
		c.endless(u, text)
	case err != nil:
		c.llmError(u, text, err)
	}
	connection, err := c.connections.Get(u.Connection)
	if err != nil {
		return c.statedProvider(u)
	}
	provider, fault := tool.Provider(connection)
	if fault != nil {
		return ""
	}
	return provider
}

// statedProvider is what the flow file says where no connection can tell.
func (c *checking) statedProvider(u *unit) string {
	if _, ok := tool.Parameters(u.Provider, "chat"); ok {
		return u.Provider
	}
	return ""
}

// llmError reports what keeps an llm node from being loaded.
func (c *checking) llmError(u *unit, text string, err error) {
	e := *asError(err)
	place, mend := u.Place, ""
	switch class := e.Class(); {
	case class == "GetConnectionError":
		place, mend = u.fields.value(u.File, "connection", u.Place), c.mendConnection()
	case class == "InvalidConnectionType":
		place, mend = u.fields.value(u.File, "connection", u.Place), c.mendLLMConnection(&e)
	case class == "APINotFound":
		place, mend = u.fields.value(u.File, "api", u.Place), "Write 'api: chat' or 'api: completion'."
	case strings.HasPrefix(class, "Template"), class == "NodeInputValidationError" && reserved.MatchString(e.Message):
		c.templateError(u, text, err)
		return
	case class == "NodeInputValidationError":
		place, mend = u.inputPlace(e.Message), mendInputType(e.Message)
	}
	c.report.failure(place.At(&e), mend, u)
}

// mendLLMConnection names the connections that an llm node can use.
func (c *checking) mendLLMConnection(e *api.Error) string {
	if !strings.Contains(e.Message, "is not supported for LLM") {
		return ""
	}
	var usable []string
	for _, name := range c.connections.Names() {
		if connection, err := c.connections.Get(name); err == nil {
			if _, fault := tool.Provider(connection); fault == nil {
				usable = append(usable, name)
			}
		}
	}
	if len(usable) == 0 {
		return "Name an OpenAI, Azure OpenAI or serverless connection; the runtime has none."
	}
	return "Name an OpenAI, Azure OpenAI or serverless connection: " + listed(usable) + "."
}

// llmInputs checks an llm node's inputs against its API's parameters and the template's variables.
func (c *checking) llmInputs(u *unit, provider string, found variables) {
	parameters, ok := tool.Parameters(provider, u.API)
	if !ok {
		return
	}
	known := map[string]tool.Parameter{}
	var names []string
	for _, p := range parameters {
		known[p.Name] = p
		names = append(names, p.Name)
		if in := u.input(p.Name); p.Required && (in == nil || leftOut(*in)) {
			c.missingParameter(u, provider, p)
		}
	}
	names = append(names, found.names()...)
	for _, in := range u.Inputs {
		p, isParameter := known[in.Name]
		switch {
		case leftOut(in):
		case isParameter && in.Kind == flow.Literal:
			c.llmLiteral(u, p, in)
		case !isParameter && !found.has(in.Name) && !u.forOtherProvider(in.Name):
			c.report.warn("UnknownToolInput", in.Place, u,
				"The input '"+in.Name+"' of node '"+u.Name+"' has no effect: "+provider+"."+u.API+" has no such parameter, and the template does not use it.",
				mendParameter(in.Name, provider, names))
		}
	}
	if provider == "OpenAI" && u.input("model") == nil && u.input("deployment_name") == nil {
		c.report.warn("ModelMissing", u.fields.key(u.File, "inputs", u.Place), u, "Node '"+u.Name+"' names no model.", "Add 'model' under the node's 'inputs'.")
	}
}

// leftOut reports whether prompt flow drops an input before the tool sees it.
func leftOut(in flow.NodeInput) bool {
	return in.Kind == flow.Literal && (in.Literal == nil || in.Literal == "")
}

// forOtherProvider reports whether an input is there so that the node can change its connection: OpenAI has models, Azure deployments.
func (u *unit) forOtherProvider(name string) bool {
	return (name == "model" || name == "deployment_name") && u.input("model") != nil && u.input("deployment_name") != nil
}

func mendParameter(name, provider string, names []string) string {
	switch {
	case name == "deployment_name" && provider == "OpenAI":
		return "An OpenAI connection has models: name it as 'model'."
	case name == "model" && provider == "AzureOpenAI":
		return "An Azure OpenAI connection has deployments: name it as 'deployment_name'."
	}
	return didYouMean(name, names, quoted, "Remove it.")
}

func (c *checking) missingParameter(u *unit, provider string, p tool.Parameter) {
	c.report.err(flow.Class{api.UserError, "LLMError"}, u.fields.key(u.File, "inputs", u.Place), u,
		"Node '"+u.Name+"' does not give '"+p.Name+"', which "+provider+"."+u.API+" needs: the call fails.", "Add '"+p.Name+"' under the node's 'inputs'.")
}

// llmLiteral checks a literal for a parameter: its type, which only the first wrong one of a node has been reported for, and what the
// endpoint is known to refuse.
func (c *checking) llmLiteral(u *unit, p tool.Parameter, in flow.NodeInput) {
	if err := p.Check(in.Literal); err != nil {
		e := *tool.WrongLiteral(u.Name, in.Name, p.Type, in.Literal)
		c.report.failure(in.Where.At(&e), mendInputType(e.Message), u)
		return
	}
	if p.Name == "response_format" {
		c.responseFormat(u, in)
	}
}

// responseFormats are the types of answers that OpenAI's API knows.
var responseFormats = []string{"text", "json_object", "json_schema"}

func (c *checking) responseFormat(u *unit, in flow.NodeInput) {
	parsed := in.Literal
	if text, ok := parsed.(string); ok {
		if v, err := value.Decode([]byte(text)); err == nil {
			parsed = v
		}
	}
	dict, ok := parsed.(*value.Dict)
	if !ok {
		c.report.warn("ResponseFormat", in.Where, u, "The response_format "+value.Repr(in.Literal)+" is not a mapping, which the API asks for.", "Write {type: json_object} or {type: text}.")
		return
	}
	kind, _ := dict.Get("type")
	if text, ok := kind.(string); !ok || !slices.Contains(responseFormats, text) {
		c.report.warn("ResponseFormat", in.Where, u, "The type "+value.Repr(kind)+" of response_format is not one that the API knows.",
			didYouMean(value.Str(kind), responseFormats, quoted, "Write 'type' with one of "+listed(responseFormats)+"."))
	}
	for _, key := range dict.Keys() {
		if key != "type" && key != "json_schema" {
			c.report.warn("ResponseFormat", in.Where, u, "The key '"+key+"' of response_format is not one that the API knows.",
				didYouMean(key, []string{"type", "json_schema"}, quoted, "Remove it."))
		}
	}
}

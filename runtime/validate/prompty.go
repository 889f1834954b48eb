package validate

import (
	"context"
	"strings"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/connection"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/flow"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/template"
)

// prompty checks a prompty file: its model, and its template against its inputs.
func (c *checking) prompty(ctx context.Context) {
	card, root := c.draft.Flow.Card, fields{c.draft.Document}
	p, model := page{c.draft.File, card.Line, card.Template}, root.below("model")
	if missing := missingOf(model, "configuration", "parameters"); card.Config != nil && missing != nil {
		c.report.err(flow.Class{api.SystemError, "TypeError"}, root.key(c.draft.File, "model", flow.Place{File: c.draft.File, Line: 1, Column: 1}), nil,
			"The file does not say the "+strings.Join(missing, " and the ")+" of its model.", "Add "+strings.Join(missing, " and ")+" under 'model'; either may be {}.")
	} else if answer := c.python.script; answer != nil {
		c.scriptError(answer)
	}
	c.promptyConnection(model.below("configuration"))
	if !c.promptyTemplate(ctx, p) {
		return
	}
	found := c.variablesOf(card.Template)
	names := inputNames(c.draft.Flow.Inputs)
	c.missingInputs(nil, p, names, found)
	for _, in := range c.draft.Flow.Inputs {
		if !found.has(in.Name) {
			c.report.warn("UnusedInput", in.Place, nil, "The template does not use the input '"+in.Name+"'.",
				didYouMean(in.Name, found.names(), quoted, "Remove it, or write {{ "+in.Name+" }} where it belongs in the template."))
		}
	}
	if api := textOf(model.node.Get("api")); api == "" || api == "chat" {
		c.roles(nil, "The prompt", p)
	}
}

// missingOf returns which of these keys a mapping does not have.
func missingOf(f fields, keys ...string) []string {
	var missing []string
	for _, key := range keys {
		if !f.has(key) {
			missing = append(missing, key)
		}
	}
	return missing
}

// promptyTemplate reports whether the template can be read, and what is wrong with it when not.
func (c *checking) promptyTemplate(ctx context.Context, p page) bool {
	answer := c.python.templates[p.text]
	switch {
	case answer == nil:
		_, err := template.New(p.text).Variables(ctx, renderer{c})
		return err == nil
	case answer.Crash != "":
		c.report.err(flow.Class{api.UserError, "ToolValidationError", "JinjaTemplateError"}, p.place(1, 0), nil,
			"The template cannot be read: "+answer.Crash+".", "Look for an expression of constants that takes for ever to compute.")
	case answer.Class != "":
		c.report.err(flow.Class{api.SystemError, answer.Class}, p.place(max(1, answer.Line), 0), nil, "The template is no Jinja2: "+answer.Message+".", "Correct the Jinja2 template.")
	}
	return answer.Class == "" && answer.Crash == "" && answer.Failure == ""
}

// The connection classes of the types of models that a prompty file names.
var promptyClasses = map[string]string{"azure_openai": connection.AzureOpenAI, "openai": connection.OpenAI}

// promptyConnection checks that the connection of a prompty file's model is there, and one for models.
func (c *checking) promptyConnection(configuration fields) {
	name, kind := textOf(configuration.node.Get("connection")), textOf(configuration.node.Get("type"))
	if c.connections == nil || name == "" || strings.HasPrefix(name, "${") {
		return
	}
	at := configuration.value(c.draft.File, "connection", flow.Place{File: c.draft.File, Line: 1, Column: 1})
	found, err := c.connections.Get(name)
	switch class := promptyClasses[kind]; {
	case err != nil:
		e := *asError(err)
		c.report.failure(at.At(&e), c.mendConnection(), nil)
	case found.Class != connection.AzureOpenAI && found.Class != connection.OpenAI:
		c.report.err(flow.Class{api.UserError, "UnknownConnectionType"}, at, nil, "The connection "+name+" is a "+found.Class+", which is none for models.",
			"Name an OpenAI or Azure OpenAI connection.")
	case class != "" && found.Class != class:
		c.report.warn("ModelTypeIgnored", configuration.value(c.draft.File, "type", at), nil,
			"The type "+kind+" has no effect: the connection "+name+" is a "+found.Class+".", "Write the type that belongs to the connection, or leave it out.")
	}
}

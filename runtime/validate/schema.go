package validate

import (
	"slices"
	"strings"

	"github.com/nomad-promptflow/nomad-promptflow/runtime/flow"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/flow/document"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// shape is what a key's value must be, where prompt flow's own validation says so (its marshmallow schemas); what the executor needs
// is said by package flow.
type shape int

const (
	anything shape = iota
	textual
	truth
	mapping
	texts // a list of strings
	textMapping
)

// keys are the known keys of a mapping with their shapes. Others are ignored by prompt flow.
type keys map[string]shape

var (
	flowKeys = keys{
		"$schema": anything, "id": anything, "name": anything, "type": textual, "description": textual, "display_name": textual,
		"tags": textMapping, "version": anything, "language": textual, "environment": mapping, "environment_variables": mapping,
		"additional_includes": texts, "code": anything, "message_format": anything, "inputs": anything, "outputs": anything,
		"nodes": anything, "node_variants": anything, "tools": anything,
	}
	inputKeys = keys{
		"type": anything, "default": anything, "description": textual, "enum": anything, "is_chat_input": truth, "is_chat_history": truth,
	}
	outputKeys = keys{
		"type": anything, "reference": textual, "description": textual, "evaluation_only": anything, "is_chat_output": truth,
	}
	nodeKeys = keys{
		"name": anything, "type": anything, "source": anything, "tool": anything, "inputs": anything, "connection": anything, "api": anything,
		"provider": anything, "module": anything, "use_variants": anything, "aggregation": anything, "reduce": anything,
		"activate": anything, "enable_cache": anything, "comment": anything, "skip": anything,
	}
	sourceKeys      = keys{"type": anything, "path": anything, "tool": anything}
	activateKeys    = keys{"when": anything, "is": anything}
	variantsKeys    = keys{"default_variant_id": anything, "variants": anything}
	variantKeys     = keys{"node": anything, "description": anything}
	environmentKeys = keys{"image": anything, "conda_file": anything, "python_requirements_txt": anything, "setup_sh": anything}
)

// flowTypes are the values of a flow's key 'type'.
var flowTypes = []string{"standard", "evaluation", "chat"}

// schemaError is what prompt flow's validation raises for a schema that is not met.
var schemaError = flow.Class{"UserError", "ValidationError"}

// schema checks the keys of the file and the shapes of their values.
func (c *checking) schema() {
	if c.draft.Document.Kind != document.Mapping {
		return
	}
	root := fields{c.draft.Document}
	c.mapping(root, "the flow", flowKeys)
	c.oneOf(root, "type", flowTypes)
	for _, in := range root.below("inputs").list() {
		c.mapping(fields{in.Value}, "flow input '"+in.Key+"'", inputKeys)
	}
	for _, out := range root.below("outputs").list() {
		c.mapping(fields{out.Value}, "flow output '"+out.Key+"'", outputKeys)
	}
	c.mapping(root.below("environment"), "'environment'", environmentKeys)
	if nodes := c.draft.Document.Get("nodes"); nodes != nil {
		for _, n := range nodes.Value.Items {
			c.node(fields{n})
		}
	}
	for _, v := range root.below("node_variants").list() {
		c.mapping(fields{v.Value}, "the variants of node '"+v.Key+"'", variantsKeys)
		for _, body := range (fields{v.Value}).below("variants").list() {
			c.mapping(fields{body.Value}, "variant '"+body.Key+"'", variantKeys)
			if n := body.Value.Get("node"); n != nil {
				c.node(fields{n.Value})
			}
		}
	}
}

func (c *checking) node(f fields) {
	what := "a node"
	if name := f.node.Get("name"); name != nil {
		if v, err := name.Value.Value(); err == nil {
			what = "node '" + value.Str(v) + "'"
		}
	}
	c.mapping(f, what, nodeKeys)
	c.mapping(f.below("source"), "the source of "+what, sourceKeys)
	c.mapping(f.below("activate"), "the activate of "+what, activateKeys)
	if skip := f.node.Get("skip"); skip != nil {
		c.report.warn("UnknownKey", c.keyPlace(skip), nil, "The key 'skip' of "+what+" has no effect any more.",
			"Write the condition under which the node does run as 'activate'.")
	}
}

func (c *checking) keyPlace(f *document.Field) flow.Place {
	return flow.Place{File: c.draft.File, Line: f.Line, Column: f.Column}
}

func (c *checking) valuePlace(f *document.Field) flow.Place {
	if f.Value == nil || f.Value.Line == 0 {
		return c.keyPlace(f)
	}
	return flow.Place{File: c.draft.File, Line: f.Value.Line, Column: f.Value.Column}
}

// mapping checks one mapping's keys and shapes.
func (c *checking) mapping(f fields, what string, known keys) {
	if f.node == nil || f.node.Kind != document.Mapping {
		return
	}
	names := make([]string, 0, len(known))
	for name := range known {
		names = append(names, name)
	}
	slices.Sort(names)
	for i := range f.node.Fields {
		field := &f.node.Fields[i]
		s, ok := known[field.Key]
		if !ok {
			c.report.warn("UnknownKey", c.keyPlace(field), nil, "The key '"+field.Key+"' of "+what+" is not known and has no effect.",
				didYouMean(field.Key, names, quoted, "Remove it, or use one of "+strings.Join(names, ", ")+"."))
			continue
		}
		if wrong := misshapen(field.Value, s); wrong != "" {
			c.report.err(schemaError, c.valuePlace(field), nil, "The value of '"+field.Key+"' of "+what+" is not "+wrong+".", "Write "+wrong+".")
		}
	}
}

// misshapen says what a value should be and is not; empty when it is. Null is left to those who read it.
func misshapen(n *document.Node, s shape) string {
	if n.IsNull() || s == anything {
		return ""
	}
	v, err := n.Value()
	if err != nil {
		return "" // has been said
	}
	_, isText := v.(string)
	dict, isDict := v.(*value.Dict)
	switch {
	case s == textual && !isText:
		return "a text (put it in quotes)"
	case s == truth && !truthful(v):
		return "true or false"
	case s == mapping && !isDict:
		return "a mapping of keys to values"
	case s == textMapping && (!isDict || !allTexts(dict)):
		return "a mapping of keys to texts (put numbers in quotes)"
	case s == texts && !textList(v):
		return "a list of texts"
	}
	return ""
}

// truthful reports whether a value is one of those that marshmallow takes for true or false.
func truthful(v any) bool {
	switch v := v.(type) {
	case bool:
		return true
	case string:
		return slices.Contains([]string{"t", "true", "y", "yes", "on", "1", "f", "false", "n", "no", "off", "0"}, strings.ToLower(v))
	case int64:
		return v == 0 || v == 1
	}
	return false
}

func allTexts(d *value.Dict) bool {
	for _, v := range d.All() {
		if _, ok := v.(string); !ok {
			return false
		}
	}
	return true
}

func textList(v any) bool {
	list, ok := v.([]any)
	return ok && !slices.ContainsFunc(list, func(item any) bool { _, ok := item.(string); return !ok })
}

// oneOf checks a key whose value is one of a few texts.
func (c *checking) oneOf(f fields, key string, choices []string) {
	field := f.node.Get(key)
	if field == nil || field.Value.IsNull() {
		return
	}
	v, err := field.Value.Value()
	if text, ok := v.(string); err == nil && ok && !slices.Contains(choices, text) {
		all := strings.Join(choices, ", ")
		c.report.err(schemaError, c.valuePlace(field), nil, value.Repr(v)+" is not one of "+all+", which the flow's '"+key+"' must be.",
			didYouMean(text, choices, quoted, "Write one of "+all+"."))
	}
}

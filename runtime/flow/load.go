package flow

import (
	"errors"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/flow/document"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// Options choose what to load of a folder. The zero value is its one flow with the default variants.
type Options struct {
	File    string // path of the flow's file inside of the folder
	Variant string // "${node.variant}": the variant of one node; its default does not count
}

// Load reads the flow of a folder. It checks everything that can be seen without loading a tool, but not yet the graph.
func Load(dir fs.FS) (*Flow, error) { return LoadWith(dir, Options{}) }

// LoadWith is Load with a choice.
func LoadWith(dir fs.FS, o Options) (*Flow, error) {
	name, err := pick(dir, o.File)
	if err != nil {
		return nil, err
	}
	l := loader{file: name, variant: o.Variant}
	f, _, err := l.load(dir)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// load reads the flow of a file, and the document that it is.
func (l loader) load(dir fs.FS) (*Flow, *document.Node, error) {
	if path.Ext(l.file) == promptyExtension {
		return l.prompty(dir)
	}
	root, err := l.read(dir)
	if err != nil {
		return nil, nil, err
	}
	f, err := l.flow(root)
	return f, root, err
}

// loader turns a document into a flow. Errors come in the order in which prompt flow's deserialization raises them.
type loader struct {
	file    string
	variant string      // "${node.variant}", or none
	report  func(error) // takes every mistake, and loading goes on; nil: the first ends it
}

// stop reports whether err ends the loading.
func (l loader) stop(err error) bool {
	if err == nil {
		return false
	}
	if l.report != nil {
		l.report(err)
	}
	return l.report == nil
}

func lineText(p Place) string { return strconv.Itoa(p.Line) }

func (l loader) at(n *document.Node) Place { return Place{l.file, n.Line, n.Column} }

func (l loader) key(f *document.Field) Place { return Place{l.file, f.Line, f.Column} }

// definition is an error that prompt flow raises as FlowDefinitionError, or lets escape as a bare exception.
func (l loader) definition(p Place, format string, args ...any) error {
	return p.At(api.NewError(FlowDefinitionError, TargetUnknown, format, args...))
}

func (l loader) flow(root *document.Node) (*Flow, error) {
	if !root.IsNull() && root.Kind != document.Mapping {
		return nil, l.definition(l.at(root), "The flow file is not a mapping of keys to values. Please check that it is a flow definition.")
	}
	if err := l.refuseLanguage(root); l.stop(err) {
		return nil, err
	}
	if root.Get("entry") != nil || strings.HasPrefix(path.Base(l.file), "flow.flex.") {
		return l.flex(root)
	}
	f := &Flow{File: l.file}
	var err error
	if f.Nodes, err = l.nodes(root); l.stop(err) {
		return nil, err
	}
	if f.Inputs, err = l.inputs(root); l.stop(err) {
		return nil, err
	}
	if f.Outputs, err = l.outputs(root); l.stop(err) {
		return nil, err
	}
	if err := l.applyVariants(f, root); l.stop(err) {
		return nil, err
	}
	if err := l.names(f, root); l.stop(err) {
		return nil, err
	}
	if format := root.Get("message_format"); format != nil {
		f.MessageFormat.Place = l.at(format.Value)
		if f.MessageFormat.Name, err = l.text(format); l.stop(err) {
			return nil, err
		}
	}
	return f, l.refuseNodes(f)
}

// names reads what flows of all kinds have.
func (l loader) names(f *Flow, root *document.Node) (err error) {
	if f.environment, err = l.dict(root.Get("environment_variables")); l.stop(err) {
		return err
	}
	if f.ID, err = l.text(root.Get("id")); l.stop(err) {
		return err
	}
	if f.ID == "" {
		f.ID = "default_flow_id"
	}
	f.Name, err = l.text(root.Get("name"))
	return err
}

func (l loader) refuseLanguage(root *document.Node) error {
	if f := root.Get("language"); f != nil && !f.Value.IsNull() {
		if language, _ := f.Value.Value(); language != "python" {
			return refuse(l.at(f.Value), "The language "+value.Repr(language), "use python")
		}
	}
	return nil
}

// refuseNodes names the first node that cannot run here.
func (l loader) refuseNodes(f *Flow) error {
	for _, n := range f.Nodes {
		switch n.Type {
		case "csharp", "action":
			return refuse(n.Place, "Node '"+n.Name+"' of type "+n.Type, "use a python, prompt or llm node")
		}
	}
	return nil
}

// value reads a field as a plain value; an absent field is nil.
func (l loader) value(f *document.Field) (any, error) {
	if f == nil {
		return nil, nil
	}
	v, err := f.Value.Value()
	if err != nil {
		return nil, l.plainError(err)
	}
	return v, nil
}

// plainError turns a document's "has no plain value" into a refusal with its line.
func (l loader) plainError(err error) error {
	var e *document.Error
	if !errors.As(err, &e) {
		return err
	}
	return Place{l.file, e.Line, e.Column}.At(Fail(NotSupported, TargetExecutor, "In line {line}: {detail}.", "line", strconv.Itoa(e.Line), "detail", e.Message))
}

// text reads a field as a string; null and absent are empty, other values their str().
func (l loader) text(f *document.Field) (string, error) {
	v, err := l.value(f)
	if err != nil || v == nil {
		return "", err
	}
	return value.Str(v), nil
}

// flag reads a field as Python's truth of its value.
func (l loader) flag(f *document.Field) (bool, error) {
	v, err := l.value(f)
	return value.Truth(v), err
}

func (l loader) dict(f *document.Field) (*value.Dict, error) {
	if f == nil || f.Value.IsNull() {
		return value.NewDict(), nil
	}
	v, err := l.value(f)
	if err != nil {
		return nil, err
	}
	d, ok := v.(*value.Dict)
	if !ok {
		return nil, l.definition(l.key(f), "The value of '%s' is not a mapping of keys to values. Please correct it in the flow file.", f.Key)
	}
	return d, nil
}

// mapping returns the fields of a key whose value must be a mapping; absent and null have none.
func (l loader) mapping(f *document.Field) ([]document.Field, error) {
	if f == nil || f.Value.IsNull() {
		return nil, nil
	}
	if f.Value.Kind != document.Mapping {
		return nil, l.definition(l.key(f), "The value of '%s' is not a mapping of names to definitions. Please correct it in the flow file.", f.Key)
	}
	if err := f.Value.CheckKeys(); err != nil {
		return f.Value.Fields, l.plainError(err)
	}
	return f.Value.Fields, nil
}

var valueTypes = []string{"int", "double", "bool", "string", "secret", "prompt_template", "list", "object", "file_path", "image", "assistant_definition"}

// valueType reads the required key 'type' of an input or an output.
func (l loader) valueType(what string, def *document.Field) (string, error) {
	f := def.Value.Get("type")
	if def.Value.Kind != document.Mapping || f == nil {
		return "", l.definition(l.key(def), "The %s '%s' has no 'type'. Please add one of %s.", what, def.Key, strings.Join(valueTypes, ", "))
	}
	t, err := l.value(f)
	if err != nil {
		return "", err
	}
	if name, ok := t.(string); ok && slices.Contains(valueTypes, name) {
		return name, nil
	}
	return "", l.definition(l.at(f.Value), "%s is not a valid ValueType for the %s '%s'. Please use one of %s.", value.Repr(t), what, def.Key, strings.Join(valueTypes, ", "))
}

func (l loader) inputs(root *document.Node) ([]*Input, error) {
	fields, err := l.mapping(root.Get("inputs"))
	if l.stop(err) {
		return nil, err
	}
	inputs := make([]*Input, 0, len(fields))
	for i := range fields {
		in, err := l.input(&fields[i])
		if l.stop(err) {
			return nil, err
		}
		inputs = append(inputs, in)
	}
	return inputs, nil
}

func (l loader) input(f *document.Field) (in *Input, err error) {
	in = &Input{Name: f.Key, Place: l.key(f)}
	if in.Type, err = l.valueType("flow input", f); l.stop(err) {
		return nil, err
	}
	if in.Default, err = l.value(f.Value.Get("default")); l.stop(err) {
		return nil, err
	}
	if in.Description, err = l.text(f.Value.Get("description")); l.stop(err) {
		return nil, err
	}
	enum, err := l.value(f.Value.Get("enum"))
	if l.stop(err) {
		return nil, err
	}
	in.Enum, _ = enum.([]any)
	if in.IsChatInput, err = l.flag(f.Value.Get("is_chat_input")); l.stop(err) {
		return nil, err
	}
	history := f.Value.Get("is_chat_history")
	in.IsChatHistory, err = l.flag(history)
	if history == nil || history.Value.IsNull() {
		in.IsChatHistory = in.Name == chatHistory
	} else {
		marks := in.IsChatHistory
		in.MarksHistory = &marks
	}
	return in, err
}

func (l loader) outputs(root *document.Node) ([]*Output, error) {
	fields, err := l.mapping(root.Get("outputs"))
	if l.stop(err) {
		return nil, err
	}
	outputs := make([]*Output, 0, len(fields))
	for i := range fields {
		out, err := l.output(&fields[i])
		if l.stop(err) {
			return nil, err
		}
		outputs = append(outputs, out)
	}
	return outputs, nil
}

func (l loader) output(f *document.Field) (out *Output, err error) {
	out = &Output{Name: f.Key, Place: l.key(f), Where: l.key(f)}
	if out.Type, err = l.valueType("flow output", f); l.stop(err) {
		return nil, err
	}
	var reference any = ""
	if r := f.Value.Get("reference"); r != nil {
		out.Where = l.at(r.Value)
		if reference, err = l.value(r); l.stop(err) {
			return nil, err
		}
	}
	out.Reference = ParseReference(reference)
	if out.Description, err = l.text(f.Value.Get("description")); l.stop(err) {
		return nil, err
	}
	if out.EvaluationOnly, err = l.flag(f.Value.Get("evaluation_only")); l.stop(err) {
		return nil, err
	}
	out.IsChatOutput, err = l.flag(f.Value.Get("is_chat_output"))
	return out, err
}

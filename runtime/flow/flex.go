package flow

import (
	"path"
	"strings"

	"github.com/nomad-promptflow/nomad-promptflow/runtime/flow/document"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// flex reads a flex flow: an entry in Python code, and what the file says of its signature.
func (l loader) flex(root *document.Node) (*Flow, error) {
	f := &Flow{Form: Flex, File: l.file}
	var err error
	if f.Entry, err = l.entry(root); l.stop(err) {
		return nil, err
	}
	if f.Inputs, err = l.inputs(root); l.stop(err) {
		return nil, err
	}
	if f.Outputs, err = l.outputs(root); l.stop(err) {
		return nil, err
	}
	if f.Init, err = l.initInputs(root); l.stop(err) {
		return nil, err
	}
	if f.Code, err = l.code(root); l.stop(err) {
		return nil, err
	}
	return f, l.names(f, root)
}

// entry reads module:function.
func (l loader) entry(root *document.Node) (string, error) {
	p, v := Place{l.file, 1, 1}, any("")
	if f := root.Get("entry"); f != nil {
		var err error
		if v, err = l.value(f); err != nil {
			return "", err
		}
		p = l.at(f.Value)
	}
	text, ok := v.(string)
	if !ok || strings.Count(text, ":") != 1 {
		return "", p.At(Fail(InvalidFlexFlowEntry, TargetExecutor,
			"Invalid entry '{entry}'.The entry should be in the format of '<module>:<function>'.", "entry", value.Str(v)))
	}
	return text, nil
}

// initInputs reads what the class is made with: besides values it may be a connection or a model's configuration.
func (l loader) initInputs(root *document.Node) ([]*Input, error) {
	fields, err := l.mapping(root.Get("init"))
	if l.stop(err) {
		return nil, err
	}
	inputs := make([]*Input, 0, len(fields))
	for i := range fields {
		f := &fields[i]
		in := &Input{Name: f.Key, Place: l.key(f)}
		if in.Type, err = l.initType(f); l.stop(err) {
			return nil, err
		}
		if in.Default, err = l.value(f.Value.Get("default")); l.stop(err) {
			return nil, err
		}
		inputs = append(inputs, in)
	}
	return inputs, nil
}

func (l loader) initType(f *document.Field) (string, error) {
	t, err := l.text(f.Value.Get("type"))
	if err != nil {
		return "", err
	}
	if strings.HasSuffix(t, "Connection") || strings.HasSuffix(t, "ModelConfiguration") {
		return t, nil
	}
	return l.valueType("init argument", f)
}

// code reads the folder of the code, which must be inside of the flow's.
func (l loader) code(root *document.Node) (string, error) {
	f := root.Get("code")
	text, err := l.text(f)
	if err != nil || text == "" {
		return "", err
	}
	plain := path.Clean(text)
	if path.IsAbs(plain) || plain == ".." || strings.HasPrefix(plain, "../") {
		return "", l.definition(l.at(f.Value), "The code folder '%s' is outside of the flow folder. Please copy the code into the flow folder.", text)
	}
	return plain, nil
}

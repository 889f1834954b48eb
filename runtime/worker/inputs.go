package worker

import (
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// encodedInputs are a call's inputs as they go to the worker; plain ones serve the run record too.
type encodedInputs struct {
	wire  []byte // object; null stands where a reference or an image goes
	refs  []inputRef
	media []mediaAt
	files []part // of the media
	names []string
	plain map[string][]byte // input -> its JSON for run records
}

// inputRef puts an object of the session at a place in the inputs.
type inputRef struct {
	Path     []any  `json:"path"` // input name, then keys and indices
	ID       uint64 `json:"id"`
	Property string `json:"property,omitempty"`
	Node     string `json:"node,omitempty"`
}

// mediaAt puts an image, or a text in the place of its string, at a place in a value.
type mediaAt struct {
	Path []any  `json:"path"`
	MIME string `json:"mime"`
	URL  string `json:"url"`
	Text bool   `json:"text"`
	Part string `json:"part"` // an image's bytes, a text's annotations
}

// announce says in a head what the parts are for.
func (e *encodedInputs) announce(head map[string]any) {
	if len(e.refs) > 0 {
		head["refs"] = e.refs
	}
	if len(e.media) > 0 {
		head["media"] = e.media
	}
}

// parts are what goes behind the head.
func (e *encodedInputs) parts() []part {
	return append([]part{{"inputs", e.wire}}, e.files...)
}

// found is how many places have been noted so far.
func (e *encodedInputs) found() int { return len(e.refs) + len(e.media) }

func encodeInputs(inputs []Input) encodedInputs {
	e := encodedInputs{wire: []byte{'{'}, plain: make(map[string][]byte, len(inputs))}
	type span struct{ from, to int }
	spans := make([]span, len(inputs))
	for i, in := range inputs {
		if i > 0 {
			e.wire = append(e.wire, ',')
		}
		e.wire = append(value.Append(e.wire, in.Name), ':')
		found := e.found()
		stripped := e.strip(in, in.Value, []any{in.Name})
		from := len(e.wire)
		e.wire = value.Append(e.wire, stripped)
		if e.found() == found {
			spans[i] = span{from, len(e.wire)}
		}
		e.names = append(e.names, in.Name)
	}
	e.wire = append(e.wire, '}')
	for i, in := range inputs {
		if s := spans[i]; s.to > 0 {
			e.plain[in.Name] = e.wire[s.from:s.to:s.to]
		} else {
			e.plain[in.Name] = value.Encode(in.Value)
		}
	}
	return e
}

// strip replaces references and images inside v by null, texts by their strings, and notes where they were. What holds none is
// returned as it is.
func (e *encodedInputs) strip(in Input, v any, path []any) any {
	switch v := v.(type) {
	case *value.Ref:
		ref := inputRef{Path: append([]any(nil), path...), ID: v.ID, Node: in.Source}
		if len(path) == 1 {
			ref.Property = in.Property
		}
		e.refs = append(e.refs, ref)
		return nil
	case *value.Image:
		e.noteMedia(mediaAt{Path: append([]any(nil), path...), MIME: v.MIME, URL: v.URL}, v.Data)
		return nil
	case *value.Text:
		e.noteMedia(mediaAt{Path: append([]any(nil), path...), Text: true}, value.Encode(v.Annotations))
		return v.Value
	case []any:
		return e.stripList(in, v, path)
	case *value.Dict:
		return e.stripDict(in, v, path)
	default:
		return v
	}
}

func (e *encodedInputs) noteMedia(m mediaAt, data []byte) {
	m.Part = "media" + strconv.Itoa(len(e.media))
	e.media = append(e.media, m)
	e.files = append(e.files, part{m.Part, data})
}

func (e *encodedInputs) stripList(in Input, list []any, path []any) any {
	out, found := list, e.found()
	for i, item := range list {
		stripped := e.strip(in, item, append(path, i))
		if e.found() == found {
			continue
		}
		found = e.found()
		if &out[0] == &list[0] {
			out = append([]any(nil), list...)
		}
		out[i] = stripped
	}
	return out
}

func (e *encodedInputs) stripDict(in Input, dict *value.Dict, path []any) any {
	out, found := dict, e.found()
	for key, item := range dict.All() {
		stripped := e.strip(in, item, append(path, key))
		if e.found() == found {
			continue
		}
		found = e.found()
		if out == dict {
			out = dict.Clone()
		}
		out.Set(key, stripped)
	}
	return out
}

// record returns the object of all inputs for the run record: literals as they were at load, values as they were sent, and
// properties of references as the worker resolved them. r may be nil.
func (e *encodedInputs) record(tool *Tool, r *reply) json.RawMessage {
	resolved := map[string]string{} // input -> its JSON
	if r != nil && r.parts["inputs"] != nil {
		_ = json.Unmarshal(r.parts["inputs"], &resolved) // a bad record must not fail the call
	}
	b := []byte{'{'}
	add := func(name string, document []byte) {
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = append(value.Append(b, name), ':')
		b = append(b, document...)
	}
	known := make(map[string]bool, len(tool.Inputs))
	for _, in := range tool.Inputs {
		known[in.Name] = true
		if in.Literal {
			add(in.Name, []byte(in.Record))
		} else if document, ok := e.document(in.Name, resolved); ok {
			add(in.Name, document)
		}
	}
	for _, name := range e.names {
		if !known[name] {
			document, _ := e.document(name, resolved)
			add(name, document)
		}
	}
	return append(b, '}')
}

func (e *encodedInputs) document(name string, resolved map[string]string) ([]byte, bool) {
	if document, ok := resolved[name]; ok {
		return []byte(document), true
	}
	document, ok := e.plain[name]
	return document, ok
}

// placeMedia puts images and texts into a value that came without them.
func placeMedia(v any, media []mediaAt, parts map[string][]byte) (any, error) {
	for _, m := range media {
		data, ok := parts[m.Part]
		if !ok {
			return nil, fmt.Errorf("%w: no part %q", errFrame, m.Part)
		}
		var err error
		if v, err = placeAt(v, m.Path, func(old any) (any, error) { return m.made(old, data) }); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// made returns the image or the text that belongs where old stands.
func (m mediaAt) made(old any, data []byte) (any, error) {
	if !m.Text {
		return &value.Image{Data: data, MIME: m.MIME, URL: m.URL}, nil
	}
	text, ok := old.(string)
	if !ok {
		return nil, fmt.Errorf("%w: a text where there is no string", errFrame)
	}
	annotations, err := value.Decode(data)
	return &value.Text{Value: text, Annotations: annotations}, err
}

func placeAt(v any, path []any, make func(any) (any, error)) (any, error) {
	if len(path) == 0 {
		return make(v)
	}
	switch step := path[0].(type) {
	case float64: // as encoding/json reads an index
		list, ok := v.([]any)
		i := int(step)
		if !ok || i < 0 || i >= len(list) {
			break
		}
		var err error
		list[i], err = placeAt(list[i], path[1:], make)
		return list, err
	case string:
		dict, ok := v.(*value.Dict)
		inner, has := dict.Get(step)
		if !ok || !has {
			break
		}
		placed, err := placeAt(inner, path[1:], make)
		if err != nil {
			return nil, err
		}
		dict.Set(step, placed)
		return dict, nil
	}
	return nil, fmt.Errorf("%w: no place %v", errFrame, path)
}

package tool

import (
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/nomad-promptflow/nomad-promptflow/runtime/connection"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/flow/document"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// notHere says why a prompty file is left to prompt flow's own class, which does what it asks for or refuses it in its own words.
type notHere struct{ why string }

func (n *notHere) Error() string { return n.why }

func notHeref(format string, args ...any) error { return &notHere{fmt.Sprintf(format, args...)} }

// promptyConfig is a front matter with its references followed and overridden (the beginning of promptflow.core.Prompty).
func promptyConfig(s PromptySpec) (*value.Dict, error) {
	r := references{dir: s.Dir, base: path.Dir(s.File), env: s.Env}
	v, err := r.follow(s.Config)
	if err != nil {
		return nil, err
	}
	config := v.(*value.Dict)
	model, ok := get[*value.Dict](config, "model")
	if !ok {
		return nil, notHeref("its model is not an object")
	}
	for name, over := range s.Overrides.All() {
		dict, isDict := over.(*value.Dict)
		if name != "model" || !isDict {
			return nil, notHeref("more than its model is overridden")
		}
		followed, err := r.follow(dict)
		if err != nil {
			return nil, err
		}
		if model, err = updated(model, followed.(*value.Dict)); err != nil {
			return nil, err
		}
	}
	config.Set("model", model)
	return config, nil
}

func get[T any](d *value.Dict, key string) (T, bool) {
	v, _ := d.Get(key)
	t, ok := v.(T)
	return t, ok
}

// updated is prompt flow's update_dict_recursively: what overrides comes first.
func updated(origin, over *value.Dict) (*value.Dict, error) {
	out := value.NewDictSize(origin.Len())
	for name, v := range over.All() {
		if dict, ok := v.(*value.Dict); ok {
			inner := value.NewDict()
			if was, _ := origin.Get(name); was != nil || origin.Has(name) {
				if inner, ok = was.(*value.Dict); !ok {
					return nil, notHeref("an object overrides what is none")
				}
			}
			deeper, err := updated(inner, dict)
			if err != nil {
				return nil, err
			}
			v = deeper
		}
		out.Set(name, v)
	}
	for name, v := range origin.All() {
		if !out.Has(name) {
			out.Set(name, v)
		}
	}
	return out, nil
}

// references follows ${env:NAME} and ${file:PATH} in the texts of a front matter (promptflow.core's resolve_references).
type references struct {
	dir  fs.FS
	base string // folder of the prompty file in dir
	env  connection.Lookup
}

// reference matches the beginning of a text; what stands behind it is dropped, as in prompt flow.
var reference = regexp.MustCompile(`^\$\{([\p{L}\p{N}_]+):(.*)\}`)

func (r references) follow(v any) (any, error) {
	switch v := v.(type) {
	case string:
		return r.text(v)
	case []any:
		out := make([]any, len(v))
		for i, item := range v {
			var err error
			if out[i], err = r.follow(item); err != nil {
				return nil, err
			}
		}
		return out, nil
	case *value.Dict:
		out := value.NewDictSize(v.Len())
		for name, item := range v.All() {
			followed, err := r.follow(item)
			if err != nil {
				return nil, err
			}
			out.Set(name, followed)
		}
		return out, nil
	default:
		return v, nil
	}
}

func (r references) text(text string) (any, error) {
	m := reference.FindStringSubmatch(text)
	switch {
	case m == nil:
		return text, nil
	case m[1] == "env":
		if v, ok := r.env(m[2]); ok {
			return v, nil
		}
		return text, nil
	case m[1] == "file":
		return r.file(m[2])
	default:
		return text, nil
	}
}

// maxReference bounds a file that a front matter refers to, in bytes.
const maxReference = document.MaxBytes

// file reads a file of the flow; one that is not there, or outside of the flow, is left to prompt flow.
func (r references) file(name string) (any, error) {
	plain := path.Join(r.base, name)
	if path.IsAbs(name) || !fs.ValidPath(plain) {
		return nil, notHeref("it refers to %s", name)
	}
	f, err := r.dir.Open(plain)
	if err != nil {
		return nil, notHeref("it refers to %s", name)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxReference+1))
	if err != nil || len(data) > maxReference || !utf8.Valid(data) {
		return nil, notHeref("it refers to %s", name)
	}
	text := strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(string(data))
	var v any = text
	switch strings.ToLower(path.Ext(name)) {
	case ".json":
		v, err = value.Decode([]byte(text))
	case ".yml", ".yaml":
		var root *document.Node
		if root, err = document.Parse([]byte(text)); err == nil {
			root.DatesAsText()
			v, err = root.Value()
		}
	}
	if err != nil {
		return nil, notHeref("it refers to %s", name)
	}
	return v, nil
}

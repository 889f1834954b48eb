package media

import (
	"context"
	"errors"
	"strings"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/flow"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// Loader makes images of plain values. It may be used by many goroutines at once.
type Loader struct {
	Format Format
	// Files reads an image file by the path that a flow or a caller wrote.
	Files func(path string) ([]byte, error)
	// Fetcher fetches images from URLs; nil refuses them.
	Fetcher *Fetcher
}

// Inputs returns a line's converted inputs with images and texts where inputs of type image, list and object spell them.
func (l *Loader) Inputs(ctx context.Context, inputs []*flow.Input, values *value.Dict) (*value.Dict, error) {
	out := values
	for _, in := range inputs {
		v, _ := values.Get(in.Name)
		if in.Type != "image" && !l.Format.spelled(v) {
			continue
		}
		loaded, err := l.Input(ctx, in, v)
		if err != nil {
			return nil, err
		}
		if out == values {
			out = values.Clone()
		}
		out.Set(in.Name, loaded)
	}
	return out, nil
}

// Input returns the value of one input with its images loaded. An input of type image may be a list of images.
func (l *Loader) Input(ctx context.Context, in *flow.Input, v any) (any, error) {
	var err error
	list, isList := v.([]any)
	switch {
	case in.Type == "image" && isList:
		loaded := make([]any, len(list))
		for i, item := range list {
			if loaded[i], err = l.Image(ctx, item); err != nil {
				break
			}
		}
		v = loaded
	case in.Type == "image":
		v, err = l.Image(ctx, v)
	case in.Type == "list" || in.Type == "object":
		v, err = l.Value(ctx, v)
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, in.At(flow.Fail(LoadMultimediaDataError, flow.TargetExecutor, "Failed to load image for input '{key}': {error_type_and_message}",
			"key", in.Name, "error_type_and_message", Describe(err)))
	}
	return v, nil
}

// Describe returns an error as prompt flow quotes it: its class and its text.
func Describe(err error) string {
	var python *value.Error
	if errors.As(err, &python) {
		return "(" + python.Class + ") " + python.Message
	}
	e := api.AsError(err)
	return "(" + e.Class() + ") " + e.Message
}

// Value returns a plain value with an image for every dict that spells one, and with texts where the format has them.
func (l *Loader) Value(ctx context.Context, v any) (any, error) {
	if !l.Format.spelled(v) {
		return v, nil
	}
	return rewrite(v, func(d *value.Dict) (any, bool, error) {
		if l.Format.isImage(d) {
			image, err := l.dict(ctx, d)
			return image, true, err
		}
		if l.Format == OpenAIVision {
			if text, ok := visionText(d); ok {
				return text, true, nil
			}
		}
		return nil, false, nil
	})
}

func invalid(format string, params ...string) error {
	return flow.Fail(InvalidImageInput, flow.TargetExecutor, format, params...)
}

// Image makes an image of the value of an input of type image: a dict of the format, or a string that is base64, a URL or a path.
func (l *Loader) Image(ctx context.Context, v any) (*value.Image, error) {
	switch v := v.(type) {
	case *value.Image:
		return v, nil
	case *value.Dict:
		if !l.Format.isImage(v) {
			return nil, invalid("Invalid image input format. The image input should be a dictionary like: " +
				"{data:image/<image_type>;[path|base64|url]: <image_data>}.")
		}
		return l.dict(ctx, v)
	case string:
		return l.text(ctx, v)
	default:
		return nil, invalid("Unsupported image input type: <class '" + value.TypeName(v) + "'>. The image inputs should be a string or a dictionary.")
	}
}

func (l *Loader) text(ctx context.Context, s string) (*value.Image, error) {
	switch {
	case s == "":
		return nil, invalid("The image input should not be empty.")
	case isBase64(s):
		return fromBase64(s, "")
	case isURL(s):
		return l.Fetcher.fetch(ctx, s, "")
	default:
		return l.file(s, "")
	}
}

func (l *Loader) dict(ctx context.Context, d *value.Dict) (*value.Image, error) {
	if l.Format == OpenAIVision {
		return l.vision(ctx, d)
	}
	mime, kind, what, _ := basicImage(d)
	s, ok := what.(string)
	if !ok {
		return nil, notText(kind, what)
	}
	switch {
	case kind == "path":
		return l.file(s, mime)
	case kind == "url":
		return l.Fetcher.fetch(ctx, s, mime)
	case isBase64(s):
		return fromBase64(s, mime)
	default:
		return nil, invalid("Invalid base64 image: " + cut(s) + ".")
	}
}

func (l *Loader) vision(ctx context.Context, d *value.Dict) (*value.Image, error) {
	kind, what, _ := visionImage(d)
	s, ok := what.(string)
	switch {
	case !ok:
		return nil, notText(kind, what)
	case kind == imageFile:
		return l.file(s, "")
	case isBase64(s):
		return fromBase64(s, "")
	case isURL(s):
		return l.Fetcher.fetch(ctx, s, "")
	default:
		return nil, invalid("Invalid image url: " + cut(s) + ". Should be a valid url or base64 string.")
	}
}

// notText is what Python raises for a path, a URL or base64 that is no string.
func notText(kind string, v any) error {
	name := value.TypeName(v)
	if kind == "path" || kind == imageFile {
		return &value.Error{Class: value.TypeError, Message: "expected str, bytes or os.PathLike object, not " + name}
	}
	return &value.Error{Class: "AttributeError", Message: "'" + name + "' object has no attribute 'split'"}
}

func (l *Loader) file(path, mime string) (*value.Image, error) {
	data, err := l.Files(path)
	if err != nil {
		return nil, err
	}
	return value.NewImage(data, mime, ""), nil
}

// maxShown bounds how much of a wrong value an error repeats, in bytes: some are whole pictures.
const maxShown = 200

func cut(s string) string {
	if len(s) <= maxShown {
		return s
	}
	return strings.ToValidUTF8(s[:maxShown], "") + "…"
}

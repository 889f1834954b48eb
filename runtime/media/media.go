// Package media makes images of what flows and their callers write for images, and writes images for callers.
//
// There are two spellings, prompt flow's message formats ([Format]). A [Loader] reads them, from base64, from files and from the
// web, which [Fetcher] keeps off private networks. Images themselves are [value.Image]; how they reach Python is package worker's.
// Errors are *api.Error with prompt flow's classes, or *value.Error for what is a bare Python exception there.
package media

import (
	"regexp"
	"strings"

	"github.com/nomad-promptflow/nomad-promptflow/runtime/flow"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// Format is a message format: how images and texts are spelled in JSON.
type Format string

// The formats that there are.
const (
	Basic        Format = "basic"         // {"data:image/png;base64": "…"}
	OpenAIVision Format = "openai-vision" // {"type": "image_url", "image_url": {"url": "…"}}
)

// The error classes of images.
var (
	InvalidImageInput        = flow.Class{"UserError", "ValidationError", "InvalidImageInput"}
	LoadMultimediaDataError  = flow.Class{"UserError", "LoadMultimediaDataError"}
	InvalidMessageFormatType = flow.Class{"UserError", "InvalidMessageFormatType"}
)

// ParseFormat reads a flow's message_format. None and nothing mean [Basic].
func ParseFormat(text string) (Format, error) {
	switch f := Format(strings.ToLower(text)); f {
	case "", Basic:
		return Basic, nil
	case OpenAIVision:
		return f, nil
	default:
		return "", flow.Fail(InvalidMessageFormatType, flow.TargetUnknown,
			"Invalid message format '"+text+"'. Supported message formats are ['basic', 'openai-vision'].")
	}
}

// key is the one key of a basic image: its type, and what its value is.
var key = regexp.MustCompile(`^data:image/(.*);(path|base64|url)\n?$`)

// basicImage reads {"data:image/TYPE;KIND": what}.
func basicImage(d *value.Dict) (mime, kind string, what any, ok bool) {
	if d.Len() != 1 {
		return "", "", nil, false
	}
	for k, v := range d.All() {
		if m := key.FindStringSubmatch(k); m != nil {
			return "image/" + m[1], m[2], v, true
		}
	}
	return "", "", nil, false
}

// The kinds of an openai-vision image.
const (
	imageURL  = "image_url"
	imageFile = "image_file"
)

// visionImage reads {"type": KIND, KIND: {"url" or "path": what}}.
func visionImage(d *value.Dict) (kind string, what any, ok bool) {
	if d.Len() != 2 {
		return "", nil, false
	}
	t, _ := d.Get("type")
	kind, _ = t.(string)
	inner, _ := d.Get(kind)
	body, isDict := inner.(*value.Dict)
	if !isDict {
		return "", nil, false
	}
	name := map[string]string{imageURL: "url", imageFile: "path"}[kind]
	what, ok = body.Get(name)
	return kind, what, ok && name != ""
}

// visionText reads {"type": "text", "text": "…" or {"value": "…", "annotations": …}}.
func visionText(d *value.Dict) (*value.Text, bool) {
	if t, _ := d.Get("type"); d.Len() != 2 || t != "text" {
		return nil, false
	}
	text, _ := d.Get("text")
	switch text := text.(type) {
	case string:
		return &value.Text{Value: text}, true
	case *value.Dict:
		v, _ := text.Get("value")
		s, ok := v.(string)
		if !ok {
			return nil, false
		}
		var annotations any = []any{}
		if a, ok := text.Get("annotations"); ok {
			annotations = a
		}
		return &value.Text{Value: s, Annotations: annotations}, true
	default:
		return nil, false
	}
}

// isImage reports whether a dict is an image of the format.
func (f Format) isImage(d *value.Dict) bool {
	if f == OpenAIVision {
		_, _, ok := visionImage(d)
		return ok
	}
	_, _, _, ok := basicImage(d)
	return ok
}

// spelled reports whether a value holds what the format spells an image or a text with.
func (f Format) spelled(v any) bool {
	switch v := v.(type) {
	case []any:
		for _, item := range v {
			if f.spelled(item) {
				return true
			}
		}
	case *value.Dict:
		if f.isImage(v) {
			return true
		}
		if _, ok := visionText(v); ok && f == OpenAIVision {
			return true
		}
		for _, item := range v.All() {
			if f.spelled(item) {
				return true
			}
		}
	}
	return false
}

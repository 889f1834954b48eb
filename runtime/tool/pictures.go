package tool

import (
	"strings"

	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// pictures are the images that a chat node was given, by the names that stand for them in its rendered template.
type pictures struct {
	named  map[string]any
	detail any // how closely the model is to look
}

// imagesByName names the items of a node's input "images". What is no list has none.
func imagesByName(v any) map[string]any {
	list, _ := v.([]any)
	named := make(map[string]any, len(list))
	for _, item := range list {
		named[value.Str(item)] = item
	}
	return named
}

// setContent sets a message's content: its text, or a list of parts when a line of it is an image
// (promptflow.tools.common.to_content_str_or_list).
func (p pictures) setContent(message *value.Dict, text string) error {
	text = value.Strip(text)
	message.Set("content", text)
	if len(p.named) == 0 {
		return nil
	}
	parts := []any{}
	hasImage := false
	for line := range strings.SplitSeq(text, "\n") {
		name := value.Strip(line)
		picture, isNamed := p.named[name]
		switch {
		case isNamed:
			part, err := p.part(picture)
			if err != nil {
				return err
			}
			parts = append(parts, part)
			hasImage = true
		case name != "":
			parts = append(parts, pairs("type", "text", "text", line))
		}
	}
	if hasImage {
		message.Set("content", parts)
	}
	return nil
}

func (p pictures) part(v any) (any, error) {
	image, ok := v.(*value.Image)
	if !ok {
		return nil, llmError("AttributeError", "'"+value.TypeName(v)+"' object has no attribute 'to_base64'")
	}
	url := image.URL
	if url == "" {
		url = image.DataURL()
	}
	return pairs("type", "image_url", "image_url", pairs("url", url, "detail", p.detail)), nil
}

func pairs(keysAndValues ...any) *value.Dict {
	d := value.NewDictSize(len(keysAndValues) / 2)
	for i := 0; i+1 < len(keysAndValues); i += 2 {
		d.Set(keysAndValues[i].(string), keysAndValues[i+1])
	}
	return d
}

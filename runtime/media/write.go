package media

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/google/uuid"

	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

func pair(name string, v any) *value.Dict {
	d := value.NewDictSize(2)
	d.Set(name, v)
	return d
}

// typed is {"type": kind, kind: v}.
func typed(kind string, v any) *value.Dict {
	d := pair("type", kind)
	d.Set(kind, v)
	return d
}

// Base64 returns v with every image in base64, as a served flow answers. Texts become strings.
func (f Format) Base64(v any) any {
	return value.Map(v, func(v any) any {
		switch v := v.(type) {
		case *value.Image:
			return f.inline(v)
		case *value.Text:
			return v.Value
		default:
			return v
		}
	})
}

func (f Format) inline(i *value.Image) any {
	if f == OpenAIVision {
		return typed(imageURL, pair("url", i.DataURL()))
	}
	return pair("data:"+i.MIME+";base64", i.Base64())
}

// Portable returns v as the result of a test or a batch: fetched images by their URL, others in base64, texts as
// the openai-vision format spells them.
func (f Format) Portable(v any) any {
	return f.write(v, f.inline)
}

// Files is Portable with every image that was not fetched saved by save, which returns the path to show.
func (f Format) Files(v any, save func(*value.Image) (string, error)) (any, error) {
	var failure error
	out := f.write(v, func(i *value.Image) any {
		path, err := save(i)
		if err != nil && failure == nil {
			failure = err
		}
		return f.file(i.MIME, path)
	})
	return out, failure
}

func (f Format) file(mime, path string) any {
	if f == OpenAIVision {
		return typed(imageFile, pair("path", path))
	}
	return pair("data:"+mime+";path", path)
}

func (f Format) write(v any, image func(*value.Image) any) any {
	return value.Map(v, func(v any) any {
		switch v := v.(type) {
		case *value.Image:
			if v.URL != "" {
				return f.byURL(v)
			}
			return image(v)
		case *value.Text:
			return v.Dict()
		default:
			return v
		}
	})
}

func (f Format) byURL(i *value.Image) any {
	if f == OpenAIVision {
		return typed(imageURL, pair("url", i.URL))
	}
	return pair("data:"+i.MIME+";url", i.URL)
}

// Save writes an image into a folder under a new name, UUID.EXTENSION, and returns the name. The folder is made where it is missing.
func Save(i *value.Image, dir string) (string, error) {
	name := uuid.NewString()
	if ext := i.Extension(); ext != "" {
		name += "." + ext
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("save image: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), i.Data, 0o644); err != nil { //nolint:gosec // a result for people
		return "", fmt.Errorf("save image: %w", err)
	}
	return name, nil
}

// Extract returns a plain value with every image in base64, of either format, written to a file by save: {"data:image/png;path": "…"}
// and {"type": "image_file", …} stand in their place.
func Extract(v any, save func(*value.Image) (string, error)) (any, error) {
	return rewrite(v, func(d *value.Dict) (any, bool, error) {
		f, i := inlined(d)
		if i == nil {
			return nil, false, nil
		}
		path, err := save(i)
		return f.file(i.MIME, path), true, err
	})
}

// inlined reads an image in base64.
func inlined(d *value.Dict) (Format, *value.Image) {
	if mime, kind, what, ok := basicImage(d); ok && kind == "base64" {
		text, _ := what.(string)
		if data, err := decodeBase64(text); err == nil && isBase64(text) {
			return Basic, value.NewImage(data, mime, "")
		}
	}
	if kind, what, ok := visionImage(d); ok && kind == imageURL {
		text, _ := what.(string)
		if data, err := decodeBase64(text); err == nil && isBase64(text) {
			return OpenAIVision, value.NewImage(data, dataURLType(text), "")
		}
	}
	return "", nil
}

// Inline returns a plain value with every image of either format that is named by a path put in its place in base64, for those who
// cannot read the path. The data of a path is what read gives; nil leaves the path as it is.
func Inline(v any, read func(path string) ([]byte, error)) (any, error) {
	return rewrite(v, func(d *value.Dict) (any, bool, error) {
		if mime, kind, what, ok := basicImage(d); ok && kind == "path" {
			if path, ok := what.(string); ok {
				data, err := read(path)
				return Basic.inline(value.NewImage(data, mime, "")), data != nil, err
			}
		}
		if kind, what, ok := visionImage(d); ok && kind == imageFile {
			if path, ok := what.(string); ok {
				data, err := read(path)
				return OpenAIVision.inline(value.NewImage(data, "", "")), data != nil, err
			}
		}
		return nil, false, nil
	})
}

// rewrite returns v with the dicts replaced that change takes.
func rewrite(v any, change func(*value.Dict) (any, bool, error)) (any, error) {
	switch v := v.(type) {
	case []any:
		out := make([]any, len(v))
		for i, item := range v {
			var err error
			if out[i], err = rewrite(item, change); err != nil {
				return nil, err
			}
		}
		return out, nil
	case *value.Dict:
		if changed, ok, err := change(v); ok || err != nil {
			return changed, err
		}
		out := value.NewDictSize(v.Len())
		for name, item := range v.All() {
			changed, err := rewrite(item, change)
			if err != nil {
				return nil, err
			}
			out.Set(name, changed)
		}
		return out, nil
	default:
		return v, nil
	}
}

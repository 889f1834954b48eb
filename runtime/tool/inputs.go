package tool

import (
	"context"
	"errors"
	"regexp"
	"slices"
	"strings"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// shared returns the names of a that b has too, sorted, each once.
func shared(a, b []string) []string {
	var both []string
	for _, name := range a {
		if slices.Contains(b, name) && !slices.Contains(both, name) {
			both = append(both, name)
		}
	}
	slices.Sort(both)
	return both
}

// setRepr is the repr of a Python set of strings; Python's own order of more than one is arbitrary, ours is sorted.
func setRepr(names []string) string {
	texts := make([]string, len(names))
	for i, name := range names {
		texts[i] = value.Repr(name)
	}
	return "{" + strings.Join(texts, ", ") + "}"
}

// renderParameters are the parameters of render_jinja_template, to which a node's inputs are passed by name: an input of
// that name makes the call fail in Python.
var renderParameters = []string{"template_content", "trim_blocks", "keep_trailing_newline", "escape_dict", "self"}

// imageInput finds the image inputs of a template (get_inputs_for_prompt_template): "![image]({{name}})".
var imageInput = regexp.MustCompile(pythonSpaces(`!\[(?:\s*image\s*)\]\(\{\{\s*([^{}]+)\s*\}\}\)`))

// ImageLoader makes an image of the value of an image input.
type ImageLoader func(ctx context.Context, v any) (*value.Image, error)

// loadImages returns the literals with images for those that the template shows as images (ToolResolver._load_images_for_prompt_tpl).
func loadImages(ctx context.Context, load ImageLoader, source string, literals *value.Dict) (*value.Dict, error) {
	out := literals
	for _, m := range imageInput.FindAllStringSubmatch(source, -1) {
		name := value.Strip(m[1])
		v, ok := out.Get(name)
		if !ok {
			continue
		}
		image, err := load(ctx, v)
		if err != nil {
			return nil, err
		}
		if out == literals {
			out = literals.Clone()
		}
		out.Set(name, image)
	}
	return out, nil
}

// imageError is what kept a literal image from being loaded while its node is resolved.
func imageError(node string, err error) error {
	var python *value.Error
	if errors.As(err, &python) {
		return resolveError(node, api.NewError([]string{api.SystemError, python.Class}, targetExecutor, "%s", python.Message))
	}
	var e *api.Error
	if errors.As(err, &e) {
		return resolveError(node, e)
	}
	return err
}

// refuseInputs refuses by name the inputs that prompt flow's tools cannot take.
func refuseInputs(node string, literals *value.Dict, parameters []string) *api.Error {
	for name := range literals.All() {
		if slices.Contains(renderParameters, name) || slices.Contains(parameters, name) {
			return invalidFlow("NodeInputValidationError",
				"Input '%s' for node '%s' has the name of a parameter of the tool that renders its template: rename the input.", name, node)
		}
	}
	return nil
}

package tool

import (
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

// refuseInputs refuses by name the inputs that prompt flow's tools cannot take, and images, which this runtime does not load.
func refuseInputs(node, source string, literals *value.Dict, parameters []string) *api.Error {
	for name := range literals.All() {
		if slices.Contains(renderParameters, name) || slices.Contains(parameters, name) {
			return invalidFlow("NodeInputValidationError",
				"Input '%s' for node '%s' has the name of a parameter of the tool that renders its template: rename the input.", name, node)
		}
	}
	for _, m := range imageInput.FindAllStringSubmatchIndex(source, -1) {
		name := value.Strip(source[m[2]:m[3]])
		if literals.Has(name) {
			return invalidFlow("NodeInputValidationError",
				"Input '%s' for node '%s' is an image (line %d of its template has %s), and images are not supported yet by this runtime.",
				name, node, 1+strings.Count(source[:m[0]], "\n"), source[m[0]:m[1]])
		}
	}
	return nil
}

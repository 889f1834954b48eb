package tool

import (
	"context"
	"slices"

	"github.com/google/uuid"

	"github.com/nomad-promptflow/nomad-promptflow/runtime/template"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// PromptSpec says what a prompt node is.
type PromptSpec struct {
	// Node is the node's name.
	Node string
	// Source is the template's text.
	Source string
	// Literals are the node's inputs that are no references, as the flow file has them. Prompt nodes neither drop nor
	// convert them.
	Literals *value.Dict
	// Image loads the literals that the template shows as images.
	Image ImageLoader
}

// Prompt is a prompt node: a template whose text is the node's output (promptflow.tools.template_rendering).
type Prompt struct {
	node   string
	source *template.Source
	images *value.Dict   // literals that are images
	newID  func() string // makes UUIDs
}

// promptParameters are the parameters of render_template_jinja2, which a template may not use as variables.
var promptParameters = []string{"template"}

// NewPrompt checks a prompt node as prompt flow does when a flow is loaded.
func NewPrompt(ctx context.Context, r template.Renderer, spec PromptSpec) (*Prompt, error) {
	source := template.New(spec.Source)
	used, err := source.Variables(ctx, r)
	if err != nil {
		return nil, syntaxError(spec.Node, err)
	}
	if clash := shared(used, promptParameters); len(clash) > 0 {
		return nil, resolveError(spec.Node, invalidFlow("NodeInputValidationError",
			"Invalid inputs %s in prompt template of node %s. These inputs are duplicated with the reserved parameters of prompt tool.",
			setRepr(clash), spec.Node))
	}
	if err := refuseInputs(spec.Node, spec.Literals, promptParameters); err != nil {
		return nil, resolveError(spec.Node, err)
	}
	loaded, err := loadImages(ctx, spec.Image, spec.Source, spec.Literals)
	if err != nil {
		return nil, imageError(spec.Node, err)
	}
	return &Prompt{node: spec.Node, source: source, images: imagesIn(loaded), newID: uuid.NewString}, nil
}

// imagesIn returns the values that are images.
func imagesIn(inputs *value.Dict) *value.Dict {
	images := value.NewDict()
	for name, v := range inputs.All() {
		if _, ok := v.(*value.Image); ok {
			images.Set(name, v)
		}
	}
	return images
}

// HasDefault reports whether a parameter of the tool has a default, so that an input bound to a bypassed node is left
// out instead of passed as None. A prompt node's inputs have none.
func (p *Prompt) HasDefault(string) bool { return false }

// Run renders the template. The result's text is the plain one; what it hides goes with it in Escapes.
func (p *Prompt) Run(ctx context.Context, r template.Renderer, call Call) (Result, error) {
	if p.images.Len() > 0 {
		call.Inputs = call.Inputs.Clone()
		for name, image := range p.images.All() {
			call.Inputs.Set(name, image)
		}
	}
	result := Result{Inputs: recorded(call.Inputs, call.FromFlow)}
	text, err := p.source.Render(ctx, r, result.Inputs, template.Options{})
	if err != nil {
		return result, renderError(err, nil)
	}
	result.Output = text
	esc := newEscaper(call, false, p.newID)
	m := esc.mapping(call.Inputs)
	if len(m) == 0 {
		return result, nil
	}
	hiddenText, err := p.source.Render(ctx, r, esc.escape(call.Inputs, m), template.Options{})
	if err != nil {
		return result, renderError(err, m)
	}
	result.Escapes = &Escapes{text: hiddenText, mapping: m}
	return result, nil
}

// recorded returns the inputs as prompt flow passes them to a tool and records them: with the hidden list of those bound
// to flow inputs last.
func recorded(inputs *value.Dict, fromFlow []string) *value.Dict {
	out := inputs.Clone()
	names := []any{}
	for name := range inputs.All() {
		if slices.Contains(fromFlow, name) {
			names = append(names, name)
		}
	}
	if len(names) > 0 {
		out.Set(EscapeInput, names)
	}
	return out
}

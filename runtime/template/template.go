// Package template renders the Jinja2 templates of prompt and llm nodes exactly as promptflow-tools does: sandboxed,
// trim_blocks and keep_trailing_newline on, autoescape off, undefined names as nothing.
//
// What is proven to give Jinja2's own text is rendered here ([Parse], [Template.Render]); everything else goes to a
// [Renderer], which is real Jinja2 in a Python worker. Nothing is ever approximated: a template or a value outside the
// proven part is handed on, not guessed at.
package template

import (
	"context"
	"errors"

	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// Renderer is real Jinja2. Exceptions of Jinja2 come back as *[Error]; any other error means that the renderer itself
// failed.
type Renderer interface {
	// Render renders source with vars in promptflow-tools' environment.
	Render(ctx context.Context, source string, vars *value.Dict) (string, error)
	// Variables returns the names that source uses and does not set (jinja2.meta.find_undeclared_variables), in any
	// order.
	Variables(ctx context.Context, source string) ([]string, error)
}

// ChatListRenderer is a Renderer that knows promptflow-tools' ChatInputList, which Azure OpenAI chat nodes make of every list
// among their inputs: it prints as its items' str() joined by line feeds instead of as a Python list.
type ChatListRenderer interface {
	// RenderChatLists is Render with every list in vars, also inside lists and dicts, made a ChatInputList first
	// (promptflow.tools.common.convert_to_chat_list).
	RenderChatLists(ctx context.Context, source string, vars *value.Dict) (string, error)
}

// Error is an exception that Jinja2 raised.
type Error struct {
	Class   string // Python class name, "TemplateSyntaxError"
	Message string // str() of the exception
	Line    int    // the template's line for syntax errors, from 1; 0 when there is none
}

// Error implements error with Python's text.
func (e *Error) Error() string { return e.Class + ": " + e.Message }

// ErrListsUnsupported is returned when a template prints lists the way Azure OpenAI chat nodes do and the renderer cannot.
var ErrListsUnsupported = errors.New("render template: the renderer does not know chat input lists")

// Options are the ways in which callers differ.
type Options struct {
	// ChatLists makes lists print as [ChatListRenderer] says.
	ChatLists bool
}

// Source is a template's text, parsed once and rendered many times, by many goroutines at once.
type Source struct {
	text   string
	native *Template
}

// New takes a template's text. It never fails: what is wrong with the text is said by Jinja2 when it is used.
func New(text string) *Source {
	native, ok := Parse(text)
	if !ok {
		native = nil
	}
	return &Source{text: text, native: native}
}

// Text returns the template's text.
func (s *Source) Text() string { return s.text }

// Native reports whether the template can be rendered without Jinja2, given values that allow it.
func (s *Source) Native() bool { return s.native != nil }

// Variables returns the names that the template uses and does not set.
func (s *Source) Variables(ctx context.Context, r Renderer) ([]string, error) {
	if s.native != nil {
		return s.native.Variables(), nil
	}
	return r.Variables(ctx, s.text)
}

// Render renders the template with vars.
func (s *Source) Render(ctx context.Context, r Renderer, vars *value.Dict, o Options) (string, error) {
	if s.native != nil {
		if text, ok := s.native.Render(vars, o); ok {
			return text, nil
		}
	}
	if !o.ChatLists || !hasList(vars) {
		return r.Render(ctx, s.text, vars)
	}
	lists, ok := r.(ChatListRenderer)
	if !ok {
		return "", ErrListsUnsupported
	}
	return lists.RenderChatLists(ctx, s.text, vars)
}

func hasList(v any) bool {
	switch v := v.(type) {
	case []any:
		return true
	case *value.Dict:
		for _, item := range v.All() {
			if hasList(item) {
				return true
			}
		}
	}
	return false
}

package tool

import (
	"slices"
	"strings"

	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// Escapes is what a prompt node's text hides: the same text with role words replaced by UUIDs, and the UUIDs' meanings.
// It is promptflow-tools' PromptResult without its string.
type Escapes struct {
	text    string
	mapping mapping
}

// Hidden returns the text with its role words hidden, and pairs of a UUID and the word that it stands for.
func (e *Escapes) Hidden() (text string, words [][2]string) {
	for _, h := range e.mapping {
		words = append(words, [2]string{h.id, h.word})
	}
	return e.text, words
}

// mapping holds hidden role words in the order of a Python dict; keys are UUIDs.
type mapping []hidden

type hidden struct {
	id   string
	word string
}

// merge adds the entries of other; one with a known id replaces the word in its place.
func (m mapping) merge(other mapping) mapping {
	for _, h := range other {
		if i := slices.IndexFunc(m, func(have hidden) bool { return have.id == h.id }); i >= 0 {
			m[i].word = h.word
			continue
		}
		m = append(m, h)
	}
	return m
}

func (m mapping) hides(word string) bool {
	return slices.ContainsFunc(m, func(h hidden) bool { return h.word == word })
}

// escaper replaces role words in the inputs of one call. newID makes the UUIDs.
type escaper struct {
	fromFlow    []string
	fromPrompts map[string]*Escapes
	chatLists   bool // lists are ChatInputLists, which are searched too
	newID       func() string
}

func newEscaper(call Call, chatLists bool, newID func() string) escaper {
	return escaper{fromFlow: call.FromFlow, fromPrompts: call.FromPrompts, chatLists: chatLists, newID: newID}
}

// mapping returns what has to be hidden in inputs: what their prompt texts hide already, then the role words of flow
// inputs (Escaper.build_escape_dict_from_kwargs).
func (e escaper) mapping(inputs *value.Dict) mapping {
	var prompts, flow mapping
	for name := range inputs.All() {
		if esc := e.fromPrompts[name]; esc != nil {
			prompts = prompts.merge(esc.mapping)
		}
	}
	for name, v := range inputs.All() {
		if slices.Contains(e.fromFlow, name) {
			flow = e.collect(v, flow)
		}
	}
	return prompts.merge(flow)
}

// collect adds the role words of v (Escaper.build_flow_input_escape_dict).
func (e escaper) collect(v any, m mapping) mapping {
	switch v := v.(type) {
	case *value.Text:
		return e.collect(v.Value, m)
	case string:
		for _, word := range findRoles(v) {
			if !m.hides(word) {
				m = append(m, hidden{id: e.newID(), word: word})
			}
		}
	case *value.Dict:
		for _, item := range v.All() {
			m = e.collect(item, m)
		}
	case []any:
		if !e.chatLists {
			break // promptflow-tools looks into its own list class only
		}
		for _, item := range v {
			m = e.collect(item, m)
		}
	}
	return m
}

// escape returns inputs with the words of m replaced (Escaper.escape_kwargs). The inputs themselves stay as they are.
func (e escaper) escape(inputs *value.Dict, m mapping) *value.Dict {
	out := value.NewDictSize(inputs.Len())
	for name, v := range inputs.All() {
		switch esc := e.fromPrompts[name]; {
		case esc != nil && len(esc.mapping) > 0:
			out.Set(name, esc.text)
		case slices.Contains(e.fromFlow, name):
			out.Set(name, e.hide(v, m))
		default:
			out.Set(name, v)
		}
	}
	return out
}

func (e escaper) hide(v any, m mapping) any {
	switch v := v.(type) {
	case *value.Text:
		if len(m) == 0 {
			return v
		}
		return e.hide(v.Value, m)
	case string:
		for _, h := range m {
			v = strings.ReplaceAll(v, h.word, h.id)
		}
		return v
	case *value.Dict:
		out := value.NewDictSize(v.Len())
		for k, item := range v.All() {
			out.Set(k, e.hide(item, m))
		}
		return out
	case []any:
		if !e.chatLists {
			return v
		}
		out := make([]any, len(v))
		for i, item := range v {
			out[i] = e.hide(item, m)
		}
		return out
	default:
		return v
	}
}

// restore puts the words back into a text.
func (m mapping) restore(s string) string {
	for _, h := range m {
		s = strings.ReplaceAll(s, h.id, h.word)
	}
	return s
}

// restoreMessages puts the words back into parsed messages (the end of build_messages). Of lists only the "text" of
// their items is restored, as there.
func (m mapping) restoreMessages(messages []any) {
	if len(m) == 0 {
		return
	}
	for _, message := range messages {
		dict := message.(*value.Dict)
		for _, key := range dict.Keys() {
			v, _ := dict.Get(key)
			switch v := v.(type) {
			case string:
				dict.Set(key, m.restore(v))
			case []any:
				m.restoreTexts(v)
			}
		}
	}
}

func (m mapping) restoreTexts(list []any) {
	for _, item := range list {
		dict, ok := item.(*value.Dict)
		if !ok {
			continue
		}
		text, _ := dict.Get("text")
		if s, ok := text.(string); ok {
			dict.Set("text", m.restore(s))
		}
	}
}

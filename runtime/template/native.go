package template

import (
	"math/big"
	"slices"
	"strings"

	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// Template is a template of text and plain substitutions, "{{ name }}", the part of Jinja2 that is rendered without it.
type Template struct {
	parts []part
	size  int // of all text parts, in bytes
}

// part is text, or a name when name is not empty.
type part struct {
	text string
	name string
}

// Parse reads source when it is made of text and plain substitutions only, and reports false for anything else, which
// includes whatever Jinja2 refuses. A substitution is "{{", white space, an ASCII name, white space, "}}"; nothing with
// meaning to Jinja2 beyond that (blocks, comments, filters, attributes, white space control) is taken.
func Parse(source string) (*Template, bool) {
	t := &Template{}
	rest := normalizeNewlines(source)
	for {
		at := findTag(rest)
		if at < 0 {
			t.addText(rest)
			return t, true
		}
		name, end, ok := scanSubstitution(rest[at:])
		if !ok {
			return nil, false
		}
		t.addText(rest[:at])
		t.parts = append(t.parts, part{name: name})
		rest = rest[at+end:]
	}
}

func (t *Template) addText(text string) {
	if text != "" {
		t.parts = append(t.parts, part{text: text})
		t.size += len(text)
	}
}

// normalizeNewlines does what Jinja2's lexer does to a template's text first: CR LF and CR become LF.
func normalizeNewlines(s string) string {
	if strings.IndexByte(s, '\r') < 0 {
		return s
	}
	return strings.ReplaceAll(strings.ReplaceAll(s, "\r\n", "\n"), "\r", "\n")
}

// findTag returns the offset of the first opening delimiter of any kind, or -1.
func findTag(s string) int {
	for at := 0; ; {
		i := strings.IndexByte(s[at:], '{')
		if i < 0 || at+i+1 >= len(s) {
			return -1
		}
		at += i
		if c := s[at+1]; c == '{' || c == '%' || c == '#' {
			return at
		}
		at++
	}
}

// scanSubstitution reads "{{ name }}" at the start of s and returns the name and the length of the whole.
func scanSubstitution(s string) (name string, length int, ok bool) {
	if !strings.HasPrefix(s, "{{") {
		return "", 0, false
	}
	at := skipBlank(s, 2)
	start := at
	for at < len(s) && isNameByte(s[at], at == start) {
		at++
	}
	name = s[start:at]
	at = skipBlank(s, at)
	if name == "" || special[name] || !strings.HasPrefix(s[at:], "}}") {
		return "", 0, false
	}
	return name, at + 2, true
}

func skipBlank(s string, at int) int {
	for at < len(s) && (s[at] == ' ' || s[at] == '\t' || s[at] == '\n') {
		at++
	}
	return at
}

func isNameByte(c byte, first bool) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || !first && c >= '0' && c <= '9'
}

// special holds the names that mean something to Jinja2 where a template is nothing but text and substitutions: literals,
// operators and the environment's globals. A template that uses one goes to Jinja2. What the compiler binds itself (context,
// environment, resolve, …) is not among them: it gives a template's names a prefix, and "context" is what many a prompt
// calls what it was given to read.
var special = setOf(
	"true", "false", "none", "True", "False", "None",
	"and", "or", "not", "in", "is", "if", "else", "elif", "for", "recursive",
	"range", "dict", "lipsum", "cycler", "joiner", "namespace", "self",
)

func setOf(names ...string) map[string]bool {
	set := make(map[string]bool, len(names))
	for _, n := range names {
		set[n] = true
	}
	return set
}

// Variables returns the names that the template uses, each once, in order of use.
func (t *Template) Variables() []string {
	names := []string{}
	for _, p := range t.parts {
		if p.name != "" && !slices.Contains(names, p.name) {
			names = append(names, p.name)
		}
	}
	return names
}

// Render returns the template's text with vars, and false when a value it needs is not of a kind whose text is certain.
func (t *Template) Render(vars *value.Dict, o Options) (string, bool) {
	var b strings.Builder
	b.Grow(t.size + 64)
	for _, p := range t.parts {
		if p.name == "" {
			b.WriteString(p.text)
			continue
		}
		v, ok := vars.Get(p.name)
		if !ok {
			continue // undefined prints nothing
		}
		text, ok := Text(v, o)
		if !ok {
			return "", false
		}
		b.WriteString(text)
	}
	return b.String(), true
}

// maxNesting bounds how deep containers are printed natively; deeper ones may meet Python's recursion limit.
const maxNesting = 100

// maxBits bounds the integers that are printed natively, below CPython's limit of 4300 digits.
const maxBits = 14000

// Text returns what Jinja2 prints for a value, and false when that is not certain.
func Text(v any, o Options) (string, bool) {
	if list, ok := v.([]any); ok && o.ChatLists {
		return chatListText(list, o)
	}
	if !certain(v, maxNesting) {
		return "", false
	}
	return value.Str(v), true
}

// chatListText is ChatInputList.__str__: the items' str(), joined by line feeds. Lists inside dicts print as Python lists,
// since repr() is not overridden.
func chatListText(list []any, o Options) (string, bool) {
	texts := make([]string, len(list))
	for i, item := range list {
		text, ok := Text(item, o)
		if !ok {
			return "", false
		}
		texts[i] = text
	}
	return strings.Join(texts, "\n"), true
}

// certain reports whether value.Str(v) is Python's str(v) whatever the Python: no objects that live in a worker, no
// integers at CPython's limit, and in containers only ASCII text, since what repr() escapes beyond it depends on the
// Python's Unicode version.
func certain(v any, depth int) bool {
	switch v := v.(type) {
	case nil, bool, int64, float64, string, *value.Image, *value.Text:
		return true
	case *big.Int:
		return v.BitLen() < maxBits
	case []any:
		return depth > 0 && !slices.ContainsFunc(v, func(item any) bool { return !certainInside(item, depth-1) })
	case *value.Dict:
		if depth == 0 {
			return false
		}
		for k, item := range v.All() {
			if !isASCII(k) || !certainInside(item, depth-1) {
				return false
			}
		}
		return true
	default:
		return false
	}
}

func certainInside(v any, depth int) bool {
	switch v := v.(type) {
	case string:
		return isASCII(v)
	case *value.Text:
		return isASCII(v.Value)
	}
	return certain(v, depth)
}

func isASCII(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

package document

import (
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/token"
)

// tokenize makes tokens of a text. Inside braces the library takes every colon for the end of a key, YAML 1.2 only one with a space
// behind it: {a:b: c} has the key "a:b", and {a: [12:30]} a time of day. So the colons that are part of a text are hidden
// from the library behind a character that the text has not.
func tokenize(text string) token.Tokens {
	tokens := lexer.Tokenize(text)
	stand, ok := absent(text)
	if !ok {
		return tokens
	}
	for range 4 { // a pass may bring up colons that the one before had read over
		hidden, changed := hideColons(text, tokens, stand)
		if !changed {
			break
		}
		text = hidden
		tokens = lexer.Tokenize(text)
	}
	for _, t := range tokens {
		t.Value = strings.ReplaceAll(t.Value, string(stand), ":")
		t.Origin = strings.ReplaceAll(t.Origin, string(stand), ":")
	}
	return tokens
}

// absent returns a character of the private use area that a text has not.
func absent(text string) (rune, bool) {
	for r := rune(0xE000); r <= 0xF8FF; r++ {
		if !strings.ContainsRune(text, r) {
			return r, true
		}
	}
	return utf8.RuneError, false
}

// hideColons replaces the tight colons inside brackets.
func hideColons(text string, tokens token.Tokens, stand rune) (string, bool) {
	var lines []string
	depth, changed := 0, false
	for _, t := range tokens {
		switch t.Type {
		case token.SequenceStartType, token.MappingStartType:
			depth++
		case token.SequenceEndType, token.MappingEndType:
			depth--
		}
		if depth <= 0 || !tightColon(t) {
			continue
		}
		if lines == nil {
			lines = strings.Split(text, "\n")
		}
		if at := t.Position.Line - 1; at >= 0 && at < len(lines) {
			hidden := hideColon(lines[at], t.Position.Column-1, stand)
			changed = changed || hidden != lines[at]
			lines[at] = hidden
		}
	}
	if !changed {
		return text, false
	}
	return strings.Join(lines, "\n"), true
}

// hideColon replaces the colon at a place, in characters, of a line; what is no colon stays.
func hideColon(line string, column int, stand rune) string {
	runes := []rune(line)
	if column < 0 || column >= len(runes) || runes[column] != ':' {
		return line
	}
	runes[column] = stand
	return string(runes)
}

package tool

import (
	"regexp"
	"strings"
)

// Python's regular expressions are rewritten for Go's engine: same grammar, same choice of match, but white space and
// letter case are Unicode's in Python and ASCII's in Go.
const (
	// space is Python's \s for str.
	space = `[\t-\r\x1c-\x20\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]`
	// notSpace is Python's \S for str.
	notSpace = `[^\t-\r\x1c-\x20\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]`
)

// validRoles are promptflow-tools' VALID_ROLES.
var validRoles = []string{"system", "user", "assistant", "function", "tool"}

// separator is parse_chat's role separator: a line of its own with a role, an optional "#" before and ":" after it.
var separator = regexp.MustCompile(pythonSpaces(`(?m)^\s*#?\s*(` + foldedRoles() + `)\s*:\s*\n`))

func pythonSpaces(pattern string) string {
	return strings.NewReplacer(`\s`, space, `\S`, notSpace).Replace(pattern)
}

// foldedRoles spells out Python's case folding: beyond the ASCII cases, the long s matches s, and the dotted capital and
// the dotless small i match i.
func foldedRoles() string {
	roles := make([]string, len(validRoles))
	for i, role := range validRoles {
		var b strings.Builder
		for _, c := range role {
			switch c {
			case 's':
				b.WriteString(`[sSſ]`)
			case 'i':
				b.WriteString(`[iIıİ]`)
			default:
				b.WriteString(`[` + string(c) + strings.ToUpper(string(c)) + `]`)
			}
		}
		roles[i] = b.String()
	}
	return strings.Join(roles, "|")
}

// findRoles returns the role words of s that would separate messages, as they are spelled there.
func findRoles(s string) []string {
	if !maySeparate(s) {
		return nil
	}
	var words []string
	for _, m := range separator.FindAllStringSubmatch(s, -1) {
		words = append(words, m[1])
	}
	return words
}

// maySeparate is a quick check that most texts fail: a separator has a colon and, after it, a line feed.
func maySeparate(s string) bool {
	colon := strings.IndexByte(s, ':')
	return colon >= 0 && strings.IndexByte(s[colon:], '\n') >= 0
}

// splitRoles splits a text at its role separators as re.split does with a group: text, role, text, role, text …
func splitRoles(s string) []string {
	chunks := []string{}
	at := 0
	for _, m := range separator.FindAllStringSubmatchIndex(s, -1) {
		chunks = append(chunks, s[at:m[0]], s[m[2]:m[3]])
		at = m[1]
	}
	return append(chunks, s[at:])
}

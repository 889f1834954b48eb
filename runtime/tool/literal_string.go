package tool

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// strings reads one or more string literals side by side, which Python joins.
func (p *literalParser) strings() (any, error) {
	var b strings.Builder
	kinds := map[bool]bool{}
	for {
		start := p.at
		for isLetter(p.peek()) {
			p.at++
		}
		prefix := lower(p.text[start:p.at])
		if c := p.peek(); c != '"' && c != '\'' {
			if p.at = start; len(kinds) == 0 || prefix != "" {
				return nil, errNotLiteral
			}
			break
		}
		raw, isBytes, ok := readPrefix(prefix)
		if !ok {
			return nil, errNotLiteral
		}
		if err := p.oneString(&b, raw, isBytes); err != nil {
			return nil, err
		}
		kinds[isBytes] = true
		p.skip()
	}
	if kinds[true] && kinds[false] {
		return nil, errNotLiteral // bytes and text do not mix
	}
	if kinds[true] {
		return p.strange("bytes"), nil
	}
	return b.String(), nil
}

func readPrefix(prefix string) (raw, isBytes, ok bool) {
	switch prefix {
	case "", "u":
		return false, false, true
	case "r":
		return true, false, true
	case "b":
		return false, true, true
	case "br", "rb":
		return true, true, true
	default:
		return false, false, false
	}
}

// oneString reads a string from its opening quote on and appends its text.
func (p *literalParser) oneString(b *strings.Builder, raw, isBytes bool) error {
	quote := p.text[p.at : p.at+1]
	if triple := strings.Repeat(quote, 3); strings.HasPrefix(p.text[p.at:], triple) {
		quote = triple
	}
	p.at += len(quote)
	for p.at < len(p.text) {
		rest := p.text[p.at:]
		switch c := rest[0]; {
		case strings.HasPrefix(rest, quote):
			p.at += len(quote)
			return nil
		case c == '\n' && len(quote) == 1, isBytes && c >= utf8.RuneSelf:
			return errNotLiteral
		case c == '\\' && raw:
			if len(rest) < 2 {
				return errNotLiteral
			}
			_, size := utf8.DecodeRuneInString(rest[1:])
			b.WriteString(rest[:1+size])
			p.at += 1 + size
			if isBytes && size > 1 {
				return errNotLiteral
			}
		case c == '\\':
			if err := p.escape(b, isBytes); err != nil {
				return err
			}
		default:
			b.WriteByte(c)
			p.at++
		}
	}
	return errNotLiteral
}

var plainEscapes = map[byte]string{
	'\n': "", '\\': "\\", '\'': "'", '"': "\"", 'a': "\a", 'b': "\b", 'f': "\f", 'n': "\n", 'r': "\r", 't': "\t", 'v': "\v",
}

// escape reads a backslash and what follows it. An escape that Python does not know stays as it is.
func (p *literalParser) escape(b *strings.Builder, isBytes bool) error {
	rest := p.text[p.at+1:]
	if rest == "" {
		return errNotLiteral
	}
	c := rest[0]
	if text, ok := plainEscapes[c]; ok {
		b.WriteString(text)
		p.at += 2
		return nil
	}
	switch {
	case c >= '0' && c <= '7':
		return p.octal(b, rest)
	case c == 'x':
		return p.hex(b, rest, 2)
	case c == 'u' && !isBytes:
		return p.hex(b, rest, 4)
	case c == 'U' && !isBytes:
		return p.hex(b, rest, 8)
	case c == 'N' && !isBytes:
		return &unsendable{what: `str with a \N{…} escape, which this runtime does not know,`}
	}
	b.WriteByte('\\')
	p.at++
	return nil
}

func (p *literalParser) octal(b *strings.Builder, rest string) error {
	n := 1
	for n < 3 && n < len(rest) && rest[n] >= '0' && rest[n] <= '7' {
		n++
	}
	r, err := strconv.ParseUint(rest[:n], 8, 16)
	if err != nil {
		return errNotLiteral
	}
	writeRune(b, rune(r))
	p.at += 1 + n
	return nil
}

func (p *literalParser) hex(b *strings.Builder, rest string, digits int) error {
	if len(rest) < 1+digits {
		return errNotLiteral
	}
	text := rest[1 : 1+digits]
	if strings.Trim(text, "0123456789abcdefABCDEF") != "" {
		return errNotLiteral
	}
	r, err := strconv.ParseUint(text, 16, 32)
	if err != nil || r > utf8.MaxRune {
		return errNotLiteral
	}
	writeRune(b, rune(r))
	p.at += 2 + digits
	return nil
}

// writeRune writes a character; a lone surrogate as runtime/value holds it, in WTF-8.
func writeRune(b *strings.Builder, r rune) {
	if r >= 0xD800 && r <= 0xDFFF {
		b.Write([]byte{byte(0xE0 | r>>12), byte(0x80 | r>>6&0x3F), byte(0x80 | r&0x3F)})
		return
	}
	b.WriteRune(r)
}

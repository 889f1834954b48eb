package gateway

import (
	"bytes"
	"encoding/json"
)

// topLevelString returns the string that a JSON object has under a key, or "". It looks at the object's own keys only, stops at the
// first that matches and validates nothing else: whether the document is a submission is the runtime's to say.
func topLevelString(document []byte, key string) string {
	s := scanner{rest: document}
	if s.next() != '{' {
		return ""
	}
	for {
		name, ok := s.text()
		if !ok || s.next() != ':' {
			return ""
		}
		if string(name) == key {
			value, _ := s.text()
			return string(value)
		}
		if !s.skipValue() || s.next() != ',' {
			return ""
		}
	}
}

// scanner walks over JSON without allocating.
type scanner struct{ rest []byte }

// next takes the next byte that is not space; 0 at the end.
func (s *scanner) next() byte {
	s.space()
	if len(s.rest) == 0 {
		return 0
	}
	c := s.rest[0]
	s.rest = s.rest[1:]
	return c
}

func (s *scanner) space() {
	for len(s.rest) > 0 {
		switch s.rest[0] {
		case ' ', '\t', '\r', '\n':
			s.rest = s.rest[1:]
		default:
			return
		}
	}
}

// text takes a string.
func (s *scanner) text() ([]byte, bool) {
	s.space()
	whole, ok := s.quoted()
	if !ok {
		return nil, false
	}
	if bytes.IndexByte(whole, '\\') < 0 {
		return whole[1 : len(whole)-1], true
	}
	var decoded string
	if json.Unmarshal(whole, &decoded) != nil {
		return nil, false
	}
	return []byte(decoded), true
}

// quoted takes a string with its quotes, undecoded.
func (s *scanner) quoted() ([]byte, bool) {
	if len(s.rest) == 0 || s.rest[0] != '"' {
		return nil, false
	}
	for i := 1; i < len(s.rest); i++ {
		switch s.rest[i] {
		case '\\':
			i++
		case '"':
			whole := s.rest[:i+1]
			s.rest = s.rest[i+1:]
			return whole, true
		}
	}
	return nil, false
}

// skipValue steps over a value of any kind: to the comma or bracket that ends it.
func (s *scanner) skipValue() bool {
	depth := 0
	for {
		s.space()
		if len(s.rest) == 0 {
			return false
		}
		switch c := s.rest[0]; c {
		case '"':
			if _, ok := s.quoted(); !ok {
				return false
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return true
			}
			depth--
		case ',':
			if depth == 0 {
				return true
			}
		}
		s.rest = s.rest[1:]
	}
}

package value

import (
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Str returns Python's str(v). A Ref gives its repr, which is all that is known of it outside its worker.
func Str(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case *Text:
		return v.Value
	}
	return Repr(v)
}

// Repr returns Python's repr(v).
func Repr(v any) string {
	return string(appendRepr(nil, v))
}

func appendRepr(b []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return append(b, "None"...)
	case bool:
		if v {
			return append(b, "True"...)
		}
		return append(b, "False"...)
	case int64:
		return strconv.AppendInt(b, v, 10)
	case int:
		return strconv.AppendInt(b, int64(v), 10)
	case *big.Int:
		return v.Append(b, 10)
	case float64:
		return appendFloat(b, v)
	case string:
		return appendReprText(b, v)
	case []any:
		b = append(b, '[')
		for i, item := range v {
			if i > 0 {
				b = append(b, ", "...)
			}
			b = appendRepr(b, item)
		}
		return append(b, ']')
	case *Dict:
		b = append(b, '{')
		i := 0
		for k, item := range v.All() {
			if i > 0 {
				b = append(b, ", "...)
			}
			i++
			b = appendReprText(b, k)
			b = append(b, ": "...)
			b = appendRepr(b, item)
		}
		return append(b, '}')
	case *Image:
		return append(b, v.String()...)
	case *Text:
		return appendReprText(b, v.Value)
	case *Stream:
		return append(b, v.Repr...)
	case *Ref:
		return append(b, v.Repr...)
	default:
		panic(fmt.Sprintf("value: repr of %T: not a value", v))
	}
}

// appendFloat writes a float as Python's repr does: the shortest text that reads back, exponents below -4 and from 16 on.
func appendFloat(b []byte, f float64) []byte {
	switch {
	case math.IsNaN(f):
		return append(b, "nan"...)
	case math.IsInf(f, 1):
		return append(b, "inf"...)
	case math.IsInf(f, -1):
		return append(b, "-inf"...)
	}
	if abs := math.Abs(f); abs != 0 && (abs < 1e-4 || abs >= 1e16) {
		return strconv.AppendFloat(b, f, 'e', -1, 64) // Go's exponent has two digits at least, as Python's
	}
	start := len(b)
	b = strconv.AppendFloat(b, f, 'f', -1, 64)
	for _, c := range b[start:] {
		if c == '.' {
			return b
		}
	}
	return append(b, ".0"...)
}

func appendReprText(b []byte, s string) []byte {
	quote := byte('\'')
	if strings.IndexByte(s, '\'') >= 0 && strings.IndexByte(s, '"') < 0 {
		quote = '"'
	}
	b = append(b, quote)
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			b = appendReprASCII(b, c, quote)
			i++
			continue
		}
		r, size := decodeRuneString(s[i:])
		b = appendReprRune(b, r)
		i += size
	}
	return append(b, quote)
}

func appendReprASCII(b []byte, c, quote byte) []byte {
	switch {
	case c == quote || c == '\\':
		return append(b, '\\', c)
	case c == '\n':
		return append(b, '\\', 'n')
	case c == '\r':
		return append(b, '\\', 'r')
	case c == '\t':
		return append(b, '\\', 't')
	case c < 0x20 || c == 0x7F:
		return append(b, '\\', 'x', hexDigits[c>>4], hexDigits[c&15])
	default:
		return append(b, c)
	}
}

func appendReprRune(b []byte, r rune) []byte {
	switch {
	case isPrintable(r):
		return utf8.AppendRune(b, r)
	case r <= 0xFF:
		return append(b, '\\', 'x', hexDigits[r>>4], hexDigits[r&15])
	case r <= 0xFFFF:
		return appendEscape16(b, r)
	default:
		return fmt.Appendf(b, "\\U%08x", r)
	}
}

// isPrintable is CPython's str.isprintable for one character beyond ASCII: letters, marks, numbers, punctuation and
// symbols; no separators, no control, format, surrogate, private or unassigned characters. Go's tables may be of a newer
// Unicode than Python 3.11's (14.0): characters that came later are not printable there.
func isPrintable(r rune) bool {
	return unicode.In(r, unicode.L, unicode.M, unicode.N, unicode.P, unicode.S) && !unicode.Is(afterUnicode14, r)
}

// TypeName returns Python's type(v).__name__.
func TypeName(v any) string {
	switch v := v.(type) {
	case nil:
		return "NoneType"
	case bool:
		return "bool"
	case int64, int, *big.Int:
		return "int"
	case float64:
		return "float"
	case string:
		return "str"
	case []any:
		return "list"
	case *Dict:
		return "dict"
	case *Image:
		return "Image"
	case *Text:
		return "Text"
	case *Stream:
		return "generator"
	case *Ref:
		return v.Type[strings.LastIndexByte(v.Type, '.')+1:]
	case json.RawMessage:
		return "object"
	default:
		panic(fmt.Sprintf("value: type of %T: not a value", v))
	}
}

package value

import (
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"unicode/utf8"
)

// Encode returns v as compact JSON in UTF-8: numbers as Python's json writes them (NaN, Infinity and -Infinity for
// non-finite floats), lone surrogates as \u escapes. An image is its name as a string, a text its dict. A Ref is its record,
// or its repr as a string when it has none; json.RawMessage is copied.
func Encode(v any) []byte {
	return Append(nil, v)
}

// Append appends Encode(v) to b.
func Append(b []byte, v any) []byte {
	return style{item: ",", key: ":"}.append(b, v)
}

// Dumps returns v exactly as Python's json.dumps(v) does with its defaults: ", " and ": " between items, everything beyond
// ASCII escaped.
func Dumps(v any) string {
	return string(style{item: ", ", key: ": ", ascii: true}.append(nil, v))
}

type style struct {
	item, key string
	ascii     bool
}

func (s style) append(b []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return append(b, "null"...)
	case bool:
		return strconv.AppendBool(b, v)
	case int64:
		return strconv.AppendInt(b, v, 10)
	case int:
		return strconv.AppendInt(b, int64(v), 10)
	case *big.Int:
		return v.Append(b, 10)
	case float64:
		return appendJSONFloat(b, v)
	case string:
		return s.appendText(b, v)
	case []any:
		return s.appendList(b, v)
	case *Dict:
		return s.appendDict(b, v)
	case json.RawMessage:
		if v == nil {
			return append(b, "null"...)
		}
		return append(b, v...)
	case *Image:
		return s.appendText(b, v.String())
	case *Text:
		return s.append(b, v.Dict())
	case *Stream:
		return s.appendText(b, v.Repr)
	case *Ref:
		if v.Record != nil {
			return append(b, v.Record...)
		}
		return s.appendText(b, v.Repr)
	default:
		panic(fmt.Sprintf("value: encode %T: not a value", v))
	}
}

func (s style) appendList(b []byte, list []any) []byte {
	b = append(b, '[')
	for i, v := range list {
		if i > 0 {
			b = append(b, s.item...)
		}
		b = s.append(b, v)
	}
	return append(b, ']')
}

func (s style) appendDict(b []byte, dict *Dict) []byte {
	if dict == nil {
		return append(b, "null"...)
	}
	b = append(b, '{')
	for i, k := range dict.keys {
		if i > 0 {
			b = append(b, s.item...)
		}
		b = s.appendText(b, k)
		b = append(b, s.key...)
		b = s.append(b, dict.values[k])
	}
	return append(b, '}')
}

func appendJSONFloat(b []byte, f float64) []byte {
	switch {
	case math.IsNaN(f):
		return append(b, "NaN"...)
	case math.IsInf(f, 1):
		return append(b, "Infinity"...)
	case math.IsInf(f, -1):
		return append(b, "-Infinity"...)
	default:
		return appendFloat(b, f)
	}
}

const hexDigits = "0123456789abcdef"

func appendEscape16(b []byte, r rune) []byte {
	return append(b, '\\', 'u', hexDigits[r>>12&15], hexDigits[r>>8&15], hexDigits[r>>4&15], hexDigits[r&15])
}

func (s style) appendText(b []byte, text string) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(text); {
		c := text[i]
		if c < utf8.RuneSelf {
			if c >= 0x20 && c != '"' && c != '\\' && (c != 0x7F || !s.ascii) {
				i++
				continue
			}
			b = append(b, text[start:i]...)
			b = appendEscapedASCII(b, c)
			i++
			start = i
			continue
		}
		r, size := decodeRuneString(text[i:])
		if !s.ascii && (r < 0xD800 || r > 0xDFFF) && (r != utf8.RuneError || size > 1) {
			i += size
			continue
		}
		b = append(b, text[start:i]...)
		if r > 0xFFFF {
			r -= 0x10000
			b = appendEscape16(b, 0xD800|r>>10)
			r = 0xDC00 | r&0x3FF
		}
		b = appendEscape16(b, r)
		i += size
		start = i
	}
	b = append(b, text[start:]...)
	return append(b, '"')
}

func appendEscapedASCII(b []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(b, '\\', c)
	case '\n':
		return append(b, '\\', 'n')
	case '\r':
		return append(b, '\\', 'r')
	case '\t':
		return append(b, '\\', 't')
	case '\b':
		return append(b, '\\', 'b')
	case '\f':
		return append(b, '\\', 'f')
	default:
		return appendEscape16(b, rune(c))
	}
}

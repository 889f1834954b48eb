package value

import (
	"fmt"
	"math"
	"math/big"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// MaxDepth bounds how deep JSON arrays and objects may nest. CPython's own bound is its recursion limit, 1000 frames.
const MaxDepth = 990

// maxIntDigits is CPython's bound on converting text to int and back (sys.get_int_max_str_digits).
const maxIntDigits = 4300

// Decode reads one JSON document as Python's json.loads does: key order kept, the last of duplicate keys wins, int and
// float kept apart, integers of any size, NaN, Infinity and -Infinity known, lone surrogates kept (as WTF-8). Errors are
// *Error with json's own texts.
func Decode(data []byte) (any, error) {
	d := decoder{data: data}
	if at := invalidUTF8(data); at >= 0 {
		return nil, &Error{Class: UnicodeError, Message: fmt.Sprintf("'utf-8' codec can't decode byte 0x%02x in position %d", data[at], at)}
	}
	if len(data) >= 3 && data[0] == 0xEF && data[1] == 0xBB && data[2] == 0xBF {
		d.pos = 3 // json.loads of bytes skips the mark
	}
	d.space()
	v, err := d.value(0)
	if err != nil {
		return nil, err
	}
	d.space()
	if d.pos < len(d.data) {
		return nil, d.fail("Extra data", d.pos)
	}
	return v, nil
}

// DecodeDict reads a JSON document that must be an object; null gives an empty dict.
func DecodeDict(data []byte) (*Dict, error) {
	v, err := Decode(data)
	if err != nil {
		return nil, err
	}
	switch v := v.(type) {
	case nil:
		return NewDict(), nil
	case *Dict:
		return v, nil
	default:
		return nil, &Error{Class: TypeError, Message: "expected a JSON object, got " + TypeName(v)}
	}
}

type decoder struct {
	data []byte
	pos  int
}

// fail builds json.JSONDecodeError's text; Python counts characters, we hold bytes.
func (d *decoder) fail(msg string, at int) error {
	line, column, chars := 1, 1, 0
	for i := 0; i < at && i < len(d.data); {
		r, size := decodeRune(d.data[i:])
		i += size
		chars++
		column++
		if r == '\n' {
			line, column = line+1, 1
		}
	}
	return &Error{Class: JSONDecodeError, Message: fmt.Sprintf("%s: line %d column %d (char %d)", msg, line, column, chars)}
}

func (d *decoder) space() {
	for d.pos < len(d.data) {
		switch d.data[d.pos] {
		case ' ', '\t', '\n', '\r':
			d.pos++
		default:
			return
		}
	}
}

func (d *decoder) peek() byte {
	if d.pos < len(d.data) {
		return d.data[d.pos]
	}
	return 0
}

func (d *decoder) literal(text string) bool {
	if len(d.data)-d.pos >= len(text) && string(d.data[d.pos:d.pos+len(text)]) == text {
		d.pos += len(text)
		return true
	}
	return false
}

func (d *decoder) value(depth int) (any, error) {
	if depth > MaxDepth {
		return nil, &Error{Class: RecursionError, Message: "maximum recursion depth exceeded while decoding a JSON document"}
	}
	switch c := d.peek(); {
	case c == '"':
		return d.text()
	case c == '{':
		return d.object(depth)
	case c == '[':
		return d.array(depth)
	case c == 'n' && d.literal("null"):
		return nil, nil
	case c == 't' && d.literal("true"):
		return true, nil
	case c == 'f' && d.literal("false"):
		return false, nil
	case c == 'N' && d.literal("NaN"):
		return math.NaN(), nil
	case c == 'I' && d.literal("Infinity"):
		return math.Inf(1), nil
	case c == '-' && d.literal("-Infinity"):
		return math.Inf(-1), nil
	case c == '-' || c >= '0' && c <= '9':
		return d.number()
	default:
		return nil, d.fail("Expecting value", d.pos)
	}
}

func (d *decoder) object(depth int) (any, error) {
	dict := NewDict()
	d.pos++
	d.space()
	if d.peek() == '}' {
		d.pos++
		return dict, nil
	}
	for {
		if d.peek() != '"' {
			return nil, d.fail("Expecting property name enclosed in double quotes", d.pos)
		}
		key, err := d.text()
		if err != nil {
			return nil, err
		}
		d.space()
		if d.peek() != ':' {
			return nil, d.fail("Expecting ':' delimiter", d.pos)
		}
		d.pos++
		d.space()
		v, err := d.value(depth + 1)
		if err != nil {
			return nil, err
		}
		dict.Set(key, v)
		d.space()
		switch d.peek() {
		case '}':
			d.pos++
			return dict, nil
		case ',':
			d.pos++
			d.space()
		default:
			return nil, d.fail("Expecting ',' delimiter", d.pos)
		}
	}
}

func (d *decoder) array(depth int) (any, error) {
	list := []any{}
	d.pos++
	d.space()
	if d.peek() == ']' {
		d.pos++
		return list, nil
	}
	for {
		v, err := d.value(depth + 1)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
		d.space()
		switch d.peek() {
		case ']':
			d.pos++
			return list, nil
		case ',':
			d.pos++
			d.space()
		default:
			return nil, d.fail("Expecting ',' delimiter", d.pos)
		}
	}
}

// text reads a string whose opening quote is at pos.
func (d *decoder) text() (string, error) {
	begin := d.pos
	d.pos++
	start := d.pos
	for d.pos < len(d.data) {
		c := d.data[d.pos]
		if c == '"' {
			s := string(d.data[start:d.pos])
			d.pos++
			return s, nil
		}
		if c == '\\' {
			return d.escapedText(begin, append(make([]byte, 0, 2*(d.pos-start)+16), d.data[start:d.pos]...))
		}
		if c < 0x20 {
			return "", d.fail("Invalid control character at", d.pos)
		}
		d.pos++
	}
	return "", d.fail("Unterminated string starting at", begin)
}

func (d *decoder) escapedText(begin int, buf []byte) (string, error) {
	for d.pos < len(d.data) {
		c := d.data[d.pos]
		switch {
		case c == '"':
			d.pos++
			return string(buf), nil
		case c < 0x20:
			return "", d.fail("Invalid control character at", d.pos)
		case c != '\\':
			buf = append(buf, c)
			d.pos++
		default:
			var err error
			if buf, err = d.escape(begin, buf); err != nil {
				return "", err
			}
		}
	}
	return "", d.fail("Unterminated string starting at", begin)
}

var simpleEscapes = map[byte]byte{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

func (d *decoder) escape(begin int, buf []byte) ([]byte, error) {
	at := d.pos
	if at+1 >= len(d.data) {
		return nil, d.fail("Unterminated string starting at", begin)
	}
	c := d.data[at+1]
	if plain, ok := simpleEscapes[c]; ok {
		d.pos += 2
		return append(buf, plain), nil
	}
	if c != 'u' {
		return nil, d.fail("Invalid \\escape", at)
	}
	r, ok := d.hex4(at + 2)
	if !ok {
		return nil, d.fail("Invalid \\uXXXX escape", at+1)
	}
	d.pos = at + 6
	if r >= 0xD800 && r < 0xDC00 && d.pos+1 < len(d.data) && d.data[d.pos] == '\\' && d.data[d.pos+1] == 'u' {
		if low, ok := d.hex4(d.pos + 2); ok && low >= 0xDC00 && low < 0xE000 {
			d.pos += 6
			return utf8.AppendRune(buf, utf16.DecodeRune(r, low)), nil
		}
	}
	return appendRune(buf, r), nil
}

func (d *decoder) hex4(at int) (rune, bool) {
	if at+4 > len(d.data) {
		return 0, false
	}
	var r rune
	for _, c := range d.data[at : at+4] {
		switch {
		case c >= '0' && c <= '9':
			r = r<<4 | rune(c-'0')
		case c >= 'a' && c <= 'f':
			r = r<<4 | rune(c-'a'+10)
		case c >= 'A' && c <= 'F':
			r = r<<4 | rune(c-'A'+10)
		default:
			return 0, false
		}
	}
	return r, true
}

func (d *decoder) digits() int {
	start := d.pos
	for d.pos < len(d.data) && d.data[d.pos] >= '0' && d.data[d.pos] <= '9' {
		d.pos++
	}
	return d.pos - start
}

func (d *decoder) number() (any, error) {
	start := d.pos
	if d.peek() == '-' {
		d.pos++
	}
	switch c := d.peek(); {
	case c == '0':
		d.pos++
	case c >= '1' && c <= '9':
		d.digits()
	default:
		return nil, d.fail("Expecting value", start)
	}
	isFloat := d.fraction()
	isFloat = d.exponent() || isFloat
	text := string(d.data[start:d.pos])
	if isFloat {
		f, _ := strconv.ParseFloat(text, 64) // out of range is ±Inf, as in Python
		return f, nil
	}
	return parseDigits(text)
}

// fraction consumes ".ddd"; a point without digits stays for the caller, as in json's number grammar.
func (d *decoder) fraction() bool {
	back := d.pos
	if d.peek() != '.' {
		return false
	}
	d.pos++
	if d.digits() == 0 {
		d.pos = back
		return false
	}
	return true
}

func (d *decoder) exponent() bool {
	back := d.pos
	if c := d.peek(); c != 'e' && c != 'E' {
		return false
	}
	d.pos++
	if c := d.peek(); c == '+' || c == '-' {
		d.pos++
	}
	if d.digits() == 0 {
		d.pos = back
		return false
	}
	return true
}

// parseDigits converts an optional sign and ASCII digits to an int of either size.
func parseDigits(text string) (any, error) {
	if i, err := strconv.ParseInt(text, 10, 64); err == nil {
		return i, nil
	}
	count := len(text)
	if text[0] == '-' || text[0] == '+' {
		count--
	}
	if count > maxIntDigits {
		return nil, &Error{Class: ValueError, Message: fmt.Sprintf(
			"Exceeds the limit (%d digits) for integer string conversion: value has %d digits; use sys.set_int_max_str_digits() to increase the limit",
			maxIntDigits, count)}
	}
	b, ok := new(big.Int).SetString(text, 10)
	if !ok {
		return nil, &Error{Class: ValueError, Message: "invalid literal for int() with base 10: " + Repr(text)}
	}
	return BigInt(b), nil
}

// BigInt returns b as the package holds integers: int64 when it fits, *big.Int otherwise.
func BigInt(b *big.Int) any {
	if b.IsInt64() {
		return b.Int64()
	}
	return b
}

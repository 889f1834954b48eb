package tool

import (
	"errors"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// errNotLiteral says that a text is no Python literal; ast.literal_eval would raise.
var errNotLiteral = errors.New("not a Python literal")

// unsendable is a Python literal that has no JSON, such as a set; sending it to an endpoint is a TypeError in Python.
type unsendable struct{ what string }

// Error is Python's text.
func (e *unsendable) Error() string { return "Object of type " + e.what + " is not JSON serializable" }

// maxLiteralNesting is CPython's bound on nested brackets.
const maxLiteralNesting = 200

// maxIntDigits is CPython's bound on the digits of a decimal integer.
const maxIntDigits = 4300

// parseLiteral is ast.literal_eval for a text in brackets: lists, tuples (as lists, which is what JSON makes of them), dicts,
// strings, numbers, True, False and None. A literal with sets, bytes, complex numbers or the ellipsis inside gives
// *unsendable as an error.
func parseLiteral(text string) (any, error) {
	if strings.IndexByte(text, 0) >= 0 || !utf8.ValidString(text) {
		return nil, errNotLiteral
	}
	text = strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\r", "\n")
	p := literalParser{text: text}
	v, err := p.value(0)
	if err != nil {
		return nil, err
	}
	if p.skip(); p.at < len(p.text) {
		return nil, errNotLiteral
	}
	return v, p.unsendable()
}

type literalParser struct {
	text string
	at   int
	odd  string // type name of the first value without JSON
}

func (p *literalParser) unsendable() error {
	if p.odd == "" {
		return nil
	}
	return &unsendable{what: p.odd}
}

// strange notes a value without JSON; the parse goes on, since a later mistake would win.
func (p *literalParser) strange(what string) any {
	if p.odd == "" {
		p.odd = what
	}
	return nil
}

// skip passes white space, comments and joined lines, which are free inside brackets.
func (p *literalParser) skip() {
	for p.at < len(p.text) {
		switch c := p.text[p.at]; {
		case c == ' ' || c == '\t' || c == '\f' || c == '\n':
			p.at++
		case c == '#':
			for p.at < len(p.text) && p.text[p.at] != '\n' {
				p.at++
			}
		case c == '\\' && strings.HasPrefix(p.text[p.at:], "\\\n"):
			p.at += 2
		default:
			return
		}
	}
}

func (p *literalParser) peek() byte {
	if p.at < len(p.text) {
		return p.text[p.at]
	}
	return 0
}

func (p *literalParser) take(c byte) bool {
	if p.skip(); p.peek() != c || p.at >= len(p.text) {
		return false
	}
	p.at++
	return true
}

func (p *literalParser) value(depth int) (any, error) {
	if depth > maxLiteralNesting {
		return nil, errNotLiteral
	}
	p.skip()
	switch c := p.peek(); {
	case c == '[':
		p.at++
		list, _, err := p.items(']', depth)
		return list, err
	case c == '(':
		p.at++
		return p.group(depth)
	case c == '{':
		p.at++
		return p.braces(depth)
	case c == '-' || c == '+' || c == '.' || isDecimal(c):
		return p.signed()
	case c == '"' || c == '\'' || isLetter(c):
		return p.word()
	default:
		return nil, errNotLiteral
	}
}

// items reads values up to the closing bracket, and reports whether there was a comma.
func (p *literalParser) items(end byte, depth int) ([]any, bool, error) {
	list := []any{}
	comma := false
	for {
		if p.take(end) {
			return list, comma, nil
		}
		if len(list) > 0 && !comma {
			return nil, false, errNotLiteral
		}
		v, err := p.value(depth + 1)
		if err != nil {
			return nil, false, err
		}
		list = append(list, v)
		if !p.take(',') {
			if !p.take(end) {
				return nil, false, errNotLiteral
			}
			return list, len(list) > 1, nil
		}
		comma = true
	}
}

// group reads a tuple, or one value in parentheses.
func (p *literalParser) group(depth int) (any, error) {
	list, comma, err := p.items(')', depth)
	if err != nil {
		return nil, err
	}
	if len(list) == 1 && !comma {
		return list[0], nil
	}
	return list, nil
}

// braces reads a dict or a set. JSON's keys are strings: numbers and names become theirs, as json.dumps makes them.
func (p *literalParser) braces(depth int) (any, error) {
	dict, keys := value.NewDict(), []any{}
	if p.take('}') {
		return dict, nil
	}
	for first := true; ; first = false {
		start := p.at
		key, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		if !p.take(':') {
			if !first {
				return nil, errNotLiteral
			}
			p.at = start
			return p.set(depth)
		}
		v, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		if i := slices.IndexFunc(keys, func(k any) bool { return value.Equal(k, key) }); i >= 0 {
			key = keys[i] // the first of equal keys, such as 1 and True, stays
		}
		name, ok := keyText(key)
		if !ok {
			return nil, errNotLiteral // unhashable
		}
		keys = append(keys, key)
		dict.Set(name, v)
		comma := p.take(',')
		if p.take('}') {
			return dict, nil
		}
		if !comma {
			return nil, errNotLiteral
		}
	}
}

func (p *literalParser) set(depth int) (any, error) {
	list, _, err := p.items('}', depth)
	if err != nil {
		return nil, err
	}
	for _, v := range list {
		if _, ok := keyText(v); !ok {
			return nil, errNotLiteral
		}
	}
	return p.strange("set"), nil
}

// keyText is json.dumps' text of a dict's key; false for lists and dicts, which no dict has as keys.
func keyText(key any) (string, bool) {
	switch key := key.(type) {
	case string:
		return key, true
	case []any, *value.Dict:
		return "", false
	default:
		return string(value.Encode(key)), true
	}
}

func isDecimal(c byte) bool { return c >= '0' && c <= '9' }

func isLetter(c byte) bool { return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }

// word reads a string, or one of the names that are literals.
func (p *literalParser) word() (any, error) {
	start := p.at
	for isLetter(p.peek()) || p.at > start && isDecimal(p.peek()) {
		p.at++
	}
	name := p.text[start:p.at]
	if c := p.peek(); c == '"' || c == '\'' {
		p.at = start
		return p.strings()
	}
	switch name {
	case "None":
		return nil, nil
	case "True":
		return true, nil
	case "False":
		return false, nil
	case "set":
		if p.take('(') && p.take(')') {
			return p.strange("set"), nil
		}
	}
	return nil, errNotLiteral
}

// signed reads a number with at most one sign. A real number and an imaginary one may be added.
func (p *literalParser) signed() (any, error) {
	sign := byte(0)
	if c := p.peek(); c == '-' || c == '+' {
		sign = c
		p.at++
		p.skip()
		if p.take('(') { // a sign may stand before parentheses
			return p.signedGroup(sign)
		}
	}
	if strings.HasPrefix(p.text[p.at:], "...") {
		if sign != 0 {
			return nil, errNotLiteral
		}
		p.at += 3
		return p.strange("ellipsis"), nil
	}
	v, err := p.number()
	if err != nil {
		return nil, err
	}
	if sign == '-' {
		v = negate(v)
	}
	return p.complexTail(v)
}

// signedGroup reads the rest of "-(1)".
func (p *literalParser) signedGroup(sign byte) (any, error) {
	depth := 1
	for p.take('(') {
		depth++
	}
	if p.skip(); !isDecimal(p.peek()) && p.peek() != '.' {
		return nil, errNotLiteral
	}
	v, err := p.number()
	if err != nil {
		return nil, err
	}
	for ; depth > 0; depth-- {
		if !p.take(')') {
			return nil, errNotLiteral
		}
	}
	if sign == '-' {
		v = negate(v)
	}
	return p.complexTail(v)
}

// imaginary stands for a complex number while a sum is read.
type imaginary struct{}

// complexTail reads "+ 2j" after a real number.
func (p *literalParser) complexTail(v any) (any, error) {
	back := p.at
	p.skip()
	if c := p.peek(); c != '+' && c != '-' {
		p.at = back
		if _, ok := v.(imaginary); ok {
			return p.strange("complex"), nil
		}
		return v, nil
	}
	if _, ok := v.(imaginary); ok {
		return nil, errNotLiteral
	}
	p.at++
	p.skip()
	if !isDecimal(p.peek()) && p.peek() != '.' {
		return nil, errNotLiteral
	}
	right, err := p.number()
	if err != nil {
		return nil, err
	}
	if _, ok := right.(imaginary); !ok {
		return nil, errNotLiteral
	}
	if p.skip(); p.peek() == '+' || p.peek() == '-' {
		return nil, errNotLiteral
	}
	return p.strange("complex"), nil
}

func negate(v any) any {
	switch v := v.(type) {
	case int64:
		return value.BigInt(new(big.Int).Neg(big.NewInt(v)))
	case *big.Int:
		return value.BigInt(new(big.Int).Neg(v))
	case float64:
		return -v
	default:
		return v
	}
}

// number reads a number without sign.
func (p *literalParser) number() (any, error) {
	start := p.at
	for p.at < len(p.text) && (isLetter(p.text[p.at]) || isDecimal(p.text[p.at]) || p.text[p.at] == '.' || p.exponentSign(start)) {
		p.at++
	}
	text := p.text[start:p.at]
	if v, ok, err := radixNumber(text); ok || err != nil {
		return v, err
	}
	body, isImaginary := strings.CutSuffix(lower(text), "j")
	v, err := decimalNumber(body, isImaginary)
	if err == nil && isImaginary {
		return imaginary{}, nil
	}
	return v, err
}

// exponentSign reports whether the byte at p.at is the sign of a decimal number's exponent.
func (p *literalParser) exponentSign(start int) bool {
	if p.at == start || strings.HasPrefix(lower(p.text[start:p.at]), "0x") {
		return false
	}
	c, before := p.text[p.at], p.text[p.at-1]
	return (c == '+' || c == '-') && (before == 'e' || before == 'E')
}

var radixes = map[string]int{"0x": 16, "0o": 8, "0b": 2}

// radixNumber reads 0x, 0o and 0b integers; an underscore may stand after the prefix and between digits.
func radixNumber(text string) (any, bool, error) {
	if len(text) < 2 {
		return nil, false, nil
	}
	base, ok := radixes[lower(text[:2])]
	if !ok {
		return nil, false, nil
	}
	digits, ok := plainDigits("0" + text[2:])
	if !ok || len(text) == 2 {
		return nil, false, errNotLiteral
	}
	b, ok := new(big.Int).SetString(digits, base)
	if !ok {
		return nil, false, errNotLiteral
	}
	return value.BigInt(b), true, nil
}

// plainDigits removes single underscores between letters or digits.
func plainDigits(s string) (string, bool) {
	if strings.HasPrefix(s, "_") || strings.HasSuffix(s, "_") || strings.Contains(s, "__") {
		return "", false
	}
	return strings.ReplaceAll(s, "_", ""), true
}

// decimalNumber reads decimal integers and floats. An imaginary number's digits may begin with zeros, as a float's may.
func decimalNumber(text string, isImaginary bool) (any, error) {
	mantissa, exponent, hasExponent := strings.Cut(text, "e")
	whole, fraction, hasPoint := strings.Cut(mantissa, ".")
	exponent = strings.TrimPrefix(strings.TrimPrefix(exponent, "+"), "-")
	if whole == "" && fraction == "" || hasExponent && exponent == "" {
		return nil, errNotLiteral
	}
	for _, digits := range []string{whole, fraction, exponent} {
		plain, ok := plainDigits(digits)
		if !ok || strings.Trim(plain, "0123456789") != "" {
			return nil, errNotLiteral
		}
	}
	plain := strings.ReplaceAll(text, "_", "")
	if hasPoint || hasExponent || isImaginary {
		f, err := strconv.ParseFloat(plain, 64)
		if err != nil && !errors.Is(err, strconv.ErrRange) {
			return nil, errNotLiteral
		}
		return f, nil
	}
	if len(plain) > maxIntDigits || plain[0] == '0' && strings.Trim(plain, "0") != "" {
		return nil, errNotLiteral
	}
	b, ok := new(big.Int).SetString(plain, 10)
	if !ok {
		return nil, errNotLiteral
	}
	return value.BigInt(b), nil
}

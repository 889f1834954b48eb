package value

import (
	"math"
	"math/big"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Int is Python's int(v): floats are cut towards zero, strings may have white space around, a sign, underscores between
// digits and any script's decimal digits. Errors are *Error with Python's class and text.
func Int(v any) (any, error) {
	switch v := v.(type) {
	case bool:
		if v {
			return int64(1), nil
		}
		return int64(0), nil
	case int64, *big.Int:
		return v, nil
	case int:
		return int64(v), nil
	case float64:
		return intOfFloat(v)
	case string:
		return intOfText(v)
	default:
		return nil, &Error{Class: TypeError, Message: "int() argument must be a string, a bytes-like object or a real number, not '" + TypeName(v) + "'"}
	}
}

func intOfFloat(f float64) (any, error) {
	switch {
	case math.IsNaN(f):
		return nil, &Error{Class: ValueError, Message: "cannot convert float NaN to integer"}
	case math.IsInf(f, 0):
		return nil, &Error{Class: OverflowError, Message: "cannot convert float infinity to integer"}
	}
	b, _ := big.NewFloat(math.Trunc(f)).Int(nil)
	return BigInt(b), nil
}

func intOfText(s string) (any, error) {
	invalid := &Error{Class: ValueError, Message: "invalid literal for int() with base 10: " + cutRepr(s)}
	text, ok := numberText(s)
	if !ok {
		return nil, invalid
	}
	sign, digits := splitSign(text)
	if digits, ok = dropUnderscores(digits); !ok || digits == "" || strings.Trim(digits, "0123456789") != "" {
		return nil, invalid
	}
	return parseDigits(sign + digits)
}

// cutRepr is the %.200R of CPython's int(): the repr's first 200 characters.
func cutRepr(s string) string {
	r := Repr(s)
	n := 0
	for i := range r {
		if n == 200 {
			return r[:i]
		}
		n++
	}
	return r
}

// Float is Python's float(v). Errors are *Error with Python's class and text.
func Float(v any) (float64, error) {
	switch v := v.(type) {
	case bool:
		if v {
			return 1, nil
		}
		return 0, nil
	case int64:
		return float64(v), nil
	case int:
		return float64(v), nil
	case *big.Int:
		f, _ := new(big.Float).SetInt(v).Float64()
		if math.IsInf(f, 0) {
			return 0, &Error{Class: OverflowError, Message: "int too large to convert to float"}
		}
		return f, nil
	case float64:
		return v, nil
	case string:
		return floatOfText(v)
	default:
		return 0, &Error{Class: TypeError, Message: "float() argument must be a string or a real number, not '" + TypeName(v) + "'"}
	}
}

func floatOfText(s string) (float64, error) {
	invalid := &Error{Class: ValueError, Message: "could not convert string to float: " + Repr(s)}
	text, ok := numberText(s)
	if !ok {
		return 0, invalid
	}
	sign, body := splitSign(text)
	switch strings.ToLower(body) {
	case "inf", "infinity":
		if sign == "-" {
			return math.Inf(-1), nil
		}
		return math.Inf(1), nil
	case "nan":
		return math.NaN(), nil
	}
	if body, ok = dropUnderscores(body); !ok || body == "" || strings.Trim(body, "0123456789.eE+-") != "" {
		return 0, invalid
	}
	f, err := strconv.ParseFloat(sign+body, 64)
	if err != nil && !math.IsInf(f, 0) {
		return 0, invalid
	}
	return f, nil
}

func splitSign(s string) (sign, rest string) {
	if s != "" && (s[0] == '-' || s[0] == '+') {
		return s[:1], s[1:]
	}
	return "", s
}

// dropUnderscores removes single underscores between digits; any other underscore makes the text no number.
func dropUnderscores(s string) (string, bool) {
	if strings.IndexByte(s, '_') < 0 {
		return s, true
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '_' {
			b = append(b, s[i])
			continue
		}
		if i == 0 || i == len(s)-1 || !isDigit(s[i-1]) || !isDigit(s[i+1]) {
			return "", false
		}
	}
	return string(b), true
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// numberText strips white space as str.strip does and turns decimal digits of all scripts to ASCII; false when another
// character beyond ASCII is left.
func numberText(s string) (string, bool) {
	s = Strip(s)
	ascii := true
	for i := 0; i < len(s); i++ {
		if s[i] >= utf8.RuneSelf {
			ascii = false
			break
		}
	}
	if ascii {
		return s, true
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); {
		r, size := decodeRuneString(s[i:])
		i += size
		switch d, ok := decimalDigit(r); {
		case r < utf8.RuneSelf:
			b = append(b, byte(r))
		case ok:
			b = append(b, '0'+d)
		default:
			return "", false
		}
	}
	return string(b), true
}

// decimalDigit returns the value of a Unicode decimal digit (category Nd). Digits come in runs of ten from zero.
func decimalDigit(r rune) (byte, bool) {
	if unicode.Is(afterUnicode14, r) {
		return 0, false
	}
	for _, t := range unicode.Nd.R16 {
		if r >= rune(t.Lo) && r <= rune(t.Hi) {
			return byte((r - rune(t.Lo)) % 10), true
		}
	}
	for _, t := range unicode.Nd.R32 {
		if r >= rune(t.Lo) && r <= rune(t.Hi) {
			return byte((r - rune(t.Lo)) % 10), true
		}
	}
	return 0, false
}

// Strip is Python's str.strip().
func Strip(s string) string {
	return strings.TrimFunc(s, IsSpace)
}

// IsSpace is Python's str.isspace for one character.
func IsSpace(r rune) bool {
	return r >= 0x1C && r <= 0x1F || unicode.IsSpace(r)
}

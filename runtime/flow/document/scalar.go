package document

import (
	"math"
	"math/big"
	"regexp"
	"strings"

	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// What an unquoted scalar means, in the order in which ruamel.yaml asks (its implicit resolvers for YAML 1.2).
var (
	boolText  = regexp.MustCompile(`^(?:true|True|TRUE|false|False|FALSE)$`)
	floatText = regexp.MustCompile(`^(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+|[-+]?\.[0-9_]+(?:[eE][-+][0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$`)
	intText   = regexp.MustCompile(`^(?:[-+]?0b[0-1_]+|[-+]?0o?[0-7_]+|[-+]?[0-9_]+|[-+]?0x[0-9a-fA-F_]+)$`)
	nullText  = regexp.MustCompile(`^(?:~|null|Null|NULL|)$`)
	dateText  = regexp.MustCompile(`^(?:[0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{4}-[0-9]{2}?-[0-9]{1,2}(?:[Tt]|[ \t]+)[0-9]{1,2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]*)?(?:[ \t]*(?:Z|[-+][0-9]{1,2}(?::[0-9]{2})?))?)$`)
)

// plain resolves an unquoted scalar. date is true when it is a date, which has no plain value.
func plain(text string) (v any, date, ok bool) {
	first := byte(0)
	if text != "" {
		first = text[0]
	}
	numeric := strings.IndexByte("-+0123456789", first) >= 0 && first != 0
	switch {
	case boolText.MatchString(text):
		return text[0] == 't' || text[0] == 'T', false, true
	case (numeric || first == '.') && floatText.MatchString(text):
		return floatValue(text), false, true
	case numeric && intText.MatchString(text):
		v, ok := intValue(text)
		return v, false, ok
	case nullText.MatchString(text):
		return nil, false, true
	case numeric && dateText.MatchString(text):
		return nil, true, true
	default:
		return text, false, true
	}
}

func floatValue(text string) any {
	text = strings.ToLower(strings.ReplaceAll(text, "_", ""))
	switch strings.TrimLeft(text, "+-") {
	case ".inf":
		if text[0] == '-' {
			return math.Inf(-1)
		}
		return math.Inf(1)
	case ".nan":
		return math.NaN()
	}
	f, err := value.Float(text)
	if err != nil {
		return text
	}
	return f
}

// intValue reads an integer with its base prefix; a leading zero alone means nothing in YAML 1.2.
func intValue(text string) (any, bool) {
	digits := strings.ReplaceAll(text, "_", "")
	sign := ""
	if digits != "" && (digits[0] == '-' || digits[0] == '+') {
		sign, digits = digits[:1], digits[1:]
	}
	base := 10
	if len(digits) > 1 && digits[0] == '0' {
		if b, ok := map[byte]int{'b': 2, 'o': 8, 'x': 16}[digits[1]]; ok {
			base, digits = b, digits[2:]
		}
	}
	const most = 4300 // CPython's bound on digits, generous for the other bases
	if digits == "" || len(digits) > most {
		return nil, false
	}
	n, ok := new(big.Int).SetString(sign+digits, base)
	if !ok {
		return nil, false
	}
	return value.BigInt(n), true
}

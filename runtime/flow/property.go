package flow

import (
	"math"
	"regexp"
	"strconv"
	"strings"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// Python's \w is Unicode letters, digits and the underscore; Go's is ASCII.
var propertyToken = regexp.MustCompile(`[\p{L}\p{N}_]+|\['.*?'\]|\[\d+\]`)

// Property follows a reference's property into a plain value, as prompt flow does: words and ['keys'] index dicts, [digits]
// index lists and strings. A *value.Ref met on the way is returned with the rest of the property, which only its worker can
// follow. Characters that are no token are skipped.
func Property(node string, v any, property string) (result any, rest string, err error) {
	for _, at := range propertyToken.FindAllStringIndex(property, -1) {
		if ref, ok := v.(*value.Ref); ok {
			return ref, property[at[0]:], nil
		}
		var ok bool
		if v, ok, err = step(v, property[at[0]:at[1]]); err != nil {
			return nil, "", err
		}
		if !ok {
			return nil, "", InvalidProperty(node, property)
		}
	}
	return v, "", nil
}

// InvalidProperty is the error for a property that is not there.
func InvalidProperty(node, property string) *api.Error {
	return Fail(InvalidReferenceProperty, TargetUnknown,
		"Flow execution failed. Invalid property '{property}' when accessing the node '{node_name}'. Please check the property and try again.",
		"property", property, "node_name", node)
}

// step takes one token; ok is false for what raises KeyError, IndexError or AttributeError in Python, err is its TypeError.
func step(v any, token string) (next any, ok bool, err error) {
	if key, bracket := strings.CutPrefix(token, "["); bracket {
		key = strings.TrimSuffix(key, "]")
		if strings.HasPrefix(key, "'") {
			return item(v, key[1:len(key)-1])
		}
		return index(v, key)
	}
	if image, ok := v.(*value.Image); ok {
		return attribute(image, token)
	}
	dict, isDict := v.(*value.Dict)
	if !isDict {
		// getattr on a plain value finds methods at most, which are no data.
		return nil, false, nil
	}
	next, ok = dict.Get(token)
	return next, ok, nil
}

// attribute is getattr on an image, whose data are these.
func attribute(image *value.Image, name string) (any, bool, error) {
	switch name {
	case "source_url", "_source_url":
		if image.URL == "" {
			return nil, true, nil
		}
		return image.URL, true, nil
	case "_mime_type":
		return image.MIME, true, nil
	default:
		return nil, false, nil
	}
}

func item(v any, key string) (any, bool, error) {
	switch v := v.(type) {
	case *value.Dict:
		next, ok := v.Get(key)
		return next, ok, nil
	case []any:
		return nil, false, typeError("list indices must be integers or slices, not str")
	case string:
		return nil, false, typeError("string indices must be integers, not 'str'")
	default:
		return nil, false, typeError("'" + value.TypeName(v) + "' object is not subscriptable")
	}
}

func index(v any, digits string) (any, bool, error) {
	n, err := strconv.Atoi(digits)
	if err != nil {
		n = math.MaxInt // more digits than any index has
	}
	switch v := v.(type) {
	case *value.Dict:
		return nil, false, nil // an int is no key of a dict with str keys
	case []any:
		if n >= len(v) {
			return nil, false, nil
		}
		return v[n], true, nil
	case *value.Image:
		if n >= len(v.Data) {
			return nil, false, nil
		}
		return int64(v.Data[n]), true, nil
	case *value.Text:
		c, ok := character(v.Value, n)
		return c, ok, nil
	case string:
		c, ok := character(v, n)
		return c, ok, nil
	default:
		return nil, false, typeError("'" + value.TypeName(v) + "' object is not subscriptable")
	}
}

func character(s string, n int) (string, bool) {
	for i := range s {
		if n == 0 {
			rest := s[i:]
			for j := range rest {
				if j > 0 {
					return rest[:j], true
				}
			}
			return rest, true
		}
		n--
	}
	return "", false
}

// typeError is what escapes prompt flow as a bare Python TypeError.
func typeError(text string) *api.Error {
	return api.NewError([]string{api.SystemError, "TypeError"}, "", "%s", text)
}

package plugin

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/hashicorp/go-msgpack/v2/codec"
)

// msgpackHandle reads what an agent writes: strings as strings, maps with string keys.
func msgpackHandle() *codec.MsgpackHandle {
	h := &codec.MsgpackHandle{}
	h.RawToString = true
	h.WriteExt = true
	h.MapType = reflect.TypeOf(map[string]any(nil))
	return h
}

// DecodeConfig decodes a plugin or task configuration as an agent sends it into a struct with `codec` tags. An attribute that
// was left out is nil on the wire and leaves its field as it is. A number that float64 cannot hold exactly (0.1) arrives as
// a string; it is accepted for number fields. An error names the option whose number does not fit.
func DecodeConfig(config []byte, into any) error {
	var tree any
	if err := codec.NewDecoder(bytes.NewReader(config), msgpackHandle()).Decode(&tree); err != nil {
		return fmt.Errorf("decode msgpack: %w", err)
	}
	target := reflect.ValueOf(into)
	if target.Kind() != reflect.Pointer || target.IsNil() {
		return fmt.Errorf("decode configuration into %T: not a pointer", into)
	}
	if err := fitNumbers(tree, target.Elem().Type(), ""); err != nil {
		return err
	}
	var normal bytes.Buffer
	if err := codec.NewEncoder(&normal, msgpackHandle()).Encode(tree); err != nil {
		return fmt.Errorf("encode msgpack: %w", err)
	}
	if err := codec.NewDecoder(&normal, msgpackHandle()).Decode(into); err != nil {
		return fmt.Errorf("decode configuration: %w", err)
	}
	return nil
}

// fitNumbers puts numbers, below a map or list, where typ has numbers and the wire has strings, and takes out nulls, which mean
// that an attribute is not there. Path names the value for errors.
func fitNumbers(tree any, typ reflect.Type, path string) error {
	switch node := tree.(type) {
	case map[string]any:
		for key, value := range node {
			if value == nil {
				delete(node, key)
				continue
			}
			if err := fit(value, memberType(typ, key), joinPath(path, key), func(v any) { node[key] = v }); err != nil {
				return err
			}
			if typ := deref(typ); typ != nil && typ.Kind() == reflect.Map {
				clearFields(node[key], typ.Elem())
			}
		}
	case []any:
		for i, value := range node {
			if err := fit(value, elementType(typ), fmt.Sprintf("%s[%d]", path, i), func(v any) { node[i] = v }); err != nil {
				return err
			}
		}
	}
	return nil
}

// clearFields makes nulls of a struct's fields that are not there. The decoder (go-msgpack 2.1.5) decodes all values of a map
// into one and the same struct: without this, a map's entry would get what the one before it has and it itself has not.
func clearFields(value any, typ reflect.Type) {
	entry, isMap := value.(map[string]any)
	if typ = deref(typ); !isMap || typ.Kind() != reflect.Struct {
		return
	}
	for _, field := range reflect.VisibleFields(typ) {
		name, _, _ := strings.Cut(field.Tag.Get("codec"), ",")
		if name == "" {
			name = field.Name
		}
		if _, there := entry[name]; !there && field.IsExported() {
			entry[name] = nil
		}
	}
}

func joinPath(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func fit(value any, typ reflect.Type, path string, set func(any)) error {
	fitted, err := number(value, typ)
	if err != nil {
		return fmt.Errorf("option %q: %w", path, err)
	}
	set(fitted)
	return fitNumbers(fitted, typ, path)
}

// number makes of a string what a number field takes. Everything else stays as it is, for the decoder to judge.
func number(value any, typ reflect.Type) (any, error) {
	typ = deref(typ)
	if typ == nil {
		return value, nil
	}
	whole := typ.Kind() >= reflect.Int && typ.Kind() <= reflect.Uint64
	switch v := value.(type) {
	case float64:
		if whole {
			return nil, fmt.Errorf("%v is not a whole number", v)
		}
	case string:
		switch {
		case whole:
			return wholeNumber(v, typ)
		case typ.Kind() == reflect.Float32 || typ.Kind() == reflect.Float64:
			f, err := strconv.ParseFloat(v, typ.Bits())
			if err != nil {
				return nil, fmt.Errorf("%q is not a number in range", v)
			}
			return f, nil
		}
	}
	return value, nil
}

func wholeNumber(text string, typ reflect.Type) (any, error) {
	var value any
	var err error
	if typ.Kind() <= reflect.Int64 {
		value, err = strconv.ParseInt(text, 10, typ.Bits())
	} else {
		value, err = strconv.ParseUint(text, 10, typ.Bits())
	}
	switch {
	case errors.Is(err, strconv.ErrRange):
		return nil, fmt.Errorf("%s is out of range", text)
	case err != nil:
		return nil, fmt.Errorf("%q is not a whole number", text)
	}
	return value, nil
}

func deref(typ reflect.Type) reflect.Type {
	for typ != nil && typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	return typ
}

// memberType is the type that the member called key of a struct or map has, nil when there is none.
func memberType(typ reflect.Type, key string) reflect.Type {
	typ = deref(typ)
	if typ == nil {
		return nil
	}
	switch typ.Kind() {
	case reflect.Map:
		return typ.Elem()
	case reflect.Struct:
		return fieldType(typ, key)
	default:
	}
	return nil
}

// fieldType finds the field that the decoder puts key into: by its codec tag, else by its name, also in an embedded struct.
func fieldType(typ reflect.Type, key string) reflect.Type {
	for i := range typ.NumField() {
		field := typ.Field(i)
		name, _, _ := strings.Cut(field.Tag.Get("codec"), ",")
		if field.Anonymous && name == "" {
			if embedded := deref(field.Type); embedded.Kind() == reflect.Struct {
				if found := fieldType(embedded, key); found != nil {
					return found
				}
			}
			continue
		}
		if name == "" {
			name = field.Name
		}
		if name == key {
			return field.Type
		}
	}
	return nil
}

func elementType(typ reflect.Type) reflect.Type {
	typ = deref(typ)
	if typ == nil || (typ.Kind() != reflect.Slice && typ.Kind() != reflect.Array) {
		return nil
	}
	return typ.Elem()
}

// EncodeState encodes a driver's own state for a task handle.
func EncodeState(state any) ([]byte, error) {
	var out bytes.Buffer
	if err := codec.NewEncoder(&out, msgpackHandle()).Encode(state); err != nil {
		return nil, fmt.Errorf("encode driver state: %w", err)
	}
	return out.Bytes(), nil
}

// DecodeState decodes what [EncodeState] made.
func DecodeState(encoded []byte, into any) error {
	if err := codec.NewDecoder(bytes.NewReader(encoded), msgpackHandle()).Decode(into); err != nil {
		return fmt.Errorf("decode driver state: %w", err)
	}
	return nil
}

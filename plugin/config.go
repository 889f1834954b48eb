package plugin

import (
	"bytes"
	"fmt"
	"reflect"
	"strconv"

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
// a string; it is accepted for number fields.
func DecodeConfig(config []byte, into any) error {
	var tree any
	if err := codec.NewDecoder(bytes.NewReader(config), msgpackHandle()).Decode(&tree); err != nil {
		return fmt.Errorf("decode msgpack: %w", err)
	}
	target := reflect.ValueOf(into)
	if target.Kind() != reflect.Pointer || target.IsNil() {
		return fmt.Errorf("decode configuration into %T: not a pointer", into)
	}
	numbersFromStrings(tree, target.Elem().Type())
	var normal bytes.Buffer
	if err := codec.NewEncoder(&normal, msgpackHandle()).Encode(tree); err != nil {
		return fmt.Errorf("encode msgpack: %w", err)
	}
	if err := codec.NewDecoder(&normal, msgpackHandle()).Decode(into); err != nil {
		return fmt.Errorf("decode configuration: %w", err)
	}
	return nil
}

// numbersFromStrings replaces, below a map, strings that stand where typ has numbers, and takes out nulls, which mean that
// an attribute is not there.
func numbersFromStrings(tree any, typ reflect.Type) {
	switch node := tree.(type) {
	case map[string]any:
		for key, value := range node {
			if value == nil {
				delete(node, key)
				continue
			}
			member := memberType(typ, key)
			node[key] = number(value, member)
			numbersFromStrings(node[key], member)
		}
	case []any:
		element := elementType(typ)
		for i, value := range node {
			node[i] = number(value, element)
			numbersFromStrings(node[i], element)
		}
	}
}

func number(value any, typ reflect.Type) any {
	text, ok := value.(string)
	if !ok || typ == nil {
		return value
	}
	switch deref(typ).Kind() {
	case reflect.Float32, reflect.Float64:
		if f, err := strconv.ParseFloat(text, 64); err == nil {
			return f
		}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		if i, err := strconv.ParseInt(text, 10, 64); err == nil {
			return i
		}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		if u, err := strconv.ParseUint(text, 10, 64); err == nil {
			return u
		}
	default:
	}
	return value
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
		for i := range typ.NumField() {
			if field := typ.Field(i); field.Tag.Get("codec") == key {
				return field.Type
			}
		}
	default:
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

package value

import (
	"iter"
	"slices"
)

// NewDict returns an empty dict.
func NewDict() *Dict {
	return &Dict{values: map[string]any{}}
}

// NewDictSize returns an empty dict with room for n keys.
func NewDictSize(n int) *Dict {
	return &Dict{keys: make([]string, 0, n), values: make(map[string]any, n)}
}

// Len returns the number of keys; that of a nil dict is 0.
func (d *Dict) Len() int {
	if d == nil {
		return 0
	}
	return len(d.keys)
}

// Get returns the value of key and whether the key is there.
func (d *Dict) Get(key string) (any, bool) {
	if d == nil {
		return nil, false
	}
	v, ok := d.values[key]
	return v, ok
}

// Has reports whether the key is there.
func (d *Dict) Has(key string) bool {
	_, ok := d.Get(key)
	return ok
}

// Set gives key a value; a new key comes last, an old one keeps its place.
func (d *Dict) Set(key string, v any) {
	if d.values == nil {
		d.values = map[string]any{}
	}
	if _, ok := d.values[key]; !ok {
		d.keys = append(d.keys, key)
	}
	d.values[key] = v
}

// Delete removes key if it is there.
func (d *Dict) Delete(key string) {
	if !d.Has(key) {
		return
	}
	delete(d.values, key)
	d.keys = slices.DeleteFunc(d.keys, func(k string) bool { return k == key })
}

// Keys returns a copy of the keys in order.
func (d *Dict) Keys() []string {
	if d == nil {
		return nil
	}
	return slices.Clone(d.keys)
}

// All iterates over keys and values in order.
func (d *Dict) All() iter.Seq2[string, any] {
	return func(yield func(string, any) bool) {
		if d == nil {
			return
		}
		for _, k := range d.keys {
			if !yield(k, d.values[k]) {
				return
			}
		}
	}
}

// Clone returns a shallow copy.
func (d *Dict) Clone() *Dict {
	c := NewDictSize(d.Len())
	for k, v := range d.All() {
		c.Set(k, v)
	}
	return c
}

// MarshalJSON implements json.Marshaler. Non-finite floats make the result something that only Python-minded parsers
// read; encoding/json refuses it.
func (d *Dict) MarshalJSON() ([]byte, error) {
	return Encode(d), nil
}

// UnmarshalJSON implements json.Unmarshaler; null leaves the dict as it is.
func (d *Dict) UnmarshalJSON(data []byte) error {
	v, err := Decode(data)
	if err != nil || v == nil {
		return err
	}
	other, ok := v.(*Dict)
	if !ok {
		return &Error{Class: TypeError, Message: "expected a JSON object, got " + TypeName(v)}
	}
	*d = *other
	return nil
}

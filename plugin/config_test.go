package plugin

import (
	"bytes"
	"testing"

	"github.com/hashicorp/go-msgpack/v2/codec"
	"github.com/shoenig/test"
	"github.com/shoenig/test/must"
)

func encoded(t testing.TB, value any) []byte {
	t.Helper()
	var out bytes.Buffer
	must.NoError(t, codec.NewEncoder(&out, msgpackHandle()).Encode(value))
	return out.Bytes()
}

type sharedOptions struct {
	Level int `codec:"level"`
}

type options struct {
	Ratio    float64              `codec:"ratio"`
	Half     *float32             `codec:"half"`
	Count    int16                `codec:"count,omitempty"`
	Size     uint64               `codec:"size"`
	Name     string               `codec:"name"`
	Untagged int                  // decoded by its own name
	Limits   map[string]int64     `codec:"limits"`
	Parts    []float64            `codec:"parts"`
	Nested   []struct{ N int }    `codec:"nested"`
	Deep     map[string][]float64 `codec:"deep"`
	Any      any                  `codec:"any"`
	sharedOptions
}

func TestDecodeConfig_takesNumbersThatCameAsStrings(t *testing.T) {
	t.Parallel()
	half := float32(0.25)
	want := options{
		Ratio: 0.1, Half: &half, Count: 7, Size: 1<<64 - 1, Name: "0.1", Untagged: 3, Limits: map[string]int64{"a": 1},
		Parts: []float64{0.1, 2, 0.5}, Nested: []struct{ N int }{{4}}, Deep: map[string][]float64{"d": {0.3}}, Any: "0.1",
		sharedOptions: sharedOptions{Level: 9},
	}
	var got options
	must.NoError(t, DecodeConfig(encoded(t, map[string]any{
		"ratio": "0.1", "half": "0.25", "count": "7", "size": "18446744073709551615", "name": "0.1", "Untagged": "3",
		"limits": map[string]any{"a": "1"}, "parts": []any{"0.1", 2, 0.5}, "nested": []any{map[string]any{"N": "4"}},
		"deep": map[string]any{"d": []any{"0.3"}}, "any": "0.1", "level": "9", "unknown": map[string]any{"x": nil},
	}), &got))
	test.Eq(t, want.sharedOptions, got.sharedOptions)
	got.sharedOptions, want.sharedOptions = sharedOptions{}, sharedOptions{}
	must.Eq(t, want.Half, got.Half)
	test.Eq(t, []any{want.Ratio, want.Count, want.Size, want.Name, want.Untagged, want.Limits, want.Parts, want.Nested, want.Deep, want.Any},
		[]any{got.Ratio, got.Count, got.Size, got.Name, got.Untagged, got.Limits, got.Parts, got.Nested, got.Deep, got.Any})
}

func TestDecodeConfig_leavesWhatIsNotThere(t *testing.T) {
	t.Parallel()
	got := options{Ratio: 2, Name: "kept", Limits: map[string]int64{"kept": 1}}
	must.NoError(t, DecodeConfig(encoded(t, map[string]any{"ratio": nil, "name": nil, "limits": nil, "half": nil}), &got))
	test.Eq(t, 2, got.Ratio)
	test.Eq(t, "kept", got.Name)
	test.Eq(t, map[string]int64{"kept": 1}, got.Limits)
	test.Nil(t, got.Half)
}

func TestDecodeConfig_keepsEntriesOfAMapApart(t *testing.T) {
	t.Parallel()
	type host struct {
		Name string   `codec:"name"`
		Safe bool     `codec:"safe"`
		More []string `codec:"more"`
		Size *int     `codec:"size"`
	}
	var got struct {
		Hosts map[string]host `codec:"hosts"`
	}
	size := 3
	must.NoError(t, DecodeConfig(encoded(t, map[string]any{"hosts": map[string]any{
		"a": map[string]any{"name": "secret", "safe": nil, "more": []any{"x"}, "size": 3},
		"b": map[string]any{"safe": true, "name": nil},
		"c": map[string]any{},
	}}), &got))
	must.Eq(t, map[string]host{"a": {Name: "secret", More: []string{"x"}, Size: &size}, "b": {Safe: true}, "c": {}}, got.Hosts)
}

func TestDecodeConfig_intoMap(t *testing.T) {
	t.Parallel()
	var got map[string]any
	must.NoError(t, DecodeConfig(encoded(t, map[string]any{"a": []any{"x", map[string]any{"b": true}}}), &got))
	test.Eq(t, map[string]any{"a": []any{"x", map[string]any{"b": true}}}, got)
}

func TestDecodeConfig_refuses(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		config []byte
		into   any
		want   string
	}{
		{"fraction for a whole number", encoded(t, map[string]any{"count": 1.5}), &options{}, `option "count": 1.5 is not a whole number`},
		{"fraction in text for a whole number", encoded(t, map[string]any{"count": "0.1"}), &options{}, `option "count": "0.1" is not a whole number`},
		{"too large", encoded(t, map[string]any{"count": "40000"}), &options{}, `option "count": 40000 is out of range`},
		{"negative for unsigned", encoded(t, map[string]any{"size": "-1"}), &options{}, `option "size"`},
		{"text for a number", encoded(t, map[string]any{"ratio": "many"}), &options{}, `option "ratio": "many" is not a number`},
		{"inside a list", encoded(t, map[string]any{"nested": []any{map[string]any{"N": 1}, map[string]any{"N": "x"}}}), &options{}, `option "nested[1].N"`},
		{"a list for a string", encoded(t, map[string]any{"name": []any{"a"}}), &options{}, "decode configuration"},
		{"no pointer", encoded(t, map[string]any{}), options{}, "not a pointer"},
		{"nil pointer", encoded(t, map[string]any{}), (*options)(nil), "not a pointer"},
		{"cut off", encoded(t, map[string]any{"name": "abc"})[:4], &options{}, "decode msgpack"},
		{"nothing", nil, &options{}, "decode msgpack"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			must.ErrorContains(t, DecodeConfig(tc.config, tc.into), tc.want)
		})
	}
}

func TestState_survivesTheTrip(t *testing.T) {
	t.Parallel()
	type state struct {
		Container string            `codec:"container"`
		Labels    map[string]string `codec:"labels"`
		Started   int64             `codec:"started"`
		Raw       []byte            `codec:"raw"`
		hidden    string
	}
	want := state{Container: "c1", Labels: map[string]string{"a": "b"}, Started: -1 << 62, Raw: []byte{0xff, 0}}
	hiding := want
	hiding.hidden = "never travels"
	bytes, err := EncodeState(hiding)
	must.NoError(t, err)
	var got state
	must.NoError(t, DecodeState(bytes, &got))
	test.Eq(t, want.Container, got.Container)
	test.Eq(t, want.Labels, got.Labels)
	test.Eq(t, want.Started, got.Started)
	test.Eq(t, want.Raw, got.Raw)
	test.Eq(t, "", got.hidden)
	must.ErrorContains(t, DecodeState(nil, &got), "decode driver state")
	must.ErrorContains(t, DecodeState([]byte{0xc1}, &got), "decode driver state")
}

// What an agent, or whoever stands in for it, sends must never end the plugin.
func FuzzDecodeConfig(f *testing.F) {
	f.Add(encoded(f, map[string]any{"ratio": "0.1", "nested": []any{map[string]any{"N": 1}}}))
	f.Add([]byte{0xdf, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(_ *testing.T, config []byte) {
		_ = DecodeConfig(config, &options{})
	})
}

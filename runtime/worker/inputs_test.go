package worker

import (
	"encoding/json"
	"testing"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

func TestEncodeInputs_PutsReferencesAside(t *testing.T) {
	t.Parallel()
	ref := &value.Ref{ID: 4, Repr: "<obj>"}
	deep := value.NewDict()
	deep.Set("k", []any{int64(1), ref})
	deep.Set("p", "q")
	in := encodeInputs([]Input{
		{Name: "plain", Value: []any{nil, true}},
		{Name: "ref", Value: &value.Ref{ID: 3, Record: json.RawMessage(`[1]`)}, Property: "a.b", Source: "n"},
		{Name: "deep", Value: deep},
	})
	test.Eq(t, `{"plain":[null,true],"ref":null,"deep":{"k":[1,null],"p":"q"}}`, string(in.wire))
	must.Eq(t, []inputRef{
		{Path: []any{"ref"}, ID: 3, Property: "a.b", Node: "n"},
		{Path: []any{"deep", "k", 1}, ID: 4},
	}, in.refs)
	k, _ := deep.Get("k")
	test.Eq(t, any(ref), k.([]any)[1]) // the caller's value is as it was

	tool := &Tool{Inputs: []ToolInput{{Name: "lit", Literal: true, Record: `"x"`}, {Name: "deep"}, {Name: "absent"}, {Name: "ref"}}}
	test.Eq(t, `{"lit":"x","deep":{"k":[1,"<obj>"],"p":"q"},"ref":[1],"plain":[null,true]}`, string(in.record(tool, nil)))
	resolved := &reply{parts: map[string][]byte{"inputs": []byte(`{"ref":"NaN"}`)}}
	test.Eq(t, `{"lit":"x","deep":{"k":[1,"<obj>"],"p":"q"},"ref":NaN,"plain":[null,true]}`, string(in.record(tool, resolved)))
}

func TestEncodeInputs_Empty(t *testing.T) {
	t.Parallel()
	in := encodeInputs(nil)
	test.Eq(t, `{}`, string(in.wire))
	test.Eq(t, `{}`, string(in.record(&Tool{}, nil)))
}

package hclspec

import (
	"testing"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	pb "github.com/nomad-promptflow/nomad-promptflow/plugin/proto/hclspec"
)

// What the builders mean is said by the messages they make; what those do to a configuration is the table in plugin/agent.
func TestBuilders(t *testing.T) {
	t.Parallel()
	attr := Attr("a", "string", true)
	tests := []struct {
		name string
		spec *Spec
		want string
	}{
		{"attr", attr, `{"Attr":{"name":"a","type":"string","required":true}}`},
		{"object", Object(map[string]*Spec{"k": attr}), `{"object":{"attributes":{"k":{"Attr":{"name":"a","type":"string","required":true}}}}}`},
		{"array", Array(attr, Literal("1")), `{"array":{"values":[{"Attr":{"name":"a","type":"string","required":true}},{"literal":{"value":"1"}}]}}`},
		{"block", Block("b", true, attr), `{"block_value":{"name":"b","required":true,"nested":{"Attr":{"name":"a","type":"string","required":true}}}}`},
		{"block attrs", BlockAttrs("b", "number", true), `{"block_attrs":{"name":"b","type":"number","required":true}}`},
		{"block list", BlockList("b", 1, 2, attr), `{"block_list":{"name":"b","min_items":"1","max_items":"2","nested":{"Attr":{"name":"a","type":"string","required":true}}}}`},
		{"block set", BlockSet("b", 1, 2, attr), `{"block_set":{"name":"b","min_items":"1","max_items":"2","nested":{"Attr":{"name":"a","type":"string","required":true}}}}`},
		{"block map", BlockMap("b", []string{"l"}, attr), `{"block_map":{"name":"b","labels":["l"],"nested":{"Attr":{"name":"a","type":"string","required":true}}}}`},
		{"default", Default(attr, Literal(`"x"`)), `{"default":{"primary":{"Attr":{"name":"a","type":"string","required":true}},"default":{"literal":{"value":"\"x\""}}}}`},
		{"string", String("s", "x"), `{"default":{"primary":{"Attr":{"name":"s","type":"string"}},"default":{"literal":{"value":"\"x\""}}}}`},
		{"number", Number("n", -3), `{"default":{"primary":{"Attr":{"name":"n","type":"number"}},"default":{"literal":{"value":"-3"}}}}`},
		{"bool", Bool("b", true), `{"default":{"primary":{"Attr":{"name":"b","type":"bool"}},"default":{"literal":{"value":"true"}}}}`},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var want pb.Spec
			must.NoError(t, protojson.Unmarshal([]byte(tc.want), &want))
			test.True(t, proto.Equal(&want, tc.spec), test.Sprint(protojson.Format(tc.spec)))
		})
	}
}

// Inside a default an attribute without its own name is lost, so the shorthands name theirs.
func TestShorthands_nameTheirAttribute(t *testing.T) {
	t.Parallel()
	for _, spec := range []*Spec{String("x", ""), Number("x", 0), Bool("x", false)} {
		test.Eq(t, "x", spec.GetDefault().GetPrimary().GetAttr().GetName())
	}
}

package agent

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"github.com/hashicorp/go-msgpack/v2/codec"
	"github.com/shoenig/test"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/plugin"
	"github.com/nomad-promptflow/nomad-promptflow/plugin/hclspec"
)

// onWire decodes what goes over the wire with nothing but msgpack, so that nothing of ours is between the bytes and the table.
func onWire(t *testing.T, encoded []byte) any {
	t.Helper()
	handle := &codec.MsgpackHandle{}
	handle.RawToString = true
	handle.MapType = reflect.TypeFor[map[string]any]()
	var value any
	must.NoError(t, codec.NewDecoder(bytes.NewReader(encoded), handle).Decode(&value))
	return value
}

func under(name string, spec *hclspec.Spec) *hclspec.Spec {
	return hclspec.Object(map[string]*hclspec.Spec{name: spec})
}

func attr(typ string) *hclspec.Spec { return under("x", hclspec.Attr("x", typ, false)) }

// TestDecodeConfig_encodes is the table of how configuration arrives in a plugin, as it was seen with Nomad's own agent.
func TestDecodeConfig_encodes(t *testing.T) {
	t.Parallel()
	inner := hclspec.Object(map[string]*hclspec.Spec{"k": hclspec.Attr("k", "string", false), "n": hclspec.Number("n", 3)})
	type m = map[string]any
	tests := []struct {
		name   string
		schema *hclspec.Spec
		text   string
		want   any
	}{
		{"every key of the schema is there", hclspec.Object(map[string]*hclspec.Spec{
			"b": hclspec.Attr("b", "string", false), "a": hclspec.Attr("a", "bool", true),
		}), `a = true`, m{"a": true, "b": nil}},

		{"missing string", attr("string"), ``, m{"x": nil}},
		{"missing list", attr("list(string)"), ``, m{"x": nil}},
		{"missing map", attr("map(string)"), ``, m{"x": nil}},
		{"missing block", under("x", hclspec.Block("x", false, inner)), ``, m{"x": nil}},
		{"missing block of attributes", under("x", hclspec.BlockAttrs("x", "string", false)), ``, m{"x": nil}},
		{"missing block list", under("x", hclspec.BlockList("x", 0, 0, inner)), ``, m{"x": []any{}}},
		{"missing block set", under("x", hclspec.BlockSet("x", 0, 0, inner)), ``, m{"x": []any{}}},
		{"missing block map", under("x", hclspec.BlockMap("x", []string{"name"}, inner)), ``, m{"x": m{}}},

		{"default of a missing value", under("x", hclspec.String("x", "d")), ``, m{"x": "d"}},
		{"default with everything in it", under("x", hclspec.String("x", "a\"b\\c\n${d} %{e} \x07é")), ``, m{"x": "a\"b\\c\n${d} %{e} \x07é"}},
		{"default of null", under("x", hclspec.String("x", "d")), `x = null`, m{"x": "d"}},
		{"no default where there is a value", under("x", hclspec.String("x", "d")), `x = ""`, m{"x": ""}},
		{"default of a block", under("x", hclspec.Default(hclspec.Block("x", false, inner), hclspec.Literal(`{ k = upper("a"), n = max(1, 2) }`))), ``, m{"x": m{"k": "A", "n": int64(2)}}},

		{"whole number", attr("number"), `x = 42`, m{"x": int64(42)}},
		{"negative number", attr("number"), `x = -7`, m{"x": int64(-7)}},
		{"fraction that float64 holds", attr("number"), `x = 1.5`, m{"x": 1.5}},
		{"fraction that float64 does not hold", attr("number"), `x = 0.1`, m{"x": "0.1"}},
		{"number beyond 64 bits", attr("number"), `x = 123456789012345678901234567890`, m{"x": "123456789012345678901234567890"}},
		{"number in quotes", attr("number"), `x = "7"`, m{"x": int64(7)}},
		{"bool in quotes", attr("bool"), `x = "true"`, m{"x": true}},
		{"number for a string", attr("string"), `x = 7`, m{"x": "7"}},
		{"bool for a string", attr("string"), `x = false`, m{"x": "false"}},

		{"any: string", attr("any"), `x = "s"`, m{"x": "s"}},
		{"any: number", attr("any"), `x = 3`, m{"x": int64(3)}},
		{"any: list", attr("any"), `x = ["a", 1, null]`, m{"x": []any{"a", int64(1), nil}}},
		{"any: object", attr("any"), `x = { a = { b = true } }`, m{"x": m{"a": m{"b": true}}}},

		{"list", attr("list(string)"), `x = ["a", "b"]`, m{"x": []any{"a", "b"}}},
		{"empty list", attr("list(string)"), `x = []`, m{"x": []any{}}},
		{"set", attr("set(string)"), `x = ["b", "a", "b"]`, m{"x": []any{"a", "b"}}},
		{"tuple", attr("tuple([string, number])"), `x = ["a", 2]`, m{"x": []any{"a", int64(2)}}},
		{"object type", attr("object({a = string})"), `x = { a = "b" }`, m{"x": m{"a": "b"}}},

		{"list of maps: block", attr("list(map(string))"), `x { k = "v" }`, m{"x": []any{m{"k": "v"}}}},
		{"list of maps: two blocks", attr("list(map(string))"), "x { k = \"v\" }\nx { k = \"w\" }", m{"x": []any{m{"k": "v"}, m{"k": "w"}}}},
		{"list of maps: list", attr("list(map(string))"), `x = [{ k = "v" }]`, m{"x": []any{m{"k": "v"}}}},
		{"map: object", attr("map(string)"), `x = { k = "v" }`, m{"x": m{"k": "v"}}},
		{"map: quoted and computed keys", attr("map(string)"), `x = { "a.b" = 1, (lower("K")) = "v" }`, m{"x": m{"a.b": "1", "k": "v"}}},
		{"block of attributes: block", under("x", hclspec.BlockAttrs("x", "string", false)), `x { k = "v" }`, m{"x": m{"k": "v"}}},
		{"block of attributes: object", under("x", hclspec.BlockAttrs("x", "string", false)), `x = { k = "v" }`, m{"x": m{"k": "v"}}},
		{"block of attributes: numbers", under("x", hclspec.BlockAttrs("x", "number", false)), `x { nofile = "1024" }`, m{"x": m{"nofile": uint64(1024)}}},
		{"block: block", under("x", hclspec.Block("x", false, inner)), `x { k = "v" }`, m{"x": m{"k": "v", "n": int64(3)}}},
		{"block: object", under("x", hclspec.Block("x", false, inner)), `x = { k = "v", n = 4 }`, m{"x": m{"k": "v", "n": int64(4)}}},
		{"block list: blocks", under("x", hclspec.BlockList("x", 0, 0, inner)), "x { k = \"v\" }\nx {}", m{"x": []any{m{"k": "v", "n": int64(3)}, m{"k": nil, "n": int64(3)}}}},
		{"block list: objects", under("x", hclspec.BlockList("x", 0, 0, inner)), `x = [{ k = "v" }, { k = "w" }]`, m{"x": []any{m{"k": "v", "n": int64(3)}, m{"k": "w", "n": int64(3)}}}},
		{"block set: blocks", under("x", hclspec.BlockSet("x", 0, 0, inner)), "x { k = \"v\" }\nx { k = \"v\" }", m{"x": []any{m{"k": "v", "n": int64(3)}}}},
		{"block map: blocks", under("x", hclspec.BlockMap("x", []string{"name"}, inner)), "x \"a\" { k = \"v\" }\nx \"b\" {}", m{"x": m{"a": m{"k": "v", "n": int64(3)}, "b": m{"k": nil, "n": int64(3)}}}},
		{"block map: two labels", under("x", hclspec.BlockMap("x", []string{"l", "m"}, inner)), "x \"a\" \"b\" { k = \"v\" }", m{"x": m{"a": m{"b": m{"k": "v", "n": int64(3)}}}}},
		{"array", under("x", hclspec.Array(hclspec.Literal(`1`), hclspec.Attr("a", "string", false))), `a = "v"`, m{"x": []any{int64(1), "v"}}},
		{"name that the key implies", under("x", hclspec.Attr("", "string", false)), `x = "v"`, m{"x": "v"}},
		{"name that is not the key", under("x", hclspec.Attr("y", "string", false)), `y = "v"`, m{"x": "v"}},

		{"functions", attr("list(string)"), `x = [upper("a"), "${length([1, 2])}", jsonencode({ a = 1 }), substr("hello", 1, 3), coalesce(null, "c")]`, m{"x": []any{"A", "2", `{"a":1}`, "ell", "c"}}},
		{"node attributes", attr("string"), `x = "on ${attr.kernel.name} in ${meta.rack}, ${node.datacenter}"`, m{"x": "on linux in r1, dc9"}},
		{"an attribute above others yields", attr("string"), `x = "${attr.driver.docker.version}"`, m{"x": "24"}},
		{"task environment", attr("string"), `x = "${NOMAD_TASK_DIR}/a"`, m{"x": "/local/a"}},
		{"environment by name", attr("string"), `x = "${env["NOMAD_TASK_DIR"]}"`, m{"x": "/local"}},
		{"conditional", attr("string"), `x = attr.kernel.name == "linux" ? "yes" : "no"`, m{"x": "yes"}},
		{"template directive", attr("string"), `x = "a%{ if meta.rack == "r1" }b%{ endif }"`, m{"x": "ab"}},
		{"heredoc", attr("string"), "x = <<EOT\nl1 ${meta.rack}\nl2\nEOT\n", m{"x": "l1 r1\nl2\n"}},
		{"escaped template", attr("string"), `x = "$${a} %%{b} $$${meta.rack} <&>"`, m{"x": "${a} %{b} $${meta.rack} <&>"}},
		{"escaped template in a key", attr("map(string)"), `x = { "$${a}" = "b" }`, m{"x": m{"${a}": "b"}}},
	}
	vars := map[string]string{
		"attr.kernel.name": "linux", "attr.driver.docker": "1", "attr.driver.docker.version": "24", "meta.rack": "r1",
		"node.datacenter": "dc9", "NOMAD_TASK_DIR": "/local", "odd..name": "x",
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			encoded, err := DecodeConfig(tc.schema, tc.text, vars)
			must.NoError(t, err)
			test.Eq(t, tc.want, onWire(t, encoded))
		})
	}
}

func TestDecodeConfig_sortsKeys(t *testing.T) {
	t.Parallel()
	encoded, err := DecodeConfig(attr("map(string)"), `x = { c = 1, a = 2, b = 3 }`, nil)
	must.NoError(t, err)
	test.Eq(t, "\x81\xa1x\x83\xa1a\xa12\xa1b\xa13\xa1c\xa11", string(encoded))
}

func TestDecodeConfig_refuses(t *testing.T) {
	t.Parallel()
	inner := hclspec.Object(map[string]*hclspec.Spec{"k": hclspec.Attr("k", "number", true)})
	tests := []struct {
		name   string
		schema *hclspec.Spec
		text   string
		want   []string
	}{
		{"block syntax for a map", attr("map(string)"), "\n  x { k = \"v\" }", []string{`option "x" at line 2, column 3`, "map of string required"}},
		{"an object for a list of maps", attr("list(map(string))"), `x = { k = "v" }`, []string{`option "x" at line 1, column 1`, "list of map of string required"}},
		{"unknown option", attr("string"), "x = \"a\"\ntypo = 1", []string{`option "typo" at line 2, column 1`, `No argument or block type is named "typo"`}},
		{"wrong type", attr("number"), "# size\nx = \"many\"", []string{`option "x" at line 2, column 1`, "a number is required"}},
		{"wrong type inside a list", attr("list(number)"), "x = [\n1,\n\"two\"]", []string{`option "x" at line 1, column 1`, "number"}},
		{"wrong type inside a block", under("b", hclspec.Block("b", false, inner)), "b {\n  k = \"many\"\n}", []string{`option "b.k" at line 2, column 3`}},
		{"missing option", under("x", hclspec.Attr("x", "string", true)), "# nothing\n", []string{"line 2, column 1", `The argument "x" is required`}},
		{"missing option inside a block", under("b", hclspec.Block("b", false, inner)), "\nb {}", []string{`option "b" at line 2, column 1`, `The argument "k" is required`}},
		{"missing option inside the second block", under("b", hclspec.BlockList("b", 0, 0, inner)), "b { k = 1 }\nb {}", []string{`option "b" at line 2, column 1`}},
		{"missing block", under("b", hclspec.Block("b", true, inner)), ``, []string{"line 1, column 1", `"b"`}},
		{"too many blocks", under("b", hclspec.BlockList("b", 0, 1, inner)), "b { k = 1 }\nb { k = 2 }", []string{`"b"`}},
		{"a block twice", under("b", hclspec.Block("b", false, inner)), "b { k = 1 }\nb { k = 2 }", []string{`option "b" at line 1, column 1: Duplicate b block: Only one block of type "b" is allowed.`}},
		{"block and attribute of one name", attr("any"), "x = 1\nx {}", []string{`option "x" at line 2, column 1`}},
		{"unknown variable", attr("string"), `x = "${attr.nothing}"`, []string{`option "x" at line 1, column 8`, `no variable named "attr"`}},
		{"function that agents do not have", attr("string"), `x = file("/etc/passwd")`, []string{`option "x" at line 1, column 5`, "file"}},
		{"no HCL", attr("string"), "x = \"a\"\ny = = 2", []string{"line 2, column 5"}},
		{"no schema", nil, ``, []string{"no schema"}},
		{"empty schema", &hclspec.Spec{}, ``, []string{"schema"}},
		{"attribute without a name inside a default", under("x", hclspec.Default(hclspec.Attr("", "string", false), hclspec.Literal(`"a"`))), ``, []string{"has no name"}},
		{"schema with a type that is none", attr("list(strings)"), ``, []string{`type "list(strings)"`}},
		{"schema with a literal that is none", under("x", hclspec.Default(hclspec.Attr("x", "string", false), hclspec.Literal(`"a`))), ``, []string{"literal"}},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, err := DecodeConfig(tc.schema, tc.text, nil)
			must.Error(t, err)
			for _, want := range tc.want {
				test.StrContains(t, err.Error(), want)
			}
			test.False(t, strings.Contains(err.Error(), "\n"), test.Sprint(err))
		})
	}
}

// The whole way: from text through the schema and the wire into a plugin's struct.
func TestDecodeConfig_reachesStructs(t *testing.T) {
	t.Parallel()
	type mount struct {
		Target   string `codec:"target"`
		ReadOnly bool   `codec:"readonly"`
	}
	type config struct {
		Ratio   float64            `codec:"ratio"`
		Half    float32            `codec:"half"`
		Count   int                `codec:"count"`
		Big     uint64             `codec:"big"`
		Weights map[string]float64 `codec:"weights"`
		Parts   []float64          `codec:"parts"`
		Labels  map[string]string  `codec:"labels"`
		Mounts  []mount            `codec:"mount"`
		Name    string             `codec:"name"`
		Kept    string             `codec:"kept"`
	}
	schema := hclspec.Object(map[string]*hclspec.Spec{
		"ratio": hclspec.Attr("ratio", "number", false), "half": hclspec.Attr("half", "number", false),
		"count": hclspec.Attr("count", "number", false), "big": hclspec.Attr("big", "number", false),
		"weights": hclspec.BlockAttrs("weights", "number", false), "parts": hclspec.Attr("parts", "list(number)", false),
		"labels": hclspec.BlockAttrs("labels", "string", false), "name": hclspec.Attr("name", "string", false),
		"kept": hclspec.Attr("kept", "string", false),
		"mount": hclspec.BlockList("mount", 0, 0, hclspec.Object(map[string]*hclspec.Spec{
			"target": hclspec.Attr("target", "string", true), "readonly": hclspec.Bool("readonly", true),
		})),
	})
	encoded, err := DecodeConfig(schema, `
		ratio = 0.1
		half  = 0.5
		count = 7
		big   = 18446744073709551615
		weights { a = 0.3 }
		parts = [1, 0.7, 0.5]
		labels { version = "0.1" }
		name  = 0.1
		mount { target = "/a" }
		mount {
			target   = "/b"
			readonly = false
		}
	`, nil)
	must.NoError(t, err)
	got := config{Kept: "as it was"}
	must.NoError(t, plugin.DecodeConfig(encoded, &got))
	test.Eq(t, config{
		Ratio: 0.1, Half: 0.5, Count: 7, Big: 18446744073709551615, Weights: map[string]float64{"a": 0.3}, Parts: []float64{1, 0.7, 0.5},
		Labels: map[string]string{"version": "0.1"}, Name: "0.1", Kept: "as it was",
		Mounts: []mount{{Target: "/a", ReadOnly: true}, {Target: "/b"}},
	}, got)
}

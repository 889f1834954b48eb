package flow

import (
	"errors"
	"testing"
	"testing/fstest"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

func one(name, text string) fstest.MapFS { return fstest.MapFS{name: {Data: []byte(text)}} }

func TestLoad_readsAFlexFlow(t *testing.T) {
	t.Parallel()
	f, err := Load(one("flow.flex.yaml", `
entry: pkg.mod:Class
code: ./src
additional_includes: [../x]
environment_variables: {A: 1}
inputs: {q: {type: string, default: hi}}
outputs: {o: {type: object}}
init:
  n: {type: int, default: 3}
  c: {type: AzureOpenAIConnection}
  m: {type: OpenAIModelConfiguration}
sample: {inputs: {q: x}}
`))
	must.NoError(t, err)
	test.Eq(t, Flex, f.Form)
	test.Eq(t, "pkg.mod:Class", f.Entry)
	test.Eq(t, "src", f.Code)
	test.Eq(t, map[string]string{"A": "1"}, f.Environment())
	test.Eq[any](t, "hi", f.Input("q").Default)
	test.Eq(t, "object", f.Output("o").Type)
	var types []string
	for _, in := range f.Init {
		types = append(types, in.Type)
	}
	test.Eq(t, []string{"int", "AzureOpenAIConnection", "OpenAIModelConfiguration"}, types)

	f, err = Load(one("flow.dag.yaml", "entry: a:b\n")) // the entry makes it one, not the name
	must.NoError(t, err)
	test.Eq(t, Flex, f.Form)
}

func TestLoad_readsAPrompty(t *testing.T) {
	t.Parallel()
	f, err := Load(one("card.prompty", "\ufeff---\r\nname: My Card\r\nmodel:\r\n  api: chat\r\ninputs:\r\n  q: {type: string, default: x}\r\n---\r\nsystem:\r\n{{q}}\r\n"))
	must.NoError(t, err)
	test.Eq(t, Prompty, f.Form)
	test.Eq(t, "My Card", f.Name)
	test.Eq(t, "system:\n{{q}}\n", f.Card.Template)
	test.Eq(t, `{"name":"My Card","model":{"api":"chat"},"inputs":{"q":{"type":"string","default":"x"}}}`, string(value.Encode(f.Card.Config)))
	test.Eq(t, 6, f.Input("q").Line)

	// The front matter reaches to the last line of dashes, as in prompt flow.
	f, err = LoadWith(one("a/b.prompty", "text\n----\na: 1\n---\nb: [2\n---\nuser:\n"), Options{File: "a/b.prompty"})
	e := failure(t, err)
	test.Eq(t, "YAMLError", e.Class())
	test.Nil(t, f)
	f, err = LoadWith(one("a/b.prompty", "text\n----\na: 1\n# ---\n---\nuser:\n"), Options{File: "./a/b.prompty"})
	must.NoError(t, err)
	test.Eq(t, "b", f.Name)
	test.Eq(t, "user:\n", f.Card.Template)
}

func TestLoadWith_refusesByNameAndLine(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name, file, text, class, says string
		line                          int
	}{
		{"entry no text", "f.yaml", "\nentry: [1]\n", "InvalidFlexFlowEntry", "Invalid entry '[1]'.", 2},
		{"entry without function", "f.yaml", "entry: a.b\n", "InvalidFlexFlowEntry", "Invalid entry 'a.b'.", 1},
		{"entry with too much", "f.yaml", "entry: a:b:c\n", "InvalidFlexFlowEntry", "Invalid entry 'a:b:c'.", 1},
		{"csharp", "f.yaml", "language: csharp\nentry: (A)B.C\n", "NotSupported", "The language 'csharp'", 1},
		{"code outside", "f.yaml", "entry: a:b\ncode: ../x\n", "FlowDefinitionError", "The code folder '../x' is outside of the flow folder", 2},
		{"code absolute", "f.yaml", "entry: a:b\ncode: /x\n", "FlowDefinitionError", "is outside of the flow folder", 2},
		{"init type", "f.yaml", "entry: a:b\ninit: {x: {type: strng}}\n", "FlowDefinitionError", "'strng' is not a valid ValueType for the init argument 'x'", 2},
		{"input type", "f.yaml", "entry: a:b\ninputs: {x: {}}\n", "FlowDefinitionError", "The flow input 'x' has no 'type'", 2},
		{"front matter", "f.prompty", "---\na: [\n---\n", "YAMLError", "f.prompty", 2},
		{"front matter no mapping", "f.prompty", "---\n- a\n---\n", "FlowDefinitionError", "is not a mapping", 1},
		{"prompty input", "f.prompty", "---\ninputs:\n  a: 5\n---\n", "FlowDefinitionError", "The flow input 'a' has no 'type'", 3},
		{"prompty no text", "f.prompty", "---\n\xff\n---\n", api.UserError, "is not UTF-8", 0},
		{"file outside", "../f.yaml", "", api.UserError, "The flow file ../f.yaml is outside of the flow folder", 0},
		{"file missing", "g.yaml", "", api.UserError, "Flow file g.yaml does not exist", 0},
		{"file of another kind", "f.txt", "", api.UserError, "The flow file suffix must be yaml, yml or prompty; cannot be .txt", 0},
	}
	for _, tc := range cases {
		dir := fstest.MapFS{"flow.dag.yaml": {}}
		if tc.text != "" {
			dir = one(tc.file, tc.text)
		}
		_, err := LoadWith(dir, Options{File: tc.file})
		must.Error(t, err, must.Sprint(tc.name))
		e := failure(t, err)
		test.Eq(t, tc.class, e.Class(), test.Sprint(tc.name))
		test.StrContains(t, e.Message, tc.says, test.Sprint(tc.name))
		if tc.line > 0 {
			must.NotNil(t, e.Location, must.Sprint(tc.name))
			test.Eq(t, tc.line, e.Location.Line, test.Sprint(tc.name))
		}
	}
}

const variantFlow = `
nodes:
- {name: plain, type: prompt, source: {type: code, path: p}}
- {name: a, use_variants: true}
- {name: b, use_variants: true}
node_variants:
  a: {default_variant_id: v0, variants: {v0: {node: {type: prompt, source: {path: a0}}}, v1: {node: {type: prompt, source: {path: a1}}}}}
  b: {default_variant_id: v0, variants: {v0: {node: {type: prompt, source: {path: b0}}}}}
  plain: {default_variant_id: v0, variants: {v0: {node: {type: prompt, source: {path: other}}}}}
`

func TestLoadWith_choosesAVariant(t *testing.T) {
	t.Parallel()
	for variant, want := range map[string][]string{
		"":              {"p", "a0", "b0"},
		"${a.v1}":       {"p", "a1", "b0"},
		`"${a.v1}"`:     {"p", "a1", "b0"},
		"'${a.v1}'":     {"p", "a1", "b0"},
		"${a.v0}":       {"p", "a0", "b0"},
		"${plain.v0}":   {"p", "a0", "b0"}, // it uses no variants
		"${a.v1} extra": {"p", "a1", "b0"}, // prompt flow looks at the beginning only
	} {
		f, err := LoadWith(folder(variantFlow), Options{Variant: variant})
		must.NoError(t, err, must.Sprint(variant))
		var paths []string
		for _, n := range f.Nodes {
			paths = append(paths, n.Source.Path)
		}
		test.Eq(t, want, paths, test.Sprint(variant))
	}
}

func TestLoadWith_refusesVariantsInPromptFlowsWords(t *testing.T) {
	t.Parallel()
	cases := []struct{ name, yaml, variant, text string }{
		{"syntax", variantFlow, "a.v1", "Invalid variant format: a.v1, variant should be in format of ${TUNING_NODE.VARIANT}"},
		{"node", variantFlow, "${c.v1}", "Node c not found in flow"},
		{"variant", variantFlow, "${a.v2}", "Variant v2 not found for node a"},
		{"no variants", "nodes: [{name: a, use_variants: true}]\n", "${a.v}", "Variant v not found for node a"},
		{"other without variants", "nodes: [{name: a, use_variants: true}, {name: o, use_variants: true}]\nnode_variants: {a: {variants: {v: {node: {}}}}}\n", "${a.v}", "No variant for the node o."},
		{
			"other without default", "nodes: [{name: a}, {name: o, use_variants: true}]\nnode_variants: {a: {variants: {v: {node: {}}}}, o: {variants: {v: {node: {}}}}}\n", "${a.v}",
			"Default variant id is not specified for o.",
		},
		{
			"other with a wrong default", "nodes: [{name: a}, {name: o, use_variants: true}]\nnode_variants: {a: {variants: {v: {node: {}}}}, o: {default_variant_id: w, variants: {v: {node: {}}}}}\n",
			"${a.v}", "Cannot find the variant w for o.",
		},
	}
	for _, tc := range cases {
		_, err := LoadWith(folder(tc.yaml), Options{Variant: tc.variant})
		e := failure(t, err)
		test.Eq(t, tc.text, e.Message, test.Sprint(tc.name))
		if tc.name != "syntax" {
			test.Eq(t, []string{"UserError", "SDKError", "InvalidFlowError"}, e.Chain())
		}
	}
}

func TestIncludes(t *testing.T) {
	t.Parallel()
	includes, err := Includes(one("flow.dag.yaml", "additional_includes:\n- ../a.py\n-  5\n"), "")
	must.NoError(t, err)
	test.Eq(t, []Include{{"../a.py", Place{"flow.dag.yaml", 2, 3}}, {"5", Place{"flow.dag.yaml", 3, 4}}}, includes)
	for _, dir := range []fstest.MapFS{one("flow.flex.yaml", "entry: a:b\nadditional_includes:\n"), one("a.prompty", "---\nadditional_includes: [x]\n---\n")} {
		includes, err = Includes(dir, "")
		must.NoError(t, err)
		test.SliceEmpty(t, includes)
	}
	_, err = Includes(one("flow.dag.yaml", "a: 1\nadditional_includes: x\n"), "")
	test.Eq(t, 2, failure(t, err).Location.Line)
}

func FuzzLoadPrompty(f *testing.F) {
	f.Add([]byte("---\nname: a\nmodel: {api: chat, configuration: {type: openai}}\ninputs: {a: {type: int}}\n---\nuser:\n{{a}}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		_, err := Load(fstest.MapFS{"a.prompty": {Data: text}})
		var e *api.Error
		if err != nil && !errors.As(err, &e) {
			t.Fatalf("not an api.Error: %v", err)
		}
	})
}

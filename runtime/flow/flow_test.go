package flow

import (
	"errors"
	"io/fs"
	"testing"
	"testing/fstest"
	"time"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

func folder(yaml string) fstest.MapFS {
	return fstest.MapFS{"flow.dag.yaml": {Data: []byte(yaml)}}
}

func load(t *testing.T, yaml string) *Flow {
	t.Helper()
	f, err := Load(folder(yaml))
	must.NoError(t, err)
	return f
}

func failure(t *testing.T, err error) *api.Error {
	t.Helper()
	var e *api.Error
	must.True(t, errors.As(err, &e), must.Sprintf("%v", err))
	return e
}

func TestLoad_readsEverything(t *testing.T) {
	t.Parallel()
	f := load(t, `
id: my_id
name: my flow
environment_variables: {A: 1, B: [1, x], C: {k: 2.50}, D: true}
inputs:
  text: {type: string, default: hi, is_chat_input: true}
  chat_history: {type: list}
outputs:
  o: {type: string, reference: "${b.output.x}", evaluation_only: true, is_chat_output: true}
nodes:
- name: a
  type: python
  source: {type: code, path: a.py}
  inputs: {x: "${inputs.text}", y: 3, z: "${flow.text}", w: "a ${inputs.text}"}
- name: b
  use_variants: true
- name: c
  type: llm
  source: {type: code, path: c.jinja2}
  connection: conn
  api: chat
  provider: AzureOpenAI
  module: promptflow.tools.aoai
  reduce: true
  activate: {when: "${a.output}", is: 1}
node_variants:
  b:
    default_variant_id: v1
    variants:
      v0: {node: {type: python, source: {path: b0.py}}}
      v1: {node: {type: prompt, source: {type: code, path: b1.jinja2}, inputs: {q: "${a.output.['x'][0]}"}}}
`)
	test.Eq(t, "my_id", f.ID)
	test.Eq(t, map[string]string{"A": "1", "B": `[1, "x"]`, "C": `{"k": 2.5}`, "D": "True"}, f.Environment())
	test.True(t, f.Inputs[1].IsChatHistory)
	test.Eq(t, Reference{Kind: FlowInput, Name: "text"}, f.Nodes[0].Inputs[0].Reference)
	test.Eq(t, Reference{Kind: Literal, Literal: int64(3)}, f.Nodes[0].Inputs[1].Reference)
	test.Eq(t, Reference{Kind: FlowInput, Name: "text"}, f.Nodes[0].Inputs[2].Reference)
	test.Eq(t, Literal, f.Nodes[0].Inputs[3].Kind)
	b := f.Node("b")
	test.Eq(t, Prompt, b.Type)
	test.Eq(t, "b1.jinja2", b.Source.Path)
	test.Eq(t, Reference{Kind: NodeOutput, Name: "a", Section: "output", Property: "['x'][0]"}, b.Inputs[0].Reference)
	test.Eq(t, 31, b.Line)
	name, _ := b.Raw.Get("name")
	test.Eq[any](t, "b", name)
	c := f.Node("c")
	test.True(t, c.Aggregation && f.HasAggregation())
	test.Eq[any](t, int64(1), c.Activate.Is)
	test.Eq(t, []string{"conn", "chat", "promptflow.tools.aoai"}, []string{c.Connection, c.API, c.Module})
	test.True(t, f.Outputs[0].EvaluationOnly)
}

func TestLoad_refusesByNameAndLine(t *testing.T) {
	t.Parallel()
	node := "nodes:\n- name: n\n  type: python\n  source: {path: n.py}\n"
	cases := []struct {
		name, yaml, class, text string
		line                    int
	}{
		{"csharp", "language: csharp\n", "NotSupported", "The language 'csharp'", 1},
		{"action", "nodes:\n- name: n\n  type: action\n", "NotSupported", "Node 'n' of type action (line 2)", 2},
		{"number as key", "inputs:\n  1: {type: int}\n", "NotSupported", "the key 1 is of type int", 2},
		{"date", node + "  inputs:\n    d: 2024-01-01\n", "NotSupported", "the unquoted date 2024-01-01", 6},
		{"activate", node + "  activate:\n    when: 1\n", "FlowDefinitionError", "The definition of activate config for node n is incorrect. Please check your flow yaml and resubmit.", 5},
		{"activate null", node + "  activate:\n", "FlowDefinitionError", "The definition of activate config for node n", 5},
		{"tool type", "nodes:\n- name: n\n  type: pyton\n", "FlowDefinitionError", "'pyton' is not a valid ToolType", 3},
		{"no name", "nodes:\n- type: python\n", "FlowDefinitionError", "has no name", 2},
		{"no type", "inputs:\n  a: {default: 1}\n", "FlowDefinitionError", "The flow input 'a' has no 'type'", 2},
		{"value type", "inputs:\n  a: {type: integer}\n", "FlowDefinitionError", "'integer' is not a valid ValueType", 2},
		{"output type", "outputs:\n  a: {reference: x}\n", "FlowDefinitionError", "The flow output 'a' has no 'type'", 2},
		{"a list", "- a\n", "FlowDefinitionError", "not a mapping", 1},
		{"nodes no list", "nodes: {a: 1}\n", "FlowDefinitionError", "is not a list", 1},
		{"variants", "node_variants:\n  n: {default_variant_id: x}\n", "FlowDefinitionError", "have no 'variants'", 2},
		{"yaml", "a: [1\n", "YAMLError", "Error while parsing yaml file: flow.dag.yaml", 1},
		{"duplicate", "nodes:\ninputs:\nnodes:\n", "YAMLError", "duplicate key", 3},
	}
	for _, tc := range cases {
		_, err := Load(folder(tc.yaml))
		must.Error(t, err, must.Sprint(tc.name))
		e := failure(t, err)
		test.Eq(t, tc.class, e.Class(), test.Sprint(tc.name))
		test.Eq(t, api.UserError, e.Code)
		test.StrContains(t, e.Message, tc.text, test.Sprint(tc.name))
		must.NotNil(t, e.Location, must.Sprint(tc.name))
		test.Eq(t, tc.line, e.Location.Line, test.Sprint(tc.name))
	}
}

func TestLoad_findsTheOneFlow(t *testing.T) {
	t.Parallel()
	file := &fstest.MapFile{}
	cases := []struct {
		name        string
		dir         fstest.MapFS
		class, text string
	}{
		{"nothing", fstest.MapFS{"readme": file}, api.UserError, "Have found neither flow.dag.yaml nor flow.flex.yaml"},
		{"two", fstest.MapFS{"flow.dag.yaml": file, "flow.flex.yaml": file}, "ValidationError", "Multiple files flow.dag.yaml, flow.flex.yaml exist"},
		{"two prompty", fstest.MapFS{"a.prompty": file, "b.prompty": file}, api.UserError, "and there are more than 1 prompty file. Please name one of a.prompty, b.prompty."},
		{"empty prompty", fstest.MapFS{"a.prompty": file}, api.UserError, "Illegal formatting of prompty."},
		{"empty flex", fstest.MapFS{"flow.flex.yaml": file}, "InvalidFlexFlowEntry", "Invalid entry ''.The entry should be in the format of '<module>:<function>'."},
	}
	for _, tc := range cases {
		_, err := Load(tc.dir)
		e := failure(t, err)
		test.Eq(t, tc.class, e.Class(), test.Sprint(tc.name))
		test.StrContains(t, e.Message, tc.text)
	}
	f, err := Load(fstest.MapFS{"flow.dag.yml": file})
	must.NoError(t, err)
	test.Eq(t, "default_flow_id", f.ID)
}

func TestParseReference(t *testing.T) {
	t.Parallel()
	cases := map[string]Reference{
		"${inputs.a.b}":   {Kind: FlowInput, Name: "a.b"},
		"${flow.a}":       {Kind: FlowInput, Name: "a"},
		"${n}":            {Kind: NodeOutput, Name: "n", Section: "output"},
		"${n.output}":     {Kind: NodeOutput, Name: "n", Section: "output"},
		"${n.output.a.b}": {Kind: NodeOutput, Name: "n", Section: "output", Property: "a.b"},
		"${n.error}":      {Kind: NodeOutput, Name: "n", Section: "error"},
		"${}":             {Kind: NodeOutput, Section: "output"},
		"x ${n.output}":   {Literal: "x ${n.output}"},
		"${n.output} ":    {Literal: "${n.output} "},
		"$n":              {Literal: "$n"},
		"${":              {Literal: "${"},
		"${inputs}":       {Kind: NodeOutput, Name: "inputs", Section: "output"},
	}
	for text, want := range cases {
		test.Eq(t, want, ParseReference(text), test.Sprint(text))
	}
	test.Eq(t, "${n.output.a.b}", ParseReference("${n.output.a.b}").String())
	test.Eq(t, "${n.output}", ParseReference("${n}").String())
	test.Eq(t, "${flow.x}", ParseReference("${inputs.x}").String())
}

func TestProperty(t *testing.T) {
	t.Parallel()
	v, err := value.Decode([]byte(`{"a":{"b.c d":[10,{"k":"v"}],"é":1},"1":"one","s":"日本"}`))
	must.NoError(t, err)
	good := map[string]string{
		"a['b.c d'][0]": "10", "a['b.c d'][1].k": "'v'", `a["é"]`: "1", "['1']": "'one'", "1": "'one'", "s[1]": "'本'", "": value.Repr(v),
	}
	for property, want := range good {
		got, rest, err := Property("n", v, property)
		must.NoError(t, err, must.Sprint(property))
		test.Eq(t, want, value.Repr(got), test.Sprint(property))
		test.Eq(t, "", rest)
	}
	for _, property := range []string{"x", "a.x", "a['b.c d'][2]", "a['b.c d'].k", "s[9]", "[0]", "a-x"} {
		_, _, err := Property("n", v, property)
		e := failure(t, err)
		test.Eq(t, []string{"UserError", "NodeReferenceError", "InvalidReferenceProperty"}, e.Chain(), test.Sprint(property))
		test.Eq(t, "Flow execution failed. Invalid property '"+property+"' when accessing the node 'n'. Please check the property and try again.", e.Message)
	}
	_, _, err = Property("n", nil, "[0]")
	e := failure(t, err)
	test.Eq(t, []string{"SystemError", "TypeError"}, e.Chain())
	test.Eq(t, "'NoneType' object is not subscriptable", e.Message)
	ref := &value.Ref{ID: 3}
	d := value.NewDict()
	d.Set("o", ref)
	got, rest, err := Property("n", d, "o.x[0]")
	must.NoError(t, err)
	test.True(t, got == any(ref))
	test.Eq(t, "x[0]", rest)
}

func TestCheck_refusesInPromptFlowsOrder(t *testing.T) {
	t.Parallel()
	py := "type: python, source: {path: n.py}"
	cases := []struct {
		name, yaml, class, text string
		line                    int
	}{
		{"duplicate", "nodes:\n- {name: a, " + py + "}\n- {name: a, " + py + ", inputs: {x: \"${b}\"}}\n", "DuplicateNodeName", "Node with name 'a' appears more than once", 3},
		{"input", "nodes:\n- name: a\n  inputs:\n    x: ${inputs.no}\n    y: ${gone}\n", "InputReferenceNotFound", "Node 'a' references flow input 'no' which is not defined", 4},
		{"node", "nodes:\n- name: a\n  inputs:\n    y: ${gone.output}\n", "NodeReferenceNotFound", "Node 'a' references a non-existent node 'gone'", 4},
		{"activate node", "nodes:\n- name: a\n  activate: {when: \"${gone}\", is: 1}\n", "NodeReferenceNotFound", "non-existent node 'gone'", 3},
		{"cycle", "nodes:\n- {name: z, inputs: {x: \"${b}\"}}\n- {name: ok}\n- {name: b, inputs: {x: \"${z}\"}}\n- {name: after, inputs: {x: \"${b}\"}}\n", "NodeCircularDependency", "for the nodes ['after', 'b', 'z'] and resolve", 2},
		{"aggregation", "nodes:\n- {name: g, aggregation: true}\n- {name: a, inputs: {x: \"${g}\"}}\n", "InvalidNodeReference", "Non-aggregate node 'a' cannot reference aggregate nodes {'g'}.", 3},
		{"activate of aggregation", "nodes:\n- {name: a}\n- {name: g, aggregation: true, activate: {when: \"${a}\", is: 1}}\n", "InvalidNodeReference", "Non-aggregation node 'a' cannot be referenced in the activate config of the aggregation node 'g'", 3},
		{"empty output", "outputs:\n  o: {type: string}\n", "EmptyOutputReference", "The reference is not specified for the output 'o'", 2},
		{"output input", "outputs:\n  o: {type: string, reference: \"${inputs.no}\"}\n", "OutputReferenceNotFound", "references non-existent flow input 'no'", 2},
		{"output node", "outputs:\n  o: {type: string, reference: \"${no.output}\"}\n", "OutputReferenceNotFound", "references non-existent node 'no'", 2},
	}
	for _, tc := range cases {
		_, _, err := load(t, tc.yaml).Check()
		e := failure(t, err)
		test.Eq(t, []string{"UserError", "ValidationError", "InvalidFlowRequest", tc.class}, e.Chain(), test.Sprint(tc.name))
		test.StrContains(t, e.Message, tc.text, test.Sprint(tc.name))
		test.Eq(t, tc.line, e.Location.Line, test.Sprint(tc.name))
	}
}

func TestCheck_ordersNodesAndDropsAggregationOutputs(t *testing.T) {
	t.Parallel()
	f := load(t, `
outputs: {o: {type: string, reference: "${g.output}"}, p: {type: string, reference: "${first}"}}
nodes:
- {name: third, inputs: {x: "${second.output}", y: "${first.output}"}}
- {name: g, aggregation: true, inputs: {x: "${third.output.a}", y: "${third.output.a}", z: "${g2.output}"}}
- {name: second, inputs: {x: "${first.output}"}}
- {name: first}
- {name: g2, aggregation: true}
`)
	checked, dropped, err := f.Check()
	must.NoError(t, err)
	var names []string
	for _, n := range checked.Nodes {
		names = append(names, n.Name)
	}
	test.Eq(t, []string{"first", "second", "third", "g2", "g"}, names)
	must.SliceLen(t, 1, dropped)
	test.Eq(t, "o", dropped[0].Name)
	must.SliceLen(t, 1, checked.Outputs)
	refs := checked.AggregationReferences()
	must.SliceLen(t, 1, refs)
	test.Eq(t, "${third.output.a}", refs[0].String())
}

func TestConvertInputs(t *testing.T) {
	t.Parallel()
	f := load(t, `
inputs:
  i: {type: int, default: "7"}
  d: {type: double, default: 1}
  b: {type: bool, default: "TRUE"}
  s: {type: string, default: {a: [1.50, null]}}
  l: {type: list, default: "[1]"}
  o: {type: object, default: "{\"x\": 1}"}
  p: {type: file_path, default: [1]}
`)
	inputs := value.NewDict()
	inputs.Set("extra", "kept")
	inputs.Set("i", 1.9)
	inputs.Set("s", nil)
	got, err := f.ConvertInputs(f.WithDefaults(inputs), nil)
	must.NoError(t, err)
	test.Eq(t, `{"extra":"kept","i":1,"s":"None","d":1.0,"b":true,"l":[1],"o":{"x":1},"p":[1]}`, string(value.Encode(got)))

	line := 3
	cases := []struct {
		name  string
		v     any
		class string
		text  string
	}{
		{"i", nil, "InputTypeError", "The value for flow input 'i' in line 3 of input data does not match the expected type 'int'."},
		{"b", int64(1), "InputTypeError", "'b' in line 3 of input data does not match the expected type 'bool'"},
		{"l", "['hello']", "InputParseError", "The value for flow input 'l' in line 3 of input data was interpreted as JSON string since its type is 'list'. However, the value '['hello']' is invalid for JSON parsing. Error details: (JSONDecodeError) Expecting value: line 1 column 2 (char 1). Please make sure"},
		{"l", "{}", "InputTypeError", "'l' in line 3"},
	}
	for _, tc := range cases {
		inputs := f.WithDefaults(value.NewDict())
		inputs.Set(tc.name, tc.v)
		_, err := f.ConvertInputs(inputs, &line)
		e := failure(t, err)
		test.Eq(t, tc.class, e.Class())
		test.StrContains(t, e.Message, tc.text)
	}
	_, err = load(t, "inputs: {q: {type: string}}").ConvertInputs(value.NewDict(), nil)
	e := failure(t, err)
	test.Eq(t, "InputNotFound", e.Class())
	test.Eq(t, "The input for flow is incorrect. The value for flow input 'q' is not provided in input data. Please review your input data or remove this input in your flow if it's no longer needed.", e.Message)
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte("inputs: {a: {type: int, default: 1}}\noutputs: {o: {type: int, reference: \"${n.output.x[0]}\"}}\nnodes:\n- name: n\n  type: python\n  source: {path: a.py}\n  activate: {when: \"${inputs.a}\", is: 1}\n"))
	f.Add([]byte("node_variants: {n: {default_variant_id: a, variants: {a: {node: {}}}}}\nnodes: [{name: n, use_variants: true}]\n"))
	f.Add([]byte("inputs: {a: {type: int}, a: {type: nope}}\noutputs: {o: {reference: ~}}\nnodes: [{}, {name: n, source: x, activate: 1}, 5]\nnode_variants: {n: {}, m: {variants: {a: {}, b: {node: 1}}}}\n"))
	f.Add([]byte("1: 2\nnodes: &n [{name: a, inputs: {x: !t 1, y: 2020-01-01, 3: 4}}]\nenvironment_variables: *n\n"))
	f.Fuzz(func(t *testing.T, yaml []byte) {
		late := time.AfterFunc(10*time.Second, func() { panic("it does not end") }) // the fuzzer itself would wait for ever
		defer late.Stop()
		dir := fstest.MapFS{"flow.dag.yaml": {Data: yaml}}
		flow, err := Load(dir)
		var e *api.Error
		if err != nil && !errors.As(err, &e) {
			t.Fatalf("not an api.Error: %v", err)
		}
		inspected(t, dir, flow, err)
		if err == nil {
			_, _, err := flow.Check()
			if problems := flow.Problems(); (err == nil) != (len(problems) == 0) || err != nil && err.Error() != problems[0].Error() {
				t.Fatalf("check says %v, problems are %v", err, problems)
			}
			_, _ = flow.ConvertInputs(flow.WithDefaults(value.NewDict()), nil)
			_ = flow.Environment()
		}
	})
}

// inspected holds that reading past mistakes finds the mistake that loading fails with, first of all, and else the same flow.
func inspected(t *testing.T, dir fs.FS, flow *Flow, err error) {
	t.Helper()
	d := Inspect(dir, Options{})
	switch {
	case err == nil && len(d.Errors) > 0:
		t.Fatalf("loads, and has the errors %v", d.Errors)
	case err != nil && (len(d.Errors) == 0 || d.Errors[0].Error() != err.Error()):
		t.Fatalf("fails with %v, and has the errors %v", err, d.Errors)
	case err == nil && len(d.Flow.Nodes) != len(flow.Nodes):
		t.Fatalf("%d nodes, and %d past mistakes", len(flow.Nodes), len(d.Flow.Nodes))
	}
	if d.Flow != nil {
		_ = d.Flow.Problems()
		_ = d.Flow.Environment()
	}
}

func FuzzProperty(f *testing.F) {
	f.Add("a['b.c'][0].x", "${n.output.a}")
	f.Fuzz(func(t *testing.T, property, reference string) {
		d := value.NewDict()
		d.Set("a", []any{"x", d.Clone(), int64(1)})
		_, _, _ = Property("n", d, property)
		r := ParseReference(reference)
		if r.Kind == NodeOutput {
			if again := ParseReference(r.String()); again != r {
				t.Fatalf("%#v became %#v", r, again)
			}
		}
	})
}

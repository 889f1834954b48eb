package graph

import (
	"context"
	"errors"
	"testing"
	"testing/fstest"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/flow"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// objects is a worker with one object, whose property p is 7 and which equals "same".
type objects struct{}

func (objects) Property(_ context.Context, _ *value.Ref, node, property string) (any, error) {
	if property == "p" {
		return int64(7), nil
	}
	return nil, flow.InvalidProperty(node, property)
}

func (objects) Equal(_ context.Context, _ *value.Ref, v any) (bool, error) { return v == "same", nil }

func graphOf(t *testing.T, nodes, inputs string) *Graph {
	t.Helper()
	f, err := flow.Load(fstest.MapFS{"flow.dag.yaml": {Data: []byte("inputs: {n: {type: int}, s: {type: string}}\nnodes:\n" + nodes)}})
	must.NoError(t, err)
	checked, _, err := f.Check()
	must.NoError(t, err)
	values, err := value.DecodeDict([]byte(inputs))
	must.NoError(t, err)
	return New(checked.Nodes, values, objects{})
}

// run completes every ready node with its name in upper case, or with outputs, and returns who ran and who was bypassed.
func run(t *testing.T, g *Graph, outputs map[string]any) (ran, bypassed []string) {
	t.Helper()
	for !g.Done() {
		ready, skipped, err := g.Next(t.Context())
		must.NoError(t, err)
		must.True(t, len(ready)+len(skipped) > 0, must.Sprint("nothing is ready"))
		for _, b := range skipped {
			bypassed = append(bypassed, b.Node.Name)
			test.StrContains(t, b.Log, "'"+b.Node.Name+"' will be bypassed because")
		}
		for _, n := range ready {
			ran = append(ran, n.Name)
			out, ok := outputs[n.Name]
			if !ok {
				out = n.Name + "!"
			}
			g.Complete(n.Name, out)
		}
	}
	return ran, bypassed
}

func TestActivation(t *testing.T) {
	t.Parallel()
	off := "- {name: off, activate: {when: \"${inputs.n}\", is: 0}}\n"
	cases := []struct {
		name, nodes   string
		ran, bypassed []string
	}{
		{"condition met", "- {name: a, activate: {when: \"${inputs.n}\", is: 1}}\n", []string{"a"}, nil},
		{"condition not met", "- {name: a, activate: {when: \"${inputs.n}\", is: 2}}\n", nil, []string{"a"}},
		{"true is 1", "- {name: a, activate: {when: \"${inputs.n}\", is: true}}\n", []string{"a"}, nil},
		{"1.0 is 1", "- {name: a, activate: {when: \"${inputs.n}\", is: 1.0}}\n", []string{"a"}, nil},
		{"text 1 is not 1", "- {name: a, activate: {when: \"${inputs.n}\", is: \"1\"}}\n", nil, []string{"a"}},
		{"literals", "- {name: a, activate: {when: x, is: x}}\n- {name: b, activate: {when: x, is: y}}\n", []string{"a"}, []string{"b"}},
		{"both null", "- {name: a, activate: {when: null, is: null}}\n", []string{"a"}, nil},
		{"when refers to a bypassed node", off + "- {name: a, activate: {when: \"${off.output}\", is: null}}\n", nil, []string{"off", "a"}},
		{"met although all inputs are bypassed", off + "- {name: a, inputs: {x: \"${off.output}\"}, activate: {when: \"${inputs.n}\", is: 1}}\n", []string{"a"}, []string{"off"}},
		{"all references bypassed", off + "- {name: a, inputs: {x: \"${off.output}\", y: 3, z: \"${inputs.s}\"}}\n", nil, []string{"off", "a"}},
		{"some references bypassed", off + "- {name: on}\n- {name: a, inputs: {x: \"${off.output}\", y: \"${on.output}\"}}\n", []string{"on", "a"}, []string{"off"}},
		{"no references", off + "- {name: a, inputs: {y: 3}}\n", []string{"a"}, []string{"off"}},
		{"bypassing goes on", off + "- {name: a, inputs: {x: \"${off.output}\"}}\n- {name: b, inputs: {x: \"${a.output}\"}}\n", nil, []string{"off", "a", "b"}},
		{"condition on an output", "- {name: a}\n- {name: b, activate: {when: \"${a.output}\", is: a!}}\n", []string{"a", "b"}, nil},
		{"condition on an object", "- {name: o}\n- {name: b, activate: {when: \"${o.output}\", is: same}}\n- {name: c, activate: {when: \"${o.output.p}\", is: 7}}\n- {name: d, activate: {when: \"${o.output}\", is: 7}}\n", []string{"o", "b", "c"}, []string{"d"}},
	}
	for _, tc := range cases {
		ran, bypassed := run(t, graphOf(t, tc.nodes, `{"n":1,"s":"x"}`), map[string]any{"o": &value.Ref{ID: 1}})
		test.Eq(t, tc.ran, ran, test.Sprint(tc.name))
		test.Eq(t, tc.bypassed, bypassed, test.Sprint(tc.name))
	}
}

func TestInputs(t *testing.T) {
	t.Parallel()
	g := graphOf(t, `- {name: off, activate: {when: 1, is: 2}}
- {name: a}
- {name: o}
- {name: n, inputs: {lit: null, i: "${inputs.n}", p: "${a.output.k}", d: "${off.output}", x: "${off.output.y}", q: "${o.output.z[0]}"}}
`, `{"n":1,"s":"x"}`)
	dict := value.NewDict()
	dict.Set("k", "v")
	ref := &value.Ref{ID: 4}
	run(t, g, map[string]any{"a": dict, "o": ref})
	inputs, warnings, err := g.Inputs(g.nodes[3], func(name string) bool { return name == "d" })
	must.NoError(t, err)
	var names []string
	for _, in := range inputs {
		names = append(names, in.Name)
	}
	test.Eq(t, []string{"lit", "i", "p", "x", "q"}, names)
	test.Eq[any](t, int64(1), inputs[1].Value)
	test.Eq[any](t, "v", inputs[2].Value)
	test.Nil(t, inputs[3].Value)
	test.True(t, inputs[4].Value == any(ref))
	test.Eq(t, "z[0]", inputs[4].Property)
	test.Eq(t, []string{"The node 'off' referenced by the input 'x' of the current node 'n' has been bypassed, and no default value is set. Will use 'None' as the value for this input."}, warnings)
}

func TestValue_errors(t *testing.T) {
	t.Parallel()
	g := graphOf(t, "- {name: off, activate: {when: 1, is: 2}}\n- {name: a}\n", `{"n":1}`)
	run(t, g, nil)
	cases := map[string]struct{ class, text string }{
		"${inputs.zz}":    {"InputNotFound", "The input 'zz' is not found from flow inputs 'n'."},
		"${a.error}":      {"UnsupportedReference", "The section 'error' of reference is currently unsupported. Please specify the output part of the node 'a'."},
		"${off.output.x}": {"InvalidReferenceProperty", "Invalid property 'x' when accessing the node 'off'"},
		"${gone}":         {"InputNotFoundFromAncestorNodeOutput", "The input 'gone' is not found from ancestor node outputs ['a']."},
	}
	for ref, want := range cases {
		_, err := g.Value(t.Context(), flow.ParseReference(ref))
		var e *api.Error
		must.True(t, errors.As(err, &e))
		test.Eq(t, want.class, e.Class())
		test.StrContains(t, e.Message, want.text)
	}
	v, err := g.Value(t.Context(), flow.ParseReference("${off}"))
	must.NoError(t, err)
	test.Nil(t, v)
}

func TestNext_failsWhenAConditionCannotBeRead(t *testing.T) {
	t.Parallel()
	g := graphOf(t, "- {name: a, activate: {when: \"${inputs.missing}\", is: 1}}\n", `{"n":1}`)
	_, _, err := g.Next(t.Context())
	test.ErrorContains(t, err, "The input 'missing' is not found from flow inputs 'n'")
}

func TestAggregation_takesWhatTheLinesGave(t *testing.T) {
	t.Parallel()
	g := graphOf(t, "- {name: a}\n- {name: agg, aggregation: true, inputs: {x: \"${a.output}\", y: \"${inputs.n}\"}}\n- {name: last, aggregation: true, inputs: {x: \"${agg.output}\"}}\n", `{"n":[1,2]}`)
	agg := NewAggregation(g.nodes[1:], g.inputs, map[string]any{"${a.output}": []any{"p", nil}}, objects{})
	ran, bypassed := run(t, agg, nil)
	test.Eq(t, []string{"agg", "last"}, ran)
	test.SliceEmpty(t, bypassed)
	inputs, _, err := agg.Inputs(g.nodes[1], func(string) bool { return false })
	must.NoError(t, err)
	test.Eq[any](t, []any{"p", nil}, inputs[0].Value)
	test.Eq[any](t, []any{int64(1), int64(2)}, inputs[1].Value)
}

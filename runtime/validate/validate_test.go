package validate

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/connection"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/worker"
)

// write writes files (name, content pairs) into a folder of their own.
func write(t testing.TB, files ...string) string {
	t.Helper()
	dir := t.TempDir()
	for i := 0; i < len(files); i += 2 {
		path := filepath.Join(dir, files[i])
		must.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must.NoError(t, os.WriteFile(path, []byte(files[i+1]), 0o600))
	}
	return dir
}

// none are no connections.
func none(env connection.Lookup) (*connection.Set, error) {
	return connection.Load("", func(name string) (string, bool) { return "", false })
}

// some are connections of a file that has an OpenAI, an Azure and a custom one.
func some(t testing.TB) func(connection.Lookup) (*connection.Set, error) {
	t.Helper()
	path := filepath.Join(write(t, "connections.json", `{
"openai": {"type": "OpenAIConnection", "value": {"api_key": "k", "base_url": "http://127.0.0.1:1/v1"}},
"azure": {"type": "AzureOpenAIConnection", "value": {"api_key": "k", "api_base": "http://127.0.0.1:1"}},
"custom": {"type": "CustomConnection", "value": {"a": "b"}}}`), "connections.json")
	return func(env connection.Lookup) (*connection.Set, error) { return connection.Load(path, env) }
}

// shown is a validation as lines "file:line:column code", the flow's own file left out, and a "?" before warnings.
func shown(v *api.Validation) []string {
	lines := []string{}
	for _, p := range v.Problems {
		mark := ""
		if p.Severity == api.SeverityWarning {
			mark = "?"
		}
		lines = append(lines, fmt.Sprintf("%s%d:%d %s%s", strings.TrimPrefix(p.File+":", "flow.dag.yaml:"), p.Line, p.Column, mark, p.Code))
	}
	return lines
}

func check(t testing.TB, config Config) *api.Validation {
	t.Helper()
	v, err := New(config).Check(t.Context(), false)
	must.NoError(t, err)
	for _, p := range v.Problems {
		test.NotEq(t, "", p.Message)
		test.NotEq(t, "", p.Mend)
		test.True(t, p.Line == 0 || p.Text != "", test.Sprintf("%s:%d is empty", p.File, p.Line))
	}
	return v
}

// prompts are flows of prompt nodes, which need no Python: text is what a node p gives, p.jinja2 prints it.
func TestCheck_findsAllProblemsAtOnce(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, flow string
		want       []string
		mends      []string // of the problems, where they matter
	}{
		{name: "nothing wrong", flow: `
inputs: {text: {type: string}}
outputs: {o: {type: string, reference: "${p.output}"}}
nodes:
- {name: p, type: prompt, source: {type: code, path: p.jinja2}, inputs: {x: "${inputs.text}"}}
`},
		{name: "an empty file", flow: ""},
		{name: "no mapping", flow: "- a\n", want: []string{"1:1 FlowDefinitionError"}},
		{name: "no YAML", flow: "inputs: {a: [}\n", want: []string{"1:14 YAMLError"}},
		{name: "keys that stand twice", flow: `
inputs: {text: {type: string, type: int}}
nodes:
- name: p
  name: q
  type: prompt
  source: {type: code, path: p.jinja2, path: q.jinja2}
  inputs: {x: "${inputs.text}"}
`, want: []string{"2:31 YAMLError", "5:3 YAMLError", "7:40 YAMLError"}},
		{name: "references to nothing", flow: `
inputs: {text: {type: string}, more: {type: string}}
outputs:
  a: {type: string, reference: "${q.output}"}
  b: {type: string, reference: "${inputs.tex}"}
  c: {type: string}
  d:
    type: string
    reference: ${p.outputs}
nodes:
- name: p
  type: prompt
  source: {type: code, path: p.jinja2}
  inputs:
    x: ${inputs.txt}
  activate:
    when: ${pp.output}
    is: 1
- {name: q1, type: prompt, source: {type: code, path: p.jinja2}, inputs: {x: "${inputs.text.upper}", y: "${input.text}", z: "${{inputs.text}}"}}
`, want: []string{
			"2:32 ?UnusedInput", "4:32 OutputReferenceNotFound", "5:32 OutputReferenceNotFound", "6:3 EmptyOutputReference", "9:16 UnsupportedReference",
			"15:8 InputReferenceNotFound", "17:11 NodeReferenceNotFound", "19:78 InputReferenceNotFound", "19:102 ?UnusedNodeInput", "19:105 NodeReferenceNotFound",
			"19:122 ?UnusedNodeInput", "19:125 NodeReferenceNotFound",
		}, mends: []string{
			"Remove it, or refer to it as ${inputs.more}.", "Did you mean ${q1.output}?", "Did you mean ${inputs.text}?", "Give the output a reference, such as ${q1.output}.", "Write ${p.output}.",
			"Did you mean ${inputs.text}?", "Add a node of that name, or use one of q1.", "A flow input has no properties in a reference: write ${inputs.text} and take the rest of it in the node.", "",
			"For a flow input, write ${inputs.NAME}.", "", "For a flow input, write ${inputs.NAME}.",
		}},
		{name: "a message format that is none", flow: `
message_format: openai
outputs: {o: {type: string, reference: "${p.output}"}}
nodes:
- {name: p, type: prompt, source: {type: code, path: empty.jinja2}}
`, want: []string{"2:17 InvalidMessageFormatType"}, mends: []string{"Write 'basic' or 'openai-vision'."}},
		{name: "names that stand twice", flow: `
outputs: {o: {type: string, reference: "${p.output}"}}
nodes:
- {name: p, type: prompt, source: {type: code, path: empty.jinja2}}
- {name: p, type: prompt, source: {type: code, path: empty.jinja2}}
- {name: p, type: prompt, source: {type: code, path: empty.jinja2}}
`, want: []string{"5:3 DuplicateNodeName", "6:3 DuplicateNodeName"}, mends: []string{"Rename one of the two nodes; the first stands in line 4."}},
		{name: "circles", flow: `
outputs: {o: {type: string, reference: "${c.output}"}}
nodes:
- {name: before, type: prompt, source: {type: code, path: p.jinja2}, inputs: {x: "${b.output}"}}
- {name: a, type: prompt, source: {type: code, path: p.jinja2}, inputs: {x: "${b.output}"}}
- {name: b, type: prompt, source: {type: code, path: p.jinja2}, inputs: {x: "${a.output}"}}
- {name: c, type: prompt, source: {type: code, path: p.jinja2}, inputs: {x: "${before.output}"}}
`, want: []string{"6:77 NodeCircularDependency"}, mends: []string{"Remove one of the references in b → a → b."}},
		{name: "aggregation", flow: `
outputs: {o: {type: string, reference: "${sum.output}"}, q: {type: string, reference: "${p.output}"}}
nodes:
- {name: p, type: prompt, source: {type: code, path: p.jinja2}, inputs: {x: "${sum.output}"}}
- {name: sum, type: prompt, source: {type: code, path: empty.jinja2}, aggregation: true, activate: {when: "${p.output}", is: 1}}
`, want: []string{"2:40 ?OutputOfAggregation", "4:77 InvalidNodeReference", "5:107 InvalidNodeReference"}},
		{name: "keys that mean nothing, and values of the wrong kind", flow: `
$schema: x
discription: a flow
description: 5
type: standart
tags: {a: 1}
additional_includes: [1]
environment: {python_requirement_txt: x}
inputs:
  text: {type: string, defualt: x, description: [], is_chat_input: maybe}
outputs:
  o: {type: string, reference: "${p.output}", eval_only: true}
nodes:
- name: p
  typ: prompt
  type: prompt
  source: {type: code, path: p.jinja2, function: f}
  inputs: {x: "${inputs.text}"}
  skip: {when: 1, is: 1}
  activate: {when: 1, is: 1, not: 2}
  enable_cache: true
  comment: hello
`, want: []string{
			"3:1 ?UnknownKey", "4:14 ValidationError", "5:7 ValidationError", "6:7 ValidationError", "7:22 ValidationError", "8:15 ?UnknownKey",
			"10:3 ?ChatFlowIncomplete", "10:3 ?ChatFlowIncomplete", "10:24 ?UnknownKey", "10:49 ValidationError", "10:68 ValidationError", "12:47 ?UnknownKey", "15:3 ?UnknownKey", "17:40 ?UnknownKey", "19:3 ?UnknownKey", "20:30 ?UnknownKey",
		}, mends: []string{"Did you mean 'description'?", "", "Did you mean 'standard'?", "", "", "Did you mean 'python_requirements_txt'?", "", "", "Did you mean 'default'?"}},
		{name: "types and defaults", flow: `
inputs:
  a: {type: int, default: many}
  b: {type: list, default: "[1"}
  c: {type: strng}
  d: {default: x}
  e: {type: string, default: z, enum: [x, y]}
  f: {type: bool, default: "true"}
  chat_history: {type: string}
  g: {type: int, default: 1.9}
nodes:
- {name: p, type: prompt, source: {type: code, path: p.jinja2}, inputs: {x: "${inputs.a}", y: "${inputs.b}"}}
- {name: q, type: prompt, source: {type: code, path: p.jinja2}, inputs: {x: "${inputs.c}", y: "${inputs.d}"}}
- {name: r, type: prompt, source: {type: code, path: p.jinja2}, inputs: {x: "${inputs.e}", y: "${inputs.f}", z: "${inputs.g}"}}
`, want: []string{
			"3:27 InputTypeError", "4:28 InputParseError", "5:13 FlowDefinitionError", "6:3 FlowDefinitionError", "7:30 ?DefaultNotInEnum", "9:24 ?ChatHistoryType",
			"12:92 ?UnusedNodeInput", "13:92 ?UnusedNodeInput", "14:92 ?UnusedNodeInput", "14:110 ?UnusedNodeInput",
		}},
		{name: "nodes without what they need", flow: `
nodes:
- {name: a, type: prompt}
- {name: b, source: {type: code, path: p.jinja2}}
- {name: c, type: prompt, source: {type: code, path: P.jinja2}}
- {name: d, type: python, source: {type: code, path: d.py}}
- {type: prompt}
- {name: f, type: jinja, source: {type: code, path: p.jinja2}}
- just text
`, want: []string{
			"3:3 UserError", "4:3 NotImplementedError", "5:54 InvalidSource", "6:54 InvalidSource", "7:3 FlowDefinitionError", "8:3 NotImplementedError",
			"8:19 FlowDefinitionError", "9:3 FlowDefinitionError",
		}},
		{name: "texts that look like references", flow: `
inputs: {text: {type: string}}
outputs: {o: {type: string, reference: "{p.output}"}, q: {type: string, reference: "${p.output}"}}
nodes:
- {name: p, type: prompt, source: {type: code, path: p.jinja2}, inputs: {x: "say ${inputs.text}"}, activate: {when: "${inputs.text} == 1", is: true}}
- {name: q, type: prompt, source: {type: code, path: p.jinja2}, inputs: {x: "${p.output.a}"}}
- {name: r, type: prompt, source: {type: code, path: p.jinja2}, inputs: {x: "${q.output}"}}
`, want: []string{"2:10 ?UnusedInput", "3:40 ?LiteralOutput", "5:77 ?EmbeddedReference", "5:117 ?EmbeddedReference", "6:77 ?InvalidReferenceProperty", "7:3 ?UnusedNode"},
			mends: []string{"", "Write ${p.output}.", "Make the whole value ${inputs.text}, and put the text together in the node."}},
		{name: "chats", flow: `
inputs: {a: {type: string, is_chat_input: true}, b: {type: string}}
outputs: {o: {type: string, reference: "${p.output}"}}
nodes:
- {name: p, type: prompt, source: {type: code, path: p.jinja2}, inputs: {x: "${inputs.a}${inputs.b}"}}
`, want: []string{"2:10 ?ChatFlowIncomplete", "2:10 ?ChatFlowIncomplete", "2:10 ?UnusedInput", "2:50 ?UnusedInput", "5:77 InputReferenceNotFound"}},
		{name: "templates", flow: `
inputs: {a: {type: string}}
outputs: {o: {type: string, reference: "${p.output}"}}
nodes:
- {name: p, type: prompt, source: {type: code, path: sub/two.jinja2}, inputs: {frist: "${inputs.a}", third: x}}
`, want: []string{"5:80 ?UnusedNodeInput", "5:102 ?UnusedNodeInput", "sub/two.jinja2:1:6 ?TemplateInputMissing", "sub/two.jinja2:2:9 ?TemplateInputMissing"},
			mends: []string{"Did you mean 'first'?", "", "Did you mean 'frist'?", "Add 'second' under the node's 'inputs'."}},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			v := check(t, Config{Dir: write(t, "flow.dag.yaml", tc.flow, "p.jinja2", "{{ x }}", "empty.jinja2", "", "sub/two.jinja2", "1: {{first}}\nzwö: {{ second }}{{first}}"), Connections: none})
			if tc.want == nil {
				tc.want = []string{}
			}
			test.Eq(t, tc.want, shown(v))
			for i, mend := range tc.mends {
				if mend != "" && i < len(v.Problems) {
					test.Eq(t, mend, v.Problems[i].Mend)
				}
			}
			failed := strings.Contains(strings.Join(tc.want, "\n")+"\n", "Error\n") || len(v.Problems) > v.Count(api.SeverityWarning)
			test.Eq(t, map[bool]string{false: api.ResultSucceeded, true: api.ResultFailed}[failed], v.Result)
		})
	}
}

func TestCheck_foldersThatAreNoFlow(t *testing.T) {
	t.Parallel()
	v := check(t, Config{Dir: write(t, "a.txt", "x")})
	test.Eq(t, []string{":0:0 UserError"}, shown(v))
	v = check(t, Config{Dir: write(t, "flow.dag.yaml", "nodes: []", "flow.dag.yml", "nodes: []")})
	test.Eq(t, "ValidationError", v.Problems[0].Code)
	_, err := New(Config{Dir: "/nonexistent"}).Check(t.Context(), false)
	test.ErrorIs(t, err, os.ErrNotExist)
}

func TestCheck_variants(t *testing.T) {
	t.Parallel()
	flow := `
outputs: {o: {type: string, reference: "${p.output}"}}
nodes:
- {name: p, use_variants: true}
- {name: q, use_variants: true}
- {name: r, type: prompt, source: {type: code, path: empty.jinja2}}
node_variants:
  p:
    default_variant_id: v0
    variants:
      v0: {node: {type: prompt, source: {type: code, path: empty.jinja2}, inputs: {}}}
      v1:
        node:
          type: prompt
          source: {type: code, path: gone.jinja2}
          inputs: {x: "${nobody.output}"}
      v2: {node: {type: prompt, source: {type: code, path: p.jinja2}, inputs: {x: "${p.output}"}}}
      v3: {}
  r:
    default_variant_id: v9
    variants:
      v0: {node: {type: prompt, source: {type: code, path: empty.jinja2}}}
  s:
    variants: {}
`
	v := check(t, Config{Dir: write(t, "flow.dag.yaml", flow, "p.jinja2", "{{ x }}", "empty.jinja2", "")})
	test.Eq(t, []string{
		"5:3 ?UnusedNode", "5:3 UserError", "5:13 InvalidFlowError", "6:3 ?UnusedNode", "6:3 ?UnusedVariants",
		"15:38 InvalidSource", "16:23 NodeReferenceNotFound", "17:83 NodeCircularDependency", "18:7 FlowDefinitionError",
		"20:25 InvalidFlowError", "23:3 ?UnusedVariants",
	}, shown(v))
	test.Eq(t, "v1", v.Problems[5].Variant)
	test.Eq(t, "p", v.Problems[5].Node)
}

func TestCheck_llmNodes(t *testing.T) {
	t.Parallel()
	llm := func(connection, api, inputs string) string {
		return "  type: llm\n  source: {type: code, path: chat.jinja2}\n  connection: " + connection + "\n  api: " + api + "\n  inputs: {" + inputs + "}\n"
	}
	tests := []struct {
		name, node string
		want       []string
		mend       string // of the first
	}{
		{"fine", llm("openai", "chat", "x: a, model: m, temperature: '0.5', max_tokens: ''"), nil, ""},
		{"fine for both providers", llm("azure", "chat", "x: a, model: m, deployment_name: m"), nil, ""},
		{"no such connection", llm("opnai", "chat", "x: a, model: m"), []string{"5:15 GetConnectionError"}, "Use one of azure, custom, openai, or add it to the runtime's connections."},
		{"a connection that is none for models", llm("custom", "chat", "x: a"), []string{"5:15 InvalidConnectionType"}, "Name an OpenAI, Azure OpenAI or serverless connection: azure, openai."},
		{"no such api", llm("openai", "talk", "x: a"), []string{"6:8 APINotFound"}, "Write 'api: chat' or 'api: completion'."},
		{"every literal of the wrong type", llm("openai", "chat", "x: a, model: m, temperature: warm, seed: [], stop: x"),
			[]string{"7:41 NodeInputValidationError", "7:53 NodeInputValidationError", "7:63 NodeInputValidationError"}, "Write a value of type double, or change the parameter's annotation."},
		{"a deployment where a model belongs", llm("openai", "chat", "x: a, deployment_name: m"), []string{"7:18 ?UnknownToolInput"}, "An OpenAI connection has models: name it as 'model'."},
		{"a model where a deployment belongs", llm("azure", "chat", "x: a, model: m"), []string{"7:3 LLMError", "7:18 ?UnknownToolInput"}, "Add 'deployment_name' under the node's 'inputs'."},
		{"no model", llm("openai", "chat", "x: a"), []string{"7:3 ?ModelMissing"}, ""},
		{"what has no effect", llm("openai", "chat", "x: a, model: m, tempreature: 1, echo: true"), []string{"7:28 ?UnknownToolInput", "7:44 ?UnknownToolInput"}, "Did you mean 'temperature'?"},
		{"response formats", llm("openai", "chat", "x: a, model: m, response_format: json_object"), []string{"7:45 ?ResponseFormat"}, "Write {type: json_object} or {type: text}."},
		{"a response format that there is not", llm("openai", "chat", "x: a, model: m, response_format: {type: jsonobject, schema: 1}"), []string{"7:45 ?ResponseFormat", "7:45 ?ResponseFormat"}, "Did you mean 'json_object'?"},
		{"a response format that there is", llm("openai", "chat", "x: a, model: m, response_format: '{\"type\": \"json_object\"}'"), nil, ""},
		{"a variable that is not given", llm("openai", "chat", "model: m"), []string{"chat.jinja2:2:4 ?TemplateInputMissing"}, "Add 'x' under the node's 'inputs'."},
		{"a template that is not there", strings.Replace(llm("openai", "chat", "model: m"), "chat.jinja2", "caht.jinja2", 1), []string{"4:30 InvalidSource"}, "Did you mean 'chat.jinja2'?"},
		{"a variable with the name of a parameter", strings.Replace(llm("openai", "completion", "model: m, user: u"), "chat.jinja2", "user.jinja2", 1), []string{"user.jinja2:1:9 NodeInputValidationError"},
			"Rename the variable 'user' in the template, and the node's input of that name: the tool has a parameter of its own that is called so."},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			dir := write(t, "flow.dag.yaml", "nodes:\n- name: n\n"+tc.node, "chat.jinja2", "system:\n{{ x }}\n", "user.jinja2", "Hello {{user}}")
			v := check(t, Config{Dir: dir, Connections: some(t)})
			if tc.want == nil {
				tc.want = []string{}
			}
			test.Eq(t, tc.want, shown(v))
			if tc.mend != "" && len(v.Problems) > 0 {
				test.Eq(t, tc.mend, v.Problems[0].Mend)
			}
		})
	}
}

func TestCheck_chatRoles(t *testing.T) {
	t.Parallel()
	const invalid = "ChatAPIInvalidRole"
	tests := map[string][]string{
		"system:\nhi\nuser:\n{{ x }}\n":     {},
		"# system:\nhi\n\n# User :\n{{x}}":  {},
		"  # system:\n{{ x }}":              {},
		"{{ x }}":                           {},
		"{{ x }}\nuser:\nhi":                {},
		"":                                  {},
		"\n\nYou are good.\nuser:\n{{x}}\n": {"3:1 " + invalid},
		"Say {{ x }}":                       {"1:1 " + invalid},
		"system: be good\n{{ x }}":          {"1:1 " + invalid},
		"## system:\nhi\nuser:\n{{ x }}":    {"1:1 " + invalid, "1:4 ?RoleNotRecognized"},
		"system:\nhi\n## user:\n{{ x }}":    {"3:4 ?RoleNotRecognized"},
		"system:\nhi\ndeveloper:\n{{ x }}":  {"3:1 ?RoleNotRecognized"},
		"system:\n{{ x }}\nuser:":           {"3:1 ?RoleNotRecognized"},
		"system:\nuser: means you {{ x }}":  {},
		"#{{ x }}\nuser:\n":                 {},
	}
	for text, want := range tests {
		t.Run(fmt.Sprintf("%q", text), func(t *testing.T) {
			t.Parallel()
			flow := "nodes:\n- {name: n, type: llm, source: {type: code, path: c.jinja2}, connection: openai, api: chat, inputs: {model: m, x: a}}\n"
			got := []string{}
			for _, line := range shown(check(t, Config{Dir: write(t, "flow.dag.yaml", flow, "c.jinja2", text), Connections: some(t)})) {
				if after, ok := strings.CutPrefix(line, "c.jinja2:"); ok {
					got = append(got, after)
				}
			}
			test.Eq(t, want, got)
		})
	}
}

func TestCheck_saysWhatItLeftOut(t *testing.T) {
	t.Parallel()
	flow := `
environment: {python_requirements_txt: r.txt}
nodes:
- {name: a, type: python, source: {type: code, path: a.py}}
- {name: b, type: python, source: {type: code, path: a.py}}
- {name: c, type: prompt, source: {type: code, path: c.jinja2}}
`
	v := check(t, Config{Dir: write(t, "flow.dag.yaml", flow, "a.py", "", "c.jinja2", "{% if x %}{% endif %}", "r.txt", "x")})
	test.Eq(t, api.ResultSucceeded, v.Result)
	test.SliceEmpty(t, v.Problems)
	must.SliceLen(t, 4, v.Unchecked)
	test.StrHasPrefix(t, "connections: ", v.Unchecked[0])
	test.StrHasPrefix(t, "2 Python tools: ", v.Unchecked[1])
	test.StrHasPrefix(t, "1 template: ", v.Unchecked[2])
	test.StrHasPrefix(t, "1 requirements file: ", v.Unchecked[3])

	v = check(t, Config{Dir: write(t, "flow.dag.yaml", flow, "a.py", "", "c.jinja2", "{% if x %}{% endif %}"), Connections: none, Python: broken{}})
	test.Eq(t, []string{"2:40 ?RequirementsFileMissing"}, shown(v))
	must.SliceLen(t, 1, v.Unchecked)
	test.StrContains(t, v.Unchecked[0], "no python here")
}

// broken is a Python that cannot be had.
type broken struct{}

func (broken) Check(context.Context, worker.CheckSpec) ([]worker.CheckResult, error) {
	return nil, fmt.Errorf("%w: no python here", worker.ErrUnavailable)
}

// memo is a Python that finds nothing and notes what it is asked.
type memo struct{ asked []string }

func (m *memo) Check(_ context.Context, spec worker.CheckSpec) ([]worker.CheckResult, error) {
	results := make([]worker.CheckResult, len(spec.Jobs))
	for i, j := range spec.Jobs {
		switch j.Kind {
		case worker.CheckNode:
			name, _ := j.Node.Get("name")
			m.asked = append(m.asked, value.Str(name))
			results[i].Tool = &worker.Tool{Kwargs: true}
			results[i].Files = []string{value.Str(name) + ".py", "shared.py"}
			if name == "alone" {
				results[i].Files = nil
			}
			if name == "wrong" {
				results[i].Tool.Error = api.NewError([]string{api.UserError, "PythonLoadError"}, "", "no good")
			}
		case worker.CheckTemplate:
			m.asked = append(m.asked, j.Text)
		}
	}
	return results, nil
}

func (m *memo) take() []string {
	asked := m.asked
	m.asked = nil
	return asked
}

func TestCheck_asksPythonOnlyForWhatChanged(t *testing.T) {
	t.Parallel()
	node := func(name string) string {
		return "- {name: " + name + ", type: python, source: {type: code, path: " + name + ".py}}\n"
	}
	dir := write(t, "flow.dag.yaml", "nodes:\n"+node("a")+node("b")+node("alone")+"- {name: t, type: prompt, source: {type: code, path: t.jinja2}}\n",
		"a.py", "1", "b.py", "1", "alone.py", "1", "shared.py", "1", "t.jinja2", "{# 1 #}")
	python := &memo{}
	environment := map[string]string{}
	v := New(Config{Dir: dir, Python: python, Connections: none, Environment: environment})
	again := func() []string {
		t.Helper()
		_, err := v.Check(t.Context(), false)
		must.NoError(t, err)
		return python.take()
	}
	change := func(name, text string) {
		t.Helper()
		must.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	test.Eq(t, []string{"a", "b", "alone", "{# 1 #}"}, again())
	test.SliceEmpty(t, again())
	change("a.py", "1 + 1")
	test.Eq(t, []string{"a"}, again())
	change("shared.py", "1 + 1")
	test.Eq(t, []string{"a", "b"}, again())
	change("t.jinja2", "{# 2 #}")
	test.Eq(t, []string{"{# 2 #}"}, again())
	change("t.jinja2", "{{ native }}")
	test.SliceEmpty(t, again())
	change("data.txt", "x")
	test.SliceEmpty(t, again())
	change("json.py", "") // might be imported instead of another
	test.Eq(t, []string{"a", "b", "alone"}, again())
	environment["X"] = "1"
	test.Eq(t, []string{"a", "b", "alone"}, again())
	change("flow.dag.yaml", "nodes:\n"+node("a")+"- {name: b, type: python, source: {type: code, path: b.py}, inputs: {x: 1}}\n"+node("wrong"))
	test.Eq(t, []string{"b", "wrong"}, again())
	test.Eq(t, []string{"wrong"}, again()) // what went wrong is tried again
	change("flow.dag.yaml", "nodes: [")
	test.SliceEmpty(t, again())
}

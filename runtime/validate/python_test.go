package validate

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/api"
)

const toolImport = "from promptflow.core import tool, ToolProvider\n"

// TestPython is what is found in Python tools, and where.
func TestPython(t *testing.T) {
	m := startPython(t)
	tests := []struct {
		name   string
		script string
		inputs string // of the node n
		want   []string
		mend   string // of the first
	}{
		{"fine", "@tool\ndef f(text: str, n: int = 1): pass\n", `text: "${inputs.text}"`, nil, ""},
		{"a missing input", "\n\n@tool\ndef f(text: str, n: int): pass\n", `text: "${inputs.text}"`,
			[]string{"7:3 ToolExecutionError"}, "Add 'n' under the node's 'inputs', or give the parameter a default."},
		{"an empty input", "@tool\ndef f(text: str): pass\n", `text: "", more: null`, []string{"2:10 ?UnusedInput", "7:18 ToolExecutionError"}, ""},
		{"an unknown input", "@tool\ndef f(text: str, number=1): pass\n", `text: "${inputs.text}", numbr: 1`,
			[]string{"7:36 ToolExecutionError"}, "Did you mean 'number'?"},
		{"any input", "@tool\ndef f(**all): pass\n", `text: "${inputs.text}", n: 1`, nil, ""},
		{"literals of other types", "@tool\ndef f(text: str, n: int, b: bool, l: list): pass\n", `text: "${inputs.text}", n: x, b: perhaps, l: "[1]"`,
			[]string{"7:39 NodeInputValidationError", "7:45 NodeInputValidationError"}, "Write a value of type int, or change the parameter's annotation."},
		{"a reference of another type", "@tool\ndef f(text: int): pass\n", `text: "${inputs.text}"`, []string{"7:18 ?TypeMismatch"}, ""},
		{"a value outside of an enum", "from enum import Enum\nclass E(Enum):\n    A = 'apple'\n    B = 'bear'\n@tool\ndef f(text: E): pass\n", `text: aple`,
			[]string{"2:10 ?UnusedInput", "7:18 ?LiteralNotInEnum"}, ""},
		{"a connection that is not there", "from promptflow.connections import CustomConnection\n@tool\ndef f(text: str, c: CustomConnection): pass\n", `text: "${inputs.text}", c: custon`,
			[]string{"7:39 GetConnectionError"}, "Use one of azure, custom, or add it to the runtime's connections."},
		{"a connection of another class", "from promptflow.connections import OpenAIConnection\n@tool\ndef f(text: str, c: OpenAIConnection): pass\n", `text: "${inputs.text}", c: custom`,
			[]string{"7:39 NodeInputValidationError"}, "Name a connection of one of the types 'OpenAIConnection'."},
		{"more than one wrong input", "from promptflow.connections import OpenAIConnection\n@tool\ndef f(text: str, n: int, c: OpenAIConnection, d: OpenAIConnection, e: str): pass\n", `text: "${inputs.text}", n: x, c: custom, d: gone, f: 1`,
			[]string{"7:3 ToolExecutionError", "7:39 NodeInputValidationError", "7:45 NodeInputValidationError", "7:56 GetConnectionError", "7:62 ToolExecutionError"}, ""},
		{"no tool", "def f(text): pass\n", `text: "${inputs.text}"`, []string{"tool.py:2:1 NoToolDefined"},
			"Put @tool above the function that is the tool, such as 'f' (from promptflow.core import tool)."},
		{"nothing at all", "", `text: "${inputs.text}"`, []string{"tool.py:1:1 NoToolDefined"}, "Add a function with @tool above it (from promptflow.core import tool)."},
		{"two tools", "@tool\ndef f(text): pass\n\n@tool\ndef g(text): pass\n", `text: "${inputs.text}"`, []string{"tool.py:6:1 MultipleToolsDefined"}, ""},
		{"wrong syntax", "@tool\ndef f(text:\n    pass\n", `text: "${inputs.text}"`, []string{"tool.py:3:6 PythonLoadError"}, ""},
		{"wrong indentation", "@tool\ndef f(text):\npass\n", `text: "${inputs.text}"`, []string{"tool.py:4:1 PythonLoadError"}, ""},
		{"an import of nothing", "import os\nimport nonesuch.sub\n@tool\ndef f(text): pass\n", `text: "${inputs.text}"`, []string{"tool.py:3:1 PythonLoadError"},
			"Build an environment with the package that has 'nonesuch', or add nonesuch.py to the flow's folder if it is the flow's own."},
		{"an import of what is near", "import helpr\n@tool\ndef f(text): pass\n", `text: "${inputs.text}"`, []string{"tool.py:2:1 PythonLoadError"}, "Did you mean 'helper'?"},
		{"a mistake in what is imported", "import bad\n@tool\ndef f(text): pass\n", `text: "${inputs.text}"`, []string{"bad.py:3:5 PythonLoadError"}, "Mend what runs when the file is imported: it raised NameError."},
		{"an exit", "import sys\nsys.exit()\n", `text: "${inputs.text}"`, []string{"tool.py:3:1 SystemExit"}, ""},
		{"a crash", "import os\nos._exit(3)\n", `text: "${inputs.text}"`, []string{"tool.py:1:1 ProcessCrashError"}, ""},
		{"a loop", "while True: pass\n", `text: "${inputs.text}"`, []string{"tool.py:1:1 ProcessCrashError"}, ""},
		{"a class with what it is made with", "class T(ToolProvider):\n    def __init__(self, a: int):\n        super().__init__()\n    @tool\n    def f(self, text: str): pass\n", `text: "${inputs.text}", a: 1`, nil, ""},
		{"a class without what it is made with", "class T(ToolProvider):\n    def __init__(self, a: int):\n        super().__init__()\n    @tool\n    def f(self, text: str): pass\n", `text: "${inputs.text}"`,
			[]string{"4:3 MissingRequiredInputs"}, ""},
		{"a class made with what comes later", "class T(ToolProvider):\n    def __init__(self, a: str):\n        super().__init__()\n    @tool\n    def f(self, text: str): pass\n", `text: b, a: "${inputs.text}"`,
			[]string{"7:24 InputTypeMismatch"}, ""},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			flow := "\ninputs: {text: {type: string}}\nnodes:\n- name: n\n  type: python\n  source: {type: code, path: tool.py}\n  inputs: {" + tc.inputs + "}\n"
			script := toolImport + tc.script
			if tc.script == "" {
				script = ""
			}
			dir := write(t, "flow.dag.yaml", flow, "tool.py", script, "helper.py", "", "bad.py", "# bad\n\nx = oops\n")
			c := m.NewChecker()
			defer c.Close()
			v, err := New(Config{Dir: dir, Python: c, Connections: connectionsFile, Timeout: 2 * time.Second}).Check(t.Context(), false)
			must.NoError(t, err)
			test.SliceEmpty(t, v.Unchecked)
			if tc.want == nil {
				tc.want = []string{}
			}
			test.Eq(t, tc.want, shown(v), test.Sprint(v.Problems))
			if tc.mend != "" && len(v.Problems) > 0 {
				test.Eq(t, tc.mend, v.Problems[0].Mend)
			}
			for _, p := range v.Problems {
				test.StrNotContains(t, p.Message, dir)
				test.NotEq(t, "", p.Mend)
			}
		})
	}
}

func TestPython_templates(t *testing.T) {
	m := startPython(t)
	flow := `
inputs: {text: {type: string}}
nodes:
- {name: a, type: prompt, source: {type: code, path: a.jinja2}, inputs: {text: "${inputs.text}", lst: 1}}
- {name: b, type: prompt, source: {type: code, path: b.jinja2}}
- {name: c, type: llm, source: {type: code, path: c.jinja2}, connection: azure, api: chat, inputs: {deployment_name: d, who: "${inputs.text}"}}
- {name: d, type: prompt, source: {type: code, path: d.jinja2}}
`
	dir := write(t, "flow.dag.yaml", flow,
		"a.jinja2", "{% set own = 1 %}{{ own }}{{ text }}\n{% for i in range(3) %}{{ loop.index }} {{ list }}{% endfor %}",
		"b.jinja2", "fine\n\n  {% if x %}\n{% endfor %}",
		"c.jinja2", "system:\n{% if who %}{{ who }}{% endif %}\n{# #}user:\n{{ seed }}",
		"d.jinja2", "{{ text | no_filter }}",
	)
	c := m.NewChecker()
	defer c.Close()
	v, err := New(Config{Dir: dir, Python: c, Connections: connectionsFile}).Check(t.Context(), false)
	must.NoError(t, err)
	test.Eq(t, []string{
		"4:98 ?UnusedNodeInput", "a.jinja2:2:44 ?TemplateInputMissing", "b.jinja2:4:1 TemplateSyntaxError",
		"c.jinja2:4:4 NodeInputValidationError", "c.jinja2:4:4 ?TemplateInputMissing", "d.jinja2:1:1 TemplateAssertionError",
	}, shown(v))
	test.Eq(t, "Did you mean 'list'?", v.Problems[0].Mend)
	test.Eq(t, []string{"SystemError", "TemplateSyntaxError"}, v.Problems[2].Codes)
}

func TestPython_templatesThatDoNotEnd(t *testing.T) {
	m := startPython(t)
	dir := write(t, "flow.dag.yaml", "nodes:\n- {name: a, type: prompt, source: {type: code, path: a.jinja2}}\n", "a.jinja2", "{{ 9 ** (9 ** 9) }}")
	c := m.NewChecker()
	defer c.Close()
	v, err := New(Config{Dir: dir, Python: c, Connections: connectionsFile, Timeout: 300 * time.Millisecond}).Check(t.Context(), false)
	must.NoError(t, err)
	test.Eq(t, []string{"a.jinja2:1:1 JinjaTemplateError"}, shown(v))
}

func TestPython_requirements(t *testing.T) {
	m := startPython(t)
	dir := write(t, "flow.dag.yaml", "environment: {python_requirements_txt: ./requirements.txt}\nnodes: []\n", "requirements.txt", strings.Join([]string{
		"# what the flow needs", "promptflow-core", "no-such-package-here >= 2 # comment", "jinja2<1 \\", "-r other.txt", "--no-index", "colorama; python_version < '3'",
		"oops oops", "", "pip@ file:///x",
	}, "\n"))
	v := validated(t, m, dir)
	test.Eq(t, []string{"requirements.txt:3:1 ?RequirementMissing", "requirements.txt:4:1 ?RequirementVersion", "requirements.txt:8:1 ?RequirementInvalid"}, shown(v))
	test.StrContains(t, v.Problems[1].Message, "This runtime has jinja2 3")
}

// TestPython_helpersThatChange is a flow of two tools that share a module: a change of it is seen in both, and of one tool in one.
func TestPython_helpersThatChange(t *testing.T) {
	m := startPython(t)
	node := "- {name: %[1]s, type: python, source: {type: code, path: %[1]s.py}}\n"
	script := toolImport + "import helper\n@tool\ndef f(): return helper.value()\n"
	dir := write(t, "flow.dag.yaml", "nodes:\n"+fmt.Sprintf(node, "a")+fmt.Sprintf(node, "b"), "a.py", script, "b.py", script, "helper.py", "def value(): return 1\n")
	c := m.NewChecker()
	defer c.Close()
	v := New(Config{Dir: dir, Python: c, Connections: connectionsFile})
	again := func() *api.Validation {
		t.Helper()
		found, err := v.Check(t.Context(), false)
		must.NoError(t, err)
		return found
	}
	change := func(name, text string) {
		t.Helper()
		must.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	test.SliceEmpty(t, again().Problems)
	test.Eq(t, 2, again().Reused)
	change("a.py", script+"# more\n")
	found := again()
	test.Eq(t, 1, found.Checked)
	test.SliceEmpty(t, found.Problems)
	change("helper.py", "def value( return 1\n")
	test.Eq(t, []string{"helper.py:1:12 PythonLoadError"}, shown(again()))
	change("helper.py", "def value(): return 2\n")
	found = again()
	test.SliceEmpty(t, found.Problems)
	test.Eq(t, 2, found.Checked)
}

package worker

import (
	"fmt"
	"math"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

func TestCall(t *testing.T) {
	t.Parallel()
	m := startManager(t, Config{})
	dir := writeFlow(t, "echo.py", script("@tool\ndef echo(x, n: int = 0, s: str = 'd'):\n    return x\n"),
		"kwargs.py", script("@tool\ndef f(a, **more):\n    return [a, list(more.items())]\n"),
		"same.py", script("@tool\nasync def f(x):\n    return x\n"))
	f := open(t, m, FlowSpec{ID: "f", Dir: dir, Nodes: []*value.Dict{
		node("echo", "echo.py", "x", "${inputs.x}", "n", "11", "s", ""),
		node("kwargs", "kwargs.py", "z", int64(1), "a", "${inputs.a}", "b", "${inputs.b}"),
		node("async", "same.py", "x", "${inputs.x}"),
	}})
	s := lease(t, f)

	t.Run("describes its tools", func(t *testing.T) {
		tools := f.Tools()
		must.Eq(t, []Parameter{{"x", false}, {"n", true}, {"s", true}}, tools[0].Parameters)
		must.True(t, tools[0].HasDefault("n"))
		must.False(t, tools[0].HasDefault("x"))
		must.False(t, tools[0].Async)
		must.True(t, tools[2].Async)
		must.True(t, tools[1].Kwargs)
		// "" was dropped, "11" converted
		must.Eq(t, []ToolInput{{"x", false, ""}, {"n", true, "11"}}, tools[0].Inputs)
	})
	t.Run("passes plain values exactly", func(t *testing.T) {
		dict := value.NewDict()
		dict.Set("z", int64(1))
		dict.Set("a", []any{1.0, math.Copysign(0, -1), true, nil, "ü\x00\U0001F600"})
		for _, name := range []string{"echo", "async"} {
			for _, v := range []any{nil, true, int64(-7), new(big.Int).Lsh(big.NewInt(1), 100), 1e300, math.Inf(-1), "", "\xed\xa0\x80", dict} {
				r := call(t, s, name, "x", v)
				must.Nil(t, r.Error)
				test.Eq(t, value.Repr(v), value.Repr(r.Value))
				test.Eq(t, value.TypeName(v), value.TypeName(r.Value))
			}
			nan := call(t, s, name, "x", math.NaN())
			test.Eq(t, "nan", value.Repr(nan.Value))
			test.StrContains(t, string(nan.Inputs), `"x":NaN`)
		}
	})
	t.Run("keeps the node's order of inputs", func(t *testing.T) {
		r := call(t, s, "kwargs", "b", "B", "a", "A")
		test.Eq(t, `['A', [['z', 1], ['b', 'B']]]`, strings.NewReplacer("(", "[", ")", "]").Replace(r.Value.(*value.Ref).Repr))
		test.Eq(t, `{"z":1,"a":"A","b":"B"}`, string(r.Inputs))
	})
	t.Run("leaves out an input that is not given", func(t *testing.T) {
		r := call(t, s, "kwargs", "a", "A")
		test.Eq(t, "['A', [('z', 1)]]", r.Value.(*value.Ref).Repr)
		missing := call(t, s, "kwargs")
		must.NotNil(t, missing.Error)
		test.StrContains(t, missing.Error.Message, "missing 1 required positional argument: 'a'")
	})
	t.Run("measures", func(t *testing.T) {
		before := time.Now()
		r := call(t, s, "echo", "x", nil)
		test.Between(t, before.Add(-time.Second).UnixMicro(), r.Started.UnixMicro(), time.Now().UnixMicro())
		test.Positive(t, r.Duration)
		test.Eq(t, "[]", string(r.APICalls))
		test.Nil(t, r.Metrics)
	})
	t.Run("refuses an unknown node", func(t *testing.T) {
		_, err := s.Call(t.Context(), Call{Node: "nobody"})
		must.ErrorContains(t, err, `"nobody"`)
	})
	t.Run("carries 50 MB", func(t *testing.T) {
		big := strings.Repeat("0123456789", 5<<20)
		r := call(t, s, "echo", "x", []any{big})
		must.Nil(t, r.Error)
		must.True(t, r.Value.([]any)[0].(string) == big)
	})
}

func TestCall_ObjectsStayAndPassByReference(t *testing.T) {
	t.Parallel()
	m := startManager(t, Config{})
	dir := writeFlow(t, "types.json", "{}", "make.py", script(`
import collections, dataclasses, datetime, enum
@dataclasses.dataclass
class Point:
    x: int
    items: list
class Text(str): pass
Pair = collections.namedtuple("Pair", "a b")
class Color(enum.Enum):
    RED = 1
loop = []; loop.append(loop)
deep = []
for _ in range(2000): deep = [deep]
made = {"tuple": (1, 2), "dataclass": Point(1, [5, {"k": "v"}]), "text": Text("t"), "pair": Pair(1, "b"), "color": Color.RED,
        "intkeys": {1: 2}, "nested": [{"a": (1,)}], "bytes": b"x", "gen": (c for c in "abc"), "loop": loop, "deep": deep,
        "odict": collections.OrderedDict(a=1), "huge": 10 ** 5000, "date": datetime.date(2020, 1, 2)}
@tool
def make(kind: str):
    return made[kind]
`), "take.py", script("@tool\ndef take(x, y=None):\n    return [type(x).__name__, id(x), repr(y)]\n"),
		"ident.py", script("@tool\ndef ident(x):\n    return str(id(x))\n"))
	f := open(t, m, FlowSpec{ID: "f", Dir: dir, Nodes: []*value.Dict{
		node("make", "make.py", "kind", "${inputs.kind}"), node("take", "take.py", "x", "${make.output}", "y", "${inputs.y}"),
		node("ident", "ident.py", "x", "${make.output}"),
	}})
	s := lease(t, f)
	made := func(kind string) *value.Ref {
		r := call(t, s, "make", "kind", kind)
		must.Nil(t, r.Error, must.Sprintf("%s: %v", kind, r.Error))
		ref, ok := r.Value.(*value.Ref)
		must.True(t, ok, must.Sprintf("%s came as %v", kind, r.Value))
		return ref
	}
	for kind, want := range map[string]struct{ typ, record, repr string }{
		"tuple":     {"tuple", "[1,2]", "(1, 2)"},
		"dataclass": {"__pf_main__.Point", "", "Point(x=1, items=[5, {'k': 'v'}])"},
		"text":      {"__pf_main__.Text", `"t"`, "'t'"},
		"pair":      {"__pf_main__.Pair", `[1,"b"]`, "Pair(a=1, b='b')"},
		"color":     {"__pf_main__.Color", "", "<Color.RED: 1>"},
		"intkeys":   {"dict", `{"1":2}`, "{1: 2}"},
		"nested":    {"list", `[{"a":[1]}]`, "[{'a': (1,)}]"},
		"bytes":     {"bytes", "", "b'x'"},
		"odict":     {"collections.OrderedDict", `{"a":1}`, "OrderedDict([('a', 1)])"},
		"date":      {"datetime.date", "", "datetime.date(2020, 1, 2)"},
		"loop":      {"list", "", "[[...]]"},
	} {
		t.Run(kind, func(t *testing.T) {
			ref := made(kind)
			test.Eq(t, want.typ, ref.Type)
			test.Eq(t, want.record, string(ref.Record))
			test.Eq(t, want.repr, ref.Repr)
			test.False(t, ref.Stream)
		})
	}
	t.Run("what cannot be written or shown does not fail the call", func(t *testing.T) {
		test.Eq(t, "int", made("huge").Type)
		test.Eq(t, "list", made("deep").Type)
	})
	t.Run("a stream says so and is joined once", func(t *testing.T) {
		ref := made("gen")
		test.True(t, ref.Stream)
		test.StrHasPrefix(t, "<generator object", ref.Repr)
		joined, err := s.Join(within(t, time.Minute), ref)
		must.NoError(t, err)
		test.Eq(t, "abc", joined)
	})
	t.Run("two nodes get the same object", func(t *testing.T) {
		ref := made("dataclass")
		one, two := call(t, s, "ident", "x", ref), call(t, s, "ident", "x", ref)
		test.Eq(t, one.Value, two.Value)
		r := call(t, s, "take", "x", ref, "y", []any{"in a list", ref})
		must.Nil(t, r.Error)
		list := r.Value.([]any)
		test.Eq(t, any("Point"), list[0])
		test.Eq(t, any("['in a list', Point(x=1, items=[5, {'k': 'v'}])]"), list[2])
		test.Eq(t, `{"x":"Point(x=1, items=[5, {'k': 'v'}])","y":["in a list","Point(x=1, items=[5, {'k': 'v'}])"]}`, string(r.Inputs))
	})
	t.Run("properties", func(t *testing.T) {
		ref := made("dataclass")
		for path, want := range map[string]string{"x": "1", "items[1].k": "'v'", "items[1]['k']": "'v'"} {
			v, err := s.Property(within(t, time.Minute), ref, "make", path)
			must.NoError(t, err)
			test.Eq(t, want, value.Repr(v))
		}
		_, err := s.Property(within(t, time.Minute), ref, "make", "nothing")
		must.ErrorContains(t, err, "Invalid property 'nothing' when accessing the node 'make'")
		r, err := s.Call(within(t, time.Minute), Call{Node: "ident", RunID: "r", Inputs: []Input{{Name: "x", Value: ref, Property: "items", Source: "make"}}})
		must.NoError(t, err)
		must.Nil(t, r.Error)
		test.Eq(t, `{"x":[5,{"k":"v"}]}`, string(r.Inputs))
		r, err = s.Call(within(t, time.Minute), Call{Node: "ident", RunID: "r", Inputs: []Input{{Name: "x", Value: ref, Property: "no", Source: "make"}}})
		must.NoError(t, err)
		must.NotNil(t, r.Error)
		test.Eq(t, "InvalidReferenceProperty", r.Error.Class())
	})
	t.Run("equality is Python's", func(t *testing.T) {
		eq, err := s.Equal(within(t, time.Minute), made("text"), "t")
		must.NoError(t, err)
		test.True(t, eq)
		eq, err = s.Equal(within(t, time.Minute), made("tuple"), []any{int64(1), int64(2)})
		must.NoError(t, err)
		test.False(t, eq)
	})
	t.Run("released objects are gone", func(t *testing.T) {
		other := lease(t, f)
		r := call(t, other, "ident", "x", made("tuple"))
		must.NotNil(t, r.Error)
		test.StrContains(t, r.Error.Message, "was released")
	})
}

func TestCall_OutputAndMetricsDoNotMix(t *testing.T) {
	t.Parallel()
	m := startManager(t, Config{Workers: 1})
	dir := writeFlow(t, "sync.py", script(`
import sys, time
@tool
def f(i: int):
    for k in range(20):
        print(f"<{i}>")
        sys.stderr.write(f"({i})")
        time.sleep(0.002)
    log_metric("m", i)
    return i
`), "async.py", script(`
import asyncio, sys
@tool
async def f(i: int):
    for k in range(20):
        print(f"<{i}>", end="")
        await asyncio.sleep(0.002)
    log_metric("m", i)
    log_metric("nan", float("nan"))
    log_metric("odd", {1, 2})
    return i
`))
	f := open(t, m, FlowSpec{ID: "f", Dir: dir, Nodes: []*value.Dict{node("sync", "sync.py", "i", "${inputs.i}"), node("async", "async.py", "i", "${inputs.i}")}})
	s := lease(t, f)
	stamp := regexp.MustCompile(`\[\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+0000\] `)
	var wg sync.WaitGroup
	for i := range 24 {
		for _, name := range []string{"sync", "async"} {
			wg.Go(func() {
				r, err := s.Call(within(t, time.Minute), callOf(name, "i", int64(i)))
				test.NoError(t, err)
				test.Nil(t, r.Error)
				line := fmt.Sprintf("<%d>", i)
				if name == "sync" {
					test.Eq(t, strings.Repeat(line+"\n", 20), stamp.ReplaceAllString(r.Stdout, ""))
					test.Eq(t, strings.Repeat(fmt.Sprintf("(%d)", i), 20), stamp.ReplaceAllString(r.Stderr, ""))
					test.Eq(t, fmt.Sprintf(`{"m":%d}`, i), string(r.Metrics))
				} else {
					test.Eq(t, strings.Repeat(line, 20), stamp.ReplaceAllString(r.Stdout, ""))
					test.Eq(t, 40, len(stamp.FindAllString(r.Stdout, -1))) // print writes its empty end too, as in prompt flow
					test.Eq(t, fmt.Sprintf(`{"m":%d,"nan":NaN,"odd":"{1, 2}"}`, i), string(r.Metrics))
				}
			})
		}
	}
	wg.Wait()
}

func TestCall_Many(t *testing.T) {
	t.Parallel()
	m := startManager(t, Config{Workers: 1})
	dir := writeFlow(t, "sync.py", script("import time\n@tool\ndef f():\n    time.sleep(0.5)\n    return 1\n"),
		"async.py", script("import asyncio\n@tool\nasync def f():\n    await asyncio.sleep(0.5)\n    return 1\n"))
	f := open(t, m, FlowSpec{ID: "f", Dir: dir, Nodes: []*value.Dict{node("sync", "sync.py"), node("async", "async.py")}})
	for _, name := range []string{"sync", "async"} {
		start := time.Now()
		var wg sync.WaitGroup
		for range 200 {
			wg.Go(func() {
				s, err := f.Lease(within(t, time.Minute))
				test.NoError(t, err)
				defer s.Release()
				r, err := s.Call(within(t, time.Minute), callOf(name))
				test.NoError(t, err)
				test.Nil(t, r.Error)
			})
		}
		wg.Wait()
		test.Less(t, 10*time.Second, time.Since(start)) // 100 s one after the other
	}
}

func TestLoad_ModulesOfFlowsNeverMeet(t *testing.T) {
	t.Parallel()
	m := startManager(t, Config{})
	flow := func(word string) *Session {
		dir := writeFlow(t, "helper.py", "WORD = '"+word+"'\n", "pkg/__init__.py", "", "pkg/inner.py", "from . import sub\nWORD = sub.WORD\n",
			"pkg/sub.py", "WORD = 'sub-"+word+"'\n", "data.txt", "data-"+word,
			"a.py", script(`
import os
import helper
from pkg.inner import WORD
count = []
@tool
def f():
    count.append(1)
    return [helper.WORD, WORD, open("data.txt").read(), os.path.basename(__file__), os.path.isabs(__file__), os.getcwd(), __name__, len(count),
            os.environ.get("FLOW_WORD"), os.environ.get("BROWSER")]
`))
		f := open(t, m, FlowSpec{ID: word, Dir: dir, Nodes: []*value.Dict{node("one", "a.py"), node("two", "a.py")},
			Env: map[string]string{"FLOW_WORD": word, "BROWSER": "x"}})
		return lease(t, f)
	}
	for _, word := range []string{"red", "blue"} {
		s := flow(word)
		for range 2 {
			call(t, s, "one")
		}
		got := call(t, s, "two").Value.([]any) // the same script is loaded once per node
		cwd, _ := filepath.EvalSymlinks(s.flow.spec.Dir)
		test.Eq(t, []any{word, "sub-" + word, "data-" + word, "a.py", true, any(cwd), "__pf_main__", int64(1), word, any(os.Getenv("BROWSER"))},
			orEmpty(got))
	}
}

// orEmpty shows None as "", as an unset variable of ours looks.
func orEmpty(list []any) []any {
	for i, v := range list {
		if v == nil {
			list[i] = ""
		}
	}
	return list
}

func TestLoad_Errors(t *testing.T) {
	t.Parallel()
	m := startManager(t, Config{})
	dir := writeFlow(t, "good.py", script("@tool\ndef f(): return 1\n"), "none.py", "x = 1\n", "syntax.py", "def f(:\n",
		"two.py", script("@tool\ndef f(): pass\n@tool\ndef g(): pass\n"), "exit.py", "import sys; sys.exit(3)\n", "int.py", script("@tool\ndef f(n: int): return n\n"),
		"provider.py", script("class P(ToolProvider):\n    def __init__(self, base: int):\n        super().__init__()\n        self.base = base\n    @tool\n    def add(self, n: int):\n        return self.base + n\n"))
	f, err := m.Open(within(t, time.Minute), FlowSpec{ID: "f", Dir: dir, Nodes: []*value.Dict{
		node("good", "good.py"), node("none", "none.py"), node("syntax", "syntax.py"), node("two", "two.py"), node("missing", "nowhere.py"),
		node("exit", "exit.py"), node("int", "int.py", "n", "many"), node("provider", "provider.py", "base", "40", "n", "${inputs.n}"),
		node("noinit", "provider.py", "n", "${inputs.n}"),
	}})
	must.NoError(t, err)
	t.Cleanup(func() { must.NoError(t, f.Close()) })
	want := map[string][2]string{
		"none":    {"NoToolDefined", "Tool load failed in 'none': (NoToolDefined) No tool found in the python script."},
		"syntax":  {"PythonLoadError", "Tool load failed in 'syntax': (PythonLoadError) Failed to load python module from file"},
		"two":     {"MultipleToolsDefined", "Expected 1 but collected 2 tools: f, g."},
		"missing": {"InvalidSource", "Load tool failed for node 'missing'. Tool file 'nowhere.py' can not be found."},
		"exit":    {"SystemExit", "Tool load failed in 'exit': (SystemExit) 3"},
		"int":     {"NodeInputValidationError", "Input 'n' for node 'int' of value 'many' is not type int."},
		"noinit":  {"MissingRequiredInputs", "Required inputs ['base'] are not provided"},
	}
	for _, tool := range f.Tools() {
		w, wrong := want[tool.Node]
		if !wrong {
			test.Nil(t, tool.Error, test.Sprint(tool.Node))
			continue
		}
		must.NotNil(t, tool.Error, must.Sprint(tool.Node))
		test.Eq(t, w[0], tool.Error.Class())
		test.StrContains(t, tool.Error.Message, w[1])
	}
	s := lease(t, f)
	test.Eq(t, any(int64(42)), call(t, s, "provider", "n", int64(2)).Value)
}

func TestLoad_ConnectionsAreFoundAndTheirSecretsNeverShown(t *testing.T) {
	t.Parallel()
	m := startManager(t, Config{})
	dir := writeFlow(t, "c.py", script(`
from promptflow.connections import CustomConnection
@tool
def f(conn: CustomConnection, x: str):
    print("the secret is", conn.secrets["token"], "at", conn.configs["url"])
    return [type(conn).__name__, conn.token == "s3cr3t-value"]
`))
	spec := FlowSpec{ID: "f", Dir: dir, Nodes: []*value.Dict{node("n", "c.py", "conn", "mine", "x", "${inputs.x}")},
		Connections: []byte(`{"mine":{"type":"CustomConnection","module":"promptflow.connections","value":{"token":"s3cr3t-value","url":"http://u"},"secret_keys":["token"]}}`)}
	s := lease(t, open(t, m, spec))
	r := call(t, s, "n", "x", "y")
	must.Nil(t, r.Error)
	test.Eq(t, []any{"CustomConnection", true}, r.Value.([]any))
	test.Eq(t, `{"conn":"mine","x":"y"}`, string(r.Inputs))
	test.StrContains(t, r.Stdout, "**data_scrubbed**")
	test.StrContains(t, r.Stdout, "http://u")
	test.StrNotContains(t, r.Stdout, "s3cr3t")

	spec.Connections = nil
	f, err := m.Open(within(t, time.Minute), spec)
	must.NoError(t, err)
	t.Cleanup(func() { must.NoError(t, f.Close()) })
	test.Eq(t, []string{"UserError", "ValidationError", "InvalidRequest", "GetConnectionError"}, f.Tools()[0].Error.Chain())
	test.StrContains(t, f.Tools()[0].Error.Message, "Get connection 'mine' for node 'n' error")
}

func TestRender(t *testing.T) {
	t.Parallel()
	m := startManager(t, Config{})
	f := open(t, m, FlowSpec{ID: "f", Dir: t.TempDir()})
	s := lease(t, f)
	vars := value.NewDict()
	vars.Set("a", nil)
	vars.Set("d", []any{int64(1), "x", true})
	text, err := s.Render(within(t, time.Minute), "{% if true %}\n{{ a }}|{{ d }}|{{ missing }}|{{ 2 ** 10 }}\n{% endif %}\n", vars)
	must.NoError(t, err)
	test.Eq(t, "None|[1, 'x', True]||1024\n", text)

	_, err = s.Render(within(t, time.Minute), "{{ a.b.c }}", vars)
	must.ErrorContains(t, err, "Failed to render jinja template: UndefinedError: 'None' has no attribute 'b'")
	_, err = s.Render(within(t, time.Minute), "{{ ''.__class__.__mro__ }}", vars)
	must.ErrorContains(t, err, "SecurityError")

	variables, err := s.Variables(within(t, time.Minute), "![image]({{pic}}) {{ before }} {% for x in list %}{{ x }}{% endfor %}")
	must.NoError(t, err)
	test.Eq(t, []Variable{{"pic", "image"}, {"before", "string"}, {"list", "string"}}, variables)
	_, err = s.Variables(within(t, time.Minute), "{{ before")
	must.ErrorContains(t, err, "unexpected end of template")
}

func TestJoin(t *testing.T) {
	t.Parallel()
	m := startManager(t, Config{Workers: 1})
	dir := writeFlow(t, "sync.py", script("@tool\ndef f(n: int):\n    for i in range(n):\n        if i == 3: raise ValueError('three')\n        yield i\n"),
		"async.py", script("import asyncio\n@tool\nasync def f(n: int):\n    for i in range(n):\n        await asyncio.sleep(0)\n        yield f'<{i}>'\n"),
		"wrapped.py", script("@tool\ndef f(n: int):\n    return {'stream': (str(i) for i in range(n)), 'n': n}\n"))
	f := open(t, m, FlowSpec{ID: "f", Dir: dir, Nodes: []*value.Dict{
		node("sync", "sync.py", "n", "${inputs.n}"), node("async", "async.py", "n", "${inputs.n}"), node("wrapped", "wrapped.py", "n", "${inputs.n}"),
	}})
	for _, tool := range f.Tools()[:2] {
		test.True(t, tool.Generator)
		test.False(t, tool.Async)
	}
	s := lease(t, f)
	for name, want := range map[string]string{"sync": "012", "async": "<0><1><2>"} {
		r := call(t, s, name, "n", int64(3))
		must.Nil(t, r.Error)
		ref := r.Value.(*value.Ref)
		must.True(t, ref.Stream)
		text, err := s.Join(within(t, time.Minute), ref)
		must.NoError(t, err)
		test.Eq(t, want, text)
		text, err = s.Join(within(t, time.Minute), ref)
		must.NoError(t, err)
		test.Eq(t, "", text) // consumed
	}
	_, err := s.Join(within(t, time.Minute), call(t, s, "sync", "n", int64(5)).Value.(*value.Ref))
	must.ErrorContains(t, err, "three")
	inner, err := s.Property(within(t, time.Minute), call(t, s, "wrapped", "n", int64(2)).Value.(*value.Ref), "wrapped", "stream")
	must.NoError(t, err)
	text, err := s.Join(within(t, time.Minute), inner.(*value.Ref))
	must.NoError(t, err)
	test.Eq(t, "01", text)
}

func TestCall_TracingOnRequest(t *testing.T) {
	t.Parallel()
	m := startManager(t, Config{Workers: 1})
	dir := writeFlow(t, "a.py", script("from promptflow.tracing import trace\n@trace\ndef inner(a): return a + 1\n@tool\ndef f(n: int): return inner(n)\n"))
	f := open(t, m, FlowSpec{ID: "f", Dir: dir, Nodes: []*value.Dict{node("n", "a.py", "n", "${inputs.n}")}, Env: map[string]string{"PF_DISABLE_TRACING": "false"}})
	r := call(t, lease(t, f), "n", "n", int64(1))
	must.Nil(t, r.Error)
	calls, err := value.Decode(r.APICalls)
	must.NoError(t, err)
	outer := calls.([]any)[0].(*value.Dict)
	name, _ := outer.Get("name")
	node, _ := outer.Get("node_name")
	children, _ := outer.Get("children")
	child, _ := children.([]any)[0].(*value.Dict).Get("name")
	test.Eq(t, []any{"f", "n", "inner"}, []any{name, node, child})
}

func TestLoad_PackageTools(t *testing.T) {
	t.Parallel()
	site := writeFlow(t, "my_tools/__init__.py", "", "my_tools/greet.py", script("@tool\ndef greet(name: str, times: int = 1): return f'hello {name}' * times\n"),
		"my_tools/listing.py", `
def tools():
    return {"my_tools.greet.greet": {"name": "greet", "type": "python", "module": "my_tools.greet", "function": "greet",
            "inputs": {"name": {"type": ["string"]}, "times": {"type": ["int"], "default": "1"}}}}
`, "my_tools-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: my-tools\nVersion: 1.0\n",
		"my_tools-1.0.dist-info/entry_points.txt", "[package_tools]\nmy_tools = my_tools.listing:tools\n")
	packaged := func(name, tool string, inputs ...any) *value.Dict {
		n := node(name, "", inputs...)
		source := value.NewDict()
		source.Set("type", "package")
		source.Set("tool", tool)
		n.Set("source", source)
		return n
	}
	m := startManager(t, Config{Env: append(cleanEnviron(os.Environ()), "PYTHONPATH="+site)})
	f, err := m.Open(within(t, time.Minute), FlowSpec{ID: "f", Dir: t.TempDir(), Nodes: []*value.Dict{
		packaged("greet", "my_tools.greet.greet", "name", "${inputs.name}", "times", "2"),
		packaged("serp", "promptflow.tools.serpapi.SerpAPI.search", "connection", "serp", "query", "${inputs.q}"),
		packaged("none", "my_tools.nothing"),
	}, Connections: []byte(`{"serp":{"type":"SerpConnection","module":"promptflow.connections","value":{"api_key":"k-e-y"}}}`)})
	must.NoError(t, err)
	t.Cleanup(func() { must.NoError(t, f.Close()) })
	tools := f.Tools()
	must.Nil(t, tools[0].Error)
	must.Nil(t, tools[1].Error)
	test.Eq(t, "PackageToolNotFoundError", tools[2].Error.Class())
	r := call(t, lease(t, f), "greet", "name", "Ann")
	must.Nil(t, r.Error)
	test.Eq(t, any("hello Annhello Ann"), r.Value)
}

package worker

import (
	"testing"

	"github.com/shoenig/test/must"
)

func TestCall_PlainValue(t *testing.T) {
	m := startManager(t, Config{})
	f := open(t, m, FlowSpec{ID: "f", Dir: writeFlow(t, "a.py", script("@tool\ndef f(a: int, b: str = 'x') -> str:\n    print('hi', a)\n    return b * a\n")),
		Nodes: nodes(node("n", "a.py", "a", "3", "b", "${inputs.b}"))})
	s := lease(t, f)
	r := call(t, s, "n", "b", "zß")
	must.Nil(t, r.Error)
	must.Eq(t, any("zßzßzß"), r.Value)
	must.Eq(t, `{"a":3,"b":"zß"}`, string(r.Inputs))
	t.Log(r.Stdout)
}

package template

import (
	"bytes"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/e2e/harness"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// pieces are what generated templates are put together of; many are on the edge of the native part.
var pieces = []string{
	"text", " ", "\n", "\r\n", "\r", "\t", "{", "}", "{ {", "} }", "%}", "#}", "}}", "日本", "é", "\U0001F600", "system:\n", "# user:\n", "\\", "'", "\"",
	"{{ a }}", "{{b}}", "{{\tc\n}}", "{{  d  }}", "{{ e }}", "{{ f }}", "{{ g }}", "{{ missing_name }}", "{{ a_1 }}", "{{ _x }}", "{{ A }}",
	"{{ if }}", "{{ loop }}", "{{ debug }}", "{{ async }}", "{{ class }}", "{{ import }}", "{{ lambda }}", "{{ print }}", "{{ l_0_a }}", "{{ t_1 }}",
	"{{ __class__ }}", "{{ yield }}", "{{ set }}", "{{ block }}", "{{ include }}", "{{ cycler }}", "{{ autoescape }}", "{{ environment }}", "{{ blocks }}",
	"{{ a.b }}", "{{ a|upper }}", "{{- a }}", "{{ a -}}", "{# c #}", "{% if a %}", "{% endif %}", "{{{ a }}}", "{{", "{%", "{#", "{{ a b }}", "{{ not a }}",
	"# for x in y", "## line", "{{ event }}", "{{ resolve }}", "{{ undefined }}", "{{ concat }}", "{{ str }}", "{{ escape }}", "{{ name }}", "{{ root }}",
	"{{ context }}", "{{ missing }}", "{{ super }}", "{{ caller }}", "{{ varargs }}", "{{ kwargs }}", "{{ recursive }}", "{{ self }}", "{{ range }}",
}

var values = []any{
	nil, true, false, int64(0), int64(-7), int64(math.MaxInt64), new(big.Int).Lsh(big.NewInt(1), 200), 0.0, math.Copysign(0, -1), 1.0, 1e16, 1.5e-7, 123456.789,
	math.Inf(1), math.NaN(), "", "x", "{{ a }}", "<b>&'\"", "line\nline", "cr\r\n", "日本語", "user:\nhi", "\ufeff\u0085\u2028",
	[]any{}, []any{int64(1), "a", nil, 1.5, []any{true}}, value.NewDict(), []any{"quote ' and \""},
}

type generated struct {
	source    string
	vars      *value.Dict
	chatLists bool
}

func generate(rng *rand.Rand) generated {
	g := generated{vars: value.NewDict(), chatLists: rng.IntN(4) == 0}
	for range rng.IntN(9) {
		g.source += pieces[rng.IntN(len(pieces))]
	}
	for _, name := range []string{"a", "b", "c", "d", "e", "f", "g", "a_1", "_x", "A", "if", "loop", "class", "t_1", "environment", "name", "context", "resolve", "missing", "undefined", "concat", "super", "caller", "kwargs", "varargs", "range"} {
		switch rng.IntN(4) {
		case 0:
		case 1:
			inner := value.NewDict()
			inner.Set("k'", values[rng.IntN(len(values)-8)])
			g.vars.Set(name, inner)
		default:
			g.vars.Set(name, values[rng.IntN(len(values))])
		}
	}
	return g
}

// askOracle runs a Python program of testdata on a JSON document and returns its answer.
func askOracle(t *testing.T, program string, document any) []any {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), harness.Python(t), filepath.Join("testdata", program))
	cmd.Stdin = bytes.NewReader(value.Encode(document))
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	err := cmd.Run()
	must.NoError(t, err, must.Sprint(stderr.String()[max(0, stderr.Len()-2000):]))
	v, err := value.Decode(out.Bytes())
	must.NoError(t, err)
	return v.([]any)
}

// TestNative_GivesJinja2sText renders generated templates natively and with promptflow-tools. Whatever is rendered natively
// must be the same text; how much is native is checked too, so that the test cannot pass by refusing everything.
func TestNative_GivesJinja2sText(t *testing.T) {
	harness.Integration(t)
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2026))
	cases := make([]generated, 3000)
	document := make([]any, len(cases))
	for i := range cases {
		cases[i] = generate(rng)
		document[i] = dict("source", cases[i].source, "vars", cases[i].vars, "chat_lists", cases[i].chatLists)
	}
	native := 0
	for i, answer := range askOracle(t, "oracle.py", document) {
		c := cases[i]
		tpl, ok := Parse(c.source)
		if !ok {
			continue
		}
		got, ok := tpl.Render(c.vars, Options{ChatLists: c.chatLists})
		if !ok {
			continue
		}
		native++
		want, _ := answer.(*value.Dict).Get("text")
		where := fmt.Sprintf("case %d: %q with %s", i, c.source, value.Encode(c.vars))
		must.Eq(t, want, any(got), must.Sprint(where, " ", string(value.Encode(answer))))
		names, _ := answer.(*value.Dict).Get("names")
		mine := []any{}
		for _, n := range slices.Sorted(slices.Values(tpl.Variables())) {
			mine = append(mine, n)
		}
		must.Eq(t, names.([]any), mine, must.Sprint(where))
	}
	must.Greater(t, len(cases)/5, native)
	t.Logf("%d of %d templates rendered natively", native, len(cases))
}
